import { pino } from 'pino';
import { onTestFinished } from 'vitest';
import type { Address } from '../../src/protocol/address.ts';
import { MemoryData } from '../../src/store/memory/memory-data.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { createTroupe, type Troupe, type TroupeOptions } from '../../src/troupe.ts';
import { SimulatedClock } from '../runtime/simulated-clock.ts';
import { temporaryStore } from '../store/sqlite/temporary.ts';

/** Somewhere a troupe keeps its state: opened, stopped and opened again. */
export interface Disk {
  open(options?: Omit<TroupeOptions, 'store'>): Promise<Troupe>;
}

const silent = pino({ level: 'silent' });

async function opened(options: TroupeOptions): Promise<Troupe> {
  const troupe = await createTroupe({ logger: silent, ...options });
  onTestFinished(() => troupe.stop());
  return troupe;
}

export function memoryDisk(): Disk {
  const data = new MemoryData();
  return { open: (options) => opened({ ...options, store: new MemoryStore(data) }) };
}

export function sqliteDisk(): Disk & { readonly path: string } {
  const path = temporaryStore();
  return {
    path,
    // The disk's own promises have their own tests; these would only wait for it.
    open: (options) => opened({ durability: 'normal', ...options, store: path }),
  };
}

export const DISKS: readonly { readonly disk: string; readonly make: () => Disk }[] = [
  { disk: 'memory', make: memoryDisk },
  { disk: 'sqlite', make: sqliteDisk },
];

/** Resolves when the actor is in the state, now or later: `task/r/draft`, `working`. */
export function reaches(troupe: Troupe, address: string, state: string): Promise<void> {
  const is = (value: unknown): boolean =>
    value === state || (typeof value === 'object' && value !== null && state in value);
  return new Promise<void>((resolve, reject) => {
    const off = troupe.on('turn', (turn) => {
      if (turn.address !== address || !is(turn.state)) return;
      off();
      resolve();
    });
    troupe.host.inspect(address as Address).then((known) => {
      if (known === undefined || !is(known.snapshot.value)) return;
      off();
      resolve();
    }, reject);
  });
}

/** A moment that the test chooses: `reached` by the code under test, which waits there until it is `passed`. */
export class Gate {
  readonly reached: Promise<void>;
  #reach: () => void = () => undefined;
  #pass: () => void = () => undefined;
  readonly #passed: Promise<void>;

  constructor() {
    this.reached = new Promise((resolve) => {
      this.#reach = resolve;
    });
    this.#passed = new Promise((resolve) => {
      this.#pass = resolve;
    });
  }

  /** Waits at the gate; an aborted signal rejects. */
  wait(signal?: AbortSignal): Promise<void> {
    this.#reach();
    if (signal === undefined) return this.#passed;
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      void this.#passed.then(resolve);
    });
  }

  pass(): void {
    this.#pass();
  }
}

export const accepts = () => ({ accepted: true as const, evidence: ['read it'] });

/** Lets `ms` pass, timer by timer, each with time for what it sets off. */
export async function advance(clock: SimulatedClock, ms: number): Promise<void> {
  const until = clock.now() + ms;
  await settled();
  while (clock.step(until)) await settled();
  clock.jump(until);
}

/** Everything that needs neither time nor a disk has happened. For troupes on a memory disk only. */
async function settled(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise<void>((resolve) => setImmediate(resolve));
}

export { SimulatedClock };
