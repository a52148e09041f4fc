import type { Invariant } from './invariants.ts';
import type { World } from './world.ts';

/** I3 by what the workload itself has seen: lines are in the order in which things happened. */
export const historyInvariants: readonly Invariant[] = [
  {
    name: 'I3 a kept step never runs again',
    applies: hasHistory,
    check: ({ history }) => {
      const kept = new Map<string, string>();
      const wrong: string[] = [];
      for (const fact of history) {
        if (fact.op !== 'step.begun' && fact.op !== 'step.kept') continue;
        const step = `${fact.task}@${fact.attempt} ${fact.key}`;
        const value = kept.get(step);
        if (fact.op === 'step.begun') {
          if (value !== undefined) wrong.push(`${step} was kept and began again.`);
        } else if (value === undefined) {
          kept.set(step, fact.value);
        } else if (value !== fact.value) {
          wrong.push(`${step} gave "${value}" and later "${fact.value}".`);
        }
      }
      return wrong;
    },
  },
  {
    name: 'I3 an attempt that was handed in is not worked on again',
    applies: hasHistory,
    check: ({ history }) => {
      const handedIn = new Set<string>();
      const wrong: string[] = [];
      for (const fact of history) {
        if (!('attempt' in fact)) continue;
        const attempt = `${fact.task}@${fact.attempt}`;
        if (fact.op === 'verify.begun') handedIn.add(attempt);
        else if (
          (fact.op === 'work.begun' || fact.op === 'command.begun') &&
          handedIn.has(attempt)
        ) {
          wrong.push(`${attempt} was being verified and was worked on again.`);
        }
      }
      return wrong;
    },
  },
  {
    name: 'I3 what is done stays done',
    applies: hasHistory,
    check: ({ history }) => {
      const done = new Set<string>();
      const wrong: string[] = [];
      for (const fact of history) {
        if (!('task' in fact)) continue;
        if (fact.op !== 'told.done' && done.has(fact.task)) {
          wrong.push(`${fact.task} was done, and then there was ${fact.op}.`);
        }
        if (fact.op !== 'told.done') continue;
        if (done.has(fact.task)) wrong.push(`${fact.task} was done twice.`);
        done.add(fact.task);
      }
      return wrong;
    },
  },
  {
    name: 'I3 what is done was worked on and verified',
    applies: hasHistory,
    check: ({ history, tasks, project }) => {
      const seen = new Set(
        history.map((fact) => ('task' in fact ? `${fact.op} ${fact.task}` : fact.op)),
      );
      return (
        tasks
          .filter(({ state }) => state === 'done')
          .map(({ run, task }) => `${run}/${task}`)
          // Code is verified by commands, whose evidence is the artifact (I1).
          .filter((name) => project === undefined && !seen.has(`verify.begun ${name}`))
          .map((name) => `${name} is done, and no gatekeeper has seen it.`)
      );
    },
  },
];

function hasHistory(world: World): boolean {
  return world.hasHistory;
}
