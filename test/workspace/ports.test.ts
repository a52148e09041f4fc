import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import path from 'node:path';
import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import { createTroupe } from '../../src/index.ts';
import { PortPool } from '../../src/workspace/ports.ts';
import { git, makeRepository, temporaryDirectory } from './git-fixture.ts';

async function listenOn(port: number): Promise<Server> {
  const server = createServer();
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return server;
}

test('no two holders have the same port, and each has its own as long as it holds them', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.constantFrom('take', 'release'), fc.integer({ min: 0, max: 4 })), {
        maxLength: 20,
      }),
      async (steps) => {
        const pool = new PortPool(['PORT', 'API_PORT']);
        const held = new Map<number, Readonly<Record<string, string>>>();
        for (const [what, holder] of steps) {
          if (what === 'release') {
            pool.release(`holder-${holder}`);
            held.delete(holder);
            expect(pool.of(`holder-${holder}`)).toEqual({});
            continue;
          }
          const ports = await pool.take(`holder-${holder}`);
          expect(held.get(holder) ?? ports).toEqual(ports);
          held.set(holder, ports);
        }
        const all = [...held.values()].flatMap((ports) => Object.values(ports));
        expect(new Set(all).size).toBe(all.length);
        expect(all).toHaveLength(2 * held.size);
      },
    ),
    { numRuns: 30 },
  );
});

test('several ask at once; one that is listened on is left out', async () => {
  const pool = new PortPool(['PORT']);
  const [first] = Object.values(await pool.take('first'));
  await listenOn(Number(first) + 1);
  const given = await Promise.all(['a', 'b', 'a', 'c'].map((holder) => pool.take(holder)));
  expect(given[0]).toBe(given[2]);
  const ports = [given[0], given[1], given[3]].map((each) => Number(each?.['PORT']));
  expect(new Set(ports).size).toBe(3);
  expect(ports).not.toContain(Number(first) + 1);
  for (const port of ports) await listenOn(port);
});

test('agents and verifications at work together have different ports, and what they were matters to nobody', async () => {
  const directory = makeRepository({ 'readme.md': 'x\n' });
  const troupe = await createTroupe({
    store: path.join(temporaryDirectory(), 'state.db'),
    project: {
      directory,
      ports: ['PORT', 'API_PORT'],
      verify: [{ name: 'test', command: 'test "$PORT" -gt 19999 && test "$PORT" != "$API_PORT"' }],
    },
  });
  try {
    troupe.commandAgent(
      'command',
      {
        projectDirectory: directory,
        run: ['/bin/sh', '-c', 'echo "$PORT $API_PORT" > "$TROUPE_TASK.txt"'],
      },
      { concurrency: 2 },
    );
    const run = await troupe.start({
      id: 'run',
      tasks: ['one', 'two'].map((id) => ({ id, agent: 'command', title: id })),
    });
    expect(await run.result()).toMatchObject({ state: 'done' });
  } finally {
    await troupe.stop();
  }
  const ports = ['one', 'two'].flatMap((id) => git(directory, 'show', `main:${id}.txt`).split(' '));
  expect(new Set(ports).size).toBe(4);
});

test.each([[['A B']], [['PORT', 'PORT']], [['GIT_DIR']], [['']]])(
  'names that are none are refused: %j',
  async (ports) => {
    await expect(
      createTroupe({
        store: path.join(temporaryDirectory(), 'state.db'),
        project: { directory: '.', ports, verify: [{ name: 'test', command: 'true' }] },
      }),
    ).rejects.toThrow('Expected project.ports to be different names of environment variables');
  },
);
