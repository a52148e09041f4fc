import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { CleanupQueue, cleanupDelayMs } from '../../src/workspace/cleanup-queue.ts';
import { ProcessRegistry } from '../../src/workspace/process-registry.ts';
import { removeTree, removeTreeBeside } from '../../src/workspace/remove-tree.ts';
import { temporaryDirectory, write } from './git-fixture.ts';

function makeQueue(root = temporaryDirectory()) {
  const state = { now: 1_000_000, broken: true };
  const points: string[] = [];
  const file = path.join(root, 'queue.json');
  const open = () =>
    new CleanupQueue({
      file,
      root,
      now: () => state.now,
      faultPoint: (name) => void points.push(name),
      remove: async (target) => {
        if (state.broken) throw new Error('busy');
        await removeTree(target);
      },
    });
  return { root, file, state, points, open };
}

test('waits 10, 20, 40 … at most 600 seconds', () => {
  expect([1, 2, 3, 6, 7, 50, 5000].map(cleanupDelayMs)).toEqual([
    10_000, 20_000, 40_000, 320_000, 600_000, 600_000, 600_000,
  ]);
});

test('what can be deleted is deleted at once, and nothing is queued', async () => {
  const { root, file, state, points, open } = makeQueue();
  state.broken = false;
  write(root, { 'a/b': 'x' });
  expect(await open().removeOrQueue(path.join(root, 'a'))).toBe(true);
  expect(readdirSync(root)).toEqual([]);
  expect(existsSync(file)).toBe(false);
  expect(points).toEqual(['cleanup.deleted']);
});

test('what cannot is queued once, tried when due, and survives a restart', async () => {
  const { root, state, points, open } = makeQueue();
  write(root, { 'a/b': 'x' });
  const target = path.join(root, 'a');
  expect(await open().removeOrQueue(target)).toBe(false);
  const queue = open();
  expect(await queue.removeOrQueue(target)).toBe(false);
  expect(await queue.nextDueMs()).toBe(state.now + 20_000);
  expect((await queue.drain()).waiting).toEqual([
    { path: 'a', failures: 2, notBeforeMs: state.now + 20_000, lastError: 'busy' },
  ]);
  state.now += 20_000;
  expect((await queue.drain()).waiting).toMatchObject([{ failures: 3 }]);
  state.broken = false;
  expect((await queue.drain()).removed).toEqual([]);
  state.now += 40_000;
  expect(await open().drain()).toEqual({ removed: ['a'], waiting: [] });
  expect(existsSync(target)).toBe(false);
  expect(await open().nextDueMs()).toBeUndefined();
  expect(points).toEqual(['cleanup.queued', 'cleanup.queued', 'cleanup.deleted']);
});

test.each([
  'x',
  '',
  '{}',
  '[1]',
  '[{"path":"../outside","failures":1,"notBeforeMs":0,"lastError":""}]',
  '[{"path":"a/../../outside","failures":1,"notBeforeMs":0,"lastError":""}]',
  '[{"path":"/etc","failures":1,"notBeforeMs":0,"lastError":""}]',
  '[{"path":"","failures":1,"notBeforeMs":0,"lastError":""}]',
])('a queue file with %j is put aside', async (text) => {
  const { root, file, state, open } = makeQueue(path.join(temporaryDirectory(), 'root'));
  state.broken = false;
  write(root, { '../outside': 'precious', 'inside/x': 'x' });
  writeFileSync(file, text);
  expect(await open().drain()).toEqual({ removed: [], waiting: [] });
  expect(readFileSync(`${file}.corrupt`, 'utf8')).toBe(text);
  expect(readFileSync(path.join(root, '../outside'), 'utf8')).toBe('precious');
});

test('a time in the far future is brought back', async () => {
  const { file, state, open } = makeQueue();
  writeFileSync(file, '[{"path":"a","failures":1,"notBeforeMs":9e15,"lastError":""}]');
  expect(await open().nextDueMs()).toBe(state.now + 600_000);
});

test('only what lies below the root', async () => {
  const { root, open } = makeQueue();
  for (const target of [root, path.dirname(root), '/etc', `${root}-evil/x`]) {
    await expect(async () => await open().removeOrQueue(target)).rejects.toThrow(RangeError);
  }
});

/** A way to remove: by Node, or by the system's `rm`, which may not be there. */
const ways = {
  Node: () => removeTree,
  rm: () => {
    const processes = new ProcessRegistry(path.join(temporaryDirectory(), 'processes'));
    onTestFinished(() => processes.close());
    return (target: string) => removeTreeBeside(processes.launcher, target);
  },
  'Node, for want of rm,': () => {
    vi.stubEnv('PATH', '/nowhere');
    onTestFinished(() => void vi.unstubAllEnvs());
    return ways.rm();
  },
};

describe.each(Object.keys(ways) as (keyof typeof ways)[])('%s removes', (name) => {
  test('symlinks, and does not follow them; read-only directories; what is not there', async () => {
    const remove = ways[name]();
    const root = temporaryDirectory();
    write(root, { 'outside/precious': 'x', 'tree/locked/file': 'x' });
    symlinkSync(path.join(root, 'outside'), path.join(root, 'tree/link'));
    symlinkSync(path.join(root, 'outside'), path.join(root, 'link'));
    mkdirSync(path.join(root, 'tree/locked/deep'));
    chmodSync(path.join(root, 'tree/locked/deep'), 0o000);
    chmodSync(path.join(root, 'tree/locked'), 0o555);
    await remove(path.join(root, 'tree'));
    await remove(path.join(root, 'link'));
    expect(readdirSync(root)).toEqual(['outside']);
    expect(readFileSync(path.join(root, 'outside/precious'), 'utf8')).toBe('x');
    await remove(path.join(root, 'not there'));
  });

  test('what has a strange name', async () => {
    const remove = ways[name]();
    const root = temporaryDirectory();
    for (const strange of ['-rf', 'a b\n$(touch x)', "it's", '*']) {
      write(root, { [`${strange}/file`]: 'x', 'kept/file': 'x' });
      await remove(path.join(root, strange));
      expect(readdirSync(root)).toEqual(['kept']);
    }
  });
});

test('a tree is removed, too, when the disk has no room for the record of the program that would do it', async () => {
  const root = temporaryDirectory();
  write(root, { 'tree/file': 'x' });
  const processes = new ProcessRegistry(path.join(root, 'processes'));
  onTestFinished(() => processes.close());
  processes.announce = () => {
    throw new Error('ENOSPC');
  };
  await removeTreeBeside(processes.launcher, path.join(root, 'tree'));
  expect(readdirSync(root)).not.toContain('tree');
});
