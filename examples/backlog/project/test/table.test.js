import assert from 'node:assert/strict';
import { test } from 'node:test';
import { columnWidths, formatTable } from '../src/table.js';

const rows = [
  ['name', 'born'],
  ['Ada', 1815],
  ['Grace', 1906, 'US'],
  ['Euclid', ''],
];

test('a column is as wide as its widest cell', () => {
  assert.deepEqual(columnWidths(rows), [6, 4, 2]);
});

test('aligns, and leaves no spaces at the end', () => {
  assert.equal(formatTable(rows), 'name    born\nAda     1815\nGrace   1906  US\nEuclid\n');
});

test('aligns to the right where asked', () => {
  assert.equal(
    formatTable(
      [
        ['a', 5],
        ['b', 10],
      ],
      { right: [1], gap: ' ' },
    ),
    'a  5\nb 10\n',
  );
});
