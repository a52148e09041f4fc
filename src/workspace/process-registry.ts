import { randomUUID } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import {
  identifyProcess,
  isSameProcess,
  type ProcessIdentity,
  processStartTime,
} from '../runtime/process-identity.ts';
import { cannotKeepFiles } from './ignored-directory.ts';
import { Launcher } from './launcher.ts';
import { findMarkedProcesses } from './process-scan.ts';
import { terminateGroup, terminateProcesses } from './terminate.ts';

/**
 * Knows on disk which processes Troupe has started, so that a Troupe that was killed leaves none behind. Each owner
 * appends to a log of its own, one JSON value per line: first who it is, then for every process a record before it is
 * spawned (with the marker that it will carry), the same with its pid afterwards, and its end. To append is much
 * cheaper than a file for each process: making and removing one waits for the file system's journal, which the
 * database keeps busy.
 * Crash: what has no end in the log may still run; `killLeftovers` at the next start ends it. A line that was cut off
 * is the last one, and loses nothing: either its process was not spawned yet, or an earlier line has its marker.
 */
export class ProcessRegistry {
  readonly #directory: string;
  readonly #owner: ProcessIdentity;
  readonly #running = new Map<string, JobRecord>();
  /** Starts what is short and ours. */
  readonly launcher = new Launcher(this);
  #log: { readonly file: string; readonly fd: number; bytes: number } | undefined;

  /** @param directory for the files, made if need be; one registry directory per project */
  constructor(directory: string) {
    this.#directory = directory;
    try {
      mkdirSync(directory, { recursive: true });
      // The directory lies in the user's project: their git is not to see it.
      writeFileSync(path.join(directory, IGNORE_FILE), '*\n');
    } catch (error) {
      throw cannotKeepFiles(directory, error);
    }
    const owner = identifyProcess(process.pid);
    if (owner === undefined)
      throw new Error(`cannot find the start time of process ${process.pid}`);
    this.#owner = owner;
  }

  /** Announces a process that is about to be spawned. Synchronous, so that nothing gets between. */
  announce(command: string, directory: string): Job {
    const record: JobRecord = {
      marker: randomUUID(),
      command: command.slice(0, MAX_COMMAND_CHARACTERS),
      directory,
      startedAtMs: Date.now(),
      owner: this.#owner,
    };
    const { marker } = record;
    this.#append(record);
    this.#running.set(marker, record);
    return {
      marker,
      started: (pid) => {
        const identity = identifyProcess(pid);
        // Ended already: there is nothing to name, and its children still carry the marker.
        if (identity === undefined) return;
        const started = { ...record, process: identity };
        this.#running.set(marker, started);
        this.#appendIfPossible(started);
      },
      ended: () => {
        if (this.#running.delete(marker)) this.#appendIfPossible({ ended: marker });
      },
    };
  }

  /** For when nothing is to be started any more: the log goes, unless it names a process that could not be ended. */
  close(): void {
    this.launcher.close();
    if (this.#log === undefined) return;
    closeSync(this.#log.fd);
    if (this.#running.size === 0) rmSync(this.#log.file, { force: true });
    this.#log = undefined;
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
      if (name.endsWith(LOG_SUFFIX)) leftovers.push(...(await endOwner(file, graceMs)));
      else rmSync(file, { recursive: true, force: true }); // a log that was not written to its end
    }
    return leftovers;
  }

  /** @throws the system's error: disk full, directory gone */
  #append(entry: JobRecord | { readonly ended: string }): void {
    const log = this.#log;
    // What is written to a file that somebody has removed would be seen by nobody.
    const removed = log !== undefined && fstatSync(log.fd).nlink === 0;
    let current = log;
    if (current === undefined || removed || current.bytes > MAX_LOG_BYTES) {
      current = this.#openLog();
      this.#log = current;
      if (log !== undefined) {
        closeSync(log.fd);
        rmSync(log.file, { force: true });
      }
    }
    // A line break before it, too: the line above may have been cut off by a full disk.
    const line = `\n${JSON.stringify(entry)}\n`;
    current.bytes += writeSync(current.fd, line);
  }

  /** What a marker is on record for may lack the rest: at worst the next start looks for a process that has gone. */
  #appendIfPossible(entry: JobRecord | { readonly ended: string }): void {
    try {
      this.#append(entry);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    }
  }

  /** A new log, with what runs now; complete before it gets its name. */
  #openLog(): { readonly file: string; readonly fd: number; bytes: number } {
    const file = path.join(this.#directory, `${randomUUID()}${LOG_SUFFIX}`);
    const temporary = `${file}.tmp`;
    const lines = [{ owner: this.#owner }, ...this.#running.values()];
    const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
    // No fsync: after a power loss there is no process left to find.
    writeFileSync(temporary, text);
    renameSync(temporary, file);
    return { file, fd: openSync(file, 'a'), bytes: 0 };
  }
}

/** What the logs in a directory say to be running; the order is that of the files. */
export function runningJobs(directory: string): readonly JobRecord[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith(LOG_SUFFIX))
    .flatMap((name) => readLog(path.join(directory, name)).running);
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
const LOG_SUFFIX = '.jsonl';
/** A longer log is written anew, with what runs only. */
const MAX_LOG_BYTES = 1_000_000;
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

async function endRecorded(record: JobRecord, graceMs: number): Promise<Leftover> {
  const killed = await killRecorded(record, graceMs);
  const { command, directory, startedAtMs } = record;
  return { kind: 'process', command, directory, startedAtMs, killed };
}

/** Ends what a log says to be running, and removes it, if its owner is gone. */
async function endOwner(file: string, graceMs: number): Promise<Leftover[]> {
  const { owner, running, damaged } = readLog(file);
  if (owner !== undefined && isSameProcess(owner)) return [];
  const leftovers: Leftover[] = damaged ? [{ kind: 'corrupt', file }] : [];
  for (const record of running) leftovers.push(await endRecorded(record, graceMs));
  rmSync(file, { recursive: true, force: true });
  return leftovers;
}

interface Log {
  readonly owner: ProcessIdentity | undefined;
  readonly running: readonly JobRecord[];
  /** A line cannot be read, and it is not the last one, which a kill may have cut off. */
  readonly damaged: boolean;
}

function readLog(file: string): Log {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return { owner: undefined, running: [], damaged: true };
  }
  const [first = '', ...lines] = text.split('\n');
  const owner = (parse(first) as { owner?: unknown } | null | undefined)?.owner;
  const running = new Map<string, JobRecord>();
  let damaged = !isIdentity(owner);
  for (const [index, line] of lines.entries()) {
    if (line === '') continue;
    const entry = parse(line);
    const ended = (entry as { ended?: unknown } | null | undefined)?.ended;
    if (typeof ended === 'string') running.delete(ended);
    else if (isRecord(entry)) running.set(entry.marker, entry);
    else if (index < lines.length - 1) damaged = true;
  }
  return { owner: isIdentity(owner) ? owner : undefined, running: [...running.values()], damaged };
}

/** @returns undefined for what is no JSON */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is JobRecord {
  const record = value as Partial<JobRecord> | null | undefined;
  return (
    typeof record === 'object' &&
    record !== null &&
    typeof record.marker === 'string' &&
    MARKER.test(record.marker) &&
    typeof record.command === 'string' &&
    typeof record.directory === 'string' &&
    typeof record.startedAtMs === 'number' &&
    isIdentity(record.owner) &&
    (record.process === undefined || isIdentity(record.process))
  );
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
