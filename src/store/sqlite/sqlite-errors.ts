import Database from 'better-sqlite3';
import { type ErrorCode, TroupeError } from '../../protocol/errors.ts';

/** SQLite's own name of what went wrong (`SQLITE_FULL`), or undefined if it is not SQLite's error. */
function sqliteCode(error: unknown): string | undefined {
  return error instanceof Database.SqliteError ? error.code : undefined;
}

/** Somebody else holds a lock; the same call may succeed in a moment. */
export function isBusy(error: unknown): boolean {
  return sqliteCode(error)?.startsWith('SQLITE_BUSY') === true;
}

/** After these nobody can say what the file holds; the connection must not be written to again. */
export function leavesOutcomeUnknown(error: unknown): boolean {
  const code = sqliteCode(error) ?? '';
  return /^SQLITE_(IOERR|CORRUPT|NOTADB|CANTOPEN|PROTOCOL)/.test(code);
}

interface Explanation {
  readonly pattern: RegExp;
  readonly code: ErrorCode;
  readonly what: string;
  readonly todo: string;
}

const EXPLANATIONS: readonly Explanation[] = [
  {
    pattern: /^SQLITE_FULL/,
    code: 'unavailable',
    what: 'the disk is full',
    todo: 'Free some space, then try again.',
  },
  {
    pattern: /^SQLITE_IOERR/,
    code: 'unavailable',
    what: 'the disk reported an error',
    todo: 'Check the disk and its space, then open the store again.',
  },
  {
    pattern: /^SQLITE_READONLY/,
    code: 'unavailable',
    what: 'the file cannot be written to',
    todo: 'Check the permissions of the file and its directory and whether the disk is mounted read-only.',
  },
  {
    pattern: /^SQLITE_(CANTOPEN|PERM|AUTH)/,
    code: 'unavailable',
    what: 'the file cannot be opened',
    todo: 'Check that its directory exists and that both may be read and written.',
  },
  {
    pattern: /^SQLITE_BUSY/,
    code: 'unavailable',
    what: 'another process holds its lock',
    todo: 'End that process (a database tool, a backup), then try again.',
  },
  {
    pattern: /^SQLITE_CORRUPT/,
    code: 'internal',
    what: 'the file is damaged',
    todo: 'It was left as it is: keep a copy, then restore a backup or try `sqlite3 <file> .recover`.',
  },
  {
    pattern: /^SQLITE_NOTADB/,
    code: 'internal',
    what: 'the file is not an SQLite database',
    todo: 'It was left as it is: name another file, or restore a backup.',
  },
  {
    pattern: /^SQLITE_CONSTRAINT_(PRIMARYKEY|UNIQUE|ROWID)/,
    code: 'conflict',
    what: 'a row with that key exists already',
    todo: 'Nothing of the batch was stored.',
  },
  {
    pattern: /^SQLITE_(CONSTRAINT|MISMATCH|TOOBIG)/,
    code: 'validation',
    what: 'a row has a value that its table refuses',
    todo: 'Nothing of the batch was stored.',
  },
  {
    pattern: /^SQLITE_NOMEM/,
    code: 'unavailable',
    what: 'there is not enough memory',
    todo: 'Nothing was stored.',
  },
];

/**
 * One error a user can act on.
 * @param doing what was tried, for the beginning of the message: `store a commit in /data/state.db`
 */
export function explain(error: unknown, doing: string): TroupeError {
  if (error instanceof TroupeError) return error;
  const code = sqliteCode(error);
  const text = error instanceof Error ? error.message : String(error);
  const known = EXPLANATIONS.find(({ pattern }) => code !== undefined && pattern.test(code));
  if (known === undefined) {
    const cause = code === undefined ? text : `${code}: ${text}`;
    return new TroupeError('internal', `Could not ${doing}: ${cause}.`, { cause: error });
  }
  return new TroupeError(
    known.code,
    `Could not ${doing}: ${known.what} (${code}: ${text}). ${known.todo}`,
    { cause: error, context: { sqlite: code ?? '' } },
  );
}
