import { fc, test as propertyTest } from '@fast-check/vitest';
import { describe, expect, test } from 'vitest';
import { newSupervision, SupervisionTurn } from '../../src/machines/policies/supervision.ts';
import {
  type SupervisorContext,
  supervisorMachine,
} from '../../src/machines/supervisor-machine.ts';
import type { EndLifeParams, StartLifeParams } from '../../src/protocol/commands.ts';
import {
  type ChildInput,
  type Intensity,
  RESTARTS,
  type Restart,
  STRATEGIES,
  type Strategy,
} from '../../src/protocol/supervision.ts';
import type { MachineAction } from '../../src/runtime/xstate-driver.ts';
import {
  answerIn,
  Driven,
  type Fact,
  messagesIn,
  refusalIn,
  START,
  type Step,
  stateOf,
} from './driven.ts';

interface Plan {
  readonly strategy: Strategy;
  readonly intensity: Intensity;
  readonly restarts: readonly Restart[];
}
type How = 'done' | 'failed';

const supervisor = new Driven(supervisorMachine, 'supervisor/s');
const idOf = (index: number): string => `worker/${'abcdef'[index]}`;
const short = (id: string): string => id.slice('worker/'.length);

const inputOf = ({ strategy, intensity, restarts }: Plan, more: Partial<ChildInput> = {}) => ({
  address: 'supervisor/s',
  parent: null,
  overseer: 'main',
  strategy,
  intensity,
  autoShutdown: 'never' as const,
  specHash: 'one',
  children: restarts.map(
    (restart, index): ChildInput => ({
      id: idOf(index),
      machine: 'worker',
      restart,
      backoff: null,
      ...more,
    }),
  ),
});

interface Kid {
  readonly id: string;
  readonly restart: Restart;
  alive: boolean;
  over: boolean;
}

/** A supervisor with hosts for its children: carries out its orders, in whatever order it is asked to. */
class Bench {
  readonly log: string[] = [];
  readonly alive = new Set<string>();
  readonly lives = new Map<string, number>();
  readonly timers = new Map<string, number>();
  at = START;
  step: Step;
  /** Orders that are not carried out yet, by child. */
  #orders: { readonly id: string; readonly action: () => Fact }[] = [];

  constructor(plan: Plan, more: Partial<ChildInput> = {}) {
    this.step = supervisor.begin(inputOf(plan, more));
    this.tell({ type: 'supervisor.begin' });
  }

  get context(): SupervisorContext {
    return this.step.snapshot.context as unknown as SupervisorContext;
  }

  get open(): number {
    return this.#orders.length;
  }

  /** Children that are about to live, or to end. */
  get busy(): number {
    return this.context.children.filter(({ state }) => state === 'starting' || state === 'stopping')
      .length;
  }

  states(): string {
    return this.context.children.map(({ id, state }) => `${short(id)} ${state}`).join(', ');
  }

  tell(fact: Fact, from?: string): readonly MachineAction[] {
    // As it comes back from the store.
    const snapshot = supervisor.throughStore(this.step.snapshot);
    const meta = { at: this.at, ...(from === undefined ? {} : { from: from as never }) };
    this.step = supervisor.take({ ...this.step, snapshot }, fact, meta);
    for (const action of this.step.actions) this.#carryOut(action);
    return this.step.actions;
  }

  /** A child comes to its end by itself. */
  ends(id: string, how: How): void {
    if (!this.alive.delete(id)) return;
    this.#says(this.#ended(id, how));
  }

  /** The host of the nth child that has an order carries it out. */
  carryOut(nth: number): void {
    const ids = [...new Set(this.#orders.map(({ id }) => id))];
    const id = ids[nth % ids.length];
    const index = this.#orders.findIndex((order) => order.id === id);
    const [order] = this.#orders.splice(index, 1);
    if (order !== undefined) this.#says(order.action());
  }

  settle(): void {
    while (this.open > 0) this.carryOut(0);
  }

  #says(fact: Fact): void {
    this.tell(fact, fact['address'] as string);
  }

  #ended(address: string, how: How | 'killed'): Fact {
    const failure = { code: 'unhandled', message: `${address} broke`, retryable: false };
    return { type: 'child.ended', address, how, failure: how === 'failed' ? failure : null };
  }

  #carryOut(action: MachineAction): void {
    if (action.kind === 'raiseLater' && action.id !== undefined) {
      this.timers.set(action.id, this.at + action.delayMs);
    }
    if (action.kind === 'cancelTimer') this.timers.delete(action.id);
    if (action.kind !== 'command') return;
    if (action.command === 'startLife') {
      const { address, life } = action.params as StartLifeParams;
      this.log.push(`start ${short(address)}`);
      expect(this.alive.has(address), `${address} is started while it lives`).toBe(false);
      expect(life).toBe((this.lives.get(address) ?? 0) + 1);
      this.lives.set(address, life);
      const start = (): Fact => {
        this.alive.add(address);
        return { type: 'child.started', address, life };
      };
      this.#orders.push({ id: address, action: start });
    }
    if (action.command === 'endLife') {
      const { address } = action.params as EndLifeParams;
      this.log.push(`stop ${short(address)}`);
      const end = (): Fact => {
        this.alive.delete(address);
        return this.#ended(address, 'done');
      };
      this.#orders.push({ id: address, action: end });
    }
  }
}

/**
 * Erlang's supervisor, as small as it can be: it does one thing at a time, at once. Ends that are final stay so (see
 * policies/supervision.ts), which is where ours differs.
 */
class Reference {
  readonly log: string[] = [];
  gaveUp = false;
  readonly #plan: Plan;
  readonly #children: Kid[];
  #restarts: number[] = [];

  constructor(plan: Plan) {
    this.#plan = plan;
    this.#children = plan.restarts.map((restart, index) => ({
      id: idOf(index),
      restart,
      alive: false,
      over: false,
    }));
    this.#start(this.#children);
  }

  get alive(): readonly string[] {
    return this.#children.filter(({ alive }) => alive).map(({ id }) => id);
  }

  ends(id: string, how: How, at: number): void {
    const child = this.#children.find((one) => one.id === id);
    if (child === undefined || !child.alive) return;
    child.alive = false;
    if (child.restart === 'temporary' || (child.restart === 'transient' && how === 'done')) {
      child.over = true;
      return;
    }
    const { strategy, intensity } = this.#plan;
    this.#restarts = [...this.#restarts.filter((time) => time > at - intensity.withinMs), at];
    if (this.#restarts.length > intensity.restarts) {
      this.gaveUp = true;
      this.#stop(this.#children);
      return;
    }
    const from = strategy === 'oneForAll' ? 0 : this.#children.indexOf(child);
    const concerned = strategy === 'oneForOne' ? [child] : this.#children.slice(from);
    this.#stop(concerned);
    for (const one of concerned) if (one.restart === 'temporary') one.over = true;
    this.#start(concerned);
  }

  #stop(children: readonly Kid[]): void {
    for (const child of children.toReversed()) {
      if (!child.alive) continue;
      child.alive = false;
      this.log.push(`stop ${short(child.id)}`);
    }
  }

  #start(children: readonly Kid[]): void {
    for (const child of children) {
      if (child.over) continue;
      child.alive = true;
      this.log.push(`start ${short(child.id)}`);
    }
  }
}

const plans: fc.Arbitrary<Plan> = fc.record({
  strategy: fc.constantFrom(...STRATEGIES),
  intensity: fc.record({ restarts: fc.nat(4), withinMs: fc.constantFrom(1, 1_000, 60_000) }),
  restarts: fc.array(fc.constantFrom(...RESTARTS), { minLength: 1, maxLength: 5 }),
});
const ends = fc.record({
  child: fc.nat(4),
  how: fc.constantFrom<How>('done', 'failed'),
  afterMs: fc.constantFrom(0, 1, 500, 999, 1_000, 30_000, 60_000),
  /** How many orders are carried out before it happens; and of which child each. */
  orders: fc.array(fc.nat(5), { maxLength: 6 }),
});

describe('a supervisor', () => {
  propertyTest.prop([plans, fc.array(ends, { maxLength: 20 })], { numRuns: 100 })(
    'does what Erlang’s does, order for order, when one thing happens after the other',
    (plan, events) => {
      const bench = new Bench(plan);
      const reference = new Reference(plan);
      bench.settle();
      for (const { child, how, afterMs } of events) {
        bench.at += afterMs;
        bench.ends(idOf(child), how);
        reference.ends(idOf(child), how, bench.at);
        bench.settle();
        expect([...bench.alive].toSorted()).toEqual(reference.alive);
        expect(stateOf(bench.step)).toBe(reference.gaveUp ? 'escalated' : 'running');
      }
      expect(bench.log).toEqual(reference.log);
      // Nobody waits for anything.
      expect([...bench.timers.keys()]).toEqual([]);
    },
  );

  propertyTest.prop([plans, fc.array(ends, { maxLength: 25 })], { numRuns: 100 })(
    'comes to rest with everybody where they belong, whatever fails in the middle of a restart',
    (plan, events) => {
      const bench = new Bench(plan);
      for (const { child, how, afterMs, orders } of events) {
        bench.at += afterMs;
        for (const nth of orders) if (bench.open > 0) bench.carryOut(nth);
        bench.ends(idOf(child), how);
        // One after the other, where others rest on it.
        if (plan.strategy !== 'oneForOne') expect(bench.busy).toBeLessThanOrEqual(1);
      }
      bench.settle();
      const { children, goal, restarts } = bench.context;
      expect(restarts.length).toBeLessThanOrEqual(plan.intensity.restarts + 1);
      expect(goal === 'failed').toBe(restarts.length === plan.intensity.restarts + 1);
      for (const { id, wanted, state, restart, recycle } of children) {
        expect(recycle).toBe('no');
        if (goal === 'failed') expect(bench.alive.has(id)).toBe(false);
        else expect(bench.alive.has(id)).toBe(wanted);
        if (wanted) expect(state).toBe(goal === 'failed' ? 'waiting' : 'running');
        else expect(restart).not.toBe('permanent');
      }
      expect([...bench.timers.keys()]).toEqual([]);
      // A person lets it begin again: then everybody who is wanted lives.
      if (goal !== 'failed') return;
      bench.tell({ type: 'supervisor.decide', decision: 'restart', by: 'ada' });
      bench.settle();
      expect(bench.context.children.filter(({ wanted }) => wanted).length).toBe(bench.alive.size);
    },
  );

  const three = (strategy: Strategy, restarts = 3): Plan => ({
    strategy,
    intensity: { restarts, withinMs: 60_000 },
    restarts: ['permanent', 'permanent', 'permanent'],
  });

  test('waits longer after each failure in a row, and starts from the first wait after a long life', () => {
    const bench = new Bench(three('oneForOne', 9), { backoff: { initialMs: 100, jitter: 0 } });
    bench.settle();
    const waits: number[] = [];
    for (const livedMs of [0, 0, 0, 60_000]) {
      bench.at += livedMs;
      bench.ends('worker/b', 'failed');
      const due = bench.timers.get('child:worker/b') ?? 0;
      waits.push(due - bench.at);
      bench.at = due;
      bench.timers.clear();
      bench.tell({ type: 'supervisor.due', id: 'worker/b' });
      bench.settle();
    }
    expect(waits).toEqual([100, 200, 400, 100]);
  });

  test('lets nobody of oneForAll live while one waits for its back-off', () => {
    const bench = new Bench(three('oneForAll'), { backoff: { initialMs: 100, jitter: 0 } });
    bench.settle();
    bench.ends('worker/b', 'failed');
    bench.settle();
    expect(bench.states()).toBe('a waiting, b delayed, c waiting');
    bench.tell({ type: 'supervisor.due', id: 'worker/b' });
    bench.settle();
    expect(bench.log.slice(3)).toEqual(['stop c', 'stop a', 'start a', 'start b', 'start c']);
  });

  test('a start that takes too long is a failure; the time is granted once more if nobody was there', () => {
    const bench = new Bench(three('oneForOne'));
    expect(bench.states()).toBe('a starting, b waiting, c waiting');
    bench.at += 3_600_000;
    bench.tell({ type: 'supervisor.due', id: 'worker/a' });
    expect(bench.states()).toBe('a starting, b waiting, c waiting');
    bench.at += 10_000;
    bench.tell({ type: 'supervisor.due', id: 'worker/a' });
    // It is called off, and does not keep the others waiting.
    expect(bench.states()).toBe('a stopping, b starting, c waiting');
    expect(bench.context.children[0]?.lastError).toBe(
      'The child worker/a of supervisor supervisor/s did not start within 10000 ms. Is its machine "worker" registered?',
    );
  });

  test('hears of a child only that child', () => {
    const bench = new Bench(three('oneForOne'));
    bench.settle();
    const forged = { type: 'child.ended', address: 'worker/a', how: 'failed', failure: null };
    bench.tell(forged, 'worker/b');
    bench.tell(forged);
    expect(bench.states()).toBe('a running, b running, c running');
  });

  test('asks the overseer when it gives up; its policy may restart it three times, then a person must', () => {
    const bench = new Bench(three('oneForOne', 0));
    for (let round = 1; round <= 4; round++) {
      bench.settle();
      bench.ends('worker/b', 'failed');
      bench.settle();
      expect(stateOf(bench.step)).toBe('escalated');
      expect(bench.context.failure?.message).toContain(
        'more than 0 restarts within 60000 ms. The last to fail was worker/b: worker/b broke',
      );
      const asked = messagesIn(bench.step.actions).map(({ to }) => to);
      expect(asked).toEqual(round <= 3 ? ['overseer/main'] : []);
      const reply = { decision: 'restart', by: 'policy' };
      if (round <= 3) bench.tell({ type: 'overseer.supervisorFailed:ok', reply });
    }
    bench.tell({ type: 'supervisor.decide', decision: 'stop', by: 'ada' });
    expect(bench.step.snapshot.status).toBe('done');
  });

  test('that runs has nothing to decide', () => {
    const bench = new Bench(three('oneForOne'));
    const actions = bench.tell({ type: 'supervisor.decide', decision: 'stop', by: 'ada' });
    expect(stateOf(bench.step)).toBe('running');
    expect(actions).toHaveLength(1);
  });

  test('stops its children in reverse, and lets go of them unless it is to live again', () => {
    for (const again of [false, true]) {
      const bench = new Bench(three('oneForOne'));
      bench.settle();
      bench.tell({ type: 'actor.stop', reason: 'enough', again });
      bench.settle();
      expect(bench.log.slice(3)).toEqual(['stop c', 'stop b', 'stop a']);
      expect(bench.step.snapshot.status).toBe('done');
      const released = bench.step.actions.filter(
        (action) => action.kind === 'command' && action.command === 'releaseLife',
      );
      expect(released.length).toBe(again ? 0 : 3);
    }
  });

  test.each([
    { autoShutdown: 'anySignificant', after: 1 },
    { autoShutdown: 'allSignificant', after: 2 },
  ] as const)('with $autoShutdown stops after $after of two', ({ autoShutdown, after }) => {
    const plan: Plan = { ...three('oneForOne'), restarts: ['transient', 'transient', 'permanent'] };
    const input = inputOf(plan);
    const children = input.children.map((one, i) => ({ ...one, significant: i < 2 }));
    let state = newSupervision({ ...input, autoShutdown, children });
    const take = (act: (turn: SupervisionTurn) => void): void => {
      const turn = new SupervisionTurn(state, 's', START);
      act(turn);
      state = turn.settle();
    };
    take(() => undefined);
    for (const { id } of children) {
      take((turn) => turn.report({ type: 'child.started', address: id, life: 1 }));
    }
    const goals = [0, 1].map((n) => {
      const address = children[n]?.id ?? '';
      take((turn) => turn.report({ type: 'child.ended', address, how: 'done', failure: null }));
      return state.goal;
    });
    expect(goals.indexOf('down') + 1).toBe(after);
  });
});

describe('children that come and go', () => {
  const plan: Plan = {
    strategy: 'oneForOne',
    intensity: { restarts: 1, withinMs: 60_000 },
    restarts: ['permanent', 'transient'],
  };
  const started = (): Bench => {
    const bench = new Bench(plan);
    bench.settle();
    return bench;
  };
  /** Carries out everything. @returns the answer to the order, and who is how afterwards */
  const order = (bench: Bench, type: string, fields: object): string => {
    const first = answerIn(bench.tell({ type: `supervisor.${type}`, ...fields }));
    let answer = first;
    while (bench.open > 0) {
      bench.carryOut(0);
      answer ??= answerIn(bench.step.actions);
    }
    return `${answer ?? 'no answer'}: ${bench.states()}`;
  };
  const child = { id: 'worker/c', machine: 'worker', backoff: null };
  const c = { id: 'worker/c' };

  test('are started, stopped, restarted and forgotten by orders, each answered when it is done', () => {
    const bench = started();
    const up = 'a running, b running';
    expect(order(bench, 'startChild', { child })).toBe(`running: ${up}, c running`);
    expect(order(bench, 'startChild', { child })).toBe(`✗ conflict: ${up}, c running`);
    expect(order(bench, 'deleteChild', c)).toBe(`✗ conflict: ${up}, c running`);
    expect(order(bench, 'restartChild', c)).toBe(`running: ${up}, c running`);
    expect(bench.lives.get('worker/c')).toBe(2);
    expect(order(bench, 'stopChild', c)).toBe(`stopped: ${up}, c stopped`);
    expect(order(bench, 'stopChild', c)).toBe(`stopped: ${up}, c stopped`);
    expect(order(bench, 'restartChild', c)).toBe(`running: ${up}, c running`);
    expect(order(bench, 'stopChild', c)).toBe(`stopped: ${up}, c stopped`);
    expect(order(bench, 'deleteChild', c)).toBe(`stopped: ${up}`);
    expect(order(bench, 'stopChild', c)).toBe(`✗ not_found: ${up}`);
    // None of it was a failure.
    expect(bench.context.restarts).toEqual([]);
  });

  test('one whose first start fails is not a child, and whoever asked hears why', () => {
    const bench = started();
    bench.tell({ type: 'supervisor.startChild', child });
    const failure = { code: 'unhandled', message: 'cannot be born', retryable: false };
    const fact = { type: 'child.startFailed', address: 'worker/c', life: 1, failure };
    expect(refusalIn(bench.tell(fact, 'worker/c'))).toMatchObject({
      message: 'cannot be born',
      context: { child: 'worker/c' },
    });
    expect(bench.states()).toBe('a running, b running');
    expect(bench.context.restarts).toEqual([]);
  });

  test('one that was stopped by an order, or has come to its end, stays so when others are restarted', () => {
    const bench = new Bench({
      ...plan,
      strategy: 'oneForAll',
      restarts: ['permanent', 'permanent', 'transient'],
    });
    bench.settle();
    order(bench, 'stopChild', { id: 'worker/a' });
    bench.ends('worker/c', 'done');
    bench.ends('worker/b', 'failed');
    bench.settle();
    expect(bench.states()).toBe('a stopped, b running, c done');
  });

  test('another specification: what is new is started, what is gone stopped, the rest goes on', () => {
    const bench = started();
    const next = inputOf({ ...plan, restarts: ['permanent'] });
    const named = [...next.children, child];
    const { address: _address, parent: _parent, overseer: _overseer, ...tree } = next;
    bench.tell({ type: 'supervisor.configure', ...tree, children: named, specHash: 'two' });
    bench.settle();
    expect(bench.states()).toBe('a running, c running, b stopped');
    expect(bench.context.specHash).toBe('two');
    bench.tell({ type: 'supervisor.configure', ...tree, children: inputOf(plan).children });
    bench.settle();
    expect(bench.states()).toBe('a running, b running, c stopped');
    expect(Object.fromEntries(bench.lives)).toEqual({
      'worker/a': 1,
      'worker/b': 2,
      'worker/c': 1,
    });
  });

  test('one that is named again while it is still being stopped lives again', () => {
    const bench = started();
    const { address: _address, parent: _parent, overseer: _overseer, ...tree } = inputOf(plan);
    const named = (count: number) => ({
      ...{ type: 'supervisor.configure', ...tree },
      children: tree.children.slice(0, count),
    });
    bench.tell({ ...named(1), specHash: 'two' });
    expect(bench.states()).toBe('a running, b stopping');
    bench.tell({ ...named(2), specHash: 'one' });
    bench.settle();
    expect(bench.states()).toBe('a running, b running');
  });

  test('are counted', () => {
    const bench = started();
    order(bench, 'stopChild', { id: 'worker/b' });
    expect(answerIn(bench.tell({ type: 'supervisor.count' }))).toBe(
      JSON.stringify({ specs: 2, active: 1, supervisors: 0, workers: 2 }),
    );
  });
});
