import type { TaskPhase, TaskState } from '../../protocol/catalogue.ts';

const PHASES: Readonly<Record<TaskState, TaskPhase>> = {
  staged: 'waiting',
  waiting: 'waiting',
  ready: 'ready',
  preparing: 'active',
  working: 'active',
  verifying: 'verifying',
  fixing: 'active',
  cancelling: 'active',
  retrying: 'delayed',
  awaitingInput: 'person',
  awaitingApproval: 'person',
  escalated: 'person',
  paused: 'person',
  blocked: 'stuck',
  cancelled: 'cancelled',
  done: 'done',
};

/** The phase of a task in this state. (While a policy is asked about an escalation, the task is `delayed`.) */
export const phaseOf = (state: TaskState): TaskPhase => PHASES[state];
