import type { AnyStateMachine } from 'xstate';
import { ConfigurationError } from '../protocol/errors.ts';

const CALLS_SPAWN = /\bspawn\s*\(/;

interface StateNodeShape {
  readonly id: string;
  readonly path: readonly string[];
  readonly config: { readonly after?: Readonly<Record<string, unknown>> };
  readonly invoke: readonly {
    readonly id: string;
    readonly src: unknown;
    readonly onSnapshot?: unknown;
    readonly systemId?: unknown;
  }[];
  readonly states: Readonly<Record<string, StateNodeShape>>;
  readonly entry: readonly unknown[];
  readonly exit: readonly unknown[];
  readonly initial: { readonly actions: readonly unknown[] };
  readonly transitions: ReadonlyMap<
    string,
    readonly { readonly actions: readonly unknown[]; readonly guard?: unknown }[]
  >;
  readonly always?: readonly { readonly actions: readonly unknown[]; readonly guard?: unknown }[];
}

const INSTEAD = {
  onSnapshot: 'An effect has no states in between: let it send messages, or write a stream.',
  systemId: 'Actors are found by their addresses.',
} as const;

/**
 * Refuses what a durable host cannot keep, and what would fail only later: says what to write instead.
 * @throws {ConfigurationError}
 */
export function checkMachine(machine: AnyStateMachine): void {
  requireMachine(machine);
  const visit = (node: StateNodeShape): void => {
    const where = node.path.length === 0 ? 'the root' : `state "${node.path.join('.')}"`;
    for (const invoke of node.invoke) {
      checkEffect(machine, where, invoke.src);
      for (const key of ['onSnapshot', 'systemId'] as const) {
        if (invoke[key] === undefined) continue;
        throw new ConfigurationError(
          `In ${where} of machine "${machine.id}", the effect "${String(invoke.src)}" has ${key}, which nothing would ever come of. ${INSTEAD[key]}`,
        );
      }
    }
    for (const [delay, targets] of Object.entries(node.config.after ?? {})) {
      if (Number.isNaN(Number(delay))) checkDelay(machine, where, delay);
      // XState drops a bare string inside an `after` array without a word.
      if (Array.isArray(targets) && targets.some((target) => typeof target === 'string')) {
        throw new ConfigurationError(
          `In ${where} of machine "${machine.id}", after ${delay} lists a bare state name, which XState ignores there. Write { target: '…' }.`,
        );
      }
    }
    const transitions = [...node.transitions.values(), node.always ?? []].flat();
    for (const transition of transitions) {
      checkNamed(machine, where, 'guard', transition.guard);
      for (const action of transition.actions) checkNamed(machine, where, 'action', action);
    }
    for (const action of [...node.entry, ...node.exit, ...node.initial.actions]) {
      checkNamed(machine, where, 'action', action);
    }
    for (const child of Object.values(node.states)) visit(child);
  };
  const context: unknown = (machine.config as { context?: unknown }).context;
  if (typeof context === 'function' && CALLS_SPAWN.test(String(context))) {
    throw spawnInAssign(machine.id);
  }
  for (const what of ['action', 'guard'] as const) {
    for (const part of Object.values(machine.implementations[`${what}s`] as object)) {
      checkNamed(machine, `setup({ ${what}s })`, what, part);
    }
  }
  visit(machine.root as unknown as StateNodeShape);
  for (const src of Object.keys(machine.implementations.actors as object)) {
    checkEffect(machine, 'setup({ actors })', src);
  }
}

/** @throws {ConfigurationError} it is no machine at all */
export function requireMachine(machine: unknown): void {
  const { getInitialSnapshot } = (machine ?? {}) as { getInitialSnapshot?: unknown };
  if (typeof getInitialSnapshot === 'function') return;
  throw new ConfigurationError(
    'Expected an XState v5 machine made by setup({ … }).createMachine({ … }).',
  );
}

function checkNamed(
  machine: AnyStateMachine,
  where: string,
  what: 'action' | 'guard',
  reference: unknown,
): void {
  checkAssign(machine, reference);
  // `and`, `or` and `not` are functions that carry the guards they are made of.
  for (const part of (reference as { guards?: readonly unknown[] } | undefined)?.guards ?? []) {
    checkNamed(machine, where, 'guard', part);
  }
  const { type, src } = (reference ?? {}) as { readonly type?: unknown; readonly src?: unknown };
  if (type === 'xstate.spawnChild' && typeof src !== 'function') checkEffect(machine, where, src);
  const delay: unknown = (reference as { delay?: unknown } | undefined)?.delay;
  if (what === 'action' && typeof delay === 'string') checkDelay(machine, where, delay);
  const name =
    typeof reference === 'string'
      ? reference
      : typeof reference === 'object' && reference !== null && !('resolve' in reference)
        ? (reference as { type?: unknown }).type
        : undefined;
  if (typeof name !== 'string' || name.startsWith('xstate.')) return;
  const known: object =
    what === 'action' ? machine.implementations.actions : machine.implementations.guards;
  if (!Object.hasOwn(known, name)) {
    throw new ConfigurationError(
      `In ${where} of machine "${machine.id}", the ${what} "${name}" has no implementation. Known: ${Object.keys(known).join(', ') || 'none'}.`,
    );
  }
}

// XState takes a delay it does not know for none, and the timer would fire at once.
function checkDelay(machine: AnyStateMachine, where: string, name: string): void {
  const known: object = machine.implementations.delays;
  if (Object.hasOwn(known, name)) return;
  throw new ConfigurationError(
    `In ${where} of machine "${machine.id}", the delay "${name}" has no implementation. Known: ${Object.keys(known).join(', ') || 'none'}.`,
  );
}

function checkAssign(machine: AnyStateMachine, action: unknown): void {
  if (typeof action !== 'function' && (typeof action !== 'object' || action === null)) return;
  const { assignment } = action as { assignment?: unknown };
  const parts =
    typeof assignment === 'object' && assignment !== null
      ? Object.values(assignment)
      : [assignment];
  if (parts.some((part) => typeof part === 'function' && CALLS_SPAWN.test(String(part)))) {
    throw spawnInAssign(machine.id);
  }
}

function checkEffect(machine: AnyStateMachine, where: string, src: unknown): void {
  if (typeof src !== 'string' || src.startsWith('xstate.invoke.')) {
    throw new ConfigurationError(
      `In ${where} of machine "${machine.id}", an effect is written inline. Name it in setup({ actors: { … } }) and invoke it by that name, so that a stored state can find it again.`,
    );
  }
  const logic = (machine.implementations.actors as Record<string, unknown>)[src];
  if (logic === undefined) {
    throw new ConfigurationError(
      `In ${where} of machine "${machine.id}", the effect "${src}" has no implementation in setup({ actors }).`,
    );
  }
  const kind = logicKind(logic);
  if (kind === 'promise') return;
  const advice: Record<Exclude<LogicKind, 'promise'>, string> = {
    machine: 'Give the child an address of its own: use the "spawn" action.',
    callback: 'Use fromPromise, and send messages from it with the context it is given.',
    observable: 'Subscribe inside a fromPromise effect, or let the source send messages.',
    transition: 'Make it a machine, or keep its state in the context.',
    unknown: 'Use fromPromise.',
  };
  throw new ConfigurationError(
    `In ${where} of machine "${machine.id}", "${src}" is ${kind === 'unknown' ? 'not promise logic' : `${kind} logic`}, whose progress cannot be stored. ${advice[kind]}`,
  );
}

type LogicKind = 'promise' | 'machine' | 'callback' | 'observable' | 'transition' | 'unknown';

/** Finds out by behaviour, as XState gives logic objects no name: only promise logic turns `resolve` into `done`. */
function logicKind(logic: unknown): LogicKind {
  if (typeof logic !== 'object' || logic === null) return 'unknown';
  const shape = logic as {
    config?: unknown;
    root?: unknown;
    start?: unknown;
    transition?: (state: unknown, event: unknown, scope: unknown) => unknown;
    getInitialSnapshot?: (scope: unknown, input: unknown) => Record<string, unknown>;
  };
  if ('__xstatenode' in shape || shape.root !== undefined) return 'machine';
  if (typeof shape.config !== 'function' || typeof shape.transition !== 'function')
    return 'unknown';
  if (typeof shape.start !== 'function') return 'transition';
  const probe = (event: unknown): Record<string, unknown> | undefined => {
    try {
      const state = { status: 'active', output: undefined, error: undefined, input: undefined };
      return shape.transition?.(state, event, { self: {}, system: {} }) as Record<string, unknown>;
    } catch {
      return undefined; // not promise logic: it needed more than a state and an event
    }
  };
  if (probe({ type: PROMISE_RESOLVED, data: 1 })?.['status'] === 'done') return 'promise';
  if (probe({ type: OBSERVABLE_COMPLETE })?.['status'] === 'done') return 'observable';
  return 'callback';
}

const PROMISE_RESOLVED = 'xstate.promise.resolve';
const OBSERVABLE_COMPLETE = 'xstate.observable.complete';

// `spawn` inside assign tells the host nothing: the child would be in the snapshot and never start.
export function spawnInAssign(machine: string): ConfigurationError {
  return new ConfigurationError(
    `The machine "${machine}" calls spawn() inside assign or its context. Use invoke, the spawnChild action, or the "spawn" action for an actor with an address of its own.`,
  );
}
