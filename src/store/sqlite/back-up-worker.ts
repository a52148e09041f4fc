import { parentPort, workerData } from 'node:worker_threads';
import Database from 'better-sqlite3';
import type { Failure } from '../../protocol/errors.ts';
import type { BackUpData } from './back-up.ts';
import { BUSY_TIMEOUT_MS, retryWhileBusy } from './busy.ts';
import { explain } from './sqlite-errors.ts';

/** The thread that copies a store. It says what went wrong, or null. */

/** Only another program's lock, or a crash's journal, is in the way. */
const BUSY_LIMIT_MS = 30_000;

const { source, target } = workerData as BackUpData;
const doing = `copy the store ${source} to ${target}`;
let failure: Failure | null = null;
try {
  const options = { doing, limitMs: BUSY_LIMIT_MS, onWarning: () => undefined };
  await retryWhileBusy(() => {
    const db = new Database(source, {
      readonly: true,
      fileMustExist: true,
      timeout: BUSY_TIMEOUT_MS,
    });
    try {
      db.prepare('VACUUM INTO ?').run(target);
    } finally {
      db.close();
    }
  }, options);
} catch (error) {
  failure = explain(error, doing).toFailure();
}
parentPort?.postMessage(failure);
