import type { Address } from '../protocol/address.ts';
import { CancelledError, type Failure, TimeoutError, toFailure } from '../protocol/errors.ts';
import type { FaultPoint } from '../protocol/fault-point.ts';
import { findNonJson, type JsonValue } from '../protocol/json.ts';
import type { EffectRecord, SqlStatement } from '../store/store.ts';
import type { Clock } from './clock.ts';
import { settledOrLeftBehind } from './left-behind.ts';
import type { Step } from './step.ts';
import { type JournalHost, type KeptStep, type NewStep, StepJournal } from './step-journal.ts';
import type { StreamWriter } from './stream.ts';
import { checkStreamName, DEFAULT_STREAM } from './stream.ts';
import type { Writer, WriterSource } from './streams.ts';
import type { EffectCreator } from './xstate-driver.ts';

/** What an effect's function is called with. */
export interface EffectContext<Input = JsonValue> {
  readonly input: Input;
  /** The actor that invoked it. */
  readonly address: string;
  /** The same for every restart of this effect, different for every other: hand it to services that de-duplicate. */
  readonly key: string;
  /** 1 for the first start; more after a crash. */
  readonly attempt: number;
  /** Aborted when the state is left, the time is up, or the runtime stops. */
  readonly signal: AbortSignal;
  /** Does something once, whatever crashes. */
  readonly step: Step;
  /**
   * The same, kept under a scope that outlives this effect (for example one attempt at a task).
   * @param signal of the work they are part of, if that may end before the effect. Default: the effect's own
   */
  stepsOf(scope: string, signal?: AbortSignal): Step;
  /** Says that it is alive: see `heartbeatMs`. */
  readonly heartbeat: () => void;
  /** Says that it is alive, and what it does. Seen by observers; not stored. */
  progress(value: JsonValue): void;
  /**
   * A stream of its actor, to be read by `troupe.readStream(address, { name })`. A restart of this effect that writes the
   * same does not store it twice.
   * @param name default `output`
   */
  stream(name?: string): StreamWriter;
  /** @internal One of another actor, under the name of a writer that outlives this effect. Any name. */
  streamOf(address: string, writer: string, name: string): StreamWriter;
  /**
   * @internal Told once when it has shown no sign of life for the limit, instead of being aborted: it ends what is silent,
   * and saves what can be saved. It is aborted when it is silent for as long again, or for a minute if that is longer.
   */
  onSilence(end: (reason: TimeoutError) => void): void;
  /** @internal While this waits for others, it need not show signs of life. */
  patiently<T>(wait: () => Promise<T>): Promise<T>;
}

/** How an effect ended. */
export type EffectOutcome =
  | { readonly ok: true; readonly output: JsonValue }
  | { readonly ok: false; readonly failure: Failure };

/** An effect as the runner sees it: its row, which is rewritten at every start. */
export interface Runnable {
  record: EffectRecord;
  /** The process has died more than once while it ran: perhaps because of it. */
  readonly suspect: boolean;
  /** There may be steps of its own that were kept before. */
  readonly hasSteps: boolean;
}

/** What the runner needs of the host. */
export interface EffectHost<E extends Runnable> {
  readonly clock: Clock;
  readonly faultPoint: FaultPoint;
  /** An effect that has waited for a place may start. @returns false if it is not wanted any more */
  starting(effect: E): Promise<boolean>;
  loadSteps(scope: string): Promise<ReadonlyMap<string, KeptStep>>;
  /** Resolves when the step is stored; rejects when its effect is not wanted any more, and nothing is kept. */
  saveStep(effect: E, step: NewStep): Promise<void>;
  /** The same with rows of the app in the same commit. @returns the step as it is kept */
  transact(effect: E, statements: readonly SqlStatement[], step: NewStep): Promise<KeptStep>;
  /** The effect has ended well without asking for steps that were kept. */
  stepsUnused(effect: E, scope: string, keys: readonly string[]): void;
  ended(effect: E, outcome: EffectOutcome): void;
  progressed(effect: E, value: JsonValue): void;
  stream(effect: E, source: Pick<WriterSource, 'address' | 'name' | 'writer' | 'beat'>): Writer;
}

export interface EffectLimits {
  /** Effects running at once in this runtime; the rest waits its turn. */
  readonly concurrency: number;
  /** An effect that reports no progress and finishes no step for so long is aborted. 0: never. */
  readonly heartbeatMs: number;
}

interface Running<E extends Runnable> {
  readonly effect: E;
  readonly controller: AbortController;
  readonly settled: Promise<void>;
  cancelHeartbeat: () => void;
  /** Waits of it that need no signs of life. */
  waits: number;
  /** Ends what is silent in its place, once. */
  endSilence: ((reason: TimeoutError) => void) | undefined;
  /** It was silent, and saves what can be saved. */
  saving: boolean;
  /** Its state was left: whatever it does from now on changes nothing. */
  abandoned: boolean;
}

/**
 * So long a suspect is the only one of its kind; then the next one starts beside it. A process that has lived on for so
 * long does not die of it, or of something slower than anybody can wait for; and perhaps this one waits for that one.
 */
export const SUSPECT_ALONE_MS = 600_000;

/** To save what a silent effect has done takes some processes and no long work. */
const SAVING_MS = 60_000;

/** The same for every start of an effect, different for every other. Also the scope of its own steps. */
export const effectKey = (effect: {
  readonly address: string;
  readonly generation: string;
}): string => `${effect.address}!${effect.generation}`;

/**
 * Runs effects: at most so many at once, each with a signal, steps and a heartbeat. Their outcome goes to the host.
 *
 * A place is taken before the start is stored (`reserve`, then `launch` after the commit), so that the row of an
 * effect says "started" only if nothing but a crash can come between. One that finds no place waits (`enqueue`).
 *
 * Suspects are started one at a time: if the process dies again, it counts against the one that ran, not against
 * those that wait.
 */
export class EffectRunner<E extends Runnable> {
  readonly #host: EffectHost<E>;
  readonly #limits: EffectLimits;
  readonly #running = new Map<E, Running<E>>();
  readonly #waiting = new Map<E, EffectCreator>();
  /** Those whose start is being recorded. */
  readonly #starting = new Set<E>();
  #reserved = 0;
  #accepting = true;
  /** The suspect whose turn it is, from its start on. */
  #suspect: E | undefined;
  #cancelAlone: () => void = () => undefined;

  constructor(host: EffectHost<E>, limits: EffectLimits) {
    this.#host = host;
    this.#limits = limits;
  }

  get running(): number {
    return this.#running.size;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Takes a place for one effect, if there is one and nobody waits for it. */
  reserve(): boolean {
    if (!this.#hasPlace() || this.#waiting.size > 0) return false;
    this.#reserved++;
    return true;
  }

  /** Gives a reserved place back. */
  release(): void {
    this.#reserved--;
    this.#next();
  }

  /** Starts an effect in a reserved place. @returns false when the runner is closed */
  launch(effect: E, create: EffectCreator): boolean {
    this.#reserved--;
    if (!this.#accepting) return false;
    this.#launch(effect, create);
    return true;
  }

  /** Starts an effect when there is a place. */
  enqueue(effect: E, create: EffectCreator): void {
    if (!this.#accepting) return;
    this.#waiting.set(effect, create);
    this.#next();
  }

  /** Aborts it, or takes it from the queue. Its outcome, if it still comes, is dropped. */
  abort(effect: E, reason: string): void {
    this.#waiting.delete(effect);
    this.#starting.delete(effect);
    const running = this.#running.get(effect);
    if (running === undefined) return;
    running.abandoned = true;
    running.controller.abort(new CancelledError(reason));
  }

  /** Starts nothing more; what waits stays stored and starts with the next runtime. */
  close(): void {
    this.#accepting = false;
    this.#waiting.clear();
    this.#cancelAlone();
  }

  /** Aborts everything that runs. Its outcome is not delivered: the next runtime runs it again. */
  abortAll(reason: string): void {
    for (const running of this.#running.values()) {
      running.abandoned = true;
      running.controller.abort(new CancelledError(reason));
    }
  }

  /** Resolves when nothing runs any more. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) {
      await Promise.all(Array.from(this.#running.values(), (running) => running.settled));
    }
  }

  #hasPlace(): boolean {
    return this.#accepting && this.#running.size + this.#reserved < this.#limits.concurrency;
  }

  #next(): void {
    while (this.#hasPlace()) {
      const next = this.#firstThatMay();
      if (next === undefined) return;
      const [effect, create] = next;
      this.#waiting.delete(effect);
      this.#reserved++;
      if (effect.suspect) this.#standAlone(effect);
      this.#starting.add(effect);
      this.#host.starting(effect).then(
        (wanted) => {
          // It may have been aborted since that was decided.
          if (this.#starting.delete(effect) && wanted) {
            this.launch(effect, create);
            return;
          }
          this.#standsNoLonger(effect);
          this.release();
        },
        // The host has failed: nothing starts any more.
        () => {
          this.#starting.delete(effect);
          this.release();
        },
      );
    }
  }

  /** The first that waits; of suspects only if no other has its turn. */
  #firstThatMay(): readonly [E, EffectCreator] | undefined {
    for (const entry of this.#waiting) {
      if (!entry[0].suspect || this.#suspect === undefined) return entry;
    }
    return undefined;
  }

  #standAlone(effect: E): void {
    this.#suspect = effect;
    this.#cancelAlone = this.#host.clock.setTimer(
      SUSPECT_ALONE_MS,
      () => {
        this.#standsNoLonger(effect);
        this.#next();
      },
      true,
    );
  }

  #standsNoLonger(effect: E): void {
    if (this.#suspect !== effect) return;
    this.#cancelAlone();
    this.#suspect = undefined;
  }

  #launch(effect: E, create: EffectCreator): void {
    const { promise: settled, resolve: settle } = Promise.withResolvers<void>();
    const running: Running<E> = {
      effect,
      controller: new AbortController(),
      settled,
      cancelHeartbeat: () => undefined,
      waits: 0,
      endSilence: undefined,
      saving: false,
      abandoned: false,
    };
    this.#running.set(effect, running);
    this.#beat(running);
    void this.#run(running, create).then((outcome) => {
      running.cancelHeartbeat();
      this.#running.delete(effect);
      if (!running.abandoned) this.#host.ended(effect, outcome);
      this.#standsNoLonger(effect);
      settle();
      this.#next();
    });
  }

  async #run(running: Running<E>, create: EffectCreator): Promise<EffectOutcome> {
    const { controller, effect } = running;
    const { record } = effect;
    const key = effectKey(record);
    const writers = new Map<string, Writer>();
    const streamOf = (address: string, writer: string, name: string): Writer => {
      const id = `${address}\n${writer}\n${name}`;
      let stream = writers.get(id);
      if (stream === undefined) {
        const beat = (): void => this.#beat(running);
        stream = this.#host.stream(effect, { address: address as Address, writer, name, beat });
        writers.set(id, stream);
      }
      return stream;
    };
    try {
      await this.#host.faultPoint('effect.before-start');
      const input = JSON.parse(record.inputJson) as JsonValue;
      const journals = new Map<string, StepJournal>();
      const journalOf = (scope: string, signal = controller.signal): StepJournal => {
        let journal = journals.get(scope);
        if (journal === undefined) {
          journal = new StepJournal(this.#journalHost(running, scope), scope, signal);
          journals.set(scope, journal);
        }
        return journal;
      };
      const own = journalOf(key);
      const context: EffectContext = {
        input,
        address: record.address,
        key,
        attempt: record.attempt,
        signal: controller.signal,
        step: own.step,
        stepsOf: (scope, signal) => journalOf(scope, signal).step,
        progress: (value) => {
          this.#beat(running);
          this.#host.progressed(effect, value);
        },
        stream: (name = DEFAULT_STREAM) => streamOf(record.address, key, checkStreamName(name)),
        streamOf,
        heartbeat: () => this.#beat(running),
        onSilence: (end) => {
          running.endSilence = end;
        },
        patiently: (wait) => this.#patiently(running, wait),
      };
      const output: unknown = await settledOrLeftBehind(
        Promise.resolve(
          create({ ...context, self: undefined, system: undefined, emit: () => undefined }),
        ),
        controller.signal,
        this.#host.clock,
      );
      // What it has written belongs to what it has done.
      for (const writer of writers.values()) await writer.flush();
      await this.#host.faultPoint('effect.after-end');
      const value = (output ?? null) as JsonValue;
      const problem = findNonJson(value, 'output');
      if (problem) {
        return {
          ok: false,
          failure: {
            code: 'internal',
            message: `The effect "${record.src}" must return plain JSON, but ${problem.path} is ${problem.found}.`,
            retryable: false,
          },
        };
      }
      for (const [scope, journal] of journals) {
        if (!journal.isOpen && !(journal === own && effect.hasSteps)) continue;
        const unused = await journal.unused();
        if (unused.length > 0) this.#host.stepsUnused(effect, scope, unused);
      }
      return { ok: true, output: value };
    } catch (error) {
      return { ok: false, failure: failureOf(error) };
    } finally {
      for (const writer of writers.values()) writer.release();
    }
  }

  async #patiently<T>(running: Running<E>, wait: () => Promise<T>): Promise<T> {
    running.waits++;
    running.cancelHeartbeat();
    try {
      return await wait();
    } finally {
      running.waits--;
      this.#beat(running);
    }
  }

  #journalHost(running: Running<E>, scope: string): JournalHost {
    const { effect } = running;
    return {
      clock: this.#host.clock,
      faultPoint: this.#host.faultPoint,
      load: () => this.#host.loadSteps(scope),
      save: (step) => this.#host.saveStep(effect, step),
      transact: (statements, step) => this.#host.transact(effect, statements, step),
      beat: () => this.#beat(running),
    };
  }

  #beat(running: Running<E>): void {
    running.cancelHeartbeat();
    // What was left behind may still finish a step; nobody waits for its next sign of life.
    const ended = this.#running.get(running.effect) !== running;
    if (ended || running.waits > 0 || this.#limits.heartbeatMs === 0) return;
    const { record } = running.effect;
    const { heartbeatMs } = this.#limits;
    running.cancelHeartbeat = this.#host.clock.setTimer(
      running.saving ? Math.max(heartbeatMs, SAVING_MS) : heartbeatMs,
      () => {
        const reason = new TimeoutError(
          `The effect "${record.src}" of ${record.address} showed no sign of life for ${heartbeatMs} ms.`,
        );
        const { endSilence } = running;
        if (endSilence === undefined) return running.controller.abort(reason);
        running.endSilence = undefined;
        running.saving = true;
        this.#beat(running);
        endSilence(reason);
      },
      true,
    );
  }
}

/** A failure that can be stored: an error may carry facts that are not JSON. */
function failureOf(error: unknown): Failure {
  const { context, ...failure } = toFailure(error);
  if (context === undefined || findNonJson(context) !== undefined) return failure;
  return { ...failure, context };
}
