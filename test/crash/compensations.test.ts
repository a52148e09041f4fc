import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import type { TaskStatus } from '../../src/troupe.ts';
import type { CompensationOrders } from './compensations.child.ts';
import { Life, scratch } from './life.ts';

/*
 * A cancelled task takes its finished steps back while its process is killed with SIGKILL, in the middle of one and right
 * before it is stored that one was done. Two witnesses: what the compensations have written themselves, and the store.
 */

const STEPS = 7;
const FAILING = 4;

test('killed in the middle of compensations: newest first, each once, and one that fails stops none', {
  timeout: 120_000,
}, async () => {
  const directory = scratch();
  const orders: CompensationOrders = {
    store: path.join(directory, 'state.db'),
    history: path.join(directory, 'history.txt'),
    takenBack: path.join(directory, 'taken-back'),
    steps: STEPS,
    failing: FAILING,
  };
  mkdirSync(orders.takenBack);
  const lives: Partial<CompensationOrders>[] = [
    { dieIn: 6 },
    { faults: 'step.before-save:kill:2' },
    { faults: 'store.before-commit:kill:1' },
    { dieIn: 2 },
  ];
  for (const life of lives) {
    const process = new Life('compensations', { ...orders, ...life });
    expect(await process.death(), `${JSON.stringify(life)}: ${process.stderr}`).toBe('SIGKILL');
  }
  const last = new Life('compensations', { ...orders });
  const said = await last.line('done ');
  await last.finished();
  const task = JSON.parse(said.slice('done '.length)) as TaskStatus;
  const newestFirst = Array.from({ length: STEPS }, (_, n) => STEPS - n);

  // What the store says: each once, in order; what failed, with the reason.
  expect(task.state).toBe('cancelled');
  expect(task.cancellation).toEqual({
    stopped: [],
    notStopped: [],
    compensated: newestFirst.filter((n) => n !== FAILING).map((n) => `1/part[${n}]`),
    failed: [{ step: `1/part[${FAILING}]`, reason: 'It cannot be taken back.' }],
  });
  // What they have done: one file for each, under the key that was the same in every life.
  const files = readdirSync(orders.takenBack);
  const contents = files.map((file) =>
    Number(readFileSync(path.join(orders.takenBack, file), 'utf8')),
  );
  expect(contents.sort()).toEqual(newestFirst.filter((n) => n !== FAILING).sort());
  // One whose end was stored was not called again: at most one call more for each life that died.
  const history = readFileSync(orders.history, 'utf8').trim().split('\n');
  const began = history
    .filter((line) => line.startsWith('began'))
    .map((line) => Number(line.slice(6)));
  expect(began.length).toBeGreaterThan(STEPS);
  expect(began.length).toBeLessThanOrEqual(STEPS + lives.length);
  // Never an older one before a newer one was done, however often it was begun.
  expect(began).toEqual(began.toSorted((a, b) => b - a));
});

test('one that the process dies of every time is given up, and the others are taken back', {
  timeout: 120_000,
}, async () => {
  const directory = scratch();
  const orders: CompensationOrders = {
    store: path.join(directory, 'state.db'),
    history: path.join(directory, 'history.txt'),
    takenBack: path.join(directory, 'taken-back'),
    steps: 3,
    failing: 0,
  };
  mkdirSync(orders.takenBack);
  for (let kill = 0; kill < 4; kill++) {
    const process = new Life('compensations', { ...orders, dieIn: 2 });
    expect(await process.death(), process.stderr).toBe('SIGKILL');
  }
  const last = new Life('compensations', { ...orders, dieIn: 2 });
  const task = JSON.parse((await last.line('done ')).slice('done '.length)) as TaskStatus;
  await last.finished();
  expect(task.cancellation).toEqual({
    stopped: [],
    notStopped: [],
    compensated: ['1/part[3]', '1/part[1]'],
    failed: [
      { step: '1/part[2]', reason: 'The process died at least 3 times while it was taken back.' },
    ],
  });
});
