/** What a bench hands in: samples, one for each run, and the tables they are shown in. */

/** What every bench is called with. */
export interface BenchOptions {
  /** Sizes that only show that the bench works. The figures mean nothing. */
  readonly quick: boolean;
  /** How often each figure is measured. */
  readonly runs: number;
  /** An empty directory on a disk; removed afterwards. */
  readonly directory: string;
}

export interface Bench {
  readonly title: string;
  run(options: BenchOptions): Promise<readonly Table[]>;
}

/** One figure, measured once in each run. Shown as `median [min .. max]`. */
export interface Figure {
  readonly samples: readonly number[];
}

export interface Table {
  /** The first column names the row. */
  readonly columns: readonly string[];
  readonly rows: readonly (readonly (string | Figure)[])[];
  /** Lines printed below the table. */
  readonly notes?: readonly string[];
}

/** Collects samples by name, so that a ratio is taken of two figures of the same run and never of two medians. */
export class Samples {
  readonly #byName = new Map<string, number[]>();

  add(name: string, value: number): void {
    const samples = this.#byName.get(name);
    if (samples === undefined) this.#byName.set(name, [value]);
    else samples.push(value);
  }

  of(name: string): Figure {
    const samples = this.#byName.get(name);
    if (samples === undefined) throw new Error(`Nothing was measured under "${name}".`);
    return { samples };
  }

  /** `name` divided by `by`, run by run. */
  ratio(name: string, by: string): Figure {
    return this.#pairs(name, by, (a, b) => a / b);
  }

  /** `name` without `less`, run by run. */
  difference(name: string, less: string): Figure {
    return this.#pairs(name, less, (a, b) => a - b);
  }

  #pairs(name: string, other: string, combine: (a: number, b: number) => number): Figure {
    const others = this.of(other).samples;
    const samples = this.of(name).samples.map((value, run) =>
      combine(value, others[run] ?? Number.NaN),
    );
    return { samples };
  }
}

/** The p-th part of sorted values, 0 ≤ p ≤ 1. */
export function percentile(sorted: ArrayLike<number>, p: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN;
}

/** Runs `operation` one after the other and notes how long each took. Sorted, in milliseconds. */
export async function timeEach(
  count: number,
  operation: (i: number) => Promise<unknown>,
): Promise<Float64Array> {
  const times = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const before = performance.now();
    await operation(i);
    times[i] = performance.now() - before;
  }
  return times.sort();
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

export function renderTable(table: Table): string {
  const cells = [
    table.columns,
    table.columns.map(() => '---'),
    ...table.rows.map((row) =>
      row.map((cell) => (typeof cell === 'string' ? cell : figure(cell.samples))),
    ),
  ];
  const lines = cells.map((row) => `| ${row.join(' | ')} |`);
  for (const note of table.notes ?? []) lines.push('', note);
  return lines.join('\n');
}

function figure(samples: readonly number[]): string {
  const shown = digits(median(samples));
  if (samples.length < 2) return shown;
  return `${shown} [${digits(Math.min(...samples))} .. ${digits(Math.max(...samples))}]`;
}

/** Three digits that mean something, thousands set apart. */
function digits(value: number): string {
  if (!Number.isFinite(value)) return '?';
  const size = Math.abs(value);
  const decimals = size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return value
    .toLocaleString('en-US', {
      minimumFractionDigits: decimals,
      maximumFractionDigits: decimals,
    })
    .replaceAll(',', ' ');
}
