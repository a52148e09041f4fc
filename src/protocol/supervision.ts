import { z } from 'zod';
import { type BackoffPolicy, MAX_TIMER_MS } from './backoff.ts';
import type { Failure } from './errors.ts';
import type { JsonValue } from './json.ts';
import type { EpochMs } from './message.ts';

/**
 * What one child's failure means for the others.
 * oneForOne: nothing. restForOne: those that were started after it are stopped and start again with it, for they rest
 * on it. oneForAll: all are, for they rest on each other.
 */
export const STRATEGIES = ['oneForOne', 'restForOne', 'oneForAll'] as const;
export type Strategy = (typeof STRATEGIES)[number];

/**
 * Which children begin a new life when one has ended. permanent: always. transient: if it has failed. temporary: never;
 * nor when others are restarted.
 */
export const RESTARTS = ['permanent', 'transient', 'temporary'] as const;
export type Restart = (typeof RESTARTS)[number];

/** brutal: ended at once. infinity: asked to stop, and waited for. timeoutMs: asked, and ended when that is over. */
export type Shutdown = 'brutal' | 'infinity' | { readonly timeoutMs: number };

/** More failures than `restarts` within `withinMs` are too many. */
export interface Intensity {
  readonly restarts: number;
  readonly withinMs: number;
}

const milliseconds = z.int().min(1).max(MAX_TIMER_MS);
const address = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,31}\/[^\s\p{C}]{1,240}$/u, 'expected an address such as "inbox/ada"');

const shutdown = z.union([
  z.literal('brutal'),
  z.literal('infinity'),
  z.strictObject({ timeoutMs: milliseconds }),
]);
const backoff = z
  .strictObject({
    initialMs: milliseconds,
    factor: z.number().min(1).max(1_000_000),
    maxMs: milliseconds,
    jitter: z.number().min(0).max(1),
  })
  .partial()
  .nullable();
const intensity = z.strictObject({
  restarts: z.int().min(0).max(1_000_000),
  withinMs: milliseconds,
});

/** A child as it is given: what is left out has the default of `completeChild` (machines/policies/supervision.ts). */
export const childInput = z.strictObject({
  id: address,
  machine: z.string().min(1).max(240),
  input: z.custom<JsonValue>((value) => value !== undefined, 'expected a JSON value').optional(),
  restart: z.enum(RESTARTS).optional(),
  significant: z.boolean().optional(),
  shutdown: shutdown.optional(),
  startTimeoutMs: milliseconds.optional(),
  backoff: backoff.optional(),
  onFault: z.enum(['keep', 'restart']).optional(),
  onQuarantine: z.enum(['keep', 'restart']).optional(),
  messages: z.enum(['keep', 'drop']).optional(),
});
export type ChildInput = z.infer<typeof childInput>;

export const treeInput = z.strictObject({
  strategy: z.enum(STRATEGIES),
  intensity,
  autoShutdown: z.enum(['never', 'anySignificant', 'allSignificant']),
  children: z.array(childInput).max(10_000),
  /** Of all of the above. */
  specHash: z.string(),
});
export type TreeInput = z.infer<typeof treeInput>;

/** A child with everything that was left out. Plain JSON. */
export interface ChildSpec {
  /** Its address. */
  readonly id: string;
  /** The name its machine is registered under. */
  readonly machine: string;
  readonly input: JsonValue;
  readonly restart: Restart;
  /** Whether its end, without a new life, may end its supervisor: see `autoShutdown`. */
  readonly significant: boolean;
  readonly shutdown: Shutdown;
  /** It has failed to start if it does not live by then. */
  readonly startTimeoutMs: number;
  /** How long to wait before a new life, growing with each failure in a row. Null: no time. */
  readonly backoff: BackoffPolicy | null;
  /** What to do when one of its turns throws: it has kept its state; `restart` gives it up. */
  readonly onFault: 'keep' | 'restart';
  /** What to do when its stored state cannot be read: `restart` gives it up. */
  readonly onQuarantine: 'keep' | 'restart';
  /** What becomes of messages that wait for it when it begins a new life. */
  readonly messages: 'keep' | 'drop';
}

export const CHILD_STATES = [
  'waiting',
  'starting',
  'running',
  'quarantined',
  'stopping',
  'delayed',
  'stopped',
  'done',
  'failed',
] as const;

/**
 * waiting: to be started when its turn comes. delayed: after a failure, until its back-off is over. stopped: by an
 * order. done: it came to its end by itself. failed: it has failed, and is not to be restarted. The last three have no
 * new life coming.
 */
export type ChildState = (typeof CHILD_STATES)[number];

/** How a life has ended. killed: it did not stop in time, or was not asked. */
export interface ChildExit {
  readonly at: EpochMs;
  readonly how: 'done' | 'failed' | 'stopped' | 'killed';
  /** Why, if it has failed. */
  readonly reason: string | null;
}

/** What one can see of a child. */
export interface ChildStatus {
  readonly id: string;
  readonly machine: string;
  readonly state: ChildState;
  readonly restart: Restart;
  /** Lives that it was given by this supervisor. */
  readonly lives: number;
  /** How many of them because it had failed itself. */
  readonly restarts: number;
  readonly startedAt: EpochMs | null;
  /** When it is started again, while it is delayed. */
  readonly dueAt: EpochMs | null;
  readonly lastExit: ChildExit | null;
  readonly lastError: string | null;
}

export interface ChildCounts {
  /** All, whatever their state. */
  readonly specs: number;
  /** Those that live: running, or about to stop. */
  readonly active: number;
  readonly supervisors: number;
  readonly workers: number;
}

/** What the runtime tells a supervisor of a child. */
export type ChildReport =
  /** It has begun the life that was ordered. */
  | { readonly type: 'child.started'; readonly address: string; readonly life: number }
  /** It could not; what it was has ended. */
  | {
      readonly type: 'child.startFailed';
      readonly address: string;
      readonly life: number;
      readonly failure: Failure;
    }
  /** It has ended. `killed`: by force. */
  | {
      readonly type: 'child.ended';
      readonly address: string;
      readonly how: 'done' | 'failed' | 'killed';
      readonly failure: Failure | null;
    }
  /** One of its turns has failed; it keeps its state. */
  | { readonly type: 'child.faulted'; readonly address: string; readonly failure: Failure }
  | { readonly type: 'child.quarantined'; readonly address: string; readonly reason: string }
  /** Its machine of today can read its state again. */
  | { readonly type: 'child.recovered'; readonly address: string };
