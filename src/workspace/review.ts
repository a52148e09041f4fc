import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ConfigurationError } from '../protocol/errors.ts';
import { runCommand } from './child-process.ts';
import { excerptOf } from './excerpt.ts';
import type { Redact } from './redact.ts';
import { inFreshCheckout } from './verification.ts';
import type { Workspaces } from './workspaces.ts';

/** One remark of a reviewer. */
export interface ReviewFinding {
  /** From the top of the repository. */
  readonly file?: string;
  readonly line?: number;
  readonly message: string;
}

export interface ReviewAnswer {
  readonly approve: boolean;
  readonly findings?: readonly ReviewFinding[];
}

/** What a function of the app is given to judge by. */
export interface ReviewRequest {
  readonly run: string;
  readonly task: string;
  readonly title: string;
  /** The change against the target, as a unified diff. */
  readonly diff: string;
  readonly files: readonly string[];
  /** Aborted when the verification is called off, or the reviewer's time is up. */
  readonly signal: AbortSignal;
}

/**
 * Somebody who looks at a change that has passed all commands. A command runs in a fresh checkout of target + change, with
 * the diff on its standard input and in the file that `TROUPE_DIFF_FILE` names. It answers by its exit code: 0 approves, 1
 * does not, any other is a failure of the reviewer; on its standard output there may be findings as JSON: a list of `{
 * file, line, message }`, or an object with such a list under `findings`.
 */
export type Reviewer =
  | {
      /** Unique. */
      readonly name: string;
      /** An array is program and arguments; a string is the user's own shell command. */
      readonly command: string | readonly string[];
      /** Default 600 000. */
      readonly timeoutMs?: number;
    }
  | {
      readonly name: string;
      readonly review: (request: ReviewRequest) => Promise<ReviewAnswer> | ReviewAnswer;
      readonly timeoutMs?: number;
    };

export const REVIEW_MODES = ['off', 'advisory', 'gate'] as const;
export const REVIEW_DECISIONS = ['majority', 'any', 'all'] as const;

export interface ReviewOptions {
  /** `advisory`: what they say is kept as evidence. `gate`: without their approval nothing is merged. Default `gate`. */
  readonly mode?: (typeof REVIEW_MODES)[number];
  /**
   * Of those who answered: `majority`, more than half approve; `any`, at least one; `all`, nobody does not. Nobody who
   * answers is no approval. Default `majority`.
   */
  readonly decide?: (typeof REVIEW_DECISIONS)[number];
  readonly reviewers: readonly Reviewer[];
  /** A reviewer that fails so often in a row is not asked for a while. Default 3. */
  readonly failures?: number;
  /** That while, in milliseconds. Default 600 000. */
  readonly pauseMs?: number;
}

/** What became of asking one reviewer. `failed`, `skipped`: it has no vote. */
export interface ReviewVote {
  readonly reviewer: string;
  readonly vote: 'approve' | 'reject' | 'failed' | 'skipped';
  /** Why it has no vote. */
  readonly reason?: string;
  readonly findings: readonly ReviewFinding[];
  readonly durationMs: number;
}

export interface ReviewOutcome {
  /** `undecided`: nobody had a vote. */
  readonly outcome: 'approved' | 'rejected' | 'undecided';
  readonly votes: readonly ReviewVote[];
}

/** What is to be reviewed. */
interface ReviewSubject extends Omit<ReviewRequest, 'signal'> {
  /** Exactly this is checked out. */
  readonly commit: string;
  /** The same change is not reviewed twice. */
  readonly changeFingerprint: string;
}

/** How often in a row a reviewer has failed, and until when it is left alone. */
export interface BreakerState {
  readonly failures: number;
  readonly openUntil: number;
}

/** @returns the state after one more answer or failure; after the pause one is asked again, and one failure is enough */
export function afterReview(
  state: BreakerState,
  failed: boolean,
  now: number,
  {
    failures = DEFAULT_FAILURES,
    pauseMs = DEFAULT_PAUSE_MS,
  }: Pick<ReviewOptions, 'failures' | 'pauseMs'>,
): BreakerState {
  if (!failed) return CLOSED;
  const inARow = state.failures + 1;
  return { failures: inARow, openUntil: inARow >= failures ? now + pauseMs : 0 };
}

/** What the votes come to. Who failed or was skipped has none, and a tie is no majority. */
export function countVotes(
  decide: NonNullable<ReviewOptions['decide']>,
  votes: readonly Pick<ReviewVote, 'vote'>[],
): ReviewOutcome['outcome'] {
  const approvals = votes.filter(({ vote }) => vote === 'approve').length;
  const rejections = votes.filter(({ vote }) => vote === 'reject').length;
  if (approvals + rejections === 0) return 'undecided';
  const approved =
    decide === 'any' ? approvals > 0 : decide === 'all' ? rejections === 0 : approvals > rejections;
  return approved ? 'approved' : 'rejected';
}

const CLOSED: BreakerState = { failures: 0, openUntil: 0 };
const DEFAULT_FAILURES = 3;
const DEFAULT_PAUSE_MS = 600_000;
const DEFAULT_TIMEOUT_MS = 600_000;
const MAX_FINDINGS = 50;
const MAX_ANSWER_BYTES = 1024 * 1024;
const REMEMBERED = 100;

/** @throws {ConfigurationError} expected and got */
export function checkReviewOptions(options: ReviewOptions): void {
  const refuse = (expected: string, got: unknown): never => {
    throw new ConfigurationError(`Review: expected ${expected}, got ${JSON.stringify(got)}.`);
  };
  const { mode = 'gate', decide = 'majority', reviewers, failures = 1, pauseMs = 1 } = options;
  if (!REVIEW_MODES.includes(mode)) refuse(`mode to be one of ${REVIEW_MODES.join(', ')}`, mode);
  if (!REVIEW_DECISIONS.includes(decide)) {
    refuse(`decide to be one of ${REVIEW_DECISIONS.join(', ')}`, decide);
  }
  if (!Array.isArray(reviewers)) refuse('reviewers to be a list', reviewers);
  // Nobody to ask would hold back everything, or let everything through.
  if (reviewers.length === 0 && mode !== 'off') refuse('at least one reviewer', reviewers);
  for (const [name, value] of Object.entries({ failures, pauseMs })) {
    if (!Number.isSafeInteger(value) || value < 1)
      refuse(`${name} to be a positive integer`, value);
  }
  const names = new Set<string>();
  for (const reviewer of reviewers) {
    const { name, timeoutMs = 1 } = reviewer;
    if (typeof name !== 'string' || name === '' || names.has(name)) {
      refuse('a unique name for each reviewer', name);
    }
    names.add(name);
    if (!Number.isSafeInteger(timeoutMs) || timeoutMs < 1) {
      refuse(`timeoutMs of ${name} to be a positive integer`, timeoutMs);
    }
    const command: unknown = 'command' in reviewer ? reviewer.command : undefined;
    const program: unknown = Array.isArray(command) ? command[0] : command;
    const runs = typeof program === 'string' && program.trim() !== '';
    if (!runs && !('review' in reviewer && typeof reviewer.review === 'function')) {
      refuse(`a command or a function for the reviewer ${name}`, command ?? null);
    }
  }
}

/** Asks the reviewers of a project, and remembers which of them fail. */
export class ReviewPanel {
  readonly options: ReviewOptions;
  readonly #workspaces: Workspaces;
  readonly #env: Readonly<Record<string, string>>;
  readonly #redact: Redact;
  readonly #now: () => number;
  readonly #breakers = new Map<string, BreakerState>();
  readonly #decided = new Map<string, ReviewOutcome>();

  constructor(
    options: ReviewOptions,
    {
      workspaces,
      env,
      redact,
      now = Date.now,
    }: {
      readonly workspaces: Workspaces;
      /** For commands; see `buildEnvironment`. */
      readonly env: Readonly<Record<string, string>>;
      readonly redact: Redact;
      /** Milliseconds since 1970. */
      readonly now?: () => number;
    },
  ) {
    checkReviewOptions(options);
    this.options = options;
    this.#workspaces = workspaces;
    this.#env = env;
    this.#redact = redact;
    this.#now = now;
  }

  /**
   * Asks everybody who is not left alone, one after the other. A change that was decided about is not reviewed again: when
   * the target has moved, or a person has approved meanwhile, it is still the same change.
   * @throws the reason of `signal` when that is aborted
   */
  async review(subject: ReviewSubject, signal: AbortSignal): Promise<ReviewOutcome> {
    const key = `${subject.run}/${subject.task} ${subject.changeFingerprint}`;
    const before = this.#decided.get(key);
    if (before !== undefined) return before;
    const votes: ReviewVote[] = [];
    for (const reviewer of this.options.reviewers) {
      signal.throwIfAborted();
      votes.push(await this.#ask(reviewer, subject, signal));
    }
    const outcome = countVotes(this.options.decide ?? 'majority', votes);
    if (outcome !== 'undecided') {
      this.#decided.set(key, { outcome, votes });
      const [oldest] = this.#decided.keys();
      if (this.#decided.size > REMEMBERED && oldest !== undefined) this.#decided.delete(oldest);
    }
    return { outcome, votes };
  }

  async #ask(reviewer: Reviewer, subject: ReviewSubject, signal: AbortSignal): Promise<ReviewVote> {
    const { name } = reviewer;
    const state = this.#breakers.get(name) ?? CLOSED;
    const startedAt = this.#now();
    if (state.openUntil > startedAt) {
      const until = new Date(state.openUntil).toISOString();
      const reason = `It has failed ${state.failures} times in a row, and is not asked until ${until}.`;
      return { reviewer: name, vote: 'skipped', reason, findings: [], durationMs: 0 };
    }
    let answer: ReviewAnswer | { readonly failed: string };
    try {
      answer =
        'command' in reviewer
          ? await this.#run(reviewer, subject, signal)
          : await callFunction(reviewer, subject, signal);
    } catch (error) {
      signal.throwIfAborted();
      answer = { failed: error instanceof Error ? error.message : String(error) };
    }
    const failed = 'failed' in answer;
    this.#breakers.set(name, afterReview(state, failed, this.#now(), this.options));
    const durationMs = this.#now() - startedAt;
    if ('failed' in answer) {
      const reason = excerptOf(this.#redact(answer.failed), 1000);
      return { reviewer: name, vote: 'failed', reason, findings: [], durationMs };
    }
    const findings = (answer.findings ?? []).slice(0, MAX_FINDINGS).map((finding) => ({
      ...finding,
      message: excerptOf(this.#redact(finding.message), 1000),
    }));
    return { reviewer: name, vote: answer.approve ? 'approve' : 'reject', findings, durationMs };
  }

  async #run(
    reviewer: Extract<Reviewer, { command: unknown }>,
    { run, task, title, commit, diff }: ReviewSubject,
    signal: AbortSignal,
  ): Promise<ReviewAnswer | { readonly failed: string }> {
    const { repository } = this.#workspaces;
    const place = { workspaces: this.#workspaces, commit, env: this.#env, signal };
    return await inFreshCheckout(place, async (workTree, env) => {
      const file = path.join(path.dirname(workTree), 'change.diff');
      await writeFile(file, diff);
      let said = '';
      const result = await runCommand({
        command: reviewer.command,
        cwd: workTree,
        env: {
          ...env,
          TROUPE_DIFF_FILE: file,
          TROUPE_RUN: run,
          TROUPE_TASK: task,
          TROUPE_TITLE: title.replaceAll('\0', ''),
        },
        stdin: diff,
        timeoutMs: reviewer.timeoutMs ?? DEFAULT_TIMEOUT_MS,
        processes: repository.processes,
        signal,
        onOutput: (chunk, stream) => {
          if (stream === 'stdout' && said.length < MAX_ANSWER_BYTES) said += chunk.toString('utf8');
        },
      });
      signal.throwIfAborted();
      if (result.timedOut) {
        return { failed: `It did not end within ${reviewer.timeoutMs ?? DEFAULT_TIMEOUT_MS} ms.` };
      }
      if (result.exitCode !== 0 && result.exitCode !== 1) {
        const how = result.spawnError ?? result.signal ?? `exit code ${result.exitCode}`;
        return { failed: `It failed (${how}): ${excerptOf(result.output, 500)}` };
      }
      const approve = result.exitCode === 0;
      const findings = findingsIn(said);
      // Without findings, what it printed says why.
      const message = excerptOf(result.output, 1000);
      return approve || findings.length > 0 || message === ''
        ? { approve, findings }
        : { approve, findings: [{ message }] };
    });
  }
}

async function callFunction(
  reviewer: Extract<Reviewer, { review: unknown }>,
  { commit: _commit, changeFingerprint: _fingerprint, ...request }: ReviewSubject,
  signal: AbortSignal,
): Promise<ReviewAnswer | { readonly failed: string }> {
  const timeoutMs = reviewer.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const limit = new AbortController();
  const timer = setTimeout(
    () => limit.abort(new Error(`It did not answer within ${timeoutMs} ms.`)),
    timeoutMs,
  );
  const both = AbortSignal.any([signal, limit.signal]);
  // One that does not heed its signal is left behind.
  const aborted = new Promise<never>((_, reject) => {
    both.addEventListener('abort', () => reject(both.reason as Error), { once: true });
  });
  try {
    const answer: unknown = await Promise.race([
      aborted,
      Promise.resolve(reviewer.review({ ...request, signal: both })),
    ]);
    const { approve, findings = [] } = (answer ?? {}) as Partial<ReviewAnswer>;
    if (typeof approve !== 'boolean') {
      return {
        failed: `Expected it to answer { approve: true } or { approve: false, findings }, got ${JSON.stringify(answer) ?? 'nothing'}.`,
      };
    }
    return { approve, findings: readFindings(findings) };
  } finally {
    clearTimeout(timer);
  }
}

/** The output as a whole, or else its last line that is JSON. */
function findingsIn(output: string): readonly ReviewFinding[] {
  const text = output.trim();
  for (const candidate of [text, ...text.split('\n').reverse().slice(0, 20)]) {
    if (!/^[[{]/.test(candidate.trim())) continue;
    try {
      const value: unknown = JSON.parse(candidate);
      return readFindings((value as { findings?: unknown }).findings ?? value);
    } catch {
      // Not JSON; perhaps the next candidate is.
    }
  }
  return [];
}

function readFindings(value: unknown): readonly ReviewFinding[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((each: unknown): ReviewFinding[] => {
    if (typeof each === 'string') return [{ message: each }];
    const { file, line, message } = (each ?? {}) as Partial<Record<keyof ReviewFinding, unknown>>;
    if (typeof message !== 'string') return [];
    return [
      {
        ...(typeof file === 'string' ? { file } : {}),
        ...(Number.isSafeInteger(line) ? { line: line as number } : {}),
        message,
      },
    ];
  });
}

/** For the next attempt and for people: `src/a.ts:3: say why`. */
export function describeFinding({ file, line, message }: ReviewFinding): string {
  const place = file === undefined ? '' : `${file}${line === undefined ? '' : `:${line}`}: `;
  return `${place}${message}`;
}
