import { NotFoundError, openReadOnlyStore, ValidationError } from '../index.ts';
import { codecOfPlace } from './encryption.ts';
import { notFound } from './not-found.ts';
import type { ProjectPlace } from './project.ts';
import { type RunView, runOfRow } from './run-view.ts';
import { storePathOf } from './state-directory.ts';

type ReadOnlyStore = Awaited<ReturnType<typeof openReadOnlyStore>>;

/**
 * Looks into a project's store, also while another process works on it.
 * @throws {NotFoundError} nothing was ever run here
 */
export async function readProject<T>(
  place: ProjectPlace,
  look: (store: ReadOnlyStore) => Promise<T>,
): Promise<T> {
  const codec = await codecOfPlace(place);
  const options = codec === undefined ? {} : { codec };
  const path = storePathOf(place.directory);
  const store = await openReadOnlyStore(path, options).catch((error: unknown) => {
    if (!(error instanceof NotFoundError)) throw error;
    throw new NotFoundError(
      `Nothing was run in ${place.directory} yet. Begin with "troupe run", or name another project: troupe --file DIRECTORY/troupe.yaml.`,
      { cause: error },
    );
  });
  try {
    return await look(store);
  } finally {
    await store.close();
  }
}

/** Every run, oldest first. */
export async function listRuns(store: Pick<ReadOnlyStore, 'listRuns'>): Promise<RunView[]> {
  return (await store.listRuns()).map(runOfRow).toSorted((a, b) => a.createdAt - b.createdAt);
}

/** @throws {NotFoundError} no run is called that */
export async function requireRun(
  store: Pick<ReadOnlyStore, 'listRuns'>,
  id: string,
): Promise<RunView> {
  const runs = await listRuns(store);
  const run = runs.find((entry) => entry.id === id);
  if (run !== undefined) return run;
  const ids = runs.map((entry) => entry.id);
  throw notFound(`run ${id}`, id, ids, 'the runs are');
}

/**
 * The one run that is meant when none is named: the only one, or the only one that has not ended.
 * @throws {NotFoundError} there is none
 * @throws {ValidationError} there are several
 */
export async function onlyRun(store: Pick<ReadOnlyStore, 'listRuns'>): Promise<RunView> {
  const runs = await listRuns(store);
  const open = runs.filter((run) => run.endedAt === null);
  const candidates = open.length > 0 ? open : runs;
  const [run, ...others] = candidates;
  if (run === undefined) throw new NotFoundError('There is no run yet. Begin with "troupe run".');
  if (others.length === 0) return run;
  throw new ValidationError(
    `There are several runs: ${candidates.map((entry) => entry.id).join(', ')}. Name one.`,
  );
}

/** A task as people name it: `TASK`, or `RUN/TASK`. */
export interface TaskName {
  readonly run: string;
  readonly task: string;
}

/**
 * Finds the task that is meant. Without a run it is looked for in the runs that have not ended, then in all.
 * @throws {NotFoundError} there is none; says what was probably meant
 * @throws {ValidationError} several runs have one of this name
 */
export async function requireTask(
  store: Pick<ReadOnlyStore, 'listRuns' | 'listTasks'>,
  name: string,
): Promise<TaskName> {
  const slash = name.indexOf('/');
  if (slash !== -1) {
    const run = (await requireRun(store, name.slice(0, slash))).id;
    return await taskOf(store, [run], name.slice(slash + 1), `in run ${run}`);
  }
  const runs = await listRuns(store);
  const open = runs.filter((run) => run.endedAt === null).map((run) => run.id);
  const all = runs.map((run) => run.id);
  for (const ids of [open, all]) {
    const found = await having(store, ids, name);
    if (found.length > 1) {
      throw new ValidationError(
        `Several runs have a task ${name}: name it with its run, ${found.map((run) => `${run}/${name}`).join(' or ')}.`,
      );
    }
    if (found[0] !== undefined) return { run: found[0], task: name };
  }
  return await taskOf(store, open.length > 0 ? open : all, name, 'here');
}

async function having(
  store: Pick<ReadOnlyStore, 'listTasks'>,
  runs: readonly string[],
  task: string,
): Promise<string[]> {
  const found: string[] = [];
  for (const run of runs) {
    if ((await store.listTasks(run)).some((row) => row.task === task)) found.push(run);
  }
  return found;
}

async function taskOf(
  store: Pick<ReadOnlyStore, 'listTasks'>,
  runs: readonly string[],
  task: string,
  where: string,
): Promise<TaskName> {
  const ids: string[] = [];
  for (const run of runs) {
    for (const row of await store.listTasks(run)) {
      if (row.task === task) return { run, task };
      ids.push(row.task);
    }
  }
  throw notFound(`task ${task} ${where}`, task, ids, 'the tasks are');
}
