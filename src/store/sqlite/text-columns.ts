import type { Database, Statement } from 'better-sqlite3';
import type { TextCursor, TextReplacement, TextSlice } from '../store.ts';
import { checkRows, jsonKey, text as textColumn } from './row-shape.ts';

/** Every column with texts of actors: the kind that a codec binds them to, and the key of its rows. */
const COLUMNS = [
  {
    table: 'checkpoints',
    column: 'event_json',
    kind: 'checkpoints.event',
    key: ['address', 'seq'],
  },
  {
    table: 'checkpoints',
    column: 'snapshot_json',
    kind: 'checkpoints.snapshot',
    key: ['address', 'seq'],
  },
  {
    table: 'checkpoints',
    column: 'pending_json',
    kind: 'checkpoints.pending',
    key: ['address', 'seq'],
  },
  {
    table: 'checkpoints',
    column: 'details_json',
    kind: 'checkpoints.details',
    key: ['address', 'seq'],
  },
  { table: 'messages', column: 'message_json', kind: 'messages.message', key: ['position'] },
  { table: 'timers', column: 'action_json', kind: 'timers.action', key: ['address', 'id'] },
  { table: 'effects', column: 'input_json', kind: 'effects.input', key: ['address', 'id'] },
  { table: 'steps', column: 'outcome_json', kind: 'steps.outcome', key: ['position'] },
  {
    table: 'dead_letters',
    column: 'message_json',
    kind: 'dead_letters.message',
    key: ['position'],
  },
  { table: 'audit', column: 'details_json', kind: 'audit.details', key: ['position'] },
  { table: 'runs', column: 'details_json', kind: 'runs.details', key: ['run'] },
  { table: 'tasks', column: 'details_json', kind: 'tasks.details', key: ['run', 'task'] },
  {
    table: 'attempts',
    column: 'details_json',
    kind: 'attempts.details',
    key: ['run', 'task', 'attempt'],
  },
  { table: 'cuts', column: 'details_json', kind: 'cuts.details', key: ['position'] },
  {
    table: 'cut_messages',
    column: 'message_json',
    kind: 'messages.message',
    key: ['cut', 'position'],
  },
  {
    table: 'cut_timers',
    column: 'action_json',
    kind: 'timers.action',
    key: ['cut', 'address', 'id'],
  },
  {
    table: 'cut_effects',
    column: 'input_json',
    kind: 'effects.input',
    key: ['cut', 'address', 'id'],
  },
  {
    table: 'cut_attempts',
    column: 'details_json',
    kind: 'attempts.details',
    key: ['cut', 'run', 'task', 'attempt'],
  },
  { table: 'stream_chunks', column: 'value_json', kind: 'stream_chunks.value', key: ['position'] },
  { table: 'idempotency', column: 'outcome_json', kind: 'idempotency.outcome', key: ['key'] },
] as const;

const textRow = { key: textColumn, text: textColumn };

interface Column {
  readonly table: string;
  readonly column: string;
  readonly kind: string;
  readonly first: Statement;
  readonly next: Statement;
  readonly replace: Statement;
}

/** Reads and replaces stored texts one by one, whatever their table. */
export class TextColumns {
  readonly #columns: readonly Column[];

  constructor(db: Database) {
    this.#columns = COLUMNS.map(({ table, column, kind, key }) => {
      const names = key.join(', ');
      const places = key.map(() => '?').join(', ');
      const select = `SELECT json_array(${names}) AS key, ${column} AS text FROM ${table}
        WHERE ${column} IS NOT NULL`;
      const order = `ORDER BY ${names} LIMIT ?`;
      return {
        ...{ table, column, kind },
        first: db.prepare(`${select} ${order}`),
        next: db.prepare(`${select} AND (${names}) > (${places}) ${order}`),
        replace: db.prepare(
          `UPDATE ${table} SET ${column} = ? WHERE (${names}) = (${places}) AND ${column} = ?`,
        ),
      };
    });
  }

  list(after: TextCursor | null, limit: number): TextSlice {
    const index = after === null ? 0 : this.#indexOf(after);
    const { table, column, kind, first, next } = this.#columns[index] as Column;
    const rows =
      after === null || after.key === ''
        ? first.all(limit)
        : next.all(...keyValues(after.key), limit);
    const texts = checkRows(rows, textRow, table).map((row) => ({ table, column, kind, ...row }));
    const last = texts.at(-1);
    // With a short slice the column is done, or whoever writes as fast as this reads would keep it from ever ending.
    if (last !== undefined && texts.length === limit)
      return { texts, next: { table, column, key: last.key } };
    const following = this.#columns[index + 1];
    if (following === undefined) return { texts, next: null };
    return { texts, next: { table: following.table, column: following.column, key: '' } };
  }

  /** @returns how many had not changed meanwhile, and were replaced */
  replace(replacements: readonly TextReplacement[]): number {
    let replaced = 0;
    for (const { key, was, text, ...place } of replacements) {
      const { replace } = this.#columns[this.#indexOf({ key, ...place })] as Column;
      replaced += replace.run(text, ...keyValues(key), was).changes;
    }
    return replaced;
  }

  #indexOf({ table, column }: TextCursor): number {
    return this.#columns.findIndex((one) => one.table === table && one.column === column);
  }
}

/** @param key as `list` has given it out */
function keyValues(key: string): readonly (string | number)[] {
  const [row] = checkRows([{ key }], { key: jsonKey }, 'the keys of texts');
  return row?.key ?? [];
}
