import type { FixOrder, Question } from '../protocol/catalogue.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { EffectContext } from '../runtime/effect-runner.ts';
import type { StreamWriter } from '../runtime/stream.ts';
import type { Workspace } from '../workspace/workspace.ts';
import type { Artifacts } from './artifacts.ts';
import type { NextSignal, Signal } from './signals.ts';

/** The task as its agent sees it. */
export interface AssignedTask {
  readonly run: string;
  readonly id: string;
  readonly title: string;
  /** 1 for the first attempt. */
  readonly attempt: number;
  /**
   * Attempts before this one that the work itself has failed: by its agent, or rejected. Those that infrastructure has
   * cost are not among them, though they have a number.
   */
  readonly failedAttempts: number;
  readonly input: JsonValue;
  /** What earlier attempts were told to mend, newest last, and what people and policies advised. */
  readonly feedback: readonly string[];
  readonly guidance: readonly string[];
  /**
   * It is not to be done again: what was handed in was rejected, and this agent is asked to mend only that. Its workspace
   * has what was handed in. Null for an attempt.
   */
  readonly fix: FixOrder | null;
}

/** What an engine works with. */
export interface EngineContext {
  readonly task: AssignedTask;
  /** The attempt's own copy of the project; null for tasks that are not code. */
  readonly workspace: Workspace | null;
  /** Aborted when the task is cancelled, its time is up, or the runtime stops. */
  readonly signal: AbortSignal;
  /** Runs something once per attempt, whatever crashes: its result is kept under its name. */
  readonly step: EffectContext['step'];
  /**
   * Keeps a value under a name for later attempts at the task and for the tasks that depend on it, whatever becomes of
   * this attempt. Of one name the last one counts. Stored when it resolves; at most 1 000 000 characters as JSON.
   */
  readonly artifact: (name: string, value: JsonValue) => Promise<void>;
  /**
   * What was kept so far: by the tasks that this one depends on (not by those behind them), then by earlier attempts
   * at it, then by this one; of one name the last one counts.
   */
  readonly artifacts: () => Promise<Artifacts>;
  /**
   * Says that it is alive, how far it is and what it does: `progress(40)`, `progress('compiles')`,
   * `progress({ percent: 40, step: 'compiles', file })`. What differs from the last is kept, with its time, in the task's
   * stream `progress`; the newest is `TaskStatus.progress`.
   */
  readonly progress: (value: JsonValue) => void;
  /** Says only that it is alive. Nothing is kept. Work that gives no sign for too long is aborted (`heartbeatMs`). */
  readonly heartbeat: () => void;
  /**
   * A stream of the task, for others to read while it works and afterwards: `troupe.readStream('task/RUN/TASK', { name })`.
   * A restart of the attempt that writes the same does not store it twice; a new attempt is another writer.
   * @param name default `output`
   */
  readonly stream: (name?: string) => StreamWriter;
  /** The same as `stream().write`. */
  readonly write: StreamWriter['write'];
  /**
   * Waits for the next signal of this name to the task (`troupe.signal`). Those that came before are there; each is
   * given to one attempt, and to a restart of it again. The attempt's own time limit goes on; to wait for days, `ask`.
   */
  readonly nextSignal: NextSignal;
  /** All signals of a name, one after the other: `for await (const { value } of signals('steer')) …`. */
  readonly signals: (name: string) => AsyncIterable<Signal>;
  /**
   * Asks a person. The first time, the engine ends here and the task waits in `awaitingInput`; when the answer is
   * there the engine runs again, and `ask` returns it. Steps done before are not done again.
   */
  readonly ask: (question: string | Question) => Promise<JsonValue>;
}

/** Does a task. What it returns is the submission (for code: the changed files are, and this is only a note). */
export type Engine = (
  context: EngineContext,
) => Promise<JsonValue | undefined> | JsonValue | undefined;

/** Ends an engine that has asked something. Not an error of anybody's. */
export class QuestionAsked extends Error {
  readonly question: Question;
  constructor(question: Question) {
    super(`waits for an answer to "${question.text}"`);
    this.name = 'QuestionAsked';
    this.question = question;
  }
}
