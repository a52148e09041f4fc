import { type BackoffPolicy, backoffMs } from '../../protocol/backoff.ts';
import type { Failure } from '../../protocol/errors.ts';
import { unitHash } from '../../protocol/hash.ts';
import type { JsonObject } from '../../protocol/json.ts';
import type { EpochMs, ReplyTo } from '../../protocol/message.ts';
import type {
  ChildCounts,
  ChildExit,
  ChildInput,
  ChildReport,
  ChildSpec,
  ChildState,
  ChildStatus,
  Intensity,
  Strategy,
  TreeInput,
} from '../../protocol/supervision.ts';

/*
 * What a supervisor does, after Erlang's: https://www.erlang.org/doc/apps/stdlib/supervisor.html
 *
 *     waiting → starting → running → stopping → waiting (it is to live again), delayed (after its back-off), or at rest:
 *                                               stopped, done, failed
 *
 * Every event marks what it means (who has failed, who must go down with it, who is wanted no more), and `settle` then
 * orders what can be done now: ends in the reverse of the order of starts, and starts in order once the ends are done.
 * So a failure in the middle of a restart is no case of its own: it marks again, and settling goes on from there.
 *
 * Where it differs from Erlang's, because lives are durable:
 * - a child that has come to its end, or was stopped by an order, stays so when others are restarted: what is done is
 *   not done again;
 * - a failed start is a failure like any other, also the first; nobody waits for it but those that rest on it;
 * - a child that has failed waits for its back-off before its next life;
 * - a child's turn that throws is no end: it keeps its state, unless `onFault` says otherwise.
 */

/** Somebody who waits for what they have ordered. */
interface Asker {
  readonly to: ReplyTo;
  readonly type: string;
  readonly until: 'up' | 'down';
}

/** A child as its supervisor remembers it. Plain JSON. */
export interface Child extends ChildSpec {
  readonly state: ChildState;
  /** It is to live. */
  readonly wanted: boolean;
  /** It must end before it goes on: by an orderly stop, or, as it has failed, at once. */
  readonly recycle: 'no' | 'orderly' | 'brutal';
  /** How long it waits, once it is down. */
  readonly delayMs: number;
  /** Added by `startChild`. */
  readonly dynamic: boolean;
  readonly lives: number;
  readonly restarts: number;
  /** In a row, without a life of `withinMs` between them. */
  readonly failures: number;
  readonly startedAt: EpochMs | null;
  /** Of what it waits for: its start, or the end of its back-off. */
  readonly dueAt: EpochMs | null;
  /** The time for its start was over when nobody was there, and was granted again. */
  readonly granted: boolean;
  readonly lastExit: ChildExit | null;
  readonly lastError: string | null;
  readonly askers: readonly Asker[];
}

/** What all children are to be: up; down for good; down until somebody decides, as there were too many failures. */
export type Goal = 'up' | 'down' | 'failed';

export interface Supervision {
  readonly strategy: Strategy;
  readonly intensity: Intensity;
  readonly autoShutdown: TreeInput['autoShutdown'];
  readonly specHash: string;
  /** In the order of their starts. */
  readonly children: readonly Child[];
  /** When there were restarts, within the last `withinMs`. */
  readonly restarts: readonly EpochMs[];
  readonly goal: Goal;
  /** Why it has given up. */
  readonly failure: Failure | null;
  /** It stops, and a new life of its own will follow: what waits for its children waits on. */
  readonly again: boolean;
}

/** What a supervisor wants done, in this order. */
export type Order =
  | {
      readonly do: 'start';
      readonly child: Child;
      readonly renew: boolean;
      readonly cause: string | null;
    }
  | {
      readonly do: 'stop';
      readonly child: Child;
      readonly brutal: boolean;
      readonly again: boolean;
      readonly reason: string;
    }
  | { readonly do: 'release'; readonly id: string }
  | { readonly do: 'wait'; readonly id: string; readonly ms: number }
  | { readonly do: 'waitNoLonger'; readonly id: string }
  | {
      readonly do: 'answer';
      readonly to: ReplyTo | undefined;
      readonly type: string;
      readonly answer: { readonly reply: ChildStatus } | { readonly failure: Failure };
    };

export const DEFAULT_INTENSITY: Intensity = { restarts: 3, withinMs: 60_000 };
const DEFAULT_CHILD_BACKOFF: BackoffPolicy = {
  initialMs: 1_000,
  factor: 2,
  maxMs: 30_000,
  jitter: 0.2,
};
const DEFAULT_START_TIMEOUT_MS = 10_000;
const DEFAULT_SHUTDOWN_MS = 5_000;
/** A timer that is so late was due when nobody was there. */
const LATE_MS = 1_000;

const WANTED = { wanted: true, state: 'waiting' } as const;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const isSupervisor = ({ id }: { readonly id: string }): boolean => id.startsWith('supervisor/');
const isUp = ({ state }: Child): boolean =>
  state === 'starting' || state === 'running' || state === 'quarantined';
const lives = ({ state }: Child): boolean => state === 'running' || state === 'quarantined';
const isAtRest = ({ state }: Child): boolean =>
  state === 'stopped' || state === 'done' || state === 'failed';
const isDown = (child: Child): boolean => !isUp(child) && child.state !== 'stopping';

/** A child with the defaults of what was left out: permanent, 5 s to stop, 10 s to start, a back-off from 1 s to 30 s. */
export function completeChild(given: ChildInput): ChildSpec {
  const nested = given.id.startsWith('supervisor/');
  return {
    id: given.id,
    machine: given.machine,
    input: given.input ?? null,
    restart: given.restart ?? 'permanent',
    significant: given.significant ?? false,
    // One that is a supervisor itself needs the time of all its children.
    shutdown: given.shutdown ?? (nested ? 'infinity' : { timeoutMs: DEFAULT_SHUTDOWN_MS }),
    startTimeoutMs: given.startTimeoutMs ?? DEFAULT_START_TIMEOUT_MS,
    backoff:
      given.backoff === null
        ? null
        : ({ ...DEFAULT_CHILD_BACKOFF, ...given.backoff } as BackoffPolicy),
    onFault: given.onFault ?? 'keep',
    onQuarantine: given.onQuarantine ?? 'keep',
    messages: given.messages ?? 'keep',
  };
}

function newChild(given: ChildInput, dynamic: boolean): Child {
  return {
    ...completeChild(given),
    state: 'waiting',
    wanted: true,
    recycle: 'no',
    delayMs: 0,
    dynamic,
    lives: 0,
    restarts: 0,
    failures: 0,
    startedAt: null,
    dueAt: null,
    granted: false,
    lastExit: null,
    lastError: null,
    askers: [],
  };
}

export function newSupervision(input: TreeInput): Supervision {
  return {
    strategy: input.strategy,
    intensity: input.intensity,
    autoShutdown: input.autoShutdown,
    specHash: input.specHash,
    children: input.children.map((child) => newChild(child, false)),
    restarts: [],
    goal: 'up',
    failure: null,
    again: false,
  };
}

/** Of one that was stopped by an order, or is to be. */
function wantedAgain({ state, wanted, recycle }: Child): Partial<Child> | undefined {
  if (state === 'stopped') return WANTED;
  const isOnItsWay = !wanted && state !== 'done' && state !== 'failed' && recycle === 'no';
  return isOnItsWay ? { wanted: true } : undefined;
}

export const allDown = ({ children }: Supervision): boolean => children.every(isDown);

export function statusOf(child: Child): ChildStatus {
  const { id, machine, state, restart, restarts, startedAt, dueAt, lastExit, lastError } = child;
  return {
    id,
    machine,
    state,
    restart,
    lives: child.lives,
    restarts,
    startedAt,
    dueAt: state === 'delayed' ? dueAt : null,
    lastExit,
    lastError,
  };
}

export function countsOf({ children }: Supervision): ChildCounts {
  const supervisors = children.filter(isSupervisor).length;
  return {
    specs: children.length,
    active: children.filter((child) => lives(child) || child.state === 'stopping').length,
    supervisors,
    workers: children.length - supervisors,
  };
}

/** One event of a supervisor: what it changes, and what it leads to. */
export class SupervisionTurn {
  readonly orders: Order[] = [];
  readonly #name: string;
  readonly #at: EpochMs;
  #children: Mutable<Child>[];
  #now: Mutable<Supervision>;

  /** @param name of the supervisor: two of them do not wait for the same time */
  constructor(before: Supervision, name: string, at: EpochMs) {
    this.#name = name;
    this.#at = at;
    this.#now = { ...before };
    this.#children = before.children.map((child) => ({ ...child }));
  }

  // ── what happens to children ───────────────────────────────────────────────────────────────────────

  /** Whatever is told of a life that is not the one that was ordered last is of one that is over. */
  report(report: ChildReport): void {
    const child = this.#find(report.address);
    if (child === undefined) return;
    switch (report.type) {
      case 'child.started':
        if (child.state !== 'starting' || report.life !== child.lives) return;
        this.orders.push({ do: 'waitNoLonger', id: child.id });
        child.state = 'running';
        child.startedAt = this.#at;
        child.dueAt = null;
        return;
      case 'child.startFailed':
        if (child.state !== 'starting' || report.life !== child.lives) return;
        this.orders.push({ do: 'waitNoLonger', id: child.id });
        child.state = 'waiting';
        this.#exit(child, 'failed', report.failure.message);
        this.#startFailed(child, report.failure);
        return;
      case 'child.ended':
        this.#ended(child, report);
        return;
      case 'child.faulted':
        if (!lives(child)) return;
        child.lastError = report.failure.message;
        if (child.onFault === 'restart') this.#failed(child, report.failure);
        return;
      case 'child.quarantined': {
        if (child.state !== 'running') return;
        child.state = 'quarantined';
        child.lastError = report.reason;
        const { reason } = report;
        const failure: Failure = { code: 'configuration', message: reason, retryable: false };
        if (child.onQuarantine === 'restart') this.#failed(child, failure);
        return;
      }
      case 'child.recovered':
        if (child.state === 'quarantined') child.state = 'running';
        return;
    }
  }

  /** A child that is a supervisor has given up; its own children are stopped. */
  gaveUp(id: string, failure: Failure): void {
    const child = this.#find(id);
    if (child === undefined || !lives(child)) return;
    child.lastError = failure.message;
    this.#failed(child, failure);
  }

  /** What a child waited for has come: the end of its back-off, or of the time that it has to start. */
  due(id: string): void {
    const child = this.#find(id);
    if (child === undefined || child.dueAt === null) return;
    if (child.state === 'delayed') {
      child.state = 'waiting';
      child.dueAt = null;
      return;
    }
    if (child.state !== 'starting') return;
    if (this.#at - child.dueAt > LATE_MS && !child.granted) {
      child.granted = true;
      this.#wait(child, child.startTimeoutMs);
      return;
    }
    child.dueAt = null;
    this.#startFailed(child, {
      code: 'timeout',
      message: `The child ${child.id} of supervisor ${this.#name} did not start within ${child.startTimeoutMs} ms. Is its machine "${child.machine}" registered?`,
      retryable: true,
      context: { child: child.id, machine: child.machine },
    });
  }

  // ── orders ─────────────────────────────────────────────────────────────────────────────────────────

  /** Adds a child and starts it. Refused: there is a child of this address already, or the supervisor is not running. */
  startChild(given: ChildInput, to: ReplyTo | undefined, type: string): void {
    if (this.#find(given.id) !== undefined) {
      this.#refuse(to, type, 'conflict', `${this.#name} has a child ${given.id} already.`);
      return;
    }
    if (this.#now.goal !== 'up') {
      this.#refuse(to, type, 'conflict', `The supervisor ${this.#name} is not running.`);
      return;
    }
    const child = newChild(given, true);
    this.#children.push(child);
    this.#ask(child, to, type, 'up');
  }

  /** It stays, at rest, until it is started again or deleted. */
  stopChild(id: string, to: ReplyTo | undefined, type: string): void {
    const child = this.#require(id, to, type);
    if (child === undefined) return;
    child.wanted = false;
    if (child.state === 'waiting' || child.state === 'delayed') this.#rest(child, 'stopped');
    this.#ask(child, to, type, 'down');
  }

  /** A new life for a child, whether it lives or not. Not counted as a failure. */
  restartChild(id: string, to: ReplyTo | undefined, type: string): void {
    const child = this.#require(id, to, type);
    if (child === undefined) return;
    if (this.#now.goal !== 'up') {
      this.#refuse(to, type, 'conflict', `The supervisor ${this.#name} is not running.`);
      return;
    }
    child.wanted = true;
    child.failures = 0;
    child.delayMs = 0;
    if (isUp(child)) child.recycle = 'orderly';
    else if (child.state === 'stopping') child.recycle = 'orderly';
    else {
      if (child.state === 'delayed') this.orders.push({ do: 'waitNoLonger', id });
      child.state = 'waiting';
      child.dueAt = null;
    }
    this.#ask(child, to, type, 'up');
  }

  /** Forgets a child that does not live. */
  deleteChild(id: string, to: ReplyTo | undefined, type: string): void {
    const child = this.#require(id, to, type);
    if (child === undefined) return;
    if (!isAtRest(child)) {
      const text = `${id} is ${child.state}. Stop it first: supervisor.stopChild.`;
      this.#refuse(to, type, 'conflict', text);
      return;
    }
    this.#children = this.#children.filter((other) => other !== child);
    this.orders.push({ do: 'answer', to, type, answer: { reply: statusOf(child) } });
  }

  /** Takes over another specification: what is new is started, what is gone stopped; the rest goes on, and heeds it later. */
  configure(input: TreeInput): void {
    const { strategy, intensity, autoShutdown, specHash } = input;
    Object.assign(this.#now, { strategy, intensity, autoShutdown, specHash });
    const before = new Map(this.#children.map((child) => [child.id, child]));
    const named = input.children.map((given): Mutable<Child> => {
      const known = before.get(given.id);
      before.delete(given.id);
      if (known === undefined) return newChild(given, false);
      // It was named before, then not: now it is again, perhaps before it was down.
      const back = known.dynamic ? wantedAgain(known) : undefined;
      return { ...known, ...completeChild(given), dynamic: false, ...back };
    });
    const rest = [...before.values()].map((child) =>
      child.dynamic ? child : { ...child, wanted: false, dynamic: true },
    );
    for (const child of rest) {
      if (!child.wanted && (child.state === 'waiting' || child.state === 'delayed')) {
        this.#rest(child, 'stopped');
      }
    }
    this.#children = [...named, ...rest];
  }

  /** All children end, in the reverse of the order of their starts. */
  stop(again: boolean): void {
    this.#now.goal = 'down';
    this.#now.again = again;
  }

  /** Begins again after it has given up. */
  restart(): void {
    if (this.#now.goal !== 'failed') return;
    this.#now.goal = 'up';
    this.#now.restarts = [];
    this.#now.failure = null;
    for (const child of this.#children) {
      if (!child.wanted) continue;
      child.failures = 0;
      child.delayMs = 0;
      if (child.state === 'delayed') this.orders.push({ do: 'waitNoLonger', id: child.id });
      if (!isUp(child) && child.state !== 'stopping') child.state = 'waiting';
      else child.recycle = 'orderly';
    }
  }

  // ── the rest ───────────────────────────────────────────────────────────────────────────────────────

  /** Orders whatever can be done now. @returns what the supervisor is afterwards */
  settle(): Supervision {
    this.#stopWhatMust();
    if (this.#now.goal === 'up') this.#startWhatMay();
    this.#answer();
    const children: readonly Child[] = this.#children;
    const after: Supervision = { ...this.#now, children };
    if (after.goal === 'down' && !after.again && allDown(after)) {
      for (const child of children) {
        if (child.state === 'delayed') this.orders.push({ do: 'waitNoLonger', id: child.id });
        // Those at rest were let go when they came to it.
        if (!isAtRest(child)) this.orders.push({ do: 'release', id: child.id });
      }
    }
    return after;
  }

  #stopWhatMust(): void {
    const { goal, strategy } = this.#now;
    const mustStop = (child: Child): boolean =>
      isUp(child) && (goal !== 'up' || child.recycle !== 'no' || !child.wanted);
    const ordered = goal !== 'up' || strategy !== 'oneForOne';
    for (const child of this.#children.toReversed()) {
      if (child.state === 'stopping' && ordered) return;
      if (!mustStop(child)) continue;
      const again =
        goal === 'failed' || (goal === 'up' && child.recycle !== 'no') || this.#now.again;
      this.orders.push({
        do: 'stop',
        child,
        // One that is a supervisor itself has to let go of its children.
        brutal: child.recycle === 'brutal' && !isSupervisor(child),
        again,
        reason: this.#reasonToStop(child),
      });
      if (child.state === 'starting') this.orders.push({ do: 'waitNoLonger', id: child.id });
      child.state = 'stopping';
      child.dueAt = null;
      if (ordered) return;
    }
  }

  #reasonToStop(child: Child): string {
    const { goal } = this.#now;
    if (goal === 'failed') return `Its supervisor ${this.#name} has given up.`;
    if (goal === 'down') return `Its supervisor ${this.#name} stops.`;
    if (child.recycle === 'brutal') return child.lastError ?? 'It has failed.';
    if (child.recycle === 'orderly') return `Its supervisor ${this.#name} restarts it.`;
    return `Its supervisor ${this.#name} was told to stop it.`;
  }

  #startWhatMay(): void {
    const { strategy } = this.#now;
    const goesDown = (child: Child): boolean =>
      child.state === 'stopping' || (isUp(child) && (child.recycle !== 'no' || !child.wanted));
    const children = this.#children;
    if (strategy === 'oneForAll') {
      const isBusy = (child: Child): boolean =>
        goesDown(child) || (child.wanted && child.state === 'delayed');
      if (children.some(isBusy)) return;
    }
    for (const [index, child] of children.entries()) {
      if (strategy === 'restForOne' && child.wanted && child.state === 'waiting') {
        if (children.slice(index).some(goesDown)) return;
      }
      if (child.wanted && child.state === 'waiting') {
        this.#start(child);
      }
      // One after the other; and who rests on others waits until those live.
      if (child.state === 'starting') return;
      if (strategy !== 'oneForOne' && child.wanted && !lives(child)) return;
    }
  }

  #start(child: Mutable<Child>): void {
    // Until it has lived here, whatever lives there is taken over as it is.
    const renew = child.startedAt !== null;
    const cause = renew ? child.lastError : null;
    child.lives++;
    child.state = 'starting';
    child.recycle = 'no';
    child.granted = false;
    this.orders.push({ do: 'start', child: { ...child }, renew, cause });
    this.#wait(child, child.startTimeoutMs);
  }

  #wait(child: Mutable<Child>, ms: number): void {
    child.dueAt = this.#at + ms;
    this.orders.push({ do: 'wait', id: child.id, ms });
  }

  #ended(
    child: Mutable<Child>,
    { how, failure }: Extract<ChildReport, { type: 'child.ended' }>,
  ): void {
    if (child.state === 'stopping') {
      const failed = child.recycle === 'brutal';
      this.#exit(
        child,
        failed ? 'failed' : how === 'killed' ? 'killed' : 'stopped',
        failed ? child.lastError : (failure?.message ?? null),
      );
      this.#isDown(child);
      return;
    }
    // A word of a life that is over: another was ordered since.
    if (!lives(child)) return;
    if (child.recycle !== 'no') {
      // It was to end in a moment anyway.
      this.#exit(child, how, failure?.message ?? null);
      this.#isDown(child);
      return;
    }
    if (how === 'failed') {
      const { message } = failure ?? { message: 'It has ended with an error.' };
      child.state = 'waiting';
      this.#exit(child, 'failed', message);
      this.#failed(child, failure ?? { code: 'unhandled', message, retryable: false });
      return;
    }
    this.#exit(child, how === 'killed' ? 'killed' : 'done', null);
    if (child.restart === 'permanent') {
      const message = `${child.id} has ended, and is to live for ever.`;
      child.state = 'waiting';
      this.#failed(child, { code: 'conflict', message, retryable: true });
    } else {
      child.wanted = false;
      this.#rest(child, 'done');
    }
  }

  /** A child has come down that had to. */
  #isDown(child: Mutable<Child>): void {
    const hadFailed = child.recycle === 'brutal';
    child.recycle = 'no';
    if (!child.wanted) {
      this.#rest(child, hadFailed ? 'failed' : 'stopped');
    } else if (child.delayMs > 0 && this.#now.goal === 'up') {
      child.state = 'delayed';
      this.#wait(child, child.delayMs);
      child.delayMs = 0;
    } else {
      child.state = 'waiting';
    }
  }

  #startFailed(child: Mutable<Child>, failure: Failure): void {
    child.lastError = failure.message;
    if (child.dynamic && child.lives === 1 && child.askers.length > 0) {
      // As if it had not been asked for: whoever asked hears why.
      for (const { to, type } of child.askers) {
        this.orders.push({ do: 'answer', to, type, answer: { failure: named(failure, child.id) } });
      }
      const { id } = child;
      this.#children = this.#children.filter((other) => other !== child);
      this.orders.push(
        { do: 'waitNoLonger', id },
        { do: 'stop', child, brutal: true, again: false, reason: failure.message },
        { do: 'release', id },
      );
      return;
    }
    for (const { to, type, until } of child.askers) {
      if (until !== 'up') continue;
      this.orders.push({ do: 'answer', to, type, answer: { failure: named(failure, child.id) } });
    }
    child.askers = child.askers.filter(({ until }) => until !== 'up');
    this.#failed(child, failure);
  }

  /** A failure counts, and may be one too many; it concerns those that the strategy says. */
  #failed(child: Mutable<Child>, failure: Failure): void {
    const { intensity, strategy } = this.#now;
    child.lastError = failure.message;
    if (!child.wanted || this.#now.goal !== 'up') {
      if (isUp(child)) child.recycle = 'brutal';
      else if (!child.wanted) this.#rest(child, 'failed');
      return;
    }
    if (child.restart === 'temporary') {
      child.wanted = false;
      if (isUp(child)) child.recycle = 'brutal';
      else this.#rest(child, 'failed');
      return;
    }
    const since = this.#at - intensity.withinMs;
    const restarts = [...this.#now.restarts.filter((at) => at > since), this.#at];
    this.#now.restarts = restarts;
    const lived = child.startedAt === null ? 0 : this.#at - child.startedAt;
    child.failures = (lived >= intensity.withinMs ? 0 : child.failures) + 1;
    child.delayMs = this.#backoff(child);
    if (isUp(child)) child.recycle = 'brutal';
    if (restarts.length > intensity.restarts) {
      this.#giveUp(child, failure);
      return;
    }
    child.restarts++;
    if (strategy !== 'oneForOne') this.#takeAlong(child);
    if (isDown(child)) this.#isDown(child);
  }

  #takeAlong(failed: Child): void {
    const from = this.#now.strategy === 'restForOne' ? this.#children.indexOf(failed) : -1;
    for (const [index, other] of this.#children.entries()) {
      if (other === failed || index < from || !isUp(other) || other.recycle !== 'no') continue;
      if (other.restart === 'temporary') other.wanted = false;
      else other.recycle = 'orderly';
    }
  }

  #backoff(child: Child): number {
    if (child.backoff === null) return 0;
    return backoffMs(
      child.backoff,
      child.failures,
      unitHash(`${child.id}:${child.failures}:${this.#at}`),
    );
  }

  #giveUp(child: Child, failure: Failure): void {
    const { restarts, withinMs } = this.#now.intensity;
    this.#now.goal = 'failed';
    this.#now.failure = {
      code: failure.code,
      message: `The supervisor ${this.#name} has given up: more than ${restarts} restarts within ${withinMs} ms. The last to fail was ${child.id}: ${failure.message}`,
      retryable: false,
      context: { supervisor: this.#name, child: child.id },
    };
    for (const other of this.#children) {
      other.delayMs = 0;
      if (other.state !== 'delayed') continue;
      this.orders.push({ do: 'waitNoLonger', id: other.id });
      other.state = 'waiting';
      other.dueAt = null;
    }
  }

  /** It has come to rest: nothing that waits for it need wait any longer. */
  #rest(child: Mutable<Child>, state: 'stopped' | 'done' | 'failed'): void {
    if (child.state === 'delayed') this.orders.push({ do: 'waitNoLonger', id: child.id });
    child.state = state;
    child.dueAt = null;
    child.delayMs = 0;
    if (child.lives > 0) this.orders.push({ do: 'release', id: child.id });
    if (child.dynamic && child.restart === 'temporary' && state !== 'stopped') {
      this.#children = this.#children.filter((other) => other !== child);
    }
    if (child.significant && state !== 'stopped') this.#significantEnd();
  }

  #significantEnd(): void {
    const { autoShutdown } = this.#now;
    if (autoShutdown === 'never' || this.#now.goal !== 'up') return;
    const others = this.#children.filter(({ significant }) => significant);
    if (autoShutdown === 'anySignificant' || others.every(isAtRest)) this.#now.goal = 'down';
  }

  #exit(child: Mutable<Child>, how: ChildExit['how'], reason: string | null): void {
    child.lastExit = { at: this.#at, how, reason };
    if (how === 'failed') child.lastError = reason;
  }

  #answer(): void {
    for (const child of this.#children) {
      if (child.askers.length === 0) continue;
      const left: Asker[] = [];
      for (const asker of child.askers) {
        const { to, type, until } = asker;
        const reached =
          until === 'up' ? child.state === 'running' && child.recycle === 'no' : isDown(child);
        if (reached) {
          this.orders.push({ do: 'answer', to, type, answer: { reply: statusOf(child) } });
        } else if (until === 'up' && (isAtRest(child) || this.#now.goal !== 'up')) {
          this.#refuse(to, type, 'conflict', `${child.id} is ${child.state}, and is not to live.`);
        } else if (until === 'down' && child.wanted) {
          this.#refuse(to, type, 'conflict', `${child.id} was told to live again meanwhile.`);
        } else {
          left.push(asker);
        }
      }
      child.askers = left;
    }
  }

  #ask(child: Mutable<Child>, to: ReplyTo | undefined, type: string, until: Asker['until']): void {
    if (to !== undefined) child.askers = [...child.askers, { to, type, until }];
  }

  #find(id: string): Mutable<Child> | undefined {
    return this.#children.find((child) => child.id === id);
  }

  #require(id: string, to: ReplyTo | undefined, type: string): Mutable<Child> | undefined {
    const child = this.#find(id);
    if (child !== undefined) return child;
    const known = this.#children.map((other) => other.id).join(', ') || 'none';
    this.#refuse(to, type, 'not_found', `${this.#name} has no child ${id}. It has: ${known}.`);
    return undefined;
  }

  #refuse(
    to: ReplyTo | undefined,
    type: string,
    code: 'conflict' | 'not_found',
    message: string,
  ): void {
    const failure: Failure = { code, message, retryable: false };
    this.orders.push({ do: 'answer', to, type, answer: { failure } });
  }
}

const named = (failure: Failure, child: string): Failure => ({
  ...failure,
  context: { ...failure.context, child } as JsonObject,
});
