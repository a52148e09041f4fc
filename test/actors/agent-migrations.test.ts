import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import { MemoryData } from '../../src/store/memory/memory-data.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { createTroupe } from '../../src/troupe.ts';
import { actor, batch, checkpoint } from '../store/rows.ts';
import { accepts } from './open-troupe.ts';

/** An agent as version 1 has stored it: before there were limits by key and by time. */
const VERSION_1 = {
  status: 'active',
  value: 'idle',
  historyValue: {},
  children: {},
  context: {
    name: 'w',
    pool: { concurrency: 1, limit: 1000, next: 5, running: [], queue: [] },
    breaker: 'closed',
    processed: 4,
    failed: 1,
    lastError: 'once',
  },
};

test('an agent that version 1 has stored goes on, and has the limits of today', async () => {
  const data = new MemoryData();
  const address = 'agent/w';
  await new MemoryStore(data).commit(
    batch({
      actors: [actor({ address, machine: 'agent', version: 1, seq: 8 })],
      checkpoints: [checkpoint({ address, seq: 8, snapshotJson: JSON.stringify(VERSION_1) })],
    }),
  );
  const troupe = await createTroupe({
    store: new MemoryStore(data),
    logger: pino({ level: 'silent' }),
  });
  onTestFinished(() => troupe.stop());
  expect(await troupe.check()).toMatchObject({ problems: [] });
  expect(await troupe.queryActor(address, 'work')).toMatchObject({ processed: 4, limits: null });
  troupe.agent('w', async () => null, { perKey: { key: 'input.customer', limit: 1 } });
  troupe.gatekeeper('nod', accepts);
  const run = await troupe.start({ id: 'r', tasks: [{ id: 't', agent: 'w', gatekeeper: 'nod' }] });
  expect((await run.result()).state).toBe('done');
  expect(await troupe.queryActor(address, 'work')).toMatchObject({
    processed: 5,
    limits: { perKey: { key: 'input.customer', limit: 1 } },
  });
});
