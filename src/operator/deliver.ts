import { setTimeout as delay } from 'node:timers/promises';
import { LockConflictError } from '../index.ts';
import type { CliContext } from './cli-context.ts';
import { composeTroupe } from './compose.ts';
import { loadConfig } from './config.ts';
import { connectControl } from './control/client.ts';
import { removeEndpoint } from './control/endpoint.ts';
import { openLogFile } from './log-file.ts';
import {
  checkOrder,
  type Order,
  type OrderHooks,
  type OrderResult,
  performOrder,
} from './orders.ts';
import type { ProjectPlace } from './project.ts';
import { prepareStateDirectory, stateDirectoryOf } from './state-directory.ts';

/** A troupe that just starts or stops holds the store without listening; it is given so long. */
const PATIENCE_MS = 10_000;
const TRY_AGAIN_MS = 100;

export interface Delivered {
  readonly result: OrderResult;
  /** Whether a troupe runs that goes on with it. */
  readonly active: boolean;
}

/**
 * Hands an order to the troupe that works on the project; when none does, opens the store, carries it out there, and
 * closes it again. Agents begin nothing in the meantime. Either way the order is stored when this resolves.
 * @param hooks told how it goes on, if it is carried out here
 * @throws {TroupeError} the order was refused; nothing has changed
 * @throws {LockConflictError} somebody holds the store and does not listen
 */
export async function deliver(
  cli: CliContext,
  place: ProjectPlace,
  order: Order,
  hooks: OrderHooks = {},
): Promise<Delivered> {
  checkOrder(order);
  const until = performance.now() + PATIENCE_MS;
  for (;;) {
    const connection = await connectControl(stateDirectoryOf(place.directory));
    if (connection !== undefined) {
      try {
        return { result: await connection.perform(order), active: true };
      } finally {
        connection.close();
      }
    }
    try {
      return { result: await performHere(cli, place, order, hooks), active: false };
    } catch (error) {
      // There is no event for "the other one listens now", or for the end of a lock.
      if (!(error instanceof LockConflictError) || performance.now() > until) throw error;
      await delay(TRY_AGAIN_MS);
    }
  }
}

async function performHere(
  cli: CliContext,
  place: ProjectPlace,
  order: Order,
  hooks: OrderHooks,
): Promise<OrderResult> {
  const config = await loadConfig(place.file, place.directory);
  const stateDirectory = await prepareStateDirectory(place.directory);
  const warnings: string[] = [];
  const log = await openLogFile(stateDirectory, (text) => warnings.push(text));
  try {
    const { troupe } = await composeTroupe(config, { logger: log.logger, agents: false });
    try {
      // Left from a process that was killed: whoever holds the store may take it away.
      await removeEndpoint(stateDirectory);
      const agents = config.agents.map(({ name }) => name);
      return await performOrder(order, { troupe, agents, hooks });
    } finally {
      await troupe.stop();
    }
  } finally {
    log.close();
    if (cli.env['TROUPE_DEBUG'] === '1') for (const text of warnings) cli.stderr.line(text);
  }
}
