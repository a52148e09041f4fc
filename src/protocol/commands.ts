import type { Address, KindOf } from './address.ts';
import type { CommandTo, KnownKind } from './catalogue.ts';
import type { Failure } from './errors.ts';
import type { JsonValue } from './json.ts';
import type { Message, ReplyTo } from './message.ts';
import type { Priority } from './priority.ts';
import type { Shutdown } from './supervision.ts';

/**
 * What a machine may ask of its host, as data. A machine names the action and computes its params; nothing
 * happens in the machine itself. The host carries these out when the turn is committed. Under a plain
 * `createActor` they do nothing, so the same machine runs in an editor or a unit test.
 *
 *     setup({ actions: { ...durableActions } }).createMachine({
 *       entry: { type: 'send', params: { to: 'inbox/ada', message: { type: 'inbox.add' } } },
 *     });
 */
export const durableActions = {
  /** Sends a message; it is stored with the turn that sends it. */
  send: (_args: unknown, _params: SendParams): void => undefined,
  /** Sends a request. Exactly one `<type>:ok` or `<type>:err` comes back, at the latest at the deadline. */
  request: (_args: unknown, _params: RequestParams): void => undefined,
  /** Stops waiting for the answer to a request of this actor. A later answer is dropped and counted. */
  cancelRequest: (_args: unknown, _params: { readonly id: string }): void => undefined,
  /** Answers a request. */
  reply: (_args: unknown, _params: ReplyParams): void => undefined,
  /** Creates an actor; nothing happens if it exists already. */
  spawn: (_args: unknown, _params: SpawnParams): void => undefined,
};

/**
 * What a supervisor asks of its host: the lives of its children. Orders to one actor are carried out one after the
 * other, before anything that waits in its mailbox; one that was not carried out gives way to a later one.
 */
const lifeActions = {
  startLife: (_args: unknown, _params: StartLifeParams): void => undefined,
  endLife: (_args: unknown, _params: EndLifeParams): void => undefined,
  /** There will be no new life of an actor that has ended: whatever waits for it is refused. */
  releaseLife: (_args: unknown, _params: { readonly address: string }): void => undefined,
};

export interface StartLifeParams {
  readonly address: string;
  readonly machine: string;
  readonly input: JsonValue;
  /** Told with `child.started`, and kept with the checkpoint. */
  readonly life: number;
  /** What lives there already is given up. Else it goes on as it is, and belongs to the supervisor from then on. */
  readonly renew: boolean;
  readonly messages: 'keep' | 'drop';
  /** Why, for the checkpoint. */
  readonly cause: string | null;
}

export interface EndLifeParams {
  readonly address: string;
  readonly shutdown: Shutdown;
  readonly reason: string;
  /** A new life will follow: what waits for it may wait on. */
  readonly again: boolean;
}

export interface SendOptions {
  /** Default: normal (2). */
  readonly priority?: Priority;
  /** Earliest delivery in milliseconds from now. Default: at once. */
  readonly delayMs?: number;
}

/** What may be sent to an address: its kind's commands; anything, if the kind is not in the `Protocol`. */
export type AcceptedBy<A extends string> =
  KindOf<A> extends KnownKind ? CommandTo<KindOf<A>> : Message;

type ToKnown = { [K in KnownKind]: { readonly to: Address<K>; readonly message: CommandTo<K> } };
/** An address with a message it accepts. */
export type Addressed =
  | ToKnown[KnownKind]
  | { readonly to: UnknownAddress; readonly message: Message };
/** An address of a kind that is not in the `Protocol`; made by `anyAddress`. */
export type UnknownAddress = Address & { readonly unknownKind: true };

/** An address computed at run time, or of a kind of your own: its messages are not type-checked. */
export const anyAddress = (address: string): UnknownAddress => address as UnknownAddress;

export type SendParams = Addressed & SendOptions;

export type RequestParams = Addressed &
  SendOptions & {
    /** Names the request within this actor: a second one with the same id replaces the first. Default: the type. */
    readonly id?: string;
    /** 1 for the first try; a retry sends the next number. An answer to an earlier one is dropped. Default 1. */
    readonly attempt?: number;
    /** How long to wait for the answer; then `<type>:err` with code `timeout` comes. */
    readonly timeoutMs: number;
  };

export type ReplyParams = {
  /** From `replyTo(event.meta)`, kept in the context if the answer comes later. Undefined: nobody asked. */
  readonly to: ReplyTo | undefined;
  /** The request's type. */
  readonly type: string;
} & ({ readonly reply: JsonValue } | { readonly failure: Failure });

export interface SpawnParams {
  readonly address: string;
  /** The name the machine was registered under. */
  readonly machine: string;
  readonly input?: JsonValue;
}

/** The actions above as XState names them: for `enqueue` inside `enqueueActions`. */
export type DurableCommand = {
  [K in keyof typeof durableActions]: {
    readonly type: K;
    readonly params: Parameters<(typeof durableActions)[K]>[1];
  };
}[keyof typeof durableActions];

/** Everything that a machine may ask of its host, as the driver tells it apart. */
export const hostActions = { ...durableActions, ...lifeActions };
