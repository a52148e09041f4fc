import { phaseOf, type TaskPhase } from '../../index.ts';
import type { TaskView } from '../run-view.ts';
import type { Style } from './text.ts';

/** How many tasks stand how, in the words of the board and the summary. */
export interface TaskCount {
  readonly count: number;
  readonly words: string;
  readonly style: Style;
}

const GROUPS: readonly (readonly [words: string, style: Style, ...phases: TaskPhase[]])[] = [
  ['done', 'green', 'done'],
  ['running', 'cyan', 'active', 'verifying'],
  ['ready', 'dim', 'ready'],
  ['retrying', 'yellow', 'delayed'],
  ['waiting for a person', 'magenta', 'person'],
  ['blocked', 'red', 'stuck'],
  ['waiting', 'dim', 'waiting'],
  ['cancelled', 'dim', 'cancelled'],
];

/** Groups with nothing in them are left out. */
export function countTasks(tasks: readonly TaskView[]): TaskCount[] {
  return GROUPS.flatMap(([words, style, ...phases]) => {
    const count = tasks.filter((task) => phases.includes(phaseOf(task.state))).length;
    return count === 0 ? [] : [{ count, words, style }];
  });
}

export const isUnderWay = ({ state }: TaskView): boolean =>
  ['active', 'verifying'].includes(phaseOf(state));
