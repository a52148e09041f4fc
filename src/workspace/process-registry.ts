import { randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import {
  identifyProcess,
  isSameProcess,
  type ProcessIdentity,
  processStartTime,
} from '../runtime/process-identity.ts';
import { findMarkedProcesses } from './process-scan.ts';
import { terminateGroup, terminateProcesses } from './terminate.ts';

/**
 * Knows on disk which processes Troupe has started, so that a Troupe that was killed leaves none behind: one
 * small JSON file per running process. Written before the process is spawned (with the marker that it will
 * carry), completed with its pid afterwards, removed when it has ended.
 * Crash: the file stays; `killLeftovers` at the next start ends what it names.
 */
export class ProcessRegistry {
  readonly #directory: string;
  readonly #owner: ProcessIdentity;

  /** @param directory for the files, made if need be; one registry directory per project */
  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true });
    // The directory lies in the user's project: their git is not to see it.
    writeFileSync(path.join(directory, IGNORE_FILE), '*\n');
    const owner = identifyProcess(process.pid);
    if (owner === undefined)
      throw new Error(`cannot find the start time of process ${process.pid}`);
    this.#owner = owner;
  }

  /** Announces a process that is about to be spawned. Synchronous, so that nothing gets between. */
  announce(command: string, directory: string): Job {
    const marker = randomUUID();
    const file = path.join(this.#directory, `${marker}.json`);
    const record: JobRecord = {
      marker,
      command: command.slice(0, MAX_COMMAND_CHARACTERS),
      directory,
      startedAtMs: Date.now(),
      owner: this.#owner,
    };
    writeRecord(file, record);
    return {
      marker,
      started: (pid) => {
        const identity = identifyProcess(pid);
        // Ended already: there is nothing to name, and its children still carry the marker.
        if (identity !== undefined) writeRecord(file, { ...record, process: identity });
      },
      ended: () => rmSync(file, { force: true }),
    };
  }

  /**
   * Ends what an owner that no longer lives has left running: the process group, if its leader is the very
   * process that was recorded (pid, start time and boot), and whatever carries the marker. Each gets a SIGTERM
   * first, so that git removes its lock files. Call it before anything else is started.
   * @returns what was found, files that could not be read included
   */
  async killLeftovers(graceMs = 3000): Promise<Leftover[]> {
    const leftovers: Leftover[] = [];
    for (const name of readdirSync(this.#directory)) {
      const file = path.join(this.#directory, name);
      if (name === IGNORE_FILE) continue;
      if (!name.endsWith('.json')) {
        rmSync(file, { recursive: true, force: true }); // a temporary file of a write that did not end
        continue;
      }
      const record = readRecord(file);
      if (record === undefined) {
        leftovers.push({ kind: 'corrupt', file });
        rmSync(file, { recursive: true, force: true });
        continue;
      }
      if (isSameProcess(record.owner)) continue;
      const killed = await killRecorded(record, graceMs);
      rmSync(file, { force: true });
      leftovers.push({
        kind: 'process',
        command: record.command,
        directory: record.directory,
        startedAtMs: record.startedAtMs,
        killed,
      });
    }
    return leftovers;
  }
}

/** One announced process. */
export interface Job {
  /** Goes into the environment as `TROUPE_JOB`. */
  readonly marker: string;
  started(pid: number): void;
  ended(): void;
}

/** What a dead owner left behind. */
export type Leftover =
  | {
      readonly kind: 'process';
      readonly command: string;
      /** Where it was started. */
      readonly directory: string;
      readonly startedAtMs: number;
      /** The processes that were still alive; none if all had ended by themselves. */
      readonly killed: readonly number[];
    }
  | { readonly kind: 'corrupt'; readonly file: string };

interface JobRecord {
  readonly marker: string;
  readonly command: string;
  readonly directory: string;
  readonly startedAtMs: number;
  readonly owner: ProcessIdentity;
  /** Absent while it is being spawned. It leads a process group of the same number. */
  readonly process?: ProcessIdentity;
}

const IGNORE_FILE = '.gitignore';
const MAX_COMMAND_CHARACTERS = 500;

async function killRecorded(record: JobRecord, graceMs: number): Promise<number[]> {
  const killed: number[] = [];
  if (record.process !== undefined && isSameProcess(record.process)) {
    killed.push(record.process.pid);
    await terminateGroup(record.process.pid, graceMs);
  }
  // Also the members of a group whose leader has ended: its number may belong to somebody else by now.
  const marked = (await findMarkedProcesses(record.marker)).flatMap((pid) => {
    const startTime = processStartTime(pid);
    return startTime === undefined ? [] : [{ pid, startTime }];
  });
  await terminateProcesses(marked, graceMs);
  killed.push(...marked.map(({ pid }) => pid));
  return killed;
}

function writeRecord(file: string, record: JobRecord): void {
  // No fsync: after a power loss there is no process left to find.
  const temporary = `${file}.tmp`;
  writeFileSync(temporary, JSON.stringify(record));
  renameSync(temporary, file);
}

function readRecord(file: string): JobRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
  const record = value as Partial<JobRecord> | null;
  const wellFormed =
    typeof record === 'object' &&
    record !== null &&
    typeof record.marker === 'string' &&
    MARKER.test(record.marker) &&
    typeof record.command === 'string' &&
    typeof record.directory === 'string' &&
    typeof record.startedAtMs === 'number' &&
    isIdentity(record.owner) &&
    (record.process === undefined || isIdentity(record.process));
  return wellFormed ? (record as JobRecord) : undefined;
}

// An empty marker would match nothing, a short one perhaps a stranger.
const MARKER = /^[0-9a-f-]{36}$/;

function isIdentity(value: unknown): value is ProcessIdentity {
  const identity = value as Partial<ProcessIdentity> | null;
  return (
    typeof identity === 'object' &&
    identity !== null &&
    Number.isSafeInteger(identity.pid) &&
    Number(identity.pid) > 1 &&
    typeof identity.startTime === 'string' &&
    typeof identity.bootId === 'string'
  );
}
