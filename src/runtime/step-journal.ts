import { TimeoutError, ValidationError } from '../protocol/errors.ts';
import type { FaultPoint } from '../protocol/fault-point.ts';
import { deepHash } from '../protocol/hash.ts';
import { findNonJson, type JsonValue } from '../protocol/json.ts';
import type { SqlStatement, StepKind, StepRecord } from '../store/store.ts';
import type { Clock } from './clock.ts';
import { settledOrLeftBehind } from './left-behind.ts';
import {
  checkStepName,
  checkStepOptions,
  collectStatements,
  retryWaitMs,
  type Step,
  type StepFunction,
  StepMismatchError,
  type StepOptions,
  type StepTransaction,
  type TransactionOptions,
} from './step.ts';

/** A step that is to be stored; the host adds when. */
export type NewStep = Omit<StepRecord, 'at'>;
/** What a journal must know of a step that is kept. */
export type KeptStep = Pick<StepRecord, 'kind' | 'inputHash' | 'outcomeJson'>;

/** What a journal needs of whoever runs its effect. */
export interface JournalHost {
  readonly clock: Clock;
  readonly faultPoint: FaultPoint;
  load(): Promise<ReadonlyMap<string, KeptStep>>;
  /** Resolves when the step is stored; rejects when its effect is not wanted any more, and nothing is kept. */
  save(step: NewStep): Promise<void>;
  /** The same with rows of the app in the same commit. @returns the step as it is kept */
  transact(statements: readonly SqlStatement[], step: NewStep): Promise<KeptStep>;
  /** A sign of life. */
  beat(): void;
}

/** What one step does; it is not called if there is a result already. */
type Work = (key: string) => Promise<KeptStep>;

/**
 * Steps run side by side, and one may fail while its effect still waits for another: that is no rejection that nobody
 * handles, which would end the process.
 */
function awaitedLater<T>(step: Promise<T>): Promise<T> {
  step.catch(() => undefined);
  return step;
}

/**
 * The steps of one scope, as one start of an effect goes through them.
 *
 *     asked for → kept? ── yes ─────────────────────────────▶ its result, if kind and input are what they were
 *                   └ no ─▶ run, again and again → stored ──▶ its result
 *
 * A step is kept under its name and number, or its name and key. What is certain to be wrong is refused: another
 * input, another kind. That a kept step is not asked for any more is certain only for code without branches;
 * therefore it is told (`unused`) and not refused.
 */
export class StepJournal {
  readonly step: Step;
  readonly #host: JournalHost;
  readonly #scope: string;
  readonly #signal: AbortSignal;
  /** How often each name was used without a key. */
  readonly #uses = new Map<string, number>();
  /** Names that are in use without a key. */
  readonly #busy = new Set<string>();
  /** By key, those asked for that have not ended. */
  readonly #underWay = new Map<string, Promise<KeptStep>>();
  readonly #asked = new Set<string>();
  #kept: Promise<Map<string, KeptStep>> | undefined;

  /** @param signal of the work that the steps are part of */
  constructor(host: JournalHost, scope: string, signal: AbortSignal) {
    if (typeof scope !== 'string' || !scope.isWellFormed()) {
      throw new ValidationError(
        `Expected the scope of steps to be a text, got ${JSON.stringify(scope) ?? String(scope)}.`,
      );
    }
    this.#host = host;
    this.#scope = scope;
    this.#signal = signal;
    this.step = Object.assign(
      <T extends JsonValue>(name: string, ...rest: StepArguments<StepOptions, StepFunction<T>>) =>
        awaitedLater(this.#step(name, ...optionsFirst(rest))),
      {
        tx: <T extends JsonValue>(
          name: string,
          ...rest: StepArguments<TransactionOptions, (tx: StepTransaction) => T>
        ) => awaitedLater(this.#tx(name, ...optionsFirst(rest))),
      },
    );
  }

  /** Something has been kept or asked for here. */
  get isOpen(): boolean {
    return this.#kept !== undefined;
  }

  /** The keys of kept steps that nobody has asked for. */
  async unused(): Promise<readonly string[]> {
    const keys = [...(await this.#load()).keys()];
    return keys.filter((key) => !this.#asked.has(key));
  }

  async #step<T extends JsonValue>(
    name: string,
    options: StepOptions,
    fn: StepFunction<T>,
  ): Promise<T> {
    const kept = await this.#named(name, 'step', options, async (key) =>
      this.#save(key, options, await this.#tryUntilDone(key, options, fn)),
    );
    return JSON.parse(kept.outcomeJson) as T;
  }

  async #tx<T extends JsonValue>(
    name: string,
    options: TransactionOptions,
    fn: (tx: StepTransaction) => T,
  ): Promise<T> {
    const kept = await this.#named(name, 'tx', options, async (key) => {
      const { result, statements } = collectStatements(key, fn);
      const step = this.#record(key, 'tx', options, result);
      await this.#host.faultPoint('step.before-save');
      return await this.#host.transact(statements, step);
    });
    return JSON.parse(kept.outcomeJson) as T;
  }

  // ── which step it is ───────────────────────────────────────────────────────────────────────────────

  async #named(name: string, kind: StepKind, options: StepOptions, work: Work): Promise<KeptStep> {
    checkStepName(name);
    checkStepOptions(name, kind, options);
    return options.key === undefined
      ? await this.#numbered(name, kind, options, work)
      : await this.#keyed(`${name}[${options.key}]`, kind, options, work);
  }

  async #numbered(
    name: string,
    kind: StepKind,
    options: TransactionOptions,
    work: Work,
  ): Promise<KeptStep> {
    if (this.#busy.has(name)) {
      throw new ValidationError(
        `Two steps "${name}" of ${this.#scope} run at the same time, and which is the first depends on chance. Tell them apart by keys: step("${name}", { key: user.id }, …).`,
      );
    }
    const use = (this.#uses.get(name) ?? 0) + 1;
    this.#uses.set(name, use);
    this.#busy.add(name);
    try {
      return await this.#once(use === 1 ? name : `${name}#${use}`, kind, options, work);
    } finally {
      this.#busy.delete(name);
    }
  }

  async #keyed(
    key: string,
    kind: StepKind,
    options: TransactionOptions,
    work: Work,
  ): Promise<KeptStep> {
    const before = this.#underWay.get(key);
    if (before !== undefined) {
      const kept = await before;
      this.#checkFits(key, kind, options, kept);
      return kept;
    }
    const underWay = this.#once(key, kind, options, work);
    this.#underWay.set(key, underWay);
    try {
      return await underWay;
    } finally {
      this.#underWay.delete(key);
    }
  }

  async #once(
    key: string,
    kind: StepKind,
    options: TransactionOptions,
    work: Work,
  ): Promise<KeptStep> {
    this.#asked.add(key);
    this.#signal.throwIfAborted();
    const steps = await this.#load();
    const kept = steps.get(key);
    if (kept !== undefined) {
      this.#checkFits(key, kind, options, kept);
      return kept;
    }
    const done = await work(key);
    steps.set(key, done);
    this.#host.beat();
    this.#signal.throwIfAborted();
    return done;
  }

  #load(): Promise<Map<string, KeptStep>> {
    this.#kept ??= this.#host.load().then((kept) => new Map(kept));
    return this.#kept;
  }

  /** @throws {StepMismatchError} */
  #checkFits(key: string, kind: StepKind, { input }: TransactionOptions, kept: KeptStep): void {
    if (kept.kind !== kind) {
      throw new StepMismatchError(this.#scope, key, {
        expected: `as ${WORDS[kind]}`,
        found: `as ${WORDS[kept.kind]}`,
        todo: 'The code has changed since: give the new step a name of its own.',
      });
    }
    // A step that had no input, or has none any more, says nothing about it.
    if (input === undefined || kept.inputHash === null) return;
    const hash = deepHash(input);
    if (hash === kept.inputHash) return;
    throw new StepMismatchError(this.#scope, key, {
      expected: `for the input ${hash}`,
      found: `for the input ${kept.inputHash}`,
      todo: 'The code or its data has changed since: give the new step another name or key.',
    });
  }

  // ── doing it ───────────────────────────────────────────────────────────────────────────────────────

  async #tryUntilDone<T extends JsonValue>(
    key: string,
    options: StepOptions,
    fn: StepFunction<T>,
  ): Promise<JsonValue> {
    for (let attempt = 1; ; attempt++) {
      try {
        return (await this.#try(key, attempt, options.timeoutMs, fn)) ?? null;
      } catch (error) {
        const waitMs = retryWaitMs(options.retry, attempt, error, `${this.#scope}/${key}`);
        if (waitMs === undefined || this.#signal.aborted) throw error;
        this.#host.beat();
        await this.#wait(waitMs);
        this.#host.beat();
      }
    }
  }

  async #try<T extends JsonValue>(
    key: string,
    attempt: number,
    timeoutMs: number | undefined,
    fn: StepFunction<T>,
  ): Promise<T> {
    const run = { signal: this.#signal, attempt, key: `${this.#scope}/${key}` };
    if (timeoutMs === undefined) return await fn(run);
    const limit = new AbortController();
    const signal = AbortSignal.any([this.#signal, limit.signal]);
    const cancelLimit = this.#host.clock.setTimer(timeoutMs, () =>
      limit.abort(
        new TimeoutError(
          `The step "${key}" of ${this.#scope} was not done after ${timeoutMs} ms.`,
          {
            context: { scope: this.#scope, key, timeoutMs },
          },
        ),
      ),
    );
    try {
      const result = (async () => await fn({ ...run, signal }))();
      return await settledOrLeftBehind(result, limit.signal, this.#host.clock);
    } finally {
      cancelLimit();
    }
  }

  #wait(ms: number): Promise<void> {
    const signal = this.#signal;
    return new Promise<void>((resolve, reject) => {
      const onAbort = (): void => {
        cancel();
        reject(signal.reason as Error);
      };
      const cancel = this.#host.clock.setTimer(ms, () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      });
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  async #save(key: string, options: TransactionOptions, result: JsonValue): Promise<KeptStep> {
    const step = this.#record(key, 'step', options, result);
    await this.#host.faultPoint('step.before-save');
    // Also when the time is up or the runtime stops: what is done need not be done again.
    await this.#host.save(step);
    return step;
  }

  #record(key: string, kind: StepKind, { input }: TransactionOptions, result: JsonValue): NewStep {
    const problem = findNonJson(result, `step "${key}"`);
    if (problem) {
      throw new TypeError(
        `The result of a step must be plain JSON, but ${problem.path} is ${problem.found}.`,
      );
    }
    return {
      scope: this.#scope,
      key,
      kind,
      inputHash: input === undefined ? null : deepHash(input),
      outcomeJson: JSON.stringify(result),
    };
  }
}

const WORDS = {
  step: 'a step',
  tx: 'a step with a transaction',
} as const satisfies Record<StepKind, string>;

type StepArguments<Options, Fn> = readonly [fn: Fn] | readonly [options: Options, fn: Fn];

function optionsFirst<Options extends object, Fn>(
  rest: StepArguments<Options, Fn>,
): readonly [Options, Fn] {
  return rest.length === 1 ? [{} as Options, rest[0]] : rest;
}
