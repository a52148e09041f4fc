import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { pino } from 'pino';
import { parseRetention } from '../src/actors/retention.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { DurableHost, type HostOptions } from '../src/runtime/durable-host.ts';
import { MemoryStore } from '../src/store/memory/memory-store.ts';
import { PackedStore } from '../src/store/payload/packed-store.ts';
import { openSqliteStore } from '../src/store/sqlite/sqlite-store.ts';
import type { Store } from '../src/store/store.ts';
import { ADD, notebook, notebookAddress } from './notebook.ts';

/** The stores that are compared: SQLite with either promise, and none at all. */
export const STORES = ['full', 'normal', 'memory'] as const;
export type StoreKind = (typeof STORES)[number];

let files = 0;

/** A new, empty store. */
export function openStore(kind: StoreKind, directory: string): Promise<Store> {
  if (kind === 'memory') return Promise.resolve(new MemoryStore());
  return openSqliteStore({ path: join(directory, `store-${files++}.db`), durability: kind });
}

/** A host as `createTroupe` makes one, retention included, with a logger that says nothing. */
export function makeHost(store: Store, options: Partial<HostOptions> = {}): DurableHost {
  return new DurableHost({
    store,
    clock: systemClock,
    logger: pino({ level: 'silent' }),
    newId: randomUUID,
    retention: parseRetention(),
    ...options,
  });
}

/** A host that is open, with so many notebooks in it. */
export async function openNotebooks(store: Store, count: number): Promise<DurableHost> {
  const host = makeHost(new PackedStore(store));
  host.register('notebook', notebook);
  await host.open();
  await spawnNotebooks(host, count);
  return host;
}

async function spawnNotebooks(host: DurableHost, count: number): Promise<void> {
  await host.spawn(
    Array.from({ length: count }, (_, name) => ({
      address: notebookAddress(name),
      machine: 'notebook',
      input: { name },
    })),
  );
}

/**
 * Keeps so many messages outstanding: each client sends one, waits until the turn that it led to is committed, and
 * sends the next, while there is `more` to do. (`host.send` alone would not do: it resolves when the message is
 * stored, which may be long before its turn.) No two clients share an actor.
 */
export async function keepOutstanding(
  host: DurableHost,
  clients: number,
  actors: number,
  more: () => boolean,
): Promise<void> {
  const waiting = new Map<string, () => void>();
  const onTurn = ({ address }: { readonly address: string }): void => waiting.get(address)?.();
  host.events.on('turn', onTurn);
  const client = async (first: number): Promise<void> => {
    for (let name = first; more(); name = name + clients < actors ? name + clients : first) {
      const address = notebookAddress(name);
      await new Promise<void>((resolve) => {
        waiting.set(address, resolve);
        void host.send(address, ADD);
      });
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, first) => client(first)));
  host.events.off('turn', onTurn);
}

/** Turns taken by the notebooks, according to the store: the only count that nobody can embellish. */
export async function storedTurns(store: Store): Promise<number> {
  const actors = await store.listActors({ kind: 'notebook' });
  return actors.reduce((sum, actor) => sum + actor.seq, 0);
}
