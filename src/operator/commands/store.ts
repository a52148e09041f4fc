import { statSync } from 'node:fs';
import path from 'node:path';
import { ConfigurationError, countPrunableFiles, parseRetention } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { loadConfig } from '../config.ts';
import { deliver } from '../deliver.ts';
import { readProject } from '../stored-runs.ts';
import { safeJson } from '../terminal/text.ts';

/** The commands about the store as a file: `prune`, `backup`, `du`. */

const WORDS: Readonly<Record<string, string>> = {
  deadLetters: 'dead letters',
  audit: 'orders in the audit stream',
  idempotency: 'expired idempotency keys',
  streamChunks: 'chunks of streams',
};

/** `prune [--dry-run]`. */
export async function prune(
  cli: CliContext,
  { dryRun, json }: { readonly dryRun: boolean; readonly json: boolean },
): Promise<number> {
  const { stdout } = cli;
  const place = await cli.project();
  const retention = parseRetention((await loadConfig(place.file, place.directory)).retention);
  if (retention === undefined) {
    throw new ConfigurationError(
      `Nothing is removed from this project: ${place.file} says "retention: false". Say how much is kept, for example "retention: { checkpointsPerActor: 100 }".`,
    );
  }
  if (dryRun) {
    const now = Date.now();
    const counts = await readProject(place, async (store) => ({
      ...(await store.countPrunable({
        checkpointsPerActor: retention.checkpointsPerActor,
        endedBefore: now - retention.finishedRunsMs,
        deadLettersBefore: now - retention.deadLetterMs,
        deadLetters: retention.deadLetters,
        auditBefore: now - retention.auditMs,
        audit: retention.auditEntries,
        now,
      })),
      ...(await countPrunableFiles(place.directory, await store.listRuns(), retention, now)),
    }));
    if (json) stdout.raw(`${safeJson({ dryRun: true, wouldRemove: counts })}\n`);
    else stdout.line(`Would remove ${inWords({ ...counts })}. Nothing was changed.`);
    return 0;
  }
  // A store that nobody has made yet is refused here, and not made.
  await readProject(place, () => Promise.resolve());
  const { result, active } = await deliver(cli, place, { order: 'prune' });
  const { removed, bytes } = result.pruned ?? { removed: {}, bytes: 0 };
  if (json) stdout.raw(`${safeJson({ removed, bytes, active })}\n`);
  else stdout.line(`Removed ${inWords(removed)}. The file is ${inBytes(bytes)} smaller.`);
  return 0;
}

/** `backup FILE`. */
export async function backup(
  cli: CliContext,
  file: string,
  { json }: { readonly json: boolean },
): Promise<number> {
  const place = await cli.project();
  const target = path.resolve(cli.cwd, file);
  const bytes = await readProject(place, (store) => store.backup(target));
  if (json) cli.stdout.raw(`${safeJson({ file: target, bytes })}\n`);
  else cli.stdout.line(`Wrote ${target} (${inBytes(bytes)}).`);
  return 0;
}

/** `du`. */
export async function du(cli: CliContext, { json }: { readonly json: boolean }): Promise<number> {
  const { stdout } = cli;
  const place = await cli.project();
  const { file, ...usage } = await readProject(place, async (store) => ({
    file: store.name,
    ...(await store.usage()),
  }));
  const logBytes = statSync(`${file}-wal`, { throwIfNoEntry: false })?.size ?? 0;
  if (json) {
    stdout.raw(`${safeJson({ file, logBytes, ...usage })}\n`);
    return 0;
  }
  stdout.line(`${file}: ${inBytes(usage.fileBytes)}, ${inBytes(usage.emptyBytes)} of it empty`);
  stdout.line(`Its log: ${inBytes(logBytes)}`);
  stdout.line('');
  stdout.line('What is stored, without indexes:');
  const rowsOf = (name: string, rows: number, bytes: number): string =>
    `  ${inBytes(bytes).padStart(8)}  ${String(rows).padStart(8)} rows  ${name}`;
  for (const { table, rows, bytes } of usage.tables) {
    if (rows > 0) stdout.line(rowsOf(table, rows, bytes));
  }
  stdout.line('');
  stdout.line('Of that, by run (long texts, which runs may share, are in none):');
  for (const { run, rows, bytes } of usage.runs) {
    stdout.line(rowsOf(run ?? '(no run)', rows, bytes));
  }
  return 0;
}

function inWords(counts: Readonly<Record<string, number>>): string {
  const parts = Object.entries(counts)
    .filter(([, rows]) => rows > 0)
    .map(([what, rows]) => `${rows} ${WORDS[what] ?? what}`);
  return parts.length === 0 ? 'nothing' : parts.join(', ');
}

function inBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB'];
  let size = bytes;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit++;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}
