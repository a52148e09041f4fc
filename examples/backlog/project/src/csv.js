import { expectArray, expectString } from './expect.js';

/**
 * Reads comma-separated values. Fields in quotes may contain commas.
 * @param {string} text
 * @returns {string[][]} the rows
 */
export function parseCsv(text) {
  expectString(text, 'text');
  return text
    .split(/\r?\n/)
    .filter((line) => line !== '')
    .map(parseLine);
}

function parseLine(line) {
  const fields = [];
  let field = '';
  let quoted = false;
  for (const char of line) {
    if (char === '"') {
      quoted = !quoted;
    } else if (char === ',' && !quoted) {
      fields.push(field);
      field = '';
    } else {
      field += char;
    }
  }
  return [...fields, field];
}

/**
 * Writes comma-separated values, one row a line. Quotes are put where a comma asks for them.
 * @param {unknown[][]} rows
 */
export function formatCsv(rows) {
  expectArray(rows, 'rows');
  return rows.map((row) => `${row.map(formatField).join(',')}\n`).join('');
}

function formatField(value) {
  const text = String(value);
  return text.includes(',') ? `"${text}"` : text;
}
