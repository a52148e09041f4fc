import { z } from 'zod';
import { type BackoffPolicy, backoffMs, MAX_TIMER_MS } from '../protocol/backoff.ts';
import { TroupeError, toFailure, ValidationError } from '../protocol/errors.ts';
import { unitHash } from '../protocol/hash.ts';
import { findNonJson, type JsonValue } from '../protocol/json.ts';
import type { SqlStatement, SqlValue, StepKind } from '../store/store.ts';
import { ignoreRejection } from './ignore-rejection.ts';

/** What the function of a step is called with. */
export interface StepRun {
  /** Aborted when the step's time is up, its effect is called off, or the runtime stops. */
  readonly signal: AbortSignal;
  /** 1 for the first try; more when `retry` tries again. Counted anew after a crash. */
  readonly attempt: number;
  /** The same for every try and every restart, different for every other step: for services that de-duplicate. */
  readonly key: string;
}

export type StepFunction<T extends JsonValue> = (run: StepRun) => Promise<T> | T;

/**
 * When a step that fails is tried again. Waits grow as in `BackoffPolicy`; a failure that names a wait of its own
 * (`retryAfterMs`) is waited for, and is the last one if that is longer than `maxMs`. A wait ends when the effect is
 * called off.
 *
 * Crash: tries are not counted across restarts. The next start of the effect begins with the first.
 */
export interface StepRetry {
  /** Tries in all, the first one included. */
  readonly attempts: number;
  /** Default 1 000 ms. */
  readonly initialMs?: number;
  /** Default 2. */
  readonly factor?: number;
  /** Default 60 000 ms. */
  readonly maxMs?: number;
  /** Default 0.2. */
  readonly jitter?: number;
  /** Whether this failure is worth another try. Default: it says so itself (`TroupeError.retryable`, a network fault). */
  readonly while?: (error: unknown) => boolean;
}

export interface StepOptions extends TransactionOptions {
  /** Default: tried once. */
  readonly retry?: StepRetry;
  /**
   * For each try, in milliseconds. Then its signal is aborted, and it fails with a (retryable) `TimeoutError`; one that
   * does not heed its signal is left behind after 5 s. Default: no limit but the effect's own.
   */
  readonly timeoutMs?: number;
}

export interface TransactionOptions {
  /**
   * Tells apart steps of one name whatever their order: needed when they run at the same time. Asked for a second
   * time under the same key, a step gives its result again.
   */
  readonly key?: string | number;
  /**
   * What the step depends on. Its hash is kept with the result: asked for again with another input, after the code or
   * the data has changed, the step is refused instead of returning what does not belong to it.
   */
  readonly input?: JsonValue;
}

/** Collects the statements of a step's transaction. */
export interface StepTransaction {
  /** One INSERT, UPDATE, DELETE, REPLACE (or WITH … of these) on tables of the app, with a value for every `?`. */
  run(sql: string, ...values: readonly SqlValue[]): void;
}

/**
 * Runs `fn` once and keeps its result: when the effect is restarted, a step that had finished returns what it returned.
 *
 * Steps are found again by name; a name that is used again, after its first step has ended, is numbered (`mail`,
 * `mail#2`, …). Steps of one name that run at the same time need a `key` each, for their numbers would depend on
 * which comes first. Give keys, too, where parallel branches come to the same name one after the other: nobody can
 * see that, and after a restart they may come in another order.
 * Crash: a step that was running when the process died runs again; those that had finished do not, whichever ran
 * beside them.
 * @throws {StepMismatchError} a result is kept for it that belongs to another input, or to another kind of step
 * @throws {ValidationError} a name or option that cannot work, or two of one name at once
 */
export interface Step {
  <T extends JsonValue>(name: string, fn: StepFunction<T>): Promise<T>;
  <T extends JsonValue>(name: string, options: StepOptions, fn: StepFunction<T>): Promise<T>;
  /**
   * Writes rows of the app in the same commit as the step itself: after a crash both are there or neither. `fn` is not
   * asynchronous: it calls `tx.run` and returns the step's result. Its statements are carried out together after it
   * has returned; if one fails, none counts, the step is not kept and the error names the statement.
   *
   * Only on SQLite, and only for tables made by `createTroupe({ appSchema })`. Keep it short: while it runs, nothing
   * else is written.
   * @throws {ValidationError} a statement that is refused, or that fails
   * @throws {ConflictError} a row with that key exists already
   */
  tx<T extends JsonValue>(name: string, fn: (tx: StepTransaction) => T): Promise<T>;
  tx<T extends JsonValue>(
    name: string,
    options: TransactionOptions,
    fn: (tx: StepTransaction) => T,
  ): Promise<T>;
}

/** What is kept for a step is not what is asked for: the code has changed since, or two steps share one name. */
export class StepMismatchError extends TroupeError {
  constructor(
    scope: string,
    key: string,
    what: { readonly expected: string; readonly found: string; readonly todo: string },
  ) {
    const { expected, found, todo } = what;
    super(
      'conflict',
      `The step "${key}" of ${scope} was kept ${found}, and is asked for ${expected} now. ${todo}`,
      { retryable: false, context: { scope, key, expected, found } },
    );
  }
}

const MAX_NAME = 240;
const DEFAULT_RETRY: BackoffPolicy = { initialMs: 1_000, factor: 2, maxMs: 60_000, jitter: 0.2 };

const milliseconds = z.int().min(1).max(MAX_TIMER_MS);
const transactionOptions = z.strictObject({
  key: z
    .union([
      z
        .string()
        .min(1)
        .max(1_000)
        .refine((key) => key.isWellFormed(), 'contains half of a character'),
      z.int(),
    ])
    .optional(),
  input: z
    .custom<JsonValue>((value) => findNonJson(value) === undefined, 'expected plain JSON')
    .optional(),
});
const retryOptions = z.strictObject({
  attempts: z.int().min(1),
  initialMs: milliseconds.optional(),
  factor: z.number().min(1).max(1_000_000).optional(),
  maxMs: milliseconds.optional(),
  jitter: z.number().min(0).max(1).optional(),
  while: z
    .custom<(error: unknown) => boolean>(
      (value) => typeof value === 'function',
      'expected a function',
    )
    .optional(),
});
const stepOptions = transactionOptions.extend({
  retry: retryOptions.optional(),
  timeoutMs: milliseconds.optional(),
});

/** @throws {ValidationError} an option that is unknown or out of range */
export function checkRetry(what: string, retry: StepRetry): void {
  const parsed = retryOptions.safeParse(retry);
  if (parsed.success) return;
  const issue = parsed.error.issues[0];
  const where = issue?.path.map(String).join('.') || 'it';
  throw new ValidationError(
    `The retry of ${what} cannot work: ${where}: ${issue?.message ?? 'does not fit'}.`,
  );
}

/** @throws {ValidationError} a name that could be taken for another's number or key */
export function checkStepName(name: unknown): void {
  const fits =
    typeof name === 'string' &&
    name !== '' &&
    name.length <= MAX_NAME &&
    name.isWellFormed() &&
    !/\[|#\d+$/.test(name);
  if (fits) return;
  throw new ValidationError(
    `Expected a step's name to be a text of 1 to ${MAX_NAME} characters, without "[" and not ending in "#" and a number, got ${JSON.stringify(name) ?? String(name)}. To tell steps of one name apart, give keys: step("mail", { key: user.id }, …).`,
  );
}

/** @throws {ValidationError} an option that is unknown or out of range */
export function checkStepOptions(name: string, kind: StepKind, options: StepOptions): void {
  const parsed = (kind === 'tx' ? transactionOptions : stepOptions).safeParse(options);
  if (parsed.success) return;
  const issue = parsed.error.issues[0];
  const where = issue?.path.map(String).join('.') || 'they';
  throw new ValidationError(
    `The options of step "${name}" cannot work: ${where}: ${issue?.message ?? 'do not fit'}.`,
  );
}

/** The name in the key under which a step is kept: `mail` for `mail`, `mail#2` and `mail[ada]`. */
export const stepNameOf = (key: string): string => key.replace(/(?:\[.*|#\d+)$/s, '');

/**
 * @param attempt how many tries there have been
 * @returns how long to wait before the next one; undefined: that was the last
 */
export function retryWaitMs(
  retry: StepRetry | undefined,
  attempt: number,
  error: unknown,
  key: string,
): number | undefined {
  if (retry === undefined || attempt >= retry.attempts) return undefined;
  const { retryable, retryAfterMs = 0 } = toFailure(error);
  if (!(retry.while?.(error) ?? retryable)) return undefined;
  const { attempts: _attempts, while: _while, ...given } = retry;
  const policy = { ...DEFAULT_RETRY, ...given };
  if (retryAfterMs > policy.maxMs) return undefined;
  return Math.max(retryAfterMs, backoffMs(policy, attempt, unitHash(`${key}:${attempt}`)));
}

/** Runs the function of a transaction. @returns its result and what it wants written */
export function collectStatements(
  key: string,
  fn: (tx: StepTransaction) => JsonValue,
): { readonly result: JsonValue; readonly statements: readonly SqlStatement[] } {
  const statements: SqlStatement[] = [];
  let open = true;
  const result: unknown = fn({
    run(sql, ...values) {
      if (!open) {
        throw new ValidationError(
          `The function of step.tx "${key}" has returned already: its statements are collected while it runs. Make it synchronous.`,
        );
      }
      statements.push(checkStatement(`tx.run of step "${key}"`, sql, values));
    },
  });
  open = false;
  if (typeof (result as { then?: unknown } | null | undefined)?.then === 'function') {
    ignoreRejection(result);
    throw new ValidationError(
      `Expected the function of step.tx "${key}" to return its result, got a promise. Do what takes time in a step before it, and write its result in step.tx.`,
    );
  }
  return { result: (result ?? null) as JsonValue, statements };
}

/** @throws {ValidationError} what cannot be a statement, or a value in one */
export function checkStatement(
  where: string,
  sql: unknown,
  values: readonly unknown[],
): SqlStatement {
  if (typeof sql !== 'string') {
    throw new ValidationError(
      `Expected ${where} to get a statement such as "… FROM app_orders WHERE id = ?", got ${typeof sql}.`,
    );
  }
  const at = values.findIndex((value) => !isSqlValue(value));
  if (at === -1) return { sql, values: values as readonly SqlValue[] };
  throw new ValidationError(
    `Expected value ${at + 1} of ${where} to be a text, a finite number or null, got ${findNonJson(values[at])?.found ?? typeof values[at]}; the statement is ${JSON.stringify(sql.slice(0, 200))}. Store other things as JSON text.`,
  );
}

function isSqlValue(value: unknown): boolean {
  if (typeof value === 'string') return value.isWellFormed();
  return value === null || (typeof value === 'number' && Number.isFinite(value));
}
