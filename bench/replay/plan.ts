import { parseId } from '../../src/protocol/address.ts';
import { slugOf } from '../../src/workspace/branch-name.ts';
import type { Change, Scenario, Workload } from './manifest.ts';

/** One change as a task of the run. */
export interface PlannedTask {
  readonly change: Change;
  /** The id as the product takes it. */
  readonly id: string;
  readonly dependsOn: readonly string[];
  /** The patch of the 1st, 2nd, 3rd attempt. */
  readonly patches: readonly string[];
  /** It has to be done with exactly so many attempts. */
  readonly attempts?: number;
}

export interface Plan {
  readonly scenario: Scenario;
  readonly tasks: readonly PlannedTask[];
  /** Of these exactly one is to be merged; none but in a race. */
  readonly contenders: ReadonlySet<Change>;
  /** Changes that the scenario does not list, and that one of it depends on. */
  readonly added: readonly string[];
}

/** As many dependencies as the product takes of one task. */
const MAX_DEPENDENCIES = 20;

/** The tasks of a scenario, each after all that it depends on. */
export function planScenario(workload: Workload, scenario: Scenario): Plan {
  const listed = new Set([...scenario.features, ...scenario.bad]);
  const changes = scenario.ignoreDependsOn
    ? [...listed].map((id) => workload.changes.get(id) as Change)
    : inOrder(workload, closure(workload, listed));
  const names = idsFor(changes);
  const dependencies = scenario.ignoreDependsOn
    ? new Map<string, readonly string[]>()
    : fewestDependencies(changes);
  const tasks = changes.map((change): PlannedTask => {
    const sequence = scenario.name.startsWith('retry')
      ? workload.attempts.get(change.id)
      : undefined;
    return {
      change,
      id: names.get(change.id) as string,
      dependsOn: (dependencies.get(change.id) ?? []).map((id) => names.get(id) as string),
      patches: sequence ?? [change.patch],
      ...(sequence === undefined ? {} : { attempts: sequence.length }),
    };
  });
  const added = changes.flatMap(({ id }) => (listed.has(id) ? [] : [id]));
  const contenders = scenario.name.startsWith('race') ? findContenders(changes, listed) : [];
  return { scenario, tasks, contenders: new Set(contenders), added };
}

function closure(workload: Workload, listed: ReadonlySet<string>): ReadonlySet<string> {
  const chosen = new Set(listed);
  // A set is gone through in the order of insertion, what is added meanwhile included.
  for (const id of chosen) {
    for (const other of workload.changes.get(id)?.dependsOn ?? []) chosen.add(other);
  }
  return chosen;
}

/** As near to the given order as goes with each after all of them that it depends on. */
export function inOrder(workload: Workload, chosen: ReadonlySet<string>): Change[] {
  const placed = new Set<string>();
  const order: Change[] = [];
  for (const start of chosen) {
    // Without recursion: a history may be one long chain.
    const stack = [start];
    for (let id = stack.at(-1); id !== undefined; id = stack.at(-1)) {
      const change = workload.changes.get(id) as Change;
      const first = change.dependsOn.find((other) => chosen.has(other) && !placed.has(other));
      if (first !== undefined) {
        stack.push(first);
        continue;
      }
      stack.pop();
      if (placed.has(id)) continue;
      placed.add(id);
      order.push(change);
    }
  }
  return order;
}

/** The ids that the product takes; others are written as it writes them in branches, which keeps them different. */
function idsFor(changes: readonly Change[]): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  const taken = new Set<string>();
  for (const { id } of changes) {
    let name = id;
    try {
      parseId(id, 'id');
    } catch {
      name = slugOf(id).replaceAll('..', '.');
    }
    for (let n = 2; taken.has(name); n++) name = `${name.slice(0, 56)}-${n}`;
    taken.add(name);
    names.set(id, name);
  }
  return names;
}

/**
 * The same order with as few dependencies as say it: what follows from the others is left out. Where more are left than
 * the product takes of one task, some of them are put in a row among themselves: less can be done at once then, and every
 * order that is left is one that the manifest allows.
 * @param changes each after all that it depends on
 */
function fewestDependencies(changes: readonly Change[]): ReadonlyMap<string, readonly string[]> {
  const position = new Map(changes.map(({ id }, index) => [id, index]));
  const direct = changes.map(
    ({ dependsOn }) => new Set(dependsOn.map((id) => position.get(id) as number)),
  );
  for (let index = changes.length - 1; index >= 0; index--) {
    const needed = withoutImplied(direct, index);
    const surplus = needed.length - MAX_DEPENDENCIES;
    for (let n = 1; n <= surplus; n++) direct[needed[n] as number]?.add(needed[n - 1] as number);
    direct[index] = new Set(needed.slice(Math.max(0, surplus)));
  }
  return new Map(
    changes.map(({ id }, index) => [
      id,
      [...(direct[index] ?? [])].map((other) => (changes[other] as Change).id),
    ]),
  );
}

/** Direct dependencies that none of the others leads to, in order. */
function withoutImplied(direct: readonly ReadonlySet<number>[], index: number): number[] {
  const own = [...(direct[index] ?? [])].sort((a, b) => b - a);
  const reached = new Set<number>();
  const needed: number[] = [];
  for (const candidate of own) {
    if (reached.has(candidate)) continue;
    needed.push(candidate);
    const stack = [candidate];
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      for (const other of direct[next] ?? []) {
        if (reached.has(other)) continue;
        reached.add(other);
        stack.push(other);
      }
    }
  }
  return needed.reverse();
}

/**
 * Who races: the two of a scenario that has but two; else those that nothing else in it depends on. What was listed only
 * because they need it is no part of the race.
 */
function findContenders(changes: readonly Change[], listed: ReadonlySet<string>): Change[] {
  const own = changes.filter(({ id }) => listed.has(id));
  if (own.length <= 2) return own;
  const needed = new Set(own.flatMap(({ dependsOn }) => dependsOn));
  return own.filter(({ id }) => !needed.has(id));
}
