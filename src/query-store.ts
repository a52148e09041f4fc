import path from 'node:path';
import type { AnyStateMachine } from 'xstate';
import { agentMigrations } from './actors/agent-migrations.ts';
import { agentMachine } from './machines/agent-machine.ts';
import { agentQueries } from './machines/agent-queries.ts';
import { type Address, kindOf, parseAddress } from './protocol/address.ts';
import { NotFoundError } from './protocol/errors.ts';
import type { JsonValue } from './protocol/json.ts';
import { answerQuery } from './runtime/answer-query.ts';
import type { MachineOptions } from './runtime/durable-host.ts';
import { createRegistration, type Registration } from './runtime/registration.ts';
import type { PayloadCodec } from './store/payload/codec.ts';
import { openReadOnlyStore } from './store/sqlite/read-only.ts';

export interface QueryStoreOptions {
  /** Machines of your own, as they are registered: with their queries, version and migrations. */
  readonly machines?: readonly (
    | AnyStateMachine
    | readonly [machine: AnyStateMachine, options: MachineOptions]
  )[];
  /** The one it was written with. */
  readonly codec?: PayloadCodec;
}

/**
 * Answers a query from a store that another process may be working on: it is only read. See `Troupe.queryActor`.
 * @throws {NotFoundError} no such file, actor or query, or its machine is not among those that were given
 */
export async function queryStore(
  file: string,
  address: Address,
  name: string,
  args: JsonValue = null,
  { machines = [], codec }: QueryStoreOptions = {},
): Promise<JsonValue> {
  parseAddress(address);
  const known = new Map<string, Registration>();
  const add = (id: string, machine: AnyStateMachine, options: MachineOptions): void => {
    known.set(id, createRegistration(id, machine, options, { mailboxLimit: 1, freeze: false }));
  };
  add('agent', agentMachine, { migrations: agentMigrations, queries: agentQueries });
  for (const entry of machines) {
    const [machine, options] = Array.isArray(entry) ? entry : [entry as AnyStateMachine, {}];
    add(machine.id, machine, options);
  }
  const store = await openReadOnlyStore(path.resolve(file), codec === undefined ? {} : { codec });
  try {
    const actors = await store.listActors({ kind: kindOf(address) });
    const actor = actors.find((one) => one.address === address);
    const [checkpoint] =
      actor === undefined
        ? []
        : await store.listCheckpoints(address, { fromSeq: actor.seq, toSeq: actor.seq });
    if (actor === undefined || checkpoint === undefined) {
      throw new NotFoundError(`There is no actor at ${address} in ${store.name}.`);
    }
    const registration = known.get(actor.machine);
    if (registration === undefined) {
      throw new NotFoundError(
        `${address} cannot be asked: its machine "${actor.machine}" is not known here. Name the module that exports it (--machines), or hand it to queryStore.`,
      );
    }
    // A turn may have come in between: the state is that of the checkpoint.
    const { version, snapshotJson } = checkpoint;
    return answerQuery(registration, { ...actor, version, snapshotJson }, name, args);
  } finally {
    await store.close();
  }
}
