import { assign, fromPromise, setup } from 'xstate';
import {
  agentAddress,
  gatekeeperAddress,
  overseerAddress,
  runAddress,
  taskAddress,
} from '../protocol/address.ts';
import type {
  Answer,
  Decision,
  FixOrder,
  Inbound,
  PolicyAnswer,
  Question,
  TaskPhase,
  TaskState,
  WorkOutcome,
} from '../protocol/catalogue.ts';
import { durableActions, type SendParams } from '../protocol/commands.ts';
import type { Failure } from '../protocol/errors.ts';
import { unitHash } from '../protocol/hash.ts';
import type { JsonValue } from '../protocol/json.ts';
import { type Meta, replyTo } from '../protocol/message.ts';
import type { Priority } from '../protocol/priority.ts';
import { refusalIn } from '../protocol/refused-work.ts';
import type { Evidence, Verdict } from '../protocol/verdict.ts';
import { commandsFor } from './commands-for.ts';
import {
  couldNotWork,
  isFromAgent,
  isUnreachable,
  nextInChain,
  type Unreached,
} from './policies/agent-chain.ts';
import { backoffMs, MAX_TIMER_MS } from './policies/backoff.ts';
import { blame, interruptionsIn } from './policies/failure-class.ts';
import { errorFingerprint, feedbackFingerprint } from './policies/fingerprint.ts';
import { failedCommands, fixInstruction, isFixable, type QaSpec } from './policies/fix.ts';
import type { TaskLimits } from './policies/limits.ts';
import {
  type Assessment,
  type AttemptOutcome,
  assess,
  assessInfrastructure,
  emptyProgress,
  type ProgressRecord,
  recordFix,
  recordOutcome,
} from './policies/progress.ts';
import { phaseOf } from './policies/task-phase.ts';

/** What a task is, as it was handed in. Never changes. */
export interface TaskSpec {
  readonly run: string;
  readonly id: string;
  readonly title: string;
  readonly agent: string;
  /** In their order, the agents that may do it, `agent` first. Absent when the task names only that one. */
  readonly chain?: readonly string[];
  readonly gatekeeper: string;
  readonly overseer: string;
  readonly priority: Priority;
  readonly dependsOn: readonly string[];
  /** Tasks of the same run that wait for this one: they are told when it ends. */
  readonly dependants: readonly string[];
  readonly input: JsonValue;
  /** What its work has to pass besides, for the gatekeeper to read. Absent when that is nothing. */
  readonly accept?: JsonValue;
  readonly limits: TaskLimits;
  /** Who mends what is rejected. Default nobody: its agent tries again. */
  readonly qa?: QaSpec;
  readonly staged: boolean;
  readonly position: number;
  /** The phase of the workflow it belongs to. */
  readonly phase?: string;
  /** The task that was done and is broken again: this one mends it. */
  readonly regressionOf?: Regression;
  /** What its first attempt is told. Default nothing. */
  readonly guidance?: readonly string[];
}

/** A task that was done and is found broken again. */
export interface Regression {
  readonly run: string;
  readonly task: string;
  /** What it was merged as, if it was code. */
  readonly commit: string | null;
  readonly reason: string;
  readonly evidence: JsonValue;
}

/** One try, as it is kept: the current one while it runs, the last one after it. */
export interface AttemptSummary {
  readonly attempt: number;
  readonly startedAt: number;
  readonly endedAt: number | null;
  readonly outcome: 'running' | 'accepted' | 'rejected' | 'failed' | 'infrastructure' | 'cancelled';
  readonly stage: string | null;
  readonly reason: string | null;
  readonly evidence: Evidence | null;
  readonly summary: string | null;
  /** Who does it, if not the task's own agent, and who could not: at this attempt, or at those right before it. */
  readonly by?: { readonly agent: string; readonly insteadOf: readonly Unreached[] };
  /** Why it was refused before others were asked to mend it; what they came to, oldest first. */
  readonly refused?: Refused;
  readonly fixes?: readonly FixRound[];
}

/** Why work was refused, and when. */
export interface Refused {
  readonly at: number;
  readonly stage: string | null;
  readonly reason: string;
  readonly artifact: string | null;
}

/** One try to mend an attempt that was rejected. */
export interface FixRound {
  readonly session: number;
  readonly iteration: number;
  readonly agent: string;
  readonly startedAt: number;
  readonly endedAt: number;
  readonly outcome: 'accepted' | 'rejected' | 'failed' | 'infrastructure' | 'cancelled';
  readonly stage: string | null;
  readonly reason: string | null;
  readonly artifact: string | null;
  /** Who could not do it. */
  readonly insteadOf?: readonly Unreached[];
}

/** The try to mend it that is under way: until what was handed in is judged. */
export interface CurrentFix {
  readonly session: number;
  readonly iteration: number;
  readonly agent: string;
  readonly startedAt: number;
  readonly insteadOf: readonly Unreached[];
  /** As the attempt is recorded if it is not mended. */
  readonly outcome: 'rejected' | 'failed';
  readonly stage: string;
  readonly reason: string;
}

/** What came of cancelling a task. */
export interface CancelReport {
  /** What ran for it and has ended: `agent/writer`, `gatekeeper/git`. */
  readonly stopped: readonly string[];
  /** What did not heed that it was called off, within 6 s. */
  readonly notStopped: readonly string[];
  /** Finished steps that were taken back, `attempt/step`, in the order in which they were. */
  readonly compensated: readonly string[];
  /** Those that could not be. */
  readonly failed: readonly { readonly step: string; readonly reason: string }[];
}

export interface TaskContext {
  readonly spec: TaskSpec;
  /** The agent that does it now: the spec's, until somebody reassigns it. */
  readonly agent: string;
  /** While another does the attempt in its place: its own agent, which the next attempt asks again. */
  readonly fellBackFrom?: string | null;
  /** The last attempt's agent could not work: `agent` does the next one instead of it, and of those before it. */
  readonly insteadOf?: readonly Unreached[] | null;
  readonly staged: boolean;
  /** Dependencies that are not done yet. */
  readonly remaining: readonly string[];
  /** Dependencies that were cancelled and can never be done. */
  readonly lost: readonly string[];
  /** Dependencies that it goes on without: they were skipped or lost, and somebody has said so. */
  readonly without: readonly string[];
  /** The task that goes on without it, when it was skipped. What it depended on itself has been told then. */
  readonly skippedFor: string | null;
  /** Number of the current attempt; counts on through unblocking, unlike the budget. */
  readonly attempt: number;
  /** Requests sent, so that each has a number of its own. */
  readonly asked: number;
  readonly progress: ProgressRecord;
  readonly feedback: readonly string[];
  readonly guidance: readonly string[];
  readonly answers: Readonly<Record<string, JsonValue>>;
  readonly question: Question | null;
  readonly workspace: JsonValue;
  readonly result: JsonValue;
  /** The attempt has handed something in, be it null. */
  readonly submitted: boolean;
  readonly approved: boolean;
  readonly last: AttemptSummary | null;
  /** Why it waits, and whose fault it was. */
  readonly reason: string | null;
  readonly cause: 'work' | 'infrastructure' | null;
  readonly next: 'retry' | 'blocked' | 'escalated' | 'fix';
  readonly retryInMs: number;
  /**
   * Where it goes on after a wait, a pause or a person's word. `verification`: what was handed in has not been judged,
   * and is verified again as it is; the agent is not asked.
   */
  readonly goesOnWith: 'work' | 'verification';
  readonly fix: CurrentFix | null;
  /** Sessions of mending that were begun since somebody last decided about it or unblocked it. */
  readonly sessions: number;
  /** Who was asked to mend an attempt, each time; their steps are beside those of the attempt. */
  readonly fixers: readonly { readonly attempt: number; readonly agent: string }[];
  readonly pauseAsked: boolean;
  /**
   * It was rolled back. `unprepared`: to a question, and the workspace it was asked in is not there any more.
   * `again`: to before or into an attempt that has been begun, and perhaps merged, already.
   */
  readonly rewound: 'no' | 'unprepared' | 'again';
  /** What the policy has decided since a person last did. */
  readonly policyRounds: number;
  /** What the policy has ever decided about it, and how often each. */
  readonly decided: readonly PolicyAnswer[];
  /** What came of cancelling it; absent until then. */
  readonly cancellation?: CancelReport;
  /** Who did the attempts up to which, before it was reassigned. Absent if it never was. */
  readonly agentsBefore?: readonly { readonly upTo: number; readonly agent: string }[];
  /** The run's claim that it obeyed last; absent until it does. */
  readonly claim?: number;
  /** The last phase the run was told. */
  readonly told: TaskPhase;
  /** Ends of dependencies the run does not know it has heard of. */
  readonly heard: number;
}

type Reply = { readonly state: TaskState };
type Told = {
  readonly phase: TaskPhase;
  readonly withAgent?: boolean;
  readonly escalated?: boolean;
};
type EffectDone = {
  readonly type: `xstate.done.actor.${string}`;
  readonly output: JsonValue;
  readonly meta: Meta;
};
type EffectError = {
  readonly type: `xstate.error.actor.${string}`;
  readonly error: Failure;
  readonly meta: Meta;
};
export type TaskEvent =
  | Inbound<'task'>
  | Answer<'agent.work'>
  | Answer<'gatekeeper.verify'>
  | Answer<'overseer.escalate'>
  | EffectDone
  | EffectError;

/** What `prepare` and `release` are given. */
export interface WorkspaceInput {
  readonly run: string;
  readonly id: string;
  readonly agent: string;
  readonly gatekeeper: string;
  readonly attempt: number;
  readonly cancelled: boolean;
  readonly interruptions: number;
  readonly agentsBefore?: TaskContext['agentsBefore'];
  /** To be mended: the place has what was handed in, and not the target as it is. */
  readonly submission?: JsonValue;
  readonly fixers?: TaskContext['fixers'];
}

/** Notes to the next attempt, and characters of each; every stored state carries them. */
const MAX_NOTES = 5;
const MAX_NOTE = 100_000;
/** Tries to mend one attempt that are kept with it; and characters of the reason of each. */
const MAX_ROUNDS = 20;
const MAX_ROUND_REASON = 1_000;
/** Agents and gatekeepers always answer, for their own work is limited in time; this ends a wait that nothing else ends. */
const REPLY_WITHIN_MS = 24 * 3_600_000;
/** A policy that always says the same would otherwise try for ever; after so many decisions a person is asked. */
const POLICY_ROUNDS = 3;
/** Different decisions of a policy that a task remembers; the oldest are forgotten first. */
const MAX_DECIDED = 20;

const DECIDABLE: readonly TaskState[] = ['escalated', 'awaitingApproval', 'blocked'];

const notProvided = async (): Promise<JsonValue> => {
  throw new Error('This effect is provided by src/actors.');
};

const durable = setup({
  types: {
    context: {} as TaskContext,
    events: {} as TaskEvent,
    input: {} as TaskSpec,
  },
  actors: {
    /** Makes a fresh place to work in; null for tasks that are not code. */
    prepare: fromPromise<JsonValue, WorkspaceInput>(notProvided),
    /** Puts the place away. */
    release: fromPromise<JsonValue, WorkspaceInput>(notProvided),
  },
  actions: durableActions,
});

const command = commandsFor<TaskContext, TaskEvent>();

const base = durable.extend({
  actions: {
    /** On entering a state: tells the run, if it makes a difference to it. */
    tellRun: command(({ context, enqueue }, params: Told) => {
      const { told, heard, spec } = context;
      const { escalated = false } = params;
      if (told === params.phase && heard === 0 && !escalated) return;
      const ended = params.phase === 'done' || params.phase === 'cancelled';
      enqueue({
        type: 'send',
        params: {
          to: runAddress(spec.run),
          message: {
            type: 'run.taskChanged',
            task: spec.id,
            from: told,
            to: params.phase,
            telling: ended && told !== params.phase ? spec.dependants.length : 0,
            heard,
            ...(params.withAgent === true ? { agent: doer(context) } : {}),
            ...(spec.phase === undefined ? {} : { phase: spec.phase }),
            ...(escalated ? { escalated } : {}),
            claim: context.claim ?? null,
          },
        },
      });
      enqueue.assign({ told: params.phase, heard: 0 });
    }),

    /** Answers a person or the run; nothing happens if the message was no request. */
    answer: command(({ event, enqueue }, params: Reply) => {
      enqueue({
        type: 'reply',
        params: { to: replyTo(event.meta), type: event.type, reply: { state: params.state } },
      });
    }),
    /** Answers an order that leads to `admitting`: with the state that it leads on to. */
    answerAdmitted: durable.enqueueActions(({ context, event, enqueue }) => {
      enqueue({
        type: 'reply',
        params: {
          to: replyTo(event.meta),
          type: event.type,
          reply: { state: admittedState(context) },
        },
      });
    }),
    /** Whoever had asked goes on. */
    answerGoingOn: durable.enqueueActions(({ context, event, enqueue }) => {
      const state: TaskState = context.fix === null ? 'working' : 'fixing';
      enqueue({
        type: 'reply',
        params: { to: replyTo(event.meta), type: event.type, reply: { state } },
      });
    }),
    /** Refuses a request that the state does not allow, and says why. */
    refuse: command(({ context, event, enqueue }, params: Reply) => {
      enqueue({
        type: 'reply',
        params: {
          to: replyTo(event.meta),
          type: event.type,
          failure: refusal(context, event, params.state),
        },
      });
    }),

    beginAttempt: assign(({ context, event }) => ({
      ...(context.insteadOf == null ? withOwnAgent(context) : { insteadOf: null }),
      attempt: context.attempt + 1,
      approved: false,
      submitted: false,
      result: null,
      workspace: null,
      reason: null,
      cause: null,
      goesOnWith: 'work' as const,
      rewound: context.rewound === 'again' ? ('again' as const) : ('no' as const),
      last: {
        attempt: context.attempt + 1,
        startedAt: event.meta.at,
        endedAt: null,
        outcome: 'running' as const,
        stage: null,
        reason: null,
        evidence: null,
        summary: null,
        ...(context.insteadOf == null
          ? {}
          : { by: { agent: context.agent, insteadOf: context.insteadOf } }),
      },
    })),
    /** On the way to `preparing`, after a rollback: the attempt is begun once more, under the number it has. */
    beginAgain: assign(({ context }) => ({
      attempt: context.attempt - 1,
      rewound: 'again' as const,
    })),
    losePreparation: assign({ rewound: 'unprepared' }),
    expectMerged: assign({ rewound: 'again' }),
    /** Verified again after it had ended, it is under way again: the same attempt, not a new one. */
    reopenAttempt: assign(({ context }) => ({
      reason: null,
      cause: null,
      goesOnWith: 'work' as const,
      last: context.last && {
        ...context.last,
        endedAt: null,
        outcome: 'running' as const,
        stage: null,
        reason: null,
      },
    })),
    countRequest: assign(({ context }) => ({ asked: context.asked + 1 })),

    askAgent: durable.enqueueActions(({ context, enqueue }) => {
      const { spec } = context;
      enqueue({
        type: 'request',
        params: {
          to: agentAddress(doer(context)),
          id: 'work',
          attempt: context.asked,
          timeoutMs: REPLY_WITHIN_MS,
          priority: spec.priority,
          message: {
            type: 'agent.work',
            task: taskAddress(spec.run, spec.id),
            run: spec.run,
            id: spec.id,
            title: spec.title,
            attempt: context.attempt,
            input: spec.input,
            feedback: [...context.feedback],
            guidance: [...context.guidance],
            answers: { ...context.answers },
            workspace: context.workspace,
            interruptions: spec.limits.interruptions,
            ...(context.rewound === 'again' ? { again: true } : {}),
            ...(context.fixers.length === 0 ? {} : { fixers: [...context.fixers] }),
            ...fixOrder(context),
          },
        },
      });
    }),
    /** The agent cannot be asked: the next in the chain is. */
    fallBack: assign(({ context, event }) => {
      const failure = failureOf(event);
      const insteadOf = inVain(context, failure);
      const agent = nextAgent(context, failure) ?? context.agent;
      return {
        // Nothing of this attempt was done yet.
        ...handedOver({ ...context, attempt: context.attempt - 1 }, agent),
        fellBackFrom: context.fellBackFrom ?? context.agent,
        last: context.last && { ...context.last, by: { agent, insteadOf } },
      };
    }),
    recallAgent: durable.enqueueActions(({ context, enqueue }) => {
      enqueue({ type: 'cancelRequest', params: { id: 'work' } });
      enqueue({
        type: 'send',
        params: {
          to: agentAddress(doer(context)),
          message: {
            type: 'agent.cancel',
            task: taskAddress(context.spec.run, context.spec.id),
            attempt: context.attempt,
          },
        },
      });
    }),
    askGatekeeper: durable.enqueueActions(({ context, enqueue }) => {
      const { spec } = context;
      enqueue({
        type: 'request',
        params: {
          to: gatekeeperAddress(spec.gatekeeper),
          id: 'verify',
          attempt: context.asked,
          timeoutMs: REPLY_WITHIN_MS,
          priority: spec.priority,
          message: {
            type: 'gatekeeper.verify',
            task: taskAddress(spec.run, spec.id),
            run: spec.run,
            id: spec.id,
            title: spec.title,
            attempt: context.attempt,
            input: spec.input,
            ...(spec.accept === undefined ? {} : { accept: spec.accept }),
            result: context.result,
            workspace: context.workspace,
            approved: context.approved,
            interruptions: spec.limits.interruptions,
          },
        },
      });
    }),
    recallGatekeeper: durable.enqueueActions(({ context, enqueue }) => {
      enqueue({ type: 'cancelRequest', params: { id: 'verify' } });
      enqueue({
        type: 'send',
        params: {
          to: gatekeeperAddress(context.spec.gatekeeper),
          message: {
            type: 'gatekeeper.cancel',
            task: taskAddress(context.spec.run, context.spec.id),
            attempt: context.attempt,
          },
        },
      });
    }),
    askOverseer: command(
      ({ context, enqueue }, params: { readonly state: 'escalated' | 'awaitingApproval' }) => {
        const { spec } = context;
        enqueue({
          type: 'request',
          params: {
            to: overseerAddress(spec.overseer),
            id: 'escalate',
            attempt: context.asked,
            timeoutMs: REPLY_WITHIN_MS,
            message: {
              type: 'overseer.escalate',
              task: taskAddress(spec.run, spec.id),
              run: spec.run,
              id: spec.id,
              title: spec.title,
              agent: context.agent,
              state: params.state,
              reason: context.reason ?? '',
              feedback: [...context.feedback],
              attempts: context.progress.attempts,
              decided: [...context.decided],
            },
          },
        });
      },
    ),
    forgetOverseer: durable.enqueueActions(({ enqueue }) => {
      enqueue({ type: 'cancelRequest', params: { id: 'escalate' } });
    }),

    keepWorkspace: assign(({ event }) => ({
      workspace: 'output' in event ? event.output : null,
    })),
    keepResult: assign(({ context, event }) => {
      const outcome = workOutcome(event);
      if (outcome?.outcome !== 'submitted') return {};
      return {
        result: outcome.result,
        submitted: true,
        // What was approved was what had been handed in before, and not what somebody has made of it since.
        approved: false,
        last: context.last && { ...context.last, summary: outcome.summary ?? null },
      };
    }),
    keepQuestion: assign(({ event }) => {
      const outcome = workOutcome(event);
      if (outcome?.outcome !== 'question') return {};
      return { question: outcome.question, reason: outcome.question.text };
    }),
    keepAnswer: assign(({ context, event }) => {
      if (event.type !== 'task.answer') return {};
      return {
        answers: { ...context.answers, [event.question]: event.answer },
        question: null,
        reason: null,
      };
    }),
    takeDefaultAnswer: assign(({ context }) => ({
      answers:
        context.question?.default === undefined
          ? context.answers
          : { ...context.answers, [context.question.id]: context.question.default },
      question: null,
      reason: null,
    })),
    noteUnanswered: assign(({ context, event }) => {
      const reason = `Nobody answered the question "${context.question?.text ?? ''}" in time.`;
      return {
        question: null,
        reason,
        cause: 'work' as const,
        fix: null,
        last: ended(withRound(context, event.meta.at, 'failed'), event.meta.at, 'failed', reason),
      };
    }),
    /** Trying again would find nobody again. */
    noteUnknownAgent: assign(({ context, event }) => {
      const reason = `There is no agent "${context.agent}". Reassign the task to one that is registered.`;
      return {
        reason,
        cause: 'infrastructure' as const,
        last: ended(context.last, event.meta.at, 'infrastructure', reason),
      };
    }),
    /** Perhaps the process dies of it. Trying again by itself would find out at everybody's cost. */
    noteInterruptions: assign(({ context, event }) => {
      const by =
        event.type === 'gatekeeper.verify:err'
          ? `verified by "${context.spec.gatekeeper}"`
          : event.type === 'agent.work:err'
            ? `worked on by "${doer(context)}"`
            : 'given a workspace';
      const times = interruptionsIn(failureOf(event)) ?? 0;
      const reason =
        `The process died ${times === 1 ? 'once' : `${times} times in a row`} while attempt ${context.attempt} was under way (${by}), ` +
        'so it may be what the process dies of. Find out why it died, then retry, reassign or cancel.';
      return {
        reason,
        // Worth another try only when somebody has looked.
        cause: 'work' as const,
        goesOnWith:
          event.type === 'gatekeeper.verify:err' ? ('verification' as const) : ('work' as const),
        fix: null,
        last: ended(
          withRound(context, event.meta.at, 'infrastructure'),
          event.meta.at,
          'infrastructure',
          reason,
        ),
      };
    }),
    notePolicyFailed: assign(({ context, event }) => ({
      reason: `${context.reason ?? ''} (The overseer's policy could not decide: ${failureOf(event).message})`,
    })),
    notePolicyUsedUp: assign(({ context }) => ({
      reason: `${context.reason ?? ''} (The overseer's policy has decided ${context.policyRounds} times; now a person has to.)`,
    })),

    /** The attempt failed before a gatekeeper saw it. */
    recordFailure: assign(({ context, event }) => {
      const failure = failureOf(event);
      // What no agent has answered itself is the fault of nobody who worked: a gatekeeper that crashed, a deadline that
      // passed while the process was down.
      const isAgents = event.type === 'agent.work:err' && isFromAgent(failure);
      const kind = isAgents ? blame(failure) : 'infrastructure';
      const refusal = kind === 'work' ? refusalIn(failure) : undefined;
      // It is the agent that could not work: the next attempt is for the next one in the chain.
      const isItsOwn = isAgents && couldNotWork(failure);
      const next = isItsOwn ? nextAgent(context, failure) : undefined;
      const assessment = assessed(context, event.meta.at, {
        kind,
        reason:
          next === undefined
            ? failure.message
            : `${failure.message} The next attempt is for "${next}".`,
        judged: false,
        stage: refusal?.stage ?? null,
        evidence: keptEvidence(failure),
        feedback: kind === 'work' ? [failure.message] : [],
        errorFingerprint: errorFingerprint(failure.message),
        changeFingerprint: undefined,
        countFeedback: false,
        submission: refusal?.submission,
        // How long the one that could not work is to be left alone is nothing to the next.
        retryAfterMs: next === undefined ? failure.retryAfterMs : undefined,
        goesOnWith: event.type === 'gatekeeper.verify:err' ? 'verification' : 'work',
      });
      if (next === undefined) return assessment;
      return {
        ...assessment,
        ...handedOver(context, next),
        fellBackFrom: context.fellBackFrom ?? context.agent,
        insteadOf: inVain(context, failure),
      };
    }),
    /** Whoever was to mend it could not: the task goes on as if nobody had tried. */
    recordFixFailure: assign(({ context, event }) => {
      const { fix, spec, progress } = context;
      if (fix === null) return {};
      const failure = failureOf(event);
      const kind = isFromAgent(failure) ? blame(failure) : 'infrastructure';
      const { at } = event.meta;
      const last = withRound(context, at, kind === 'work' ? 'failed' : 'infrastructure', {
        stage: refusalIn(failure)?.stage ?? null,
        reason: failure.message,
        artifact: keptEvidence(failure)?.artifact ?? null,
      });
      return {
        ...afterAssessment(
          assess(progress, spec.limits),
          `${fix.reason} (QA by "${fix.agent}" has ended: ${failure.message})`,
        ),
        fix: null,
        cause: 'work' as const,
        goesOnWith: 'work' as const,
        retryInMs: waitAfter(context, 'work', progress),
        last: last && {
          ...{ ...last, endedAt: at, outcome: fix.outcome },
          ...{ stage: fix.stage, reason: fix.reason },
        },
      };
    }),
    /** Another one is asked to mend it. */
    passFixOn: assign(({ context, event }) => {
      const { fix } = context;
      const failure = failureOf(event);
      const agent = nextFixer(context, failure);
      if (fix === null || agent === undefined) return {};
      const insteadOf = [...fix.insteadOf, { agent: fix.agent, reason: failure.message }];
      return { fix: { ...fix, agent, insteadOf } };
    }),
    noteFixer: assign(({ context }) => {
      const { fix, attempt, fixers, spec } = context;
      if (fix === null) return {};
      const { sessions = 0, iterations = 0 } = spec.qa ?? {};
      return {
        fixers: [...fixers, { attempt, agent: fix.agent }],
        reason: `QA session ${fix.session} of ${sessions}, iteration ${fix.iteration} of ${iterations}: ${fix.reason}`,
      };
    }),
    recordVerdict: assign(({ context, event }) => {
      const verdict = verdictOf(event);
      if (verdict?.verdict === 'rejected') {
        return assessed(context, event.meta.at, {
          kind: 'work',
          reason: verdict.reason,
          judged: true,
          stage: verdict.stage,
          evidence: verdict.evidence,
          feedback: verdict.feedback,
          errorFingerprint: verdict.errorFingerprint,
          changeFingerprint: verdict.changeFingerprint,
          // A verdict that names an error is judged by it. Its feedback is only the output, for the next attempt to
          // read, and would end every task after two attempts where three are meant.
          countFeedback: verdict.errorFingerprint === undefined,
          submission: context.result,
          retryAfterMs: undefined,
          goesOnWith: 'work',
        });
      }
      if (verdict?.verdict === 'infrastructure') {
        return assessed(context, event.meta.at, {
          kind: 'infrastructure',
          reason: verdict.reason,
          judged: false,
          stage: null,
          evidence: verdict.evidence,
          feedback: [],
          errorFingerprint: undefined,
          changeFingerprint: undefined,
          countFeedback: false,
          submission: undefined,
          retryAfterMs: verdict.retryAfterMs,
          goesOnWith: verdict.submissionGone === true ? 'work' : 'verification',
        });
      }
      // Fail closed: neither accepted nor judged, so nobody knows what the work is worth.
      return assessed(context, event.meta.at, {
        kind: 'infrastructure',
        reason:
          verdict?.verdict === 'accepted'
            ? `The gatekeeper "${context.spec.gatekeeper}" accepted it without evidence.`
            : `The gatekeeper "${context.spec.gatekeeper}" answered with something that is no verdict.`,
        judged: false,
        stage: null,
        evidence: null,
        feedback: [],
        errorFingerprint: undefined,
        changeFingerprint: undefined,
        countFeedback: false,
        submission: undefined,
        retryAfterMs: undefined,
        goesOnWith: 'verification',
      });
    }),
    recordAcceptance: assign(({ context, event }) => {
      const verdict = verdictOf(event);
      const artifact = verdict?.evidence.artifact ?? null;
      const last = withRound(context, event.meta.at, 'accepted', { artifact });
      return {
        reason: null,
        cause: null,
        fix: null,
        last: last && {
          ...last,
          endedAt: event.meta.at,
          outcome: 'accepted' as const,
          stage: null,
          evidence: verdict?.evidence ?? null,
        },
      };
    }),
    recordApprovalNeeded: assign(({ context, event }) => {
      const verdict = verdictOf(event);
      const reasons = verdict?.verdict === 'approval_required' ? verdict.reasons : [];
      return {
        reason: `Approval is needed: ${reasons.join('; ')}`,
        last: context.last && {
          ...context.last,
          stage: (verdict?.verdict === 'approval_required' ? verdict.stage : undefined) ?? null,
          evidence: verdict?.evidence ?? null,
        },
      };
    }),
    recordCancelled: assign(({ context, event }) => ({
      reason: event.type === 'task.cancel' ? event.reason : 'Cancelled by decision.',
      question: null,
      fix: null,
      last: ended(withRound(context, event.meta.at, 'cancelled'), event.meta.at, 'cancelled', null),
    })),

    /** It was stopped, not judged: the attempt is nobody's fault. */
    noteTimeUp: assign(({ context, event }) =>
      event.type === 'task.timeUp'
        ? {
            reason: event.reason,
            cause: 'work' as const,
            question: null,
            fix: null,
            last: ended(
              withRound(context, event.meta.at, 'cancelled'),
              event.meta.at,
              'cancelled',
              event.reason,
            ),
          }
        : {},
    ),
    keepForVerification: assign({ goesOnWith: 'verification' }),
    noteCompensations: assign(({ context, event }) => {
      if ('error' in event) {
        return { reason: `${context.reason ?? 'Cancelled.'} Not put away: ${event.error.message}` };
      }
      const report = ('output' in event ? event.output : null) as Partial<CancelReport> | null;
      const notes = [context.reason ?? 'Cancelled.'];
      if (report?.notStopped?.length) {
        notes.push(`Not stopped in time: ${report.notStopped.join(', ')}.`);
      }
      if (report?.compensated?.length) notes.push(`Taken back: ${report.compensated.join(', ')}.`);
      for (const { step, reason } of report?.failed ?? []) {
        notes.push(`Not taken back: ${step} (${reason}).`);
      }
      const { stopped = [], notStopped = [], compensated = [], failed = [] } = report ?? {};
      return {
        reason: notes.join(' '),
        cancellation: { stopped, notStopped, compensated, failed },
      };
    }),
    /** A person or a policy gives it another chance: budgets and streaks start again. */
    startAgain: assign(({ context, event }) => {
      const decision = decisionOf(event);
      return {
        progress: emptyProgress(),
        ...handedOver(
          context,
          (decision?.decision === 'reassign' ? decision.agent : undefined) ??
            context.fellBackFrom ??
            context.agent,
        ),
        fellBackFrom: null,
        insteadOf: null,
        guidance:
          decision?.guidance === undefined
            ? context.guidance
            : [...context.guidance, decision.guidance].slice(-MAX_NOTES),
        ...withoutLost(context),
        reason: null,
        cause: null,
        // Whoever has advice for the agent, or another agent, wants the work done anew.
        goesOnWith:
          decision?.decision === 'reassign' || decision?.guidance ? 'work' : context.goesOnWith,
        retryInMs: event.type === 'task.unblock' ? (event.delayMs ?? 0) : 0,
        ...policyMemory(context, event),
        fix: null,
        sessions: 0,
        // What waited for approval did not get it.
        last: ended(
          withRound(context, event.meta.at, 'cancelled'),
          event.meta.at,
          'rejected',
          context.reason,
        ),
      };
    }),
    noteApproval: assign(({ context, event }) => ({
      approved: true,
      reason: null,
      cause: null,
      ...policyMemory(context, event),
    })),
    noteBlockedByDecision: assign(({ context, event }) => ({
      reason: decisionOf(event)?.guidance || 'Blocked by decision.',
      cause: 'work' as const,
      ...policyMemory(context, event),
      fix: null,
      last: ended(
        withRound(context, event.meta.at, 'cancelled'),
        event.meta.at,
        'rejected',
        context.reason,
      ),
    })),
    dependencyDone: assign(({ context, event }) =>
      event.type === 'task.dependencyEnded'
        ? {
            remaining: context.remaining.filter((id) => id !== event.task),
            heard: context.heard + 1,
          }
        : {},
    ),
    /** For a task that has ended, to which it makes no difference. */
    dependencyHeard: assign(({ context }) => ({ heard: context.heard + 1 })),
    dependencyLost: assign(({ context, event }) =>
      event.type === 'task.dependencyEnded'
        ? {
            heard: context.heard + 1,
            lost: [...context.lost.filter((id) => id !== event.task), event.task],
            reason: `It depends on "${event.task}", which was cancelled. Retry it to go on without, or cancel it.`,
            cause: 'work' as const,
          }
        : {},
    ),
    tellDependants: command(
      ({ context, enqueue }, params: { readonly outcome: 'done' | 'cancelled' }) => {
        for (const dependant of context.spec.dependants) {
          enqueue({
            type: 'send',
            params: {
              to: taskAddress(context.spec.run, dependant),
              message: {
                type: 'task.dependencyEnded',
                task: context.spec.id,
                outcome: params.outcome,
              },
            },
          });
        }
      },
    ),
    /** What is not done of what it depends on is not waited for any more, but for its end: it is told to end. */
    skipDependencies: command(({ context, event, enqueue }) => {
      const by = event.type === 'task.skipTo' ? event.by : '';
      const { without, ...rest } = withoutLost(context);
      const skipped = union(without, rest.remaining);
      enqueueSkips(enqueue, context, skipped, {
        by,
        reason: `Skipped by ${by}: "${context.spec.id}" goes on without it.`,
        skippedFor: context.spec.id,
      });
      enqueue.assign({ ...rest, without: skipped, staged: false });
    }),
    forgetReason: assign({ reason: null, cause: null }),
    /** Skipped, it takes along what only has to be done for it. */
    skipOn: command(({ context, event, enqueue }) => {
      if (event.type !== 'task.cancel' || event.skippedFor === undefined) return;
      // Told by each of those that depend on it, it tells its own once.
      if (context.skippedFor !== null) return;
      const { by, reason, skippedFor } = event;
      const open = union(context.remaining, context.lost, context.without);
      enqueueSkips(enqueue, context, open, { by, reason, skippedFor });
      enqueue.assign({ skippedFor });
    }),
    /** For a state that hearing of a dependency does not change. */
    sayHeard: durable.enqueueActions(({ context, enqueue }) => {
      enqueue({
        type: 'send',
        params: {
          to: runAddress(context.spec.run),
          message: {
            type: 'run.taskChanged',
            task: context.spec.id,
            from: context.told,
            to: context.told,
            telling: 0,
            heard: context.heard,
            claim: context.claim ?? null,
          },
        },
      });
      enqueue.assign({ heard: 0 });
    }),
    enable: assign({ staged: false }),
    noteClaim: assign(({ event }) =>
      event.type === 'task.claim' && event.claim !== undefined ? { claim: event.claim } : {},
    ),
    askPause: assign({ pauseAsked: true }),
    clearPause: assign({ pauseAsked: false }),
  },
  guards: {
    isStaged: ({ context }) => context.staged,
    hasLostDependency: ({ context }) => context.lost.length > 0,
    mustWait: ({ context }) => context.remaining.length > 0,
    mustFix: ({ context }) => context.next === 'fix',
    mayRetry: ({ context }) => context.next === 'retry',
    mayRetryButPaused: ({ context }) => context.next === 'retry' && context.pauseAsked,
    mustBlock: ({ context }) => context.next === 'blocked',
    pauseAsked: ({ context }) => context.pauseAsked,
    mustVerify: ({ context }) => context.goesOnWith === 'verification',
    agentIsUnknown: ({ event }) => {
      const failure = failureOf(event);
      return failure.code === 'not_found' && !isFromAgent(failure);
    },
    /** It was not asked, for it cannot be, or does not exist; and another one may be. */
    hasStandIn: ({ context, event }) => {
      const failure = failureOf(event);
      const wasNotAsked =
        isUnreachable(failure) || (failure.code === 'not_found' && !isFromAgent(failure));
      return wasNotAsked && nextAgent(context, failure) !== undefined;
    },
    /** Whoever was asked to mend it cannot be asked, or could not work; and another one may be asked. */
    fixerHasStandIn: ({ context, event }) => {
      const failure = failureOf(event);
      const couldNot = isFromAgent(failure) ? couldNotWork(failure) : failure.code === 'not_found';
      return couldNot && nextFixer(context, failure) !== undefined;
    },
    /** It was refused where it was made, as a gatekeeper would have. */
    isRefusedWork: ({ event }) => {
      const refusal = refusalIn(failureOf(event));
      return refusal?.submission !== undefined && isFixable(refusal.stage);
    },
    isFixing: ({ context }) => context.fix !== null,
    isUnpreparedFix: ({ context }) => context.fix !== null && context.rewound === 'unprepared',
    diedTooOften: ({ event }) => interruptionsIn(failureOf(event)) !== undefined,
    isSubmission: ({ event }) => workOutcome(event)?.outcome === 'submitted',
    isQuestion: ({ event }) => workOutcome(event)?.outcome === 'question',
    isUnprepared: ({ context }) => context.rewound === 'unprepared',
    hasDefaultAnswer: ({ context }) => context.question?.default !== undefined,
    asksInTime: ({ context }) => context.question?.timeoutMs !== undefined,
    isAccepted: ({ event }) => {
      const verdict = verdictOf(event);
      return verdict?.verdict === 'accepted' && hasEvidence(verdict.evidence);
    },
    needsApproval: ({ event }) => verdictOf(event)?.verdict === 'approval_required',
    answersTheQuestion: ({ context, event }) =>
      event.type === 'task.answer' &&
      event.question === context.question?.id &&
      isChoice(context.question, event.answer),
    isLastDependency: ({ context, event }) =>
      isOutOfTheWay(context, event) &&
      'task' in event &&
      context.remaining.every((id) => id === event.task),
    dependencyIsOutOfTheWay: ({ context, event }) => isOutOfTheWay(context, event),
    waitsForOthers: ({ context }) => context.remaining.length + context.lost.length > 0,
    decidesRetry: ({ event }) => {
      const decision = decisionOf(event);
      return (
        decision?.decision === 'retry' ||
        (decision?.decision === 'reassign' && decision.agent !== undefined)
      );
    },
    decidesApprove: ({ context, event }) =>
      decisionOf(event)?.decision === 'approve' && context.submitted,
    policyIsUsedUp: ({ context }) => context.policyRounds >= POLICY_ROUNDS,
    /** Nobody answered in time (the process was down for a day, say): the work goes on, and must not be done twice. */
    isOverdue: ({ event }) => 'failure' in event && event.failure.code === 'timeout',
    decidesBlock: ({ event }) => decisionOf(event)?.decision === 'block',
    decidesCancel: ({ event }) => decisionOf(event)?.decision === 'cancel',
    unblocksLater: ({ event }) => event.type === 'task.unblock' && (event.delayMs ?? 0) > 0,
  },
  delays: {
    backoff: ({ context }) => context.retryInMs,
    // Without a limit the wait has no end; the timer is not reached within a lifetime.
    answerTime: ({ context }) => context.question?.timeoutMs ?? 2 ** 45,
  },
});

/** Decisions come from people (`task.decide`) and as the overseer's answer; both lead to the same places. */
const decisions = () => {
  const branches = (people: boolean) => {
    const told = (state: TaskState) =>
      people ? ([{ type: 'answer', params: { state } }] as const) : [];
    return [
      {
        guard: 'decidesRetry',
        target: '#task.admitting',
        actions: people ? (['startAgain', 'answerAdmitted'] as const) : (['startAgain'] as const),
      },
      {
        guard: 'decidesApprove',
        target: '#task.verifying',
        actions: ['noteApproval', ...told('verifying')],
      },
      {
        guard: 'decidesBlock',
        target: '#task.blocked',
        actions: ['noteBlockedByDecision', ...told('blocked')],
      },
      {
        guard: 'decidesCancel',
        target: '#task.cancelling',
        actions: ['recordCancelled', ...told('cancelling')],
      },
    ] as const;
  };
  return { people: branches(true), policy: branches(false) };
};

const decide = decisions();

/** First a policy is asked; only when it leaves the case undecided does the task wait for a person. */
const policyThenPerson = (state: 'escalated' | 'awaitingApproval') =>
  ({
    initial: 'choosing',
    exit: 'forgetOverseer',
    states: {
      choosing: {
        always: [
          { guard: 'policyIsUsedUp', target: 'waiting', actions: 'notePolicyUsedUp' },
          { target: 'asking' },
        ],
      },
      asking: {
        entry: [
          'countRequest',
          { type: 'askOverseer', params: { state } },
          { type: 'tellRun', params: { phase: 'delayed' } },
        ],
        on: {
          // Also what was not begun yet then: it may have been done since.
          'task.rewound': { target: 'asking', reenter: true, actions: 'expectMerged' },
          'overseer.escalate:ok': [...decide.policy, { target: 'waiting' }],
          'overseer.escalate:err': { target: 'waiting', actions: 'notePolicyFailed' },
        },
      },
      waiting: {
        entry: {
          type: 'tellRun',
          params: { phase: 'person', ...(state === 'escalated' ? { escalated: true } : {}) },
        },
      },
    },
  }) as const;

const cancellable = {
  'task.cancel': {
    target: 'cancelling',
    actions: ['recordCancelled', 'skipOn', { type: 'answer', params: { state: 'cancelling' } }],
  },
} as const;

/** Where dependencies are waited for, or may be: it goes on without those that are not done. */
const skippable = {
  'task.skipTo': {
    target: '#task.admitting',
    actions: ['skipDependencies', 'forgetReason', 'answerAdmitted'],
  },
} as const;

/** It does not wait for dependencies, or not only: it stays as it is. */
const skippableAsIs = (state: TaskState) =>
  ({
    'task.skipTo': {
      actions: ['skipDependencies', { type: 'answer', params: { state } }],
    },
  }) as const;

/** The time of its phase, or of the workflow, is used up: it waits for a decision. Where it is held already it stays. */
const timed = { 'task.timeUp': { target: 'escalated', actions: 'noteTimeUp' } } as const;

const pausable = {
  'task.pause': {
    target: 'paused',
    actions: { type: 'answer', params: { state: 'paused' } },
  },
} as const;

/** A running attempt is not torn up: the pause holds when it ends. */
const pausableLater = (state: TaskState) => {
  const answer = { type: 'answer', params: { state } } as const;
  return {
    'task.pause': { actions: ['askPause', answer] },
    'task.resume': { actions: ['clearPause', answer] },
  } as const;
};

/** Another chance without a word: at once, or, when many are unblocked together, a little later. */
const unblockable = {
  'task.unblock': [
    {
      guard: 'unblocksLater',
      target: '#task.retrying',
      reenter: true,
      actions: ['startAgain', { type: 'answer', params: { state: 'retrying' } }],
    },
    { target: '#task.admitting', actions: ['startAgain', 'answerAdmitted'] },
  ],
} as const;

/** A claim repeated for a task that has its place: it keeps it. */
const claimed = (state: TaskState) =>
  ({ 'task.claim': { actions: ['noteClaim', { type: 'answer', params: { state } }] } }) as const;

/** Cancelled, it only counts the ends of its dependencies; why it was cancelled stays what it says. */
const deaf = {
  'task.dependencyEnded': { actions: ['dependencyHeard', 'sayHeard'] },
} as const;

const refuseIn = (state: TaskState) => {
  const refuse = { actions: { type: 'refuse', params: { state } } } as const;
  return {
    'task.skipTo': refuse,
    'task.claim': refuse,
    'task.decide': refuse,
    'task.answer': refuse,
    'task.unblock': refuse,
    'task.pause': refuse,
    // A pause that was asked while an attempt ran can be taken back wherever the task has got to since.
    'task.resume': [
      {
        guard: 'pauseAsked',
        actions: ['clearPause', { type: 'answer', params: { state } }],
      },
      refuse,
    ],
  } as const;
};

/**
 * One task, from waiting for others to done or cancelled.
 *
 *     waiting ─deps done→ ready ─claimed→ preparing → working → verifying ─accepted→ done
 *        ▲ staged/enabled    ▲                │infra     │ ▲ ▲ question ↔ awaitingInput
 *        │                   │                │          │ │ │      ↔ awaitingApproval
 *        │                   │                │          │ │ └────────────────────────── retrying.verifyAgain
 *        │                   │                ▼          ▼ ▼ rejected, not verified            ▲
 *        └───────── retrying.workAgain ◄──── assessing: budget? progress? loop? ───────────────┘ not verified
 *                                             │no progress      │out of budget,    │rejected, and somebody mends it
 *                                             ▼                 ▼ same feedback    ▼
 *                                          blocked           escalated          fixing → verifying
 *                                                               └→ retry, approve, block, cancel
 *        paused (from any state where nothing runs)           cancelling → cancelled
 *
 * `done` and `cancelled` are final: what comes later is refused by the host. `blocked` has a reason and can be
 * undone. `fixing` is a part of an attempt: it goes back to `assessing` when nobody could mend it. Every failed attempt goes through `assessing`, and nothing but a gatekeeper's `accepted` leads to `done`.
 */
export const taskMachine = base.createMachine({
  id: 'task',
  context: ({ input }) => ({
    spec: input,
    agent: input.agent,
    staged: input.staged,
    remaining: input.dependsOn,
    lost: [],
    without: [],
    skippedFor: null,
    attempt: 0,
    asked: 0,
    progress: emptyProgress(),
    feedback: [],
    guidance: input.guidance ?? [],
    answers: {},
    question: null,
    workspace: null,
    result: null,
    submitted: false,
    approved: false,
    last: null,
    reason: null,
    cause: null,
    next: 'retry' as const,
    retryInMs: 0,
    goesOnWith: 'work' as const,
    fix: null,
    sessions: 0,
    fixers: [],
    pauseAsked: false,
    rewound: 'no' as const,
    policyRounds: 0,
    decided: [],
    told: phaseOf(startState(input)),
    heard: 0,
  }),
  initial: 'admitting',
  on: {
    'task.dependencyEnded': [
      { guard: 'dependencyIsOutOfTheWay', actions: ['dependencyDone', 'sayHeard'] },
      { actions: ['dependencyLost', 'sayHeard'] },
    ],
    // Rolled back to before an attempt that had been begun: when it is made again, it may be found merged.
    'task.rewound': { actions: 'expectMerged' },
    // Paused before it was enabled: it will not be staged when it is resumed.
    'task.enable': { guard: 'isStaged', actions: 'enable' },
  },
  states: {
    /** Passed through at once: where does it stand? */
    admitting: {
      always: [
        { guard: 'isStaged', target: 'staged' },
        { guard: 'hasLostDependency', target: 'blocked' },
        { guard: 'mustWait', target: 'waiting' },
        { guard: 'pauseAsked', target: 'paused' },
        { guard: 'mustVerify', target: 'verifying' },
        { target: 'ready' },
      ],
    },
    staged: {
      entry: { type: 'tellRun', params: { phase: 'waiting' } },
      on: {
        ...refuseIn('staged'),
        ...cancellable,
        ...skippable,
        ...timed,
        ...pausable,
        'task.enable': { target: 'admitting', actions: 'enable' },
      },
    },
    waiting: {
      entry: { type: 'tellRun', params: { phase: 'waiting' } },
      on: {
        ...refuseIn('waiting'),
        ...cancellable,
        ...skippable,
        ...timed,
        ...pausable,
        'task.dependencyEnded': [
          { guard: 'isLastDependency', target: 'ready', actions: 'dependencyDone' },
          { guard: 'dependencyIsOutOfTheWay', actions: ['dependencyDone', 'sayHeard'] },
          { target: 'blocked', actions: 'dependencyLost' },
        ],
      },
    },
    ready: {
      entry: { type: 'tellRun', params: { phase: 'ready', withAgent: true } },
      on: {
        ...refuseIn('ready'),
        ...skippableAsIs('ready'),
        ...cancellable,
        ...timed,
        ...pausable,
        'task.claim': {
          target: 'preparing',
          actions: ['noteClaim', { type: 'answer', params: { state: 'preparing' } }],
        },
      },
    },
    preparing: {
      entry: ['beginAttempt', { type: 'tellRun', params: { phase: 'active', withAgent: true } }],
      invoke: {
        id: 'prepare',
        src: 'prepare',
        input: ({ context }) => workspaceInput(context, false),
        onDone: { target: 'working', actions: 'keepWorkspace' },
        onError: [
          { guard: 'diedTooOften', target: 'escalated', actions: 'noteInterruptions' },
          { target: 'assessing', actions: 'recordFailure' },
        ],
      },
      on: {
        ...refuseIn('preparing'),
        ...skippableAsIs('preparing'),
        ...claimed('preparing'),
        ...cancellable,
        ...timed,
        ...pausableLater('preparing'),
      },
    },
    working: {
      entry: [
        'countRequest',
        'askAgent',
        { type: 'tellRun', params: { phase: 'active', withAgent: true } },
      ],
      on: {
        ...refuseIn('working'),
        ...skippableAsIs('working'),
        ...claimed('working'),
        ...pausableLater('working'),
        'task.rewound': { target: 'preparing', actions: 'beginAgain' },
        'task.timeUp': { target: 'escalated', actions: ['recallAgent', 'noteTimeUp'] },
        'agent.work:ok': [
          { guard: 'isSubmission', target: 'verifying', actions: 'keepResult' },
          { guard: 'isQuestion', target: 'awaitingInput', actions: 'keepQuestion' },
          { target: 'assessing', actions: 'recordFailure' },
        ],
        'agent.work:err': [
          { guard: 'hasStandIn', target: 'working', reenter: true, actions: 'fallBack' },
          { guard: 'agentIsUnknown', target: 'escalated', actions: 'noteUnknownAgent' },
          { guard: 'diedTooOften', target: 'escalated', actions: 'noteInterruptions' },
          { guard: 'isOverdue', target: 'assessing', actions: ['recallAgent', 'recordFailure'] },
          { target: 'assessing', actions: 'recordFailure' },
        ],
        'task.cancel': {
          target: 'cancelling',
          actions: [
            'recallAgent',
            'recordCancelled',
            'skipOn',
            { type: 'answer', params: { state: 'cancelling' } },
          ],
        },
      },
    },
    awaitingInput: {
      entry: { type: 'tellRun', params: { phase: 'person' } },
      after: {
        answerTime: [
          { guard: 'hasDefaultAnswer', target: 'goingOn', actions: 'takeDefaultAnswer' },
          { guard: 'asksInTime', target: 'escalated', actions: 'noteUnanswered' },
        ],
      },
      on: {
        ...refuseIn('awaitingInput'),
        ...skippableAsIs('awaitingInput'),
        ...cancellable,
        ...timed,
        ...pausableLater('awaitingInput'),
        'task.rewound': { actions: 'losePreparation' },
        'task.answer': [
          {
            guard: 'answersTheQuestion',
            target: 'goingOn',
            actions: ['keepAnswer', 'answerGoingOn'],
          },
          { actions: { type: 'refuse', params: { state: 'awaitingInput' } } },
        ],
      },
    },
    /** Passed through at once, with an answer: back to work, in the workspace it was asked in or in a new one. */
    goingOn: {
      always: [
        { guard: 'isUnpreparedFix', target: 'fixing', actions: 'expectMerged' },
        { guard: 'isFixing', target: 'fixing.working' },
        { guard: 'isUnprepared', target: 'preparing', actions: 'beginAgain' },
        { target: 'working' },
      ],
    },
    verifying: {
      entry: [
        'reopenAttempt',
        'countRequest',
        'askGatekeeper',
        { type: 'tellRun', params: { phase: 'verifying' } },
      ],
      on: {
        ...refuseIn('verifying'),
        ...skippableAsIs('verifying'),
        ...claimed('verifying'),
        ...pausableLater('verifying'),
        // What was handed in is part of the state.
        'task.rewound': { target: 'verifying', reenter: true },
        // What was handed in is kept, and is verified if somebody lets it go on.
        'task.timeUp': {
          target: 'escalated',
          actions: ['recallGatekeeper', 'noteTimeUp', 'keepForVerification'],
        },
        'gatekeeper.verify:ok': [
          { guard: 'isAccepted', target: 'done', actions: 'recordAcceptance' },
          { guard: 'needsApproval', target: 'awaitingApproval', actions: 'recordApprovalNeeded' },
          { target: 'assessing', actions: 'recordVerdict' },
        ],
        'gatekeeper.verify:err': [
          { guard: 'diedTooOften', target: 'escalated', actions: 'noteInterruptions' },
          {
            guard: 'isOverdue',
            target: 'assessing',
            actions: ['recallGatekeeper', 'recordFailure'],
          },
          { target: 'assessing', actions: 'recordFailure' },
        ],
        'task.cancel': {
          target: 'cancelling',
          actions: [
            'recallGatekeeper',
            'recordCancelled',
            'skipOn',
            { type: 'answer', params: { state: 'cancelling' } },
          ],
        },
      },
    },
    /**
     * It was rejected, and another agent mends it where it is: on the same branch, from what was handed in. A part of the
     * attempt: a pause that is asked for holds when that ends.
     */
    fixing: {
      entry: { type: 'tellRun', params: { phase: 'active', withAgent: true } },
      initial: 'preparing',
      on: {
        ...refuseIn('fixing'),
        ...skippableAsIs('fixing'),
        ...claimed('fixing'),
        ...pausableLater('fixing'),
        'task.timeUp': { target: 'escalated', actions: ['recallAgent', 'noteTimeUp'] },
        'task.cancel': {
          target: 'cancelling',
          actions: [
            'recallAgent',
            'recordCancelled',
            'skipOn',
            { type: 'answer', params: { state: 'cancelling' } },
          ],
        },
      },
      states: {
        preparing: {
          entry: ['reopenAttempt', 'noteFixer'],
          invoke: {
            id: 'prepare',
            src: 'prepare',
            input: ({ context }) => workspaceInput(context, false),
            onDone: { target: 'working', actions: 'keepWorkspace' },
            onError: [
              { guard: 'diedTooOften', target: '#task.escalated', actions: 'noteInterruptions' },
              { target: '#task.assessing', actions: 'recordFixFailure' },
            ],
          },
        },
        working: {
          entry: ['countRequest', 'askAgent'],
          on: {
            'task.rewound': { target: 'preparing', actions: 'expectMerged' },
            'agent.work:ok': [
              { guard: 'isSubmission', target: '#task.verifying', actions: 'keepResult' },
              { guard: 'isQuestion', target: '#task.awaitingInput', actions: 'keepQuestion' },
              { target: '#task.assessing', actions: 'recordFixFailure' },
            ],
            'agent.work:err': [
              { guard: 'fixerHasStandIn', target: 'preparing', actions: 'passFixOn' },
              { guard: 'diedTooOften', target: '#task.escalated', actions: 'noteInterruptions' },
              { guard: 'isRefusedWork', target: '#task.assessing', actions: 'recordFailure' },
              {
                guard: 'isOverdue',
                target: '#task.assessing',
                actions: ['recallAgent', 'recordFixFailure'],
              },
              { target: '#task.assessing', actions: 'recordFixFailure' },
            ],
          },
        },
      },
    },
    /** Passed through at once: which budget, is there progress, is it a loop? May another one mend it? */
    assessing: {
      always: [
        { guard: 'mustFix', target: 'fixing' },
        { guard: 'mustBlock', target: 'blocked' },
        { guard: 'mayRetryButPaused', target: 'paused' },
        { guard: 'mayRetry', target: 'retrying' },
        { target: 'escalated' },
      ],
    },
    /** Holds no place anywhere. Its name says what comes next; `admitting` leads there. */
    retrying: {
      initial: 'choosing',
      entry: { type: 'tellRun', params: { phase: 'delayed' } },
      after: { backoff: 'admitting' },
      states: {
        choosing: { always: [{ guard: 'mustVerify', target: 'verifyAgain' }, 'workAgain'] },
        /** What was handed in could not be verified: it is kept, and only that is tried again. */
        verifyAgain: {},
        workAgain: {},
      },
      on: {
        ...refuseIn('retrying'),
        ...skippableAsIs('retrying'),
        ...cancellable,
        ...timed,
        ...pausable,
        ...unblockable,
      },
    },
    blocked: {
      meta: { milestone: 'blocked' },
      entry: { type: 'tellRun', params: { phase: 'stuck' } },
      on: {
        ...refuseIn('blocked'),
        'task.skipTo': [
          { guard: 'waitsForOthers', ...skippable['task.skipTo'] },
          skippableAsIs('blocked')['task.skipTo'],
        ],
        ...cancellable,
        ...unblockable,
        'task.decide': [
          ...decide.people,
          { actions: { type: 'refuse', params: { state: 'blocked' } } },
        ],
      },
    },
    escalated: {
      ...policyThenPerson('escalated'),
      on: {
        ...refuseIn('escalated'),
        ...skippableAsIs('escalated'),
        ...cancellable,
        ...unblockable,
        'task.decide': [
          ...decide.people,
          { actions: { type: 'refuse', params: { state: 'escalated' } } },
        ],
      },
    },
    awaitingApproval: {
      ...policyThenPerson('awaitingApproval'),
      on: {
        ...refuseIn('awaitingApproval'),
        ...skippableAsIs('awaitingApproval'),
        ...cancellable,
        'task.decide': [
          ...decide.people,
          { actions: { type: 'refuse', params: { state: 'awaitingApproval' } } },
        ],
      },
    },
    paused: {
      entry: { type: 'tellRun', params: { phase: 'person' } },
      on: {
        ...refuseIn('paused'),
        ...skippableAsIs('paused'),
        ...cancellable,
        'task.resume': {
          target: 'admitting',
          actions: ['clearPause', 'answerAdmitted'],
        },
      },
    },
    cancelling: {
      entry: { type: 'tellRun', params: { phase: 'active' } },
      invoke: {
        id: 'release',
        src: 'release',
        input: ({ context }) => workspaceInput(context, true),
        onDone: { target: 'cancelled', actions: 'noteCompensations' },
        // What could not be put away is queued by the effect itself; it does not hold up the end.
        onError: { target: 'cancelled', actions: 'noteCompensations' },
      },
      on: {
        ...refuseIn('cancelling'),
        ...deaf,
        'task.cancel': {
          actions: ['skipOn', { type: 'answer', params: { state: 'cancelling' } }],
        },
      },
    },
    /** The end. Not `final` for the host: it still says that it has heard how its dependencies ended. */
    cancelled: {
      meta: { milestone: 'cancelled' },
      entry: [
        { type: 'tellRun', params: { phase: 'cancelled' } },
        { type: 'tellDependants', params: { outcome: 'cancelled' } },
      ],
      on: {
        ...refuseIn('cancelled'),
        ...deaf,
        'task.cancel': { actions: ['skipOn', { type: 'answer', params: { state: 'cancelled' } }] },
      },
    },
    done: {
      type: 'final',
      meta: { milestone: 'done' },
      entry: [
        { type: 'tellRun', params: { phase: 'done' } },
        { type: 'tellDependants', params: { outcome: 'done' } },
      ],
    },
  },
});

/** The state a new task is in after its initial turn; the run that made it knows, and need not be told. */
export function startState(spec: TaskSpec): TaskState {
  if (spec.staged) return 'staged';
  return spec.dependsOn.length > 0 ? 'waiting' : 'ready';
}

/** Who does it from now on, and who did it so far: each takes back what it has done itself. */
function handedOver(
  { agent, agentsBefore = [], attempt }: Pick<TaskContext, 'agent' | 'agentsBefore' | 'attempt'>,
  next: string,
): Pick<TaskContext, 'agent' | 'agentsBefore'> {
  if (next === agent || attempt <= 0) return { agent: next };
  return { agent: next, agentsBefore: [...agentsBefore, { upTo: attempt, agent }] };
}

/** Who has it in hand: its agent, or whoever mends what that one has handed in. */
export const doer = ({ agent, fix }: Pick<TaskContext, 'agent' | 'fix'>): string =>
  fix?.agent ?? agent;

/** Who is asked after whoever mends it now. */
const nextFixer = ({ spec, fix }: TaskContext, failure: Failure): string | undefined => {
  if (fix === null) return undefined;
  const { agents = [] } = spec.qa ?? {};
  return nextInChain(agents.length > 1 ? agents : undefined, fix.agent, failure, fix.insteadOf);
};

/** What whoever mends it is given besides the task. */
function fixOrder(context: TaskContext): { readonly fix?: FixOrder } {
  const { fix, spec, attempt, last, result, fixers } = context;
  if (fix === null) return {};
  const { sessions = fix.session, iterations = fix.iteration } = spec.qa ?? {};
  const evidence = last?.evidence ?? null;
  return {
    fix: {
      number: Math.max(1, fixers.filter((one) => one.attempt === attempt).length),
      ...{ session: fix.session, sessions, iteration: fix.iteration, iterations },
      ...{ stage: fix.stage, reason: fix.reason },
      instruction: fixInstruction(attempt, fix.stage, fix.reason, evidence),
      artifact: evidence?.artifact ?? null,
      commands: [...failedCommands(evidence)],
      result,
    },
  };
}

/** The attempt, with how the try to mend it that is under way has ended. */
function withRound(
  { fix, last }: TaskContext,
  at: number,
  outcome: FixRound['outcome'],
  {
    stage = null,
    reason = null,
    artifact = null,
  }: Partial<Pick<FixRound, 'stage' | 'reason' | 'artifact'>> = {},
): AttemptSummary | null {
  if (fix === null || last === null) return last;
  const { session, iteration, agent, startedAt, insteadOf } = fix;
  const round: FixRound = {
    ...{ session, iteration, agent, startedAt, endedAt: at, outcome, stage, artifact },
    reason: reason?.slice(0, MAX_ROUND_REASON) ?? null,
    ...(insteadOf.length === 0 ? {} : { insteadOf }),
  };
  return { ...last, fixes: [...(last.fixes ?? []), round].slice(-MAX_ROUNDS) };
}

function workspaceInput(context: TaskContext, cancelled: boolean): WorkspaceInput {
  const { run, id, gatekeeper, limits } = context.spec;
  return {
    run,
    id,
    agent: context.agent,
    gatekeeper,
    attempt: context.attempt,
    cancelled,
    interruptions: limits.interruptions,
    ...(context.agentsBefore === undefined ? {} : { agentsBefore: context.agentsBefore }),
    ...(context.fix === null ? {} : { submission: context.result }),
    ...(context.fixers.length === 0 ? {} : { fixers: context.fixers }),
  };
}

function workOutcome(event: TaskEvent): WorkOutcome | undefined {
  return event.type === 'agent.work:ok' ? event.reply : undefined;
}

/** Undefined for anything that is no verdict: what is read from it later must be there. */
function verdictOf(event: TaskEvent): Verdict | undefined {
  const verdict = event.type === 'gatekeeper.verify:ok' ? event.reply : undefined;
  if (!Array.isArray(verdict?.evidence?.commands)) return undefined;
  switch (verdict.verdict) {
    case 'accepted':
      return verdict;
    case 'rejected':
      return typeof verdict.reason === 'string' && areTexts(verdict.feedback) ? verdict : undefined;
    case 'approval_required':
      return areTexts(verdict.reasons) ? verdict : undefined;
    case 'infrastructure':
      return typeof verdict.reason === 'string' ? verdict : undefined;
    default:
      return undefined;
  }
}

/** Back to its own agent, if another one has stood in. */
const withOwnAgent = (context: TaskContext) => ({
  ...handedOver(context, context.fellBackFrom ?? context.agent),
  fellBackFrom: null,
});

/** Who is asked after the agent that has it now, as far as this attempt has not been asked of it in vain. */
const nextAgent = ({ spec, agent, last }: TaskContext, failure: Failure): string | undefined =>
  nextInChain(spec.chain, agent, failure, last?.by?.insteadOf ?? []);

/** Those that could not do it, the present one last. */
const inVain = ({ agent, last }: TaskContext, { message }: Failure): readonly Unreached[] => [
  ...(last?.by?.insteadOf ?? []),
  { agent, reason: message },
];

/** What shows how an attempt went that never came to a gatekeeper, and the artifact it may have left. */
function keptEvidence(failure: Failure): Evidence | null {
  if (!isFromAgent(failure)) return null;
  const artifact = failure.context?.['artifact'];
  const refused = blame(failure) === 'work' ? refusalIn(failure)?.evidence : undefined;
  if (typeof artifact !== 'string') return refused ?? null;
  return { commands: [], ...refused, artifact };
}

const areTexts = (value: unknown): boolean =>
  Array.isArray(value) && value.every((item) => typeof item === 'string');

const hasEvidence = (evidence: Evidence): boolean =>
  evidence.artifact !== undefined || evidence.commands.length > 0;

const isChoice = ({ choices }: Question, answer: JsonValue): boolean =>
  choices === undefined || choices.length === 0 || choices.includes(answer as string);

const union = (...lists: readonly (readonly string[])[]): readonly string[] => [
  ...new Set(lists.flat()),
];

/** Going on without what is lost. */
const withoutLost = ({
  remaining,
  lost,
  without,
}: TaskContext): Pick<TaskContext, 'remaining' | 'lost' | 'without'> => ({
  remaining: remaining.filter((id) => !lost.includes(id)),
  lost: [],
  without: union(without, lost),
});

/** It is done, or was cancelled and is not waited for. */
const isOutOfTheWay = ({ without }: TaskContext, event: TaskEvent): boolean =>
  event.type === 'task.dependencyEnded' &&
  (event.outcome === 'done' || without.includes(event.task));

type Skip = Omit<Extract<TaskEvent, { readonly type: 'task.cancel' }>, 'type' | 'meta'>;

function enqueueSkips(
  enqueue: (action: { readonly type: 'send'; readonly params: SendParams }) => void,
  { spec }: TaskContext,
  tasks: readonly string[],
  skip: Skip,
): void {
  for (const task of tasks) {
    enqueue({
      type: 'send',
      params: { to: taskAddress(spec.run, task), message: { type: 'task.cancel', ...skip } },
    });
  }
}

/** Where `admitting` leads. */
function admittedState(context: TaskContext): TaskState {
  if (context.staged) return 'staged';
  if (context.lost.length > 0) return 'blocked';
  if (context.remaining.length > 0) return 'waiting';
  if (context.pauseAsked) return 'paused';
  return context.goesOnWith === 'verification' ? 'verifying' : 'ready';
}

/** Why an order is refused. */
function refusal(context: TaskContext, event: TaskEvent, state: TaskState): Failure {
  const refused = (code: 'conflict' | 'validation', message: string): Failure => ({
    code,
    message,
    retryable: false,
    context: { state },
  });
  const { question } = context;
  if (event.type === 'task.answer' && state === 'awaitingInput' && question !== null) {
    return event.question === question.id
      ? refused(
          'validation',
          `Expected the answer to "${question.text}" to be one of ${question.choices?.join(', ')}.`,
        )
      : refused('conflict', `The task asks "${question.id}" now, not "${event.question}".`);
  }
  const decision = event.type === 'task.decide' && DECIDABLE.includes(state) && event.decision;
  if (decision === 'approve') {
    return refused('conflict', 'There is nothing to approve: its last attempt handed nothing in.');
  }
  if (decision === 'reassign') {
    return refused('validation', 'To reassign a task, name the agent that takes over.');
  }
  return refused('conflict', `The task is ${state}: "${event.type}" is not possible now.`);
}

/** The attempt as it ended; one that had ended before stays as it was. */
function ended(
  last: AttemptSummary | null,
  at: number,
  outcome: AttemptSummary['outcome'],
  reason: string | null,
): AttemptSummary | null {
  return last?.outcome === 'running' ? { ...last, endedAt: at, outcome, reason } : last;
}

/**
 * What is kept of a decision: how often the policy has decided in a row (not at all since a person has), and what it
 * has decided ever, so that it can see that it repeats itself.
 */
function policyMemory(
  { policyRounds, decided }: TaskContext,
  event: TaskEvent,
): Pick<TaskContext, 'policyRounds' | 'decided'> {
  if (event.type !== 'overseer.escalate:ok' || event.reply.decision === 'none') {
    return { policyRounds: 0, decided };
  }
  const { decision, guidance = null } = event.reply;
  const same = (one: PolicyAnswer): boolean =>
    one.decision === decision && one.guidance === guidance;
  const before = decided.find(same);
  const others = decided.filter((one) => !same(one));
  return {
    policyRounds: policyRounds + 1,
    decided: [...others, { decision, guidance, times: (before?.times ?? 0) + 1 }].slice(
      -MAX_DECIDED,
    ),
  };
}

function failureOf(event: TaskEvent): Failure {
  if ('failure' in event) return event.failure;
  if ('error' in event) return event.error;
  return {
    code: 'internal',
    message: `What came with "${event.type}" cannot be used.`,
    retryable: false,
  };
}

function decisionOf(
  event: TaskEvent,
): { decision: Decision; guidance?: string | undefined; agent?: string | undefined } | undefined {
  if (event.type === 'task.decide') return event;
  if (event.type === 'overseer.escalate:ok' && event.reply.decision !== 'none') return event.reply;
  return undefined;
}

interface FailedAttempt {
  readonly kind: 'work' | 'infrastructure';
  readonly reason: string;
  /** By a gatekeeper, not only by whoever took the work in. */
  readonly judged: boolean;
  readonly stage: string | null;
  readonly evidence: Evidence | null;
  readonly feedback: readonly string[];
  readonly errorFingerprint: string | undefined;
  readonly changeFingerprint: string | undefined;
  /** Only a gatekeeper's feedback makes a feedback loop. */
  readonly countFeedback: boolean;
  /** What was handed in; undefined if that is nothing that was judged. */
  readonly submission: JsonValue | undefined;
  readonly retryAfterMs: number | undefined;
  readonly goesOnWith: TaskContext['goesOnWith'];
}

/** The context after a failed attempt: recorded, judged, and with what follows: a wait, or somebody who mends it. */
function assessed(context: TaskContext, at: number, failed: FailedAttempt): Partial<TaskContext> {
  const { spec, fix } = context;
  const outcome: AttemptOutcome = {
    kind: failed.kind,
    errorFingerprint: failed.errorFingerprint,
    changeFingerprint: failed.changeFingerprint,
    feedbackFingerprint: failed.countFeedback ? feedbackFingerprint(failed.feedback) : undefined,
  };
  const wasFix = fix !== null && failed.kind === 'work';
  const progress = wasFix
    ? recordFix(context.progress, outcome)
    : recordOutcome(context.progress, outcome);
  // What the infrastructure did says nothing about the work: an approved submission is not refused for attempts before it.
  const assessment =
    failed.kind === 'work'
      ? assess(progress, spec.limits)
      : assessInfrastructure(progress, spec.limits);
  const mended = nextFix(context, at, assessment, failed);
  const isKept = failed.goesOnWith === 'verification';
  const reason = isKept
    ? `${failed.reason} What was handed in is kept, and is verified again.`
    : wasFix && mended === null
      ? `${failed.reason} (QA by "${fix.agent}": ${fix.iteration} of ${spec.qa?.iterations ?? fix.iteration} iterations, not mended)`
      : failed.reason;
  const refused: Refused = {
    ...{ at, stage: failed.stage, reason: failed.reason.slice(0, MAX_ROUND_REASON) },
    artifact: failed.evidence?.artifact ?? null,
  };
  const judgement =
    failed.kind === 'infrastructure'
      ? ('infrastructure' as const)
      : failed.judged
        ? ('rejected' as const)
        : ('failed' as const);
  // A submission that could not be judged is judged again: until then the try to mend it goes on.
  const last = isKept ? context.last : withRound(context, at, judgement, refused);
  return {
    ...afterAssessment(assessment, reason, failed.reason),
    ...(mended === null
      ? { fix: isKept ? fix : null }
      : {
          ...{ next: 'fix' as const, fix: mended, submitted: true },
          sessions: Math.max(context.sessions, mended.session),
          result: failed.submission ?? context.result,
        }),
    progress,
    cause: failed.kind,
    goesOnWith: failed.goesOnWith,
    retryInMs: Math.max(
      waitAfter(context, failed.kind, progress),
      Math.min(failed.retryAfterMs ?? 0, MAX_TIMER_MS),
    ),
    feedback:
      failed.kind === 'work'
        ? [...context.feedback, ...failed.feedback.map((note) => note.slice(0, MAX_NOTE))].slice(
            -MAX_NOTES,
          )
        : context.feedback,
    last: last && {
      ...last,
      ...(mended === null || last.refused !== undefined ? {} : { refused }),
      endedAt: at,
      outcome: judgement,
      stage: failed.stage,
      reason: failed.reason,
      evidence: failed.evidence,
    },
  };
}

/** What comes next, and why; an assessment that ends the attempts has a reason of its own. */
function afterAssessment(
  assessment: Assessment,
  reason: string,
  last = reason,
): Pick<TaskContext, 'next' | 'reason'> {
  return {
    next: assessment.next,
    reason: assessment.next === 'retry' ? reason : `${assessment.reason} Last: ${last}`,
  };
}

/** Until the next attempt, in milliseconds. */
function waitAfter(
  { spec, attempt }: TaskContext,
  kind: 'work' | 'infrastructure',
  progress: ProgressRecord,
): number {
  const policy = kind === 'work' ? spec.limits.backoff : spec.limits.infrastructureBackoff;
  const failures = kind === 'work' ? progress.attempts : progress.infrastructureStreak;
  return backoffMs(policy, failures, unitHash(`${spec.run}/${spec.id}:${attempt}`));
}

/**
 * The next try to mend what was refused: another one of the session that is under way, or the first of a new one.
 * @returns null: nobody mends it (any more)
 */
function nextFix(
  context: TaskContext,
  at: number,
  assessment: Assessment,
  failed: FailedAttempt,
): CurrentFix | null {
  const { qa } = context.spec;
  const { stage, reason, submission } = failed;
  if (qa === undefined || failed.kind !== 'work' || submission === undefined) return null;
  if (!isFixable(stage)) return null;
  // What leads to nothing leads to nothing for anybody; that the attempts are used up is no such thing.
  if (assessment.next !== 'retry' && assessment.cause !== 'attempts') return null;
  const refusal = {
    ...{ stage, reason, startedAt: at },
    outcome: failed.judged ? ('rejected' as const) : ('failed' as const),
  };
  const { fix, sessions } = context;
  if (fix !== null) {
    if (fix.iteration >= qa.iterations) return null;
    return { ...fix, ...refusal, iteration: fix.iteration + 1, insteadOf: [] };
  }
  const [agent] = qa.agents;
  if (agent === undefined || sessions >= qa.sessions) return null;
  return { ...refusal, session: sessions + 1, iteration: 1, agent, insteadOf: [] };
}
