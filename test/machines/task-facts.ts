import { DEFAULT_TASK_LIMITS, type TaskLimits } from '../../src/machines/policies/limits.ts';
import { type TaskContext, type TaskSpec, taskMachine } from '../../src/machines/task-machine.ts';
import type { Question } from '../../src/protocol/catalogue.ts';
import type { ErrorCode } from '../../src/protocol/errors.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import type { Evidence } from '../../src/protocol/verdict.ts';
import { Driven, type Fact, type Moment, type Step } from './driven.ts';

export const task = new Driven(taskMachine, 'task/r/t');

export function spec(over: Partial<Omit<TaskSpec, 'limits'>> & { limits?: Partial<TaskLimits> }) {
  const { limits, ...rest } = over;
  const whole: TaskSpec = {
    run: 'r',
    id: 't',
    title: 'Write it',
    agent: 'writer',
    gatekeeper: 'editor',
    overseer: 'main',
    priority: 2,
    dependsOn: [],
    dependants: [],
    input: null,
    limits: {
      ...DEFAULT_TASK_LIMITS,
      backoff: { initialMs: 10_000, factor: 2, maxMs: 600_000, jitter: 0 },
      infrastructureBackoff: { initialMs: 1_000, factor: 2, maxMs: 600_000, jitter: 0 },
      ...limits,
    },
    staged: false,
    position: 0,
    ...rest,
  };
  return whole;
}

// ── what happens to a task ──────────────────────────────────────────────────────────────────────────────

export const claimed: Fact = { type: 'task.claim' };
export const timeUp: Fact = {
  type: 'task.timeUp',
  by: 'run',
  reason: 'The time budget of phase "build" (2 h) is used up.',
};
export const rewound: Fact = { type: 'task.rewound' };
export const prepared: Fact = { type: 'xstate.done.actor.prepare', output: null };
export const released: Fact = { type: 'xstate.done.actor.release', output: null };

const failure = (code: ErrorCode, message: string, retryAfterMs?: number) => ({
  code,
  message,
  retryable: false,
  ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
});
export const notPrepared: Fact = {
  type: 'xstate.error.actor.prepare',
  error: failure('unavailable', 'The disk is full.'),
};
export const notReleased: Fact = {
  type: 'xstate.error.actor.release',
  error: failure('unavailable', 'The disk is gone.'),
};

export const submitted = (result: JsonValue = 'a draft'): Fact => ({
  type: 'agent.work:ok',
  reply: { outcome: 'submitted', result },
});
export const asks = (question: Partial<Question> = {}): Fact => ({
  type: 'agent.work:ok',
  reply: {
    outcome: 'question',
    question: { id: 'colour', text: 'Which colour?', ...question },
  },
});
/** The agent could not do it. */
export const fails = (message = 'It does not compile.'): Fact => ({
  type: 'agent.work:err',
  failure: { ...failure('unhandled', message), context: { agent: 'writer' } },
});
/** It was red where it was made; a gatekeeper was not asked. */
export const failsPreflight = (submission: JsonValue = 'a draft'): Fact => ({
  type: 'agent.work:err',
  failure: {
    ...failure('validation', 'npm test failed here.'),
    context: { agent: 'writer', stage: 'verify', evidence: { commands: [] }, submission },
  },
});
/** Something around the agent did not work. */
export const breaksDown = (retryAfterMs?: number): Fact => ({
  type: 'agent.work:err',
  failure: {
    ...failure('rate_limited', 'Too many requests.', retryAfterMs),
    context: { agent: 'writer' },
  },
});
/** Nobody lives at the agent's address. */
export const isNotThere: Fact = {
  type: 'agent.work:err',
  failure: failure('not_found', 'There is no actor at agent/ghost.'),
};

export const proof: Evidence = {
  commands: [
    { name: 'test', command: 'npm test', exitCode: 0, signal: null, durationMs: 1, excerpt: 'ok' },
  ],
};
const verdict = (reply: unknown): Fact => ({ type: 'gatekeeper.verify:ok', reply });
export const accepted: Fact = verdict({ verdict: 'accepted', evidence: proof });
export const acceptedWithoutProof: Fact = verdict({
  verdict: 'accepted',
  evidence: { commands: [] },
});
export const rejected = (
  over: {
    readonly error?: string;
    readonly change?: string;
    readonly feedback?: readonly string[];
  } = {},
): Fact =>
  verdict({
    verdict: 'rejected',
    stage: 'verify',
    reason: 'npm test failed.',
    feedback: over.feedback ?? ['Mend the test.'],
    evidence: proof,
    ...(over.error === undefined ? {} : { errorFingerprint: over.error }),
    ...(over.change === undefined ? {} : { changeFingerprint: over.change }),
  });
export const needsApproval: Fact = verdict({
  verdict: 'approval_required',
  reasons: ['It deletes data.'],
  evidence: proof,
});
export const notVerified = (retryAfterMs?: number): Fact =>
  verdict({
    verdict: 'infrastructure',
    reason: 'The repository is locked.',
    evidence: { commands: [] },
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
export const submissionIsGone: Fact = verdict({
  verdict: 'infrastructure',
  reason: 'The commit is not there.',
  submissionGone: true,
  evidence: { commands: [] },
});
export const nonsense: Fact = verdict({ verdict: 'perhaps' });
export const gatekeeperFails: Fact = {
  type: 'gatekeeper.verify:err',
  failure: failure('internal', 'It crashed.'),
};

/** The host has started it again as often as it may. */
const dies = (context: object) => ({ ...failure('internal', 'It died.'), context });
export const prepareDies: Fact = {
  type: 'xstate.error.actor.prepare',
  error: dies({ interruptions: 3 }),
};
export const workDies: Fact = {
  type: 'agent.work:err',
  failure: dies({ interruptions: 3, agent: 'writer' }),
};
export const verificationDies: Fact = {
  type: 'gatekeeper.verify:err',
  failure: dies({ interruptions: 3 }),
};

export const undecided: Fact = { type: 'overseer.escalate:ok', reply: { decision: 'none' } };
export const policyFails: Fact = {
  type: 'overseer.escalate:err',
  failure: failure('unhandled', 'No rule fits.'),
};
export const policyDecides = (decision: string, more: object = {}): Fact => ({
  type: 'overseer.escalate:ok',
  reply: { decision, by: 'policy', ...more },
});

export const backoffIsOver: Fact = { type: 'xstate.after.backoff.task.retrying' };
export const nobodyAnswers: Fact = { type: 'xstate.after.answerTime.task.awaitingInput' };

// ── what people and the run say to it ───────────────────────────────────────────────────────────────────

export const decide = (decision: string, more: object = {}): Fact => ({
  type: 'task.decide',
  decision,
  by: 'ada',
  ...more,
});
export const answer = (value: JsonValue = 'red', question = 'colour'): Fact => ({
  type: 'task.answer',
  question,
  answer: value,
  by: 'ada',
});
export const unblock = (delayMs?: number): Fact => ({
  type: 'task.unblock',
  by: 'ada',
  ...(delayMs === undefined ? {} : { delayMs }),
});
export const pause: Fact = { type: 'task.pause', by: 'ada' };
export const resume: Fact = { type: 'task.resume', by: 'ada' };
export const cancel: Fact = { type: 'task.cancel', by: 'ada', reason: 'Not needed.' };
export const skipTo: Fact = { type: 'task.skipTo', by: 'ada' };
/** Another task goes on without it. */
export const skipped: Fact = { ...cancel, reason: 'Skipped by ada.', skippedFor: 'z' };
export const enable: Fact = { type: 'task.enable' };
export const dependency = (id: string, outcome: 'done' | 'cancelled' = 'done'): Fact => ({
  type: 'task.dependencyEnded',
  task: id,
  outcome,
});

// ── ways into every state ───────────────────────────────────────────────────────────────────────────────

export const working = [claimed, prepared];
export const verifying = [...working, submitted()];

export function live(over: Parameters<typeof spec>[0], facts: readonly Fact[]): Step {
  let step = task.begin(spec(over));
  for (const fact of facts) step = task.take(step, fact);
  return step;
}

export const contextOf = ({ snapshot }: Moment): TaskContext =>
  snapshot.context as unknown as TaskContext;
