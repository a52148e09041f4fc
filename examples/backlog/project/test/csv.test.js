import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatCsv, parseCsv } from '../src/csv.js';

test('reads rows and fields', () => {
  assert.deepEqual(parseCsv('a,b\r\n1,\n'), [
    ['a', 'b'],
    ['1', ''],
  ]);
});

test('a comma in quotes is text', () => {
  assert.deepEqual(parseCsv('"Lovelace, Ada",1815'), [['Lovelace, Ada', '1815']]);
});

test('writes what it reads', () => {
  const rows = [
    ['name', 'born'],
    ['Lovelace, Ada', '1815'],
  ];
  assert.deepEqual(parseCsv(formatCsv(rows)), rows);
});
