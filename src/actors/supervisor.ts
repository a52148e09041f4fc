import type { AnyStateMachine } from 'xstate';
import { z } from 'zod';
import { completeChild, DEFAULT_INTENSITY, statusOf } from '../machines/policies/supervision.ts';
import type { SupervisorContext, SupervisorInput } from '../machines/supervisor-machine.ts';
import {
  type Address,
  kindOf,
  nameOf,
  parseAddress,
  parseId,
  supervisorAddress,
} from '../protocol/address.ts';
import type { BackoffPolicy } from '../protocol/backoff.ts';
import type { SupervisorDecision } from '../protocol/catalogue.ts';
import {
  ConfigurationError,
  ConflictError,
  type Failure,
  NotFoundError,
  ValidationError,
} from '../protocol/errors.ts';
import { deepHash } from '../protocol/hash.ts';
import { findNonJson, type JsonValue, typeWord } from '../protocol/json.ts';
import type { EpochMs, Message } from '../protocol/message.ts';
import {
  type ChildCounts,
  type ChildInput,
  type ChildStatus,
  childInput,
  type Intensity,
  RESTARTS,
  type Restart,
  type Shutdown,
  STRATEGIES,
  type Strategy,
  type TreeInput,
} from '../protocol/supervision.ts';
import type { DurableHost, MachineOptions } from '../runtime/durable-host.ts';
import type { Ending } from '../runtime/lives.ts';
import type { StoredActor } from '../store/store.ts';

/** What the children of a supervisor have in common. */
interface ChildSettings {
  /** Which ends lead to a new life. permanent: all. transient: failures. temporary: none. Default `permanent`. */
  readonly restart?: Restart;
  /** Its end, without a new life, may end the supervisor: see `autoShutdown`. Default: false. */
  readonly significant?: boolean;
  /**
   * How it is stopped: asked by the event `actor.stop`, which its machine may handle by coming to its final state, and
   * ended when its time is up. `brutal`: not asked. `infinity`: waited for. Default 5 000 ms; `infinity` for supervisors.
   */
  readonly shutdown?: Shutdown;
  /** It has failed to start if it does not live by then; nobody else waits any longer. Default 10 000 ms. */
  readonly startTimeoutMs?: number;
  /**
   * How long it waits for a new life after it has failed, growing with each failure in a row.
   * Default: 1 000 ms, twice as long each time, 30 000 ms at most, less up to a fifth. Null: no time.
   */
  readonly backoff?: Partial<BackoffPolicy> | null;
}

/** An actor with a machine of your own. */
export interface ChildOptions extends ChildSettings {
  /** Its address. */
  readonly id: Address;
  /** Made by `setup()`, and registered under its id when it is first seen; or the id of one that is registered. */
  readonly machine: AnyStateMachine | string;
  readonly input?: JsonValue;
  /** For a machine that is registered here: see `troupe.spawn`. */
  readonly options?: MachineOptions;
  /** When one of its turns throws: it has kept its state. `restart`: it is given up for a new life. Default `keep`. */
  readonly onFault?: 'keep' | 'restart';
  /** When its stored state cannot be read. `restart`: it is given up. Default `keep`: until a version can read it. */
  readonly onQuarantine?: 'keep' | 'restart';
  /** What becomes of messages that wait for it when it begins a new life. `drop`: refused. Default `keep`. */
  readonly messages?: 'keep' | 'drop';
}

/** A supervisor that is a child itself. */
export interface SubtreeOptions extends ChildSettings, SuperviseOptions {
  /** Its name, as for `troupe.supervise`. */
  readonly id: string;
}

export interface SuperviseOptions {
  /** What one child's failure means for the others. Default `oneForOne`: nothing. */
  readonly strategy?: Strategy;
  /** How many restarts within which time are too many. Default: more than 3 within 60 000 ms. */
  readonly intensity?: Intensity;
  /** Stop when one child that is `significant` has ended for good, or when all have. Default `never`. */
  readonly autoShutdown?: TreeInput['autoShutdown'];
  /** In the order in which they start; they stop in the reverse of it. */
  readonly children: readonly (ChildOptions | SubtreeOptions)[];
}

/** How a supervisor stands. */
export interface SupervisorStatus {
  readonly address: Address;
  /**
   * running; failing: it has given up, and stops its children; failed: its own supervisor decides; escalated: the
   * overseer does, see `decide`; stopping; stopped.
   */
  readonly state: 'running' | 'failing' | 'failed' | 'escalated' | 'stopping' | 'stopped';
  readonly strategy: Strategy;
  readonly intensity: Intensity;
  readonly parent: Address | null;
  /** Restarts that count at present. */
  readonly restarts: number;
  /** Why it has given up; null otherwise. */
  readonly failure: Failure | null;
  readonly children: readonly ChildStatus[];
  readonly updatedAt: EpochMs;
}

const TREE = z.strictObject({
  strategy: z.enum(STRATEGIES).default('oneForOne'),
  intensity: z
    .strictObject({ restarts: z.int().min(0), withinMs: z.int().min(1) })
    .default(DEFAULT_INTENSITY),
  autoShutdown: z.enum(['never', 'anySignificant', 'allSignificant']).default('never'),
  children: z.array(z.unknown()).max(10_000),
});

const SETTINGS: Record<keyof ChildSettings, true> = {
  restart: true,
  significant: true,
  shutdown: true,
  startTimeoutMs: true,
  backoff: true,
};

/**
 * Checks a tree, and makes plain data of it.
 * @param register called for every machine of the tree, with what it is to be registered with
 * @throws {ConfigurationError} says which child, what was expected, what there is
 */
export function supervisorInput(
  id: string,
  options: SuperviseOptions,
  register: (machine: AnyStateMachine, options: MachineOptions | undefined) => void,
  place: { readonly overseer: string; readonly parent: Address | null },
): SupervisorInput {
  parseId(id, 'the id of a supervisor');
  const address = supervisorAddress(id);
  const where = `the supervisor "${id}"`;
  const parsed = TREE.safeParse(options);
  if (!parsed.success) throw malformed(where, parsed.error);
  const machines: [AnyStateMachine, MachineOptions | undefined][] = [];
  const seen = new Set<string>([address]);
  const children = options.children.map((given, index): ChildInput => {
    const what = `children[${index}] of ${where}`;
    if (typeof given !== 'object' || given === null) {
      throw new ConfigurationError(
        `Expected ${what} to be { id, machine } or { id, children }, got ${typeWord(given)}.`,
      );
    }
    const child =
      'children' in given
        ? subtree(given, address, place.overseer, (machine, more) => machines.push([machine, more]))
        : ownChild(given, what, (machine, more) => machines.push([machine, more]));
    const checked = checkChild(child, what);
    if (seen.has(checked.id)) {
      throw new ConfigurationError(`Two children of ${where} have the address ${checked.id}.`);
    }
    seen.add(checked.id);
    return checked;
  });
  // Nothing is registered before everything was found to be in order.
  for (const [machine, more] of machines) register(machine, more);
  const { strategy, intensity, autoShutdown } = parsed.data;
  const tree = { strategy, intensity, autoShutdown, children };
  const specHash = deepHash(tree as unknown as JsonValue);
  return { ...tree, specHash, address, parent: place.parent, overseer: place.overseer };
}

function subtree(
  { id, ...given }: SubtreeOptions,
  parent: Address,
  overseer: string,
  register: (machine: AnyStateMachine, options: MachineOptions | undefined) => void,
): ChildInput {
  const settings: Record<string, unknown> = {};
  const tree: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(given)) {
    (Object.hasOwn(SETTINGS, key) ? settings : tree)[key] = value;
  }
  const input = supervisorInput(id, tree as unknown as SuperviseOptions, register, {
    overseer,
    parent,
  });
  if (settings['shutdown'] === 'brutal') {
    throw new ConfigurationError(
      `The supervisor "${id}" cannot be stopped brutally: its children would be left behind. Use a time, or leave it out.`,
    );
  }
  return {
    ...settings,
    id: supervisorAddress(id),
    machine: 'supervisor',
    input: input as unknown as JsonValue,
  };
}

function ownChild(
  { machine, options, ...child }: ChildOptions,
  what: string,
  register: (machine: AnyStateMachine, options: MachineOptions | undefined) => void,
): ChildInput {
  if (typeof machine === 'string') return { ...child, machine } as ChildInput;
  if (typeof machine?.id !== 'string') {
    throw new ConfigurationError(
      `Expected ${what} to have a machine made by setup(), or the id of one that is registered, got ${typeof machine}.`,
    );
  }
  register(machine, options);
  return { ...child, machine: machine.id } as ChildInput;
}

/** @throws {ConfigurationError} */
function checkChild(child: ChildInput, what: string): ChildInput {
  const problem = child.input === undefined ? undefined : findNonJson(child.input, 'input');
  if (problem !== undefined) {
    throw new ConfigurationError(
      `The input of ${what} must be plain JSON, but ${problem.path} is ${problem.found}.`,
    );
  }
  const parsed = childInput.safeParse(child);
  if (!parsed.success) throw malformed(what, parsed.error);
  const kind = kindOf(child.id);
  if (kind === 'supervisor' ? child.machine !== 'supervisor' : RESERVED_KINDS.has(kind)) {
    throw new ConfigurationError(
      `The address ${child.id} of ${what} is of a kind that is Troupe's own. Choose another than ${[...RESERVED_KINDS, 'supervisor'].join(', ')}.`,
    );
  }
  return parsed.data;
}

const RESERVED_KINDS: ReadonlySet<string> = new Set([
  ...(['run', 'task', 'agent', 'gatekeeper', 'overseer', 'breaker', 'schedule', 'app'] as const),
]);

function malformed(what: string, error: z.ZodError): ConfigurationError {
  const issue = error.issues[0];
  const path = issue?.path.map(String).join('.') ?? '';
  return new ConfigurationError(
    `${what.charAt(0).toUpperCase()}${what.slice(1)} cannot work${path === '' ? '' : `: ${path}`}: ${issue?.message ?? 'it does not fit'}. Restarts are one of ${RESTARTS.join(', ')}, strategies one of ${STRATEGIES.join(', ')}.`,
  );
}

/** A supervisor: look at it, change its children, decide about it, stop it. */
export class Supervisor {
  readonly address: Address<'supervisor'>;
  readonly #host: DurableHost;
  readonly #register: (machine: AnyStateMachine, options: MachineOptions | undefined) => void;

  /** @internal Use `troupe.supervise` or `troupe.supervisor`. */
  constructor(
    host: DurableHost,
    id: string,
    register: (machine: AnyStateMachine, options: MachineOptions | undefined) => void,
  ) {
    this.address = supervisorAddress(parseId(id, 'the id of a supervisor'));
    this.#host = host;
    this.#register = register;
  }

  /** @throws {NotFoundError} there is no such supervisor */
  async status(): Promise<SupervisorStatus> {
    await this.#host.flush();
    const known = await this.#host.inspect(this.address);
    if (known === undefined) {
      throw new NotFoundError(`There is no supervisor "${nameOf(this.address)}".`);
    }
    return supervisorStatus(known.record.address, known.record.updatedAt, known.snapshot);
  }

  /** All children, in the order of their starts. */
  async children(): Promise<readonly ChildStatus[]> {
    return (await this.#ask({ type: 'supervisor.children' })) as unknown as readonly ChildStatus[];
  }

  async count(): Promise<ChildCounts> {
    return (await this.#ask({ type: 'supervisor.count' })) as unknown as ChildCounts;
  }

  /**
   * Adds a child, after all others. Resolves when it lives.
   * @throws {ConflictError} there is a child of this address, or the supervisor is not running
   * @throws {TroupeError} why it could not be started; then it is not a child
   */
  async startChild(child: ChildOptions): Promise<ChildStatus> {
    const checked = checkChild(
      ownChild(child, 'the child', (machine, options) => this.#register(machine, options)),
      'the child',
    );
    // It is refused here as it would be there, with its start still to come.
    const { startTimeoutMs } = completeChild(checked);
    const message = { type: 'supervisor.startChild', child: checked as unknown as JsonValue };
    return (await this.#ask(message, startTimeoutMs)) as unknown as ChildStatus;
  }

  /**
   * Stops a child; it stays, at rest, until it is restarted or deleted. Resolves when it is down.
   * @throws {NotFoundError} no such child
   */
  stopChild(id: Address): Promise<ChildStatus> {
    return this.#ordered('supervisor.stopChild', id);
  }

  /** A new life for a child, whether it lives or not; counts as no failure. Resolves when it lives. */
  restartChild(id: Address): Promise<ChildStatus> {
    return this.#ordered('supervisor.restartChild', id);
  }

  /** Forgets a child that is at rest. @throws {ConflictError} it is not */
  deleteChild(id: Address): Promise<ChildStatus> {
    return this.#ordered('supervisor.deleteChild', id);
  }

  /**
   * Decides about a supervisor that has given up (`escalated`): its children begin new lives, or it stops for good.
   * @throws {ConflictError} it has not given up
   */
  async decide(decision: SupervisorDecision, by = 'app'): Promise<void> {
    await this.#ask({ type: 'supervisor.decide', decision, by });
  }

  /** Stops all children in the reverse of the order of their starts, then the supervisor. Resolves when it is done. */
  async stop(): Promise<Ending> {
    return await this.#host.stopActor(this.address, 'infinity', 'It was told to stop.');
  }

  async #ordered(type: string, id: Address): Promise<ChildStatus> {
    const message = { type, id: parseAddress(id) };
    return (await this.#ask(message, STOP_TIMEOUT_MS)) as unknown as ChildStatus;
  }

  async #ask(message: Message, moreMs = 0): Promise<JsonValue> {
    try {
      const timeoutMs = 30_000 + moreMs;
      return await this.#host.request(this.address, message, { timeoutMs });
    } catch (error) {
      throw refusalOf(error);
    }
  }
}

/** A child may take its time to stop; whoever waits for it waits as long. */
const STOP_TIMEOUT_MS = 600_000;

/** What a supervisor refuses comes as data; here it is an error of its class again. */
function refusalOf(error: unknown): unknown {
  const { code, message, context } = error as Partial<Failure>;
  if (message === undefined) return error;
  const options = { cause: error, ...(context === undefined ? {} : { context }) };
  if (code === 'conflict') return new ConflictError(message, options);
  if (code === 'not_found') return new NotFoundError(message, options);
  if (code === 'validation') return new ValidationError(message, options);
  return error;
}

/** @param snapshot as it is stored */
export function supervisorStatus(
  address: string,
  updatedAt: EpochMs,
  snapshot: { readonly value: JsonValue; readonly context: unknown },
): SupervisorStatus {
  const context = snapshot.context as SupervisorContext;
  return {
    address: address as Address,
    state: snapshot.value as SupervisorStatus['state'],
    strategy: context.strategy,
    intensity: context.intensity,
    parent: context.parent as Address | null,
    restarts: context.restarts.length,
    failure: context.failure,
    children: context.children.map(statusOf),
    updatedAt,
  };
}

/** The supervisors among stored actors. */
export function supervisorsOf(stored: readonly StoredActor[]): readonly SupervisorStatus[] {
  return stored
    .filter(({ unreadable }) => unreadable === undefined)
    .map(({ address, updatedAt, snapshotJson }) =>
      supervisorStatus(address, updatedAt, JSON.parse(snapshotJson)),
    );
}
