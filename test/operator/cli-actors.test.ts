import path from 'node:path';
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { fromPromise, setup } from 'xstate';
import { createTroupe } from '../../src/troupe.ts';
import { accepts } from '../actors/open-troupe.ts';
import { makeProject, troupe, troupeProcess, writing } from './cli-fixture.ts';

const part = setup({
  actors: { breaks: fromPromise<null, null>(() => Promise.reject(new Error('it broke'))) },
}).createMachine({
  id: 'part',
  initial: 'idle',
  states: {
    idle: { on: { break: 'breaking' } },
    breaking: { invoke: { src: 'breaks', id: 'breaks', input: null } },
  },
});

test('troupe actors shows what agents have done, and who supervises whom; status --json has it too', async () => {
  const directory = makeProject([writing('one')]);
  const app = await createTroupe({
    store: path.join(directory, '.troupe', 'state.db'),
    logger: pino({ level: 'silent' }),
  });
  app.agent('writer', () => null);
  app.gatekeeper('editor', accepts);
  await (
    await app.start({ id: 'r', tasks: [{ id: 'a', agent: 'writer', gatekeeper: 'editor' }] })
  ).result();
  await app.spawn(part, { id: 'part/alone' });
  const hour = { initialMs: 3_600_000, maxMs: 3_600_000, jitter: 0 };
  const tree = await app.supervise('top', {
    children: [
      { id: 'low', strategy: 'oneForAll', children: [{ id: 'part/a', machine: part }] },
      { id: 'part/b', machine: part, backoff: hour },
    ],
  });
  const reaches = (state: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const off = app.on('turn', ({ address }) => {
        if (address === tree.address) look();
      });
      const look = (): void => {
        tree.children().then((children) => {
          if (children[0]?.state !== 'running' || children[1]?.state !== state) return;
          off();
          resolve();
        }, reject);
      };
      look();
    });
  await reaches('running');
  await app.send('part/b', { type: 'break' });
  await reaches('delayed');
  await app.stop();

  const shown = await troupeProcess(directory, 'actors');
  expect(shown).toMatchObject({ exitCode: 0, stderr: '' });
  expect(shown.stdout.replace(/busy .*/, 'busy …')).toBe(`Agents
  writer: idle, 1 done, 100 % of them well, 0 waiting, busy …
Supervisors
  supervisor/top: running, oneForOne
    supervisor/low: running, oneForAll
      part/a: running
    part/b: delayed, restarted 1 time
      last error: it broke
Others
  part/alone (part): active
`);
  const status = JSON.parse((await troupe(directory, 'status', '--json')).stdout);
  expect(status).toMatchObject({
    agents: [{ name: 'writer', processed: 1, failed: 0, successRate: 1, queued: 0 }],
    supervisors: [{ address: 'supervisor/low' }, { address: 'supervisor/top', restarts: 1 }],
  });
}, 120_000);
