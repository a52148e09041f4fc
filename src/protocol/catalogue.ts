import { z } from 'zod';
import { type Failure, ValidationError } from './errors.ts';
import type { JsonValue } from './json.ts';
import type { Message, Received } from './message.ts';
import { type ChildCounts, type ChildStatus, childInput, treeInput } from './supervision.ts';
import type { CommandEvidence, Verdict } from './verdict.ts';

/** Any JSON. Checked for JSON-ness as a whole by `parseMessage`; the schema only passes it through. */
const json = z.custom<JsonValue>((value) => value !== undefined, 'expected a JSON value');
const name = z.string().min(1).max(240);
const text = z.string().max(100_000);
const empty = z.strictObject({});

/** The states of a task as the outside sees them, in the order of its life. */
export const TASK_STATES = [
  'staged',
  'waiting',
  'ready',
  'preparing',
  'working',
  'verifying',
  'fixing',
  'retrying',
  'awaitingInput',
  'awaitingApproval',
  'escalated',
  'blocked',
  'paused',
  'cancelling',
  'cancelled',
  'done',
] as const;
export type TaskState = (typeof TASK_STATES)[number];
const taskState = z.enum(TASK_STATES);

/**
 * What a task's state means for its run: `active` holds a place at its agent, `verifying` only one in the run's
 * own limit, `delayed` comes back by itself, `person` waits for somebody's word, `stuck` waits to be unblocked.
 */
export const TASK_PHASES = [
  'waiting',
  'ready',
  'active',
  'verifying',
  'delayed',
  'person',
  'stuck',
  'done',
  'cancelled',
] as const;
export type TaskPhase = (typeof TASK_PHASES)[number];
const taskPhase = z.enum(TASK_PHASES);

/** What may be decided about a task that waits for a decision. */
export const DECISIONS = ['retry', 'approve', 'reassign', 'block', 'cancel'] as const;
export type Decision = (typeof DECISIONS)[number];

/** What may be decided about a supervisor that has given up. */
export const SUPERVISOR_DECISIONS = ['restart', 'stop'] as const;
export type SupervisorDecision = (typeof SUPERVISOR_DECISIONS)[number];

const decided = z.strictObject({
  decision: z.enum(DECISIONS),
  /** Told to the agent on its next attempt. */
  guidance: text.optional(),
  /** For `reassign`: the agent that takes over. */
  agent: name.optional(),
  /** Who decided: `cli`, `policy`, a person's name. */
  by: name,
});

/** The process may die so often in a row while it is done; then it is not started again. */
const interruptions = z.int().min(1);

const commandEvidence = z.custom<CommandEvidence>();

const fix = z.strictObject({
  /** Counts the requests to mend this attempt, from 1. */
  number: z.int().min(1),
  /** Which session of the task, of how many. */
  session: z.int().min(1),
  sessions: z.int().min(1),
  /** Which time of handing in, of how many in this session. */
  iteration: z.int().min(1),
  iterations: z.int().min(1),
  /** Where it was refused. */
  stage: name,
  /** One sentence. */
  reason: text,
  /** The same in words, with what to do about it. */
  instruction: text,
  /** The file with the evidence, relative to the project; null for tasks that are not code. */
  artifact: name.nullable(),
  /** The commands that have failed, with the head and the tail of their output. */
  commands: z.array(commandEvidence),
  /** What was handed in. */
  result: json,
});

/** What somebody who mends a rejected attempt is given besides the task. */
export type FixOrder = z.infer<typeof fix>;

const work = z.strictObject({
  task: name,
  run: name,
  id: name,
  title: text,
  attempt: z.int().min(1),
  input: json,
  /** What the attempts before this one were told to mend, newest last. */
  feedback: z.array(text),
  guidance: z.array(text),
  /** Answers to questions asked in this task, by question id. */
  answers: z.record(z.string(), json),
  /** Where to work; null for tasks that are not code. */
  workspace: json.nullable(),
  /** The attempt had been begun before, and perhaps finished, when the task was rolled back. */
  again: z.boolean().optional(),
  /** It is not to be done, but what was rejected of it to be mended. */
  fix: fix.optional(),
  /** Who was asked to mend attempts so far, this request included; a journal of its own for each. */
  fixers: z.array(z.strictObject({ attempt: z.int().min(1), agent: name })).optional(),
  interruptions,
});

const withdrawal = z.strictObject({
  task: name,
  attempt: z.int().min(1),
  /** Only what was asked for with this correlation, and not what the same attempt has asked for since. */
  correlation: z.string().max(1_000).optional(),
});

const submission = z.strictObject({
  task: name,
  run: name,
  id: name,
  title: text,
  attempt: z.int().min(1),
  input: json,
  /** Commands that this task has to pass besides; a gatekeeper that runs none is not given any. */
  accept: json.optional(),
  /** What the agent handed in. */
  result: json,
  workspace: json.nullable(),
  /** A person has seen what needed approval, and approved it. */
  approved: z.boolean(),
  interruptions,
});

/** A claim's number in its run. */
const claimNumber = z.int().min(0);

const scheduleReply = z.strictObject({
  state: z.enum(['active', 'paused', 'ended', 'deleted']),
  /** When it is due next; null: not, as it stands. */
  nextAt: z.number().nullable(),
});

/**
 * Every message between Troupe's own roles: who receives it, its fields, and what answers it if it is a
 * request. The schemas check what comes from outside; the types below are derived from them.
 */
const catalogue = {
  'run.taskChanged': {
    to: 'run',
    fields: z.strictObject({
      task: name,
      from: taskPhase,
      to: taskPhase,
      /** It has ended, and tells so many dependants; until they have heard, the run does not stand still. */
      telling: z.int().min(0),
      /** Ends of dependencies it has heard of since it last reported. */
      heard: z.int().min(0),
      /** The agent it waits for or works with; another than before, when it was reassigned. */
      agent: name.optional(),
      /** The phase of the workflow it belongs to. */
      phase: name.optional(),
      /** With `to: person`: it was escalated, and does not only ask. */
      escalated: z.boolean().optional(),
      /** The run's claim that it obeyed last; null: none yet. Absent: whatever it obeyed, this is how it stands now. */
      claim: claimNumber.nullable().optional(),
    }),
  },
  'run.pause': { to: 'run', fields: z.strictObject({ by: name }) },
  'run.resume': { to: 'run', fields: z.strictObject({ by: name }) },
  'run.cancel': { to: 'run', fields: z.strictObject({ by: name, reason: text }) },

  'task.enable': { to: 'task', fields: empty },
  'task.dependencyEnded': {
    to: 'task',
    fields: z.strictObject({ task: name, outcome: z.enum(['done', 'cancelled']) }),
  },
  /** It was rolled back to a moment at which it had something under way with others: that begins again. */
  'task.rewound': { to: 'task', fields: empty },
  'task.claim': {
    to: 'task',
    // An earlier Troupe did not number the claims that it told.
    fields: z.strictObject({ claim: claimNumber.optional() }),
    reply: z.strictObject({ state: taskState }),
  },
  'task.decide': { to: 'task', fields: decided, reply: z.strictObject({ state: taskState }) },
  'task.answer': {
    to: 'task',
    fields: z.strictObject({ question: name, answer: json, by: name }),
    reply: z.strictObject({ state: taskState }),
  },
  'task.unblock': {
    to: 'task',
    fields: z.strictObject({ by: name, delayMs: z.int().min(0).optional() }),
    reply: z.strictObject({ state: taskState }),
  },
  'task.pause': {
    to: 'task',
    fields: z.strictObject({ by: name }),
    reply: z.strictObject({ state: taskState }),
  },
  'task.resume': {
    to: 'task',
    fields: z.strictObject({ by: name }),
    reply: z.strictObject({ state: taskState }),
  },
  'task.cancel': {
    to: 'task',
    fields: z.strictObject({
      by: name,
      reason: text,
      /** The task that goes on without it: what it depends on itself, and is not done, is skipped as well. */
      skippedFor: name.optional(),
    }),
    reply: z.strictObject({ state: taskState }),
  },
  /** To go on without the dependencies that are not done. They are cancelled, and it goes on when they have ended. */
  'task.skipTo': {
    to: 'task',
    fields: z.strictObject({ by: name }),
    reply: z.strictObject({ state: taskState }),
  },

  /** A time budget is used up: it is escalated, wherever it has got to. Nothing happens if it waits for a person already. */
  'task.timeUp': { to: 'task', fields: z.strictObject({ by: name, reason: text }) },

  'agent.work': { to: 'agent', fields: work, reply: z.custom<WorkOutcome>() },
  'agent.cancel': { to: 'agent', fields: withdrawal },
  'agent.configure': {
    to: 'agent',
    fields: z.strictObject({
      concurrency: z.int().min(1),
      /** Tasks that may wait. */
      limit: z.int().min(1).optional(),
      /** Who does the work when it cannot be asked; null: nobody. */
      fallback: name.nullable().optional(),
      /** What limits it by key and by time; as `parseFlow` has made it. Default: nothing. */
      flow: json.nullable().optional(),
    }),
  },
  'agent.breaker': {
    to: 'agent',
    fields: z.strictObject({ state: z.enum(['closed', 'open', 'halfOpen']) }),
  },

  'gatekeeper.verify': { to: 'gatekeeper', fields: submission, reply: z.custom<Verdict>() },
  'gatekeeper.cancel': { to: 'gatekeeper', fields: withdrawal },
  'gatekeeper.configure': {
    to: 'gatekeeper',
    fields: z.strictObject({ concurrency: z.int().min(1) }),
  },

  'overseer.escalate': {
    to: 'overseer',
    fields: z.strictObject({
      task: name,
      run: name,
      id: name,
      title: text,
      agent: name,
      state: z.enum(['escalated', 'awaitingApproval']),
      reason: text,
      feedback: z.array(text),
      attempts: z.int().min(0),
      decided: z.array(
        z.strictObject({
          decision: z.enum(DECISIONS),
          guidance: text.nullable(),
          times: z.int().min(1),
        }),
      ),
    }),
    reply: z.custom<OverseerAnswer>(),
  },
  'overseer.supervisorFailed': {
    to: 'overseer',
    fields: z.strictObject({
      supervisor: name,
      reason: text,
      children: z.array(
        z.strictObject({ id: name, restarts: z.int().min(0), lastError: text.nullable() }),
      ),
      /** How often the policy has restarted it since a person last decided. */
      restarted: z.int().min(0),
    }),
    reply: z.custom<SupervisorAnswer>(),
  },

  'supervisor.startChild': {
    to: 'supervisor',
    fields: z.strictObject({ child: childInput }),
    reply: z.custom<ChildStatus>(),
  },
  'supervisor.stopChild': {
    to: 'supervisor',
    fields: z.strictObject({ id: name }),
    reply: z.custom<ChildStatus>(),
  },
  'supervisor.restartChild': {
    to: 'supervisor',
    fields: z.strictObject({ id: name }),
    reply: z.custom<ChildStatus>(),
  },
  'supervisor.deleteChild': {
    to: 'supervisor',
    fields: z.strictObject({ id: name }),
    reply: z.custom<ChildStatus>(),
  },
  'supervisor.children': {
    to: 'supervisor',
    fields: empty,
    reply: z.custom<readonly ChildStatus[]>(),
  },
  'supervisor.count': { to: 'supervisor', fields: empty, reply: z.custom<ChildCounts>() },
  'supervisor.configure': { to: 'supervisor', fields: treeInput },
  /** About one that has given up. */
  'supervisor.decide': {
    to: 'supervisor',
    fields: z.strictObject({ decision: z.enum(SUPERVISOR_DECISIONS), by: name }),
    reply: z.strictObject({ state: name }),
  },

  'schedule.configure': {
    to: 'schedule',
    fields: z.strictObject({ definition: json }),
    reply: scheduleReply,
  },
  'schedule.pause': { to: 'schedule', fields: z.strictObject({ by: name }), reply: scheduleReply },
  'schedule.resume': { to: 'schedule', fields: z.strictObject({ by: name }), reply: scheduleReply },
  'schedule.trigger': {
    to: 'schedule',
    fields: z.strictObject({ by: name }),
    /** The firing's key; for a run, its id. */
    reply: z.strictObject({ key: z.string() }),
  },
  'schedule.delete': { to: 'schedule', fields: z.strictObject({ by: name }), reply: scheduleReply },
  /** A run that it has started has ended. */
  'schedule.runEnded': {
    to: 'schedule',
    fields: z.strictObject({ run: name, state: z.enum(['done', 'cancelled']) }),
  },
  /** A run that it has started was rolled back to before its end. */
  'schedule.runReopened': { to: 'schedule', fields: z.strictObject({ run: name }) },

  'breaker.record': {
    to: 'breaker',
    fields: z.strictObject({
      outcome: z.enum(['success', 'failure']),
      /** As it was admitted with. */
      permit: z.int().min(0).optional(),
    }),
  },
  'breaker.admit': {
    to: 'breaker',
    fields: empty,
    reply: z.strictObject({
      admitted: z.boolean(),
      state: z.enum(['closed', 'open', 'halfOpen']),
      permit: z.int().nullable(),
      retryAfterMs: z.number(),
    }),
  },
  'breaker.configure': {
    to: 'breaker',
    fields: z.strictObject({
      failures: z.int().min(1).optional(),
      openMs: z.int().min(1).optional(),
      successes: z.int().min(1).optional(),
    }),
  },
  'breaker.reset': { to: 'breaker', fields: z.strictObject({ by: name }) },
} as const;

/** What an agent answers when its work came to an end. Failing to do it is a failure, not an outcome. */
export type WorkOutcome =
  | { readonly outcome: 'submitted'; readonly result: JsonValue; readonly summary?: string }
  | { readonly outcome: 'question'; readonly question: Question };

/** What an agent wants to know from a person. The task waits in `awaitingInput`; others go on. */
export interface Question {
  /** Unique within the task; the answer is filed under it. */
  readonly id: string;
  readonly text: string;
  readonly choices?: readonly string[];
  /** After this time the default is taken, or, without one, the task is escalated. Default: no limit. */
  readonly timeoutMs?: number;
  readonly default?: JsonValue;
}

/** `none`: no rule applies, a person has to decide. */
/** A decision that the overseer's policy has made about a task, and how often. */
export interface PolicyAnswer {
  readonly decision: Decision;
  readonly guidance: string | null;
  readonly times: number;
}

export type OverseerAnswer =
  | { readonly decision: 'none' }
  | {
      readonly decision: Decision;
      readonly by: string;
      readonly guidance?: string;
      readonly agent?: string;
    };

/** `none`: a person has to decide. */
export type SupervisorAnswer =
  | { readonly decision: 'none' }
  | { readonly decision: SupervisorDecision; readonly by: string };

type Catalogue = typeof catalogue;
// A strict object without fields is inferred as one whose every field is `never`, the type among them.
type FieldsOf<F> = F extends Record<string, never> ? Record<never, never> : F;
type BuiltIn = {
  readonly [T in keyof Catalogue]: {
    readonly to: Catalogue[T]['to'];
    readonly fields: FieldsOf<z.infer<Catalogue[T]['fields']>>;
    readonly reply: Catalogue[T] extends { readonly reply: infer R extends z.ZodType }
      ? z.infer<R>
      : undefined;
  };
};

/**
 * The message catalogue as types: message type → receiver, fields, reply. An app adds its own with
 * `declare module 'troupe' { interface Protocol { 'inbox.add': { to: 'inbox'; fields: …; reply: … } } }`.
 */
export interface Protocol extends BuiltIn {}

export type MessageType = keyof Protocol & string;
export type RequestType = {
  [T in MessageType]: undefined extends Protocol[T]['reply'] ? never : T;
}[MessageType];
/** The kinds of actors whose messages are known to the types. */
export type KnownKind = Protocol[MessageType]['to'];

export type MessageOf<T extends MessageType> = { readonly type: T } & Protocol[T]['fields'];
/** Every message an actor of this kind accepts. */
export type CommandTo<K extends string> = {
  [T in MessageType]: Protocol[T]['to'] extends K ? MessageOf<T> : never;
}[MessageType];
export type ReplyTypeOf<T extends string> = T extends RequestType
  ? Protocol[T]['reply']
  : JsonValue;

/** The events that answer a request of type `T`. */
export type Answer<T extends RequestType> =
  | Received<{ readonly type: `${T}:ok`; readonly reply: Protocol[T]['reply'] }>
  | Received<{ readonly type: `${T}:err`; readonly failure: Failure }>;

/** Every event an actor of this kind receives for messages. */
export type Inbound<K extends string> = {
  [T in MessageType]: Protocol[T]['to'] extends K ? Received<MessageOf<T>> : never;
}[MessageType];

const schemas = new Map<string, { readonly to: string; readonly fields: z.ZodType }>(
  Object.entries(catalogue),
);
const kinds = new Set<string>(Object.values(catalogue).map((entry) => entry.to));

/**
 * Checks a message from outside against the catalogue. Messages to kinds that are not in it pass.
 * @param to the kind of the receiver
 * @throws {ValidationError} unknown type, wrong receiver or wrong fields; says what was expected
 */
export function checkAgainstCatalogue(to: string, message: Message): void {
  if (!kinds.has(to)) return;
  const entry = schemas.get(message.type);
  if (entry === undefined || entry.to !== to) {
    const accepted = [...schemas].filter(([, e]) => e.to === to).map(([type]) => type);
    throw new ValidationError(
      `An actor of kind "${to}" does not accept ${JSON.stringify(message.type)}; it accepts ${accepted.join(', ')}.`,
    );
  }
  const { type: _type, ...fields } = message;
  const result = entry.fields.safeParse(fields);
  if (!result.success) {
    const issue = result.error.issues[0];
    const where = issue === undefined ? '' : issue.path.map(String).join('.');
    throw new ValidationError(
      `The message "${message.type}" is malformed${where === '' ? '' : ` at "${where}"`}: ${issue?.message ?? 'it does not fit its schema'}.`,
    );
  }
}
