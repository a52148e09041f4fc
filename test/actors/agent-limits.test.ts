import { expect, test } from 'vitest';
import { accepts, advance, memoryDisk, SimulatedClock } from './open-troupe.ts';

const task = (id: string, customer: string) => ({
  ...{ id, agent: 'w', gatekeeper: 'nod' },
  input: { customer },
});

test('a throttled agent goes on after a restart when it may, not before', async () => {
  const clock = new SimulatedClock();
  const disk = memoryDisk();
  const done: string[] = [];
  const begun = clock.now();
  const open = async () => {
    const troupe = await disk.open({ clock });
    troupe.gatekeeper('nod', accepts, { concurrency: 10 });
    troupe.agent(
      'w',
      async ({ task: { id } }) => {
        done.push(`${id} ${clock.now() - begun}`);
        return null;
      },
      { concurrency: 10, throttle: { limit: 1, periodMs: 60_000, key: 'input.customer' } },
    );
    return troupe;
  };
  const first = await open();
  const tasks = [task('a1', 'a'), task('a2', 'a'), task('a3', 'a'), task('b1', 'b')];
  await first.start({ id: 'r', tasks });
  await advance(clock, 30_000);
  expect(done).toEqual(['a1 0', 'b1 0']);
  await first.stop();
  const second = await open();
  const result = second.run('r').result();
  await advance(clock, 29_000);
  expect(done).toHaveLength(2);
  await advance(clock, 61_000);
  expect(done.slice(2)).toEqual(['a2 60000', 'a3 120000']);
  expect((await result).state).toBe('done');
});

test('of tasks with one key the newest is done when it is quiet; the others are cancelled and say why', async () => {
  const clock = new SimulatedClock();
  const troupe = await memoryDisk().open({ clock });
  troupe.gatekeeper('nod', accepts);
  const done: string[] = [];
  const agent = async ({ task: { id } }: { task: { id: string } }) => {
    done.push(id);
    return null;
  };
  troupe.agent('w', agent, { debounce: { key: 'input.customer', periodMs: 5_000 } });
  const first = await troupe.start({ id: 'first', tasks: [task('a', 'ada')] });
  await advance(clock, 4_000);
  const second = await troupe.start({ id: 'second', tasks: [task('b', 'ada')] });
  await advance(clock, 4_999);
  expect(done).toEqual([]);
  await advance(clock, 1);
  expect(done).toEqual(['b']);
  const results = [await first.result(), await second.result()];
  expect(results.map(({ tasks: [only] }) => [only?.state, only?.reason])).toEqual([
    ['cancelled', expect.stringContaining('Superseded by task/second/b, which came later')],
    ['done', null],
  ]);
});

test('what a rate limit refuses comes again when it may', async () => {
  const clock = new SimulatedClock();
  const troupe = await memoryDisk().open({ clock });
  troupe.gatekeeper('nod', accepts);
  const done: number[] = [];
  const begun = clock.now();
  const agent = async () => {
    done.push(clock.now() - begun);
    return null;
  };
  troupe.agent('w', agent, { rateLimit: { limit: 1, periodMs: 100_000 } });
  const run = await troupe.start({ id: 'r', tasks: [task('a', 'x'), task('b', 'x')] });
  await advance(clock, 99_000);
  const waiting = (await run.tasks()).find(({ state }) => state === 'retrying');
  expect(waiting).toMatchObject({ cause: 'infrastructure', reason: /asked too often/ });
  await advance(clock, 1_000);
  expect(done).toEqual([0, 100_000]);
  expect((await run.result()).state).toBe('done');
});
