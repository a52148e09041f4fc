import type { Failure } from '../../protocol/errors.ts';
import type { SqlStatement } from '../store.ts';
import type { FlatBatch } from './batch-rows.ts';
import type { RowReader } from './row-reader.ts';
import type { SqliteConnection } from './sqlite-connection.ts';
import type { WatchedFile } from './watched-file.ts';

/** What the store and its writer's thread say to each other. Plain data: it is copied from thread to thread. */

export type ReadMethod = keyof RowReader;

/** Writes of their own, which are answered and may be refused without any harm to the commits around them. */
export type WriteMethod =
  | 'applyAppSchema'
  | 'claimTasks'
  | 'acquireLease'
  | 'extendLease'
  | 'releaseLease'
  | 'assertOwner'
  | 'replaceTexts'
  | 'prune';

/** A transaction of an app: its statements, and the step as a batch. */
export interface FlatTransaction {
  readonly statements: readonly SqlStatement[];
  readonly scope: string;
  readonly key: string;
  readonly flat: FlatBatch;
}

/** `epoch`: how many failed commits the caller knew of when it made this one. */
export type CommitCall = readonly [id: number, method: 'commit', flat: FlatBatch, epoch: number];
export type TransactCall = readonly [
  id: number,
  method: 'transact',
  transaction: FlatTransaction,
  epoch: number,
];
export type Call =
  | CommitCall
  | TransactCall
  | {
      [M in WriteMethod]: readonly [
        id: number,
        method: 'write',
        name: M,
        args: Parameters<SqliteConnection[M]>,
      ];
    }[WriteMethod]
  | readonly [id: number, method: 'read', name: ReadMethod, args: readonly unknown[]]
  | readonly [id: number, method: 'close'];

/** The answers to several calls travel together: those of one flush, for example. */
export type Reply =
  | readonly [id: number, failure: null, value?: unknown]
  | readonly [id: number, failure: Failure];

export type FromWriter =
  | { readonly type: 'opened'; readonly id: string }
  | { readonly type: 'refused'; readonly failure: Failure }
  | { readonly type: 'replies'; readonly replies: readonly Reply[] }
  | { readonly type: 'warning'; readonly message: string }
  | { readonly type: 'statement'; readonly sql: string }
  /** The writer stands still until `gate` says what the fault point did. */
  | { readonly type: 'point'; readonly name: string };

/** Values of the shared gate at which an armed writer waits. */
export const GATE = { closed: 0, goOn: 1, fail: 2 } as const;

export interface WriterData {
  readonly path: string;
  readonly durability: 'full' | 'normal';
  readonly mayReadBytes: boolean;
  readonly closedCleanly: boolean;
  readonly lock: WatchedFile | undefined;
  readonly busyLimitMs: number;
  readonly fileSystemType: number | undefined;
  /** URL of a directory of schema files other than the product's own. */
  readonly schema: string | undefined;
  /** A test counts what SQLite executes. */
  readonly tellsStatements: boolean;
  /** Present when fault points are armed. */
  readonly gate: SharedArrayBuffer | undefined;
}
