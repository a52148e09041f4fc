import fc from 'fast-check';
import { pino } from 'pino';
import { describe, expect, test } from 'vitest';
import { MemoryData } from '../../src/store/memory/memory-data.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { createTroupe, type Troupe } from '../../src/troupe.ts';
import { accepts, advance, Gate, memoryDisk, reaches, SimulatedClock } from './open-troupe.ts';

const silent = pino({ level: 'silent' });

async function startOne(troupe: Troupe, agent = 'writer') {
  troupe.gatekeeper('editor', accepts);
  return await troupe.start({ id: 'r', tasks: [{ id: 'a', agent, gatekeeper: 'editor' }] });
}

describe('a task that is cancelled', () => {
  test('is taken back when what works for it has ended, not before', async () => {
    const troupe = await memoryDisk().open();
    const working = new Gate();
    const putAway = new Gate();
    const order: string[] = [];
    troupe.agent(
      'writer',
      async ({ step, signal }) => {
        await step('mail', () => 'sent');
        await working.wait(signal).catch(() => undefined);
        // It heeds its signal, and puts away what it holds.
        await putAway.wait();
        order.push('ended');
      },
      { compensate: { mail: ({ result }) => void order.push(`take back ${String(result)}`) } },
    );
    const run = await startOne(troupe);
    await working.reached;
    await run.cancel('Not needed.');
    await putAway.reached;
    expect(order).toEqual([]);
    putAway.pass();
    const { tasks } = await run.result();
    expect(order).toEqual(['ended', 'take back sent']);
    expect(tasks[0]?.cancellation).toEqual({
      stopped: ['agent/writer'],
      notStopped: [],
      compensated: ['1/mail'],
      failed: [],
    });
    expect(tasks[0]?.reason).toBe('Not needed. Taken back: 1/mail.');
    expect(await run.cancellation()).toEqual({
      cancelled: ['a'],
      alreadyDone: [],
      notStopped: [],
      notTakenBack: [],
    });
  });

  test('does not wait for ever for one that is deaf: it is named, and the rest is taken back', async () => {
    const clock = new SimulatedClock();
    const troupe = await memoryDisk().open({ clock });
    const working = new Gate();
    const taken: string[] = [];
    troupe.agent(
      'writer',
      async ({ step }) => {
        await step('mail', () => 'sent');
        await working.wait();
      },
      { compensate: { mail: () => void taken.push('mail') } },
    );
    const run = await startOne(troupe);
    await working.reached;
    await run.cancel('Not needed.');
    const ended = run.result();
    await advance(clock, 5_900);
    expect(taken).toEqual([]);
    await advance(clock, 200);
    const { tasks } = await ended;
    expect(taken).toEqual(['mail']);
    expect(tasks[0]?.cancellation).toMatchObject({ stopped: [], notStopped: ['agent/writer'] });
    expect(tasks[0]?.reason).toContain('Not stopped in time: agent/writer.');
    expect((await run.cancellation()).notStopped).toEqual([{ task: 'a', who: 'agent/writer' }]);
    working.pass();
  });

  test('calls off its gatekeeper too', async () => {
    const troupe = await memoryDisk().open();
    const judging = new Gate();
    troupe.agent('writer', () => 'a draft');
    troupe.gatekeeper('slow', async ({ signal }) => {
      await judging.wait(signal);
      return accepts();
    });
    const run = await troupe.start({
      id: 'r',
      tasks: [{ id: 'a', agent: 'writer', gatekeeper: 'slow' }],
    });
    await judging.reached;
    await run.cancel('Not needed.');
    const { tasks } = await run.result();
    expect(tasks[0]?.cancellation).toMatchObject({ stopped: ['gatekeeper/slow'], notStopped: [] });
  });

  test('one compensation that hangs is given up after 2 minutes, and does not take the others with it', async () => {
    const clock = new SimulatedClock();
    const troupe = await memoryDisk().open({ clock });
    const working = new Gate();
    const hanging = new Gate();
    const taken: string[] = [];
    troupe.agent(
      'writer',
      async ({ step, signal }) => {
        await step('first', () => 1);
        await step('second', () => 2);
        await working.wait(signal);
      },
      { compensate: { first: () => void taken.push('first'), second: () => hanging.wait() } },
    );
    const run = await startOne(troupe);
    await working.reached;
    await run.cancel('Not needed.');
    const ended = run.result();
    await advance(clock, 0);
    await hanging.reached;
    await advance(clock, 130_000);
    const { tasks } = await ended;
    expect(taken).toEqual(['first']);
    expect(tasks[0]?.cancellation).toMatchObject({
      compensated: ['1/first'],
      failed: [{ step: '1/second', reason: 'It was not done after 120000 ms.' }],
    });
  });

  test('is taken back attempt by attempt by those who did them', async () => {
    const troupe = await memoryDisk().open();
    const working = new Gate();
    const taken: string[] = [];
    const takes = (who: string) => ({
      compensate: {
        mail: ({ attempt }: { attempt: number }) => void taken.push(`${who} ${attempt}`),
      },
    });
    troupe.agent(
      'first',
      async ({ step }) => {
        await step('mail', () => 1);
        throw new Error('I cannot.');
      },
      takes('first'),
    );
    troupe.agent(
      'second',
      async ({ step, signal }) => {
        await step('mail', () => 2);
        await working.wait(signal);
      },
      takes('second'),
    );
    troupe.gatekeeper('editor', accepts);
    const run = await troupe.start({
      id: 'r',
      limits: { attempts: 1 },
      tasks: [{ id: 'a', agent: 'first', gatekeeper: 'editor' }],
    });
    await reaches(troupe, 'task/r/a', 'escalated');
    await run.result();
    await run.task('a').decide('reassign', { agent: 'second' });
    await working.reached;
    await run.cancel('Not needed.');
    await run.result();
    expect(taken).toEqual(['second 2', 'first 1']);
  });

  test('leaves alone what was done before', async () => {
    const troupe = await memoryDisk().open();
    const working = new Gate();
    const taken: string[] = [];
    troupe.agent(
      'writer',
      async ({ task, step, signal }) => {
        await step('mail', () => task.id);
        if (task.id === 'b') await working.wait(signal);
      },
      { compensate: { mail: ({ task }) => void taken.push(task) } },
    );
    troupe.gatekeeper('editor', accepts);
    const run = await troupe.start({
      id: 'r',
      tasks: [
        { id: 'a', agent: 'writer', gatekeeper: 'editor' },
        { id: 'b', agent: 'writer', gatekeeper: 'editor', dependsOn: ['a'] },
        { id: 'c', agent: 'writer', gatekeeper: 'editor', dependsOn: ['b'] },
      ],
    });
    await working.reached;
    await run.cancel('Not needed.');
    const { state } = await run.result();
    expect(state).toBe('cancelled');
    expect(taken).toEqual(['b']);
    expect(await run.cancellation()).toMatchObject({ cancelled: ['b', 'c'], alreadyDone: ['a'] });
  });
});

test('whatever fails, and however often the process ends in between: newest first, each once', async () => {
  const life = fc.record({
    steps: fc.integer({ min: 1, max: 5 }),
    failing: fc.uniqueArray(fc.integer({ min: 1, max: 5 }), { maxLength: 3 }),
    /** Where it ends: at this step the process crashes, or is stopped in order. */
    ends: fc.array(fc.record({ at: fc.integer({ min: 1, max: 5 }), crash: fc.boolean() }), {
      maxLength: 3,
    }),
  });
  await fc.assert(
    fc.asyncProperty(life, async ({ steps, failing, ends }) => {
      const data = new MemoryData();
      const began: number[] = [];
      const finished: number[] = [];
      const left = [...ends];
      let at: Gate | undefined;
      const open = async (): Promise<Troupe> => {
        const troupe = await createTroupe({ logger: silent, store: new MemoryStore(data) });
        const working = new Gate();
        const end = left[0];
        const gate = new Gate();
        at = end === undefined || end.at > steps ? undefined : gate;
        troupe.agent(
          'writer',
          async ({ step, signal }) => {
            for (let n = 1; n <= steps; n++) await step('part', { key: n }, () => n);
            await working.wait(signal);
          },
          {
            compensate: {
              part: async ({ result, signal }) => {
                const n = Number(result);
                began.push(n);
                if (n === end?.at) await gate.wait(signal);
                finished.push(n);
                if (failing.includes(n)) throw new Error('no');
              },
            },
          },
        );
        troupe.gatekeeper('editor', accepts);
        const isNew = (await troupe.runs()).length === 0;
        if (isNew) {
          const run = await troupe.start({
            id: 'r',
            tasks: [{ id: 'a', agent: 'writer', gatekeeper: 'editor' }],
          });
          await working.reached;
          await run.cancel('Not needed.');
        }
        return troupe;
      };
      let troupe = await open();
      for (;;) {
        const end = left[0];
        // At a step that was taken back before, nobody comes by again.
        if (at === undefined || end === undefined || finished.includes(end.at)) break;
        await at.reached;
        left.shift();
        // A crash: another store on the same data, and this one can write no more.
        if (!end.crash) await troupe.stop();
        const before = troupe;
        troupe = await open();
        if (end.crash) await before.stop().catch(() => undefined);
      }
      at?.pass();
      const { tasks } = await troupe.run('r').result();
      await troupe.stop();
      const newestFirst = Array.from({ length: steps }, (_, n) => steps - n);
      expect(finished).toEqual(newestFirst);
      expect(began).toEqual(began.toSorted((a, b) => b - a));
      expect(tasks[0]?.cancellation).toMatchObject({
        compensated: newestFirst.filter((n) => !failing.includes(n)).map((n) => `1/part[${n}]`),
        failed: newestFirst
          .filter((n) => failing.includes(n))
          .map((n) => ({ step: `1/part[${n}]`, reason: 'no' })),
      });
    }),
    { numRuns: 20 },
  );
});
