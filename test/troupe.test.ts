import { existsSync } from 'node:fs';
import path from 'node:path';
import { pino } from 'pino';
import { describe, expect, onTestFinished, test } from 'vitest';
import { assign, setup } from 'xstate';
import type { Address } from '../src/protocol/address.ts';
import { durableActions } from '../src/protocol/commands.ts';
import {
  ConfigurationError,
  ConflictError,
  LockConflictError,
  NotFoundError,
  StoppedError,
  TroupeError,
  ValidationError,
} from '../src/protocol/errors.ts';
import type { JsonValue } from '../src/protocol/json.ts';
import { type Received, replyTo } from '../src/protocol/message.ts';
import { MemoryStore } from '../src/store/memory/memory-store.ts';
import type { Claim } from '../src/store/store.ts';
import { createTroupe, type RunResult, type Troupe } from '../src/troupe.ts';
import {
  accepts,
  advance,
  DISKS,
  Gate,
  memoryDisk,
  reaches,
  SimulatedClock,
  sqliteDisk,
} from './actors/open-troupe.ts';

const states = ({ tasks }: RunResult) => Object.fromEntries(tasks.map((t) => [t.id, t.state]));
const task = (id: string, more = {}) => ({ id, agent: 'writer', gatekeeper: 'editor', ...more });
/** Retries at once: these tests are not about waiting. */
const fast = {
  backoff: { initialMs: 1, jitter: 0 },
  infrastructureBackoff: { initialMs: 1, jitter: 0 },
};

/** An agent that hands in what it got, and a gatekeeper that takes it. */
function cast(troupe: Troupe): void {
  troupe.agent('writer', ({ task }) => task.input);
  troupe.gatekeeper('editor', accepts);
}

describe.each(DISKS)('on $disk', ({ make }) => {
  test('tasks are done by agents and accepted by gatekeepers', async () => {
    const troupe = await make().open();
    const read: JsonValue[] = [];
    troupe.agent('writer', async ({ task, step, progress, signal }) => {
      signal.throwIfAborted();
      progress({ percent: 50 });
      return { text: await step('write', () => `${task.title}, ${String(task.input)}`) };
    });
    troupe.gatekeeper('editor', async ({ submission, step }) => {
      read.push(await step('read', () => submission.result));
      return { accepted: true, evidence: ['read it'] };
    });
    const run = await troupe.start({
      id: 'report-42',
      tasks: [
        { id: 'draft', title: 'Draft', agent: 'writer', gatekeeper: 'editor', input: 'short' },
        {
          id: 'final',
          title: 'Final',
          agent: 'writer',
          gatekeeper: 'editor',
          dependsOn: ['draft'],
        },
      ],
    });
    const seen: string[] = [];
    run.events$.subscribe(({ address, state }) => {
      if (address === 'task/report-42/draft') seen.push(String(state));
    });
    const result = await run.result();
    expect(result).toMatchObject({ id: 'report-42', state: 'done', total: 2, reason: null });
    expect(result.endedAt).not.toBeNull();
    expect(states(result)).toEqual({ draft: 'done', final: 'done' });
    expect(read).toEqual([{ text: 'Draft, short' }, { text: 'Final, null' }]);
    expect(seen.at(-1)).toBe('done');
    const [attempt] = await run.task('draft').attempts();
    expect(attempt).toMatchObject({ attempt: 1, outcome: 'accepted' });
    expect(JSON.parse(attempt?.detailsJson ?? '')).toMatchObject({
      evidence: { commands: [{ name: 'check', excerpt: 'read it' }] },
    });
    await troupe.stop({ drain: true });
  });

  test('starting a run again is harmless, with other tasks a conflict', async () => {
    const disk = make();
    const troupe = await disk.open();
    cast(troupe);
    const spec = { id: 'r', tasks: [task('a'), task('b', { dependsOn: ['a'] })] };
    expect((await (await troupe.start(spec)).result()).state).toBe('done');
    expect((await (await troupe.start(spec)).result()).state).toBe('done');
    expect((await troupe.task('r', 'a').status()).attempts).toBe(1);
    const other = troupe.start({ id: 'r', tasks: [task('a'), task('c')] });
    await expect(other).rejects.toThrow(ConflictError);
    await expect(other).rejects.toThrow(
      /^A run "r" exists already, with other tasks \([0-9a-f]{64}, these are [0-9a-f]{64}\)\. Choose another id, or go on with it: troupe\.run\("r"\)\.$/,
    );
    expect((await troupe.run('r').tasks()).map(({ id }) => id)).toEqual(['a', 'b']);
    await troupe.stop();

    const next = await disk.open();
    cast(next);
    expect((await (await next.start(spec)).result()).state).toBe('done');
    await expect(next.start({ id: 'r', tasks: [task('x')] })).rejects.toThrow(ConflictError);
  });

  test('a run goes on in the next process, with agents that come late', async () => {
    const disk = make();
    const first = await disk.open();
    const gate = new Gate();
    const steps: string[] = [];
    first.agent('writer', async ({ step, signal }) => {
      await step('research', () => {
        steps.push('first process: research');
        return 'facts';
      });
      await step('write', () => gate.wait(signal).then(() => null));
      return null;
    });
    first.gatekeeper('editor', accepts);
    const run = await first.start({ id: 'r', tasks: [task('a'), task('b', { dependsOn: ['a'] })] });
    const interrupted = run.result();
    interrupted.catch(() => undefined);
    await gate.reached;
    await first.stop();
    await expect(interrupted).rejects.toThrow(StoppedError);

    const second = await disk.open();
    const result = second.run('r').result();
    // Nobody is there yet who could do it; the work waits.
    await reaches(second, 'agent/writer', 'working');
    second.gatekeeper('editor', accepts);
    second.agent('writer', async ({ task, step }) => {
      const facts = await step('research', () => {
        steps.push(`second process: research for ${task.id}`);
        return 'other facts';
      });
      steps.push(`second process: ${task.id} with ${facts}`);
      return null;
    });
    expect(states(await result)).toEqual({ a: 'done', b: 'done' });
    expect(steps).toEqual([
      'first process: research',
      'second process: a with facts',
      'second process: research for b',
      'second process: b with other facts',
    ]);
  });

  test('a person is asked; the steps before the question are not done again', async () => {
    const disk = make();
    const troupe = await disk.open();
    const done: string[] = [];
    const writer =
      (name: string) =>
      async ({ step, ask }: Parameters<Parameters<Troupe['agent']>[1]>[0]) => {
        await step('research', () => {
          done.push(name);
          return null;
        });
        const colour = await ask({ id: 'colour', text: 'Which colour?', choices: ['red', 'blue'] });
        const size = await ask('How big?');
        return { colour, size };
      };
    const results: JsonValue[] = [];
    const editor = ({ submission }: { submission: { result: JsonValue } }) => {
      results.push(submission.result);
      return accepts();
    };
    troupe.agent('writer', writer('first'));
    troupe.gatekeeper('editor', editor);
    const run = await troupe.start({ id: 'r', tasks: [task('a')] });
    const waiting = await run.result();
    expect(waiting).toMatchObject({
      state: 'blocked',
      reason: 'Nothing moves by itself: 1 waiting for a person.',
      tasks: [{ state: 'awaitingInput', question: { id: 'colour', choices: ['red', 'blue'] } }],
    });
    await expect(run.task('a').answer('colour', 'green')).rejects.toThrow(
      'Expected the answer to "Which colour?" to be one of red, blue.',
    );
    await expect(run.task('a').answer('size', 'big')).rejects.toThrow(
      'The task asks "colour" now, not "size".',
    );
    await troupe.stop();

    const next = await disk.open();
    next.agent('writer', writer('second'));
    next.gatekeeper('editor', editor);
    const a = next.run('r').task('a');
    expect(await a.answer('colour', 'red', 'ada')).toBe('working');
    await reaches(next, 'task/r/a', 'awaitingInput');
    const { question } = await a.status();
    expect(question).toMatchObject({ text: 'How big?' });
    await a.answer((question as { id: string }).id, 7);
    expect((await next.run('r').result()).state).toBe('done');
    expect(results).toEqual([{ colour: 'red', size: 7 }]);
    expect(done).toEqual(['first']);
  });

  test('a thousand tasks in one run end done', async () => {
    const troupe = await make().open();
    troupe.agent('writer', () => null, { concurrency: 16 });
    troupe.gatekeeper('editor', accepts, { concurrency: 16 });
    const tasks = Array.from({ length: 1000 }, (_, i) =>
      task(
        `t${i}`,
        i < 10
          ? {}
          : {
              dependsOn: [`t${i - 10}`, `t${(i * 7) % 10}`].filter(
                (d, n, all) => all.indexOf(d) === n,
              ),
            },
      ),
    );
    const result = await (await troupe.start({ id: 'r', tasks })).result();
    expect(result).toMatchObject({ state: 'done', counts: { done: 1000 } });
    expect(new Set(result.tasks.map((t) => `${t.state} ${t.attempts}`))).toEqual(
      new Set(['done 1']),
    );
  });
});

describe('result()', () => {
  test('of a run that stands still: what it waits for, and again after a decision', async () => {
    const troupe = await memoryDisk().open();
    let good = false;
    troupe.agent('writer', () => null);
    troupe.gatekeeper('editor', () =>
      good ? accepts() : { accepted: false, reason: 'Too long.', feedback: ['Shorten it.'] },
    );
    const run = await troupe.start({
      id: 'r',
      tasks: [task('a'), task('b', { dependsOn: ['a'] })],
      limits: fast,
    });
    const blocked = await run.result();
    expect(blocked).toMatchObject({
      state: 'blocked',
      reason: 'Nothing moves by itself: 1 waiting for a person, 1 waiting for these or staged.',
    });
    expect(states(blocked)).toEqual({ a: 'escalated', b: 'waiting' });
    expect(blocked.tasks[0]?.reason).toContain('The same feedback came twice in a row');
    good = true;
    expect(await run.task('a').decide('retry', { guidance: 'One page.', by: 'ada' })).toBe('ready');
    expect((await run.result()).state).toBe('done');
  });

  test('of a run that was cancelled', async () => {
    const troupe = await memoryDisk().open();
    cast(troupe);
    const run = await troupe.start({ id: 'r', tasks: [task('a', { staged: true })] });
    await run.cancel('Not needed.');
    await reaches(troupe, 'run/r', 'cancelled');
    expect(await run.result()).toMatchObject({ state: 'cancelled', reason: 'Not needed.' });
  });

  test('of a run that does not exist', async () => {
    const troupe = await memoryDisk().open();
    await expect(troupe.run('nobody').result()).rejects.toThrow(NotFoundError);
    await expect(troupe.run('nobody').status()).rejects.toThrow('There is no run "nobody".');
    await expect(troupe.task('nobody', 'a').status()).rejects.toThrow(NotFoundError);
    await expect(troupe.task('nobody', 'a').pause()).rejects.toThrow(NotFoundError);
  });

  test('when the runtime stops, and after', async () => {
    const troupe = await memoryDisk().open();
    const gate = new Gate();
    troupe.agent('writer', ({ signal }) => gate.wait(signal).then(() => null));
    troupe.gatekeeper('editor', accepts);
    const run = await troupe.start({ id: 'r', tasks: [task('a')] });
    const results = [run.result(), run.result()];
    for (const result of results) result.catch(() => undefined);
    await gate.reached;
    await troupe.stop();
    for (const result of results) await expect(result).rejects.toThrow(StoppedError);
    await expect(run.result()).rejects.toThrow(StoppedError);
    await expect(troupe.start({ id: 's', tasks: [task('a')] })).rejects.toThrow(StoppedError);
    await troupe.stop();
  });

  test('a stop that drains can be hurried: what runs is aborted, and goes on with the next runtime', async () => {
    const disk = memoryDisk();
    const troupe = await disk.open();
    const gate = new Gate();
    let aborted = false;
    troupe.agent('writer', async ({ signal }) => {
      signal.addEventListener('abort', () => {
        aborted = true;
      });
      await gate.wait(signal);
      return null;
    });
    troupe.gatekeeper('editor', accepts);
    const run = await troupe.start({ id: 'r', tasks: [task('a')] });
    const result = run.result();
    result.catch(() => undefined);
    await gate.reached;
    const draining = troupe.stop({ drain: true, graceMs: 3_600_000 });
    await new Promise((resolve) => setImmediate(resolve));
    expect(aborted).toBe(false);
    await Promise.all([troupe.stop({ drain: false }), draining]);
    expect(aborted).toBe(true);
    await expect(result).rejects.toBeInstanceOf(StoppedError);
    const next = await disk.open();
    cast(next);
    expect(await next.run('r').result()).toMatchObject({ state: 'done' });
  });

  test.each([{ drain: false }, { drain: true }])(
    'and nothing else that was asked hangs when the runtime stops: $drain',
    async (options) => {
      const disk = memoryDisk();
      const troupe = await disk.open();
      cast(troupe);
      const run = await troupe.start({ id: 'r', tasks: [task('a', { staged: true })] });
      const asked = [
        troupe.start({ id: 's', tasks: [task('a')] }),
        run.task('a').pause(),
        run.task('a').status(),
        run.cancel('Not needed.'),
        run.tasks(),
        run.result(),
        troupe.runs(),
        troupe.request('run/r', { type: 'run.pause', by: 'nobody answers this' }),
      ];
      const settled = Promise.allSettled(asked);
      await Promise.all([troupe.stop(options), troupe.stop()]);
      for (const outcome of await settled) {
        if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(TroupeError);
      }
      // What was stored goes on.
      const next = await disk.open();
      cast(next);
      await next.run('r').cancel('Still not needed.');
      await reaches(next, 'run/r', 'cancelled');
    },
  );

  test('comes also when a listener throws', async () => {
    const troupe = await memoryDisk().open();
    cast(troupe);
    troupe.on('turn', () => {
      throw new Error('A bad listener.');
    });
    const run = await troupe.start({ id: 'r', tasks: [task('a')] });
    expect((await run.result()).state).toBe('done');
  });
});

describe('start()', () => {
  test('twice at once makes one run', async () => {
    const troupe = await memoryDisk().open();
    cast(troupe);
    const spec = { id: 'r', tasks: [task('a')] };
    const runs = await Promise.all([troupe.start(spec), troupe.start(spec), troupe.start(spec)]);
    for (const run of runs) expect((await run.result()).state).toBe('done');
    expect(await troupe.runs()).toHaveLength(1);
  });

  test('twice at once with other tasks: one is refused, and nothing of it is there', async () => {
    const troupe = await memoryDisk().open();
    cast(troupe);
    const outcomes = await Promise.allSettled([
      troupe.start({ id: 'r', tasks: [task('a')] }),
      troupe.start({ id: 'r', tasks: [task('b')] }),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    expect(await troupe.host.inspect('task/r/b')).toBeUndefined();
    expect((await troupe.run('r').tasks()).map(({ id }) => id)).toEqual(['a']);
  });

  test('refused, it leaves nothing behind', async () => {
    const troupe = await memoryDisk().open();
    cast(troupe);
    for (const tasks of [[task('a'), task('b', { agent: 'wrter' })], [], [task('a'), task('a')]]) {
      await expect(troupe.start({ id: 'r', tasks })).rejects.toThrow(ValidationError);
    }
    expect(await troupe.runs()).toEqual([]);
    expect(await troupe.store.listActors({ kind: 'task' })).toEqual([]);
    expect((await (await troupe.start({ id: 'r', tasks: [task('a')] })).result()).state).toBe(
      'done',
    );
  });

  test('names like those of JavaScript are names', async () => {
    const troupe = await memoryDisk().open();
    troupe.agent('constructor', ({ ask }) => ask({ id: 'toString', text: 'Well?' }));
    troupe.gatekeeper('valueOf', accepts);
    const one = (id: string) => ({ id, agent: 'constructor', gatekeeper: 'valueOf' });
    const run = await troupe.start({
      id: 'prototype',
      tasks: [one('constructor'), one('hasOwnProperty')],
    });
    for (const id of ['constructor', 'hasOwnProperty']) {
      await reaches(troupe, `task/prototype/${id}`, 'awaitingInput');
      await run.task(id).answer('toString', 'yes');
    }
    await reaches(troupe, 'run/prototype', 'done');
  });

  test('without an id it makes one', async () => {
    const troupe = await memoryDisk().open({
      newId: (() => {
        let n = 0;
        return () => `id-${++n}`;
      })(),
    });
    cast(troupe);
    const run = await troupe.start({ tasks: [task('a')] });
    expect(run.id).toMatch(/^id-\d+$/);
    expect((await run.result()).title).toBe(run.id);
  });
});

describe('events', () => {
  test('events$ tells of its own run only, and completes when the runtime stops', async () => {
    const troupe = await memoryDisk().open();
    cast(troupe);
    const run = await troupe.start({ id: 'r', tasks: [task('a', { staged: true })] });
    const other = await troupe.start({ id: 'r2', tasks: [task('a', { staged: true })] });
    const seen = new Set<string>();
    const ended: string[] = [];
    run.events$.subscribe({
      next: ({ address }) => seen.add(address),
      complete: () => ended.push('run'),
    });
    troupe.turns$.subscribe({ complete: () => ended.push('all') });
    const stopped = run.events$.subscribe(() => expect.unreachable());
    stopped.unsubscribe();
    await Promise.all([run.task('a').enable(), other.task('a').enable()]);
    await Promise.all([reaches(troupe, 'run/r', 'done'), reaches(troupe, 'run/r2', 'done')]);
    expect([...seen].sort()).toEqual(['run/r', 'task/r/a']);
    await troupe.stop();
    expect(ended.sort()).toEqual(['all', 'run']);
    let late = false;
    run.events$.subscribe({
      complete: () => {
        late = true;
      },
    });
    expect(late).toBe(true);
  });

  test('on() tells until it is ended', async () => {
    const troupe = await memoryDisk().open();
    cast(troupe);
    const ends: string[] = [];
    const off = troupe.on('effectEnded', ({ src }) => ends.push(src));
    await (await troupe.start({ id: 'r', tasks: [task('a')] })).result();
    expect(ends).toEqual(['claim', 'prepare', 'engine', 'verify']);
    off();
    await (await troupe.start({ id: 's', tasks: [task('a')] })).result();
    expect(ends).toHaveLength(4);
  });

  test('progress is told while it works', async () => {
    const troupe = await memoryDisk().open();
    troupe.agent('writer', ({ progress }) => {
      progress({ percent: 50 });
      return null;
    });
    troupe.gatekeeper('editor', accepts);
    const said: unknown[] = [];
    troupe.on('progress', (fact) => said.push(fact));
    await (await troupe.start({ id: 'r', tasks: [task('a')] })).result();
    expect(said).toEqual([{ address: 'agent/writer', src: 'engine', value: { percent: 50 } }]);
  });
});

describe('orders about a task', () => {
  async function escalated(agents: readonly string[] = []): Promise<Troupe> {
    const troupe = await memoryDisk().open();
    troupe.agent('writer', () => {
      throw new Error('I cannot.');
    });
    for (const name of agents) troupe.agent(name, () => 'done');
    troupe.gatekeeper('editor', accepts);
    await troupe.start({ id: 'r', tasks: [task('a')], limits: { ...fast, attempts: 1 } });
    await reaches(troupe, 'run/r', 'blocked');
    return troupe;
  }

  test('reassigned to another agent, it is done; the run had no place for that agent before', async () => {
    const troupe = await escalated(['poet']);
    expect(await troupe.task('r', 'a').decide('reassign', { agent: 'poet', by: 'ada' })).toBe(
      'ready',
    );
    expect(await troupe.run('r').result()).toMatchObject({
      state: 'done',
      tasks: [{ agent: 'poet', attempts: 2 }],
    });
  });

  test.each([
    {
      agent: 'poett',
      says: 'Expected the decision about task "a" to name a registered agent, got "poett". Did you mean "poet"? Known: writer, poet.',
    },
    {
      agent: undefined,
      says: 'Expected the decision about task "a" to name a registered agent, got "". Known: writer, poet.',
    },
  ])('reassigned to $agent: refused', async ({ agent, says }) => {
    const troupe = await escalated(['poet']);
    const decision = troupe.task('r', 'a').decide('reassign', agent === undefined ? {} : { agent });
    await expect(decision).rejects.toThrow(ValidationError);
    await expect(decision).rejects.toThrow(says);
    expect((await troupe.task('r', 'a').status()).state).toBe('escalated');
  });

  test('reassigned behind our back to nobody, it says so instead of trying again', async () => {
    const troupe = await escalated();
    const order = { type: 'task.decide', decision: 'reassign', agent: 'ghost', by: 'x' } as const;
    await troupe.request('task/r/a', order);
    await reaches(troupe, 'run/r', 'running');
    await reaches(troupe, 'run/r', 'blocked');
    expect(await troupe.task('r', 'a').status()).toMatchObject({
      state: 'escalated',
      agent: 'ghost',
      reason: 'There is no agent "ghost". Reassign the task to one that is registered.',
    });
    expect(await troupe.task('r', 'a').decide('reassign', { agent: 'writer' })).toBe('ready');
  });

  test.each<[string, (t: ReturnType<Troupe['task']>) => Promise<unknown>, string]>([
    [
      'approve',
      (t) => t.decide('approve'),
      'There is nothing to approve: its last attempt handed nothing in.',
    ],
    [
      'answer',
      (t) => t.answer('q', 1),
      'The task is escalated: "task.answer" is not possible now.',
    ],
    ['pause', (t) => t.pause(), 'The task is escalated: "task.pause" is not possible now.'],
    ['resume', (t) => t.resume(), 'The task is escalated: "task.resume" is not possible now.'],
  ])('%s is refused where it makes no sense', async (_, order, says) => {
    const troupe = await escalated();
    const refused = order(troupe.task('r', 'a'));
    await expect(refused).rejects.toThrow(ConflictError);
    await expect(refused).rejects.toMatchObject({ code: 'conflict', message: says });
  });

  test('pause, resume, block, unblock, cancel', async () => {
    const troupe = await escalated();
    const a = troupe.task('r', 'a');
    expect(await a.decide('block', { guidance: 'Out of scope.' })).toBe('blocked');
    expect(await a.status()).toMatchObject({ state: 'blocked', reason: 'Out of scope.' });
    expect(await a.unblock({ delayMs: 3_600_000, by: 'ada' })).toBe('retrying');
    expect(await a.pause('ada')).toBe('paused');
    expect((await troupe.run('r').result()).state).toBe('blocked');
    expect(await a.cancel('Not needed.')).toBe('cancelling');
    await reaches(troupe, 'run/r', 'done');
    expect(await a.status()).toMatchObject({ state: 'cancelled', reason: 'Not needed.' });
    await expect(a.resume()).rejects.toThrow(ConflictError);
    expect(await a.cancel('Again.')).toBe('cancelled');
  });

  test('a task that is done refuses everything', async () => {
    const troupe = await memoryDisk().open();
    cast(troupe);
    const run = await troupe.start({ id: 'r', tasks: [task('a')] });
    await run.result();
    await expect(run.task('a').cancel('Late.')).rejects.toThrow(ConflictError);
    await expect(run.task('a').cancel('Late.')).rejects.toThrow('task/r/a has ended.');
  });

  test('a staged task waits until it is enabled', async () => {
    const troupe = await memoryDisk().open();
    cast(troupe);
    const run = await troupe.start({ id: 'r', tasks: [task('a', { staged: true })] });
    expect(states(await run.result())).toEqual({ a: 'staged' });
    await run.task('a').enable();
    await reaches(troupe, 'run/r', 'done');
  });

  test('what needs approval waits for it, and is then accepted with the approval as evidence', async () => {
    const troupe = await memoryDisk().open();
    troupe.agent('writer', () => undefined);
    troupe.gatekeeper('editor', () => ({ needsApproval: ['It deletes data.'] }));
    const run = await troupe.start({ id: 'r', tasks: [task('a')] });
    expect(await run.result()).toMatchObject({
      tasks: [{ state: 'awaitingApproval', reason: 'Approval is needed: It deletes data.' }],
    });
    expect(await run.task('a').decide('approve', { by: 'ada' })).toBe('verifying');
    await reaches(troupe, 'run/r', 'done');
    const [attempt] = await run.task('a').attempts();
    expect(JSON.parse(attempt?.detailsJson ?? '')).toMatchObject({
      evidence: {
        commands: [{ name: 'approval', excerpt: expect.stringContaining('It deletes data.') }],
      },
    });
  });
});

describe('a run', () => {
  test('paused starts nothing new, and goes on when it is resumed', async () => {
    const troupe = await memoryDisk().open();
    const gate = new Gate();
    troupe.agent('writer', ({ signal, task }) =>
      task.id === 'a' ? gate.wait(signal).then(() => null) : null,
    );
    troupe.gatekeeper('editor', accepts);
    const run = await troupe.start({
      id: 'r',
      tasks: [task('a'), task('b', { dependsOn: ['a'] }), task('c')],
    });
    await gate.reached;
    await run.pause('ada');
    gate.pass();
    await reaches(troupe, 'task/r/b', 'ready');
    expect(await run.status()).toMatchObject({ state: 'paused', reason: 'Paused by ada.' });
    expect((await run.task('c').status()).state).toBe('ready');
    await run.resume();
    expect((await run.result()).state).toBe('done');
  });

  test('paused in the middle of a claim loses none of the tasks that the store has claimed by then', async () => {
    const held = new Gate();
    let calls = 0;
    const store = new (class extends MemoryStore {
      override async claimTasks(claim: Claim): Promise<readonly string[]> {
        const tasks = await super.claimTasks(claim);
        // Claimed, and the run does not know it yet.
        if (++calls === 2) await held.wait();
        return tasks;
      }
    })();
    const troupe = await createTroupe({ store, logger: pino({ level: 'silent' }) });
    onTestFinished(() => troupe.stop());
    cast(troupe);
    troupe.agent('poet', () => null);
    const run = await troupe.start({
      id: 'r',
      tasks: [task('a', { staged: true }), task('b', { agent: 'poet' })],
      concurrency: 1,
    });
    await held.reached;
    await run.pause();
    await reaches(troupe, 'run/r', 'paused');
    // The claim made again finds something for its first agent, and no room any more for what it had claimed before.
    await run.task('a').enable();
    await reaches(troupe, 'task/r/a', 'ready');
    await run.resume();
    held.pass();
    expect(states(await run.result())).toEqual({ a: 'done', b: 'done' });
  });

  test('cancelled with tasks in every state: all of them end, and what was under way is called off', async () => {
    const troupe = await memoryDisk().open();
    const called: string[] = [];
    const hang = (signal: AbortSignal, name: string) =>
      new Promise<never>((_, reject) => {
        signal.addEventListener('abort', () => {
          called.push(name);
          reject(signal.reason as Error);
        });
      });
    troupe.agent(
      'writer',
      async ({ task, ask, signal }) => {
        if (task.id === 'asks') return await ask('Well?');
        if (task.id === 'fails' || task.id === 'gives-up') throw new Error('I cannot.');
        if (task.id === 'works') return await hang(signal, 'agent');
        return null;
      },
      { concurrency: 9 },
    );
    troupe.gatekeeper(
      'editor',
      async ({ submission, signal }) => {
        if (submission.id === 'verifies') return await hang(signal, 'gatekeeper');
        if (submission.id === 'approval') return { needsApproval: ['Risky.'] };
        return accepts();
      },
      { concurrency: 9 },
    );
    const run = await troupe.start({
      id: 'r',
      limits: { backoff: { initialMs: 3_600_000 } as never },
      tasks: [
        task('done'),
        task('works'),
        task('verifies'),
        task('asks'),
        task('fails'),
        task('gives-up', { limits: { attempts: 1 } }),
        task('approval'),
        task('staged', { staged: true }),
        task('waits', { dependsOn: ['works'] }),
        task('paused', { dependsOn: ['asks'] }),
      ],
    });
    const until: Record<string, string> = {
      done: 'done',
      works: 'working',
      verifies: 'verifying',
      asks: 'awaitingInput',
      fails: 'retrying',
      'gives-up': 'escalated',
      approval: 'awaitingApproval',
      staged: 'staged',
      waits: 'waiting',
    };
    for (const [id, state] of Object.entries(until)) await reaches(troupe, `task/r/${id}`, state);
    await run.task('paused').pause();
    await run.cancel('The plan has changed.', 'ada');
    const result = await run.result();
    expect(result).toMatchObject({ state: 'cancelled', reason: 'The plan has changed.' });
    expect(states(result)).toEqual({
      ...Object.fromEntries(Object.keys(until).map((id) => [id, 'cancelled'])),
      paused: 'cancelled',
      done: 'done',
    });
    expect(called.sort()).toEqual(['agent', 'gatekeeper']);
    expect(troupe.host.load).toMatchObject({ effects: 0, requests: 0 });
  });

  test('of which so many tasks report at once that a bounded mailbox would lose some still ends', async () => {
    const troupe = await memoryDisk().open();
    cast(troupe);
    const tasks = Array.from({ length: 6_000 }, (_, i) => task(`t${i}`, { staged: true }));
    const run = await troupe.start({ id: 'r', tasks });
    const lost: unknown[] = [];
    troupe.on('mailboxFull', (fact) => lost.push(fact));
    await run.cancel('Too many.');
    await reaches(troupe, 'run/r', 'cancelled');
    expect(await run.status()).toMatchObject({ state: 'cancelled', counts: { cancelled: 6_000 } });
    expect(lost).toEqual([]);
  });

  test('never gives an agent more than it does at once', async () => {
    const troupe = await memoryDisk().open();
    let now = 0;
    const most = { writer: 0, poet: 0 };
    const count = (name: 'writer' | 'poet') => async () => {
      most[name] = Math.max(most[name], ++now);
      await new Promise<void>((resolve) => setImmediate(resolve));
      now--;
      return null;
    };
    troupe.agent('writer', count('writer'), { concurrency: 3 });
    troupe.gatekeeper('editor', accepts);
    const working = new Set<string>();
    let mostOfRun = 0;
    troupe.on('turn', ({ address, state }) => {
      if (!address.startsWith('task/r/')) return;
      if (state === 'preparing' || state === 'working') working.add(address);
      else working.delete(address);
      mostOfRun = Math.max(mostOfRun, working.size);
    });
    // Two runs share the agent; each would give it all it can do.
    const runs = await Promise.all(
      ['r', 's'].map((id) =>
        troupe.start({ id, tasks: Array.from({ length: 20 }, (_, i) => task(`t${i}`)) }),
      ),
    );
    for (const run of runs) expect((await run.result()).state).toBe('done');
    expect([most.writer, mostOfRun]).toEqual([3, 3]);
  });

  test('has no more tasks in flight than it was told', async () => {
    const troupe = await memoryDisk().open();
    cast(troupe);
    troupe.agent('poet', () => null, { concurrency: 5 });
    const inFlight = new Set<string>();
    let most = 0;
    troupe.on('turn', ({ address, state }) => {
      if (!address.startsWith('task/')) return;
      if (['preparing', 'working', 'verifying'].includes(String(state))) inFlight.add(address);
      else inFlight.delete(address);
      most = Math.max(most, inFlight.size);
    });
    const tasks = Array.from({ length: 30 }, (_, i) =>
      task(`t${i}`, { agent: i % 2 ? 'writer' : 'poet' }),
    );
    await (await troupe.start({ id: 'r', tasks, concurrency: 2 })).result();
    expect(most).toBe(2);
  });
});

describe('trying again', () => {
  test('a gatekeeper that cannot judge uses up no attempt, and nothing is worked on again', async () => {
    const troupe = await memoryDisk().open();
    let drafts = 0;
    const read: JsonValue[] = [];
    troupe.agent('writer', () => ++drafts);
    troupe.gatekeeper('editor', ({ submission }) => {
      read.push(submission.result);
      if (read.length < 3) throw new Error('The library is closed.');
      return accepts();
    });
    const run = await troupe.start({
      id: 'r',
      tasks: [task('a')],
      limits: { ...fast, attempts: 1 },
    });
    expect(states(await run.result())).toEqual({ a: 'done' });
    expect((await run.task('a').attempts()).map(({ outcome }) => outcome)).toEqual(['accepted']);
    expect([drafts, read]).toEqual([1, [1, 1, 1]]);
  });

  test('while what was handed in waits to be verified again, its agent has room for another task', async () => {
    const clock = new SimulatedClock();
    const troupe = await memoryDisk().open({ clock });
    const drafted: string[] = [];
    troupe.agent('writer', ({ task }) => {
      drafted.push(task.id);
      return null;
    });
    let closed = true;
    troupe.gatekeeper('editor', ({ submission }) => {
      if (closed && submission.id === 'a') throw new Error('The library is closed.');
      return accepts();
    });
    const hour = { initialMs: 3_600_000, jitter: 0, maxMs: 3_600_000 };
    const run = await troupe.start({
      id: 'r',
      tasks: [task('a'), task('b')],
      concurrency: 1,
      limits: { infrastructureBackoff: hour },
    });
    await reaches(troupe, 'task/r/b', 'done');
    const a = await troupe.host.inspect('task/r/a' as Address);
    expect(a?.snapshot.value).toEqual({ retrying: 'verifyAgain' });
    expect((await run.status()).counts).toMatchObject({ done: 1, delayed: 1 });
    closed = false;
    const result = run.result();
    await advance(clock, 3_600_000);
    expect(states(await result)).toEqual({ a: 'done', b: 'done' });
    expect(drafted).toEqual(['a', 'b']);
  });

  test('what is accepted without evidence is not accepted', async () => {
    const troupe = await memoryDisk().open();
    troupe.agent('writer', () => null);
    troupe.gatekeeper('editor', () => ({ accepted: true, evidence: [] }));
    const run = await troupe.start({
      id: 'r',
      tasks: [task('a')],
      limits: { ...fast, infrastructureAttempts: 2 },
    });
    expect(await run.result()).toMatchObject({
      state: 'blocked',
      tasks: [
        {
          state: 'escalated',
          reason: expect.stringContaining('accepted task "a" without evidence'),
        },
      ],
    });
  });

  test('the next attempt knows what the last one was told', async () => {
    const troupe = await memoryDisk().open();
    const told: (readonly string[])[] = [];
    troupe.agent('writer', ({ task }) => {
      told.push([...task.feedback, ...task.guidance]);
      return task.attempt;
    });
    troupe.gatekeeper('editor', ({ submission }) =>
      submission.attempt < 3
        ? { accepted: false, reason: 'No.', feedback: [`Mend ${submission.attempt}.`] }
        : accepts(),
    );
    await (await troupe.start({ id: 'r', tasks: [task('a')], limits: fast })).result();
    expect(told).toEqual([[], ['Mend 1.'], ['Mend 1.', 'Mend 2.']]);
  });

  test('an agent that fails ten times is left alone by its breaker for a while', async () => {
    const clock = new SimulatedClock();
    const troupe = await memoryDisk().open({ clock });
    let asked = 0;
    let broken = true;
    troupe.agent(
      'writer',
      () => {
        asked++;
        if (broken) throw new TroupeError('unavailable', 'The model is away.');
        return null;
      },
      { concurrency: 20 },
    );
    troupe.gatekeeper('editor', accepts, { concurrency: 20 });
    const limits = {
      infrastructureBackoff: { initialMs: 1_000, factor: 1, maxMs: 1_000, jitter: 0 },
      infrastructureAttempts: 50,
    };
    const run = await troupe.start({
      id: 'r',
      limits,
      tasks: Array.from({ length: 12 }, (_, i) => task(`t${i}`)),
    });
    await reaches(troupe, 'breaker/agent/writer', 'open');
    const before = asked;
    await advance(clock, 4_000);
    expect(asked).toBe(before);
    expect((await run.task('t0').status()).reason).toContain('its circuit breaker is open');
    broken = false;
    const result = run.result();
    await advance(clock, 10_000);
    expect((await result).state).toBe('done');
    expect((await troupe.host.inspect('breaker/agent/writer'))?.snapshot.value).toBe('closed');
  });
});

describe('the overseer', () => {
  test('a policy decides at once; what it leaves undecided waits for a person', async () => {
    const troupe = await memoryDisk().open();
    const cases: string[] = [];
    troupe.agent('writer', ({ task }) => {
      if (task.guidance.length === 0) throw new Error('I need help.');
      return null;
    });
    troupe.gatekeeper('editor', accepts);
    troupe.overseer(({ id, reason, state }) => {
      cases.push(`${id} ${state}: ${reason.slice(0, 26)}`);
      return id === 'a' ? { decide: 'retry', guidance: 'Try again.' } : undefined;
    });
    expect(() => troupe.overseer(() => undefined)).toThrow('There is an overseer already.');
    const run = await troupe.start({
      id: 'r',
      tasks: [task('a'), task('b')],
      limits: { ...fast, attempts: 1 },
    });
    const result = await run.result();
    expect(states(result)).toEqual({ a: 'done', b: 'escalated' });
    expect(result.tasks[1]?.reason).not.toContain('policy');
    expect(cases).toEqual([
      'a escalated: All 1 attempts are used up',
      'b escalated: All 1 attempts are used up',
    ]);
  });

  test.each([
    {
      title: 'reassigns to nobody',
      decide: { decide: 'reassign', agent: 'writr' },
      says: 'got "writr". Did you mean "writer"? Known: writer.',
    },
    {
      title: 'reassigns without an agent',
      decide: { decide: 'reassign' },
      says: 'to reassign to a registered agent, got undefined.',
    },
    {
      title: 'says something else',
      decide: { decide: 'perhaps' },
      says: 'to decide one of retry, approve, reassign, block, cancel, got "perhaps"',
    },
    {
      title: 'gives advice that is no text',
      decide: { decide: 'retry', guidance: { hint: 'Use a lock.' } },
      says: 'to give its guidance as a text, got {"hint":"Use a lock."}.',
    },
  ])('a policy that $title leaves it to a person, and says so', async ({ decide, says }) => {
    const troupe = await memoryDisk().open();
    troupe.agent('writer', () => {
      throw new Error('I cannot.');
    });
    troupe.gatekeeper('editor', accepts);
    troupe.overseer(() => decide as never);
    const run = await troupe.start({
      id: 'r',
      tasks: [task('a')],
      limits: { ...fast, attempts: 1 },
    });
    const [a] = (await run.result()).tasks;
    expect(a).toMatchObject({ state: 'escalated', reason: expect.stringContaining(says) });
  });

  test('a policy that always tries again is stopped', async () => {
    const troupe = await memoryDisk().open();
    let attempts = 0;
    troupe.agent('writer', () => {
      attempts++;
      throw new Error('I cannot.');
    });
    troupe.gatekeeper('editor', accepts);
    troupe.overseer(() => ({ decide: 'retry' }));
    const run = await troupe.start({
      id: 'r',
      tasks: [task('a')],
      limits: { ...fast, attempts: 2 },
    });
    expect(await run.result()).toMatchObject({
      tasks: [
        {
          state: 'escalated',
          reason: expect.stringContaining('has decided 3 times; now a person has to'),
        },
      ],
    });
    expect(attempts).toBe(8);
  });
});

describe('time', () => {
  test('an agent that shows no sign of life is aborted', async () => {
    const clock = new SimulatedClock();
    const troupe = await memoryDisk().open({ clock, heartbeatMs: 10_000 });
    const gate = new Gate();
    troupe.agent('writer', ({ task, signal }) =>
      task.attempt === 1 ? gate.wait(signal).then(() => null) : null,
    );
    troupe.gatekeeper('editor', accepts);
    const run = await troupe.start({ id: 'r', tasks: [task('a')], limits: fast });
    const result = run.result();
    await gate.reached;
    await advance(clock, 9_999);
    expect((await run.task('a').status()).state).toBe('working');
    await advance(clock, 100);
    expect(states(await result)).toEqual({ a: 'done' });
    expect(await run.task('a').attempts()).toMatchObject([
      { outcome: 'failed', reason: expect.stringContaining('showed no sign of life for 10000 ms') },
      { outcome: 'accepted' },
    ]);
  });

  test.each([
    { title: 'heeds its signal', hears: true, comesBack: false },
    { title: 'does not', hears: false, comesBack: false },
    { title: 'comes with its result too late', hears: false, comesBack: true },
  ])(
    'an agent that is not done in time and $title is not waited for',
    async ({ hears, comesBack }) => {
      const clock = new SimulatedClock();
      const troupe = await memoryDisk().open({ clock, heartbeatMs: 0 });
      const gate = new Gate();
      troupe.agent(
        'writer',
        ({ task, signal }) =>
          task.attempt === 1 ? gate.wait(hears ? signal : undefined).then(() => null) : null,
        { timeoutMs: 1_000 },
      );
      troupe.gatekeeper('editor', accepts);
      const run = await troupe.start({ id: 'r', tasks: [task('a')], limits: fast });
      const result = run.result();
      await gate.reached;
      await advance(clock, 1_500);
      if (comesBack) gate.pass();
      await advance(clock, 10_000);
      expect(states(await result)).toEqual({ a: 'done' });
      expect((await run.task('a').attempts())[0]).toMatchObject({
        outcome: 'failed',
        reason: 'The agent was not done after 1000 ms.',
      });
    },
  );

  test('waiting for an agent that is not registered yet is no standstill', async () => {
    const disk = memoryDisk();
    const first = await disk.open();
    const gate = new Gate();
    first.agent('writer', ({ signal }) => gate.wait(signal).then(() => null));
    first.gatekeeper('editor', accepts);
    await first.start({ id: 'r', tasks: [task('a')] });
    await gate.reached;
    await first.stop();

    const clock = new SimulatedClock();
    const second = await disk.open({ clock });
    const said: unknown[] = [];
    second.on('progress', ({ value }) => said.push(value));
    const result = second.run('r').result();
    await advance(clock, 3_600_000);
    expect(said).toContainEqual({ waitsFor: 'agent', name: 'writer' });
    cast(second);
    expect(await result).toMatchObject({ state: 'done', tasks: [{ attempts: 1 }] });
  });

  test('a question that nobody answers in time takes its default', async () => {
    const clock = new SimulatedClock();
    const troupe = await memoryDisk().open({ clock });
    const results: JsonValue[] = [];
    troupe.agent('writer', ({ ask }) =>
      ask({ id: 'q', text: 'Which?', timeoutMs: 60_000, default: 'none' }),
    );
    troupe.gatekeeper('editor', ({ submission }) => {
      results.push(submission.result);
      return accepts();
    });
    const run = await troupe.start({ id: 'r', tasks: [task('a')] });
    await reaches(troupe, 'task/r/a', 'awaitingInput');
    await advance(clock, 60_000);
    await reaches(troupe, 'run/r', 'done');
    expect(results).toEqual(['none']);
    expect((await run.status()).state).toBe('done');
  });
});

describe('orders to a run', () => {
  test.each([
    ['pause', (troupe: Troupe) => troupe.run('nihgtly').pause()],
    ['resume', (troupe: Troupe) => troupe.run('nihgtly').resume()],
    ['cancel', (troupe: Troupe) => troupe.run('nihgtly').cancel('enough')],
    ['unblockAll', (troupe: Troupe) => troupe.run('nihgtly').unblockAll()],
  ])('%s: one that is not there is said, and the order is not taken for given', async (_, give) => {
    const troupe = await memoryDisk().open();
    await expect(give(troupe)).rejects.toThrow(new NotFoundError('There is no run "nihgtly".'));
  });

  test('two at once who unblock everything: both are told what they have unblocked', async () => {
    const troupe = await memoryDisk().open();
    troupe.agent('writer', () => {
      throw new Error('no');
    });
    troupe.gatekeeper('editor', accepts);
    const limits = { ...fast, attempts: 1 };
    const run = await troupe.start({ id: 'r', limits, tasks: [task('a'), task('b')] });
    await run.result();
    const [first, second] = await Promise.all([run.unblockAll(), run.unblockAll()]);
    expect([...first, ...second].toSorted()).toEqual(['a', 'b']);
  });
});

describe('what agents do wrong', () => {
  test.each<{ title: string; engine: Parameters<Troupe['agent']>[1]; says: string }>([
    {
      title: 'returns a Date',
      engine: () => ({ when: new Date(0) }) as never,
      says: 'Expected the agent to return plain JSON, but what it returned.when is a Date.',
    },
    {
      title: 'asks without a text',
      engine: ({ ask }) => ask({ id: 'q', text: '' }),
      says: 'Expected a question such as',
    },
    {
      title: 'asks under an id that no answer could be filed under',
      engine: ({ ask }) => ask({ id: '__proto__', text: 'Well?' }),
      says: 'id: is reserved',
    },
    {
      title: 'asks with a time that is none',
      engine: ({ ask }) => ask({ id: 'q', text: 'Well?', timeoutMs: Number.NaN }),
      says: 'timeoutMs:',
    },
    {
      title: 'asks with no choice',
      engine: ({ ask }) => ask({ id: 'q', text: 'Well?', choices: [] }),
      says: 'choices:',
    },
    {
      title: 'throws something that is no error',
      engine: () => {
        throw 'up';
      },
      says: 'up',
    },
  ])('$title: its attempt has failed, and says why', async ({ engine, says }) => {
    const troupe = await memoryDisk().open();
    troupe.agent('writer', engine);
    troupe.gatekeeper('editor', accepts);
    const run = await troupe.start({
      id: 'r',
      tasks: [task('a')],
      limits: { ...fast, attempts: 1 },
    });
    expect(await run.result()).toMatchObject({
      tasks: [{ state: 'escalated', cause: 'work', reason: expect.stringContaining(says) }],
    });
  });
});

describe('registering', () => {
  test.each<{
    title: string;
    does: (troupe: Troupe) => void;
    error: new (message: string) => Error;
    says: string;
  }>([
    {
      title: 'an agent twice',
      does: (t) => {
        t.agent('a', () => null);
        t.agent('a', () => null);
      },
      error: ConfigurationError,
      says: 'The agent "a" is registered already.',
    },
    {
      title: 'a name that is none',
      does: (t) => t.agent('a b', () => null),
      error: ValidationError,
      says: 'Expected the name of an agent to be 1 to 64 letters',
    },
    {
      title: 'no places',
      does: (t) => t.agent('a', () => null, { concurrency: 0 }),
      error: ConfigurationError,
      says: 'Expected concurrency of agent "a" to be a positive integer, got 0.',
    },
    {
      title: 'no time',
      does: (t) => t.agent('a', () => null, { timeoutMs: Number.NaN }),
      error: ConfigurationError,
      says: 'Expected timeoutMs of agent "a" to be a positive integer, got NaN.',
    },
    {
      title: 'an option of an agent that nobody knows',
      does: (t) => t.agent('a', () => null, { concurency: 4 } as never),
      error: ConfigurationError,
      says: 'agent "a": there is no setting "concurency". Did you mean "concurrency"?',
    },
    {
      title: 'an agent that is no function',
      does: (t) => t.agent('a', undefined as never),
      error: ConfigurationError,
      says: 'Expected agent "a" to be a function that does tasks, got undefined.',
    },
    {
      title: 'a gatekeeper that is no function',
      does: (t) => t.gatekeeper('g', {} as never),
      error: ConfigurationError,
      says: 'Expected gatekeeper "g" to be a function that verifies, got object.',
    },
    {
      title: 'a gatekeeper without places',
      does: (t) => t.gatekeeper('g', accepts, { concurrency: 1.5 }),
      error: ConfigurationError,
      says: 'Expected concurrency of gatekeeper "g" to be a positive integer, got 1.5.',
    },
    {
      title: 'a command without a project',
      does: (t) => t.commandAgent('c', { run: 'true', projectDirectory: '.' }),
      error: ConfigurationError,
      says: 'The agent "c" works on files: open Troupe with a project',
    },
  ])('$title is refused', async ({ does, error, says }) => {
    const troupe = await memoryDisk().open();
    expect(() => does(troupe)).toThrow(error);
    const again = await memoryDisk().open();
    expect(() => does(again)).toThrow(says);
  });

  test.each([
    {
      options: undefined,
      says: 'Expected the store to be the path of a file, ":memory:" or a store',
    },
    { options: { store: 42 }, says: 'or a store of your own, got number.' },
    {
      options: { durability: 'FULL' },
      says: 'Expected durability to be full or normal, got "FULL".',
    },
    { options: { durabilty: 'full' }, says: 'no setting "durabilty". Did you mean "durability"?' },
    { options: { takeOver: 'no' }, says: 'Expected takeOver to be true or false, got "no".' },
    { options: { appSchema: 'DROP' }, says: 'Expected appSchema to be a list of statements' },
    { options: { appSchema: ['', null] }, says: 'statement 2 of appSchema to be a text, got null' },
    {
      options: { project: { directory: '.', verify: [], verifyAtonce: 2 } },
      says: 'project: there is no setting "verifyAtonce". Did you mean "verifyAtOnce"?',
    },
  ])('a troupe with $options is refused, and no file is made', async ({ options, says }) => {
    const store = path.join(path.dirname(sqliteDisk().path), 'refused.db');
    const opening = createTroupe((options && { store, ...options }) as never);
    await expect(opening).rejects.toThrow(ConfigurationError);
    await expect(opening).rejects.toThrow(says);
    if (options?.project === undefined) expect(existsSync(store)).toBe(false);
  });

  test.each([
    {
      thrown: new TroupeError('rate_limited', 'later', { retryAfterMs: Number.NaN }),
      says: 'later',
    },
    { thrown: Object.assign(new Error('x'), { message: undefined }), says: 'Error' },
  ])('whatever an agent throws ends its attempt: $says', async ({ thrown, says }) => {
    const troupe = await memoryDisk().open();
    troupe.agent('writer', () => {
      throw thrown;
    });
    troupe.gatekeeper('editor', accepts);
    const limits = { ...fast, attempts: 1, infrastructureAttempts: 1 };
    const run = await troupe.start({ id: 'r', limits, tasks: [task('a')] });
    await reaches(troupe, 'task/r/a', 'escalated');
    expect((await run.result()).tasks[0]?.reason).toMatch(new RegExp(`Last: ${says}$`));
  });

  test('an agent that lives on has the places it is given now', async () => {
    const disk = memoryDisk();
    const first = await disk.open();
    first.agent('writer', () => null, { concurrency: 1 });
    await first.host.flush();
    await first.stop();
    const second = await disk.open();
    cast(second);
    await second.start({ id: 'r', tasks: [task('a')] });
    expect((await second.host.inspect('agent/writer'))?.snapshot.context).toMatchObject({
      pool: { concurrency: 1 },
    });
    await second.stop();
    const third = await disk.open();
    third.agent('writer', () => null, { concurrency: 4 });
    third.gatekeeper('editor', accepts);
    await third.start({ id: 's', tasks: [task('a')] });
    await reaches(third, 'run/s', 'done');
    expect((await third.host.inspect('agent/writer'))?.snapshot.context).toMatchObject({
      pool: { concurrency: 4 },
    });
  });
});

describe('machines of your own', () => {
  type Add = Received<{ readonly type: 'inbox.add'; readonly text: string }>;
  type Count = Received<{ readonly type: 'inbox.count' }>;
  const inbox = setup({
    types: { context: {} as { items: readonly string[] }, events: {} as Add | Count },
    actions: durableActions,
  }).createMachine({
    id: 'inbox',
    context: { items: [] },
    on: {
      'inbox.add': {
        actions: assign(({ context, event }) => ({ items: [...context.items, event.text] })),
      },
      'inbox.count': {
        actions: {
          type: 'reply',
          params: ({ context, event }) => ({
            to: replyTo(event.meta),
            type: event.type,
            reply: context.items.length,
          }),
        },
      },
    },
  });

  test.each(DISKS)('are durable, on $disk', async ({ make }) => {
    const disk = make();
    const first = await disk.open();
    const ada = await first.spawn(inbox, { id: 'inbox/ada' });
    await first.send(ada, { type: 'inbox.add', text: 'hello' });
    await first.stop();
    const second = await disk.open();
    second.register(inbox);
    await second.send('inbox/ada', { type: 'inbox.add', text: 'again' });
    expect(await second.request('inbox/ada', { type: 'inbox.count' }, { timeoutMs: 5_000 })).toBe(
      2,
    );
    // Made twice, it is what it was.
    await second.spawn(inbox, { id: 'inbox/ada' });
    expect(await second.request('inbox/ada', { type: 'inbox.count' })).toBe(2);
  });

  test.each([
    {
      title: 'without an id',
      machine: setup({}).createMachine({}),
      id: 'thing/a' as const,
      says: 'Expected the machine to have an id',
    },
    {
      title: 'named as one of ours',
      machine: setup({}).createMachine({ id: 'task' }),
      id: 'thing/a' as const,
      says: 'The machine id "task" is Troupe\'s own',
    },
    {
      title: 'at an address of ours',
      machine: setup({}).createMachine({ id: 'thing' }),
      id: 'agent/a' as const,
      says: 'The address "agent/a" is of a kind that is Troupe\'s own',
    },
  ])('$title: refused', async ({ machine, id, says }) => {
    const troupe = await memoryDisk().open();
    await expect(troupe.spawn(machine, { id })).rejects.toThrow(ConfigurationError);
    await expect(troupe.spawn(machine, { id })).rejects.toThrow(says);
  });
});

// Calls from JavaScript, where no compiler has looked.
// biome-ignore lint/suspicious/noExplicitAny: that is what they are
test.each<{ call: string; does: (troupe: any) => unknown; says: RegExp }>([
  {
    call: 'spawn without options',
    does: (t) => t.spawn({ id: 'm' }),
    says: /^Expected spawn to be given .*, got undefined/,
  },
  {
    call: 'spawn with null',
    does: (t) => t.spawn({ id: 'm' }, null),
    says: /^Expected spawn to be given .*, got null/,
  },
  {
    call: 'spawn without an id',
    does: (t) => t.spawn({ id: 'm' }, {}),
    says: /^Expected an address .*, got undefined/,
  },
  {
    call: 'backup without a file',
    does: (t) => t.backup(),
    says: /^Expected backup to be given the file to write, got undefined/,
  },
  { call: 'backup to a number', does: (t) => t.backup(5), says: /^Expected backup .*, got number/ },
  {
    call: 'fork without options',
    does: (t) => t.fork('inbox/a', 1),
    says: /^Expected an address .*, got undefined/,
  },
  {
    call: 'fork with null',
    does: (t) => t.fork('inbox/a', 1, null),
    says: /^fork: expected an object with settings, got null/,
  },
  {
    call: 'request with null',
    does: (t) => t.request('inbox/a', { type: 'x' }, null),
    says: /^Expected the options of request to be an object, or left out, got null/,
  },
  {
    call: 'send with null',
    does: (t) => t.send('inbox/a', { type: 'x' }, null),
    says: /^Expected the options of send/,
  },
  {
    call: 'fork of a run without options',
    does: (t) => t.run('r').fork('start'),
    says: /^Expected the id of the fork to be .*, got undefined/,
  },
  {
    call: 'unblockAll with null',
    does: (t) => t.run('r').unblockAll(null),
    says: /^unblockAll: expected an object with settings, got null/,
  },
  {
    call: 'skipTo with null',
    does: (t) => t.run('r').skipTo('a', null),
    says: /^skipTo: expected an object/,
  },
  {
    call: 'decide with null',
    does: (t) => t.task('r', 'a').decide('retry', null),
    says: /^decide: expected an object/,
  },
  {
    call: 'decide with a misspelt option',
    does: (t) => t.task('r', 'a').decide('retry', { guidence: 'x' }),
    says: /^decide: there is no setting "guidence".*guidance/,
  },
  {
    call: 'unblock with null',
    does: (t) => t.task('r', 'a').unblock(null),
    says: /^unblock: expected an object/,
  },
])('$call is refused in words', async ({ does, says }) => {
  const troupe = await createTroupe({
    store: new MemoryStore(),
    logger: pino({ level: 'silent' }),
  });
  onTestFinished(() => troupe.stop());
  cast(troupe);
  const run = await troupe.start({ id: 'r', tasks: [task('a')] });
  await run.result();
  const error = await (async () => does(troupe))().catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(TroupeError);
  expect((error as Error).message).toMatch(says);
});

test('two on one file: the second is told who has it', async () => {
  const disk = sqliteDisk();
  const first = await disk.open();
  cast(first);
  await expect(disk.open()).rejects.toThrow(LockConflictError);
  await expect(disk.open()).rejects.toThrow(String(process.pid));
  expect((await (await first.start({ id: 'r', tasks: [task('a')] })).result()).state).toBe('done');
  await first.stop();
  await (await disk.open()).stop();
});
