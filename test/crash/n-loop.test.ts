import { expect, test } from 'vitest';
import { ALL_FAULTS } from '../extent.ts';
import { randomFrom } from './life.ts';
import { ALL_TASKS, FINAL_STATES } from './project.ts';
import { ProjectUnderTest } from './project-fixture.ts';

/*
 * A01 and A10 with real git: whatever the point at which the process is killed, the restarted run comes to the same
 * main and the same states as the undisturbed one. A run passes some hundred fault points; here each point's first
 * hit and a late hit of every 13th are killed, 14 kills to a run. `FAULTS=all` kills at the n-th hit
 * for n = 1, 2, 3 … until a run ends untouched, one kill to a run.
 */

const LANES = 2;
const FIRST_HITS_PER_RUN = 13;
const LIMIT_MS = ALL_FAULTS ? 14_400_000 : 480_000;

/** The undisturbed run, which everything else is compared with; made once. */
let baseline: Promise<{ tree: string; hits: ReadonlyMap<string, number> }> | undefined;

function undisturbed(): NonNullable<typeof baseline> {
  baseline ??= (async () => {
    using project = new ProjectUnderTest(...ALL_TASKS);
    const life = project.begin({ faults: 'trace' });
    await life.finished();
    const trace = (await life.line('trace ')).slice('trace '.length);
    return { tree: project.tree(), hits: new Map(JSON.parse(trace) as [string, number][]) };
  })();
  return baseline;
}

/** Lives that are killed one after the other, then one that is not; the outcome must be the undisturbed one. */
async function sequence(kills: readonly string[]): Promise<readonly string[]> {
  const { tree } = await undisturbed();
  using project = new ProjectUnderTest(...ALL_TASKS);
  const fired: string[] = [];
  try {
    for (const faults of kills) {
      if (!(await project.killed({ faults }))) break;
      fired.push(faults);
      await project.checkMidway();
    }
    if (fired.length === 0) return fired;
    await project.finish(FINAL_STATES);
    expect(project.tree()).toBe(tree);
  } catch (error) {
    throw new Error(`After ${kills.join(', then ')}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  return fired;
}

/** Does everything of a list, so many at a time. */
async function inLanes<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  const lane = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: LANES }, lane));
}

test.skipIf(ALL_FAULTS)(
  'killed at the first and at late hits of every fault point, it ends as if undisturbed',
  async () => {
    const { hits } = await undisturbed();
    const points = [...hits.keys()];
    // The names that a life of this kind must pass: a point that is gone would silently not be tested.
    expect(points).toEqual(
      expect.arrayContaining([
        ...['lock.created', 'store.mid-transaction', 'host.before-commit', 'host.after-commit'],
        ...['effect.before-start', 'effect.after-end', 'bus.deliver', 'cleanup.deleted'],
        ...['workspace.before-clone', 'workspace.after-clone', 'workspace.before-commit'],
        ...['workspace.after-commit', 'workspace.after-import', 'gate.merged-in-memory'],
        ...['gate.verified-before-artifact', 'gate.artifact-before-ref'],
        ...['gate.ref-before-checkout', 'gate.after-checkout'],
      ]),
    );
    const random = randomFrom(11);
    const count = Math.ceil(points.length / FIRST_HITS_PER_RUN);
    const sequences = Array.from({ length: count }, (_, n) => {
      // Far apart in the order of first hits, so that each finds work left to be killed in.
      const some = points.filter((_point, i) => i % count === n);
      const late = some[random(some.length)] as string;
      const nearLast = Math.max(1, (hits.get(late) ?? 1) - 1 - random(3));
      return [...some.map((point) => `${point}:kill:1`), `${late}:kill:${nearLast}`];
    });
    const fired = new Set<string>();
    await inLanes(sequences, async (kills) => {
      for (const faults of await sequence(kills)) fired.add(faults.split(':')[0] as string);
    });
    expect([...fired].toSorted()).toEqual(points.toSorted());
  },
  LIMIT_MS,
);

test.skipIf(ALL_FAULTS)(
  'killed again and again while it recovers, it ends as if undisturbed',
  async () => {
    const kills = Array.from({ length: 6 }, (_, k) => `any:kill:${2 * k + 1}`);
    kills.unshift('effect.before-start:kill:9');
    expect(await sequence(kills)).toEqual(kills);
  },
  LIMIT_MS,
);

test.runIf(ALL_FAULTS)(
  'killed at every single fault point, it ends as if undisturbed',
  async () => {
    let n = 0;
    let untouched = false;
    const lanes = Array.from({ length: LANES }, (_, lane) => lane);
    await inLanes(lanes, async () => {
      while (!untouched) {
        const kill = `any:kill:${++n}`;
        // It takes hours, and says nothing else until it ends.
        if (n % 50 === 0) process.stderr.write(`killed at ${n} places\n`);
        if ((await sequence([kill])).length === 0) untouched = true;
      }
    });
    expect(n).toBeGreaterThan(200);
  },
  LIMIT_MS,
);

test.runIf(ALL_FAULTS)(
  'killed at each of the first hits of a recovery, it ends as if undisturbed',
  async () => {
    const firsts = ['effect.before-start:kill:9', 'workspace.after-commit:kill:2'];
    firsts.push('gate.artifact-before-ref:kill:2', 'gate.ref-before-checkout:kill:3');
    const pairs = firsts.flatMap((first) =>
      Array.from({ length: 10 }, (_, k) => [first, `any:kill:${k + 1}`]),
    );
    await inLanes(pairs, async (kills) => {
      expect(await sequence(kills)).toEqual(kills);
    });
  },
  LIMIT_MS,
);
