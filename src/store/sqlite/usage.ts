import type { Database } from 'better-sqlite3';
import type { Prunable, PruneLimits, StoreUsage, TableUsage } from '../usage.ts';
import { ENDED_RUNS, OLD_CHECKPOINTS, OLD_STREAMS } from './pruner.ts';
import { checkRows, integer, nullable, text } from './row-shape.ts';

/** What the tables say whose run a row is of. */
const OWNERS: Readonly<Record<string, string>> = {
  runs: 'run',
  tasks: 'run',
  attempts: 'run',
  cuts: 'run',
  actors: 'address',
  checkpoints: 'address',
  timers: 'address',
  effects: 'address',
  dead_letters: 'address',
  audit: 'address',
  messages: 'receiver',
  streams: 'address',
  steps: 'scope',
};

const runOf = (column: string): string =>
  column === 'run'
    ? 'run'
    : `CASE WHEN ${column} GLOB 'task/*/*' THEN substr(${column}, 6, instr(substr(${column}, 6), '/') - 1)
    WHEN ${column} GLOB 'run/*' THEN substr(${column}, 5, CASE instr(substr(${column}, 5), '!')
      WHEN 0 THEN length(${column}) ELSE instr(substr(${column}, 5), '!') - 1 END) END`;

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

const usageRow = { run: nullable(text), rows: integer, bytes: integer };

export function usageOf(db: Database): StoreUsage {
  // In one transaction, so that everything is of one moment.
  return db.transaction(() => {
    const pragma = (name: string): number => db.pragma(name, { simple: true }) as number;
    const tables: TableUsage[] = [];
    const runs = new Map<string | null, { rows: number; bytes: number }>();
    const names = db
      .prepare<[], string>(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
      )
      .pluck()
      .all();
    for (const table of names) {
      const columns = db
        .prepare<[string], string>('SELECT name FROM pragma_table_info(?)')
        .pluck()
        .all(table);
      const size = columns.map((name) => `coalesce(octet_length(${quoted(name)}), 0)`).join(' + ');
      const owner = OWNERS[table];
      const rows = db
        .prepare(
          `SELECT ${owner === undefined ? 'NULL' : runOf(owner)} AS run, count(*) AS rows,
            coalesce(sum(${size}), 0) AS bytes FROM ${quoted(table)} GROUP BY 1`,
        )
        .all();
      const sum = { rows: 0, bytes: 0 };
      for (const row of checkRows(rows, usageRow, `the sizes of ${table}`)) {
        sum.rows += row.rows;
        sum.bytes += row.bytes;
        if (owner === undefined) continue;
        const all = runs.get(row.run) ?? { rows: 0, bytes: 0 };
        runs.set(row.run, { rows: all.rows + row.rows, bytes: all.bytes + row.bytes });
      }
      tables.push({ table, ...sum });
    }
    const pageSize = pragma('page_size');
    return {
      fileBytes: pragma('page_count') * pageSize,
      emptyBytes: pragma('freelist_count') * pageSize,
      tables: tables.sort((a, b) => b.bytes - a.bytes || (a.table < b.table ? -1 : 1)),
      runs: Array.from(runs, ([run, usage]) => ({ run, ...usage })).sort(
        (a, b) => b.bytes - a.bytes,
      ),
    };
  })();
}

/** As `Store.prune` would do it now, if no run were in use. */
export function countPrunable(db: Database, limits: PruneLimits): Prunable {
  const count = (sql: string, parameters: Readonly<Record<string, unknown>>): number =>
    db.prepare<[unknown], number>(sql).pluck().get(parameters) ?? 0;
  const ended = { endedBefore: limits.endedBefore, busy: '[]' };
  return db.transaction(() => ({
    checkpoints: count(`SELECT count(*) FROM checkpoints WHERE ${OLD_CHECKPOINTS}`, {
      after: -1,
      upTo: Number.MAX_SAFE_INTEGER,
      keep: limits.checkpointsPerActor,
    }),
    runs: count(`SELECT count(*) FROM (${ENDED_RUNS})`, ended),
    tasks: count(`SELECT count(*) FROM tasks WHERE run IN (${ENDED_RUNS})`, ended),
    deadLetters: count(
      `SELECT count(*) FROM dead_letters WHERE at < :before OR position <= (
        SELECT position FROM dead_letters ORDER BY position DESC LIMIT 1 OFFSET :keep)`,
      { before: limits.deadLettersBefore, keep: limits.deadLetters },
    ),
    audit: count(
      `SELECT count(*) FROM audit WHERE at < :before OR position <= (
        SELECT position FROM audit ORDER BY position DESC LIMIT 1 OFFSET :keep)`,
      { before: limits.auditBefore, keep: limits.audit },
    ),
    idempotency: count('SELECT count(*) FROM idempotency WHERE expires_at <= :now', {
      now: limits.now,
    }),
    streams: count(`SELECT count(*) FROM (${OLD_STREAMS})`, { before: limits.endedBefore }),
  }))();
}
