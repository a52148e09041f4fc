import { z } from 'zod';
import { agentMachine } from '../machines/agent-machine.ts';
import { DIED_OF } from '../machines/policies/failure-class.ts';
import { PROGRESS_STREAM, progressOf } from '../machines/policies/task-progress.ts';
import type { WorkspaceInput } from '../machines/task-machine.ts';
import type { FixOrder, Question, WorkOutcome } from '../protocol/catalogue.ts';
import {
  type Failure,
  fromFailure,
  TimeoutError,
  TroupeError,
  toFailure,
  ValidationError,
} from '../protocol/errors.ts';
import { deepHash } from '../protocol/hash.ts';
import { findNonJson, type JsonValue } from '../protocol/json.ts';
import type { Clock } from '../runtime/clock.ts';
import { MAX_TIMER_MS } from '../runtime/clock.ts';
import { effect } from '../runtime/effect.ts';
import type { EffectContext } from '../runtime/effect-runner.ts';
import { ABORT_GRACE_MS } from '../runtime/left-behind.ts';
import { checkStreamName, DEFAULT_STREAM, type StreamWriter } from '../runtime/stream.ts';
import type { Streams } from '../runtime/streams.ts';
import type { Store } from '../store/store.ts';
import type { Workspace } from '../workspace/workspace.ts';
import { artifactKeeper, artifactScope, loadArtifacts } from './artifacts.ts';
import { boundedByTask } from './bounded-by-task.ts';
import { type Compensations, workScopes } from './compensation.ts';
import { type Engine, type EngineContext, QuestionAsked } from './engine.ts';
import type { GitProject } from './git-project.ts';
import type { Registry } from './registry.ts';
import { SignalReceiver } from './signals.ts';
import type { UnderWay } from './under-way.ts';

export interface RegisteredAgent {
  readonly engine: Engine;
  /** For one attempt; then it is aborted and counts as failed. */
  readonly timeoutMs: number;
  /**
   * After a crash in the middle of an attempt it gets a fresh workspace: what it had half done would be in the way of
   * doing it again. An engine with steps keeps its workspace, for its steps are kept too.
   */
  readonly freshOnRestart: boolean;
  /** Step name → what takes it back when the task is cancelled. */
  readonly compensations: Compensations;
}

interface WorkInput {
  readonly task: string;
  readonly run: string;
  readonly id: string;
  readonly title: string;
  readonly attempt: number;
  readonly input: JsonValue;
  readonly feedback: readonly string[];
  readonly guidance: readonly string[];
  readonly answers: Readonly<Record<string, JsonValue>>;
  readonly workspace: JsonValue;
  readonly again?: boolean;
  readonly fix?: FixOrder;
  readonly fixers?: WorkspaceInput['fixers'];
}

/** So long is waited for whoever mends to be registered after a restart: the task can go on without. */
const FIXER_WITHIN_MS = 60_000;

/** The agent machine with its engine: whatever is registered under the agent's name does the work. */
export function agentActor(
  agents: Registry<RegisteredAgent>,
  project: GitProject | undefined,
  clock: Clock,
  store: Store,
  underWay: UnderWay,
  streams: Pick<Streams, 'read'>,
) {
  return agentMachine.provide({
    actors: {
      engine: effect<JsonValue>(async (context) => {
        const work = context.input as unknown as WorkInput;
        const name = context.address.slice('agent/'.length);
        const isFix = work.fix !== undefined;
        const agent = await agents.whenReady(name, context, isFix ? FIXER_WITHIN_MS : undefined);
        const track: Track = (running) => underWay.track(work.task, context.address, running);
        return (await track(
          doTask(agent, work, context, { project, clock, store, streams, track }),
        )) as unknown as JsonValue;
      }, boundedByTask),
    },
  });
}

/** Notes that something runs for the task until it has ended, whoever has stopped waiting for it. */
type Track = <T>(running: Promise<T>) => Promise<T>;

interface Place {
  readonly project: GitProject | undefined;
  readonly clock: Clock;
  readonly store: Store;
  readonly streams: Pick<Streams, 'read'>;
  readonly track: Track;
}

async function doTask(
  agent: RegisteredAgent,
  work: WorkInput,
  context: EffectContext,
  { project, clock, store, streams, track }: Place,
): Promise<WorkOutcome> {
  const given = work.workspace as unknown as Workspace | null;
  const workspace =
    given !== null && context.attempt > 1 && agent.freshOnRestart && project !== undefined
      ? await project.prepare(withSubmission(work), context.signal)
      : given;
  const failedAttempts = await countFailed(store, work);
  const limit = new AbortController();
  const cancelLimit = clock.setTimer(Math.min(agent.timeoutMs, MAX_TIMER_MS), () =>
    limit.abort(
      new TimeoutError(`The agent was not done after ${agent.timeoutMs} ms.`, { retryable: true }),
    ),
  );
  // It ends as it does when its time is up: here it is known what can be saved of its work.
  context.onSilence((reason) => limit.abort(reason));
  // An engine that does not heed its signal never comes to the `finally` below.
  context.signal.addEventListener('abort', cancelLimit, { once: true });
  const signal = AbortSignal.any([context.signal, limit.signal]);
  // Steps belong to the attempt, not to this effect: they outlive a question and a restart.
  const scopes = workScopes(work.task, work.attempt, work.fixers).map(({ scope }) => scope);
  const scope = scopes.at(-1) as string;
  const step = context.stepsOf(scope, signal);
  const writer = scope;
  const stream = (name = DEFAULT_STREAM): StreamWriter =>
    context.streamOf(work.task, writer, checkStreamName(name));
  const receiver = new SignalReceiver({
    ...{ task: work.task, scope, earlier: scopes.slice(0, -1) },
    ...{ context, signal, clock, store, streams },
  });
  const engineContext: EngineContext = {
    task: {
      run: work.run,
      id: work.id,
      title: work.title,
      attempt: work.attempt,
      failedAttempts,
      input: work.input,
      feedback: work.feedback,
      guidance: work.guidance,
      fix: work.fix ?? null,
    },
    workspace,
    signal,
    step,
    artifact: artifactKeeper(context.stepsOf(artifactScope(scope), signal)),
    artifacts: () => loadArtifacts(store, work.task, work.attempt),
    progress: progressKeeper(context, context.streamOf(work.task, writer, PROGRESS_STREAM)),
    heartbeat: context.heartbeat,
    stream,
    write: (value) => stream().write(value),
    nextSignal: receiver.next,
    signals: (name) => receiver.all(name),
    ask: (asked) => ask(asked, work.answers),
  };
  try {
    // Work that is merged is not done again: it could not even be, for the target has it already.
    const mayBeMerged = work.attempt > 1 || work.again === true;
    if (workspace !== null && project !== undefined && mayBeMerged) {
      const merged = await project.findMerged(work);
      if (merged !== undefined) return merged;
    }
    const note =
      (await orAborted(begun(agent, engineContext, track), context.signal, limit.signal, clock)) ??
      null;
    const problem = findNonJson(note, 'what it returned');
    if (problem) {
      throw new ValidationError(
        `Expected the agent to return plain JSON, but ${problem.path} is ${problem.found}.`,
      );
    }
    if (workspace === null) {
      if (work.fix !== undefined && deepHash(note) === deepHash(work.fix.result)) {
        throw new ValidationError('The agent changed nothing of what was handed in.');
      }
      return { outcome: 'submitted', result: note };
    }
    if (project === undefined) {
      throw new TroupeError('configuration', `Task "${work.id}" is code, but no project is open.`);
    }
    const outcome = await project.collect(work, workspace, note, signal);
    if (outcome.outcome === 'submitted') {
      const submission = { ...work, result: outcome.result, approved: false };
      await project.preflight(submission, workspace, signal, (name) =>
        engineContext.progress(`preflight: ${name}`),
      );
    }
    return outcome;
  } catch (error) {
    if (error instanceof QuestionAsked) return { outcome: 'question', question: error.question };
    // Called off from outside, it is no attempt that failed.
    if (context.signal.aborted) throw error;
    const failed: unknown = limit.signal.aborted ? limit.signal.reason : error;
    if (workspace === null || project === undefined) throw failed;
    if (!limit.signal.aborted && !hasDied(error)) {
      throw await project.keepFailure(work, workspace, failed);
    }
    const saved = await salvage(project, work, workspace, toFailure(failed), context.signal);
    if ('outcome' in saved) return saved.outcome;
    throw await project.keepFailure(work, workspace, fromFailure(saved.failure));
  } finally {
    cancelLimit();
  }
}

/** Where it is mended, there is what was handed in. */
const withSubmission = ({ fix, ...work }: WorkInput) => ({
  ...work,
  ...(fix === undefined ? {} : { submission: fix.result }),
});

/** It did not end by itself, so it had no word in what it left. */
const hasDied = (error: unknown): boolean =>
  error instanceof TroupeError && error.context?.[DIED_OF] !== undefined;

/** What is saved of an attempt that was ended, or else its failure, which says what is kept of it. */
async function salvage(
  project: GitProject,
  work: WorkInput,
  workspace: Workspace,
  failure: Failure,
  signal: AbortSignal,
): Promise<{ readonly outcome: WorkOutcome } | { readonly failure: Failure }> {
  const also = (sentence: string): { failure: Failure } => ({
    failure: { ...failure, message: `${failure.message} ${sentence}` },
  });
  try {
    const { outcome, keptAs } = await project.salvage(work, workspace, failure.message, signal);
    if (outcome !== undefined) return { outcome };
    // Not which one: that would make the same failure another one each time.
    return keptAs === undefined ? { failure } : also(`What it left is kept below ${keptAs}.`);
  } catch (error) {
    signal.throwIfAborted();
    return also(`What it left could not be kept: ${toFailure(error).message}`);
  }
}

/** The outcomes of attempts that are the work's fault. */
const FAILED: ReadonlySet<string> = new Set(['failed', 'rejected']);

/** From the rows of the attempts: what a task keeps of its failures begins anew when it is unblocked. */
async function countFailed(store: Store, { run, id, attempt }: WorkInput): Promise<number> {
  // The first one has none before it, and most tasks have no second: they need not ask.
  if (attempt === 1) return 0;
  const before = (await store.listAttempts(run, id)).filter((row) => row.attempt < attempt);
  return before.filter(({ outcome }) => FAILED.has(outcome)).length;
}

/** An engine that is left behind still runs. */
function begun(
  agent: RegisteredAgent,
  context: EngineContext,
  track: Track,
): ReturnType<typeof agent.engine> {
  const result = agent.engine(context);
  return result instanceof Promise ? track(result) : result;
}

/** What an agent says is told to observers, and kept if it is not what it had said last. */
function progressKeeper(
  context: Pick<EffectContext, 'progress' | 'address'>,
  stream: StreamWriter,
): EngineContext['progress'] {
  let last = '';
  return (value) => {
    context.progress(value);
    const progress = progressOf(value);
    const problem = findNonJson(progress, 'progress');
    if (problem) {
      throw new ValidationError(
        `Expected progress to be plain JSON, but ${problem.path} is ${problem.found}.`,
      );
    }
    const json = JSON.stringify(progress);
    if (json === last) return;
    last = json;
    // Nobody waits for it; one that is refused is in the log. The effect does not end before the rest is stored.
    stream.write(progress as unknown as JsonValue).catch(() => undefined);
  };
}

/**
 * An engine that does not heed its limit is left behind after a grace, in which others put away what they hold. When
 * the whole effect is aborted, its runner sees to that.
 */
function orAborted<T>(
  result: Promise<T> | T,
  aborted: AbortSignal,
  limit: AbortSignal,
  clock: Clock,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let cancelGrace = (): void => undefined;
    const leave = (): void => reject(limit.reason as Error);
    const onLimit = (): void => {
      cancelGrace = clock.setTimer(ABORT_GRACE_MS, leave);
    };
    const stopGrace = (): void => cancelGrace();
    limit.addEventListener('abort', onLimit, { once: true });
    aborted.addEventListener('abort', stopGrace, { once: true });
    const done = (): void => {
      cancelGrace();
      limit.removeEventListener('abort', onLimit);
      aborted.removeEventListener('abort', stopGrace);
    };
    Promise.resolve(result).then(
      (value) => {
        done();
        // Work that was called off did not happen, whatever it says.
        if (limit.aborted) leave();
        else resolve(value);
      },
      (error: unknown) => {
        done();
        reject(error as Error);
      },
    );
  });
}

function ask(
  asked: string | Question,
  answers: Readonly<Record<string, JsonValue>>,
): Promise<JsonValue> {
  const question = checkQuestion(
    typeof asked === 'string' ? { id: deepHash(asked).slice(0, 12), text: asked } : asked,
  );
  const answer = Object.hasOwn(answers, question.id) ? answers[question.id] : undefined;
  if (answer !== undefined) return Promise.resolve(answer);
  throw new QuestionAsked(question);
}

const question: z.ZodType<Question> = z.strictObject({
  // The answer is filed under it, and no JSON is kept with that key.
  id: z
    .string()
    .min(1)
    .max(240)
    .refine((id) => id !== '__proto__', 'is reserved'),
  text: z.string().min(1).max(100_000),
  choices: z.array(z.string().min(1)).min(1).optional(),
  timeoutMs: z.int().min(1).optional(),
  default: z.custom<JsonValue>((value) => findNonJson(value) === undefined, 'not JSON').optional(),
}) as never;

/** @throws {ValidationError} a question that nobody could be asked */
function checkQuestion(asked: Question): Question {
  const parsed = question.safeParse(asked);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new ValidationError(
    `Expected a question such as { id: "colour", text: "Which colour?", choices, timeoutMs, default }: ${issue?.path.join('.') || 'it'}: ${issue?.message ?? 'does not fit'}.`,
  );
}
