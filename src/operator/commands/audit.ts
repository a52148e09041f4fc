import { type AuditEntry, AuditReader, ValidationError } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { connectControl } from '../control/client.ts';
import { stateDirectoryOf } from '../state-directory.ts';
import { readProject } from '../stored-runs.ts';
import { cleanLine, type Line, safeJson, truncate } from '../terminal/text.ts';

export interface AuditFlags {
  readonly from?: string;
  readonly to?: string;
  readonly correlation?: string;
  readonly address?: string;
  readonly follow: boolean;
  readonly json: boolean;
}

/** A payload is shown up to this width; `--json` has all of it. */
const PAYLOAD_WIDTH = 120;

/** `troupe audit`: what has happened, oldest first; with `--json` one JSON object on a line. */
export async function audit(cli: CliContext, flags: AuditFlags): Promise<number> {
  const { stdout } = cli;
  const { from, to, correlation, address, follow, json } = flags;
  const now = Date.now();
  const query = {
    ...(from === undefined ? {} : { from: timeOf('--from', from, now) }),
    ...(to === undefined ? {} : { to: timeOf('--to', to, now) }),
    ...(correlation === undefined ? {} : { correlation }),
    ...(address === undefined ? {} : { address }),
  };
  const print = (entry: AuditEntry): void => {
    if (json) stdout.raw(`${safeJson(entry).replaceAll(/\n\s*/g, ' ')}\n`);
    else stdout.line(entryLine(entry));
  };
  const place = await cli.project();
  await readProject(place, async (store) => {
    const reader = new AuditReader(store, query);
    const readAll = async (): Promise<void> => {
      for await (const entry of reader.read()) print(entry);
    };
    const connection = follow ? await connectControl(stateDirectoryOf(place.directory)) : undefined;
    try {
      let isOver = false;
      let news = Promise.withResolvers<void>();
      const over = (): void => {
        isOver = true;
        news.resolve();
      };
      if (connection !== undefined) {
        // Listens before it reads, so that nothing is missed in between.
        const { ended } = await connection.watch(() => news.resolve());
        void ended.then(over);
        process.once('SIGINT', over);
        process.once('SIGTERM', over);
        void stdout.gone.then(over);
      }
      await readAll();
      if (connection === undefined) {
        if (follow && !json) stdout.line('Nothing runs now, so there is nothing to follow.');
        return;
      }
      while (!isOver) {
        await news.promise;
        news = Promise.withResolvers<void>();
        await readAll();
      }
      process.off('SIGINT', over);
      process.off('SIGTERM', over);
      await readAll();
    } finally {
      connection?.close();
    }
  });
  return 0;
}

const AGO: Readonly<Record<string, number>> = {
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** @throws {ValidationError} neither a date nor a time ago */
function timeOf(option: string, text: string, now: number): number {
  const [, count, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  if (count !== undefined && unit !== undefined) {
    return Math.max(0, now - Number(count) * (AGO[unit] ?? 0));
  }
  const [day] = /^\d{4}-\d{2}-\d{2}/.exec(text) ?? [];
  const at = day === undefined ? Number.NaN : Date.parse(text);
  // Of a day that a month does not have, a day of the next one would be made.
  if (at >= 0 && new Date(`${day}T00:00:00Z`).toISOString().startsWith(`${day}`)) return at;
  throw new ValidationError(
    `Expected ${option} to be a date such as 2026-11-30T12:00:00Z, or so long ago: 30m, 2h, 7d; got ${JSON.stringify(text)}.`,
  );
}

function entryLine(entry: AuditEntry): Line {
  const { at, kind, id, address, type, from, by, payload } = entry;
  const what = type === null ? kind : kind === 'turn' ? type : `${kind} ${type}`;
  const who = by ?? (from === address ? null : from);
  const style = kind === 'order' ? 'cyan' : kind === 'deadLetter' ? 'red' : 'bold';
  const isEmpty = payload === null || JSON.stringify(payload) === '{}';
  return [
    { text: `${new Date(at).toISOString()}  `, style: 'dim' },
    cleanLine(kind === 'turn' || kind === 'born' ? id : address),
    '  ',
    { text: cleanLine(what), style },
    who === null ? '' : cleanLine(`  by ${who}`),
    isEmpty
      ? ''
      : { text: `  ${truncate(cleanLine(JSON.stringify(payload)), PAYLOAD_WIDTH)}`, style: 'dim' },
  ];
}
