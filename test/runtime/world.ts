import { pino } from 'pino';
import type { AnyStateMachine } from 'xstate';
import type { Address } from '../../src/protocol/address.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import { type Clock, systemClock } from '../../src/runtime/clock.ts';
import {
  DurableHost,
  type HostOptions,
  type MachineOptions,
} from '../../src/runtime/durable-host.ts';
import { effect, type RestartPolicy } from '../../src/runtime/effect.ts';
import type { EffectContext } from '../../src/runtime/effect-runner.ts';
import type { HostEvents } from '../../src/runtime/host-events.ts';
import { MemoryData } from '../../src/store/memory/memory-data.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import type { Batch, Store } from '../../src/store/store.ts';
import { SimulatedClock } from './simulated-clock.ts';

export type Machines = Readonly<Record<string, AnyStateMachine | Registered>>;
interface Registered extends MachineOptions {
  readonly machine: AnyStateMachine;
}

export type Told = {
  [E in keyof HostEvents]: { readonly event: E; readonly fact: Parameters<HostEvents[E]>[0] };
}[keyof HostEvents];

type WorldOptions = Partial<
  Pick<
    HostOptions,
    | 'mailboxLimit'
    | 'chainLimit'
    | 'effects'
    | 'maxEffectRestarts'
    | 'passivateAfterMs'
    | 'faultPoint'
    | 'freeze'
    | 'idempotencyTtlMs'
    | 'maxSnapshotBytes'
    | 'newId'
    | 'logger'
  >
> & { readonly wrap?: (store: MemoryStore) => Store };

/**
 * A disk, a clock, and one host after another on them. Time and scheduling are ours: `settle` runs until nobody
 * has anything to do, `advance` goes from timer to timer. `crash` drops the host as `kill -9` would: its timers
 * and callbacks never come, and its store can write no more.
 */
export class World {
  readonly clock = new SimulatedClock();
  data = new MemoryData();
  /** Everything all hosts have told, in order. */
  readonly told: Told[] = [];
  readonly #machines: Machines;
  readonly #options: WorldOptions;
  #host: DurableHost | undefined;
  #ids = 0;
  #queue: (() => void)[] = [];
  #alive = { alive: false };

  constructor(machines: Machines, options: WorldOptions = {}) {
    this.#machines = machines;
    this.#options = options;
  }

  get host(): DurableHost {
    if (this.#host === undefined) throw new Error('No host is open.');
    return this.#host;
  }

  /** A host on what is stored; not opened yet. */
  build(options: WorldOptions & { readonly machines?: Machines } = {}): DurableHost {
    const alive = { alive: true };
    this.#alive = alive;
    this.#queue = [];
    const { wrap, machines = this.#machines, ...rest } = { ...this.#options, ...options };
    const memory = new MemoryStore(this.data);
    const clock: Clock = {
      now: () => this.clock.now(),
      longestWaitMs: systemClock.longestWaitMs,
      setTimer: (delayMs, callback) =>
        this.clock.setTimer(delayMs, () => {
          if (alive.alive) callback();
        }),
    };
    const host = new DurableHost({
      store: wrap?.(memory) ?? memory,
      clock,
      logger: pino({ level: 'silent' }),
      newId: () => `id${this.#ids++}`,
      defer: (callback) => {
        if (alive.alive) this.#queue.push(callback);
      },
      ...rest,
    });
    for (const [name, machine] of Object.entries(machines)) {
      if ('machine' in machine && !('transition' in machine)) {
        const { machine: itself, ...machineOptions } = machine as Registered;
        host.register(name, itself, machineOptions);
      } else {
        host.register(name, machine as AnyStateMachine);
      }
    }
    for (const event of EVENTS) {
      host.events.on(event, (fact: unknown) => this.told.push({ event, fact } as Told));
    }
    this.#host = host;
    return host;
  }

  async open(options: WorldOptions & { readonly machines?: Machines } = {}): Promise<DurableHost> {
    const host = this.build(options);
    await host.open();
    await this.settle();
    return host;
  }

  crash(): void {
    this.#alive.alive = false;
    this.#queue = [];
    // Whoever opens the disk next is its only writer.
    new MemoryStore(this.data);
  }

  async reopen(
    options: WorldOptions & { readonly machines?: Machines } = {},
  ): Promise<DurableHost> {
    this.crash();
    return await this.open(options);
  }

  /** Runs everything that can run without time passing. */
  async settle(): Promise<void> {
    for (;;) {
      // All microtasks are done when an immediate runs.
      await new Promise<void>((resolve) => setImmediate(resolve));
      if (this.#queue.length === 0) return;
      for (const callback of this.#queue.splice(0)) callback();
    }
  }

  /** Runs at most so many of the callbacks that wait, and all microtasks. */
  async run(callbacks: number): Promise<void> {
    for (let i = 0; ; i++) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      const callback = i < callbacks ? this.#queue.shift() : undefined;
      if (callback === undefined) return;
      callback();
    }
  }

  /** Lets time pass, from timer to timer. */
  async advance(ms: number): Promise<void> {
    await this.settle();
    const until = this.clock.now() + ms;
    while (this.clock.step(until)) await this.settle();
    this.clock.jump(until);
    await this.settle();
  }

  /** Waits for a promise while running what it waits for; time stands still. */
  async wait<T>(promise: Promise<T>): Promise<T> {
    promise.catch(() => undefined);
    await this.settle();
    return await promise;
  }

  facts<E extends keyof HostEvents>(event: E): Parameters<HostEvents[E]>[0][] {
    return this.told
      .filter((told) => told.event === event)
      .map(({ fact }) => fact as Parameters<HostEvents[E]>[0]);
  }

  async create(...actors: [address: Address, machine: string, input?: JsonValue][]): Promise<void> {
    await this.wait(
      this.host.spawn(
        actors.map(([address, machine, input]) => ({
          address,
          machine,
          ...(input === undefined ? {} : { input }),
        })),
      ),
    );
  }

  async send(...args: Parameters<DurableHost['send']>): Promise<void> {
    await this.wait(this.host.send(...args));
  }

  async request(...args: Parameters<DurableHost['request']>): Promise<JsonValue> {
    return await this.wait(this.host.request(...args));
  }

  /** Asks, and leaves the answer for later. */
  ask(...args: Parameters<DurableHost['request']>): Promise<JsonValue> {
    const asked = this.host.request(...args);
    // Whoever looks at it later sees the failure; until then it is not unhandled.
    asked.catch(() => undefined);
    return asked;
  }

  async stop(options?: Parameters<DurableHost['stop']>[0]): Promise<void> {
    await this.wait(this.host.stop(options));
  }

  /** The newest snapshot on the disk, as text; undefined if there is no such actor. */
  stored(address: string): string | undefined {
    const actor = this.data.actors.get(address);
    return this.data.checkpoints.get(address)?.findLast(({ seq }) => seq === actor?.seq)
      ?.snapshotJson;
  }

  state(address: string): { value: JsonValue; context: Record<string, JsonValue>; status: string } {
    const text = this.stored(address);
    if (text === undefined) throw new Error(`There is no actor at ${address}.`);
    return JSON.parse(text) as ReturnType<World['state']>;
  }

  context(address: string): Record<string, JsonValue> {
    return this.state(address).context;
  }
}

const EVENTS = [
  'turn',
  'rolledBack',
  'emitted',
  'deadLettered',
  'dropped',
  'mailboxFull',
  'looped',
  'ended',
  'quarantined',
  'grewLarge',
  'effectStarted',
  'effectEnded',
  'progress',
  'stepsUnused',
  'recovered',
  'failed',
] as const satisfies (keyof HostEvents)[];

/** One start of an effect that the test has in its hands. */
export interface Started {
  readonly name: string;
  readonly context: EffectContext;
  readonly finish: (output: JsonValue) => void;
  readonly fail: (error: unknown) => void;
  /** The signal was aborted. */
  aborted: boolean;
}

/** What lies outside the host: effects start here and end when the test says so. */
export class Outside {
  readonly started: Started[] = [];

  /** An effect that ends when told. It heeds its signal unless it is `deaf`. */
  effect(
    name: string,
    options: { readonly deaf?: boolean; readonly restart?: RestartPolicy } = {},
  ) {
    return effect<JsonValue>(
      (context) =>
        new Promise<JsonValue>((resolve, reject) => {
          const started: Started = {
            name,
            context,
            finish: resolve,
            fail: reject,
            aborted: context.signal.aborted,
          };
          context.signal.addEventListener('abort', () => {
            started.aborted = true;
            if (options.deaf !== true) reject(context.signal.reason as Error);
          });
          this.started.push(started);
        }),
      options.restart,
    );
  }

  starts(name: string): Started[] {
    return this.started.filter((started) => started.name === name);
  }

  /** The newest start. */
  last(name: string): Started {
    const started = this.starts(name).at(-1);
    if (started === undefined) throw new Error(`The effect "${name}" has not started.`);
    return started;
  }
}

/** A store that does as told: commits can be refused, or held until they are let go. */
export class TestStore implements Store {
  readonly name = 'test';
  readonly inner: MemoryStore;
  readonly batches: Batch[] = [];
  /** Refuses the commits for which it says so, without storing them. */
  refuse: (batch: Batch) => Error | undefined = () => undefined;
  refuseReads: Error | undefined;
  #held: (() => void)[] | undefined;

  constructor(inner: MemoryStore) {
    this.inner = inner;
  }

  /** From now on commits are stored, and not answered until `release`. */
  hold(): void {
    this.#held ??= [];
  }

  release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const answer of held) answer();
  }

  get waiting(): number {
    return this.#held?.length ?? 0;
  }

  async commit(batch: Batch): Promise<void> {
    const error = this.refuse(batch);
    if (error !== undefined) throw error;
    this.batches.push(batch);
    await this.inner.commit(batch);
    const held = this.#held;
    if (held !== undefined) await new Promise<void>((resolve) => held.push(resolve));
  }

  loadPending() {
    return this.#read(() => this.inner.loadPending());
  }
  loadActors(addresses: readonly string[]) {
    return this.#read(() => this.inner.loadActors(addresses));
  }
  loadSteps(scope: string) {
    return this.#read(() => this.inner.loadSteps(scope));
  }
  loadChunks(lists: readonly string[]) {
    return this.#read(() => this.inner.loadChunks(lists));
  }
  loadIdempotency(key: string) {
    return this.#read(() => this.inner.loadIdempotency(key));
  }
  transact(_transaction: Parameters<Store['transact']>[0]) {
    return this.inner.transact();
  }
  applyAppSchema(_statements: readonly string[]) {
    return this.inner.applyAppSchema();
  }
  query(_statement: Parameters<Store['query']>[0]) {
    return this.inner.query();
  }
  claimTasks(claim: Parameters<Store['claimTasks']>[0]) {
    return this.inner.claimTasks(claim);
  }
  listActors(filter?: Parameters<Store['listActors']>[0]) {
    return this.inner.listActors(filter);
  }
  listCheckpoints(...args: Parameters<Store['listCheckpoints']>) {
    return this.inner.listCheckpoints(...args);
  }
  listCuts(run: string) {
    return this.inner.listCuts(run);
  }
  loadCut(id: string) {
    return this.#read(() => this.inner.loadCut(id));
  }
  listDeadLetters() {
    return this.inner.listDeadLetters();
  }
  listTurns(query: Parameters<Store['listTurns']>[0]) {
    return this.inner.listTurns(query);
  }
  listAudit(query: Parameters<Store['listAudit']>[0]) {
    return this.inner.listAudit(query);
  }
  listRuns() {
    return this.inner.listRuns();
  }
  listTasks(...args: Parameters<Store['listTasks']>) {
    return this.inner.listTasks(...args);
  }
  listAttempts(run: string, task: string) {
    return this.inner.listAttempts(run, task);
  }
  countTasks(run: string) {
    return this.inner.countTasks(run);
  }
  listStreams(...args: Parameters<Store['listStreams']>) {
    return this.#read(() => this.inner.listStreams(...args));
  }
  listStreamChunks(...args: Parameters<Store['listStreamChunks']>) {
    return this.#read(() => this.inner.listStreamChunks(...args));
  }
  acquireLease(...args: Parameters<Store['acquireLease']>) {
    return this.inner.acquireLease(...args);
  }
  extendLease(...args: Parameters<Store['extendLease']>) {
    return this.inner.extendLease(...args);
  }
  releaseLease(...args: Parameters<Store['releaseLease']>) {
    return this.inner.releaseLease(...args);
  }
  listLeases(...args: Parameters<Store['listLeases']>) {
    return this.inner.listLeases(...args);
  }
  assertOwner() {
    return this.inner.assertOwner();
  }
  prune(...args: Parameters<Store['prune']>) {
    return this.#read(() => this.inner.prune(...args));
  }
  backup() {
    return this.inner.backup();
  }
  close() {
    return this.inner.close();
  }

  async #read<T>(read: () => Promise<T>): Promise<T> {
    if (this.refuseReads !== undefined) throw this.refuseReads;
    return await read();
  }
}
