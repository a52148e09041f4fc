import type { Address } from '../protocol/address.ts';
import { ConflictError, NotFoundError, toFailure } from '../protocol/errors.ts';
import type { JsonObject } from '../protocol/json.ts';
import type { Envelope, EpochMs } from '../protocol/message.ts';
import type {
  ActorStatus,
  Batch,
  CheckpointRecord,
  ClaimRow,
  Projection,
  StepRecord,
  Store,
} from '../store/store.ts';
import { requireSpawnable } from './action-checks.ts';
import type { Actor } from './actor.ts';
import type { Clock } from './clock.ts';
import type { Commits } from './commits.ts';
import { APP, type Delivery } from './delivery.ts';
import type { Directory } from './directory.ts';
import type { DurableEffects } from './durable-effects.ts';
import type { DurableTimers, TimerAction } from './durable-timers.ts';
import type { HostEmitter } from './host-emitter.ts';
import type { Loader } from './loader.ts';
import { type Pending, parsePending, pendingJsonOf } from './pending.ts';
import { type CutPlan, type Registration, restoreSnapshot } from './registration.ts';
import { projectedOf, SEND, type Turns } from './turns.ts';
import type { LiveSnapshot, PersistedSnapshot } from './xstate-driver.ts';

/*
 * Going back. A rollback is a turn that no message leads to: between two turns, in one commit, actors become what they
 * were at a checkpoint. History is never cut off: what they become is a new checkpoint at its end.
 *
 *     read the checkpoints → bring the actors into memory → plan (what exactly) → stage everything → commit
 *                                                           └─ from here on nothing can come in between ─┘
 *
 * Crash: before the commit nothing has happened, after it everything has.
 */

/** What a checkpoint made by hand says besides the state. */
export interface CheckpointNote {
  readonly label?: string;
  readonly details?: JsonObject;
}

/** An actor as it is now. */
export interface ActorNow {
  readonly address: Address;
  readonly machine: string;
  readonly status: ActorStatus;
  readonly seq: number;
  /** Undefined: it cannot be read. */
  readonly snapshot: PersistedSnapshot | undefined;
  readonly pending: Pending;
}

/** What an actor becomes. */
export interface Restoration {
  readonly address: Address;
  readonly checkpoint: CheckpointRecord;
  readonly pending: Pending;
  /** Of the checkpoint that is written. */
  readonly label: string;
  /** First keeps the actor as it is now, under this label. */
  readonly keepNow?: string;
}

/** An actor that begins as what another one was. */
export interface Fork {
  readonly address: Address;
  readonly machine: string;
  readonly version: number;
  readonly snapshotJson: string;
  readonly pending: Pending;
  readonly label: string;
}

/** A message that a journey sends. */
export type Sent = Omit<Envelope, 'id' | 'sentAt'> & {
  /** It is put back: the id it had. It is not if it waits still, or again. */
  readonly was?: string;
};

/** Everything that one journey changes. */
export interface Journey {
  /** A cut of how everything is now, before anything of this changes it. */
  readonly before?: CutPlan;
  readonly restorations?: readonly Restoration[];
  readonly forks?: readonly Fork[];
  /** Of the messages that wait: those that belong to what is given up. */
  readonly isGivenUp?: (envelope: Envelope) => boolean;
  /** Sent with it, or put back. Each gets an id of its own. */
  readonly messages?: readonly Sent[];
  readonly clearedSteps?: readonly string[];
  /** Steps that a fork finds done. */
  readonly steps?: readonly StepRecord[];
  readonly removedAttempts?: Batch['removedAttempts'];
  readonly claims?: readonly ClaimRow[];
  /** Rows to query by, besides those that the actors project. */
  readonly rows?: readonly Projection[];
}

export interface TimeTravelOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly registrations: ReadonlyMap<string, Registration>;
  readonly directory: Directory;
  readonly loader: Loader;
  readonly commits: Commits;
  readonly timers: DurableTimers;
  readonly effects: DurableEffects;
  readonly delivery: Delivery;
  readonly turns: Turns;
  readonly events: HostEmitter;
  readonly runtimeId: string;
  readonly newCutId: () => string;
  readonly schedule: () => void;
  readonly assertRunning: () => void;
}

/** An actor with what it becomes: all that can go wrong has been tried. */
interface Prepared<T> {
  readonly target: T;
  readonly registration: Registration;
  readonly live: LiveSnapshot;
  readonly persisted: PersistedSnapshot;
  readonly snapshotJson: string;
}

export class TimeTravel {
  readonly #o: TimeTravelOptions;
  #sent = 0;

  constructor(options: TimeTravelOptions) {
    this.#o = options;
  }

  /**
   * Keeps an actor as it is now.
   * @returns the number of the new checkpoint
   * @throws {NotFoundError} there is no such actor
   * @throws {ConflictError} its state cannot be read
   */
  async checkpoint(address: Address, { label, details }: CheckpointNote): Promise<number> {
    let seq = 0;
    await this.#withActors([address], (now) => {
      const { snapshot } = requireActor(now.get(address), address);
      const actor = this.#o.directory.actors.get(address) as Actor;
      if (snapshot === undefined) {
        throw new ConflictError(`The state of ${address} cannot be read: ${actor.reason}.`);
      }
      this.#append(actor, 'manual', label ?? null, JSON.stringify(snapshot), details);
      seq = actor.seq;
    });
    return seq;
  }

  /**
   * Makes an actor what it was right after the turn of a checkpoint: its state, byte for byte; its timers, which are due
   * when they were due; its effects, which are started again. A request that it had just made ends at once, with a
   * failure that says so. Its mailbox stays. What it has sent since is sent. As it was before is kept as a checkpoint.
   * @returns the number of the new checkpoint
   * @throws {NotFoundError} no such actor or checkpoint
   * @throws {ConflictError} the checkpoint cannot be restored
   */
  async rollback(address: Address, seq: number): Promise<number> {
    const checkpoint = await this.requireCheckpoint(address, seq);
    let restored = 0;
    await this.#withActors([address], (now) => {
      requireActor(now.get(address), address);
      const restoration: Restoration = {
        address,
        checkpoint,
        pending: withoutRequests(parsePending(checkpoint.pendingJson), this.#o.clock.now()),
        label: `rolled back to #${seq}`,
        keepNow: `before rollback to #${seq}`,
      };
      this.#carryOut({ restorations: [restoration] }, now);
      restored = (this.#o.directory.actors.get(address) as Actor).seq;
    });
    return restored;
  }

  /**
   * Makes a new actor of what another one was.
   * @throws {NotFoundError} no such checkpoint
   * @throws {ConflictError} there is an actor of the new address, or the checkpoint cannot be restored
   */
  async fork(address: Address, seq: number, as: Address): Promise<void> {
    const checkpoint = await this.requireCheckpoint(address, seq);
    const [record] = await this.#o.store.loadActors([address]);
    if (record === undefined) throw new NotFoundError(`There is no actor at ${address}.`);
    const now = this.#o.clock.now();
    await this.travel([as], () => ({
      forks: [
        {
          address: as,
          machine: record.machine,
          version: checkpoint.version,
          snapshotJson: checkpoint.snapshotJson,
          pending: withoutRequests(parsePending(checkpoint.pendingJson), now),
          label: `forked from ${address}#${seq}`,
        },
      ],
    }));
  }

  /**
   * Changes many actors at once, in one commit.
   * @param addresses whose present state `plan` asks for, and those it changes
   * @param plan called between two turns; must not wait. Whatever it throws, nothing has changed
   */
  async travel(
    addresses: readonly Address[],
    plan: (now: ReadonlyMap<string, ActorNow>) => Journey,
  ): Promise<void> {
    await this.#withActors(addresses, (now) => this.#carryOut(plan(now), now));
  }

  /** Keeps a moment of a run, in the next commit. @returns the cut's id */
  async takeCut(plan: CutPlan): Promise<string> {
    this.#o.assertRunning();
    const id = this.#o.newCutId();
    this.#o.commits.stage.cuts.push({ ...plan, id });
    this.#o.schedule();
    await this.#o.commits.stored();
    return id;
  }

  /** @throws {NotFoundError} says which there are */
  async requireCheckpoint(address: Address, seq: number): Promise<CheckpointRecord> {
    this.#o.assertRunning();
    await this.#o.commits.stored();
    const [found] = await this.#o.store.listCheckpoints(address, { fromSeq: seq, toSeq: seq });
    if (found !== undefined) return found;
    const [newest] = await this.#o.store.listCheckpoints(address, { last: 1 });
    if (newest === undefined) throw new NotFoundError(`There is no actor at ${address}.`);
    if (seq > newest.seq || seq < 0) {
      throw new NotFoundError(
        `${address} has no checkpoint ${seq}: they go from 0 to ${newest.seq}.`,
      );
    }
    throw new NotFoundError(
      `The checkpoint ${seq} of ${address} has been pruned. Those there are, the command "troupe checkpoints" lists.`,
    );
  }

  // ── between two turns ──────────────────────────────────────────────────────────────────────────────

  async #withActors(
    addresses: readonly Address[],
    act: (now: ReadonlyMap<string, ActorNow>) => void,
  ): Promise<void> {
    const { assertRunning, commits, directory, loader, schedule, store } = this.#o;
    assertRunning();
    await loader.withLoaded(addresses, async () => {
      for (;;) {
        // The state of one that is not live is only in the store, and it cannot change there; but others may end meanwhile.
        const resting = addresses.filter((address) => {
          const state = directory.actors.get(address)?.state;
          return state !== undefined && state !== 'live';
        });
        if (resting.length > 0) await commits.stored();
        const stored = resting.length === 0 ? [] : await store.loadActors(resting);
        assertRunning();
        const now = this.#lookAt(
          addresses,
          new Map(stored.map((record) => [record.address, record])),
        );
        if (now === undefined) continue;
        act(now);
        break;
      }
      schedule();
      await commits.stored();
    });
  }

  /** @returns undefined if somebody has come to rest whose state is not at hand */
  #lookAt(
    addresses: readonly Address[],
    stored: ReadonlyMap<string, { readonly seq: number; readonly snapshotJson: string }>,
  ): ReadonlyMap<string, ActorNow> | undefined {
    const { directory, timers, effects } = this.#o;
    const found = new Map<string, ActorNow>();
    for (const address of addresses) {
      const actor = directory.actors.get(address);
      // Of one that has yet to be born nothing is stored but the wish that it were.
      const isUnborn = actor?.state === 'absent' || actor?.birth !== undefined;
      if (actor === undefined || isUnborn) continue;
      const { machine, status, seq } = actor;
      let snapshot: PersistedSnapshot | undefined;
      if (actor.state === 'live') {
        snapshot = (actor.registration as Registration).driver.persist(
          actor.snapshot as LiveSnapshot,
        );
      } else {
        const record = stored.get(address);
        if (record === undefined || record.seq !== seq) return undefined;
        const { snapshotJson } = record;
        snapshot =
          snapshotJson === '' ? undefined : (JSON.parse(snapshotJson) as PersistedSnapshot);
      }
      const pending = parsePending(pendingJsonOf(address, timers, effects));
      found.set(address, { address, machine, status, seq, snapshot, pending });
    }
    return found;
  }

  #carryOut(journey: Journey, now: ReadonlyMap<string, ActorNow>): void {
    const { clock, commits, delivery, directory, newCutId } = this.#o;
    const at = clock.now();
    const restorations = (journey.restorations ?? []).map((target) => {
      const actor = directory.actors.get(target.address);
      return this.#prepare(target, {
        ...target.checkpoint,
        machine: requireActor(now.get(target.address), target.address).machine,
        what: `Checkpoint ${target.checkpoint.seq} of ${target.address}`,
        registration: actor?.registration,
      });
    });
    const forks = (journey.forks ?? []).map((target) => {
      if (now.has(target.address)) {
        throw new ConflictError(
          `There is an actor at ${target.address} already. Choose another name for the fork.`,
        );
      }
      requireSpawnable(target.address);
      return this.#prepare(target, { ...target, what: `What ${target.address} would begin as` });
    });
    // Nothing is thrown from here on.
    if (journey.before !== undefined) {
      commits.stage.cuts.push({ ...journey.before, id: newCutId() });
      commits.split();
    }
    const waiting = this.#giveUp(journey.isGivenUp);
    for (const removed of journey.removedAttempts ?? []) commits.stage.removeAttempts(removed);
    for (const prepared of restorations) this.#restore(prepared, now, at);
    for (const prepared of forks) this.#fork(prepared, at);
    for (const { was, ...message } of journey.messages ?? []) {
      if (was !== undefined && waiting.has(firstId(was))) continue;
      const own = `~back.${this.#o.runtimeId}.${this.#sent++}`;
      const id = (was === undefined ? message.from : firstId(was)) + own;
      delivery.putBack({ ...message, id, sentAt: at });
    }
    const { stage } = commits;
    for (const row of journey.rows ?? []) stage.project(row);
    // One by one: a run may have more tasks than a call takes arguments.
    for (const scope of journey.clearedSteps ?? []) stage.clearedSteps.push(scope);
    for (const step of journey.steps ?? []) stage.steps.push(step);
    for (const claim of journey.claims ?? []) stage.claims.push(claim);
  }

  /** Takes out of the mailboxes what is given up. @returns the ids that the rest had at first */
  #giveUp(isGivenUp: Journey['isGivenUp']): ReadonlySet<string> {
    const waiting = new Set<string>();
    if (isGivenUp === undefined) return waiting;
    const { delivery } = this.#o;
    for (const actor of this.#o.directory.actors.values()) {
      const { mailbox, room } = actor;
      const left =
        room?.take(({ item }) => {
          if (item === undefined) return false;
          const givenUp = isGivenUp(item.envelope);
          if (!givenUp) waiting.add(firstId(item.envelope.id));
          return givenUp;
        }) ?? [];
      for (const { item } of left) if (item !== undefined) delivery.withdraw(item);
      if (mailbox.length === 0) continue;
      const taken = mailbox.take((item) => {
        if (item.kind !== 'message') return false;
        const givenUp = isGivenUp(item.envelope);
        if (!givenUp) waiting.add(firstId(item.envelope.id));
        return givenUp;
      });
      for (const item of taken) if (item.kind === 'message') delivery.withdraw(item);
      if (taken.length > 0) delivery.admit(actor);
    }
    return waiting;
  }

  /** @throws {ConflictError} it cannot become that; says why */
  #prepare<T extends { readonly address: Address; readonly pending: Pending }>(
    target: T,
    from: {
      readonly machine: string;
      readonly version: number;
      readonly snapshotJson: string;
      readonly what: string;
      readonly registration?: Registration | undefined;
    },
  ): Prepared<T> {
    const registration = from.registration ?? this.#o.registrations.get(from.machine);
    if (registration === undefined) {
      throw new ConflictError(
        `${from.what} cannot be restored: its machine "${from.machine}" is not registered here.`,
      );
    }
    let live: LiveSnapshot;
    try {
      live = restoreSnapshot(registration, { ...from, address: target.address });
    } catch (error) {
      throw new ConflictError(`${from.what} cannot be restored: ${toFailure(error).message}`, {
        cause: error,
      });
    }
    // One that had ended runs nothing, whatever its last state says.
    const children = live.status === 'active' ? Object.keys(live.children) : [];
    const missing = children.find(
      (id) => !target.pending.effects.some((effect) => effect.id === id),
    );
    if (missing !== undefined) {
      throw new ConflictError(
        `${from.what} cannot be restored: it says that the effect "${missing}" was under way, and not with what input. It was made by an older Troupe, or before a migration.`,
      );
    }
    const persisted = registration.driver.persist(live);
    // Byte for byte what it was, unless a migration has made something else of it.
    const snapshotJson =
      from.version === registration.version ? from.snapshotJson : JSON.stringify(persisted);
    return { target, registration, live, persisted, snapshotJson };
  }

  #restore(prepared: Prepared<Restoration>, now: ReadonlyMap<string, ActorNow>, at: EpochMs): void {
    const { timers, effects, directory, commits, events } = this.#o;
    const { target } = prepared;
    const { address, checkpoint, keepNow, label } = target;
    const actor = directory.actors.get(address) as Actor;
    const before = now.get(address)?.snapshot;
    if (keepNow !== undefined && before !== undefined) {
      this.#append(actor, 'rollback', keepNow, JSON.stringify(before), undefined);
    }
    timers.clearAll(address);
    effects.giveUp(address);
    this.#become(actor, prepared, 'rollback', label, at);
    const fact = { address, to: checkpoint.seq, seq: actor.seq, at };
    commits.after(() => events.tell('rolledBack', fact));
  }

  #fork(prepared: Prepared<Fork>, at: EpochMs): void {
    const { address, machine, label } = prepared.target;
    const { delivery, directory } = this.#o;
    // Somebody may wait there for it to be made.
    const actor = directory.actors.get(address) ?? directory.add(address);
    if (actor.birth !== undefined) delivery.consume(actor.birth);
    actor.birth = undefined;
    actor.machine = machine;
    actor.seq = -1;
    this.#become(actor, prepared, 'manual', label, at);
  }

  #become(
    actor: Actor,
    { target, registration, live, persisted, snapshotJson }: Prepared<Restoration | Fork>,
    kind: CheckpointRecord['kind'],
    label: string,
    at: EpochMs,
  ): void {
    const { timers, effects, directory, commits, delivery, turns, loader, events } = this.#o;
    const { address, pending } = target;
    actor.registration = registration;
    actor.snapshot = live;
    actor.status = persisted.status;
    actor.version = registration.version;
    actor.reason = persisted.status === 'error' ? label : null;
    actor.lastUsed = at;
    actor.seq++;
    let place = 0;
    const active = persisted.status === 'active';
    for (const { id, dueAt, action } of active ? pending.timers : []) {
      const generation = `${address}#${actor.seq}.${place++}`;
      const renewed = renew(address, id, generation, action);
      timers.set(address, renewed.id, generation, dueAt, renewed.action);
    }
    for (const { id, input } of active ? pending.effects : []) {
      const child = live.children[id];
      if (child === undefined) continue; // A migration has taken away the state that started it.
      const generation = `${address}#${actor.seq}.${place++}`;
      effects.start(actor, id, String(child.src), JSON.stringify(input), generation, at);
    }
    actor.seq--;
    const details = 'checkpoint' in target ? { restores: target.checkpoint.seq } : undefined;
    this.#append(actor, kind, label, snapshotJson, details);
    const projections = registration.project?.(projectedOf(actor, live, at)) ?? [];
    for (const projection of projections) commits.stage.project(projection);
    if (active) {
      actor.state = 'live';
      directory.enqueue(actor);
    } else if (actor.parent !== null && delivery.isSupervised(actor.parent)) {
      // As after any end: what waits for it waits on, until its supervisor has decided.
      actor.state = 'down';
      turns.tellEnded(actor, actor.parent);
    } else {
      actor.state = 'ended';
      delivery.refuseAll(actor);
    }
    loader.armSweep();
    const { machine, seq } = actor;
    const { value, context, status } = persisted;
    const event = kind === 'rollback' ? { type: 'troupe.rolledBack', from: APP } : null;
    const turn = { address, machine, seq, at, event, state: value, context, status };
    commits.after(() => events.tell('turn', turn));
  }

  /** A checkpoint that no event has led to, with what is under way now. */
  #append(
    actor: Actor,
    kind: CheckpointRecord['kind'],
    label: string | null,
    snapshotJson: string,
    details: JsonObject | undefined,
  ): void {
    const { clock, commits, timers, effects } = this.#o;
    const { address } = actor;
    const at = clock.now();
    actor.seq++;
    actor.updatedAt = at;
    commits.stage.touch(actor);
    commits.stage.checkpoints.push({
      address,
      seq: actor.seq,
      at,
      kind,
      label,
      version: actor.version,
      eventJson: null,
      snapshotJson,
      pendingJson: pendingJsonOf(address, timers, effects),
      detailsJson: details === undefined ? null : JSON.stringify(details),
    });
  }
}

function requireActor(actor: ActorNow | undefined, address: Address): ActorNow {
  if (actor === undefined) throw new NotFoundError(`There is no actor at ${address}.`);
  return actor;
}

/**
 * What was under way, less the requests: nobody knows what became of them, so they end with a failure, at once. One that
 * was to be sent later is not sent.
 */
function withoutRequests(pending: Pending, now: EpochMs): Pending {
  const timers = pending.timers.flatMap((timer): readonly Pending['timers'][number][] => {
    const { action } = timer;
    if (action.do === 'send' && action.envelope.correlation !== undefined) return [];
    // Nor is it asked to stop any more.
    if (action.do === 'end') return [];
    if (action.do !== 'deadline') return [timer];
    const { request, to } = action;
    return [{ id: timer.id, dueAt: now, action: { do: 'rolledBack', request, to } }];
  });
  return { ...pending, timers };
}

/** The id that a message had before it was put back for the first time. */
const firstId = (id: string): string => id.replace(/~back\..*$/, '');

/** A message that is sent a second time is another message. */
function renew(
  address: Address,
  id: string,
  generation: string,
  action: TimerAction,
): { readonly id: string; readonly action: TimerAction } {
  if (action.do !== 'send') return { id, action };
  const envelope = { ...action.envelope, from: address, id: generation };
  return { id: SEND + generation, action: { do: 'send', envelope } };
}
