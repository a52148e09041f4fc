import type { Invariant } from './invariants.ts';

/** I8: the file itself. */
export const databaseInvariants: readonly Invariant[] = [
  {
    name: 'I8 integrity',
    check: ({ database }) => {
      const found = database.pragma('integrity_check', { simple: true });
      return found === 'ok' ? [] : [`integrity_check says ${String(found)}.`];
    },
  },
  {
    name: 'I8 foreign keys',
    check: ({ database }) =>
      (database.pragma('foreign_key_check') as unknown[]).map((row) => JSON.stringify(row)),
  },
  {
    name: 'I8 ids',
    check: ({ database }) => {
      const id = database.prepare('SELECT id FROM store').pluck().all();
      const version = database.pragma('user_version', { simple: true });
      return [
        ...(id.length === 1 ? [] : [`${id.length} ids of the store, expected one.`]),
        ...(Number(version) >= 1 ? [] : [`schema version ${String(version)}.`]),
      ];
    },
  },
];
