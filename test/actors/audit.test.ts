import { describe, expect, test } from 'vitest';
import { setup } from 'xstate';
import { type AuditEntry, AuditReader } from '../../src/actors/audit.ts';
import { anyAddress, durableActions } from '../../src/protocol/commands.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import type { Troupe } from '../../src/troupe.ts';
import { actor, batch, checkpoint, deadLetter } from '../store/rows.ts';
import { accepts, DISKS, Gate, memoryDisk, reaches } from './open-troupe.ts';

async function collect(entries: AsyncIterable<AuditEntry>): Promise<AuditEntry[]> {
  const found: AuditEntry[] = [];
  for await (const entry of entries) found.push(entry);
  return found;
}

const brief = ({ kind, type, id, by }: AuditEntry): string =>
  [kind, type ?? '', id.replace(/!.*/, '!…'), by ?? ''].join(' ').trim();

/** Whether every entry that names a turn as its cause comes after that turn. */
function causesComeFirst(entries: readonly AuditEntry[]): boolean {
  const all = new Set(entries.map(({ id }) => id));
  const seen = new Set<string>();
  return entries.every(({ id, cause }) => {
    seen.add(id);
    return cause === null || !all.has(cause) || seen.has(cause);
  });
}

/** A run whose one task is done, after its gatekeeper has refused it once. */
async function doneRun(troupe: Troupe): Promise<void> {
  troupe.agent('writer', ({ task }) => ({ text: 'a draft', password: 'hunter2', n: task.attempt }));
  let seen = 0;
  troupe.gatekeeper('editor', () =>
    seen++ === 0 ? { accepted: false, reason: 'Too dry.' } : accepts(),
  );
  const run = await troupe.start({
    id: 'r',
    limits: { backoff: { initialMs: 1, maxMs: 1 } },
    tasks: [
      {
        id: 'draft',
        agent: 'writer',
        gatekeeper: 'editor',
        input: 'my key is sk-ABCDEFGHIJKLMNOPQRSTUVWX',
      },
    ],
  });
  expect((await run.result()).state).toBe('done');
}

describe.each(DISKS)('on $disk', ({ make }) => {
  test('tells every turn of a run in order, without secrets, and the same after a restart', async () => {
    const disk = make();
    const troupe = await disk.open();
    await doneRun(troupe);
    const entries = await collect(troupe.audit());
    expect(causesComeFirst(entries)).toBe(true);
    const task = entries.filter(({ address }) => address === 'task/r/draft');
    expect(task.map(({ id }) => id)).toEqual(task.map((_, n) => `task/r/draft#${n}`));
    expect(task.map(({ kind, type }) => type ?? kind)).toEqual([
      'born',
      'task.claim',
      'xstate.done.actor.prepare',
      'agent.work:ok',
      'gatekeeper.verify:ok',
      'xstate.after.backoff.task.retrying',
      'task.claim',
      'xstate.done.actor.prepare',
      'agent.work:ok',
      'gatekeeper.verify:ok',
    ]);
    const [answer] = entries.filter(({ type }) => type === 'agent.work:ok');
    expect(answer).toMatchObject({
      from: 'agent/writer',
      payload: { reply: { result: { text: 'a draft', password: '[redacted]', n: 1 } } },
    });
    expect(JSON.stringify(entries)).not.toMatch(/hunter2|sk-ABCDEF/);
    await troupe.stop();
    const later = await disk.open();
    const again = await collect(later.audit({ to: (entries.at(-1)?.at ?? 0) + 1 }));
    expect(again.slice(0, entries.length)).toEqual(entries);
  });

  test('a correlation ties a request, its attempts, the answer and what they caused', async () => {
    const troupe = await make().open();
    await doneRun(troupe);
    const all = await collect(troupe.audit());
    const asked = all.find(({ type }) => type === 'agent.work');
    expect(asked).toMatchObject({ address: 'agent/writer', cause: 'task/r/draft#2' });
    const correlation = asked?.correlation ?? '';
    const followed = (await collect(troupe.audit({ correlation }))).map(brief);
    // The work, its end, the answer, the verdict, the second attempt with all that belongs to it, and the end of the run.
    expect(followed).toEqual(
      expect.arrayContaining([
        brief(asked as AuditEntry),
        'turn agent.work:ok task/r/draft#3',
        'turn gatekeeper.verify:ok task/r/draft#4',
        'turn xstate.after.backoff.task.retrying task/r/draft#5',
        'turn agent.work:ok task/r/draft#8',
        'turn gatekeeper.verify:ok task/r/draft#9',
      ]),
    );
    expect(followed[0]).toBe(brief(asked as AuditEntry));
    expect(followed).not.toContain('turn task.claim task/r/draft#1');
    // By a turn: what it handled is not in it, what it led to is.
    const byTurn = await collect(
      troupe.audit({ correlation: 'task/r/draft#8', address: 'task/r/draft' }),
    );
    expect(byTurn.map(({ id }) => id)).toEqual(['task/r/draft#8', 'task/r/draft#9']);
  });

  test('orders are there with who, what and when, those that were refused too', async () => {
    const troupe = await make().open();
    const gate = new Gate();
    troupe.agent('writer', ({ signal }) => gate.wait(signal).then(() => null));
    troupe.gatekeeper('editor', accepts);
    await troupe.start({ id: 'r', tasks: [{ id: 'a', agent: 'writer', gatekeeper: 'editor' }] });
    await gate.reached;
    const task = troupe.task('r', 'a');
    await expect(
      task.decide('approve', { by: 'eve', guidance: 'token=abcdef123456' }),
    ).rejects.toThrow();
    await task.pause('ada');
    await task.cancel('Not needed.', 'bob');
    await reaches(troupe, 'task/r/a', 'cancelled');
    const orders = (await collect(troupe.audit())).filter(
      ({ kind, address }) => (kind === 'order' || kind === 'answer') && address === 'task/r/a',
    );
    expect(orders.map(({ kind, type, by }) => [kind, type, by])).toEqual([
      ['order', 'task.decide', 'eve'],
      ['answer', 'task.decide', null],
      ['order', 'task.pause', 'ada'],
      ['answer', 'task.pause', null],
      ['order', 'task.cancel', 'bob'],
      ['answer', 'task.cancel', null],
    ]);
    expect(orders[0]?.payload).toMatchObject({ decision: 'approve', guidance: 'token=[redacted]' });
    expect(orders[1]?.payload).toMatchObject({ ok: false, failure: { code: 'conflict' } });
    expect(orders[5]?.payload).toEqual({ ok: true, reply: { state: 'cancelling' } });
    // What the order has led to is tied to it.
    const led = await collect(troupe.audit({ correlation: orders[4]?.id ?? '' }));
    expect(led.map(brief)).toEqual(
      expect.arrayContaining([brief(orders[4] as AuditEntry), brief(orders[5] as AuditEntry)]),
    );
    expect(led.filter(({ kind }) => kind === 'turn').map(({ type }) => type)).toEqual(
      expect.arrayContaining(['task.cancel', 'request.cancelled', 'xstate.done.actor.release']),
    );
    gate.pass();
  });
});

test('follows what happens until it is told to stop, and ends with the runtime', async () => {
  const disk = memoryDisk();
  const troupe = await disk.open();
  const until = new AbortController();
  const seen: string[] = [];
  const following = (async () => {
    for await (const entry of troupe.audit({ follow: true, signal: until.signal })) {
      seen.push(brief(entry));
      if (entry.type === 'run.taskChanged' && entry.payload !== null) {
        const { to } = entry.payload as { readonly to?: string };
        if (to === 'done') until.abort();
      }
    }
  })();
  const toTheEnd = collect(troupe.audit({ follow: true, address: 'task/r/draft' }));
  await doneRun(troupe);
  await following;
  expect(seen).toContain('turn gatekeeper.verify:ok task/r/draft#9');
  expect(new Set(seen).size).toBe(seen.length);
  await troupe.stop();
  expect((await toTheEnd).map(({ id }) => id)).toEqual(
    Array.from({ length: 10 }, (_, n) => `task/r/draft#${n}`),
  );
});

test('a request that times out is tied to its end', async () => {
  const deaf = setup({}).createMachine({ id: 'deaf' });
  const asker = setup({ actions: durableActions }).createMachine({
    id: 'asker',
    initial: 'asking',
    states: {
      asking: {
        entry: {
          type: 'request',
          params: {
            to: anyAddress('deaf/one'),
            id: 'q',
            timeoutMs: 1,
            message: { type: 'deaf.ask' },
          },
        },
        on: { 'deaf.ask:err': 'done' },
      },
      done: {},
    },
  });
  const troupe = await memoryDisk().open();
  await troupe.spawn(deaf, { id: 'deaf/one' });
  await troupe.spawn(asker, { id: 'asker/one' });
  await reaches(troupe, 'asker/one', 'done');
  const tied = await collect(troupe.audit({ correlation: 'asker/one!#0.0!q' }));
  expect(tied.map(brief)).toEqual(['turn deaf.ask:err asker/one#1']);
});

describe('what is asked for', () => {
  test.each([
    { query: { form: 3 }, says: 'Expected the audit stream to be asked by from, to, address' },
    { query: { from: 'now' }, says: 'Expected "from" of the audit stream to be milliseconds' },
    { query: { from: 5, to: 5 }, says: 'to be after "from", got 5 to 5' },
    { query: { to: 5, follow: true }, says: 'leave out one' },
    { query: { address: 'nobody' }, says: 'Expected an address such as' },
    { query: { correlation: '' }, says: 'Expected the correlation to be a turn' },
  ])('$query is refused at once', async ({ query, says }) => {
    const troupe = await memoryDisk().open();
    expect(() => troupe.audit(query as never)).toThrow(says);
  });
});

test('a reader goes on when the newest turns were removed and their positions are given again', async () => {
  // A store as SQLite is: the rowids that a removed run had are given to the next turns.
  const turns = [1, 2, 3].map((position) => ({ position, seq: position, at: position }));
  const store = new MemoryStore();
  const listTurns = ({ after }: { after: number }) => {
    const rows = turns
      .filter(({ position }) => position > after)
      .map((turn) => ({
        ...turn,
        address: 'a/b',
        kind: 'auto' as const,
        label: null,
        eventJson: '{"type":"x","meta":{"id":"m","from":"c/d"}}',
        detailsJson: null,
      }));
    const newest = turns.at(-1)?.position ?? 0;
    return Promise.resolve({
      rows,
      upTo: rows.at(-1)?.position ?? Math.min(after, newest),
      isLast: true,
    });
  };
  const reader = new AuditReader({
    listTurns,
    listAudit: (query) => store.listAudit(query),
    listDeadLetters: () => store.listDeadLetters(),
  });
  expect((await collect(reader.read())).map(({ at }) => at)).toEqual([1, 2, 3]);
  turns.splice(1, 2, { position: 2, seq: 4, at: 4 });
  expect((await collect(reader.read())).map(({ at }) => at)).toEqual([4]);
});

test('dead letters are in it once, with what they were', async () => {
  const store = new MemoryStore();
  await store.commit(
    batch({
      actors: [actor()],
      checkpoints: [checkpoint({ at: 5 })],
      deadLetters: [
        deadLetter({
          at: 9,
          messageJson:
            '{"type":"inbox.add","secret":"s3cr3t","meta":{"id":"inbox/bob#3.0","from":"inbox/bob","at":8}}',
        }),
      ],
    }),
  );
  const reader = new AuditReader(store);
  expect(await collect(reader.read())).toMatchObject([
    { kind: 'born', id: 'inbox/ada#0' },
    {
      kind: 'deadLetter',
      cause: 'inbox/bob#3',
      from: 'inbox/bob',
      payload: { reason: 'the guard threw', message: { secret: '[redacted]' } },
    },
  ]);
  expect(await collect(reader.read())).toEqual([]);
});
