import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import { runMachine } from '../../src/machines/run-machine.ts';
import { MemoryData } from '../../src/store/memory/memory-data.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { createTroupe } from '../../src/troupe.ts';
import { Driven } from '../machines/driven.ts';
import { actor, batch, checkpoint } from '../store/rows.ts';

test('a run that version 2 has stored goes on with the places that it had', async () => {
  const step = new Driven(runMachine, 'run/r').begin({
    ...{
      run: 'r',
      title: 'Report',
      createdAt: 0,
      specHash: 'h',
      counts: { active: 1, verifying: 1 },
    },
    ...{ slots: { writer: 2 }, concurrency: 4, workflow: null },
  });
  // As version 2 has had them: by agent only.
  const context = { ...(step.snapshot.context as object), claimed: { a: 'writer', b: null } };
  const version2 = {
    ...{ status: 'active', value: { running: 'waiting' }, historyValue: {}, children: {} },
    context,
  };
  const data = new MemoryData();
  const address = 'run/r';
  await new MemoryStore(data).commit(
    batch({
      actors: [actor({ address, machine: 'run', version: 2, seq: 8 })],
      checkpoints: [
        checkpoint({ address, seq: 8, version: 2, snapshotJson: JSON.stringify(version2) }),
      ],
    }),
  );
  const troupe = await createTroupe({
    store: new MemoryStore(data),
    logger: pino({ level: 'silent' }),
  });
  onTestFinished(() => troupe.stop());
  expect(await troupe.check()).toMatchObject({ problems: [] });
  const paused = new Promise((resolve) => troupe.host.events.on('turn', resolve));
  await troupe.run('r').pause('ada');
  await paused;
  const found = await troupe.host.inspect(address);
  expect(found?.record.version).toBe(3);
  expect(found?.snapshot.context['claimed']).toEqual({
    a: { agent: 'writer', claim: null },
    b: { agent: null, claim: null },
  });
});
