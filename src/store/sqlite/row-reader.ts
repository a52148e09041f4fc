import type { Database, Statement } from 'better-sqlite3';
import type { JsonObject } from '../../protocol/json.ts';
import type { EpochMs } from '../../protocol/message.ts';
import type {
  ActorRecord,
  ActorStatus,
  AttemptRow,
  AuditQuery,
  AuditSlice,
  CheckpointRange,
  CheckpointRecord,
  ChunkRecord,
  ClaimRow,
  CutRecord,
  CutRow,
  DeadLetterRecord,
  EffectRecord,
  IdempotencyRecord,
  LeaseRow,
  MessageRecord,
  Pending,
  RunRow,
  SqlStatement,
  StepRecord,
  StoredActor,
  StoredAuditRow,
  StoredChunks,
  StoredCut,
  StreamChunkRow,
  StreamFilter,
  StreamHead,
  StreamQuery,
  TaskFilter,
  TaskRow,
  TextCursor,
  TextSlice,
  TimerRecord,
  TurnRecord,
} from '../store.ts';
import { readRows } from './app-tables.ts';
import { HELD_LEASES, leaseRow } from './lease-rows.ts';
import {
  bytes,
  checkRows,
  flag,
  integer,
  jsonTexts,
  nullable,
  oneOf,
  type RowShape,
  text,
} from './row-shape.ts';
import { TextColumns } from './text-columns.ts';

// A missing filter is passed as NULL and an IN list as a JSON array: one prepared statement per method,
// and no text of a caller ever becomes SQL.

const PENDING_MESSAGES = `
SELECT id, sender AS "from", receiver AS "to", priority, sent_at AS sentAt, message_json AS messageJson,
  correlation, attempt, reply
FROM messages ORDER BY position`;

const PENDING_TIMERS = `
SELECT address, id, generation, due_at AS dueAt, action_json AS actionJson
FROM timers ORDER BY address, id`;

const PENDING_EFFECTS = `
SELECT address, id, generation, src, input_json AS inputJson, attempt, started_at AS startedAt
FROM effects ORDER BY address, id`;

const IDEMPOTENCY_COLUMNS = `
key, input_hash AS inputHash, correlation, outcome_json AS outcomeJson, created_at AS createdAt,
  expires_at AS expiresAt`;

const IDEMPOTENCY = `SELECT ${IDEMPOTENCY_COLUMNS} FROM idempotency WHERE key = ?`;

// Word for word as in the partial index, which is thereby used.
const WAITING_REQUESTS = `
SELECT ${IDEMPOTENCY_COLUMNS} FROM idempotency WHERE correlation IS NOT NULL ORDER BY correlation`;

const ACTOR_COLUMNS = `
a.address, a.machine, a.version, a.status, a.seq, a.parent, a.reason, a.updated_at AS updatedAt`;

const ACTORS_WITH_SNAPSHOT = `
SELECT ${ACTOR_COLUMNS}, c.snapshot_json AS snapshotJson
FROM json_each(?) AS wanted
CROSS JOIN actors AS a ON a.address = wanted.value
LEFT JOIN checkpoints AS c ON c.address = a.address AND c.seq = a.seq`;

const STEP_COLUMNS = `
scope, key, at, kind, input_hash AS inputHash, outcome_json AS outcomeJson`;

const STEPS = `SELECT ${STEP_COLUMNS} FROM steps WHERE scope = ? ORDER BY position`;

const STEP = `SELECT ${STEP_COLUMNS} FROM steps WHERE scope = ? AND key = ?`;

const CHUNK_LISTS = `
SELECT name, chunks FROM chunk_lists WHERE name IN (SELECT value FROM json_each(?))`;

const CHUNKS = `
SELECT chunks.name, data FROM chunks JOIN chunk_data USING (id)
WHERE chunks.name IN (
  SELECT member.value FROM chunk_lists, json_each(chunk_lists.chunks) AS member
  WHERE chunk_lists.name IN (SELECT value FROM json_each(?)))`;

// Both bounds are closed: "kind/" to "kind0", the character after the slash, so that the key is searched.
const ACTORS = `
SELECT ${ACTOR_COLUMNS} FROM actors AS a
WHERE a.address >= :from AND a.address < :to AND (:status IS NULL OR a.status = :status)
ORDER BY a.address`;

const CHECKPOINT_COLUMNS = `
address, seq, at, kind, label, version, event_json AS eventJson, snapshot_json AS snapshotJson,
  pending_json AS pendingJson, details_json AS detailsJson`;

const CHECKPOINTS = `
SELECT ${CHECKPOINT_COLUMNS} FROM checkpoints
WHERE address = ? AND seq BETWEEN ? AND ? ORDER BY seq`;

const LAST_CHECKPOINTS = `
SELECT ${CHECKPOINT_COLUMNS} FROM checkpoints
WHERE address = ? AND seq BETWEEN ? AND ? ORDER BY seq DESC LIMIT ?`;

const CUT_COLUMNS = 'id, run, at, kind, label, details_json AS detailsJson';

const CUTS = `
SELECT ${CUT_COLUMNS}, (SELECT count(*) FROM cut_members WHERE cut = cuts.position) AS members,
  (SELECT count(*) FROM cut_messages WHERE cut = cuts.position) AS messages
FROM cuts WHERE run = ? ORDER BY position`;

const CUT = `SELECT ${CUT_COLUMNS} FROM cuts WHERE id = ?`;
const OF_CUT = 'cut = (SELECT position FROM cuts WHERE id = ?)';

const CUT_MEMBERS = `SELECT address, seq FROM cut_members WHERE ${OF_CUT} ORDER BY address`;

const CUT_MESSAGES = `
SELECT id, sender AS "from", receiver AS "to", priority, sent_at AS sentAt, message_json AS messageJson,
  correlation, attempt, reply
FROM cut_messages WHERE ${OF_CUT} ORDER BY position`;

const CUT_TIMERS = `
SELECT address, id, generation, due_at AS dueAt, action_json AS actionJson
FROM cut_timers WHERE ${OF_CUT} ORDER BY address, id`;

const CUT_EFFECTS = `
SELECT address, id, generation, src, input_json AS inputJson, attempt, started_at AS startedAt
FROM cut_effects WHERE ${OF_CUT} ORDER BY address, id`;

const CUT_CLAIMS = `SELECT run, task, token, open FROM cut_claims WHERE ${OF_CUT} ORDER BY run, task`;

const CUT_ATTEMPTS = `
SELECT run, task, attempt, outcome, reason, started_at AS startedAt, ended_at AS endedAt,
  details_json AS detailsJson
FROM cut_attempts WHERE ${OF_CUT} ORDER BY run, task, attempt`;

const DEAD_LETTERS = `
SELECT id, at, address, reason, message_json AS messageJson FROM dead_letters ORDER BY position`;

// Of all rows in their order as many as a slice may look at, and of those what is meant: a table without an index by
// time must not be walked through in one go. `upTo` is null when there is no more.
const END_OF_TURNS = `
SELECT max(rowid) AS upTo, count(*) AS looked
FROM (SELECT rowid FROM checkpoints WHERE rowid > ? ORDER BY rowid LIMIT ?)`;
const TURN_COLUMNS = `
rowid AS position, address, seq, at, kind, label, event_json AS eventJson, details_json AS detailsJson`;
const TURNS = `
SELECT ${TURN_COLUMNS} FROM checkpoints
WHERE rowid > ? AND rowid <= ? AND at >= ? AND at < ? ORDER BY rowid`;
// An actor's own are found by its address; the newest of them has the greatest rowid.
const TURNS_OF_ACTOR = `
SELECT ${TURN_COLUMNS} FROM checkpoints WHERE address = ? AND rowid > ? ORDER BY seq LIMIT ?`;

const END_OF_AUDIT = `
SELECT max(position) AS upTo, count(*) AS looked
FROM (SELECT position FROM audit WHERE position > ? ORDER BY position LIMIT ?)`;
const AUDIT = `
SELECT position, at, kind, id, address, type, by, details_json AS detailsJson FROM audit
WHERE position > ? AND position <= ? AND at >= ? AND at < ? ORDER BY position`;

const NEWEST_TURN = 'SELECT max(rowid) AS upTo, 0 AS looked FROM checkpoints';
const TURN_SLICES = { newest: NEWEST_TURN, end: END_OF_TURNS, sql: TURNS };
const AUDIT_SLICES = {
  newest: 'SELECT max(position) AS upTo, 0 AS looked FROM audit',
  end: END_OF_AUDIT,
  sql: AUDIT,
};

const RUNS = `
SELECT run, title, state, total, created_at AS createdAt, updated_at AS updatedAt, ended_at AS endedAt,
  details_json AS detailsJson
FROM runs ORDER BY created_at, run`;

const TASKS = `
SELECT run, task, title, state, agent, priority, unblocks, position, attempts, reason,
  updated_at AS updatedAt, details_json AS detailsJson
FROM tasks
WHERE run = :run AND position > :after
  AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
ORDER BY position, task LIMIT :limit`;

const ATTEMPTS = `
SELECT run, task, attempt, outcome, reason, started_at AS startedAt, ended_at AS endedAt,
  details_json AS detailsJson
FROM attempts WHERE run = ? AND task = ? ORDER BY attempt`;

const TASK_COUNTS = 'SELECT state, count(*) AS tasks FROM tasks WHERE run = ? GROUP BY state';

// Without a prefix both bounds are the address; with one they are "task/r/" and "task/r0", the character after the slash.
const STREAMS = `
SELECT s.address, s.name, s.next, s.size, s.created_at AS createdAt, s.updated_at AS updatedAt,
  s.closed_at AS closedAt, c.value_json AS lastJson
FROM streams AS s LEFT JOIN stream_chunks AS c ON c.stream = s.id AND c.place = s.next - 1
WHERE (s.address = :address OR (s.address >= :from AND s.address < :to))
  AND (:name IS NULL OR s.name = :name)
ORDER BY s.address, s.name`;

const STREAM_CHUNKS = `
SELECT s.address, s.name, c.place AS "offset", c.at, c.writer, c.epoch, c.seq, c.value_json AS valueJson
FROM streams AS s JOIN stream_chunks AS c ON c.stream = s.id
WHERE s.address = :address AND s.name = :name AND c.place >= :from
ORDER BY c.place LIMIT :limit`;

const STREAM_CHUNKS_OF_WRITER = `
SELECT s.address, s.name, c.place AS "offset", c.at, c.writer, c.epoch, c.seq, c.value_json AS valueJson
FROM streams AS s JOIN stream_chunks AS c ON c.stream = s.id AND c.writer = :writer
WHERE s.address = :address AND s.name = :name AND c.place >= :from
ORDER BY c.place LIMIT :limit`;

const priority = oneOf(1, 2, 3, 4, 5);
const nullableText = nullable(text);
const nullableInteger = nullable(integer);
const checkpointKind = oneOf('auto', 'manual', 'milestone', 'error', 'rollback');

const actorRow: RowShape<ActorRecord> = {
  address: text,
  machine: text,
  version: integer,
  status: oneOf('active', 'done', 'error', 'quarantined'),
  seq: integer,
  parent: nullableText,
  reason: nullableText,
  updatedAt: integer,
};

const storedActorRow: RowShape<Omit<StoredActor, 'unreadable'>> = {
  ...actorRow,
  snapshotJson: text,
};

const checkpointRow: RowShape<CheckpointRecord> = {
  address: text,
  seq: integer,
  at: integer,
  kind: checkpointKind,
  label: nullableText,
  version: integer,
  eventJson: nullableText,
  snapshotJson: text,
  pendingJson: nullableText,
  detailsJson: nullableText,
};

const chunkListRow = { name: text, chunks: jsonTexts };
const chunkRow: RowShape<ChunkRecord> = { name: text, data: bytes };

const messageRow: RowShape<MessageRecord> = {
  id: text,
  from: text,
  to: text,
  priority,
  sentAt: integer,
  messageJson: text,
  correlation: nullableText,
  attempt: nullableInteger,
  reply: flag,
};

const timerRow: RowShape<TimerRecord> = {
  address: text,
  id: text,
  generation: text,
  dueAt: integer,
  actionJson: text,
};

const effectRow: RowShape<EffectRecord> = {
  address: text,
  id: text,
  generation: text,
  src: text,
  inputJson: text,
  attempt: integer,
  startedAt: integer,
};

const stepRow: RowShape<StepRecord> = {
  scope: text,
  key: text,
  at: integer,
  kind: oneOf('step', 'tx'),
  inputHash: nullableText,
  outcomeJson: text,
};

const cutRecord: RowShape<CutRecord> = {
  id: text,
  run: text,
  at: integer,
  kind: oneOf('start', 'timed', 'manual', 'milestone', 'rollback'),
  label: nullableText,
  detailsJson: nullableText,
};
const cutRow: RowShape<CutRow> = { ...cutRecord, members: integer, messages: integer };
const cutMember = { address: text, seq: integer };

const claimRow: RowShape<ClaimRow> = {
  run: text,
  task: text,
  token: text,
  open: flag,
};

const idempotencyRow: RowShape<IdempotencyRecord> = {
  key: text,
  inputHash: text,
  correlation: nullableText,
  outcomeJson: nullableText,
  createdAt: integer,
  expiresAt: integer,
};

const deadLetterRow: RowShape<DeadLetterRecord> = {
  id: text,
  at: integer,
  address: text,
  reason: text,
  messageJson: text,
};

const turnRow: RowShape<TurnRecord> = {
  position: integer,
  address: text,
  seq: integer,
  at: integer,
  kind: checkpointKind,
  label: nullableText,
  eventJson: nullableText,
  detailsJson: nullableText,
};

const auditRow: RowShape<StoredAuditRow> = {
  position: integer,
  at: integer,
  kind: oneOf('order', 'answer'),
  id: text,
  address: text,
  type: text,
  by: text,
  detailsJson: text,
};

const endOfSlice = { upTo: nullableInteger, looked: integer };

const runRow: RowShape<RunRow> = {
  run: text,
  title: text,
  state: text,
  total: integer,
  createdAt: integer,
  updatedAt: integer,
  endedAt: nullableInteger,
  detailsJson: text,
};

const taskRow: RowShape<TaskRow> = {
  run: text,
  task: text,
  title: text,
  state: text,
  agent: text,
  priority,
  unblocks: integer,
  position: integer,
  attempts: integer,
  reason: nullableText,
  updatedAt: integer,
  detailsJson: text,
};

const attemptRow: RowShape<AttemptRow> = {
  run: text,
  task: text,
  attempt: integer,
  outcome: text,
  reason: nullableText,
  startedAt: integer,
  endedAt: nullableInteger,
  detailsJson: text,
};

const streamHead: RowShape<StreamHead> = {
  address: text,
  name: text,
  next: integer,
  size: integer,
  createdAt: integer,
  updatedAt: integer,
  closedAt: nullableInteger,
  lastJson: nullableText,
};

const streamChunkRow: RowShape<StreamChunkRow> = {
  address: text,
  name: text,
  offset: integer,
  at: integer,
  writer: text,
  epoch: integer,
  seq: integer,
  valueJson: text,
};

const taskCountRow = { state: text, tasks: integer };

/**
 * Every read of the `Store` contract, synchronously, on one connection. Rows are checked as they come in:
 * a damaged file, or one that another program wrote to, is reported with table and column and never half believed.
 */
export class RowReader {
  readonly #db: Database;
  #texts: TextColumns | undefined;
  readonly #statements = new Map<string, Statement>();

  constructor(db: Database) {
    this.#db = db;
  }

  loadPending(): Pending {
    // In one transaction, so that a reader in another process sees one moment.
    return this.#db.transaction(() => ({
      messages: this.#read('messages', messageRow, PENDING_MESSAGES),
      timers: this.#read('timers', timerRow, PENDING_TIMERS),
      effects: this.#read('effects', effectRow, PENDING_EFFECTS),
      requests: this.#read('idempotency', idempotencyRow, WAITING_REQUESTS),
    }))();
  }

  loadActors(addresses: readonly string[]): readonly StoredActor[] {
    const wanted = JSON.stringify([...new Set(addresses)]);
    return this.#read('actors with their checkpoints', storedActorRow, ACTORS_WITH_SNAPSHOT, [
      wanted,
    ]);
  }

  loadSteps(scope: string): readonly StepRecord[] {
    return this.#read('steps', stepRow, STEPS, [scope]);
  }

  loadStep(scope: string, key: string): StepRecord | undefined {
    return this.#read('steps', stepRow, STEP, [scope, key])[0];
  }

  loadIdempotency(key: string): IdempotencyRecord | undefined {
    return this.#read('idempotency', idempotencyRow, IDEMPOTENCY, [key])[0];
  }

  query(statement: SqlStatement): readonly JsonObject[] {
    return readRows(this.#db, statement);
  }

  loadChunks(lists: readonly string[]): StoredChunks {
    const wanted = JSON.stringify(lists);
    return this.#db.transaction(() => ({
      lists: this.#read('chunk_lists', chunkListRow, CHUNK_LISTS, [wanted]),
      chunks: this.#read('chunks', chunkRow, CHUNKS, [wanted]),
    }))();
  }

  listTexts(after: TextCursor | null, limit: number): TextSlice {
    this.#texts ??= new TextColumns(this.#db);
    return this.#texts.list(after, limit);
  }

  listActors(filter: { readonly kind?: string; readonly status?: ActorStatus } = {}) {
    const { kind, status = null } = filter;
    const from = kind === undefined ? '' : `${kind}/`;
    const to = kind === undefined ? '\u{10FFFF}' : `${kind}0`;
    return this.#read('actors', actorRow, ACTORS, [{ from, to, status }]);
  }

  listCheckpoints(address: string, range: CheckpointRange = {}): readonly CheckpointRecord[] {
    const { fromSeq = 0, toSeq = Number.MAX_SAFE_INTEGER, last } = range;
    if (last === undefined) {
      return this.#read('checkpoints', checkpointRow, CHECKPOINTS, [address, fromSeq, toSeq]);
    }
    const limits = [address, fromSeq, toSeq, Math.max(0, last)];
    return this.#read('checkpoints', checkpointRow, LAST_CHECKPOINTS, limits);
  }

  listCuts(run: string): readonly CutRow[] {
    return this.#read('cuts', cutRow, CUTS, [run]);
  }

  loadCut(id: string): StoredCut | undefined {
    return this.#db.transaction(() => {
      const [cut] = this.#read('cuts', cutRecord, CUT, [id]);
      if (cut === undefined) return undefined;
      return {
        cut,
        members: this.#read('cut_members', cutMember, CUT_MEMBERS, [id]),
        messages: this.#read('cut_messages', messageRow, CUT_MESSAGES, [id]),
        timers: this.#read('cut_timers', timerRow, CUT_TIMERS, [id]),
        effects: this.#read('cut_effects', effectRow, CUT_EFFECTS, [id]),
        claims: this.#read('cut_claims', claimRow, CUT_CLAIMS, [id]),
        attempts: this.#read('cut_attempts', attemptRow, CUT_ATTEMPTS, [id]),
      };
    })();
  }

  listDeadLetters(): readonly DeadLetterRecord[] {
    return this.#read('dead_letters', deadLetterRow, DEAD_LETTERS);
  }

  listTurns(query: AuditQuery): AuditSlice<TurnRecord> {
    const { address, after, limit, from = 0, to = Number.MAX_SAFE_INTEGER } = query;
    if (address === undefined) return this.#slice('checkpoints', turnRow, TURN_SLICES, query);
    const found = this.#read('checkpoints', turnRow, TURNS_OF_ACTOR, [address, after, limit]);
    return {
      rows: found.filter(({ at }) => at >= from && at < to),
      upTo: found.at(-1)?.position ?? this.#lastUpTo('checkpoints', NEWEST_TURN, after),
      isLast: found.length < limit,
    };
  }

  listAudit(query: AuditQuery): AuditSlice<StoredAuditRow> {
    const slice = this.#slice('audit', auditRow, AUDIT_SLICES, query);
    if (query.address === undefined) return slice;
    return { ...slice, rows: slice.rows.filter(({ address }) => address === query.address) };
  }

  #slice<R>(
    what: string,
    row: RowShape<R>,
    { newest, end, sql }: { readonly newest: string; readonly end: string; readonly sql: string },
    { after, limit, from = 0, to = Number.MAX_SAFE_INTEGER }: AuditQuery,
  ): AuditSlice<R> {
    return this.#db.transaction(() => {
      const [found] = this.#read(what, endOfSlice, end, [after, limit]);
      const { upTo, looked } = found ?? { upTo: null, looked: 0 };
      if (upTo === null) {
        return { rows: [], upTo: this.#lastUpTo(what, newest, after), isLast: true };
      }
      const rows = this.#read(what, row, sql, [after, upTo, from, to]);
      return { rows, upTo, isLast: looked < limit };
    })();
  }

  /** Less than `after` when the rows up to there were removed: their positions are given again. */
  #lastUpTo(what: string, newest: string, after: number): number {
    const [found] = this.#read(what, endOfSlice, newest);
    return Math.min(after, found?.upTo ?? 0);
  }

  listRuns(): readonly RunRow[] {
    return this.#read('runs', runRow, RUNS);
  }

  listTasks(run: string, filter: TaskFilter = {}): readonly TaskRow[] {
    const states = filter.states === undefined ? null : JSON.stringify(filter.states);
    const after = filter.afterPosition ?? Number.MIN_SAFE_INTEGER;
    const limit = Math.max(0, filter.limit ?? Number.MAX_SAFE_INTEGER);
    return this.#read('tasks', taskRow, TASKS, [{ run, after, states, limit }]);
  }

  listAttempts(run: string, task: string): readonly AttemptRow[] {
    return this.#read('attempts', attemptRow, ATTEMPTS, [run, task]);
  }

  listLeases(now: EpochMs): readonly LeaseRow[] {
    return this.#read('leases', leaseRow, HELD_LEASES, [now]);
  }

  countTasks(run: string): Readonly<Record<string, number>> {
    const counts = this.#read('tasks', taskCountRow, TASK_COUNTS, [run]);
    return Object.fromEntries(counts.map(({ state, tasks }) => [state, tasks]));
  }

  listStreams(filter: StreamFilter): readonly StreamHead[] {
    const prefix = 'prefix' in filter ? filter.prefix : '';
    const bounds = { from: prefix, to: prefix === '' ? '' : `${prefix.slice(0, -1)}0` };
    const address = 'prefix' in filter ? null : filter.address;
    const name = filter.name ?? null;
    return this.#read('streams', streamHead, STREAMS, [{ ...bounds, address, name }]);
  }

  listStreamChunks({ writer, ...query }: StreamQuery): readonly StreamChunkRow[] {
    return writer === undefined
      ? this.#read('stream_chunks', streamChunkRow, STREAM_CHUNKS, [query])
      : this.#read('stream_chunks', streamChunkRow, STREAM_CHUNKS_OF_WRITER, [
          { ...query, writer },
        ]);
  }

  // `.all()`, never `.iterate()`: an open iterator blocks every other statement of the connection.
  #read<R>(what: string, row: RowShape<R>, sql: string, parameters: readonly unknown[] = []): R[] {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return checkRows(statement.all(...parameters), row, `${what} in ${this.#db.name}`);
  }
}
