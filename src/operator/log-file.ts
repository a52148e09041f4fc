import { renameSync, statSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import type { Logger } from 'pino';
import { ConfigurationError } from '../index.ts';

/** A log that has grown beyond this is put aside (one is kept) when the next process begins. */
const MAX_BYTES = 10_000_000;
const WARN = 40;
const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

/** The log of a process: JSON lines in `.troupe/logs/troupe.log`. Close it last. */
export interface LogFile {
  readonly logger: Logger;
  close(): void;
}

/**
 * @param onWarning told the text of warnings and worse, for the person who looks on
 * @param asked the level of what goes into the file, as TROUPE_LOG_LEVEL has it. Default `info`.
 * @throws {ConfigurationError} there is no such level
 */
export async function openLogFile(
  stateDirectory: string,
  onWarning: (text: string) => void,
  asked = '',
): Promise<LogFile> {
  const level = asked === '' ? 'info' : asked;
  if (!LEVELS.includes(level)) {
    throw new ConfigurationError(
      `Expected TROUPE_LOG_LEVEL to be one of ${LEVELS.join(', ')}, got ${JSON.stringify(asked)}.`,
    );
  }
  const directory = path.join(stateDirectory, 'logs');
  await mkdir(directory, { recursive: true });
  const file = path.join(directory, 'troupe.log');
  if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) > MAX_BYTES) {
    renameSync(file, `${file}.1`);
  }
  // Not loaded for an order that another process takes.
  const { multistream, pino, stdTimeFunctions } = await import('pino');
  // Synchronous: what a process says last is what one looks for after a crash.
  const destination = pino.destination({ dest: file, sync: true, mode: 0o600 });
  const warnings = {
    write(line: string): void {
      const entry = JSON.parse(line) as {
        readonly msg?: unknown;
        readonly err?: { message?: unknown };
      };
      const text = [entry.msg, entry.err?.message].filter((part) => typeof part === 'string');
      onWarning(text.join(': '));
    },
  };
  const logger = pino(
    { level, base: { pid: process.pid }, timestamp: stdTimeFunctions.isoTime },
    multistream([
      { stream: destination, level: level as 'info' },
      { stream: warnings, level: WARN as never },
    ]),
  );
  return { logger, close: () => destination.end() };
}
