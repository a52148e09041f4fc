import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { agentMachine } from '../../src/machines/agent-machine.ts';
import { breakerMachine } from '../../src/machines/breaker-machine.ts';
import { gatekeeperMachine } from '../../src/machines/gatekeeper-machine.ts';
import { overseerMachine } from '../../src/machines/overseer-machine.ts';
import { runMachine } from '../../src/machines/run-machine.ts';
import { taskMachine } from '../../src/machines/task-machine.ts';
import type { Meta } from '../../src/protocol/message.ts';
import { MachineDriver, type PersistedSnapshot } from '../../src/runtime/xstate-driver.ts';
import { isManifest, isMarked, readManifest } from '../../src/store/payload/packed-text.ts';
import { EMPTY_SHELF, Shelf, Unpacker } from '../../src/store/payload/unpacker.ts';
import { RowReader } from '../../src/store/sqlite/row-reader.ts';
import type {
  ActorRecord,
  AttemptRow,
  CheckpointRecord,
  DeadLetterRecord,
  Pending,
  RunRow,
  TaskRow,
} from '../../src/store/store.ts';
import { type Fact, readHistory } from './history.ts';
import type { Expectation } from './invariants.ts';

/** An event as it was handled, with who sent it and when. */
export interface StoredEvent {
  readonly type: string;
  readonly meta: Meta;
  readonly [field: string]: unknown;
}

export interface Checkpoint extends CheckpointRecord {
  readonly event: StoredEvent | null;
  readonly snapshot: PersistedSnapshot;
}

export interface StoredActorLife {
  readonly record: ActorRecord;
  readonly checkpoints: readonly Checkpoint[];
}

/** A commit on the target branch since the base, oldest first. */
export interface TargetCommit {
  readonly id: string;
  readonly tree: string;
  /** `<run>/<task>` of its trailer; empty if it is not ours. */
  readonly task: string;
}

/** What a gatekeeper has kept, as far as it can be read. */
export interface StoredArtifact {
  readonly file: string;
  readonly content: Readonly<Record<string, unknown>> | undefined;
}

export interface ProjectWorld {
  readonly directory: string;
  readonly commits: readonly TargetCommit[];
  readonly artifacts: readonly StoredArtifact[];
  git(...args: string[]): string;
}

/** Everything an invariant may look at, read once. */
export interface World extends Disposable {
  readonly expect: Expectation;
  readonly database: Database.Database;
  readonly actors: readonly StoredActorLife[];
  readonly runs: readonly RunRow[];
  readonly tasks: readonly TaskRow[];
  readonly attempts: readonly AttemptRow[];
  readonly pending: Pending;
  readonly deadLetters: readonly DeadLetterRecord[];
  readonly history: readonly Fact[];
  readonly hasHistory: boolean;
  readonly project: ProjectWorld | undefined;
  /** The pure machine of an actor, without any effects: nothing can run by replaying it. */
  driver(machine: string): MachineDriver | undefined;
}

const MACHINES = {
  agent: agentMachine,
  breaker: breakerMachine,
  gatekeeper: gatekeeperMachine,
  overseer: overseerMachine,
  run: runMachine,
  task: taskMachine,
} as const;

export function openWorld(options: {
  readonly projectDirectory?: string;
  readonly storePath: string;
  readonly history?: string;
  readonly expect: Expectation;
}): World {
  const { projectDirectory, storePath, history, expect } = options;
  const database = new Database(storePath, { readonly: true, fileMustExist: true });
  const reader = new RowReader(database);
  const drivers = new Map<string, MachineDriver>(
    Object.entries(MACHINES).map(([name, machine]) => [
      name,
      new MachineDriver(machine as never, { freeze: false }),
    ]),
  );
  const plain = <R extends object>(row: R): R => withPlainTexts(row, reader);
  const runs = reader.listRuns().map(plain);
  const tasks = runs.flatMap(({ run }) => reader.listTasks(run)).map(plain);
  const pending = reader.loadPending();
  return {
    expect,
    database,
    actors: reader.listActors().map((record) => ({
      record,
      checkpoints: reader
        .listCheckpoints(record.address)
        .map(plain)
        .map((checkpoint) => ({
          ...checkpoint,
          event: checkpoint.eventJson === null ? null : JSON.parse(checkpoint.eventJson),
          snapshot: JSON.parse(checkpoint.snapshotJson),
        })),
    })),
    runs,
    tasks,
    attempts: tasks.flatMap(({ run, task }) => reader.listAttempts(run, task)).map(plain),
    pending: { ...pending, messages: pending.messages.map(plain) },
    deadLetters: reader.listDeadLetters(),
    history: history === undefined ? [] : readHistory(history),
    hasHistory: history !== undefined,
    project:
      projectDirectory === undefined ? undefined : readProject(projectDirectory, expect.base),
    driver: (machine) => drivers.get(machine),
    [Symbol.dispose]: () => {
      database.close();
    },
  };
}

/** A store keeps long texts in pieces, each once: puts them together again. */
function withPlainTexts<R extends object>(row: R, reader: RowReader): R {
  const unpacker = new Unpacker(undefined);
  const plain = { ...row } as Record<string, unknown>;
  for (const [column, text] of Object.entries(row)) {
    if (!column.endsWith('Json') || typeof text !== 'string' || !isMarked(text)) continue;
    const lists = isManifest(text) ? readManifest(text).lists : [];
    const shelf = lists.length === 0 ? EMPTY_SHELF : new Shelf(reader.loadChunks(lists));
    // Without a key it does not matter of what kind a text is.
    plain[column] = unpacker.text(text, 'text', `${column} of a row`, shelf);
  }
  return plain as R;
}

function readProject(directory: string, base: string | undefined): ProjectWorld {
  const git = (...args: string[]): string => gitAsUser(directory, ...args);
  const range = base === undefined ? 'refs/heads/main' : `${base}..refs/heads/main`;
  const format = '--format=%H%x09%T%x09%(trailers:key=Troupe-Task,valueonly,separator=%x2C)';
  const log = git('log', '--first-parent', '--reverse', format, range);
  const commits = log
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [id = '', tree = '', task = ''] = line.split('\t');
      return { id, tree, task };
    });
  return { directory, commits, artifacts: readArtifacts(directory), git };
}

function readArtifacts(directory: string): StoredArtifact[] {
  const root = path.join(directory, '.troupe', 'tasks');
  let names: string[];
  try {
    names = readdirSync(root, { recursive: true, encoding: 'utf8' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names
    .filter((name) => name.endsWith('.json') && name.includes('/gatekeeper/'))
    .map((name) => {
      const file = path.join(root, name);
      return { file, content: parsed(readFileSync(file, 'utf8')) };
    });
}

function parsed(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    return JSON.parse(text) as Readonly<Record<string, unknown>>;
  } catch {
    return undefined; // whoever looks for the artifact says so
  }
}

/** Git as a user would run it, with nothing of this machine's configuration. */
export function gitAsUser(directory: string, ...args: string[]): string {
  return execFileSync('git', args, {
    cwd: directory,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env['PATH'],
      HOME: '/nonexistent',
      LC_ALL: 'C',
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_CONFIG_GLOBAL: '/dev/null',
      GIT_OPTIONAL_LOCKS: '0',
      GIT_AUTHOR_NAME: 'Test',
      GIT_AUTHOR_EMAIL: 'test@example.org',
      GIT_COMMITTER_NAME: 'Test',
      GIT_COMMITTER_EMAIL: 'test@example.org',
    },
  }).trim();
}
