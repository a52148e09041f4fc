import { expect, test } from 'vitest';
import { playThrough } from '../../bench/replay/replay.ts';
import { memoryDisk } from '../actors/open-troupe.ts';

test('what waits for a person is approved when it is good, and left when it is bad', async () => {
  const troupe = await memoryDisk().open();
  troupe.agent('writer', () => 'done');
  troupe.gatekeeper('editor', () => ({ needsApproval: ['It removes a test.'] }));
  const task = { agent: 'writer', gatekeeper: 'editor' };
  const ids = ['good', 'bad'];
  const run = await troupe.start({ id: 'run', tasks: ids.map((id) => ({ id, ...task })) });
  const change = { title: '', patch: '', dependsOn: [] };
  const expectation = { state: 'not merged', outputContains: [] };
  const bad = { kind: 'tests deleted', expect: expectation };
  const result = await playThrough(run, {
    scenario: { name: 'mixed', features: [], bad: [], ignoreDependsOn: false },
    tasks: [
      { id: 'good', change: { id: 'good', ...change }, dependsOn: [], patches: [] },
      { id: 'bad', change: { id: 'bad', ...change, bad }, dependsOn: [], patches: [] },
    ],
  });
  expect(Object.fromEntries(result.tasks.map(({ id, state }) => [id, state]))).toEqual({
    good: 'done',
    bad: 'awaitingApproval',
  });
  expect([...result.approved]).toEqual(['good']);
});
