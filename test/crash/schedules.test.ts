import path from 'node:path';
import { expect, test } from 'vitest';
import { Life, scratch } from './life.ts';
import type { ScheduleOrders } from './schedules.child.ts';

/*
 * Schedules in a process that is killed with SIGKILL between a due time and what it leads to, again and again, with some
 * seconds of rest between its lives. At the end each due time has led to one message and to one run.
 */

const BEGIN = Date.UTC(2026, 10, 30);
const REST_S = 3;
const POINTS = [
  'store.before-commit:kill:3',
  'store.after-commit:kill:4',
  'host.before-commit:kill:2',
  'host.after-commit:kill:3',
  'effect.after-end:kill:2',
  'store.before-begin:kill:5',
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
  let now = BEGIN;
  for (const [n, faults] of POINTS.entries()) {
    // A start that was under way at four ends of the process in a row is given up, and rightly: three, then a life in peace.
    if (n === 3) await live(now).finished();
    now += REST_S * 1_000;
    const life = live(now, faults);
    expect(await life.death(), `${faults}: ${life.stderr}`).toBe('SIGKILL');
  }
  const last = live(now);
  const { notes, runs } = JSON.parse((await last.line('done ')).slice('done '.length)) as {
    notes: string[];
    runs: string[];
  };
  await last.finished();
  const dues = Array.from({ length: POINTS.length * REST_S }, (_, n) => BEGIN + (n + 1) * 1_000);
  expect(notes).toEqual(dues.map((due) => new Date(due).toISOString()));
  const ids = dues.map((due) => `work-${new Date(due).toISOString().replace(/[-:]|\.000/g, '')}`);
  expect(runs.toSorted()).toEqual(ids);
}, 300_000);
