import { TroupeError } from '../../protocol/errors.ts';

// By hand, and not with zod: the thread that writes loads nothing but what it needs. Loading zod there once more was a
// quarter of the CPU time of opening a store (see bench/opening.ts).

/** What a column may hold, and what is made of it. */
export interface Column<T> {
  /** In words, after "must be". */
  readonly expected: string;
  /** @returns undefined when it cannot be right */
  readonly read: (value: unknown) => T | undefined;
}

/** A row, column by column. */
export type RowShape<R> = { readonly [K in keyof R]-?: Column<R[K]> };

export const text: Column<string> = {
  expected: 'a text',
  read: (value) => (typeof value === 'string' ? value : undefined),
};

export const integer: Column<number> = {
  expected: 'a whole number',
  read: (value) => (Number.isSafeInteger(value) ? (value as number) : undefined),
};

export const bytes: Column<Uint8Array> = {
  expected: 'bytes',
  read: (value) => (value instanceof Uint8Array ? value : undefined),
};

/** SQLite has no booleans. */
export const flag: Column<boolean> = {
  expected: '0 or 1',
  read: (value) => (value === 1 ? true : value === 0 ? false : undefined),
};

/** A JSON array of texts. */
export const jsonTexts: Column<readonly string[]> = jsonArray(
  'a JSON array of texts',
  (item): item is string => typeof item === 'string',
);

/** A JSON array of texts and numbers: the key of a row. */
export const jsonKey: Column<readonly (string | number)[]> = jsonArray(
  'a JSON array of texts and numbers',
  (item): item is string | number => typeof item === 'string' || typeof item === 'number',
);

export function oneOf<const T extends string | number>(...values: readonly T[]): Column<T> {
  const known: ReadonlySet<unknown> = new Set(values);
  return {
    expected: `one of ${values.join(', ')}`,
    read: (value) => (known.has(value) ? (value as T) : undefined),
  };
}

export function nullable<T>({ expected, read }: Column<T>): Column<T | null> {
  return {
    expected: `${expected}, or NULL`,
    read: (value) => (value === null ? null : read(value)),
  };
}

/**
 * Checks rows as SQLite gave them out; they become what is returned, without a copy.
 * @param where what is read, of which file
 * @throws {TroupeError} `internal`, names the row, the column, what was expected and what came
 */
export function checkRows<R>(rows: readonly unknown[], shape: RowShape<R>, where: string): R[] {
  const columns = Object.entries(shape) as [string, Column<unknown>][];
  for (const [index, row] of (rows as Record<string, unknown>[]).entries()) {
    for (const [name, column] of columns) {
      const value = column.read(row[name]);
      if (value === undefined) {
        throw new TroupeError(
          'internal',
          `Row ${index + 1} of ${where} cannot be right: ${name} must be ${column.expected}, and is ${shown(row[name])}. The file is damaged or another program wrote to it; restore a backup.`,
        );
      }
      row[name] = value;
    }
  }
  return rows as R[];
}

function jsonArray<T>(expected: string, isItem: (item: unknown) => item is T): Column<T[]> {
  return {
    expected,
    read: (value) => {
      if (typeof value !== 'string') return undefined;
      try {
        const items: unknown = JSON.parse(value);
        return Array.isArray(items) && items.every(isItem) ? items : undefined;
      } catch {
        return undefined;
      }
    },
  };
}

/** Short, and never what an actor wrote: that may be a secret. */
function shown(value: unknown): string {
  if (value === undefined) return 'missing';
  if (value === null) return 'NULL';
  if (typeof value === 'number') return String(value);
  if (typeof value === 'string') return `a text of ${value.length} characters`;
  return value instanceof Uint8Array ? `${value.length} bytes` : `a ${typeof value}`;
}
