import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type ClaimInput,
  type ClaimOutput,
  type RunContext,
  type RunInput,
  runMachine,
} from '../../src/machines/run-machine.ts';
import type { TaskPhase } from '../../src/protocol/catalogue.ts';
import { Driven, type Fact, messagesIn, type Step, stateOf } from './driven.ts';

const CONCURRENCY = 2;
const TASKS = ['a', 'b', 'c', 'd'];

const run = new Driven(runMachine, 'run/r');
const input: RunInput = {
  run: 'r',
  title: 'Report',
  createdAt: 0,
  specHash: 'h',
  counts: { ready: TASKS.length },
  slots: { writer: CONCURRENCY },
  concurrency: CONCURRENCY,
  workflow: null,
};

/** The life of a task that is sent back: each word of it waits until the run takes it. */
const NEXT: Partial<Record<TaskPhase, TaskPhase>> = {
  active: 'verifying',
  verifying: 'delayed',
  delayed: 'ready',
};

/** One task, as it stands, and what the run has not heard of it yet. */
class Task {
  readonly id: string;
  phase: TaskPhase = 'ready';
  /** Its row in the store is claimed. */
  open = false;
  /** Claims told to it and not yet obeyed. */
  readonly told: (number | undefined)[] = [];
  readonly words: Fact[] = [];
  #claim: number | null = null;
  #roundsLeft: number;

  constructor(id: string, rounds: number) {
    this.id = id;
    this.#roundsLeft = rounds;
  }

  get inFlight(): boolean {
    return this.open || this.phase === 'active' || this.phase === 'verifying';
  }

  get canMove(): boolean {
    return this.phase === 'ready' ? this.told.length > 0 : this.phase !== 'done';
  }

  move(): void {
    if (this.phase === 'ready') {
      this.#claim = this.told.shift() ?? null;
      this.#roundsLeft--;
      this.#to('active', { agent: 'writer' });
    } else if (this.phase === 'verifying' && this.#roundsLeft <= 0) this.#to('done');
    else this.#to(NEXT[this.phase] ?? 'done');
  }

  #to(to: TaskPhase, more: object = {}): void {
    const { id: task, phase: from } = this;
    const claim = this.#claim;
    this.words.push({
      ...{ type: 'run.taskChanged', task, from, to, telling: 0, heard: 0, claim },
      ...more,
    });
    this.phase = to;
    this.open = false;
  }
}

/** A run, its tasks and the store, in any order that a host allows: ends of effects overtake words that wait. */
class World {
  readonly tasks: readonly Task[];
  #step: Step = run.begin(input);
  /** The claim that was asked for, and what the store has answered it. */
  #asked: ClaimInput | undefined;
  #claimed: ClaimOutput | undefined;

  constructor(rounds: number) {
    this.tasks = TASKS.map((id) => new Task(id, rounds));
    this.#after();
  }

  get state(): string {
    return stateOf(this.#step);
  }

  get context(): RunContext {
    return this.#step.snapshot.context as unknown as RunContext;
  }

  get inFlight(): readonly string[] {
    return this.tasks.filter(({ inFlight }) => inFlight).map(({ id }) => id);
  }

  /** Everything that may come next. */
  get choices(): readonly (() => void)[] {
    const choices: (() => void)[] = [];
    if (this.#asked !== undefined && this.#claimed === undefined) choices.push(() => this.#claim());
    if (this.#claimed !== undefined) choices.push(() => this.#endClaim());
    for (const task of this.tasks) {
      if (task.canMove) choices.push(() => task.move());
      if (task.words.length > 0) choices.push(() => this.#take(task.words.shift() as Fact));
    }
    return choices;
  }

  #claim(): void {
    const { total = 0, slots = {} } = this.#asked ?? {};
    const free = this.tasks.filter(({ phase, open }) => phase === 'ready' && !open);
    const taken = free.slice(0, Math.max(0, Math.min(total, slots['writer'] ?? 0)));
    for (const task of taken) task.open = true;
    this.#claimed = taken.map(({ id }) => ({ task: id, agent: 'writer' }));
  }

  #endClaim(): void {
    const output = this.#claimed;
    this.#claimed = undefined;
    this.#asked = undefined;
    this.#take({ type: 'xstate.done.actor.claim', output });
  }

  #take(fact: Fact): void {
    this.#step = run.take(this.#step, fact);
    this.#after();
  }

  #after(): void {
    for (const action of this.#step.actions) {
      if (action.kind === 'startEffect') this.#asked = action.input as unknown as ClaimInput;
    }
    for (const { to, message } of messagesIn(this.#step.actions)) {
      const told = this.tasks.find(({ id }) => to === `task/r/${id}`);
      told?.told.push(message['claim'] as number | undefined);
    }
  }
}

function live(rounds: number, picks: Iterable<number>): World {
  const world = new World(rounds);
  for (const pick of picks) {
    const { choices } = world;
    if (choices.length === 0) return world;
    choices[pick % choices.length]?.();
    expect(world.inFlight.length).toBeLessThanOrEqual(CONCURRENCY);
    expect(Object.keys(world.context.claimed).length).toBeLessThanOrEqual(CONCURRENCY);
  }
  return world;
}

describe('however late the run hears of its tasks', () => {
  test('no more are in flight than may be', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.infiniteStream(fc.nat(999)),
        (rounds, picks) => {
          const world = live(rounds, take(picks, 400));
          // Then everything is heard, in order.
          for (let left = 1000; left > 0 && world.choices.length > 0; left--) world.choices[0]?.();
          expect(world.state).toBe('done');
          expect(world.context.claimed).toEqual({});
        },
      ),
      { numRuns: 300 },
    );
  });
});

function* take<T>(values: Iterator<T>, count: number): Generator<T> {
  for (let i = 0; i < count; i++) yield values.next().value as T;
}
