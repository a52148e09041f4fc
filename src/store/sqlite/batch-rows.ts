import type { Database, Statement } from 'better-sqlite3';
import { ValidationError } from '../../protocol/errors.ts';
import type { Batch, CutRequest, StoredChunks } from '../store.ts';

export type SqlValue = string | number | null | Uint8Array;

/**
 * A batch as it crosses to the writer's thread: for each of `WRITES` the number of its rows, then their
 * values. One array of strings and numbers is copied between threads several times faster than the
 * objects would be (figures: bench/README.md).
 */
export type FlatBatch = readonly SqlValue[];

const ADD_CHUNK = 'INSERT INTO chunks (name) VALUES (?) ON CONFLICT (name) DO NOTHING';

const ADD_CHUNK_DATA = `
INSERT INTO chunk_data (data, id) SELECT ?, id FROM chunks WHERE name = ?
ON CONFLICT (id) DO NOTHING`;

const ADD_CHUNK_LIST = `
INSERT INTO chunk_lists (name, chunks) VALUES (?, ?) ON CONFLICT (name) DO NOTHING`;

const PUT_ACTOR = `
INSERT INTO actors (address, machine, version, status, seq, parent, reason, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (address) DO UPDATE SET machine = excluded.machine, version = excluded.version,
  status = excluded.status, seq = excluded.seq, parent = excluded.parent, reason = excluded.reason,
  updated_at = excluded.updated_at`;

const ADD_CHECKPOINT = `
INSERT INTO checkpoints (address, seq, at, kind, label, version, event_json, snapshot_json, pending_json,
  details_json)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;

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
INSERT INTO steps (scope, key, at, kind, input_hash, outcome_json) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (scope, key) DO NOTHING`;

const DELETE_STEPS = 'DELETE FROM steps WHERE scope = ?';

const DELETE_IDEMPOTENCY = 'DELETE FROM idempotency WHERE key = ?';

const PUT_IDEMPOTENCY = `
INSERT INTO idempotency (key, input_hash, correlation, outcome_json, created_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET input_hash = excluded.input_hash, correlation = excluded.correlation,
  outcome_json = excluded.outcome_json, created_at = excluded.created_at, expires_at = excluded.expires_at`;

const ADD_DEAD_LETTER = `
INSERT INTO dead_letters (id, at, address, reason, message_json) VALUES (?, ?, ?, ?, ?)`;

const ADD_AUDIT = `
INSERT INTO audit (at, kind, id, address, type, by, details_json) VALUES (?, ?, ?, ?, ?, ?, ?)`;

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

const DELETE_ATTEMPTS = 'DELETE FROM attempts WHERE run = ? AND task = ? AND attempt > ?';

const PUT_CLAIM = 'UPDATE tasks SET claim_token = ?, claim_open = ? WHERE run = ? AND task = ?';

const ADD_CUT = `
INSERT INTO cuts (id, run, at, kind, label, details_json) VALUES (?, ?, ?, ?, ?, ?)`;

const CUT = '(SELECT position FROM cuts WHERE id = ?)';
/** An address, the prefix, and the text after all that begin with it. */
const OF_CUT = (column: string): string => `${column} = ? OR (${column} >= ? AND ${column} < ?)`;

const ADD_CUT_MEMBERS = `
INSERT INTO cut_members (cut, address, seq)
SELECT ${CUT}, address, seq FROM actors WHERE ${OF_CUT('address')}`;

const ADD_CUT_MESSAGES = `
INSERT INTO cut_messages (cut, position, id, sender, receiver, priority, sent_at, message_json, correlation,
  attempt, reply)
SELECT ${CUT}, position, id, sender, receiver, priority, sent_at, message_json, correlation, attempt, reply
FROM messages WHERE ${OF_CUT('receiver')}`;

const ADD_CUT_TIMERS = `
INSERT INTO cut_timers (cut, address, id, generation, due_at, action_json)
SELECT ${CUT}, address, id, generation, due_at, action_json FROM timers WHERE ${OF_CUT('address')}`;

const ADD_CUT_EFFECTS = `
INSERT INTO cut_effects (cut, address, id, generation, src, input_json, attempt, started_at)
SELECT ${CUT}, address, id, generation, src, input_json, attempt, started_at
FROM effects WHERE ${OF_CUT('address')}`;

const ADD_CUT_CLAIMS = `
INSERT INTO cut_claims (cut, run, task, token, open)
SELECT ${CUT}, run, task, claim_token, claim_open FROM tasks WHERE run = ? AND claim_token IS NOT NULL`;

const ADD_CUT_ATTEMPTS = `
INSERT INTO cut_attempts (cut, run, task, attempt, outcome, reason, started_at, ended_at, details_json)
SELECT ${CUT}, a.run, a.task, a.attempt, a.outcome, a.reason, a.started_at, a.ended_at, a.details_json
FROM tasks AS t JOIN attempts AS a ON a.run = t.run AND a.task = t.task AND a.attempt < t.attempts
WHERE t.run = ? AND t.attempts > 1`;

const DELETE_CUTS = `
DELETE FROM cuts WHERE run = ? AND kind = ? AND position NOT IN (
  SELECT position FROM cuts WHERE run = ? AND kind = ? ORDER BY position DESC LIMIT ?)`;

const PUT_STREAM = `
INSERT INTO streams (address, name, next, size, created_at, updated_at, closed_at)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (address, name) DO UPDATE SET next = excluded.next, size = excluded.size,
  updated_at = excluded.updated_at, closed_at = excluded.closed_at`;

const ADD_STREAM_CHUNK = `
INSERT INTO stream_chunks (stream, place, at, writer, epoch, seq, value_json)
VALUES ((SELECT id FROM streams WHERE address = ? AND name = ?), ?, ?, ?, ?, ?, ?)`;

/** In the order in which a batch is applied; `flattenBatch` writes its sections in the same order. */
const WRITES = [
  { section: 'chunks', sql: ADD_CHUNK },
  { section: 'chunkData', sql: ADD_CHUNK_DATA },
  { section: 'chunkLists', sql: ADD_CHUNK_LIST },
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
  { section: 'clearedIdempotency', sql: DELETE_IDEMPOTENCY },
  { section: 'idempotency', sql: PUT_IDEMPOTENCY },
  { section: 'deadLetters', sql: ADD_DEAD_LETTER },
  { section: 'audit', sql: ADD_AUDIT },
  { section: 'removedAttempts', sql: DELETE_ATTEMPTS },
  { section: 'runs', sql: PUT_RUN },
  { section: 'tasks', sql: PUT_TASK },
  { section: 'attempts', sql: PUT_ATTEMPT },
  { section: 'claims', sql: PUT_CLAIM },
  { section: 'cuts', sql: ADD_CUT },
  { section: 'cutMembers', sql: ADD_CUT_MEMBERS },
  { section: 'cutMessages', sql: ADD_CUT_MESSAGES },
  { section: 'cutTimers', sql: ADD_CUT_TIMERS },
  { section: 'cutEffects', sql: ADD_CUT_EFFECTS },
  { section: 'cutClaims', sql: ADD_CUT_CLAIMS },
  { section: 'cutAttempts', sql: ADD_CUT_ATTEMPTS },
  { section: 'oldCuts', sql: DELETE_CUTS },
  { section: 'streams', sql: PUT_STREAM },
  { section: 'streamChunks', sql: ADD_STREAM_CHUNK },
].map((write) => ({ ...write, width: write.sql.split('?').length - 1 }));

export function flattenBatch(batch: Batch): FlatBatch {
  const out: SqlValue[] = [];
  flattenChunks(batch.packed, out);
  out.push(batch.actors.length);
  for (const r of batch.actors) {
    out.push(r.address, r.machine, r.version, r.status, r.seq, r.parent, r.reason, r.updatedAt);
  }
  out.push(batch.checkpoints.length);
  for (const r of batch.checkpoints) {
    out.push(r.address, r.seq, r.at, r.kind, r.label, r.version, r.eventJson, r.snapshotJson);
    out.push(r.pendingJson, r.detailsJson);
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
  for (const r of batch.steps) {
    out.push(r.scope, r.key, r.at, r.kind, r.inputHash, r.outcomeJson);
  }
  out.push(batch.clearedSteps.length);
  for (const scope of batch.clearedSteps) out.push(scope);
  out.push(batch.clearedIdempotency.length);
  for (const key of batch.clearedIdempotency) out.push(key);
  out.push(batch.idempotency.length);
  for (const r of batch.idempotency) {
    out.push(r.key, r.inputHash, r.correlation, r.outcomeJson, r.createdAt, r.expiresAt);
  }
  out.push(batch.deadLetters.length);
  for (const r of batch.deadLetters) out.push(r.id, r.at, r.address, r.reason, r.messageJson);
  const { audit = [] } = batch;
  out.push(audit.length);
  for (const r of audit) out.push(r.at, r.kind, r.id, r.address, r.type, r.by, r.detailsJson);
  out.push(batch.removedAttempts.length);
  for (const r of batch.removedAttempts) out.push(r.run, r.task, r.above);
  flattenProjections(batch, out);
  out.push(batch.claims.length);
  for (const r of batch.claims) out.push(r.token, r.open ? 1 : 0, r.run, r.task);
  flattenCuts(batch.cuts, out);
  const { streams = [], streamChunks = [] } = batch;
  out.push(streams.length);
  for (const r of streams) {
    out.push(r.address, r.name, r.next, r.size, r.createdAt, r.updatedAt, r.closedAt);
  }
  out.push(streamChunks.length);
  for (const r of streamChunks) {
    out.push(r.address, r.name, r.offset, r.at, r.writer, r.epoch, r.seq, r.valueJson);
  }
  return out;
}

/** Each table is filled for all cuts before the next one is: a batch has hardly ever more than one. */
function flattenCuts(cuts: readonly CutRequest[], out: SqlValue[]): void {
  out.push(cuts.length);
  for (const r of cuts) out.push(r.id, r.run, r.at, r.kind, r.label, r.detailsJson);
  for (const _table of ['members', 'messages', 'timers', 'effects']) {
    out.push(cuts.length);
    // "task/r/" to "task/r0": the character after the slash.
    for (const r of cuts) out.push(r.id, r.address, r.prefix, `${r.prefix.slice(0, -1)}0`);
  }
  for (const _table of ['claims', 'attempts']) {
    out.push(cuts.length);
    for (const r of cuts) out.push(r.id, r.run);
  }
  const limited = cuts.filter(({ keep }) => keep !== null);
  out.push(limited.length);
  for (const r of limited) out.push(r.run, r.kind, r.run, r.kind, r.keep);
}

function flattenChunks({ chunks, lists }: StoredChunks = NO_CHUNKS, out: SqlValue[]): void {
  out.push(chunks.length);
  for (const r of chunks) out.push(r.name);
  out.push(chunks.length);
  for (const r of chunks) out.push(r.data, r.name);
  out.push(lists.length);
  for (const r of lists) out.push(r.name, JSON.stringify(r.chunks));
}

const NO_CHUNKS: StoredChunks = { chunks: [], lists: [] };

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

/** Rows that one statement writes where there are so many: each call into SQLite costs as much as half a row. */
const ROWS_AT_ONCE = 8;

/** The same for so many rows; undefined for what neither simply inserts values nor simply deletes by a key. */
function forManyRows(sql: string): string | undefined {
  if (/^DELETE FROM \w+ WHERE \w+ = \?$/.test(sql)) {
    return sql.replace('= ?', `IN (${Array<string>(ROWS_AT_ONCE).fill('?').join(', ')})`);
  }
  const values = /VALUES (\([?, ]+\))/.exec(sql)?.[1];
  if (values === undefined) return undefined;
  return sql.replace(values, Array<string>(ROWS_AT_ONCE).fill(values).join(', '));
}

/** Writes flat batches into an open transaction. */
export class BatchWriter {
  readonly #writes: readonly {
    readonly section: string;
    readonly width: number;
    readonly one: Statement;
    readonly many: Statement | undefined;
  }[];

  constructor(db: Database) {
    this.#writes = WRITES.map(({ section, width, sql }) => {
      const many = forManyRows(sql);
      return {
        section,
        width,
        one: db.prepare(sql),
        many: many === undefined ? undefined : db.prepare(many),
      };
    });
  }

  /**
   * @param midway called when the actors and checkpoints are written and the rest is not
   * @throws {ValidationError} a text with half of a surrogate pair
   */
  apply(flat: FlatBatch, midway: () => void): void {
    refuseBrokenText(flat);
    let at = 0;
    for (const { section, width, one, many } of this.#writes) {
      const end = at + 1 + (flat[at] as number) * width;
      at++;
      if (many !== undefined) {
        const step = width * ROWS_AT_ONCE;
        for (; at + step <= end; at += step) many.run(flat.slice(at, at + step));
      }
      for (; at < end; at += width) one.run(flat.slice(at, at + width));
      if (section === 'checkpoints') midway();
    }
  }
}
