import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Bench, Table } from './report.ts';

/** The store's own bench (see store-writer.ts, which says how it measures): its table, as one of this run. */
export const storeThreads: Bench = {
  title: 'SQLite on the main thread or on its own',
  async run({ quick, directory }) {
    const program = fileURLToPath(new URL('./store-writer.ts', import.meta.url));
    const printed = execFileSync(
      process.execPath,
      [program, String(quick ? 0.02 : 1.5), directory],
      { encoding: 'utf8' },
    );
    return [parseTable(printed)];
  },
};

function parseTable(printed: string): Table {
  const [columns = [], , ...rows] = printed
    .trim()
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
  return { columns, rows };
}
