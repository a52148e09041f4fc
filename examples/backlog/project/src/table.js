import { expectArray } from './expect.js';

export function columnWidths(rows) {
  expectArray(rows, 'rows');
  const widths = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, String(cell).length);
    });
  }
  return widths;
}

export function formatTable(rows, { gap = '  ', right = [] } = {}) {
  const widths = columnWidths(rows);
  const lines = rows.map((row) =>
    row
      .map((cell, column) => {
        const text = String(cell);
        return right.includes(column) ? text.padStart(widths[column]) : text.padEnd(widths[column]);
      })
      .join(gap)
      .trimEnd(),
  );
  return lines.map((line) => `${line}\n`).join('');
}
