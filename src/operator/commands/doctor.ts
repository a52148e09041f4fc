import path from 'node:path';
import { EXIT_CODES, findUnfinishedBackups, type Store } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { connectControl } from '../control/client.ts';
import { stateDirectoryOf, storePathOf } from '../state-directory.ts';
import { readProject } from '../stored-runs.ts';
import { safeJson } from '../terminal/text.ts';

/** More dead letters than this are counted, not shown. */
const MAX_LETTERS = 5;

/** What `troupe doctor` says about a project. */
interface Diagnosis {
  /** The process that works on it. */
  readonly owner: number | null;
  readonly actors: number;
  /** Actors whose state today's machines cannot read: they wait for a version that can. */
  readonly quarantined: readonly Ailing[];
  /** Actors that have ended with an error. */
  readonly failed: readonly Ailing[];
  /** Messages that no actor could handle, newest first. */
  readonly deadLetters: readonly { at: string; address: string; reason: string }[];
  readonly leases: readonly { name: string; holder: string; expiresAt: string }[];
  /** What backups that were killed have left in the project and beside its store. Harmless, and may be large. */
  readonly unfinishedBackups: readonly string[];
}

interface Ailing {
  readonly address: string;
  readonly machine: string;
  readonly version: number;
  readonly reason: string | null;
}

/**
 * `troupe doctor`: what is wrong in a project's store and does not mend itself.
 * @returns 0 if nothing is, else the exit code of an internal error
 */
export async function doctor(
  cli: CliContext,
  { json }: { readonly json: boolean },
): Promise<number> {
  const place = await cli.project();
  const connection = await connectControl(stateDirectoryOf(place.directory));
  connection?.close();
  const directories = new Set([place.directory, path.dirname(storePathOf(place.directory))]);
  const found: Diagnosis = {
    ...(await readProject(place, (store) => examine(store, connection?.pid ?? null))),
    unfinishedBackups: [...directories].flatMap((directory) => findUnfinishedBackups(directory)),
  };
  const healthy = found.quarantined.length + found.failed.length + found.deadLetters.length === 0;
  const exitCode = healthy ? 0 : EXIT_CODES.internal;
  if (json) {
    cli.stdout.raw(`${safeJson({ healthy, ...found })}\n`);
    return exitCode;
  }
  for (const line of describe(found, cli.commandFor(place))) cli.stdout.line(line);
  return exitCode;
}

async function examine(
  store: Pick<Store, 'listActors' | 'listDeadLetters' | 'listLeases'>,
  owner: number | null,
): Promise<Omit<Diagnosis, 'unfinishedBackups'>> {
  const actors = await store.listActors();
  const ailing = (status: string): Ailing[] =>
    actors
      .filter((actor) => actor.status === status)
      .map(({ address, machine, version, reason }) => ({ address, machine, version, reason }));
  const letters = await store.listDeadLetters();
  return {
    owner,
    actors: actors.length,
    quarantined: ailing('quarantined'),
    failed: ailing('error'),
    deadLetters: letters
      .toReversed()
      .map(({ at, address, reason }) => ({ at: new Date(at).toISOString(), address, reason })),
    leases: (await store.listLeases(Date.now())).map(({ name, holder, expiresAt }) => ({
      name,
      holder,
      expiresAt: new Date(expiresAt).toISOString(),
    })),
  };
}

function* describe(found: Diagnosis, command: string): Iterable<string> {
  const { owner, quarantined, failed, deadLetters, leases, unfinishedBackups } = found;
  yield owner === null ? 'No process works on it.' : `Process ${owner} works on it.`;
  if (quarantined.length > 0) {
    yield `${count(quarantined.length, 'actor is', 'actors are')} quarantined: this version cannot read their state. They keep it, and their messages, for a version that can (${command} check).`;
    yield* quarantined.map(line);
  }
  if (failed.length > 0) {
    yield `${count(failed.length, 'actor has', 'actors have')} ended with an error. To go back to before it: ${command} rollback ADDRESS CHECKPOINT`;
    yield* failed.map(line);
  }
  if (deadLetters.length > 0) {
    yield `${count(deadLetters.length, 'message', 'messages')} could not be handled; the newest:`;
    for (const { at, address, reason } of deadLetters.slice(0, MAX_LETTERS)) {
      yield `  ${at}  ${address}: ${reason}`;
    }
  }
  for (const { name, holder, expiresAt } of leases) {
    yield `The lease "${name}" is held by ${holder} until ${expiresAt}.`;
  }
  for (const file of unfinishedBackups) {
    yield `A backup that was killed has left ${file}. The next backup to that directory removes it, or remove it yourself.`;
  }
  if (quarantined.length + failed.length + deadLetters.length === 0) {
    yield `Nothing is wrong: ${count(found.actors, 'actor', 'actors')}, none quarantined, none failed, no dead letters.`;
  }
}

function line({ address, machine, version, reason }: Ailing): string {
  return `  ${address} (machine ${machine}, version ${version}): ${reason ?? 'no reason is known'}`;
}

function count(n: number, one: string, many: string): string {
  return `${n} ${n === 1 ? one : many}`;
}
