import { checkCron } from '../machines/policies/calendar.ts';
import { didYouMean } from '../machines/policies/did-you-mean.ts';
import { placeholdersIn } from '../machines/policies/placeholders.ts';
import {
  FIRING_VALUES,
  type Missed,
  type Overlap,
  type ScheduleContext,
  type ScheduleDefinition,
  type ScheduleInput,
  type ScheduleState,
  type StartInput,
  type StartOutput,
  scheduleMachine,
} from '../machines/schedule-machine.ts';
import {
  type Address,
  kindOf,
  parseAddress,
  parseId,
  scheduleAddress,
} from '../protocol/address.ts';
import { checkAgainstCatalogue } from '../protocol/catalogue.ts';
import { NotFoundError, TroupeError, ValidationError } from '../protocol/errors.ts';
import { deepHash } from '../protocol/hash.ts';
import { findNonJson, type JsonValue, typeWord } from '../protocol/json.ts';
import { type Message, parseMessage } from '../protocol/message.ts';
import { type Priority, type PriorityName, parsePriority } from '../protocol/priority.ts';
import type { Clock } from '../runtime/clock.ts';
import type { DurableHost } from '../runtime/durable-host.ts';
import { effect } from '../runtime/effect.ts';
import type { EffectContext } from '../runtime/effect-runner.ts';
import type { Store } from '../store/store.ts';
import type { TemplateCall } from './templates.ts';

/** When a schedule is due, and what becomes of times at which it could not be dealt with. */
export type ScheduleTiming = (
  | {
      /** Five fields: minute, hour, day of month, month, day of week. `@daily` and the like are understood. */
      readonly cron: string;
      /**
       * `Europe/Berlin`. Default `UTC`. When the clocks change, a pattern with fixed hours and minutes is due once a day: a
       * time that is skipped at the first moment after, one that comes twice the first time. One with `*` or a step in its
       * hours or minutes is due whenever the wall clock fits: not in the skipped hour, and in both repeated ones.
       */
      readonly timeZone?: string;
    }
  | {
      /** From when the schedule was made, at least 1 000. */
      readonly everyMs: number;
    }
) & {
  /**
   * Due times that passed while the process was down or busy: `one` firing for all of them, for the newest; `all`, each
   * with its own due time, oldest first; `skip` none. Times that pass during a pause are never made up for. Default `one`.
   */
  readonly missed?: Missed;
  /** With `missed: 'all'`: so many at most, the newest; 1 to 1 000. Default 100. */
  readonly missedAtMost?: number;
  /** With `missed: 'skip'`: what is dealt with later than this was missed. In milliseconds, default 60 000. */
  readonly lateAfterMs?: number;
  /**
   * For runs: a due time at which the run before it has not ended (it may be blocked, and wait for a person) is skipped, is
   * queued, or starts another beside it. Default `skip`.
   */
  readonly overlap?: Overlap;
  /** With `overlap: 'queue'`: so many at most, 1 to 1 000; more are skipped. Default 100. */
  readonly queueAtMost?: number;
};

/**
 * What a schedule does. In the message's texts and the template's parameters, `{{dueAt}}` is the due time (ISO 8601, UTC),
 * `{{schedule}}` its id, `{{firing}}` a text that no other firing has; for a run that is the run's id.
 */
export type ScheduledAction =
  | {
      readonly send: {
        readonly to: Address;
        readonly message: Message;
        readonly priority?: PriorityName | Priority;
      };
    }
  | { readonly start: Omit<TemplateCall, 'id'> };

/** A schedule as it stands. */
export interface ScheduleStatus {
  readonly id: string;
  readonly state: Exclude<ScheduleState, 'deleted'>;
  readonly timing: ScheduleDefinition['timing'];
  readonly action: ScheduleDefinition['action'];
  readonly missed: Missed;
  readonly overlap: Overlap;
  /** When it is due next; null while it is paused, or when it never is. */
  readonly nextAt: number | null;
  /** Firings so far. */
  readonly fired: number;
  readonly last: { readonly key: string; readonly dueAt: number; readonly at: number } | null;
  /** Runs that it has started and that have not ended. */
  readonly running: readonly string[];
  readonly queued: number;
  /** Due times that nothing came of, the last of them. */
  readonly skipped: ScheduleContext['skipped'];
  /** The last run that could not be started. */
  readonly failure: ScheduleContext['failure'];
}

const MIN_EVERY_MS = 1_000;
const MAX_EVERY_MS = 366 * 86_400_000;
/** The id of a run is at most 64 characters, of which the due time takes up to 24 and `-m1000` six. */
const MAX_ID = 32;

/** The schedule's actor. @param start starts the run of a firing, or finds that it has been started */
export function scheduleActor(
  start: (
    input: StartInput,
    context: Pick<EffectContext, 'signal' | 'progress'>,
  ) => Promise<StartOutput>,
) {
  return scheduleMachine.provide({
    actors: {
      start: effect<JsonValue, StartInput>(
        async ({ input, signal, progress }) => await start(input, { signal, progress }),
      ),
    },
  });
}

/**
 * Everything about a schedule, checked before anything of it is made.
 * @throws {ValidationError} where it is, what was expected, what came
 */
function checkSchedule(
  id: string,
  timing: ScheduleTiming,
  action: ScheduledAction,
  createdAt: number,
): ScheduleInput {
  const where = `schedule "${id}"`;
  if (id.length > MAX_ID) {
    throw new ValidationError(
      `Expected the id of ${where} to have at most ${MAX_ID} characters, got ${id.length}: the ids of its runs begin with it.`,
    );
  }
  const definition = definitionOf(timing, action, createdAt, where);
  const { timing: when, ...rest } = definition;
  // When it was made does not make it another schedule.
  const hash = deepHash({
    ...rest,
    timing: 'everyMs' in when ? { everyMs: when.everyMs } : when,
  } as unknown as JsonValue);
  return { id, createdAt, hash, definition };
}

const TIMING_KEYS = [
  'cron',
  'timeZone',
  'everyMs',
  'missed',
  'missedAtMost',
  'lateAfterMs',
  'overlap',
  'queueAtMost',
] as const;

function definitionOf(
  timing: ScheduleTiming,
  action: ScheduledAction,
  createdAt: number,
  where: string,
): ScheduleDefinition {
  const given = objectOf(timing, TIMING_KEYS, `the timing of ${where}`);
  const { cron, timeZone = 'UTC', everyMs } = given;
  if ((cron === undefined) === (everyMs === undefined)) {
    throw new ValidationError(
      `Expected the timing of ${where} to have either cron or everyMs, got ${cron === undefined ? 'neither' : 'both'}.`,
    );
  }
  if (cron !== undefined) checkCron(cron, timeZone, where);
  else if (given['timeZone'] !== undefined) {
    throw new ValidationError(
      `Expected no timeZone with everyMs in ${where}: an interval has none.`,
    );
  }
  const missed = oneOf(given, 'missed', ['skip', 'one', 'all'], 'one', where);
  const overlap = oneOf(given, 'overlap', ['skip', 'queue', 'allow'], 'skip', where);
  return {
    timing:
      cron === undefined
        ? {
            everyMs: whole(given, 'everyMs', MIN_EVERY_MS, MAX_EVERY_MS, MIN_EVERY_MS, where),
            anchorMs: createdAt,
          }
        : { cron: cron as string, timeZone: timeZone as string },
    action: actionOf(action, where),
    missed,
    missedAtMost: whole(given, 'missedAtMost', 1, 1_000, 100, where),
    lateAfterMs: whole(given, 'lateAfterMs', 0, MAX_EVERY_MS, 60_000, where),
    overlap,
    queueAtMost: whole(given, 'queueAtMost', 1, 1_000, 100, where),
  };
}

function actionOf(action: ScheduledAction, where: string): ScheduleDefinition['action'] {
  const given = objectOf(action, ['send', 'start'], `what ${where} does`);
  if ((given['send'] === undefined) === (given['start'] === undefined)) {
    throw new ValidationError(
      `Expected ${where} either to send a message or to start a run, got ${given['send'] === undefined ? 'neither' : 'both'}.`,
    );
  }
  const problem = findNonJson(action, 'action');
  if (problem !== undefined) {
    throw new ValidationError(
      `Expected what ${where} does to be plain JSON, but ${problem.path} is ${problem.found}.`,
    );
  }
  for (const name of placeholdersIn(action as unknown as JsonValue)) {
    if ((FIRING_VALUES as readonly string[]).includes(name)) continue;
    throw new ValidationError(
      `Expected the placeholders of ${where} to be ${FIRING_VALUES.map((one) => `{{${one}}}`).join(', ')}, got {{${name}}}.${didYouMean(name, FIRING_VALUES)}`,
    );
  }
  if (given['send'] !== undefined) {
    const { to, message, priority } = objectOf(
      given['send'],
      ['to', 'message', 'priority'],
      `send of ${where}`,
    );
    const address = parseAddress(to);
    if (placeholdersIn(address).length > 0) {
      throw new ValidationError(
        `Expected the receiver of ${where} to be an address without placeholders, got ${JSON.stringify(address)}: only the message has them filled in.`,
      );
    }
    const parsed = parseMessage(message);
    checkAgainstCatalogue(kindOf(address), parsed);
    return {
      send: {
        to: address,
        message: parsed,
        ...(priority === undefined ? {} : { priority: parsePriority(priority) }),
      },
    };
  }
  const { start } = given;
  if (typeof start !== 'object' || start === null || 'id' in start) {
    throw new ValidationError(
      `Expected start of ${where} to be a template such as { template: "feature", params: { … } }${typeof start === 'object' ? ', without an id: each run gets its own' : ''}.`,
    );
  }
  return { start: start as never };
}

function objectOf(
  value: unknown,
  known: readonly string[],
  where: string,
): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ValidationError(
      `Expected ${where} to be an object with ${known.slice(0, 3).join(', ')}, got ${typeWord(value)}.`,
    );
  }
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    throw new ValidationError(
      `${where}: there is no setting ${JSON.stringify(key)}.${didYouMean(key, known)} Known settings: ${known.join(', ')}.`,
    );
  }
  return value as Readonly<Record<string, unknown>>;
}

function oneOf<const T extends string>(
  given: Readonly<Record<string, unknown>>,
  key: string,
  allowed: readonly T[],
  fallback: NoInfer<T>,
  where: string,
): T {
  const value = given[key];
  if (value === undefined) return fallback;
  if (allowed.includes(value as T)) return value as T;
  throw new ValidationError(
    `Expected ${key} of ${where} to be one of ${allowed.join(', ')}, got ${JSON.stringify(value) ?? String(value)}.${typeof value === 'string' ? didYouMean(value, allowed) : ''}`,
  );
}

function whole(
  given: Readonly<Record<string, unknown>>,
  key: string,
  least: number,
  most: number,
  fallback: number,
  where: string,
): number {
  const value = given[key] ?? fallback;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least && value <= most) {
    return value;
  }
  throw new ValidationError(
    `Expected ${key} of ${where} to be a whole number from ${least} to ${most}, got ${String(value)}.`,
  );
}

interface Parts {
  readonly host: DurableHost;
  readonly store: Pick<Store, 'listActors' | 'loadActors'>;
  readonly clock: Clock;
  /** Refuses a template that is not there, or parameters that do not fit it. */
  readonly checkCall: (call: TemplateCall) => void;
}

/**
 * The schedules of a store. They are actors: what they are and when they are due next is stored, and goes on with the next
 * process. What is due while none runs is made up for, as `missed` says, when the next one opens the store.
 */
export class Schedules {
  readonly #parts: Parts;

  /** @internal Use `troupe.schedules`. */
  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /**
   * Makes a schedule. One that is there already stays as it is if it is the same (call this at every start of the program),
   * and otherwise is another one from now on; if it is paused, it stays paused.
   * @throws {ValidationError} anything about it that cannot work
   */
  async set(id: string, timing: ScheduleTiming, action: ScheduledAction): Promise<Schedule> {
    parseId(id, 'the id of a schedule');
    const input = checkSchedule(id, timing, action, this.#parts.clock.now());
    const { start } = input.definition.action as { readonly start?: TemplateCall };
    if (start !== undefined) this.#parts.checkCall(start);
    const { host } = this.#parts;
    const address = scheduleAddress(id);
    const created = await host.spawn([
      { address, machine: 'schedule', input: input as unknown as JsonValue },
    ]);
    if (created.length === 0) {
      const { hash, definition } = input;
      await host.request(address, {
        type: 'schedule.configure',
        definition: { hash, definition } as unknown as JsonValue,
      });
    }
    return this.get(id);
  }

  /** One that was made before, here or in a process that is gone. */
  get(id: string): Schedule {
    return new Schedule(this.#parts.host, parseId(id, 'the id of a schedule'));
  }

  /** All of them, by id. */
  async list(): Promise<readonly ScheduleStatus[]> {
    return await listSchedules(this.#parts.store);
  }
}

/** Those of a store, also of one that another process has open. */
export async function listSchedules(
  store: Pick<Store, 'listActors' | 'loadActors'>,
): Promise<readonly ScheduleStatus[]> {
  const actors = await store.listActors({ kind: 'schedule' });
  const stored = await store.loadActors(actors.map(({ address }) => address));
  return stored
    .flatMap(({ snapshotJson, unreadable }) => {
      if (unreadable !== undefined) throw unreadable;
      return statusOf(JSON.parse(snapshotJson) as Snapshot) ?? [];
    })
    .toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

interface Snapshot {
  readonly value: JsonValue;
  readonly context: unknown;
}

/** Undefined for one that was deleted. */
function statusOf({ value, context }: Snapshot): ScheduleStatus | undefined {
  if (value === 'deleted') return undefined;
  const { id, definition, nextAt, fired, lastFiring, running, queued, skipped, failure } =
    context as ScheduleContext;
  const { timing, action, missed, overlap } = definition;
  return {
    ...{ id, state: value as ScheduleStatus['state'], timing, action, missed, overlap },
    nextAt: value === 'active' ? nextAt : null,
    fired,
    last: lastFiring,
    running: running.map(({ key }) => key),
    queued: queued.length,
    ...{ skipped, failure },
  };
}

/** One schedule: look at it, hold it, fire it. */
export class Schedule {
  readonly id: string;
  readonly #host: DurableHost;

  /** @internal Use `troupe.schedules.get`. */
  constructor(host: DurableHost, id: string) {
    this.#host = host;
    this.id = id;
  }

  /** @throws {NotFoundError} there is none of this id */
  async status(): Promise<ScheduleStatus> {
    const known = await this.#host.inspect(scheduleAddress(this.id));
    const status =
      known === undefined ? undefined : statusOf(known.snapshot as unknown as Snapshot);
    if (status === undefined) throw new NotFoundError(`There is no schedule "${this.id}".`);
    return status;
  }

  /**
   * Nothing is due until `resume`, whatever restarts in between; runs that it has started go on.
   * @throws {NotFoundError} there is none of this id
   * @throws {ConflictError} it is paused, or over
   */
  async pause(by = 'app'): Promise<void> {
    await this.#ask({ type: 'schedule.pause', by });
  }

  /** It goes on with the next time that is due; what passed during the pause is not made up for. */
  async resume(by = 'app'): Promise<void> {
    await this.#ask({ type: 'schedule.resume', by });
  }

  /**
   * Fires now, also while it is paused. When it is due next does not change.
   * @returns the firing's key: for a run, its id. The run is started right after, or when it is its turn (`overlap: 'queue'`)
   * @throws {ConflictError} the run before it has not ended (`overlap: 'skip'`), or as many wait for that as may
   */
  async trigger(by = 'app'): Promise<string> {
    const reply = await this.#ask({ type: 'schedule.trigger', by });
    return (reply as unknown as { readonly key: string }).key;
  }

  /** Runs that it has started go on. */
  async delete(by = 'app'): Promise<void> {
    await this.#ask({ type: 'schedule.delete', by });
  }

  async #ask(message: Message): Promise<JsonValue> {
    try {
      return await this.#host.request(scheduleAddress(this.id), message);
    } catch (error) {
      if (!(error instanceof TroupeError) || error.code !== 'not_found') throw error;
      throw new NotFoundError(`There is no schedule "${this.id}".`, { cause: error });
    }
  }
}
