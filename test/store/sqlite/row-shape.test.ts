import { expect, test } from 'vitest';
import {
  bytes,
  type Column,
  checkRows,
  flag,
  integer,
  jsonKey,
  jsonTexts,
  nullable,
  oneOf,
  text,
} from '../../../src/store/sqlite/row-shape.ts';

const columns: readonly (readonly [Column<unknown>, unknown, unknown])[] = [
  [text, '', ''],
  [integer, -3, -3],
  [bytes, new Uint8Array([1]), new Uint8Array([1])],
  [flag, 1, true],
  [flag, 0, false],
  [oneOf('step', 'tx'), 'tx', 'tx'],
  [oneOf(1, 2), 2, 2],
  [nullable(integer), null, null],
  [nullable(text), 'a', 'a'],
  [jsonTexts, '["a"]', ['a']],
  [jsonKey, '["a",1]', ['a', 1]],
];

test.each(columns)('%o reads %o', (column, stored, expected) => {
  expect(checkRows([{ it: stored }], { it: column }, 'things')).toEqual([{ it: expected }]);
});

const wrong: readonly (readonly [Column<unknown>, unknown, string])[] = [
  [text, 1, 'must be a text, and is 1'],
  [text, null, 'must be a text, and is NULL'],
  [text, undefined, 'must be a text, and is missing'],
  [integer, 1.5, 'must be a whole number, and is 1.5'],
  [integer, 2 ** 53, 'must be a whole number, and is 9007199254740992'],
  [integer, 'secret', 'must be a whole number, and is a text of 6 characters'],
  [integer, 7n, 'must be a whole number, and is a bigint'],
  [bytes, 'a', 'must be bytes, and is a text of 1 characters'],
  [text, new Uint8Array(3), 'must be a text, and is 3 bytes'],
  [flag, 2, 'must be 0 or 1, and is 2'],
  [oneOf('step', 'tx'), 'toString', 'must be one of step, tx, and is a text of 8 characters'],
  [nullable(integer), 'a', 'must be a whole number, or NULL, and is a text of 1 characters'],
  [jsonTexts, '["a"', 'must be a JSON array of texts, and is a text of 4 characters'],
  [jsonTexts, '{}', 'must be a JSON array of texts, and is a text of 2 characters'],
  [jsonTexts, '[1]', 'must be a JSON array of texts, and is a text of 3 characters'],
  [jsonKey, '[null]', 'must be a JSON array of texts and numbers, and is a text of 6 characters'],
];

test.each(wrong)('%o refuses %o', (column, stored, says) => {
  const read = () => checkRows([{ it: stored }], { it: column }, 'things in state.db');
  expect(read).toThrow(
    `Row 1 of things in state.db cannot be right: it ${says}. The file is damaged or another program wrote to it; restore a backup.`,
  );
});

test('names the row that is wrong', () => {
  const rows = [{ it: 'a' }, { it: 'b' }, { it: 3 }];
  expect(() => checkRows(rows, { it: text }, 'things')).toThrow('Row 3 of things');
});
