import type { Logger } from 'pino';
import type { Address } from '../protocol/address.ts';
import { ConflictError, type Failure, toFailure } from '../protocol/errors.ts';
import type { FaultPoint } from '../protocol/fault-point.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { EffectRecord, StepRecord, Store } from '../store/store.ts';
import type { Actor } from './actor.ts';
import type { Clock } from './clock.ts';
import type { Commits } from './commits.ts';
import {
  type EffectLimits,
  type EffectOutcome,
  EffectRunner,
  effectKey,
  type Runnable,
} from './effect-runner.ts';
import type { HostEmitter } from './host-emitter.ts';
import type { PayloadLimit } from './payload-limit.ts';
import type { NewStep } from './step-journal.ts';
import type { Streams } from './streams.ts';

/** `startedAt` of an effect that waits for a place, or that a clean stop has put back. */
const NOT_STARTED = 0;

/** An effect that the process has died with so often may be what it dies of. Once is anybody's bad luck. */
const SUSPECT_AFTER = 2;

/** Work that a state has started and that has not ended. */
export class DurableEffect implements Runnable {
  record: EffectRecord;
  /** Its state was not left, and nobody has handled its outcome. */
  live = true;
  /** This runtime has stored that it is started. */
  ours = false;
  suspect = false;
  /** There may be rows of its steps. */
  hasSteps: boolean;

  constructor(record: EffectRecord, hasSteps: boolean) {
    this.record = record;
    this.hasSteps = hasSteps;
  }
}

export interface DurableEffectsOptions {
  readonly limit: PayloadLimit;
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly faultPoint: FaultPoint;
  readonly commits: Commits;
  readonly events: HostEmitter;
  readonly streams: Streams;
  readonly limits: EffectLimits;
  readonly maxRestarts: number;
  /** Sees to it that what was staged outside a turn is flushed. */
  readonly schedule: () => void;
  /** Whether what is staged now will be flushed: the host has neither failed nor stopped. */
  readonly canStore: () => boolean;
  /** An effect has ended; its outcome counts if `take` says so when its turn comes. */
  readonly deliver: (effect: DurableEffect, outcome: EffectOutcome) => void;
}

/**
 * The effects of all actors. One is a row from the turn that starts it to the turn that handles its outcome, so it
 * runs at least once, and its outcome counts exactly once.
 */
export class DurableEffects {
  readonly runner: EffectRunner<DurableEffect>;
  readonly #byAddress = new Map<string, Map<string, DurableEffect>>();
  /** Those that have ended and whose turn has not come. */
  readonly #ended = new Set<DurableEffect>();
  readonly #options: DurableEffectsOptions;
  readonly #commits: Commits;

  constructor(options: DurableEffectsOptions) {
    this.#options = options;
    this.#commits = options.commits;
    this.runner = new EffectRunner<DurableEffect>(
      {
        clock: options.clock,
        faultPoint: options.faultPoint,
        starting: (effect) => this.#starting(effect),
        loadSteps: async (scope) =>
          new Map((await options.store.loadSteps(scope)).map((step) => [step.key, step])),
        saveStep: (effect, step) => this.#saveStep(effect, step),
        transact: (effect, statements, step) =>
          options.store.transact({ statements, step: this.#toKeep(effect, step) }),
        stream: (effect, source) =>
          options.streams.writer({ ...source, assertWanted: () => this.#assertWanted(effect) }),
        stepsUnused: ({ record }, scope, keys) => this.#tellUnused(record, scope, keys),
        ended: (effect, outcome) => this.#hasEnded(effect, outcome),
        progressed: ({ record }, value) =>
          options.events.tell('progress', {
            address: record.address as Address,
            src: record.src,
            value,
          }),
      },
      options.limits,
    );
  }

  /** Effects that have ended and wait for their actor's turn. */
  get unhandled(): number {
    return this.#ended.size;
  }

  has(address: Address): boolean {
    return this.#byAddress.has(address);
  }

  /** All of an actor. */
  of(address: Address): Iterable<DurableEffect> {
    return this.#byAddress.get(address)?.values() ?? [];
  }

  /** @returns the addresses that have effects */
  recover(records: readonly EffectRecord[]): Iterable<Address> {
    for (const record of records) this.#add(new DurableEffect(record, true));
    return this.#byAddress.keys() as Iterable<Address>;
  }

  /** A turn starts an effect; one that has the id already is stopped. It runs after the turn's commit. */
  start(
    actor: Actor,
    id: string,
    src: string,
    inputJson: string,
    generation: string,
    now: number,
  ): void {
    const { address } = actor;
    this.stop(address, id);
    const hasPlace = this.runner.reserve();
    const record: EffectRecord = {
      address,
      id,
      generation,
      src,
      inputJson,
      attempt: 1,
      startedAt: hasPlace ? now : NOT_STARTED,
    };
    const effect = new DurableEffect(record, false);
    effect.ours = hasPlace;
    this.#add(effect);
    this.#commits.stage.setEffect(record);
    this.#commits.after(() => this.#begin(actor, effect, hasPlace));
  }

  /** The state that started it is left. */
  stop(address: Address, id: string): void {
    const effect = this.#byAddress.get(address)?.get(id);
    if (effect === undefined) return;
    this.take(effect);
    this.#commits.after(() =>
      this.runner.abort(effect, 'The state that started the effect was left.'),
    );
  }

  stopAll(address: Address): void {
    for (const id of [...(this.#byAddress.get(address)?.keys() ?? [])]) this.stop(address, id);
  }

  /**
   * The actor becomes what it was. They are aborted before that is stored: what one of them does outside while it is
   * stored (claim tasks, say) would be done in the name of nobody.
   */
  giveUp(address: Address): void {
    for (const effect of [...(this.#byAddress.get(address)?.values() ?? [])]) {
      this.take(effect);
      this.runner.abort(effect, 'The actor was rolled back.');
    }
  }

  /** Ends an effect. @returns false if it had ended already: its state was left, or its outcome was handled */
  take(effect: DurableEffect): boolean {
    if (!effect.live) return false;
    effect.live = false;
    this.#ended.delete(effect);
    const { record } = effect;
    const effects = this.#byAddress.get(record.address);
    effects?.delete(record.id);
    if (effects?.size === 0) this.#byAddress.delete(record.address);
    this.#commits.stage.clearEffect(record);
    if (effect.hasSteps) this.#commits.stage.clearedSteps.push(effectKey(record));
    return true;
  }

  /** After a crash or a stop: goes on with what the actor, which was just read, had under way. */
  restart(actor: Actor, now: number): void {
    for (const effect of [...(this.#byAddress.get(actor.address)?.values() ?? [])]) {
      const child = actor.snapshot?.children[effect.record.id];
      if (child === undefined) {
        // A migration has taken away the state that started it.
        this.take(effect);
        continue;
      }
      // Or it has given it another name.
      effect.record = { ...effect.record, src: String(child.src) };
      const { record } = effect;
      const policy = actor.registration?.driver.effect(record.src).restart;
      const fail = (failure: Failure): void => {
        this.#ended.add(effect);
        this.#options.deliver(effect, { ok: false, failure });
      };
      let most = this.#options.maxRestarts + 1;
      try {
        most = policy?.interruptions(JSON.parse(record.inputJson) as JsonValue) ?? most;
      } catch (error) {
        // Somebody else's code, as the effect itself is.
        fail(toFailure(error));
        continue;
      }
      const interruptions = interruptionsOf(record);
      if (interruptions >= most) {
        fail(interruptedTooOften(record, interruptions));
        continue;
      }
      effect.suspect = policy !== undefined && interruptions >= SUSPECT_AFTER;
      const hasPlace = !effect.suspect && this.runner.reserve();
      if (hasPlace) this.#stageStart(effect, now);
      this.#commits.after(() => this.#begin(actor, effect, hasPlace));
    }
  }

  /** A clean stop: an effect that was called off is not one that was running at a crash. */
  putBack(): void {
    for (const effects of this.#byAddress.values()) {
      for (const effect of effects.values()) {
        if (!effect.ours) continue;
        effect.record = { ...effect.record, startedAt: NOT_STARTED };
        this.#commits.stage.setEffect(effect.record);
      }
    }
  }

  #add(effect: DurableEffect): void {
    const { address, id } = effect.record;
    let effects = this.#byAddress.get(address);
    if (effects === undefined) {
      effects = new Map();
      this.#byAddress.set(address, effects);
    }
    effects.set(id, effect);
  }

  #begin(actor: Actor, effect: DurableEffect, hasPlace: boolean): void {
    if (!effect.live || actor.registration === undefined) {
      if (hasPlace) this.runner.release();
      return;
    }
    const create = actor.registration.driver.effect(effect.record.src);
    if (!hasPlace) this.runner.enqueue(effect, create);
    else if (this.runner.launch(effect, create)) this.#tellStarted(effect);
  }

  /** The row of an effect that has been started before says so, and counts. */
  #stageStart(effect: DurableEffect, now: number): void {
    const { record } = effect;
    effect.record = { ...record, attempt: interruptionsOf(record) + 1, startedAt: now };
    effect.ours = true;
    this.#commits.stage.setEffect(effect.record);
  }

  async #starting(effect: DurableEffect): Promise<boolean> {
    if (!effect.live) return false;
    this.#stageStart(effect, this.#options.clock.now());
    this.#options.schedule();
    await this.#commits.stored();
    if (effect.live) this.#tellStarted(effect);
    return effect.live;
  }

  #tellStarted({ record }: DurableEffect): void {
    this.#options.events.tell('effectStarted', {
      address: record.address as Address,
      id: record.id,
      src: record.src,
      attempt: record.attempt,
    });
  }

  #hasEnded(effect: DurableEffect, outcome: EffectOutcome): void {
    const { record } = effect;
    this.#options.events.tell('effectEnded', {
      address: record.address as Address,
      id: record.id,
      src: record.src,
      attempt: record.attempt,
      failure: outcome.ok ? null : outcome.failure,
    });
    if (!effect.live) return;
    this.#ended.add(effect);
    this.#options.deliver(effect, outcome);
  }

  async #saveStep(effect: DurableEffect, step: NewStep): Promise<void> {
    this.#commits.stage.steps.push(this.#toKeep(effect, step));
    this.#options.schedule();
    await this.#commits.stored();
  }

  /** @throws {ConflictError} whoever did it has no say any more */
  #toKeep(effect: DurableEffect, step: NewStep): StepRecord {
    const { record } = effect;
    this.#assertWanted(effect);
    this.#options.limit.checkJson(
      `The result of the step "${step.key}" of ${record.address}`,
      step.outcomeJson,
    );
    effect.hasSteps = true;
    return { ...step, at: this.#options.clock.now() };
  }

  /** @throws {ConflictError} */
  #assertWanted({ live, record }: DurableEffect): void {
    // Its state was left, and somebody else may have taken over; or it was left behind when the runtime stopped.
    if (live && this.#options.canStore()) return;
    throw new ConflictError(`The effect "${record.src}" of ${record.address} is no longer wanted.`);
  }

  #tellUnused({ address, src }: EffectRecord, scope: string, keys: readonly string[]): void {
    this.#options.logger.warn(
      { actor: address, effect: src, scope, steps: keys },
      'an effect that was started again did not ask for steps it had done; has its code changed?',
    );
    this.#options.events.tell('stepsUnused', { address: address as Address, src, scope, keys });
  }
}

/** How often in a row the process has died while it ran. One that was put back has not been interrupted. */
const interruptionsOf = ({ attempt, startedAt }: EffectRecord): number =>
  startedAt === NOT_STARTED ? attempt - 1 : attempt;

function interruptedTooOften({ src }: EffectRecord, interruptions: number): Failure {
  return {
    code: 'internal',
    message: `The effect "${src}" was running when the process ended, ${interruptions} times. It is not started again.`,
    retryable: false,
    context: { interruptions },
  };
}
