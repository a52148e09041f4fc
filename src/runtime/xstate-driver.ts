import type { AnyStateMachine } from 'xstate';
import { hostActions } from '../protocol/commands.ts';
import { ConfigurationError, toFailure } from '../protocol/errors.ts';
import { findNonJson, type JsonObject, type JsonValue } from '../protocol/json.ts';
import type { RestartPolicy } from './effect.ts';
import { ignoreRejection } from './ignore-rejection.ts';
import { checkMachine, spawnInAssign } from './machine-check.ts';

/**
 * All contact with XState's transition internals is in this file (and, with the shape of machines, in
 * machine-check.ts). It drives a machine as the pure function it
 * is, with an actor scope of our own that collects actions instead of running them. `createActor` would run
 * actions before anything is stored, forget `after` deadlines on restore, and re-run invoked work blindly.
 * The contract test (test/runtime/xstate-driver.test.ts) holds every supported statechart feature against it;
 * an upgrade of xstate is these two files and that test.
 */

/** A machine's state in memory. Opaque to everyone else. */
export interface LiveSnapshot {
  readonly status: 'active' | 'done' | 'error' | 'stopped';
  readonly value: JsonValue;
  readonly context: JsonObject;
  readonly output: unknown;
  readonly error: unknown;
  readonly children: Readonly<Record<string, { readonly id: string; readonly src: unknown }>>;
  readonly historyValue: Readonly<Record<string, readonly { readonly id: string }[]>>;
  readonly tags: ReadonlySet<string>;
}

/** A machine's state as it is stored. */
export interface PersistedSnapshot {
  readonly status: 'active' | 'done' | 'error';
  readonly value: JsonValue;
  readonly context: JsonObject;
  readonly historyValue?: Readonly<Record<string, readonly string[]>>;
  /** Invoked and spawned effects: id → src. */
  readonly children?: Readonly<Record<string, string>>;
  readonly output?: JsonValue;
  readonly error?: JsonValue;
}

/** An event as the machine sees it. */
export interface MachineEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** What a transition asks for, in the order it asked. */
export type MachineAction =
  | {
      readonly kind: 'command';
      readonly command: keyof typeof hostActions;
      readonly params: unknown;
    }
  | {
      readonly kind: 'startEffect';
      readonly id: string;
      readonly src: string;
      readonly input: JsonValue;
    }
  | { readonly kind: 'stopEffect'; readonly id: string }
  | {
      readonly kind: 'raiseLater';
      readonly id: string | undefined;
      readonly event: MachineEvent;
      readonly delayMs: number;
    }
  | { readonly kind: 'cancelTimer'; readonly id: string }
  | { readonly kind: 'sendSelf'; readonly event: MachineEvent }
  | {
      readonly kind: 'sendParent';
      readonly event: MachineEvent;
      readonly delayMs: number | undefined;
    }
  | { readonly kind: 'emit'; readonly event: MachineEvent }
  | { readonly kind: 'log'; readonly value: unknown; readonly label: string | undefined }
  | { readonly kind: 'local'; readonly type: string; readonly run: () => unknown };

export interface Transition {
  readonly snapshot: LiveSnapshot;
  readonly actions: readonly MachineAction[];
}

/** What an effect's implementation is called with by XState's own types; the host adds to it. */
export type EffectCreator = ((args: Record<string, unknown>) => unknown) & {
  readonly restart?: RestartPolicy;
};

/** More microsteps than this in one turn is an endless loop of `always` or `raise`, not work. */
const MAX_ITERATIONS = 1000;

const NO_ACTIONS: readonly MachineAction[] = [];

interface RawAction {
  readonly type: string;
  readonly params: unknown;
  readonly info: unknown;
  readonly exec: ((info: unknown, params: unknown) => unknown) | undefined;
}

interface RawRef {
  readonly id: string;
}

const commandNames = new Map<unknown, keyof typeof hostActions>(
  (Object.keys(hostActions) as (keyof typeof hostActions)[]).map((key) => [hostActions[key], key]),
);

export class MachineDriver {
  readonly #machine: AnyStateMachine;
  readonly #freeze: boolean;
  readonly #scope: ReturnType<typeof createScope>;
  readonly #raw: RawAction[] = [];
  /** States that declare `meta: { milestone: 'a label' }`. */
  readonly #milestones: ReadonlyMap<unknown, string>;

  /**
   * @param freeze deep-freeze every context, so that a machine that changes it in place throws at once
   * @throws {ConfigurationError} the machine uses something a durable host cannot keep; says what to write instead
   */
  constructor(machine: AnyStateMachine, options: { readonly freeze: boolean }) {
    checkMachine(machine);
    // A copy, so that the bound on iterations is ours and the caller's machine is left alone.
    this.#machine = machine.provide({}) as AnyStateMachine;
    const own = this.#machine as { options: { maxIterations: number } };
    own.options = {
      ...own.options,
      maxIterations: Math.min(own.options.maxIterations, MAX_ITERATIONS),
    };
    lookUpInPassing(this.#machine);
    this.#freeze = options.freeze;
    this.#scope = createScope(this.#machine, (action) => this.#raw.push(action));
    this.#milestones = milestonesOf(this.#machine);
  }

  get machine(): AnyStateMachine {
    return this.#machine;
  }

  /** @throws what the machine's own code throws, or ConfigurationError for a context that is not JSON */
  initial(address: string, input: JsonValue | undefined): Transition {
    this.#begin(address);
    const snapshot = this.#machine.getInitialSnapshot(
      this.#scope as never,
      input as never,
    ) as unknown as LiveSnapshot;
    if (snapshot.status === 'error') throw snapshot.error;
    const actions = this.#actions(snapshot, undefined);
    this.#check(snapshot, undefined);
    return { snapshot, actions };
  }

  /**
   * One turn. The snapshot given is never changed; when this throws, nothing has happened.
   * @throws what a guard, an assign or an action's params throw; ConfigurationError for a context that is not JSON
   */
  transition(address: string, snapshot: LiveSnapshot, event: MachineEvent): Transition {
    this.#begin(address);
    const next = this.#machine.transition(
      snapshot as never,
      event as never,
      this.#scope as never,
    ) as unknown as LiveSnapshot;
    if (next === snapshot && this.#raw.length === 0) return { snapshot, actions: NO_ACTIONS };
    const actions = this.#actions(next, snapshot);
    if (next !== snapshot) this.#check(next, snapshot);
    return { snapshot: next, actions };
  }

  /** Whether a turn with this event may change anything: the state handles it, and its guards let it pass. */
  accepts(address: string, snapshot: LiveSnapshot, event: MachineEvent): boolean {
    this.#begin(address);
    try {
      return (snapshot as unknown as { can(event: MachineEvent): boolean }).can(event);
    } catch {
      return true; // a guard threw: the turn will throw it again, and is told of
    }
  }

  /** The label of a milestone that `after` is in and `before` was not. */
  milestone(before: LiveSnapshot | undefined, after: LiveSnapshot): string | undefined {
    if (this.#milestones.size === 0 || before?.value === after.value) return undefined;
    for (const node of nodesOf(after)) {
      const label = this.#milestones.get(node);
      if (label === undefined) continue;
      if (before === undefined || !nodesOf(before).includes(node)) return label;
    }
    return undefined;
  }

  persist(snapshot: LiveSnapshot): PersistedSnapshot {
    const childIds = Object.keys(snapshot.children);
    const historyKeys = Object.keys(snapshot.historyValue);
    return {
      status: snapshot.status === 'stopped' ? 'done' : snapshot.status,
      value: snapshot.value,
      context: snapshot.context,
      ...(historyKeys.length === 0
        ? undefined
        : {
            historyValue: Object.fromEntries(
              historyKeys.map((key) => [key, snapshot.historyValue[key]?.map((n) => n.id) ?? []]),
            ),
          }),
      ...(childIds.length === 0
        ? undefined
        : {
            children: Object.fromEntries(
              childIds.map((id) => [id, String(snapshot.children[id]?.src)]),
            ),
          }),
      ...(snapshot.output === undefined ? undefined : { output: snapshot.output as JsonValue }),
      ...(snapshot.error === undefined ? undefined : { error: errorJson(snapshot.error) }),
    };
  }

  /** @throws {ConfigurationError} the snapshot names a state or a child that the machine does not have */
  restore(address: string, persisted: PersistedSnapshot): LiveSnapshot {
    this.#begin(address);
    const missing = Object.values(persisted.children ?? {}).find((src) => !this.#logic(src));
    if (missing !== undefined) {
      throw new ConfigurationError(
        `The stored state of ${address} runs the effect "${missing}", which the machine no longer has.`,
      );
    }
    for (const [key, ids] of Object.entries(persisted.historyValue ?? {})) {
      for (const id of ids) {
        if (!stateNodesOf(this.#machine).has(id)) {
          throw new ConfigurationError(
            `The stored history "${key}" of ${address} names the state "${id}", which the machine no longer has.`,
          );
        }
      }
    }
    try {
      const snapshot = this.#machine.restoreSnapshot(
        {
          status: persisted.status,
          value: persisted.value,
          context: persisted.context,
          output: persisted.output,
          error: persisted.error,
          historyValue: Object.fromEntries(
            Object.entries(persisted.historyValue ?? {}).map(([key, ids]) => [
              key,
              ids.map((id) => ({ id })),
            ]),
          ),
          children: Object.fromEntries(
            Object.entries(persisted.children ?? {}).map(([id, src]) => [
              id,
              { src, snapshot: { status: 'active', input: undefined }, syncSnapshot: false },
            ]),
          ),
        } as never,
        this.#scope as never,
      ) as unknown as LiveSnapshot;
      // XState restores a leaf that became a compound state into its initial child without running entry actions.
      if (JSON.stringify(snapshot.value) !== JSON.stringify(persisted.value)) {
        throw new ConfigurationError(
          `The stored state ${JSON.stringify(persisted.value)} of ${address} would become ${JSON.stringify(snapshot.value)} in the machine of today.`,
        );
      }
      this.#checkEffects(address, snapshot, persisted);
      if (this.#freeze) deepFreeze(snapshot.context);
      return snapshot;
    } catch (error) {
      if (error instanceof ConfigurationError) throw error;
      throw new ConfigurationError(
        `The stored state ${JSON.stringify(persisted.value)} of ${address} does not fit the machine "${this.#machine.id}": ${error instanceof Error ? error.message : String(error)}`,
        { cause: error },
      );
    }
  }

  /** An effect is known by its id, which XState makes of its place: in another order, one would get the result of another. */
  #checkEffects(
    address: string,
    snapshot: LiveSnapshot,
    { children = {} }: PersistedSnapshot,
  ): void {
    for (const node of nodesOf(snapshot) as readonly StateNode[]) {
      for (const { id, src } of node.invoke) {
        const stored = children[id];
        if (stored === undefined || stored === src) continue;
        throw new ConfigurationError(
          `The stored state of ${address} runs the effect "${stored}" as "${id}", which is "${String(src)}" in the machine of today. Give the effects of a state ids of their own, in the order in which they were: { id: "…", src: "…" }.`,
        );
      }
    }
  }

  /** The function that runs the effect `src`. The machine was checked: it is there. */
  effect(src: string): EffectCreator {
    const logic = this.#logic(src);
    if (logic === undefined) {
      throw new ConfigurationError(`The machine "${this.#machine.id}" has no effect "${src}".`);
    }
    return logic.config;
  }

  #logic(src: string): { readonly config: EffectCreator } | undefined {
    return (this.#machine.implementations.actors as Record<string, never>)[src];
  }

  #begin(address: string): void {
    this.#raw.length = 0;
    this.#scope.self.id = address;
    this.#scope.self.sessionId = address;
    this.#scope.id = address;
    this.#scope.sessionId = address;
  }

  #check(next: LiveSnapshot, before: LiveSnapshot | undefined): void {
    if (next.output !== undefined) {
      const problem = findNonJson(next.output, 'output', 1);
      if (problem) throw notJson('output', this.#machine.id, problem.path, problem.found);
    }
    const context = next.context as Record<string, unknown>;
    const old = before?.context as Record<string, unknown> | undefined;
    if (context === old) return;
    if (!isPlainObject(context)) {
      const found = findNonJson(context, 'context')?.found ?? 'an array';
      throw notJson('context', this.#machine.id, 'context', found);
    }
    for (const key of Object.keys(context)) {
      const value = context[key];
      if (isPlain(value) || (old !== undefined && Object.is(value, old[key]))) continue;
      // As deep as it lies in the snapshot: what is stored must be found fit when it is loaded.
      const problem = findNonJson(value, `context.${key}`, 2);
      if (problem) {
        ignoreRejection(value);
        throw notJson('context', this.#machine.id, problem.path, problem.found);
      }
      if (this.#freeze) deepFreeze(value);
    }
    if (this.#freeze) Object.freeze(context);
  }

  #actions(next: LiveSnapshot, before: LiveSnapshot | undefined): readonly MachineAction[] {
    const actions: MachineAction[] = [];
    for (const raw of this.#raw) {
      const action = this.#decode(raw);
      if (action !== undefined) actions.push(action);
    }
    if (next.children !== before?.children) {
      for (const id of Object.keys(next.children)) {
        if (before !== undefined && id in before.children) continue;
        if (!actions.some((action) => action.kind === 'startEffect' && action.id === id)) {
          throw spawnInAssign(this.#machine.id);
        }
      }
    }
    return actions.length === 0 ? NO_ACTIONS : actions;
  }

  #decode(raw: RawAction): MachineAction | undefined {
    const command = commandNames.get(raw.exec);
    if (command !== undefined) return { kind: 'command', command, params: raw.params };
    switch (raw.type) {
      case 'xstate.spawnChild': {
        const params = raw.params as { src: unknown; input: unknown; actorRef?: RawRef };
        if (typeof params.src !== 'string') {
          throw new ConfigurationError(
            `The machine "${this.#machine.id}" spawns an inline actor. Name it in setup({ actors }) and spawn it by that name.`,
          );
        }
        if (this.#logic(params.src) === undefined || params.actorRef === undefined) {
          throw new ConfigurationError(
            `The machine "${this.#machine.id}" spawns the effect "${params.src}", which has no implementation in setup({ actors }).`,
          );
        }
        // Not the id it was asked for: that may have been a function.
        const { id } = params.actorRef;
        const problem = params.input === undefined ? undefined : findNonJson(params.input, 'input');
        if (problem) {
          throw new ConfigurationError(
            `The input of effect "${id}" of machine "${this.#machine.id}" must be plain JSON, but ${problem.path} is ${problem.found}.`,
          );
        }
        return {
          kind: 'startEffect',
          id,
          src: params.src,
          input: (params.input ?? null) as JsonValue,
        };
      }
      case 'xstate.stopChild': {
        const ref = raw.params as RawRef | undefined;
        return ref === undefined ? undefined : { kind: 'stopEffect', id: ref.id };
      }
      case 'xstate.raise': {
        const params = raw.params as { event: MachineEvent; id?: string; delay?: number };
        // Without a delay XState has handled it already, within this very transition.
        if (params.delay === undefined) return undefined;
        return { kind: 'raiseLater', id: params.id, event: params.event, delayMs: params.delay };
      }
      case 'xstate.cancel': {
        const params = raw.params as { sendId: string } | string;
        return { kind: 'cancelTimer', id: typeof params === 'string' ? params : params.sendId };
      }
      case 'xstate.sendTo': {
        const params = raw.params as {
          to: unknown;
          targetId?: string;
          event: MachineEvent;
          id?: string;
          delay?: number;
        };
        if (params.to === this.#scope.self) {
          return params.delay === undefined
            ? { kind: 'sendSelf', event: withoutMeta(params.event) }
            : {
                kind: 'raiseLater',
                id: params.id,
                event: params.event,
                delayMs: params.delay,
              };
        }
        if (params.to === this.#scope.self._parent) {
          return { kind: 'sendParent', event: withoutMeta(params.event), delayMs: params.delay };
        }
        throw new ConfigurationError(
          `The machine "${this.#machine.id}" sends "${params.event.type}" to its effect "${params.targetId ?? '?'}". Effects take no messages: use the "send" action with an address.`,
        );
      }
      case 'xstate.emit':
        return { kind: 'emit', event: (raw.params as { event: MachineEvent }).event };
      case 'xstate.log': {
        const params = raw.params as { value: unknown; label?: string };
        return { kind: 'log', value: params.value, label: params.label };
      }
      default: {
        const exec = raw.exec;
        if (exec === undefined) {
          throw new ConfigurationError(
            `The machine "${this.#machine.id}" has no implementation for the action "${raw.type}".`,
          );
        }
        const { info, params } = raw;
        return { kind: 'local', type: raw.type, run: () => exec(info, params) };
      }
    }
  }
}

/** An event that is sent on is a new message: it gets a meta of its own. */
function withoutMeta(event: MachineEvent): MachineEvent {
  if (!('meta' in event)) return event;
  const { meta: _meta, ...message } = event;
  return message;
}

function notJson(what: string, machine: string, path: string, found: string): ConfigurationError {
  return new ConfigurationError(
    `The ${what} of machine "${machine}" must be plain JSON, because it is stored; but ${path} is ${found}.`,
  );
}

/** What needs no look inside. */
/** As JSON makes them. */
function isPlainObject(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function isPlain(value: unknown): boolean {
  switch (typeof value) {
    case 'string':
    case 'boolean':
    case 'undefined':
      return true;
    case 'number':
      return Number.isFinite(value) && !Object.is(value, -0);
    default:
      return value === null;
  }
}

function errorJson(error: unknown): JsonValue {
  if (error instanceof Error) return toFailure(error) as unknown as JsonValue;
  return findNonJson(error) === undefined ? (error as JsonValue) : String(error);
}

function deepFreeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return;
  Object.freeze(value);
  for (const child of Object.values(value)) deepFreeze(child);
}

/** The stub of an actor and its system: as much of their shape as `transition` touches. */
function createScope(machine: AnyStateMachine, collect: (action: RawAction) => void) {
  const nothing = (): void => undefined;
  const system = {
    _bookId: () => 'x:0',
    _register: nothing,
    _unregister: nothing,
    _set: nothing,
    _unset: nothing,
    _sendInspectionEvent: nothing,
    _relay: nothing,
    _snapshot: { _scheduledEvents: {} },
    _clock: { setTimeout: nothing, clearTimeout: nothing },
    _logger: nothing,
    scheduler: { schedule: nothing, cancel: nothing, cancelAll: nothing },
    get: () => undefined,
    getAll: () => ({}),
    inspect: () => ({ unsubscribe: nothing }),
    getSnapshot: () => ({}),
    start: nothing,
  };
  const refuse = (): never => {
    throw new ConfigurationError(
      `A durable actor has no reference to call: the machine "${machine.id}" has called send() on one. Use the raise, sendTo(self), sendParent or "send" action.`,
    );
  };
  const parent = { id: '#parent', sessionId: '#parent', system, send: refuse };
  const self = {
    id: '',
    sessionId: '',
    logic: machine,
    system,
    _parent: parent,
    send: refuse,
    getSnapshot: () => undefined,
    toJSON: () => ({ xstate$$type: 1, id: '' }),
  };
  return {
    self,
    system,
    id: '',
    sessionId: '',
    logger: nothing,
    defer: nothing,
    stopChild: nothing,
    emit: nothing,
    actionExecutor: collect,
  };
}

interface StateNode {
  readonly meta?: unknown;
  readonly invoke: readonly { readonly id: string; readonly src: unknown }[];
  /** By event descriptor. */
  readonly transitions: ReadonlyMap<string, unknown>;
  next: (this: StateNode, snapshot: unknown, event: { readonly type: string }) => unknown;
}

/** All of a machine's, by id. */
const stateNodesOf = (machine: AnyStateMachine): ReadonlyMap<string, StateNode> =>
  (machine as unknown as { readonly idMap: ReadonlyMap<string, StateNode> }).idMap;

function milestonesOf(machine: AnyStateMachine): ReadonlyMap<unknown, string> {
  const found = new Map<unknown, string>();
  for (const node of stateNodesOf(machine).values()) {
    const label = (node.meta as { readonly milestone?: unknown } | undefined)?.milestone;
    if (typeof label === 'string' && label !== '') found.set(node, label);
  }
  return found;
}

/**
 * XState keeps, for each state and each type of event that has ever come there, which transitions may apply, and forgets none:
 * a leak where types are made up as a machine goes on (`xstate.done.actor.job-17`). Those that no transition names are
 * looked up by a passing copy of the state instead, and what is kept of them goes with it.
 * Source: `memo` and `StateNode.next` of xstate 5.33.
 */
function lookUpInPassing(machine: AnyStateMachine): void {
  const nodes = [...stateNodesOf(machine).values()];
  const named = new Set(nodes.flatMap(({ transitions }) => [...transitions.keys()]));
  for (const node of nodes) {
    const { next } = node;
    node.next = (snapshot, event) => {
      const asked = named.has(event.type) ? node : (Object.create(node) as StateNode);
      return next.call(asked, snapshot, event);
    };
  }
}

const nodesOf = (snapshot: LiveSnapshot): readonly unknown[] =>
  (snapshot as unknown as { readonly _nodes: readonly unknown[] })._nodes;
