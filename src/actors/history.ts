import { nameOf, parseAddress, runAddress } from '../protocol/address.ts';
import { NotFoundError, ValidationError } from '../protocol/errors.ts';
import { deepHash } from '../protocol/hash.ts';
import { findNonJson, type JsonObject, type JsonValue } from '../protocol/json.ts';
import type { EpochMs } from '../protocol/message.ts';
import { parsePending } from '../runtime/pending.ts';
import type { PersistedSnapshot } from '../runtime/xstate-driver.ts';
import type { CheckpointRecord, CutKind, CutRow, Store } from '../store/store.ts';
import { type CheckpointDiff, diffCheckpoints } from './checkpoint-diff.ts';
import { loadCut, movesOf, snapshotOf, type TaskMove } from './cuts.ts';

/** What whoever keeps a moment by hand can say about it. */
export interface Note {
  /** A name to go back to it by. */
  readonly label?: string;
  readonly step?: string;
  /** 0 to 100. */
  readonly progress?: number;
  readonly notes?: JsonValue;
}

interface Noted {
  readonly label: string | null;
  readonly step: string | null;
  readonly progress: number | null;
  readonly notes: JsonValue;
}

/** One state that an actor was in. */
export interface CheckpointInfo extends Noted {
  /** 16 hexadecimal digits; any prefix of 4 or more that is clear is enough to name it. */
  readonly id: string;
  readonly address: string;
  readonly seq: number;
  readonly at: EpochMs;
  readonly kind: CheckpointRecord['kind'];
  /** The type of the event that led to it; null for the first, for one made by hand and for a rollback. */
  readonly event: string | null;
  /** For what a rollback has led to: the number of the checkpoint that it restores. */
  readonly restores: number | null;
  readonly state: JsonValue;
  readonly status: 'active' | 'done' | 'error';
  /** The version of its machine. */
  readonly version: number;
  /** How many timers (deadlines of requests among them) and effects were under way. */
  readonly timers: number;
  readonly effects: number;
}

/** One moment of a whole run. */
export interface CutInfo extends Noted {
  readonly id: string;
  readonly run: string;
  readonly at: EpochMs;
  readonly kind: CutKind;
  readonly tasks: number;
  /** Messages within the run that waited. */
  readonly messages: number;
}

/** How one task differs between two cuts. */
export interface TaskDiff {
  readonly task: string;
  readonly diff: CheckpointDiff;
}

export interface CutDiff {
  readonly run: string;
  readonly from: CutInfo;
  readonly to: CutInfo;
  /** Of the run's own state; null if it is the same. */
  readonly self: CheckpointDiff | null;
  /** Those that differ, in the order of the run. */
  readonly tasks: readonly TaskDiff[];
}

export type HistoryStore = Pick<
  Store,
  'listCheckpoints' | 'listCuts' | 'loadCut' | 'listActors' | 'listTasks'
>;

/** Checkpoints read at once while one is looked for by its label. */
const PAGE = 200;
const SHORTEST_PREFIX = 4;

const NOTE_KEYS: readonly string[] = [
  'label',
  'step',
  'progress',
  'notes',
] satisfies (keyof Note)[];

/** Names a checkpoint among all, as a commit's hash does. */
const checkpointId = (address: string, seq: number): string =>
  deepHash(`${address}#${seq}`).slice(0, 16);

/** What was: checkpoints of actors, cuts of runs, and how they differ. Only reads. */
export class History {
  readonly #store: HistoryStore;

  constructor(store: HistoryStore) {
    this.#store = store;
  }

  /**
   * The checkpoints of an actor, oldest first.
   * @param options.last only so many, the newest
   * @throws {NotFoundError} there is no such actor
   */
  async checkpoints(
    address: string,
    { last }: { readonly last?: number } = {},
  ): Promise<readonly CheckpointInfo[]> {
    const found = await this.#store.listCheckpoints(
      parseAddress(address),
      last === undefined ? {} : { last },
    );
    if (found.length === 0) throw new NotFoundError(`There is no actor at ${address}.`);
    return found.map(checkpointInfo).sort((a, b) => a.seq - b.seq);
  }

  /**
   * Finds the checkpoint that is meant: by its number (`12`, `#12`), its label (the newest of that name), or the beginning
   * of its id.
   * @throws {NotFoundError} none is; says which there are
   * @throws {ValidationError} several are
   */
  async checkpoint(address: string, ref: number | string): Promise<CheckpointRecord> {
    parseAddress(address);
    const number = numberIn(ref);
    if (number !== undefined) {
      const [found] = await this.#store.listCheckpoints(address, {
        fromSeq: number,
        toSeq: number,
      });
      return found ?? (await this.#missing(address, ref));
    }
    const text = String(ref);
    const seqs: number[] = [];
    let toSeq = Number.MAX_SAFE_INTEGER;
    for (;;) {
      const page = await this.#store.listCheckpoints(address, { toSeq, last: PAGE });
      const labelled = page.find(({ label }) => label === text);
      if (labelled !== undefined) return labelled;
      for (const { seq } of page) if (isPrefix(text, checkpointId(address, seq))) seqs.push(seq);
      const oldest = page.at(-1)?.seq ?? 0;
      if (page.length < PAGE || oldest === 0) break;
      toSeq = oldest - 1;
    }
    const [seq, ...others] = seqs;
    if (seq === undefined) return await this.#missing(address, ref);
    if (others.length > 0) {
      const ids = seqs.map((n) => `${checkpointId(address, n)} (#${n})`);
      throw new ValidationError(
        `Expected one checkpoint of ${address}, got "${text}", with which several begin: ${ids.join(', ')}.`,
      );
    }
    return await this.checkpoint(address, seq);
  }

  /** The cuts of a run, oldest first. */
  async cuts(run: string): Promise<readonly CutInfo[]> {
    return (await this.#store.listCuts(run)).map(cutInfo);
  }

  /**
   * Finds the cut that is meant: by its label (the newest of that name), the beginning of its id, or as `start` or `last`.
   * @throws {NotFoundError} none is; says which there are
   * @throws {ValidationError} several are
   */
  async cut(run: string, ref: string): Promise<CutInfo> {
    const cuts = await this.cuts(run);
    const named =
      cuts.findLast(({ label }) => label === ref) ??
      (ref === 'start' ? cuts.find(({ kind }) => kind === 'start') : undefined) ??
      (ref === 'last' ? cuts.at(-1) : undefined);
    if (named !== undefined) return named;
    const [found, ...others] = cuts.filter(({ id }) => isPrefix(ref, id));
    if (found !== undefined && others.length === 0) return found;
    const list = (some: readonly CutInfo[]): string =>
      some.map(({ id, label, kind }) => `${id} (${label ?? kind})`).join(', ');
    if (found !== undefined) {
      throw new ValidationError(
        `Expected one cut of run "${run}", got "${ref}", with which several begin: ${list([found, ...others])}.`,
      );
    }
    if (cuts.length === 0) throw new NotFoundError(`Run "${run}" has no cuts.`);
    const newest = cuts.slice(-10).reverse();
    const more =
      cuts.length > newest.length ? `; ${cuts.length - newest.length} more are older` : '';
    throw new NotFoundError(
      `Run "${run}" has no cut "${ref}". Its cuts, newest first: ${list(newest)}${more}.`,
    );
  }

  /** How an actor differs between two of its checkpoints. @throws as `checkpoint` */
  async diff(address: string, from: number | string, to: number | string): Promise<CheckpointDiff> {
    const [a, b] = await Promise.all([
      this.checkpoint(address, from),
      this.checkpoint(address, to),
    ]);
    return diffCheckpoints(a, b);
  }

  /** How a run differs between two cuts: its own state, and each of its tasks. @throws as `cut` */
  async diffCuts(run: string, from: string, to: string): Promise<CutDiff> {
    const [a, b] = await Promise.all([this.cut(run, from), this.cut(run, to)]);
    const [before, after] = await Promise.all([this.#members(a.id), this.#members(b.id)]);
    const positions = new Map(
      (await this.#store.listTasks(run)).map(({ task }, position) => [task, position]),
    );
    const changed = [...after].filter(([address, seq]) => before.get(address) !== seq);
    const diffs = await Promise.all(
      changed.map(([address, seq]) => this.diff(address, before.get(address) ?? 0, seq)),
    );
    const prefix = `${run}/`.length;
    const own = runAddress(run);
    return {
      run,
      from: a,
      to: b,
      self: diffs.find(({ address }) => address === own) ?? null,
      tasks: diffs
        .filter(({ address }) => address !== own)
        .map((diff) => ({ task: nameOf(diff.address).slice(prefix), diff }))
        .sort((x, y) => (positions.get(x.task) ?? 0) - (positions.get(y.task) ?? 0)),
    };
  }

  /**
   * What a rollback of the run to a cut would do to each of its tasks; nothing is changed.
   * @throws as `cut`; also {NotFoundError} a checkpoint of it has been pruned
   */
  async moves(run: string, to: string): Promise<readonly TaskMove[]> {
    const loaded = await loadCut(this.#store, run, (await this.cut(run, to)).id);
    const now = new Map<string, { readonly snapshot: PersistedSnapshot }>();
    for (const address of loaded.members.keys()) {
      const [newest] = await this.#store.listCheckpoints(address, { last: 1 });
      if (newest !== undefined) now.set(address, { snapshot: snapshotOf(newest) });
    }
    return movesOf(loaded, now);
  }

  async #members(id: string): Promise<ReadonlyMap<string, number>> {
    const stored = await this.#store.loadCut(id);
    return new Map(stored?.members.map(({ address, seq }) => [address, seq]));
  }

  async #missing(address: string, ref: number | string): Promise<never> {
    const [newest] = await this.#store.listCheckpoints(address, { last: 1 });
    if (newest === undefined) throw new NotFoundError(`There is no actor at ${address}.`);
    const number = numberIn(ref);
    if (number !== undefined && number <= newest.seq && number >= 0) {
      throw new NotFoundError(`Checkpoint ${number} of ${address} has been pruned.`);
    }
    const labels = await this.#labels(address);
    const named = labels.length === 0 ? 'none has a label' : `labels are ${labels.join(', ')}`;
    throw new NotFoundError(
      `${address} has no checkpoint ${typeof ref === 'number' ? ref : JSON.stringify(ref)}: they go up to ${newest.seq}, and ${named}.`,
    );
  }

  async #labels(address: string): Promise<string[]> {
    const recent = await this.#store.listCheckpoints(address, { last: PAGE });
    const labels = recent.flatMap(({ label, seq }) =>
      label === null ? [] : [`${label} (#${seq})`],
    );
    return labels.slice(0, 10);
  }
}

/** @throws {ValidationError} */
export function checkNote(note: Note): { readonly label?: string; readonly details?: JsonObject } {
  const unknown = Object.keys(note).find((key) => !NOTE_KEYS.includes(key));
  if (unknown !== undefined) {
    throw new ValidationError(
      `Expected a checkpoint to have ${NOTE_KEYS.join(', ')}, got "${unknown}".`,
    );
  }
  const { label, progress, step, notes } = note;
  if (label !== undefined && (typeof label !== 'string' || label === '' || label.length > 200)) {
    throw new ValidationError(
      `Expected the label of a checkpoint to be a text of 1 to 200 characters, got ${JSON.stringify(label)}.`,
    );
  }
  if (label?.isWellFormed() === false) {
    throw new ValidationError(
      `Expected the label of a checkpoint to be well-formed Unicode, got half of a surrogate pair in ${JSON.stringify(label)}.`,
    );
  }
  const isPercent = typeof progress === 'number' && progress >= 0 && progress <= 100;
  if (progress !== undefined && !isPercent) {
    throw new ValidationError(
      `Expected the progress of a checkpoint to be a number from 0 to 100, got ${String(progress)}.`,
    );
  }
  if (step !== undefined && typeof step !== 'string') {
    throw new ValidationError(
      `Expected the step of a checkpoint to be a text, got ${JSON.stringify(step)}.`,
    );
  }
  const problem = notes === undefined ? undefined : findNonJson(notes, 'notes');
  if (problem !== undefined) {
    throw new ValidationError(
      `Expected the notes of a checkpoint to be plain JSON, but ${problem.path} is ${problem.found}.`,
    );
  }
  const details = {
    ...(step === undefined ? {} : { step }),
    ...(progress === undefined ? {} : { progress }),
    ...(notes === undefined ? {} : { notes }),
  };
  return {
    ...(label === undefined ? {} : { label }),
    ...(Object.keys(details).length === 0 ? {} : { details }),
  };
}

export function checkpointInfo(record: CheckpointRecord): CheckpointInfo {
  const { address, seq, at, kind, version, eventJson } = record;
  const { value, status } = JSON.parse(record.snapshotJson) as PersistedSnapshot;
  const pending = parsePending(record.pendingJson);
  return {
    id: checkpointId(address, seq),
    address,
    seq,
    at,
    kind,
    ...noted(record),
    restores: (JSON.parse(record.detailsJson ?? '{}') as { restores?: number }).restores ?? null,
    event: eventJson === null ? null : (JSON.parse(eventJson) as { type: string }).type,
    state: value,
    status,
    version,
    timers: pending.timers.length,
    effects: pending.effects.length,
  };
}

function cutInfo(row: CutRow): CutInfo {
  const { id, run, at, kind, members, messages } = row;
  return { id, run, at, kind, ...noted(row), tasks: Math.max(0, members - 1), messages };
}

function noted(row: { readonly label: string | null; readonly detailsJson: string | null }): Noted {
  const details = (row.detailsJson === null ? {} : JSON.parse(row.detailsJson)) as Note;
  const { step = null, progress = null, notes = null } = details;
  return { label: row.label, step, progress, notes };
}

function numberIn(ref: number | string): number | undefined {
  if (typeof ref === 'number') return ref;
  const digits = /^#?(\d{1,15})$/.exec(ref)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

const isPrefix = (text: string, id: string): boolean =>
  text.length >= SHORTEST_PREFIX && id.startsWith(text.toLowerCase());
