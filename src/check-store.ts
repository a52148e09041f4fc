import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { AnyStateMachine } from 'xstate';
import { NotFoundError, TroupeError } from './protocol/errors.ts';
import { noFaults } from './protocol/fault-point.ts';
import type { MachineOptions } from './runtime/durable-host.ts';
import type { PayloadCodec } from './store/payload/codec.ts';
import { PackedStore } from './store/payload/packed-store.ts';
import { backUp } from './store/sqlite/back-up.ts';
import { openSqliteStore } from './store/sqlite/sqlite-store.ts';
import { type StoreCheck, Troupe } from './troupe.ts';

export interface CheckStoreOptions {
  /** Machines of your own, as they are registered: with their version and migrations. */
  readonly machines?: readonly (
    | AnyStateMachine
    | readonly [machine: AnyStateMachine, options: MachineOptions]
  )[];
  /** The one it was written with. */
  readonly codec?: PayloadCodec;
}

/**
 * Tries an upgrade before it is made: brings a copy of a store up to date and restores the state of every actor in it
 * with the code of today. The store itself is only read, also while another process works on it, and nothing runs.
 * Meant for CI: refuse the upgrade when there are `problems`.
 * @throws {NotFoundError} there is no such file
 * @throws {TroupeError} it is no store, damaged, or of a newer Troupe
 */
export async function checkStore(
  file: string,
  { machines = [], codec }: CheckStoreOptions = {},
): Promise<StoreCheck> {
  const source = path.resolve(file);
  if (!existsSync(source)) {
    throw new NotFoundError(`There is no store ${source}. Name the file that is to be checked.`);
  }
  const directory = await mkdtemp(path.join(tmpdir(), 'troupe-check-'));
  const copy = path.join(directory, 'state.db');
  const options = { store: copy, ...(codec === undefined ? {} : { codec }) };
  try {
    await backUp(source, copy);
    const store = new PackedStore(
      await openSqliteStore({ path: copy, durability: 'normal' }),
      options,
    );
    try {
      const silent = (await import('pino')).pino({ level: 'silent' });
      // Never opened: nothing runs.
      const troupe = new Troupe(options, store, undefined, silent, noFaults, undefined);
      for (const entry of machines) {
        if (isPair(entry)) troupe.register(...entry);
        else troupe.register(entry);
      }
      return await troupe.check();
    } finally {
      await store.close();
    }
  } catch (error) {
    throw error instanceof TroupeError ? inWordsOf(source, copy, error) : error;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** What is wrong with the copy is wrong with the file that the caller knows. */
function inWordsOf(source: string, copy: string, error: TroupeError): TroupeError {
  if (!error.message.includes(copy)) return error;
  return new TroupeError(error.code, error.message.replaceAll(copy, source), {
    cause: error,
    context: error.context,
    retryable: error.retryable,
  });
}

function isPair(
  entry: AnyStateMachine | readonly [AnyStateMachine, MachineOptions],
): entry is readonly [AnyStateMachine, MachineOptions] {
  return Array.isArray(entry);
}
