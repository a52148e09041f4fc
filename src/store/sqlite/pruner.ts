import type { Database, Statement } from 'better-sqlite3';
import { type Address, runAddress, taskAddress } from '../../protocol/address.ts';
import type { Pruned, PruneSlice } from '../store.ts';

/*
 * Removes history in slices, each within a transaction of the caller.
 *
 * Checkpoints go in the order of their rowids, whatever actor they are of: those that are written at the same time lie
 * on the same pages, and are old at the same time. Whole pages become empty, which costs nearly nothing. To remove the
 * old ones actor by actor touches a page for each row: that made a turn cost half as much again (bench/README.md). So
 * does a table that is sorted by actor, of each insert.
 */

/** A slice ends after so long, but for the step it is in. */
const SLICE_MS = 5;
/**
 * Rows in a step: a fraction of a slice, so that a slice ends when its time is up also where rows are slow. As many steps
 * as fit share the slice's transaction, which is what makes rows cheap: a page of the index is written once in each
 * (with 500 busy actors 20 µs of CPU by the row in transactions of 128 rows, 8.8 of 512, 7.6 of 1 024).
 */
const STEP_ROWS = 128;
const STEP_PAGES = 16;

const END_OF_STEP = `
SELECT max(rowid) AS upTo, count(*) AS looked
FROM (SELECT rowid FROM checkpoints WHERE rowid > ? ORDER BY rowid LIMIT ${STEP_ROWS})`;

// An actor whose row is missing keeps its checkpoints: the comparison with NULL is not true.
export const OLD_CHECKPOINTS = `
rowid > :after AND rowid <= :upTo AND kind IN ('auto', 'error') AND label IS NULL
AND seq <= (SELECT a.seq FROM actors AS a WHERE a.address = checkpoints.address) - :keep
AND NOT EXISTS (
  SELECT 1 FROM cut_members AS m WHERE m.address = checkpoints.address AND m.seq = checkpoints.seq)`;

const DELETE_OLD_CHECKPOINTS = `DELETE FROM checkpoints WHERE ${OLD_CHECKPOINTS}`;

// One for which something waits is not over. "task/r/" to "task/r0": the character after the slash.
export const ENDED_RUNS = `
SELECT run FROM runs AS r
WHERE ended_at <= :endedBefore AND run NOT IN (SELECT value FROM json_each(:busy))
  AND NOT EXISTS (SELECT 1 FROM timers WHERE address = 'run/' || r.run)
  AND NOT EXISTS (SELECT 1 FROM timers
    WHERE address >= 'task/' || r.run || '/' AND address < 'task/' || r.run || '0')
  AND NOT EXISTS (SELECT 1 FROM effects WHERE address = 'run/' || r.run)
  AND NOT EXISTS (SELECT 1 FROM effects
    WHERE address >= 'task/' || r.run || '/' AND address < 'task/' || r.run || '0')
  AND NOT EXISTS (SELECT 1 FROM messages WHERE receiver = 'run/' || r.run
    OR (receiver >= 'task/' || r.run || '/' AND receiver < 'task/' || r.run || '0'))`;
const NEXT_ENDED_RUN = `${ENDED_RUNS} ORDER BY ended_at, run LIMIT 1`;

// First its row, so that a run is there or not. What is left of it is remembered, and goes in later slices.
const FORGET_RUN = 'DELETE FROM runs WHERE run = ?';
const REMEMBER_REST = 'INSERT INTO pruned_runs (run) VALUES (?)';
const NEXT_REST = `
SELECT run FROM pruned_runs WHERE run NOT IN (SELECT value FROM json_each(:busy)) ORDER BY run LIMIT 1`;
const REST_IS_GONE = 'DELETE FROM pruned_runs WHERE run = ?';

// All that is of a cut would go with it in one step; of a large run that is much. Its run is forgotten: nobody reads it.
const PARTS_OF_CUTS = [
  ['cut_members', 'address'],
  ['cut_messages', 'position'],
  ['cut_timers', 'address, id'],
  ['cut_effects', 'address, id'],
  ['cut_claims', 'run, task'],
  ['cut_attempts', 'run, task, attempt'],
] as const;
const DELETE_PARTS_OF_CUT = PARTS_OF_CUTS.map(
  ([table, key]) => `
DELETE FROM ${table} WHERE (cut, ${key}) IN (
  SELECT cut, ${key} FROM ${table}
  WHERE cut = (SELECT position FROM cuts WHERE run = ? LIMIT 1) LIMIT ${STEP_ROWS})`,
);
const DELETE_CUT = `
DELETE FROM cuts WHERE position = (SELECT position FROM cuts WHERE run = ? LIMIT 1)`;
const NEXT_TASK = 'SELECT task FROM tasks WHERE run = ? LIMIT 1';
const DELETE_TASK = 'DELETE FROM tasks WHERE run = ? AND task = ?';
const DELETE_ATTEMPTS = 'DELETE FROM attempts WHERE run = ? AND task = ?';
// An actor without its newest checkpoint cannot be read: that goes with it, in one step.
const DELETE_CHECKPOINTS = `
DELETE FROM checkpoints WHERE rowid IN (
  SELECT rowid FROM checkpoints
  WHERE address = ? AND seq < (SELECT max(seq) FROM checkpoints WHERE address = ?) LIMIT ${STEP_ROWS})`;
const DELETE_NEWEST = 'DELETE FROM checkpoints WHERE address = ?';
const NEXT_ACTOR = 'SELECT address FROM actors WHERE address >= ? AND address < ? LIMIT 1';
const DELETE_ACTOR = 'DELETE FROM actors WHERE address = ?';
const DELETE_STEPS = `
DELETE FROM steps WHERE position IN (
  SELECT position FROM steps WHERE scope >= ? AND scope < ? LIMIT ${STEP_ROWS})`;

const DELETE_OLD_LETTERS = `
DELETE FROM dead_letters WHERE position IN (
  SELECT position FROM dead_letters WHERE at < ? ORDER BY position LIMIT ${STEP_ROWS})`;
const DELETE_SURPLUS_LETTERS = `
DELETE FROM dead_letters WHERE position IN (
  SELECT position FROM dead_letters
  WHERE position <= (SELECT position FROM dead_letters ORDER BY position DESC LIMIT 1 OFFSET ?)
  ORDER BY position LIMIT ${STEP_ROWS})`;

const DELETE_OLD_AUDIT = `
DELETE FROM audit WHERE position IN (
  SELECT position FROM audit WHERE at < ? ORDER BY position LIMIT ${STEP_ROWS})`;
const DELETE_SURPLUS_AUDIT = `
DELETE FROM audit WHERE position IN (
  SELECT position FROM audit
  WHERE position <= (SELECT position FROM audit ORDER BY position DESC LIMIT 1 OFFSET ?)
  ORDER BY position LIMIT ${STEP_ROWS})`;

const DELETE_EXPIRED = `
DELETE FROM idempotency WHERE key IN (
  SELECT key FROM idempotency WHERE expires_at <= ? ORDER BY expires_at LIMIT ${STEP_ROWS})`;

export const OLD_STREAMS = `
SELECT s.id FROM streams AS s LEFT JOIN actors AS a ON a.address = s.address
WHERE s.updated_at < :before AND s.address NOT GLOB 'run/*' AND s.address NOT GLOB 'task/*'
  AND (s.closed_at IS NOT NULL OR a.status IS NULL OR a.status NOT IN ('active', 'quarantined'))`;
const OLD_STREAM = `${OLD_STREAMS} LIMIT 1`;
const STREAM_OF = `
SELECT id FROM streams WHERE address = ? OR (address >= ? AND address < ?) LIMIT 1`;
const DELETE_STREAM_CHUNKS = `
DELETE FROM stream_chunks WHERE position IN (
  SELECT position FROM stream_chunks WHERE stream = ? LIMIT ${STEP_ROWS})`;
const DELETE_STREAM = 'DELETE FROM streams WHERE id = ?';

export class Pruner {
  readonly #db: Database;
  readonly #statements = new Map<string, Statement>();
  readonly #now: () => number;
  #removed: Record<string, number> = {};

  /** @param now in milliseconds; of a clock that never goes back */
  constructor(db: Database, now: () => number = () => performance.now()) {
    this.#db = db;
    this.#now = now;
  }

  prune(slice: PruneSlice): Pruned {
    this.#removed = {};
    switch (slice.what) {
      case 'checkpoints':
        return this.#checkpoints(slice.from, slice.keepPerActor);
      case 'runs':
        return this.#repeat(() => this.#runs(slice.endedBefore, JSON.stringify(slice.busy)));
      case 'deadLetters':
        return this.#repeat(
          () =>
            this.#delete('deadLetters', DELETE_SURPLUS_LETTERS, slice.keep) ||
            this.#delete('deadLetters', DELETE_OLD_LETTERS, slice.before),
        );
      case 'audit':
        return this.#repeat(
          () =>
            this.#delete('audit', DELETE_SURPLUS_AUDIT, slice.keep) ||
            this.#delete('audit', DELETE_OLD_AUDIT, slice.before),
        );
      case 'idempotency':
        return this.#repeat(() => this.#delete('idempotency', DELETE_EXPIRED, slice.expiredAt));
      case 'streams':
        return this.#repeat(() => this.#stream(OLD_STREAM, { before: slice.before }));
      case 'space':
        return this.#space(slice.mayStay, slice.mayStayBytes);
    }
  }

  #checkpoints(from: number, keep: number): Pruned {
    const until = this.#now() + SLICE_MS;
    let after = from;
    let kept = 0;
    do {
      const { upTo, looked } = this.#statement(END_OF_STEP).get(after) as {
        readonly upTo: number | null;
        readonly looked: number;
      };
      if (upTo === null) return { removed: this.#removed, kept, bytes: 0, next: null };
      const before = this.#removed['checkpoints'] ?? 0;
      this.#delete('checkpoints', DELETE_OLD_CHECKPOINTS, { after, upTo, keep });
      kept += looked - ((this.#removed['checkpoints'] ?? 0) - before);
      after = upTo;
    } while (this.#now() < until);
    return { removed: this.#removed, kept, bytes: 0, next: after };
  }

  /** @returns false: there is nothing left to do */
  #runs(endedBefore: number, busy: string): boolean {
    const rest = this.#statement(NEXT_REST).pluck().get({ busy }) as string | undefined;
    if (rest !== undefined) {
      this.#restOf(rest);
      return true;
    }
    const run = this.#statement(NEXT_ENDED_RUN).pluck().get({ endedBefore, busy }) as
      | string
      | undefined;
    if (run === undefined) return false;
    this.#statement(REMEMBER_REST).run(run);
    return this.#delete('runs', FORGET_RUN, run);
  }

  /** One step: what refers to others first, the run's actor last, so that nobody makes the run anew while some is left. */
  #restOf(run: string): void {
    if (DELETE_PARTS_OF_CUT.some((sql) => this.#statement(sql).run(run).changes > 0)) return;
    if (this.#delete('cuts', DELETE_CUT, run)) return;
    const task = this.#statement(NEXT_TASK).pluck().get(run) as string | undefined;
    if (task !== undefined) {
      if (!this.#actor(taskAddress(run, task))) return;
      this.#delete('attempts', DELETE_ATTEMPTS, run, task);
      this.#delete('tasks', DELETE_TASK, run, task);
      return;
    }
    const tasks = [`task/${run}/`, `task/${run}0`];
    const other = this.#statement(NEXT_ACTOR)
      .pluck()
      .get(...tasks) as Address | undefined;
    if (other !== undefined) {
      this.#actor(other);
      return;
    }
    if (this.#delete('steps', DELETE_STEPS, ...tasks)) return;
    const own = runAddress(run);
    if (this.#stream(STREAM_OF, own, ...tasks)) return;
    if (this.#delete('steps', DELETE_STEPS, `${own}!`, `${own}"`) || !this.#actor(own)) return;
    this.#statement(REST_IS_GONE).run(run);
  }

  /** @returns true: it is gone */
  #actor(address: Address): boolean {
    if (this.#delete('checkpoints', DELETE_CHECKPOINTS, address, address)) return false;
    this.#delete('checkpoints', DELETE_NEWEST, address);
    this.#delete('actors', DELETE_ACTOR, address);
    return true;
  }

  /** A step of the first stream that the query finds. @returns false: it finds none */
  #stream(query: string, ...parameters: readonly unknown[]): boolean {
    const id = this.#statement(query)
      .pluck()
      .get(...parameters) as number | undefined;
    if (id === undefined) return false;
    return (
      this.#delete('streamChunks', DELETE_STREAM_CHUNKS, id) ||
      this.#delete('streams', DELETE_STREAM, id)
    );
  }

  #space(mayStay: number, mayStayBytes: number): Pruned {
    const pragma = (name: string): number => this.#db.pragma(name, { simple: true }) as number;
    const until = this.#now() + SLICE_MS;
    const before = pragma('page_count');
    const pageSize = pragma('page_size');
    let next: number | null = null;
    for (;;) {
      const free = pragma('freelist_count');
      const stays = Math.max(mayStay * pragma('page_count'), mayStayBytes / pageSize);
      const surplus = Math.ceil(free - stays);
      if (surplus <= 0) break;
      if (this.#now() >= until) {
        next = 1;
        break;
      }
      // Not through a statement that is run once: it gives a page back at each step.
      this.#db.pragma(`incremental_vacuum(${Math.min(surplus, STEP_PAGES)})`);
      if (pragma('freelist_count') === free) break;
    }
    const bytes = (before - pragma('page_count')) * pageSize;
    return { removed: this.#removed, kept: 0, bytes, next };
  }

  #repeat(step: () => boolean): Pruned {
    const until = this.#now() + SLICE_MS;
    while (step()) {
      if (this.#now() >= until) {
        return { removed: this.#removed, kept: 0, bytes: 0, next: 1 };
      }
    }
    return { removed: this.#removed, kept: 0, bytes: 0, next: null };
  }

  /** @returns whether anything was removed */
  #delete(what: string, sql: string, ...parameters: readonly unknown[]): boolean {
    const { changes } = this.#statement(sql).run(...parameters);
    if (changes > 0) this.#removed[what] = (this.#removed[what] ?? 0) + changes;
    return changes > 0;
  }

  #statement(sql: string): Statement {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }
}
