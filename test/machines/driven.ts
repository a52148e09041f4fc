import type { AnyStateMachine } from 'xstate';
import type { Address } from '../../src/protocol/address.ts';
import type { ReplyParams, RequestParams, SendParams } from '../../src/protocol/commands.ts';
import type { Failure } from '../../src/protocol/errors.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import type { Message, Meta } from '../../src/protocol/message.ts';
import {
  type LiveSnapshot,
  type MachineAction,
  MachineDriver,
  type MachineEvent,
} from '../../src/runtime/xstate-driver.ts';

/** An event without its `meta`, which the driver adds. */
export interface Fact {
  readonly type: string;
  readonly [field: string]: unknown;
}

export const START = Date.UTC(2026, 10, 20);

/** What a machine waits for, as a host would know it. */
export interface Pending {
  /** Requests: their id → the attempt that an answer has to name. */
  readonly requests: ReadonlyMap<string, number>;
  readonly effects: ReadonlySet<string>;
  readonly timers: ReadonlyMap<string, { readonly event: MachineEvent; readonly delayMs: number }>;
}

/** A machine between two events. */
export interface Moment {
  readonly snapshot: LiveSnapshot;
  readonly pending: Pending;
}

export interface Step extends Moment {
  readonly actions: readonly MachineAction[];
}

/**
 * A machine under the pure driver, without a host: event in, state and wishes out. Remembers like a host which
 * requests, effects and timers are open.
 */
export class Driven {
  readonly #driver: MachineDriver;
  readonly address: Address;

  constructor(machine: AnyStateMachine, address: string) {
    this.#driver = new MachineDriver(machine, { freeze: true });
    this.address = address as Address;
  }

  begin(input: unknown): Step {
    const { snapshot, actions } = this.#driver.initial(this.address, input as JsonValue);
    const nothing = { requests: new Map(), effects: new Set<string>(), timers: new Map() };
    return { snapshot, actions, pending: after(nothing, actions) };
  }

  /** One event. A request from outside carries a correlation, so that answers to it are seen. */
  take(moment: Moment, fact: Fact, meta: Partial<Meta> = {}): Step {
    const event = {
      ...fact,
      meta: {
        id: 'event',
        from: 'app/client',
        at: START,
        ...(ASKS.test(fact.type) ? { correlation: 'app!1', attempt: 1 } : {}),
        ...meta,
      },
    };
    const { snapshot, actions } = this.#driver.transition(
      this.address,
      moment.snapshot,
      event as MachineEvent,
    );
    return { snapshot, actions, pending: after(consumed(moment.pending, fact), actions) };
  }

  /** The snapshot as it comes back from the store. */
  throughStore(snapshot: LiveSnapshot): LiveSnapshot {
    const stored = JSON.parse(JSON.stringify(this.#driver.persist(snapshot))) as never;
    return this.#driver.restore(this.address, stored);
  }
}

/** Messages that are sent as requests. */
const ASKS =
  /^(?:task\.(?!dependencyEnded|enable|timeUp)|agent\.work$|gatekeeper\.verify$|overseer\.escalate$|supervisor\.(?:\w+Child|children|count|decide)$)/;

const ANSWERS: Readonly<Record<string, string>> = {
  'agent.work': 'work',
  'gatekeeper.verify': 'verify',
  'overseer.escalate': 'escalate',
};

/** What an event ends: the answer a request, the outcome an effect, the timer itself. */
function consumed(pending: Pending, { type }: Fact): Pending {
  const requests = new Map(pending.requests);
  const effects = new Set(pending.effects);
  const timers = new Map(pending.timers);
  const answered = /^(.+):(?:ok|err)$/.exec(type)?.[1];
  if (answered !== undefined) requests.delete(ANSWERS[answered] ?? answered);
  const ended = /^xstate\.(?:done|error)\.actor\.(.+)$/.exec(type)?.[1];
  if (ended !== undefined) effects.delete(ended);
  for (const [id, { event }] of timers) if (event.type === type) timers.delete(id);
  return { requests, effects, timers };
}

function after(before: Pending, actions: readonly MachineAction[]): Pending {
  const requests = new Map(before.requests);
  const effects = new Set(before.effects);
  const timers = new Map(before.timers);
  for (const action of actions) {
    switch (action.kind) {
      case 'startEffect':
        effects.add(action.id);
        break;
      case 'stopEffect':
        effects.delete(action.id);
        break;
      case 'raiseLater':
        timers.set(action.id ?? '?', { event: action.event, delayMs: action.delayMs });
        break;
      case 'cancelTimer':
        timers.delete(action.id);
        break;
      case 'command':
        if (action.command === 'request') {
          const { id, message, attempt } = action.params as RequestParams;
          requests.set(id ?? message.type, attempt ?? 1);
        } else if (action.command === 'cancelRequest') {
          requests.delete((action.params as { id: string }).id);
        }
        break;
      default:
    }
  }
  return { requests, effects, timers };
}

/** The same moment with something else in its context: to begin where it would take long to get to. */
export const withContext = (moment: Moment, over: object): Moment => ({
  pending: moment.pending,
  snapshot: { ...moment.snapshot, context: { ...moment.snapshot.context, ...over } },
});

/** `working`, `escalated.asking`. */
export function stateOf({ snapshot }: Moment): string {
  const parts: string[] = [];
  let value: JsonValue = snapshot.value;
  while (typeof value === 'object' && value !== null) {
    const [[key, inner] = ['', null]] = Object.entries(value);
    parts.push(key);
    value = inner as JsonValue;
  }
  return [...parts, String(value)].join('.');
}

/** The state as it is shown: `escalated`. */
export const shownState = (moment: Moment): string => stateOf(moment).split('.')[0] ?? '';

export interface Told {
  readonly from: string;
  readonly to: string;
  readonly telling: number;
  readonly heard: number;
  readonly agent?: string;
}

/** What an event's reply says: `working`, or `✗ conflict`; undefined when there was none. */
export function answerIn(actions: readonly MachineAction[]): string | undefined {
  const replies = actions.filter((a) => a.kind === 'command' && a.command === 'reply');
  if (replies.length > 1) throw new Error(`${replies.length} answers to one request.`);
  const [reply] = replies;
  if (reply?.kind !== 'command') return undefined;
  const params = reply.params as ReplyParams;
  if (params.to === undefined) return undefined;
  if ('failure' in params) return `✗ ${params.failure.code}`;
  const value = params.reply as { readonly state?: string };
  return value.state ?? JSON.stringify(value);
}

export function refusalIn(actions: readonly MachineAction[]): Failure | undefined {
  for (const action of actions) {
    if (action.kind !== 'command' || action.command !== 'reply') continue;
    const params = action.params as ReplyParams;
    if ('failure' in params) return params.failure;
  }
  return undefined;
}

export const messagesIn = (
  actions: readonly MachineAction[],
): readonly { readonly to: string; readonly message: Message }[] =>
  actions.flatMap((action) =>
    action.kind === 'command' && (action.command === 'send' || action.command === 'request')
      ? [action.params as { to: string; message: Message }]
      : [],
  );

export const toldRun = (actions: readonly MachineAction[]): readonly Told[] =>
  messagesIn(actions)
    .filter(({ message }) => message.type === 'run.taskChanged')
    .map(({ message }) => message as unknown as Told);

/** What a machine asked for, one line each, as a person would say it. */
export function inWords(actions: readonly MachineAction[]): readonly string[] {
  return actions.flatMap((action): string[] => {
    switch (action.kind) {
      case 'startEffect':
        return [`starts ${action.src}`];
      case 'stopEffect':
        return [`stops ${action.id}`];
      case 'raiseLater':
        return [`waits ${action.delayMs} ms`];
      case 'cancelTimer':
        return ['waits no longer'];
      case 'command':
        break;
      default:
        return [action.kind];
    }
    switch (action.command) {
      case 'send':
      case 'request': {
        const { to, message } = action.params as SendParams;
        if (message.type === 'run.taskChanged') {
          const { from, to: now, telling, heard } = message as unknown as Told;
          const more = [telling > 0 && `telling ${telling}`, heard > 0 && `heard ${heard}`];
          return [['tells the run', `${from} → ${now}`, ...more.filter(Boolean)].join(', ')];
        }
        return [`${action.command === 'send' ? 'tells' : 'asks'} ${to}: ${message.type}`];
      }
      case 'cancelRequest':
        return [`forgets ${(action.params as { id: string }).id}`];
      case 'reply': {
        const params = action.params as ReplyParams;
        if (params.to === undefined) return [];
        return ['failure' in params ? `refuses: ${params.failure.message}` : 'answers'];
      }
      case 'spawn':
        return ['spawns'];
      default:
        return [action.command];
    }
  });
}
