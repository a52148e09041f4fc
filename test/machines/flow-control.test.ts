import { test as property } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type AgentContext, agentMachine } from '../../src/machines/agent-machine.ts';
import { agentQueries } from '../../src/machines/agent-queries.ts';
import { type FlowOptions, parseFlow } from '../../src/machines/flow-control.ts';
import { keyOfInput, parseKeyPath } from '../../src/machines/policies/task-key.ts';
import type { ReplyParams } from '../../src/protocol/commands.ts';
import type { MachineAction } from '../../src/runtime/xstate-driver.ts';
import { Driven, type Fact, messagesIn, START, type Step } from './driven.ts';

const agent = new Driven(agentMachine, 'agent/mail');

const work = (id: string, input: unknown): Fact => ({
  type: 'agent.work',
  ...{ task: `task/r/${id}`, run: 'r', id, title: id, attempt: 1, input },
  ...{ feedback: [], guidance: [], answers: {}, workspace: null, interruptions: 3 },
});
const done = (job: string): Fact => ({
  type: `xstate.done.actor.${job}`,
  actorId: job,
  output: { outcome: 'submitted', result: null },
});

/** An agent's life in which time passes; its timer goes off by itself. */
class Life {
  step: Step;
  now = START;
  readonly started: { readonly id: string; readonly task: string; readonly at: number }[] = [];
  readonly actions: MachineAction[] = [];

  constructor(options: FlowOptions, concurrency = 100) {
    this.step = agent.begin({
      name: 'mail',
      concurrency,
      flow: parseFlow(options, 'agent "mail"'),
    });
  }

  get context(): AgentContext {
    return this.step.snapshot.context as unknown as AgentContext;
  }

  take(fact: Fact): void {
    const asks =
      fact.type === 'agent.work' ? { from: fact['task'] as never, correlation: 'c' } : {};
    this.step = agent.take(this.step, fact, { at: this.now, ...asks });
    // As after a crash.
    this.step = { ...this.step, snapshot: agent.throughStore(this.step.snapshot) };
    this.actions.push(...this.step.actions);
    for (const action of this.step.actions) {
      if (action.kind === 'raiseLater') this.due = this.now + action.delayMs;
      if (action.kind !== 'startEffect') continue;
      this.started.push({
        id: action.id,
        task: (action.input as unknown as { task: string }).task.slice('task/r/'.length),
        at: this.now - START,
      });
    }
  }

  due: number | undefined;

  pass(ms: number): void {
    const until = this.now + ms;
    while (this.due !== undefined && this.due <= until) {
      this.now = this.due;
      this.due = undefined;
      this.take({ type: 'agent.due' });
    }
    this.now = until;
  }

  finish(task: string): void {
    const job = this.context.pool.running.find((one) => one.task === `task/r/${task}`);
    if (job !== undefined) this.take(done(job.id));
  }

  get running(): readonly string[] {
    return this.context.pool.running.map(({ task }) => task.slice('task/r/'.length));
  }

  get waiting(): readonly string[] {
    return this.context.pool.queue.map(({ task }) => task.slice('task/r/'.length));
  }
}

const of = (customer: string) => ({ customer });

describe('per key', () => {
  test('so many of a key at once; others pass by', () => {
    const life = new Life({ perKey: { key: 'input.customer', limit: 1 } }, 2);
    for (const [id, customer] of ['a1 a', 'a2 a', 'b1 b', 'c1 c'].map((x) => x.split(' '))) {
      life.take(work(id as string, of(customer as string)));
    }
    expect([life.running, life.waiting]).toEqual([
      ['a1', 'b1'],
      ['a2', 'c1'],
    ]);
    life.finish('b1');
    expect([life.running, life.waiting]).toEqual([['a1', 'c1'], ['a2']]);
    life.finish('a1');
    expect([life.running, life.waiting]).toEqual([['c1', 'a2'], []]);
  });
});

describe('throttle', () => {
  test('what comes too early waits for its time, also over a restart; each key by itself', () => {
    const life = new Life({ throttle: { limit: 2, periodMs: 1_000, key: 'input.customer' } });
    for (let n = 1; n <= 4; n++) life.take(work(`a${n}`, of('a')));
    life.take(work('b1', of('b')));
    expect([life.running, life.waiting]).toEqual([
      ['a1', 'a2', 'b1'],
      ['a3', 'a4'],
    ]);
    life.pass(499);
    expect(life.waiting).toEqual(['a3', 'a4']);
    life.pass(1);
    expect(life.waiting).toEqual(['a4']);
    life.pass(10_000);
    expect(life.started.map(({ task, at }) => `${task} ${at}`)).toEqual([
      'a1 0',
      'a2 0',
      'b1 0',
      'a3 500',
      'a4 1000',
    ]);
    expect(life.due).toBeUndefined();
  });
});

describe('rateLimit', () => {
  test('what comes too early is refused with the time to come again, and is not held against the agent', () => {
    const life = new Life({ rateLimit: { limit: 1, periodMs: 60_000 } });
    life.take(work('a', null));
    life.pass(20_000);
    life.take(work('b', null));
    const [reply] = life.step.actions.flatMap((action) =>
      action.kind === 'command' && action.command === 'reply' ? [action.params as ReplyParams] : [],
    );
    expect(reply).toMatchObject({
      failure: { code: 'rate_limited', retryable: true, retryAfterMs: 40_000 },
    });
    expect(messagesIn(life.step.actions)).toEqual([]);
    life.pass(40_000);
    life.take(work('b', null));
    expect(life.running).toEqual(['a', 'b']);
  });
});

describe('debounce', () => {
  test('the newest of a key is done when nothing came for the period; the others end in the open', () => {
    const life = new Life({ debounce: { key: 'input.customer', periodMs: 1_000 } });
    life.take(work('a1', of('a')));
    life.pass(900);
    life.take(work('b1', of('b')));
    life.take(work('a2', of('a')));
    expect(messagesIn(life.step.actions)).toEqual([
      expect.objectContaining({
        to: 'task/r/a1',
        message: {
          type: 'task.cancel',
          by: 'agent/mail',
          reason:
            'Superseded by task/r/a2, which came later with the same key (debounce of agent "mail").',
        },
      }),
    ]);
    life.pass(999);
    expect(life.running).toEqual([]);
    life.pass(1);
    expect(life.running).toEqual(['b1', 'a2']);
    // What runs is not superseded, and what has no value there is not debounced.
    life.take(work('a3', of('a')));
    life.take(work('x', {}));
    expect(messagesIn(life.step.actions)).toEqual([]);
    expect([life.running, life.waiting]).toEqual([['b1', 'a2', 'x'], ['a3']]);
  });
});

test.each([
  { what: 'another attempt at it', more: { attempt: 2 } },
  { what: 'it, after a question was answered', more: { answers: { colour: 'red' } } },
  { what: 'the mending of it', more: { fix: { number: 1 } } },
])('debounce: $what is not newer than what has come since', ({ more }) => {
  const life = new Life({ debounce: { key: 'input.customer', periodMs: 1_000 } });
  life.take(work('old', of('a')));
  life.pass(1_000);
  life.finish('old');
  life.take(work('new', of('a')));
  life.take({ ...work('old', of('a')), ...more });
  expect(messagesIn(life.step.actions)).toEqual([]);
  expect(life.waiting).toEqual(['new', 'old']);
  // What comes for the first time still takes the place of both.
  life.take(work('newest', of('a')));
  expect(messagesIn(life.step.actions).map(({ to }) => to)).toEqual(['task/r/new', 'task/r/old']);
  expect(life.waiting).toEqual(['newest']);
});

test('limits that are taken away let go of what waits; an agent says what it does without a turn', () => {
  const life = new Life({ throttle: { limit: 1, periodMs: 60_000 } });
  life.take(work('a', null));
  life.take(work('b', null));
  expect(agentQueries.work({ context: life.context })).toMatchObject({
    running: [{ task: 'task/r/a', attempt: 1 }],
    waiting: [{ task: 'task/r/b', attempt: 1 }],
    limits: { throttle: { limit: 1, periodMs: 60_000 } },
  });
  life.take({ type: 'agent.configure', concurrency: 5 });
  expect(life.running).toEqual(['a', 'b']);
  life.pass(60_000);
  expect(life.context.flow).toBeNull();
});

const customers = fc.constantFrom('a', 'b', 'c', undefined);
const moves = fc.array(
  fc.oneof(
    fc.record({ comes: customers }),
    fc.record({ ends: fc.nat(20) }),
    fc.record({ passes: fc.integer({ min: 1, max: 700 }) }),
  ),
  { maxLength: 40 },
);

property.prop([moves, fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 4 })], {
  numRuns: 60,
})(
  'never more than so many of a key; nobody waits whom nothing holds; all start at last',
  (happens, limit, concurrency) => {
    const throttle = { limit: 2, periodMs: 500, key: 'input.customer' };
    const life = new Life({ perKey: { key: 'input.customer', limit }, throttle }, concurrency);
    const keys = new Map<string, string | undefined>();
    const check = (): void => {
      const running = new Map<string | undefined, number>();
      for (const task of life.running) {
        const key = keys.get(task);
        running.set(key, (running.get(key) ?? 0) + 1);
      }
      for (const count of running.values()) expect(count).toBeLessThanOrEqual(limit);
      expect(life.running.length).toBeLessThanOrEqual(concurrency);
      if (life.running.length === concurrency) return;
      for (const task of life.waiting) {
        const key = keys.get(task);
        const recent = life.started.filter(
          (one) => keys.get(one.task) === key && one.at > life.now - START - throttle.periodMs,
        );
        const isFull = (running.get(key) ?? 0) >= limit;
        expect(isFull || recent.length > 0, `${task} waits for nothing`).toBe(true);
      }
    };
    let count = 0;
    for (const move of happens) {
      if ('comes' in move) {
        const id = `t${count++}`;
        keys.set(id, move.comes);
        life.take(work(id, move.comes === undefined ? {} : of(move.comes)));
      } else if ('ends' in move) life.finish(life.running[move.ends % 4] ?? '');
      else life.pass(move.passes);
      check();
    }
    for (let n = 0; n < 200 && life.started.length < count; n++) {
      life.pass(500);
      for (const task of life.running) life.finish(task);
      check();
    }
    expect(life.started.map(({ task }) => task).sort()).toEqual([...keys.keys()].sort());
    // Of one key in their order.
    for (const key of new Set(keys.values())) {
      const own = life.started.filter(({ task }) => keys.get(task) === key);
      expect(own.map(({ task }) => task)).toEqual(
        [...keys.keys()].filter((id) => keys.get(id) === key),
      );
    }
  },
);

test.each([
  [
    { perKey: { key: 'input.customer', limit: 0 } },
    'perKey of agent "x": expected limit to be a positive integer, got 0',
  ],
  [
    { perKey: { limit: 1 } },
    "expected key to be a path into the task's input, such as input.customer",
  ],
  [{ perKey: { key: 'input["a"]', limit: 1 } }, 'expected key to be a path'],
  [{ perKey: { key: 'task.id', limit: 1 } }, 'got "task.id"'],
  [
    { throttle: { limit: 1 } },
    'throttle of agent "x": expected periodMs to be a positive integer, got nothing',
  ],
  [{ throttle: { limit: 1, periodMs: 1, per: 2 } }, 'there is no setting "per"'],
  [{ rateLimit: { limit: 1.5, periodMs: 1 } }, 'expected limit to be a positive integer, got 1.5'],
  [{ debounce: { periodMs: 1 } }, 'debounce of agent "x": expected key'],
  [{ debounce: { key: 'input', periodMs: 1e12 } }, 'of at most 604800000'],
])('%j is refused', (options, message) => {
  expect(() => parseFlow(options as never, 'agent "x"')).toThrow(message);
});

test('keys: equal values are equal, others differ, and only what is there counts', () => {
  const key = (path: string, input: unknown) => keyOfInput(parseKeyPath(path, 'x'), input as never);
  expect(key('input.a.b', { a: { b: 1 } })).toBe('1');
  expect(key('input.a', { a: '1' })).not.toBe(key('input.a', { a: 1 }));
  expect(key('input.a', { a: { x: 1, y: 2 } })).toBe(key('input.a', { a: { y: 2, x: 1 } }));
  expect(key('input.a', { a: 'x'.repeat(500) })).toHaveLength(65);
  expect(key('input.list.1', { list: ['a', 'b'] })).toBe('"b"');
  for (const input of [null, 'text', {}, { a: null }, []])
    expect(key('input.a', input)).toBeUndefined();
  expect(key('input.constructor', {})).toBeUndefined();
  expect(key('input', 'all of it')).toBe('"all of it"');
});
