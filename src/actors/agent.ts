import { agentMachine } from '../machines/agent-machine.ts';
import type { Question, WorkOutcome } from '../protocol/catalogue.ts';
import { TimeoutError, TroupeError, ValidationError } from '../protocol/errors.ts';
import { deepHash } from '../protocol/hash.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Clock } from '../runtime/clock.ts';
import { MAX_TIMER_MS } from '../runtime/clock.ts';
import { effect } from '../runtime/effect.ts';
import type { EffectContext } from '../runtime/effect-runner.ts';
import type { Workspace } from '../workspace/workspace.ts';
import { type Compensations, stepScope } from './compensation.ts';
import { type Engine, type EngineContext, QuestionAsked } from './engine.ts';
import type { GitProject } from './git-project.ts';
import type { Registry } from './registry.ts';

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
}

/** The agent machine with its engine: whatever is registered under the agent's name does the work. */
export function agentActor(
  agents: Registry<RegisteredAgent>,
  project: GitProject | undefined,
  clock: Clock,
) {
  return agentMachine.provide({
    actors: {
      engine: effect<JsonValue>(async (context) => {
        const work = context.input as unknown as WorkInput;
        const name = context.address.slice('agent/'.length);
        const agent = await agents.whenReady(name, context.signal);
        return (await doTask(agent, work, context, project, clock)) as unknown as JsonValue;
      }),
    },
  });
}

async function doTask(
  agent: RegisteredAgent,
  work: WorkInput,
  context: EffectContext,
  project: GitProject | undefined,
  clock: Clock,
): Promise<WorkOutcome> {
  const given = work.workspace as unknown as Workspace | null;
  const workspace =
    given !== null && context.attempt > 1 && agent.freshOnRestart && project !== undefined
      ? await project.prepare(work, context.signal)
      : given;
  const limit = new AbortController();
  const cancelLimit = clock.setTimer(Math.min(agent.timeoutMs, MAX_TIMER_MS), () =>
    limit.abort(
      new TimeoutError(`The agent was not done after ${agent.timeoutMs} ms.`, { retryable: true }),
    ),
  );
  const signal = AbortSignal.any([context.signal, limit.signal]);
  // Steps belong to the attempt, not to this effect: they outlive a question and a restart.
  const step = context.stepsOf(stepScope(work.task, work.attempt));
  const engineContext: EngineContext = {
    task: {
      run: work.run,
      id: work.id,
      title: work.title,
      attempt: work.attempt,
      input: work.input,
      feedback: work.feedback,
      guidance: work.guidance,
    },
    workspace,
    signal,
    step,
    progress: context.progress,
    ask: (asked) => ask(asked, work.answers),
  };
  try {
    const note = (await orAborted(agent.engine(engineContext), signal)) ?? null;
    if (workspace === null) return { outcome: 'submitted', result: note };
    if (project === undefined) {
      throw new TroupeError('configuration', `Task "${work.id}" is code, but no project is open.`);
    }
    return await project.collect(work, workspace, note, signal);
  } catch (error) {
    if (error instanceof QuestionAsked) return { outcome: 'question', question: error.question };
    throw limit.signal.aborted && !context.signal.aborted ? limit.signal.reason : error;
  } finally {
    cancelLimit();
  }
}

/** An engine that does not heed its signal is not waited for longer than its limit. */
function orAborted<T>(result: Promise<T> | T, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    signal.addEventListener(
      'abort',
      () => {
        // It may still put away what it holds; the runner waits for that, within its grace.
        Promise.resolve(result).then(
          () => reject(signal.reason as Error),
          () => reject(signal.reason as Error),
        );
      },
      { once: true },
    );
    Promise.resolve(result).then(resolve, reject);
  });
}

function ask(
  asked: string | Question,
  answers: Readonly<Record<string, JsonValue>>,
): Promise<JsonValue> {
  const question: Question =
    typeof asked === 'string' ? { id: deepHash(asked).slice(0, 12), text: asked } : asked;
  if (question.id === '' || question.text === '') {
    throw new ValidationError('A question needs an id and a text.');
  }
  const answer = answers[question.id];
  if (answer !== undefined) return Promise.resolve(answer);
  throw new QuestionAsked(question);
}
