import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import type { JsonObject } from '../../src/protocol/json.ts';
import { MemoryData } from '../../src/store/memory/memory-data.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { createTroupe } from '../../src/troupe.ts';
import { stateOf } from '../machines/driven.ts';
import { contextOf, live, rejected, verifying } from '../machines/task-facts.ts';
import { actor, batch, checkpoint } from '../store/rows.ts';

test('a task that version 3 has stored goes on, and nobody mends it', async () => {
  const step = live({}, [...verifying, rejected()]);
  // As version 3 has had it: before others could mend what was rejected.
  const { fix: _fix, sessions: _sessions, fixers: _fixers, ...context } = contextOf(step);
  const version3 = {
    ...{ status: 'active', value: step.snapshot.value, historyValue: {}, children: {} },
    context: context as unknown as JsonObject,
  };
  expect(stateOf(step)).toBe('retrying.workAgain');
  const data = new MemoryData();
  const address = 'task/r/t';
  await new MemoryStore(data).commit(
    batch({
      actors: [actor({ address, machine: 'task', version: 3, seq: 8 })],
      checkpoints: [
        checkpoint({ address, seq: 8, version: 3, snapshotJson: JSON.stringify(version3) }),
      ],
    }),
  );
  const troupe = await createTroupe({
    store: new MemoryStore(data),
    logger: pino({ level: 'silent' }),
  });
  onTestFinished(() => troupe.stop());
  expect(await troupe.check()).toMatchObject({ problems: [] });
  expect(await troupe.task('r', 't').pause('ada')).toBe('paused');
  const found = await troupe.host.inspect(address);
  expect(found?.record.version).toBe(4);
  expect(found?.snapshot.context).toMatchObject({ fix: null, sessions: 0, fixers: [] });
});
