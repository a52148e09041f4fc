import type { Address } from '../protocol/address.ts';
import { ConfigurationError } from '../protocol/errors.ts';
import { typeWord } from '../protocol/json.ts';
import type { AttemptRow, Projection, RunRow, TaskRow } from '../store/store.ts';
import { ignoreRejection } from './ignore-rejection.ts';

type Column = 'text' | 'number' | 'text or null' | 'number or null';

const COLUMNS: {
  readonly runs: Readonly<Record<keyof RunRow, Column>>;
  readonly tasks: Readonly<Record<keyof TaskRow, Column>>;
  readonly attempts: Readonly<Record<keyof AttemptRow, Column>>;
} = {
  runs: {
    run: 'text',
    title: 'text',
    state: 'text',
    total: 'number',
    createdAt: 'number',
    updatedAt: 'number',
    endedAt: 'number or null',
    detailsJson: 'text',
  },
  tasks: {
    run: 'text',
    task: 'text',
    title: 'text',
    state: 'text',
    agent: 'text',
    priority: 'number',
    unblocks: 'number',
    position: 'number',
    attempts: 'number',
    reason: 'text or null',
    updatedAt: 'number',
    detailsJson: 'text',
  },
  attempts: {
    run: 'text',
    task: 'text',
    attempt: 'number',
    outcome: 'text',
    reason: 'text or null',
    startedAt: 'number',
    endedAt: 'number or null',
    detailsJson: 'text',
  },
};

const LISTS = Object.fromEntries(
  Object.entries(COLUMNS).map(([table, columns]) => [table, Object.entries(columns)]),
) as Readonly<Record<string, readonly (readonly [string, Column])[]>>;

/**
 * What `project` gives becomes rows in the commit of the turn: one that does not fit would fail the commit, and the host
 * with it.
 * @throws {ConfigurationError} says what does not fit
 */
export function checkProjections(address: Address, given: unknown): readonly Projection[] {
  const wrong = (expected: string, got: string): ConfigurationError =>
    new ConfigurationError(`Expected project for ${address} to give ${expected}, got ${got}.`);
  if (!Array.isArray(given)) {
    ignoreRejection(given);
    throw wrong(
      'a list of rows',
      given instanceof Promise ? 'a promise: it has to be synchronous' : typeWord(given),
    );
  }
  for (const projection of given as readonly (Partial<Projection> | null | undefined)[]) {
    const table = String(projection?.table);
    const columns = Object.hasOwn(LISTS, table) ? LISTS[table] : undefined;
    if (columns === undefined) {
      throw wrong(`rows { table: ${Object.keys(LISTS).join(' | ')}, row }`, `table ${table}`);
    }
    const row = (projection?.row ?? {}) as unknown as Readonly<Record<string, unknown>>;
    for (const [name, column] of columns) {
      if (!fits(row[name], column)) {
        throw wrong(`${table} whose ${name} is a ${column}`, typeWord(row[name]));
      }
    }
  }
  return given as readonly Projection[];
}

function fits(value: unknown, column: Column): boolean {
  if (value === null) return column === 'text or null' || column === 'number or null';
  if (typeof value === 'string') {
    return (column === 'text' || column === 'text or null') && value.isWellFormed();
  }
  return (
    typeof value === 'number' &&
    Number.isFinite(value) &&
    (column === 'number' || column === 'number or null')
  );
}
