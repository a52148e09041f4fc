import { describe, expect, test } from 'vitest';
import { assign, setup } from 'xstate';
import type { ScheduledAction, ScheduleTiming } from '../../src/actors/schedules.ts';
import type { Troupe } from '../../src/troupe.ts';
import { accepts, advance, memoryDisk, SimulatedClock } from './open-troupe.ts';

const MINUTE = 60_000;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const noted = { to: 'diary/a', message: { type: 'diary.note', text: '{{dueAt}}' } } as const;

/** Writes down what it is told. */
const diary = setup({
  types: {} as { context: { notes: string[] }; events: { type: 'diary.note'; text: string } },
}).createMachine({
  id: 'diary',
  context: { notes: [] },
  on: {
    'diary.note': {
      actions: assign({ notes: ({ context, event }) => [...context.notes, event.text] }),
    },
  },
});

/** Processes one after the other on one store and one clock, which begins at midnight UTC. */
class Days {
  readonly clock = new SimulatedClock();
  readonly #disk = memoryDisk();
  troupe: Troupe = undefined as never;
  /** Tasks that do not end until they are let go. */
  readonly held = new Map<string, () => void>();
  holds = false;

  async open(): Promise<Troupe> {
    const { clock } = this;
    this.troupe = await this.#disk.open({ clock, heartbeatMs: 0, retention: false });
    this.troupe.register(diary);
    return this.troupe;
  }

  /** An agent, a gatekeeper and a template of one task. */
  agents(): void {
    this.troupe.agent(
      'writer',
      ({ task, signal }) => {
        if (!this.holds) return null;
        return new Promise<null>((resolve, reject) => {
          if (signal.aborted) reject(signal.reason as Error);
          signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
          this.held.set(task.run, () => resolve(null));
        });
      },
      { timeoutMs: 1_000 * DAY, concurrency: 10 },
    );
    this.troupe.gatekeeper('editor', accepts);
    this.troupe.template('report', {
      params: { day: {} },
      workflow: {
        ...{ agent: 'writer', gatekeeper: 'editor' },
        phases: [{ id: 'write', tasks: [{ id: 'write', input: { day: '{{day}}' } }] }],
      },
    });
  }

  async down(ms: number): Promise<void> {
    await this.troupe.stop();
    this.clock.jump(this.clock.now() + ms);
    await this.open();
  }

  async notes(): Promise<readonly string[]> {
    await advance(this.clock, 1);
    const known = await this.troupe.host.inspect('diary/a');
    const { notes } = (known as NonNullable<typeof known>).snapshot.context as { notes: string[] };
    return notes.map((note) => note.slice(0, 16));
  }

  async schedule(timing: ScheduleTiming, action: ScheduledAction = { send: noted }) {
    await this.troupe.spawn(diary, { id: 'diary/a' });
    return await this.troupe.schedule('s', timing, action);
  }
}

async function begun(): Promise<Days> {
  const days = new Days();
  await days.open();
  // The simulated clock begins at some time: midnight is easier to read.
  days.clock.jump(Math.ceil(days.clock.now() / DAY) * DAY);
  return days;
}

describe('messages', () => {
  test('are sent when they are due, day after day, with the due time where it was asked for', async () => {
    const days = await begun();
    await days.schedule({ cron: '0 3 * * *' });
    await advance(days.clock, 3 * HOUR - 2);
    expect(await days.notes()).toEqual([]);
    await advance(days.clock, 2 * DAY + 1);
    const [first = '', second, third, ...more] = await days.notes();
    expect(more).toEqual([]);
    expect(first).toMatch(/T03:00$/);
    expect(new Set([first, second, third]).size).toBe(3);
  });

  test('an interval keeps its beat, through restarts and being configured again', async () => {
    const days = await begun();
    await days.schedule({ everyMs: 10 * MINUTE });
    await advance(days.clock, 25 * MINUTE);
    await days.down(MINUTE);
    await days.schedule({ everyMs: 10 * MINUTE });
    await advance(days.clock, 4 * MINUTE);
    expect((await days.notes()).map((note) => note.slice(-5))).toEqual(['00:10', '00:20', '00:30']);
    // Another action, the same beat.
    await advance(days.clock, 3 * MINUTE);
    await days.schedule(
      { everyMs: 10 * MINUTE },
      {
        send: { to: 'diary/a', message: { type: 'diary.note', text: 'new {{dueAt}}' } },
      },
    );
    await advance(days.clock, 7 * MINUTE);
    expect((await days.notes()).at(-1)).toMatch(/^new /);
    expect(await days.notes()).toHaveLength(4);
  });

  test.each([
    ['one', {}, 1],
    ['all', {}, 5],
    ['all', { missedAtMost: 2 }, 2],
    ['skip', {}, 0],
  ] as const)('missed: %s %j after five days of rest', async (missed, more, made) => {
    const days = await begun();
    await days.schedule({ cron: '0 3 * * *', missed, ...more });
    await advance(days.clock, 4 * HOUR);
    expect(await days.notes()).toHaveLength(1);
    await days.down(5 * DAY);
    const notes = await days.notes();
    expect(notes).toHaveLength(1 + made);
    expect(new Set(notes).size).toBe(notes.length);
    expect(notes).toEqual([...notes].sort());
    const { skipped, fired, nextAt } = await days.troupe.schedules.get('s').status();
    expect(fired).toBe(1 + made);
    expect(skipped === null).toBe(made === 5);
    // The day after it goes on as always.
    expect(nextAt).toBe(Math.floor(days.clock.now() / DAY) * DAY + DAY + 3 * HOUR);
    await advance(days.clock, DAY);
    expect(await days.notes()).toHaveLength(2 + made);
  });

  test('skip: what is only a little late is not missed', async () => {
    const days = await begun();
    await days.schedule({ cron: '0 3 * * *', missed: 'skip', lateAfterMs: MINUTE });
    await advance(days.clock, 3 * HOUR - 1);
    await days.down(MINUTE);
    expect(await days.notes()).toHaveLength(1);
  });

  test('paused it is silent, also across a restart; what passed meanwhile is not made up for', async () => {
    const days = await begun();
    const schedule = await days.schedule({ everyMs: HOUR, missed: 'all' });
    await advance(days.clock, HOUR);
    await schedule.pause();
    await expect(schedule.pause()).rejects.toThrow('is paused: "schedule.pause" is not possible');
    expect(await schedule.status()).toMatchObject({ state: 'paused', nextAt: null });
    await days.down(5 * HOUR);
    // Declared again at the start of the program: still paused.
    const again = await days.schedule({ everyMs: HOUR, missed: 'all' });
    await advance(days.clock, HOUR);
    expect(await days.notes()).toHaveLength(1);
    expect(await again.trigger()).toMatch(/^s-.*-m1$/);
    expect(await days.notes()).toHaveLength(2);
    await again.resume();
    await advance(days.clock, HOUR);
    expect(await days.notes()).toHaveLength(3);
  });

  test('deleted it is gone, and can be made again', async () => {
    const days = await begun();
    const schedule = await days.schedule({ everyMs: HOUR });
    await schedule.delete();
    await advance(days.clock, 3 * HOUR);
    expect(await days.troupe.schedules.list()).toEqual([]);
    await expect(schedule.status()).rejects.toThrow('There is no schedule "s".');
    await expect(schedule.pause()).rejects.toThrow('There is no schedule "s".');
    await expect(days.troupe.schedules.get('none').trigger()).rejects.toThrow('no schedule "none"');
    expect(await days.notes()).toEqual([]);
    await days.schedule({ everyMs: HOUR });
    await advance(days.clock, HOUR);
    expect(await days.notes()).toHaveLength(1);
  });

  test('a clock that is set back fires nothing twice', async () => {
    const days = await begun();
    const schedule = await days.schedule({ cron: '0 * * * *' });
    await advance(days.clock, HOUR);
    await schedule.pause();
    await days.troupe.stop();
    days.clock.jump(days.clock.now() - 30 * MINUTE);
    await days.open();
    await days.troupe.schedules.get('s').resume();
    await advance(days.clock, 45 * MINUTE);
    expect(await days.notes()).toHaveLength(1);
    await advance(days.clock, HOUR);
    expect(await days.notes()).toHaveLength(2);
  });
});

describe('runs', () => {
  const start = { start: { template: 'report', params: { day: '{{dueAt}}' } } } as const;

  async function running(more: Partial<ScheduleTiming> = {}, holds = false): Promise<Days> {
    const days = await begun();
    days.holds = holds;
    days.agents();
    await days.schedule({ everyMs: HOUR, ...more } as ScheduleTiming, start);
    return days;
  }
  const runs = async ({ troupe, clock }: Days) => {
    await advance(clock, 0);
    return (await troupe.runs()).map(({ id, state }) => `${id.slice(-8)} ${state}`).sort();
  };

  test('each due time starts a run of the template, under an id of its own', async () => {
    const days = await running();
    await advance(days.clock, 2 * HOUR);
    expect(await runs(days)).toEqual(['T010000Z done', 'T020000Z done']);
    const [first] = await days.troupe.runs();
    const task = await days.troupe.host.inspect(`task/${first?.id}/write`);
    expect(task?.snapshot.context).toMatchObject({
      spec: { input: { day: expect.stringMatching(/T01:00:00.000Z$/) } },
    });
    expect(await days.troupe.schedules.list()).toMatchObject([
      { id: 's', fired: 2, running: [], last: { key: expect.stringMatching(/^s-/) } },
    ]);
  });

  test('after a restart a run that is due waits for what it needs to be registered', async () => {
    const days = await running();
    await days.down(HOUR);
    await advance(days.clock, MINUTE);
    expect(await runs(days)).toEqual([]);
    days.agents();
    expect(await runs(days)).toEqual(['T010000Z done']);
  });

  test('and for the agents that stand in for those it needs', async () => {
    const days = await running();
    await days.down(HOUR);
    const { troupe } = days;
    troupe.agent('other', () => null, { fallback: 'spare' });
    days.agents();
    await advance(days.clock, MINUTE);
    expect((await troupe.schedules.get('s').status()).failure).toBeNull();
    troupe.agent('spare', () => null);
    expect(await runs(days)).toEqual(['T010000Z done']);
  });

  test.each([
    ['skip', ['T010000Z running'], 0],
    ['allow', ['T010000Z running', 'T020000Z running', 'T030000Z running'], 0],
    ['queue', ['T010000Z running'], 2],
  ] as const)('overlap: %s', async (overlap, expected, queued) => {
    const days = await running({ overlap }, true);
    await advance(days.clock, 3 * HOUR);
    expect(await runs(days)).toEqual(expected);
    const status = await days.troupe.schedules.get('s').status();
    expect(status.queued).toBe(queued);
    if (overlap !== 'skip') return;
    expect(status.skipped?.reason).toContain('had not ended (overlap: skip)');
    await expect(days.troupe.schedules.get('s').trigger()).rejects.toThrow('has not ended');
  });

  test('queued ones begin one after the other, across a restart', async () => {
    const days = await running({ overlap: 'queue', queueAtMost: 1 }, true);
    await advance(days.clock, 3 * HOUR);
    expect((await days.troupe.schedules.get('s').status()).skipped?.reason).toContain(
      'wait already',
    );
    // By hand it is told so, and not given the id of a run that never begins.
    await expect(days.troupe.schedules.get('s').trigger()).rejects.toThrow(
      /^1 wait already for "s-\w+T010000Z" to end \(overlap: queue\)/,
    );
    await days.down(MINUTE);
    days.agents();
    await advance(days.clock, MINUTE);
    for (const letGo of days.held.values()) letGo();
    days.held.clear();
    expect(await runs(days)).toEqual(['T010000Z done', 'T020000Z running']);
    for (const letGo of days.held.values()) letGo();
    expect(await runs(days)).toEqual(['T010000Z done', 'T020000Z done']);
    expect((await days.troupe.schedules.get('s').status()).running).toEqual([]);
  });

  test('what waits in the queue of a schedule that now sends messages is not waited for', async () => {
    const days = await running({ overlap: 'queue' }, true);
    await advance(days.clock, 3 * HOUR);
    const schedule = await days.schedule({ everyMs: HOUR });
    expect(await schedule.status()).toMatchObject({ running: [expect.anything()], queued: 0 });
  });

  test('what waits because somebody fired it stays, when a paused schedule is set anew', async () => {
    const days = await running({ overlap: 'queue' }, true);
    await advance(days.clock, 2 * HOUR);
    const schedule = days.troupe.schedules.get('s');
    await schedule.pause();
    expect(await schedule.status()).toMatchObject({ state: 'paused', queued: 0 });
    const key = await schedule.trigger();
    await days.troupe.schedule('s', { everyMs: DAY, overlap: 'queue' }, start);
    expect(await schedule.status()).toMatchObject({ state: 'paused', queued: 1 });
    for (const letGo of days.held.values()) letGo();
    await advance(days.clock, 0);
    expect(await schedule.status()).toMatchObject({ queued: 0, running: [key] });
  });

  test('one that is rolled back counts as running, or as ended, as it is then', async () => {
    const days = await running({ overlap: 'skip' });
    await advance(days.clock, HOUR);
    const schedule = days.troupe.schedules.get('s');
    const [run] = await days.troupe.runs();
    const id = (run as NonNullable<typeof run>).id;
    const handle = days.troupe.run(id);
    expect((await schedule.status()).running).toEqual([]);

    days.holds = true;
    await handle.rollback('start');
    await advance(days.clock, 0);
    expect((await schedule.status()).running).toEqual([id]);
    await advance(days.clock, HOUR);
    expect(await schedule.status()).toMatchObject({
      fired: 1,
      skipped: { reason: expect.any(String) },
    });

    const ended = (await handle.cuts()).find(({ kind }) => kind === 'milestone');
    await handle.rollback(ended?.id as string);
    await advance(days.clock, 0);
    expect(await runs(days)).toEqual(['T010000Z done']);
    expect((await schedule.status()).running).toEqual([]);
  });

  test('by hand: refused when the queue is full, for nothing would come of it', async () => {
    const days = await running({ overlap: 'queue', queueAtMost: 1 }, true);
    await advance(days.clock, 2 * HOUR);
    const schedule = days.troupe.schedules.get('s');
    expect(await schedule.status()).toMatchObject({ queued: 1, fired: 1 });
    await expect(schedule.trigger()).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringMatching(
        /^1 wait already for "s-.*T010000Z" to end \(overlap: queue\)/,
      ),
    });
    // A message waits for no run, not even for one that the schedule started when it was another.
    await days.schedule({ everyMs: HOUR });
    await schedule.trigger();
    expect(await schedule.status()).toMatchObject({ fired: 2, running: [expect.anything()] });
  });

  test('a run that cannot be started is told, and the next one is', async () => {
    const days = await begun();
    days.agents();
    let broken = true;
    days.troupe.template('odd', {
      workflow: () => ({
        ...{ agent: 'writer', gatekeeper: 'editor' },
        phases: broken ? [] : [{ id: 'a', tasks: [{ id: 'a' }] }],
      }),
    });
    const schedule = await days.schedule({ everyMs: HOUR }, { start: { template: 'odd' } });
    await advance(days.clock, HOUR);
    const { failure, running: left } = await schedule.status();
    expect(left).toEqual([]);
    expect(failure?.reason).toContain('to have 1 to 100 phases, got 0');
    broken = false;
    await advance(days.clock, HOUR);
    expect(await runs(days)).toEqual(['T020000Z done']);
  });
});

describe('what is refused', () => {
  const send = { send: noted };
  test.each([
    [{}, send, 'to have either cron or everyMs, got neither.'],
    [{ cron: '0 3 * * *', everyMs: 1_000 }, send, 'got both.'],
    [{ everyMs: 10 }, send, 'Expected everyMs of schedule "s" to be a whole number from 1000'],
    [{ everyMs: 1_000, timeZone: 'UTC' }, send, 'Expected no timeZone with everyMs'],
    [{ cron: '0 3 * *' }, send, 'five fields'],
    [{ everyMs: 1_000, mised: 'all' }, send, 'no setting "mised". Did you mean "missed"?'],
    [
      { everyMs: 1_000, missed: 'al' },
      send,
      'one of skip, one, all, got "al". Did you mean "all"?',
    ],
    [{ everyMs: 1_000 }, {}, 'either to send a message or to start a run, got neither.'],
    [{ everyMs: 1_000 }, { send: null }, 'to be an object with to, message, priority, got null.'],
    [
      { everyMs: 1_000 },
      { send: undefined, start: { template: 'fature' } },
      'Did you mean "feature"?',
    ],
    [
      { everyMs: 1_000 },
      { send: { to: 'diary/{{firing}}', message: { type: 'x' } } },
      'without placeholders, got "diary/{{firing}}"',
    ],
    [
      { everyMs: 1_000 },
      { send: { to: 'nowhere', message: { type: 'x' } } },
      'Expected an address',
    ],
    [
      { everyMs: 1_000 },
      { send: { to: 'run/r', message: { type: 'run.puase', by: 'x' } } },
      'does not accept "run.puase"',
    ],
    [{ everyMs: 1_000 }, { start: { template: 'fature' } }, 'Did you mean "feature"?'],
    [{ everyMs: 1_000 }, { start: { template: 'feature', id: 'x' } }, 'without an id'],
    [
      { everyMs: 1_000 },
      { send: { to: 'diary/a', message: { type: 'x', at: '{{due}}' } } },
      'got {{due}}. Did you mean "dueAt"?',
    ],
  ] as [ScheduleTiming, ScheduledAction, string][])('%j %j', async (timing, action, message) => {
    const troupe = await memoryDisk().open();
    await expect(troupe.schedule('s', timing, action)).rejects.toThrow(message);
    expect(await troupe.schedules.list()).toEqual([]);
  });
});
