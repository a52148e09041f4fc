import path from 'node:path';
import { expect, test } from 'vitest';
import { Life, randomFrom, scratch } from './life.ts';
import type { ScheduleOrders } from './schedules.child.ts';

/*
 * Schedules in a process that is killed with SIGKILL between a due time and what it leads to, again and again, with some
 * seconds of rest between its lives. At the end each due time has led to one message and to one run.
 */

const BEGIN = Date.UTC(2026, 10, 30);
const KILLS = 12;
const REST_S = 3;
const POINTS = [
  'store.before-begin',
  'store.before-commit',
  'store.after-commit',
  'host.before-commit',
  'host.after-commit',
  'effect.after-end',
] as const;

test('killed between due and sent: each due time fires exactly once', async () => {
  const store = path.join(scratch(), 'state.db');
  const live = (now: number, faults?: string): Life => {
    const orders: ScheduleOrders = { store, now, ...(faults === undefined ? {} : { faults }) };
    return new Life('schedules', { ...orders });
  };
  const made = live(BEGIN);
  await made.line('done ');
  await made.finished();
  const random = randomFrom(7);
  let now = BEGIN;
  let killed = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    now += REST_S * 1_000;
    const faults = `${POINTS[kill % POINTS.length]}:kill:${1 + random(12)}`;
    const life = live(now, faults);
    if ((await life.death()) === 'SIGKILL') killed++;
  }
  // Some lives come to their end before the point is reached so often.
  expect(killed).toBeGreaterThan(KILLS / 2);
  const last = live(now);
  const { notes, runs } = JSON.parse((await last.line('done ')).slice('done '.length)) as {
    notes: string[];
    runs: string[];
  };
  await last.finished();
  const dues = Array.from({ length: KILLS * REST_S }, (_, n) => BEGIN + (n + 1) * 1_000);
  expect(notes).toEqual(dues.map((due) => new Date(due).toISOString()));
  const ids = dues.map((due) => `work-${new Date(due).toISOString().replace(/[-:]|\.000/g, '')}`);
  expect(runs.toSorted()).toEqual(ids);
}, 300_000);
