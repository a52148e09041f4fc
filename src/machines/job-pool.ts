import type { Address } from '../protocol/address.ts';
import type { Failure } from '../protocol/errors.ts';
import type { JsonObject, JsonValue } from '../protocol/json.ts';
import type { ReplyTo } from '../protocol/message.ts';

/** Work that was asked for: it waits, then runs as an effect, and its asker is answered once. */
export interface Job {
  /** The effect's id: `job-7`. */
  readonly id: string;
  readonly task: Address | string;
  readonly attempt: number;
  readonly priority: number;
  readonly replyTo: ReplyTo | null;
  readonly input: JsonValue;
  /** It waits until then. Default: it may start at once. */
  readonly notBefore?: number;
}

/** Jobs of one actor: so many at once, the rest in the order they came. Plain JSON. */
export interface JobPool {
  readonly concurrency: number;
  readonly limit: number;
  readonly next: number;
  readonly running: readonly Job[];
  readonly queue: readonly Job[];
}

/** As many requests wait for one agent or gatekeeper; the next one is refused. */
const QUEUE_LIMIT = 1000;

export const emptyPool = (concurrency: number, limit = QUEUE_LIMIT): JobPool => ({
  concurrency,
  limit,
  next: 1,
  running: [],
  queue: [],
});

/** Adds a job to the queue; undefined if the queue is full. */
export function admit(pool: JobPool, job: Omit<Job, 'id'>): JobPool | undefined {
  if (pool.queue.length >= pool.limit) return undefined;
  return {
    ...pool,
    next: pool.next + 1,
    queue: [...pool.queue, { ...job, id: `job-${pool.next}` }],
  };
}

/** Takes as many jobs from the queue as there are free places, at most `most`. */
export function startNext(
  pool: JobPool,
  most = Number.POSITIVE_INFINITY,
): { readonly pool: JobPool; readonly started: readonly Job[] } {
  const free = Math.min(pool.concurrency - pool.running.length, pool.queue.length, most);
  if (free <= 0) return { pool, started: [] };
  const started = pool.queue.slice(0, free);
  return {
    pool: { ...pool, running: [...pool.running, ...started], queue: pool.queue.slice(free) },
    started,
  };
}

/** Removes a job that runs. */
export function finish(
  pool: JobPool,
  id: string,
): { readonly pool: JobPool; readonly job: Job | undefined } {
  const job = pool.running.find((entry) => entry.id === id);
  if (job === undefined) return { pool, job };
  return { pool: { ...pool, running: pool.running.filter((entry) => entry !== job) }, job };
}

interface Withdrawn {
  readonly pool: JobPool;
  readonly job: Job | undefined;
  readonly wasRunning: boolean;
}

/** Which job nobody wants any more: a task's own, or the one that a request asked for. */
export type Withdrawal =
  | { readonly task: string; readonly attempt: number; readonly correlation?: string | undefined }
  | { readonly task?: undefined; readonly attempt: number; readonly correlation: string };

/** Removes a job, whether it runs or waits; with a task and a correlation only the one of both. */
export function withdraw(pool: JobPool, { task, attempt, correlation }: Withdrawal): Withdrawn {
  return remove(pool, ({ task: ofTask, attempt: ofJob, replyTo }) =>
    task === undefined
      ? replyTo?.correlation === correlation && replyTo?.attempt === attempt
      : ofTask === task &&
        ofJob === attempt &&
        (correlation === undefined || replyTo?.correlation === correlation),
  );
}

/**
 * Removes the job that a task had asked for before: it asks for one at a time, and asks anew only when it has given that
 * one up. Whoever waits for an answer all the same is to be given one.
 */
export const supersede = (pool: JobPool, task: string): Withdrawn =>
  remove(pool, (job) => job.task === task);

export const superseded = (task: string, context: JsonObject): Failure => ({
  code: 'conflict',
  message: `${task} has asked again since: this is no longer worked on.`,
  retryable: false,
  context,
});

function remove(pool: JobPool, is: (job: Job) => boolean): Withdrawn {
  const running = pool.running.find(is);
  const job = running ?? pool.queue.find(is);
  if (job === undefined) return { pool, job, wasRunning: false };
  return {
    pool: {
      ...pool,
      running: pool.running.filter((entry) => entry !== job),
      queue: pool.queue.filter((entry) => entry !== job),
    },
    job,
    wasRunning: running !== undefined,
  };
}
