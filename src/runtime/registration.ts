import type { AnyStateMachine } from 'xstate';
import { z } from 'zod';
import type { Address } from '../protocol/address.ts';
import { ConfigurationError } from '../protocol/errors.ts';
import { findNonJson, type JsonObject, type JsonValue } from '../protocol/json.ts';
import type { EpochMs } from '../protocol/message.ts';
import type { Projection, StoredActor } from '../store/store.ts';
import { type LiveSnapshot, MachineDriver, type PersistedSnapshot } from './xstate-driver.ts';

export interface MachineOptions {
  /** Stored with every actor. Raise it when stored states no longer fit, and say how to migrate. Default 1. */
  readonly version?: number;
  /** Turns a snapshot of an older version into one of this version. Without it older actors are quarantined. */
  readonly migrate?: (snapshot: PersistedSnapshot, fromVersion: number) => PersistedSnapshot;
  /**
   * Rows derived from the state, written in the same commit. Pure. It is asked after every change of state; within
   * one commit the last row of a key counts. If it throws, the turn fails as if the machine had thrown.
   */
  readonly project?: (actor: ProjectedActor) => readonly Projection[];
  /** Messages that may wait for one actor of this kind. Default: the host's `mailboxLimit`. */
  readonly mailboxLimit?: number;
}

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
  readonly migrate: MachineOptions['migrate'];
  readonly project: MachineOptions['project'];
  readonly mailboxLimit: number;
}

/** @throws {ConfigurationError} the machine cannot be hosted durably, or an option is out of range */
export function createRegistration(
  name: string,
  machine: AnyStateMachine,
  options: MachineOptions,
  defaults: { readonly mailboxLimit: number; readonly freeze: boolean },
): Registration {
  const version = options.version ?? 1;
  if (!Number.isSafeInteger(version) || version < 1) {
    throw new ConfigurationError(
      `Expected the version of machine "${name}" to be a positive integer, got ${String(version)}.`,
    );
  }
  const mailboxLimit = options.mailboxLimit ?? defaults.mailboxLimit;
  if (!Number.isSafeInteger(mailboxLimit) || mailboxLimit < 1) {
    throw new ConfigurationError(
      `Expected the mailboxLimit of machine "${name}" to be a positive integer, got ${String(mailboxLimit)}.`,
    );
  }
  return {
    name,
    driver: new MachineDriver(machine, { freeze: defaults.freeze }),
    version,
    migrate: options.migrate,
    project: options.project,
    mailboxLimit,
  };
}

/**
 * The stored state as a state of today's machine.
 * @throws {ConfigurationError} it was stored by a newer version, by an older one without a migration, or names a
 * state or an effect the machine does not have; and whatever `migrate` throws
 */
export function restoreSnapshot(registration: Registration, stored: StoredActor): LiveSnapshot {
  const { address, version } = stored;
  const machine = `machine "${registration.name}"`;
  let persisted = parseSnapshot(address, JSON.parse(stored.snapshotJson));
  if (version > registration.version) {
    throw new ConfigurationError(
      `${address} was stored by version ${version} of ${machine}; this is version ${registration.version}. Run the newer program again.`,
    );
  }
  if (version < registration.version) {
    if (registration.migrate === undefined) {
      throw new ConfigurationError(
        `${address} was stored by version ${version} of ${machine}, and version ${registration.version} has no migrate function.`,
      );
    }
    persisted = parseSnapshot(address, registration.migrate(persisted, version));
  }
  return registration.driver.restore(address, persisted);
}

const PERSISTED = z.object({
  status: z.enum(['active', 'done', 'error']),
  value: z.union([z.string(), z.record(z.string(), z.unknown())]),
  context: z.record(z.string(), z.unknown()),
  historyValue: z.record(z.string(), z.array(z.string())).optional(),
  children: z.record(z.string(), z.string()).optional(),
  output: z.unknown().optional(),
  error: z.unknown().optional(),
});

function parseSnapshot(address: string, value: unknown): PersistedSnapshot {
  // Also finds `__proto__` as a key, which a later assign would obey.
  const problem = findNonJson(value, 'snapshot');
  if (problem) {
    throw new ConfigurationError(
      `The stored state of ${address} is not plain JSON: ${problem.path} is ${problem.found}.`,
    );
  }
  const parsed = PERSISTED.safeParse(value);
  if (parsed.success) return parsed.data as PersistedSnapshot;
  const issue = parsed.error.issues[0];
  throw new ConfigurationError(
    `The stored state of ${address} is malformed at "${issue?.path.map(String).join('.') ?? ''}": ${issue?.message ?? 'it does not fit'}.`,
  );
}
