import { RunsView, type RunView, type TaskView } from '../../src/operator/run-view.ts';

/** Noon of a day, local time, so that what is printed is the same in every time zone. */
export const NOON = new Date(2026, 10, 20, 12, 0, 0).getTime();

export function aRun(changes: Partial<RunView> = {}): RunView {
  return {
    id: 'main',
    title: 'main',
    state: 'running',
    total: 5,
    reason: null,
    createdAt: NOON,
    endedAt: null,
    ...changes,
  };
}

let position = 0;

export function aTask(id: string, changes: Partial<TaskView> = {}): TaskView {
  position += 1;
  return {
    run: 'main',
    id,
    title: id,
    state: 'ready',
    agent: 'patcher',
    attempts: 0,
    reason: null,
    cause: null,
    dependsOn: [],
    question: null,
    commit: null,
    evidence: null,
    since: NOON,
    startedAt: null,
    position,
    ...changes,
  };
}

export function aView(tasks: readonly TaskView[], run: RunView = aRun()): RunsView {
  const view = new RunsView();
  view.setRun({ ...run, total: tasks.length });
  for (const task of tasks) view.setTask(task);
  return view;
}

/** One task in each state that looks different. */
export const SOME_TASKS: readonly TaskView[] = [
  aTask('csv-quotes', {
    state: 'done',
    attempts: 2,
    commit: '486dc1527d94f3b8',
    evidence: '.troupe/tasks/main/csv-quotes/gatekeeper/2026-11-20T12-00-00.000Z-2.json',
  }),
  aTask('csv-delimiter', { state: 'verifying', attempts: 1, since: NOON + 55_000 }),
  aTask('wrap-long-words', { state: 'working', attempts: 3, agent: 'scribe' }),
  aTask('truncate', {
    state: 'escalated',
    attempts: 3,
    reason: 'All 3 attempts are used up; the last error 97bfa39e3d47.',
  }),
  aTask('deploy', {
    state: 'awaitingInput',
    attempts: 1,
    reason: 'Which stage?',
    question: { id: 'stage', text: 'Which stage?', choices: ['test', 'live'] },
  }),
  aTask('release', { state: 'awaitingApproval', attempts: 1, reason: 'Approval is needed: CI' }),
  aTask('smart-quotes', {
    state: 'blocked',
    attempts: 3,
    cause: 'work',
    reason:
      'The same error came 3 times in a row (error a361784a7dc0). Another try would meet it again: look at the evidence, change the task or give guidance, then unblock it.',
    evidence: '.troupe/tasks/main/smart-quotes/gatekeeper/2026-11-20T12-00-00.000Z-3.json',
  }),
  aTask('roman', {
    state: 'retrying',
    attempts: 1,
    cause: 'infrastructure',
    reason: 'The disk is full.',
  }),
  aTask('held', { state: 'paused' }),
  aTask('smart-quotes-docs', { state: 'waiting', dependsOn: ['smart-quotes'] }),
  aTask('dropped', { state: 'cancelled', reason: 'Not wanted any more.' }),
];
