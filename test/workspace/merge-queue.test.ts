import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type Submission,
  type VerifyAndMergeOptions,
  verifyAndMerge,
} from '../../src/workspace/merge.ts';
import { MergeQueue } from '../../src/workspace/merge-queue.ts';
import { git, openProject, sha256, submit, temporaryDirectory } from './git-fixture.ts';

describe('the queue is a gatekeeper that takes one after the other, only faster', () => {
  /** A change of the model: red by itself, red together with another one that is merged, or called off. */
  interface Change {
    readonly bad: boolean;
    readonly redWith: number;
    readonly cancelled: boolean;
  }

  /** The target as the list of what was merged. */
  type Target = readonly number[];

  const isGreen = (changes: readonly Change[], target: Target): boolean =>
    target.every((n) => {
      const { bad, redWith } = changes[n] as Change;
      return !bad && !target.includes(redWith);
    });

  function serially(changes: readonly Change[]): Target {
    let target: Target = [];
    for (const [n, { cancelled }] of changes.entries()) {
      const next = [...target, n];
      if (!cancelled && isGreen(changes, next)) target = next;
    }
    return target;
  }

  const untilAborted = (signals: readonly AbortSignal[]): Promise<never> =>
    new Promise((_, reject) => {
      const signal = AbortSignal.any([...signals]);
      const abort = (): void => reject(signal.reason as Error);
      if (signal.aborted) abort();
      signal.addEventListener('abort', abort);
    });

  const change = fc.record({
    bad: fc.boolean(),
    // Mostly nobody.
    redWith: fc.oneof(fc.constant(-1), fc.nat(9)),
    cancelled: fc.nat(5).map((n) => n === 0),
  });

  test('same end, each state of the target verified, never more lanes than there are', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(change, { maxLength: 8 }),
        fc.integer({ min: 1, max: 4 }),
        fc.scheduler(),
        async (generated, lanes, scheduler) => {
          const changes = generated.map((one, n) =>
            one.redWith === n ? { ...one, redWith: -1 } : one,
          );
          const queue = new MergeQueue(lanes);
          const green = new Set<string>(['']);
          let target: Target = [];
          let verifying = 0;

          const gate = async (n: number): Promise<void> => {
            const place = queue.enter();
            const off = new AbortController();
            const { cancelled } = changes[n] as Change;
            if (cancelled) {
              void scheduler.schedule(Promise.resolve(), `call off ${n}`).then(() => off.abort());
            }
            let merged = false;
            try {
              for (;;) {
                const ground = await place.ground(off.signal);
                const base: Target = JSON.parse(ground.commit ?? JSON.stringify(target));
                const next = [...base, n];
                try {
                  place.offer(JSON.stringify(next));
                  const passed = await place.verify(off.signal, async () => {
                    expect(++verifying).toBeLessThanOrEqual(lanes);
                    try {
                      const end = scheduler.schedule(Promise.resolve(), `verify ${n}`);
                      await (cancelled ? untilAborted([off.signal, ground.signal]) : end);
                    } finally {
                      verifying--;
                    }
                    return isGreen(changes, next);
                  });
                  ground.signal.throwIfAborted();
                  if (passed) green.add(next.join());
                  await place.turn(passed, off.signal);
                  // Nobody else moves this target, so what it was built on is what it is.
                  expect(base).toEqual(target);
                  if (passed) target = next;
                  merged = passed;
                  expect(green).toContain(target.join());
                  return;
                } catch (error) {
                  if (off.signal.aborted || !ground.signal.aborted) throw error;
                }
              }
            } catch (error) {
              if (!off.signal.aborted) throw error;
            } finally {
              place.leave(merged);
            }
          };

          await scheduler.waitFor(Promise.all(changes.keys().map(gate)));
          expect(target).toEqual(serially(changes));
          expect(queue.length).toBe(0);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe('on a repository', () => {
  async function withQueue(lanes: number) {
    const project = await openProject();
    const signals = temporaryDirectory();
    const queue = new MergeQueue(lanes);
    // Says what it sees, waits for a signal if the tree says so, and is red when there is a file `bad`.
    const script = [
      `ls | tr '\\n' ' ' >> '${signals}/seen'; echo >> '${signals}/seen'`,
      `if [ -e wait ]; then while [ ! -e '${signals}/go' ]; do sleep 0.02; done; fi`,
      'test ! -e bad',
    ].join('\n');
    const gate = (submission: Submission, options: Partial<VerifyAndMergeOptions> = {}) =>
      verifyAndMerge({
        submission,
        verify: [{ name: 'test', command: script }],
        workspaces: project.workspaces,
        fingerprint: sha256,
        queue,
        ...options,
      });
    const seen = (): string[] => {
      const file = path.join(signals, 'seen');
      return existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(0, -1) : [];
    };
    return {
      project,
      gate,
      seen,
      go: () => writeFileSync(path.join(signals, 'go'), ''),
      files: () => git(project.directory, 'ls-tree', '--name-only', 'main').split('\n'),
      /** The trees that main has had, newest first. */
      trees: () => git(project.directory, 'log', '--format=%T', 'main').split('\n'),
    };
  }

  /** Waits for what a command of another process does. */
  async function until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10));
  }

  test('what passes on top of another is merged as it was verified, without a second verification', async () => {
    const { project, gate, seen, go, files, trees } = await withQueue(2);
    const first = gate(await submit(project, { 'a.txt': 'a', wait: '' }, { task: 'first' }));
    const second = gate(await submit(project, { 'b.txt': 'b' }, { task: 'second' }));
    await until(() => seen().length === 2);
    go();
    const verdicts = await Promise.all([first, second]);
    expect(verdicts.map(({ verdict }) => verdict)).toEqual(['accepted', 'accepted']);
    expect(seen()).toEqual(['a.txt readme.md wait ', 'a.txt b.txt readme.md wait ']);
    expect(files()).toEqual(['a.txt', 'b.txt', 'readme.md', 'wait']);
    // Exactly the verified trees, each on top of the other.
    expect(trees().slice(0, 2)).toEqual(verdicts.map(({ evidence }) => evidence.tree).reverse());
  });

  test('what stands on one that fails is verified again without it', async () => {
    const { project, gate, seen, go, files } = await withQueue(2);
    const first = gate(await submit(project, { bad: '', wait: '' }, { task: 'first' }));
    // Red on top of the first, green without it.
    const second = gate(await submit(project, { 'b.txt': 'b' }, { task: 'second' }));
    await until(() => seen().length === 2);
    go();
    expect(await first).toMatchObject({ verdict: 'rejected', stage: 'verify' });
    expect(await second).toMatchObject({ verdict: 'accepted' });
    expect(seen()).toEqual([
      'bad readme.md wait ',
      'b.txt bad readme.md wait ',
      'b.txt readme.md ',
    ]);
    expect(files()).toEqual(['b.txt', 'readme.md']);
    const place = path.join(project.directory, '.troupe/tasks/run/second/gatekeeper');
    const said = readdirSync(place)
      .filter((name) => name.endsWith('.json'))
      .map((name) => JSON.parse(readFileSync(path.join(place, name), 'utf8')).verdict);
    expect(said.sort()).toEqual(['accepted', 'superseded']);
  });

  test('a conflict with one that is never merged is no conflict', async () => {
    const { project, gate, seen, go } = await withQueue(2);
    const first = gate(
      await submit(project, { bad: '', wait: '', 'readme.md': 'one' }, { task: 'first' }),
    );
    await until(() => seen().length === 1);
    const second = gate(await submit(project, { 'readme.md': 'two' }, { task: 'second' }));
    go();
    expect(await first).toMatchObject({ verdict: 'rejected' });
    expect(await second).toMatchObject({ verdict: 'accepted' });
  });

  test('one that is called off lets those behind it go on', async () => {
    const { project, gate, seen, files } = await withQueue(2);
    const off = new AbortController();
    const first = gate(await submit(project, { 'a.txt': 'a', wait: '' }, { task: 'first' }), {
      signal: off.signal,
    });
    const second = gate(await submit(project, { 'b.txt': 'b' }, { task: 'second' }));
    await until(() => seen().length === 2);
    off.abort();
    await expect(first).rejects.toThrow('called off');
    expect(await second).toMatchObject({ verdict: 'accepted' });
    expect(files()).toEqual(['b.txt', 'readme.md']);
  });
});
