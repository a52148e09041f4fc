import { fc, test as propertyTest } from '@fast-check/vitest';
import { expect, test } from 'vitest';
import { scriptResult } from '../../bench/replay/judge.ts';
import type { Change, Scenario, Workload } from '../../bench/replay/manifest.ts';
import { planScenario } from '../../bench/replay/plan.ts';
import { isStage } from '../../bench/replay/stages.ts';

/** A workload of changes that depend on earlier ones, by their numbers. */
function workloadOf(dependencies: readonly (readonly number[])[]): Workload {
  const nameOf = (index: number) => `Change #${index}`;
  const changes = dependencies.map(
    (others, index): Change => ({
      id: nameOf(index),
      title: nameOf(index),
      patch: `/patches/${index}`,
      dependsOn: others.map(nameOf),
    }),
  );
  return {
    folder: '/w',
    name: 'w',
    bundle: '/w/base.bundle',
    baseTree: undefined,
    tipTree: '',
    verify: { script: '/w/verify.sh', timeoutMs: 1 },
    changes: new Map(changes.map((change) => [change.id, change])),
    attempts: new Map([[nameOf(0), ['/wrong', '/patches/0']]]),
    scenarios: new Map(),
  };
}

const scenarioOf = (
  name: string,
  features: readonly string[],
  ignoreDependsOn = false,
): Scenario => ({
  name,
  features,
  bad: [],
  ignoreDependsOn,
});

/** For each change all that must come before it, by whatever way. */
function ancestors(all: readonly { readonly id: string; readonly dependsOn: readonly string[] }[]) {
  const known = new Map<string, Set<string>>();
  for (const { id, dependsOn } of all) {
    known.set(id, new Set(dependsOn.flatMap((other) => [other, ...(known.get(other) ?? [])])));
  }
  return known;
}

/** Up to 60 changes; each may depend on any that come before it, many of them on very many. */
const arbitraryGraph = fc
  .array(fc.array(fc.nat(), { maxLength: 60 }), { minLength: 1, maxLength: 60 })
  .map((rows) =>
    rows.map((row, index) => (index === 0 ? [] : [...new Set(row.map((n) => n % index))])),
  );

propertyTest.prop([arbitraryGraph, fc.nat()])(
  'a plan asks for all that the manifest asks for, with at most twenty dependencies each',
  (graph, rotation) => {
    const workload = workloadOf(graph);
    const ids = [...workload.changes.keys()];
    const turned = [...ids.slice(rotation % ids.length), ...ids.slice(0, rotation % ids.length)];
    const { tasks } = planScenario(workload, scenarioOf('green', turned));
    const byName = new Map(tasks.map(({ id, change }) => [id, change.id]));
    expect(new Set(byName.keys()).size).toBe(tasks.length);
    const planned = ancestors(
      tasks.map(({ change, dependsOn }) => ({
        id: change.id,
        dependsOn: dependsOn.map((id) => byName.get(id) as string),
      })),
    );
    for (const [id, needed] of ancestors([...workload.changes.values()])) {
      for (const other of needed) expect(planned.get(id)).toContain(other);
    }
    expect(Math.max(...tasks.map(({ dependsOn }) => dependsOn.length))).toBeLessThanOrEqual(20);
  },
);

test('what a listed change depends on is added, unless dependencies are to be left out', () => {
  const workload = workloadOf([[], [0], [1]]);
  const ids = ({ tasks, added }: ReturnType<typeof planScenario>) => ({
    ids: tasks.map(({ change }) => change.id),
    added,
  });
  expect(ids(planScenario(workload, scenarioOf('green', ['Change #2'])))).toEqual({
    ids: ['Change #0', 'Change #1', 'Change #2'],
    added: ['Change #0', 'Change #1'],
  });
  const alone = planScenario(workload, scenarioOf('undeclared', ['Change #2'], true));
  expect(ids(alone)).toEqual({ ids: ['Change #2'], added: [] });
});

test('wrong attempts are made in a retry only', () => {
  const workload = workloadOf([[]]);
  const first = (name: string) => planScenario(workload, scenarioOf(name, ['Change #0'])).tasks[0];
  expect(first('retry')).toMatchObject({ patches: ['/wrong', '/patches/0'], attempts: 2 });
  expect(first('green')?.patches).toEqual(['/patches/0']);
  expect(first('green')?.attempts).toBeUndefined();
});

test('who races: the two of a small scenario, else those that nothing depends on', () => {
  const two = planScenario(workloadOf([[], []]), scenarioOf('race', ['Change #0', 'Change #1']));
  expect([...two.contenders].map(({ id }) => id)).toEqual(['Change #0', 'Change #1']);
  const three = planScenario(
    workloadOf([[], [0], [0]]),
    scenarioOf('race', ['Change #0', 'Change #1', 'Change #2']),
  );
  expect([...three.contenders].map(({ id }) => id)).toEqual(['Change #1', 'Change #2']);
});

test.each([
  { expected: 'apply', actual: 'apply', fits: true },
  { expected: 'apply', actual: 'merge', fits: false },
  { expected: 'merge', actual: 'verify', fits: true },
  { expected: 'apply_or_merge', actual: 'apply', fits: true },
  { expected: 'apply_or_merge', actual: 'policy', fits: false },
  { expected: 'verify', actual: 'verify_timeout', fits: false },
  { expected: 'policy', actual: 'policy', fits: true },
  { expected: undefined, actual: 'verify', fits: true },
  { expected: undefined, actual: null, fits: false },
])('the stage $actual where $expected is expected: $fits', ({ expected, actual, fits }) => {
  expect(isStage(expected, actual)).toBe(fits);
});

test.each([
  { output: 'ok\nREALREPO_RESULT {"exit":0,"tests":3}\n', result: { exit: 0, tests: 3 } },
  { output: 'REALREPO_RESULT {"exit":0}\nmore', result: undefined },
  { output: 'REALREPO_RESULT {', result: undefined },
  { output: '', result: undefined },
])('the last line of $output', ({ output, result }) => {
  expect(scriptResult(output)).toEqual(result);
});
