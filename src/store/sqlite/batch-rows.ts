import type { Database, Statement } from 'better-sqlite3';
import { ValidationError } from '../../protocol/errors.ts';
import type { Batch } from '../store.ts';

export type SqlValue = string | number | null;

/**
 * A batch as it crosses to the writer's thread: for each of `WRITES` the number of its rows, then their
 * values. One array of strings and numbers is copied between threads several times faster than the
 * objects would be (figures: bench/README.md).
 */
export type FlatBatch = readonly SqlValue[];

const PUT_ACTOR = `
INSERT INTO actors (address, machine, version, status, seq, parent, reason, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (address) DO UPDATE SET machine = excluded.machine, version = excluded.version,
  status = excluded.status, seq = excluded.seq, parent = excluded.parent, reason = excluded.reason,
  updated_at = excluded.updated_at`;

const ADD_CHECKPOINT = `
INSERT INTO checkpoints (address, seq, at, kind, label, event_json, snapshot_json)
VALUES (?, ?, ?, ?, ?, ?, ?)`;

const DELETE_MESSAGE = 'DELETE FROM messages WHERE id = ?';

const ADD_MESSAGE = `
INSERT INTO messages (id, sender, receiver, priority, sent_at, message_json, correlation, attempt, reply)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING`;

const DELETE_TIMER = 'DELETE FROM timers WHERE address = ? AND id = ?';

const PUT_TIMER = `
INSERT INTO timers (address, id, generation, due_at, action_json)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (address, id) DO UPDATE SET generation = excluded.generation, due_at = excluded.due_at,
  action_json = excluded.action_json`;

const DELETE_EFFECT = 'DELETE FROM effects WHERE address = ? AND id = ?';

const PUT_EFFECT = `
INSERT INTO effects (address, id, generation, src, input_json, attempt, started_at)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (address, id) DO UPDATE SET generation = excluded.generation, src = excluded.src,
  input_json = excluded.input_json, attempt = excluded.attempt, started_at = excluded.started_at`;

const ADD_STEP = `
INSERT INTO steps (scope, key, at, outcome_json) VALUES (?, ?, ?, ?)
ON CONFLICT (scope, key) DO NOTHING`;

const DELETE_STEPS = 'DELETE FROM steps WHERE scope = ?';

const ADD_DEAD_LETTER = `
INSERT INTO dead_letters (id, at, address, reason, message_json) VALUES (?, ?, ?, ?, ?)`;

const PUT_RUN = `
INSERT INTO runs (run, title, state, total, created_at, updated_at, ended_at, details_json)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run) DO UPDATE SET title = excluded.title, state = excluded.state, total = excluded.total,
  created_at = excluded.created_at, updated_at = excluded.updated_at, ended_at = excluded.ended_at,
  details_json = excluded.details_json`;

const PUT_TASK = `
INSERT INTO tasks (run, task, title, state, agent, priority, unblocks, position, attempts, reason,
  updated_at, details_json)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, task) DO UPDATE SET title = excluded.title, state = excluded.state,
  agent = excluded.agent, priority = excluded.priority, unblocks = excluded.unblocks,
  position = excluded.position, attempts = excluded.attempts, reason = excluded.reason,
  updated_at = excluded.updated_at, details_json = excluded.details_json,
  claim_open = CASE WHEN tasks.state = excluded.state THEN tasks.claim_open ELSE 0 END`;

const PUT_ATTEMPT = `
INSERT INTO attempts (run, task, attempt, outcome, reason, started_at, ended_at, details_json)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, task, attempt) DO UPDATE SET outcome = excluded.outcome, reason = excluded.reason,
  started_at = excluded.started_at, ended_at = excluded.ended_at, details_json = excluded.details_json`;

/** In the order in which a batch is applied; `flattenBatch` writes its sections in the same order. */
const WRITES = [
  { section: 'actors', sql: PUT_ACTOR },
  { section: 'checkpoints', sql: ADD_CHECKPOINT },
  { section: 'consumed', sql: DELETE_MESSAGE },
  { section: 'messages', sql: ADD_MESSAGE },
  { section: 'clearedTimers', sql: DELETE_TIMER },
  { section: 'timers', sql: PUT_TIMER },
  { section: 'clearedEffects', sql: DELETE_EFFECT },
  { section: 'effects', sql: PUT_EFFECT },
  { section: 'steps', sql: ADD_STEP },
  { section: 'clearedSteps', sql: DELETE_STEPS },
  { section: 'deadLetters', sql: ADD_DEAD_LETTER },
  { section: 'runs', sql: PUT_RUN },
  { section: 'tasks', sql: PUT_TASK },
  { section: 'attempts', sql: PUT_ATTEMPT },
].map((write) => ({ ...write, width: write.sql.split('?').length - 1 }));

export function flattenBatch(batch: Batch): FlatBatch {
  const out: SqlValue[] = [];
  out.push(batch.actors.length);
  for (const r of batch.actors) {
    out.push(r.address, r.machine, r.version, r.status, r.seq, r.parent, r.reason, r.updatedAt);
  }
  out.push(batch.checkpoints.length);
  for (const r of batch.checkpoints) {
    out.push(r.address, r.seq, r.at, r.kind, r.label, r.eventJson, r.snapshotJson);
  }
  out.push(batch.consumed.length);
  for (const id of batch.consumed) out.push(id);
  out.push(batch.messages.length);
  for (const r of batch.messages) {
    out.push(r.id, r.from, r.to, r.priority, r.sentAt, r.messageJson);
    out.push(r.correlation, r.attempt, r.reply ? 1 : 0);
  }
  out.push(batch.clearedTimers.length);
  for (const r of batch.clearedTimers) out.push(r.address, r.id);
  out.push(batch.timers.length);
  for (const r of batch.timers) out.push(r.address, r.id, r.generation, r.dueAt, r.actionJson);
  out.push(batch.clearedEffects.length);
  for (const r of batch.clearedEffects) out.push(r.address, r.id);
  out.push(batch.effects.length);
  for (const r of batch.effects) {
    out.push(r.address, r.id, r.generation, r.src, r.inputJson, r.attempt, r.startedAt);
  }
  out.push(batch.steps.length);
  for (const r of batch.steps) out.push(r.scope, r.key, r.at, r.outcomeJson);
  out.push(batch.clearedSteps.length);
  for (const scope of batch.clearedSteps) out.push(scope);
  out.push(batch.deadLetters.length);
  for (const r of batch.deadLetters) out.push(r.id, r.at, r.address, r.reason, r.messageJson);
  flattenProjections(batch, out);
  return out;
}

/** The three tables do not touch each other, so that a list for each keeps the order that matters. */
function flattenProjections(batch: Batch, out: SqlValue[]): void {
  const runs: SqlValue[] = [0];
  const tasks: SqlValue[] = [0];
  const attempts: SqlValue[] = [0];
  for (const projection of batch.projections) {
    switch (projection.table) {
      case 'runs': {
        const r = projection.row;
        runs.push(r.run, r.title, r.state, r.total, r.createdAt, r.updatedAt, r.endedAt);
        runs.push(r.detailsJson);
        runs[0] = (runs[0] as number) + 1;
        break;
      }
      case 'tasks': {
        const r = projection.row;
        tasks.push(r.run, r.task, r.title, r.state, r.agent, r.priority, r.unblocks, r.position);
        tasks.push(r.attempts, r.reason, r.updatedAt, r.detailsJson);
        tasks[0] = (tasks[0] as number) + 1;
        break;
      }
      case 'attempts': {
        const r = projection.row;
        attempts.push(r.run, r.task, r.attempt, r.outcome, r.reason, r.startedAt, r.endedAt);
        attempts.push(r.detailsJson);
        attempts[0] = (attempts[0] as number) + 1;
        break;
      }
    }
  }
  for (const values of [runs, tasks, attempts]) for (const value of values) out.push(value);
}

/** SQLite keeps UTF-8, which has no half surrogate pairs, and would store replacement characters instead. */
function refuseBrokenText(flat: FlatBatch): void {
  for (let at = 0; at < flat.length; at++) {
    const value = flat[at];
    // Free for the usual text: V8 answers at once for strings of one byte per character.
    if (typeof value !== 'string' || value.isWellFormed()) continue;
    throw new ValidationError(
      `Expected every text of a commit to be well-formed Unicode; ${describePlace(flat, at)} contains half of a surrogate pair. Nothing was stored. Repair the text (toWellFormed()), or keep it as JSON, which escapes such halves.`,
    );
  }
}

function describePlace(flat: FlatBatch, wanted: number): string {
  let start = 0;
  for (const { section, width } of WRITES) {
    const rows = flat[start] as number;
    const end = start + 1 + rows * width;
    if (wanted < end) {
      const offset = wanted - start - 1;
      return `value ${(offset % width) + 1} of row ${Math.floor(offset / width) + 1} of "${section}"`;
    }
    start = end;
  }
  return `value ${wanted}`;
}

/** Writes flat batches into an open transaction. */
export class BatchWriter {
  readonly #writes: readonly { readonly width: number; readonly statement: Statement }[];

  constructor(db: Database) {
    this.#writes = WRITES.map(({ width, sql }) => ({ width, statement: db.prepare(sql) }));
  }

  /**
   * @param midway called when the actors and checkpoints are written and the rest is not
   * @throws {ValidationError} a text with half of a surrogate pair
   */
  apply(flat: FlatBatch, midway: () => void): void {
    refuseBrokenText(flat);
    let at = 0;
    let sections = 0;
    for (const { width, statement } of this.#writes) {
      const end = at + 1 + (flat[at] as number) * width;
      at++;
      for (; at < end; at += width) statement.run(flat.slice(at, at + width));
      sections++;
      if (sections === 2) midway();
    }
  }
}
