import { existsSync } from 'node:fs';
import path from 'node:path';
import {
  checkProject,
  EXIT_CODES,
  findStoreOwner,
  findUnfinishedBackups,
  NotFoundError,
  type ProjectCheck,
  type Store,
  type StoreOwner,
  TroupeError,
} from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { loadConfig } from '../config.ts';
import { connectControl } from '../control/client.ts';
import { type FixtureReport, runFixtures } from '../fixtures.ts';
import type { ProjectPlace } from '../project.ts';
import { stateDirectoryOf, storePathOf } from '../state-directory.ts';
import { readProject } from '../stored-runs.ts';
import { safeJson } from '../terminal/text.ts';

/** More dead letters than this are counted, not shown. */
const MAX_LETTERS = 5;

/** An owner that answers no more and shows no sign of life for so long hangs. It shows one every 20 s. */
const HANGS_AFTER_MS = 60_000;

/** What `troupe doctor` says about a project. */
interface Diagnosis extends StoreDiagnosis {
  /** The process that works on it. */
  readonly owner: number | null;
  /** What backups that were killed have left in the project and beside its store. Harmless, and may be large. */
  readonly unfinishedBackups: readonly string[];
  /** Of the configuration, the store as a file, its lock, git, disks, and what is left behind. */
  readonly checks: readonly Check[];
  /** Null when they were not asked for. */
  readonly fixtures: readonly FixtureReport[] | null;
}

interface Check {
  readonly name: 'configuration' | 'store' | 'lock' | 'control' | ProjectCheck['name'];
  readonly ok: boolean;
  readonly says: readonly string[];
}

interface StoreDiagnosis {
  readonly actors: number;
  /** Actors whose state today's machines cannot read: they wait for a version that can. */
  readonly quarantined: readonly Ailing[];
  /** Actors that have ended with an error. */
  readonly failed: readonly Ailing[];
  /** Messages that no actor could handle, newest first. */
  readonly deadLetters: readonly { at: string; address: string; reason: string }[];
  readonly leases: readonly { name: string; holder: string; expiresAt: string }[];
}

interface Ailing {
  readonly address: string;
  readonly machine: string;
  readonly version: number;
  readonly reason: string | null;
}

/**
 * `troupe doctor`: what is wrong with a project, its store and the machine, and does not mend itself. Changes nothing.
 * With `fixtures` whole pieces of work are done in a temporary directory as well, which takes some seconds.
 * @returns 0 if nothing is, else the exit code of an internal error
 */
export async function doctor(
  cli: CliContext,
  { fixtures, json }: { readonly fixtures: boolean; readonly json: boolean },
): Promise<number> {
  const place = await cli.project();
  const control = await examineControl(place.directory);
  const { owner } = control;
  const directories = new Set([place.directory, path.dirname(storePathOf(place.directory))]);
  const configuration = await examineConfiguration(place);
  const store = await examineStore(place);
  const found: Diagnosis = {
    owner,
    ...store.diagnosis,
    unfinishedBackups: [...directories].flatMap((directory) => findUnfinishedBackups(directory)),
    checks: [
      ...configuration.checks,
      store.check,
      examineLock(findStoreOwner(storePathOf(place.directory)), owner),
      ...control.checks,
      ...(await checkProject({
        directory: place.directory,
        live: store.live,
        ...(configuration.target === undefined ? {} : { target: configuration.target }),
      })),
    ],
    fixtures: fixtures ? await runFixtures() : null,
  };
  const healthy = isHealthy(found);
  const exitCode = healthy ? 0 : EXIT_CODES.internal;
  if (json) {
    cli.stdout.raw(`${safeJson({ healthy, ...found })}\n`);
    return exitCode;
  }
  for (const line of describe(found, cli.commandFor(place))) cli.stdout.line(line);
  return exitCode;
}

const isHealthy = ({ quarantined, failed, deadLetters, checks, fixtures }: Diagnosis): boolean =>
  quarantined.length + failed.length + deadLetters.length === 0 &&
  [...checks, ...(fixtures ?? [])].every(({ ok }) => ok);

async function examineConfiguration(
  place: ProjectPlace,
): Promise<{ readonly checks: readonly Check[]; readonly target?: string }> {
  // A project that is worked on by a program needs none.
  if (!existsSync(path.join(place.directory, path.basename(place.file)))) return { checks: [] };
  const name = 'configuration';
  try {
    const { target } = await loadConfig(place.file, place.directory);
    return { checks: [{ name, ok: true, says: [`${place.file} can be read.`] }], target };
  } catch (error) {
    return { checks: [{ name, ok: false, says: messageOf(error).split('\n') }] };
  }
}

type OpenStore = Parameters<Parameters<typeof readProject>[1]>[0];

async function examineStore(place: ProjectPlace): Promise<{
  readonly diagnosis: StoreDiagnosis;
  readonly live: readonly { readonly run: string; readonly task: string }[];
  readonly check: Check;
}> {
  const nothing = { actors: 0, quarantined: [], failed: [], deadLetters: [], leases: [] };
  const name = 'store';
  try {
    return await readProject(place, async (store) => {
      const damage = await store.findDamage();
      const says = damage.length === 0 ? [`${store.name} is whole.`] : damage;
      return {
        diagnosis: await examine(store),
        live: await liveTasks(store),
        check: { name, ok: damage.length === 0, says },
      };
    });
  } catch (error) {
    // To say what is wrong with it is what we are here for; only the lack of one is no fault.
    const ok = error instanceof NotFoundError;
    const says = ok ? ['Nothing was run here yet.'] : messageOf(error).split('\n');
    return { diagnosis: nothing, live: [], check: { name, ok, says } };
  }
}

/** @throws what is no error of ours: a mistake in the code is not one of the project */
function messageOf(error: unknown): string {
  if (error instanceof TroupeError) return error.message;
  throw error;
}

async function liveTasks(
  store: Pick<OpenStore, 'listRuns' | 'listTasks'>,
): Promise<{ run: string; task: string }[]> {
  const live: { run: string; task: string }[] = [];
  for (const { run, endedAt } of await store.listRuns()) {
    if (endedAt !== null) continue;
    for (const { task, state } of await store.listTasks(run)) {
      if (state !== 'done' && state !== 'cancelled') live.push({ run, task });
    }
  }
  return live;
}

/** Who answers orders for a project. Somebody who does not understand us is no reason to look at nothing else. */
async function examineControl(
  directory: string,
): Promise<{ readonly owner: number | null; readonly checks: readonly Check[] }> {
  try {
    const connection = await connectControl(stateDirectoryOf(directory));
    connection?.close();
    return { owner: connection?.pid ?? null, checks: [] };
  } catch (error) {
    if (!(error instanceof TroupeError)) throw error;
    return { owner: null, checks: [{ name: 'control', ok: false, says: [error.message] }] };
  }
}

function examineLock(lock: StoreOwner | undefined, owner: number | null): Check {
  const name = 'lock';
  if (lock === undefined) return { name, ok: true, says: ['Nobody holds the store.'] };
  const { state, pid, host, lockedAt, silentMs, lockFile } = lock;
  if (state === 'dead') {
    const says = `The process that held the store was killed; whoever opens it next takes ${lockFile} over.`;
    return { name, ok: true, says: [says] };
  }
  const who = `process ${pid}${state === 'elsewhere' ? ` on host ${host}` : ''}`;
  const since = `The store is held by ${who} since ${lockedAt}`;
  if (owner === pid || silentMs <= HANGS_AFTER_MS) return { name, ok: true, says: [`${since}.`] };
  return {
    name,
    ok: false,
    says: [
      `${since}, which has shown no sign of life for ${Math.round(silentMs / 1000)} s. If it hangs: troupe resume --take-over. If it has ended: delete ${lockFile}.`,
    ],
  };
}

async function examine(
  store: Pick<Store, 'listActors' | 'listDeadLetters' | 'listLeases'>,
): Promise<StoreDiagnosis> {
  const actors = await store.listActors();
  const ailing = (status: string): Ailing[] =>
    actors
      .filter((actor) => actor.status === status)
      .map(({ address, machine, version, reason }) => ({ address, machine, version, reason }));
  const letters = await store.listDeadLetters();
  return {
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
  for (const { name, ok, says } of found.checks) {
    for (const [index, said] of says.entries()) {
      yield index > 0 ? `     ${said}` : `${ok ? 'ok  ' : 'bad '} ${name}: ${said}`;
    }
  }
  for (const { name, ok, tookMs, problems } of found.fixtures ?? []) {
    yield `${ok ? 'ok  ' : 'bad '} ${name}: ${ok ? `all as it should be (${tookMs} ms).` : 'not as it should be.'}`;
    for (const problem of problems) yield `     ${problem}`;
  }
  if (isHealthy(found)) {
    yield `Nothing is wrong: ${count(found.actors, 'actor', 'actors')}, none quarantined, none failed, no dead letters.`;
  }
}

function line({ address, machine, version, reason }: Ailing): string {
  return `  ${address} (machine ${machine}, version ${version}): ${reason ?? 'no reason is known'}`;
}

function count(n: number, one: string, many: string): string {
  return `${n} ${n === 1 ? one : many}`;
}
