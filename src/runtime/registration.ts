import type { AnyStateMachine } from 'xstate';
import { z } from 'zod';
import type { Address } from '../protocol/address.ts';
import { ConfigurationError } from '../protocol/errors.ts';
import { findNonJson, type JsonObject, type JsonValue } from '../protocol/json.ts';
import { type EpochMs, type Meta, REQUEST_CANCELLED } from '../protocol/message.ts';
import type { CutRequest, Projection, StoredActor } from '../store/store.ts';
import { type MailboxOptions, type MailboxPolicy, parseMailboxPolicy } from './mailbox-policy.ts';
import type { Migrations } from './migrations.ts';
import { checkQueries, type Queries } from './queries.ts';
import type { Validate } from './validation.ts';
import { type LiveSnapshot, MachineDriver, type PersistedSnapshot } from './xstate-driver.ts';

export interface MachineOptions extends MailboxOptions {
  /**
   * Stored with every actor. Raise it when stored states no longer fit, and say how to migrate. Default: where the
   * migrations lead, or 1.
   */
  readonly version?: number;
  /** Turn states of older versions into states of this one. Actors of a version they do not know are quarantined. */
  // biome-ignore lint/suspicious/noExplicitAny: whatever context the last step leads to
  readonly migrations?: Migrations<any>;
  /**
   * Rows derived from the state, written in the same commit. Pure. It is asked after every change of state, and when the
   * actor is ended; within one commit the last row of a key counts. If it throws, the turn fails as if the machine had
   * thrown; one that is ended has ended.
   */
  readonly project?: (actor: ProjectedActor) => readonly Projection[];
  /**
   * Asked in an actor's first turn and when it reaches a milestone: which actors, it among them, are to be kept as they
   * stand in that very commit. @internal
   */
  readonly cut?: CutOf;
  /** May refuse messages before their turns. Default: all are taken. */
  readonly validate?: Validate;
  /** For a single actor, instead of `mailboxLimit` and `overflow`; undefined: these. @internal */
  readonly mailboxOf?: MailboxOf;
  /**
   * Actors of this kind decide about the lives of those whose parent they are: they are told of every end of one, and
   * what waits for it waits on until they have decided. @internal
   */
  readonly supervises?: boolean;
  /**
   * Messages from outside to its actors, and their answers, are kept in the audit stream even if they are refused or change
   * nothing. What changes an actor is in the stream anyway. The machine's name must be the kind of their addresses.
   * Default false.
   */
  readonly audited?: boolean;
  /**
   * Told after each commit who had sent what an actor of this machine has handled, and its state after it. @internal
   */
  readonly observe?: Observe;
  /**
   * Questions that can be asked about an actor's state, by name: `{ count: ({ context }) => context.items.length }`. They
   * are answered without a turn (`troupe.queryActor`), also for an actor that is not in memory.
   */
  readonly queries?: Queries;
}

/** A cut to be taken, before it has an id. */
export type CutPlan = Omit<CutRequest, 'id'>;

type MailboxOf = (address: Address) => MailboxPolicy | undefined;

type Observe = (actor: ProjectedActor, meta: Meta) => void;

type CutOf = (actor: ProjectedActor, occasion: 'start' | 'milestone') => CutPlan;

export interface ProjectedActor {
  readonly address: Address;
  readonly value: JsonValue;
  readonly context: JsonObject;
  readonly status: 'active' | 'done' | 'error' | 'stopped';
  readonly at: EpochMs;
}

/** A machine under its name. */
export interface Registration {
  readonly name: string;
  readonly driver: MachineDriver;
  readonly version: number;
  readonly migrations: MachineOptions['migrations'];
  readonly project: MachineOptions['project'];
  readonly cut: CutOf | undefined;
  readonly mailbox: MailboxPolicy;
  readonly mailboxOf: MailboxOf | undefined;
  readonly validate: Validate | undefined;
  /** Its machine wants to hear that nobody waits for its answer any more. */
  readonly hearsCancelled: boolean;
  readonly supervises: boolean;
  readonly audited: boolean;
  readonly observe: Observe | undefined;
  readonly queries: Queries;
}

/** @throws {ConfigurationError} the machine cannot be hosted durably, or an option is out of range */
export function createRegistration(
  name: string,
  machine: AnyStateMachine,
  options: MachineOptions,
  defaults: { readonly mailboxLimit: number; readonly freeze: boolean },
): Registration {
  if (!name.isWellFormed()) {
    throw new ConfigurationError(
      `The machine id ${JSON.stringify(name).slice(0, 80)} contains half of a character. It was cut in the middle of one; repair it (toWellFormed()).`,
    );
  }
  const { migrations } = options;
  const version = options.version ?? migrations?.version ?? 1;
  if (!Number.isSafeInteger(version) || version < 1) {
    throw new ConfigurationError(
      `Expected the version of machine "${name}" to be a positive integer, got ${String(version)}.`,
    );
  }
  if (migrations !== undefined && migrations.version !== version) {
    throw new ConfigurationError(
      `The migrations of machine "${name}" lead to version ${migrations.version}, but the machine is version ${version}. Add the steps that are missing, or correct the version.`,
    );
  }
  const { queries = {}, validate } = options;
  checkQueries(name, queries);
  if (validate !== undefined && typeof validate !== 'function') {
    throw new ConfigurationError(
      `Expected the validate of machine "${name}" to be a function, got ${typeof validate}.`,
    );
  }
  const mailbox = parseMailboxPolicy(`machine "${name}"`, options, defaults.mailboxLimit);
  const driver = new MachineDriver(machine, { freeze: defaults.freeze });
  return {
    name,
    driver,
    version,
    migrations,
    project: options.project,
    cut: options.cut,
    mailbox,
    mailboxOf: options.mailboxOf,
    validate,
    hearsCancelled: driver.machine.events.includes(REQUEST_CANCELLED),
    supervises: options.supervises ?? false,
    audited: options.audited ?? false,
    observe: options.observe,
    queries,
  };
}

/**
 * The stored state as a state of today's machine.
 * @throws {ConfigurationError} it was stored by a newer version, by an older one without a migration, or names a
 * state or an effect the machine does not have; and whatever a migration throws
 * @throws {UnreadablePayloadError} the store could not read it
 */
export function restoreSnapshot(
  registration: Registration,
  stored: Pick<StoredActor, 'address' | 'version' | 'snapshotJson' | 'unreadable'>,
): LiveSnapshot {
  if (stored.unreadable !== undefined) throw stored.unreadable;
  const { address, version } = stored;
  const machine = `machine "${registration.name}"`;
  const stage = `The stored state of ${address}`;
  let persisted = parseSnapshot(stage, JSON.parse(stored.snapshotJson));
  if (version > registration.version) {
    throw new ConfigurationError(
      `${address} was stored by version ${version} of ${machine}; this is version ${registration.version}. Run the newer program again.`,
    );
  }
  if (version < registration.version) {
    const { migrations } = registration;
    if (migrations === undefined || version < migrations.from) {
      const known =
        migrations === undefined ? 'has no migrations' : `migrates from ${migrations.from} on`;
      throw new ConfigurationError(
        `${address} was stored by version ${version} of ${machine}, and version ${registration.version} ${known}.`,
      );
    }
    persisted = migrations.apply(persisted, version, (value, step) =>
      parseSnapshot(`${stage}, after ${step},`, value),
    );
  }
  return registration.driver.restore(address, persisted);
}

/** What the JSON of a snapshot has in it if it has the key by which XState stores one. */
export const ACTOR_REFERENCE = '"xstate$$type":';

/** XState would look it up among the effects, and leave nothing in its place. */
export const holdsActorReference = (what: string): ConfigurationError =>
  new ConfigurationError(
    `${what} holds a reference to an actor (the key "xstate$$type"), which cannot be restored. Keep the actor's address instead.`,
  );

const PERSISTED = z.object({
  status: z.enum(['active', 'done', 'error']),
  value: z.union([z.string(), z.record(z.string(), z.unknown())]),
  context: z.record(z.string(), z.unknown()),
  historyValue: z.record(z.string(), z.array(z.string())).optional(),
  children: z.record(z.string(), z.string()).optional(),
  output: z.unknown().optional(),
  error: z.unknown().optional(),
});

/** @param stage what is parsed, for messages: `The stored state of inbox/ada` */
function parseSnapshot(stage: string, value: unknown): PersistedSnapshot {
  // Also finds `__proto__` as a key, which a later assign would obey.
  const problem = findNonJson(value, 'snapshot');
  if (problem) {
    throw new ConfigurationError(
      `${stage} is not plain JSON: ${problem.path} is ${problem.found}.`,
    );
  }
  if (JSON.stringify(value).includes(ACTOR_REFERENCE)) throw holdsActorReference(stage);
  const parsed = PERSISTED.safeParse(value);
  if (parsed.success) return parsed.data as PersistedSnapshot;
  const issue = parsed.error.issues[0];
  throw new ConfigurationError(
    `${stage} is malformed at "${issue?.path.map(String).join('.') ?? ''}": ${issue?.message ?? 'it does not fit'}.`,
  );
}
