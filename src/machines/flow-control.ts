import { ConfigurationError } from '../protocol/errors.ts';
import type { JsonObject, JsonValue } from '../protocol/json.ts';
import type { Job, JobPool } from './job-pool.ts';
import { decideRate, forgetOldRates, type RateLimit } from './policies/rate-limit.ts';
import { positiveInteger, readSettings } from './policies/settings.ts';
import { keyOfInput, parseKeyPath } from './policies/task-key.ts';

/*
 * What of the waiting work may start now. Jobs are looked at in the order in which they came; one that must wait is
 * passed over, so that it holds up no other key.
 *
 *     comes ─ rateLimit ─ too many ──▶ refused, with the time from which on it would be taken
 *           ─ debounce ── another of its key waits ──▶ that one is superseded, and this one waits for the period
 *     waits ─ its period is over? ─ a place for its key? ─ throttle? ──▶ starts
 *
 * All of it is plain JSON in the agent's context; when something becomes due is a durable timer.
 */

/** Where work is told apart by: `input.customer`. What has no value there shares one key. */
export interface KeyedLimit {
  readonly key: string;
  readonly limit: number;
}

export interface KeyedRate extends RateLimit {
  /** Each key by itself; without one all work together. */
  readonly key?: string;
}

export interface Debounce {
  /** Work without a value there is not debounced. */
  readonly key: string;
  readonly periodMs: number;
}

/** As an agent is given it. */
export interface FlowOptions {
  /** So many tasks of one key at once, besides `concurrency`: `{ key: 'input.customer', limit: 1 }`. */
  readonly perKey?: KeyedLimit;
  /**
   * So many tasks in a period; what comes too early is refused (`rate_limited`), and the task tries again when it may, out
   * of its budget for infrastructure. Algorithm: GCRA, see `decideRate`.
   */
  readonly rateLimit?: KeyedRate;
  /** The same, but what comes too early waits in the agent's queue. */
  readonly throttle?: KeyedRate;
  /**
   * A task waits for the period; another one of its key that comes meanwhile, for the first time, takes its place and waits
   * anew. The one that was superseded is cancelled, and its reason says by which.
   */
  readonly debounce?: Debounce;
}

/** Checked; null where nothing limits. */
export interface FlowSettings {
  readonly perKey: KeyedLimit | null;
  readonly rateLimit: KeyedRate | null;
  readonly throttle: KeyedRate | null;
  readonly debounce: Debounce | null;
}

/** What an agent remembers of it. Plain JSON. */
export interface FlowState {
  readonly settings: FlowSettings;
  /** Theoretical arrival times by key, of `rateLimit` and of `throttle`. */
  readonly rates: Readonly<Record<string, number>>;
  readonly throttled: Readonly<Record<string, number>>;
  /** When the timer is due that is set; null: none is. */
  readonly wakeAt: number | null;
}

/** So many tasks of a run wait at such an agent at once: those that must wait do not keep others from it. */
export const FLOW_REACH = 500;

const KEYS = ['perKey', 'rateLimit', 'throttle', 'debounce'] as const;
/** A timer of Node cannot wait for longer; and who would? */
const MAX_PERIOD_MS = 7 * 86_400_000;

/**
 * @param where what a person should look at: `agent "mail"`
 * @returns null: nothing limits
 * @throws {ConfigurationError}
 */
export function parseFlow(options: FlowOptions, where: string): FlowSettings | null {
  const given = readSettings(options, KEYS, where);
  const part = <T>(
    name: (typeof KEYS)[number],
    known: readonly string[],
    read: (settings: Readonly<Record<string, unknown>>, at: string) => T,
  ): T | null => {
    if (given[name] === undefined) return null;
    const at = `${name} of ${where}`;
    return read(readSettings(given[name], known, at), at);
  };
  const number = (
    settings: Readonly<Record<string, unknown>>,
    key: string,
    at: string,
    most?: number,
  ): number => {
    if (settings[key] === undefined) {
      throw new ConfigurationError(`${at}: expected ${key} to be a positive integer, got nothing.`);
    }
    return positiveInteger(settings, key, 1, at, most);
  };
  const rate = (settings: Readonly<Record<string, unknown>>, at: string): KeyedRate => ({
    limit: number(settings, 'limit', at),
    periodMs: number(settings, 'periodMs', at, MAX_PERIOD_MS),
    ...(settings['key'] === undefined ? {} : { key: parseKeyPath(settings['key'], at) }),
  });
  const flow: FlowSettings = {
    perKey: part('perKey', ['key', 'limit'], (settings, at) => ({
      key: parseKeyPath(settings['key'], at),
      limit: number(settings, 'limit', at),
    })),
    rateLimit: part('rateLimit', ['limit', 'periodMs', 'key'], rate),
    throttle: part('throttle', ['limit', 'periodMs', 'key'], rate),
    debounce: part('debounce', ['key', 'periodMs'], (settings, at) => ({
      key: parseKeyPath(settings['key'], at),
      periodMs: number(settings, 'periodMs', at, MAX_PERIOD_MS),
    })),
  };
  return KEYS.every((key) => flow[key] === null) ? null : flow;
}

/** Settings that came in a message. @throws {ConfigurationError} they are none */
export function readFlow(value: JsonValue, agent: string): FlowSettings | null {
  if (value === null) return null;
  const given = Object.entries(value as object).filter(([, part]) => part !== null);
  return parseFlow(Object.fromEntries(given), `agent "${agent}"`);
}

export const newFlow = (settings: FlowSettings | null): FlowState | null =>
  settings === null ? null : { settings, rates: {}, throttled: {}, wakeAt: null };

/** Other settings; what was counted under the old ones goes on to count, as far as it is of the same kind. */
export function configureFlow(
  flow: FlowState | null,
  settings: FlowSettings | null,
): FlowState | null {
  if (flow === null || settings === null) return newFlow(settings);
  const same = (a: KeyedRate | null, b: KeyedRate | null): boolean =>
    a?.key === b?.key && a?.limit === b?.limit && a?.periodMs === b?.periodMs;
  return {
    settings,
    rates: same(flow.settings.rateLimit, settings.rateLimit) ? flow.rates : {},
    throttled: same(flow.settings.throttle, settings.throttle) ? flow.throttled : {},
    wakeAt: flow.wakeAt,
  };
}

const EVERYTHING = '';

/** The key of a job; what has no value at the path shares one. */
const keyOf = (path: string | undefined, input: JsonValue): string =>
  path === undefined ? EVERYTHING : (keyOfInput(path, taskInput(input)) ?? EVERYTHING);

/** A job's input is what was asked of the agent; the task's own is in it. */
const taskInput = (input: JsonValue): JsonValue =>
  ((input as JsonObject | null)?.['input'] ?? null) as JsonValue;

/** A task that comes back, to be tried again, mended or gone on with, is older than what waits: it takes nobody's place. */
function comesFirst(input: JsonValue): boolean {
  const { attempt, answers, fix } = (input ?? {}) as JsonObject;
  return (
    attempt === 1 && fix === undefined && Object.keys((answers ?? {}) as JsonObject).length === 0
  );
}

export type Admission =
  | { readonly refusedUntil: number }
  | {
      readonly flow: FlowState;
      /** Waiting jobs whose place this one takes. */
      readonly superseded: readonly Job[];
      /** It waits until then. */
      readonly notBefore: number | undefined;
    };

/** Work comes: whether it is taken, and in whose place. */
export function admitToFlow(
  flow: FlowState,
  pool: JobPool,
  input: JsonValue,
  now: number,
): Admission {
  const { rateLimit, debounce } = flow.settings;
  let rates = flow.rates;
  if (rateLimit !== null) {
    const key = keyOf(rateLimit.key, input);
    const decision = decideRate(rateLimit, tatOf(rates, key), now);
    if (!decision.allowed) return { refusedUntil: decision.at };
    rates = { ...forgetOldRates(rates, now), [key]: decision.tat };
  }
  const key = debounce === null ? undefined : keyOfInput(debounce.key, taskInput(input));
  if (debounce === null || key === undefined) {
    return { flow: { ...flow, rates }, superseded: [], notBefore: undefined };
  }
  const superseded = comesFirst(input)
    ? pool.queue.filter((job) => keyOfInput(debounce.key, taskInput(job.input)) === key)
    : [];
  return { flow: { ...flow, rates }, superseded, notBefore: now + debounce.periodMs };
}

export interface Started {
  readonly pool: JobPool;
  readonly flow: FlowState;
  readonly started: readonly Job[];
  /** When to look again though nothing else happens; null: that is not needed. */
  readonly wakeAt: number | null;
}

/** Takes from the queue what may start, at most `most` and as many as there are free places. */
export function startAllowed(
  flow: FlowState,
  pool: JobPool,
  now: number,
  most = Number.POSITIVE_INFINITY,
): Started {
  const { perKey, throttle } = flow.settings;
  const free = Math.min(pool.concurrency - pool.running.length, most);
  const running = new Map<string, number>();
  if (perKey !== null) {
    for (const { input } of pool.running) {
      const key = keyOf(perKey.key, input);
      running.set(key, (running.get(key) ?? 0) + 1);
    }
  }
  let throttled = forgetOldRates(flow.throttled, now);
  let wakeAt = Number.POSITIVE_INFINITY;
  const started: Job[] = [];
  const queue: Job[] = [];
  for (const job of pool.queue) {
    const own = perKey === null ? EVERYTHING : keyOf(perKey.key, job.input);
    // A place that becomes free is an event of its own; only what waits for a time must be woken.
    const mayStart =
      started.length < free &&
      (perKey === null || (running.get(own) ?? 0) < perKey.limit) &&
      isDue(job);
    if (!mayStart) {
      queue.push(job);
      continue;
    }
    if (throttle !== null) {
      const key = keyOf(throttle.key, job.input);
      const decision = decideRate(throttle, tatOf(throttled, key), now);
      if (!decision.allowed) {
        wakeAt = Math.min(wakeAt, decision.at);
        queue.push(job);
        continue;
      }
      throttled = { ...throttled, [key]: decision.tat };
    }
    running.set(own, (running.get(own) ?? 0) + 1);
    started.push(job);
  }
  function isDue({ notBefore = now }: Job): boolean {
    if (notBefore <= now) return true;
    wakeAt = Math.min(wakeAt, notBefore);
    return false;
  }
  return {
    pool: started.length === 0 ? pool : { ...pool, running: [...pool.running, ...started], queue },
    flow: throttled === flow.throttled ? flow : { ...flow, throttled },
    started,
    wakeAt: Number.isFinite(wakeAt) ? wakeAt : null,
  };
}

const tatOf = (tats: Readonly<Record<string, number>>, key: string): number | undefined =>
  Object.hasOwn(tats, key) ? tats[key] : undefined;
