import { listBreakers } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { type ControlConnection, connectControl } from '../control/client.ts';
import type { ProjectPlace } from '../project.ts';
import { type RunReport, reportOf } from '../report.ts';
import { createReporter, LineReporter } from '../reporters.ts';
import { progressOfRun, RunsView, type RunView, taskOfRow, withProgress } from '../run-view.ts';
import { stateDirectoryOf } from '../state-directory.ts';
import { listRuns, readProject, requireRun } from '../stored-runs.ts';
import { renderSummary } from '../terminal/summary.ts';
import { safeJson } from '../terminal/text.ts';
import { readActors } from './actors.ts';
import { breakerLines } from './breakers.ts';
import { flowOf } from './flow.ts';

export interface StatusOptions {
  readonly json: boolean;
  readonly watch: boolean;
}

/** `troupe status`: how the runs stand, whether one is active or not. */
export async function status(
  cli: CliContext,
  run: string | undefined,
  options: StatusOptions,
): Promise<number> {
  const place = await cli.project();
  // First: a run that is not there is not worth a connection.
  if (run !== undefined) await readProject(place, (store) => requireRun(store, run));
  const connection = await connectControl(stateDirectoryOf(place.directory));
  try {
    if (options.watch && connection !== undefined) {
      const hasEnded = await watch(cli, run, connection, options);
      return await show(cli, place, run, hasEnded ? undefined : connection.pid, options);
    }
    return await show(cli, place, run, connection?.pid, options);
  } finally {
    connection?.close();
  }
}

/**
 * Follows what happens until the other process ends, this one is interrupted, or nobody reads it any more.
 * @returns whether the other process has ended
 */
async function watch(
  cli: CliContext,
  run: string | undefined,
  connection: ControlConnection,
  { json }: StatusOptions,
): Promise<boolean> {
  const view = new RunsView();
  const runs = (): string[] =>
    view
      .runs()
      .filter((entry) => run === undefined || entry.id === run)
      .map((entry) => entry.id);
  const early: (() => void)[] = [];
  let apply = (act: () => void): void => {
    early.push(act);
  };
  let show = (_event: Parameters<RunsView['apply']>[0]): void => undefined;
  const { snapshot, ended } = await connection.watch((event) =>
    apply(() => {
      view.apply(event);
      const about = 'run' in event ? event.run : 'task' in event ? event.task.run : undefined;
      const id = typeof about === 'object' ? about.id : about;
      if (run === undefined || id === undefined || id === run) show(event);
    }),
  );
  for (const entry of snapshot.runs) view.setRun(entry);
  for (const task of snapshot.tasks) view.setTask(task);
  const reporter = json
    ? new LineReporter(cli.stderr, view)
    : createReporter(cli.stdout, view, runs);
  show = (event) => reporter.event(event);
  apply = (act) => act();
  for (const act of early) act();
  const interrupted = new Promise<void>((resolve) => {
    process.once('SIGINT', () => resolve());
    process.once('SIGTERM', () => resolve());
  });
  if (json || !cli.stdout.isLive) reporter.say(`Process ${connection.pid} works on it.`);
  const hasEnded = await Promise.race([
    ended.then(() => true),
    Promise.race([interrupted, cli.stdout.gone]).then(() => false),
  ]);
  reporter.end();
  return hasEnded;
}

async function show(
  cli: CliContext,
  place: ProjectPlace,
  run: string | undefined,
  pid: number | undefined,
  { json, watch: watched }: StatusOptions,
): Promise<number> {
  const { stdout } = cli;
  const { runs, reports, breakers, agents, supervisors } = await readProject(
    place,
    async (store) => {
      const all = await listRuns(store);
      const shown = run === undefined ? chosen(all) : all.filter((entry) => entry.id === run);
      const names = {
        command: cli.commandFor(place),
        qualified: all.filter((entry) => entry.endedAt === null).length > 1,
      };
      const made: RunReport[] = [];
      for (const entry of shown) {
        const progress = await progressOfRun(store, entry.id);
        const tasks = (await store.listTasks(entry.id)).map(taskOfRow);
        const shownTasks = tasks.map((task) => withProgress(task, progress));
        made.push(reportOf(entry, shownTasks, names));
      }
      const none = { agents: [], supervisors: [] };
      return {
        runs: all,
        reports: made,
        breakers: await listBreakers(store),
        ...(json ? await readActors(store) : none),
      };
    },
  );
  if (json) {
    const flow = pid === undefined ? null : await flowOf(place.directory);
    const others = runs.filter((entry) => !reports.some((report) => report.run === entry.id));
    stdout.raw(
      `${safeJson({ active: pid === undefined ? null : { pid }, runs: reports, others, breakers, agents, supervisors, flow })}\n`,
    );
    return 0;
  }
  const command = cli.commandFor(place);
  if (runs.length === 0) stdout.line(`There is no run yet. Begin with "${command} run".`);
  for (const report of reports) {
    const lines = renderSummary(report, {
      width: stdout.isLive ? stdout.columns : Number.POSITIVE_INFINITY,
      unicode: stdout.unicode,
      now: Date.now(),
      ...(pid === undefined ? { goOn: `${command} resume` } : {}),
    });
    for (const line of lines) stdout.line(line);
    stdout.line();
  }
  for (const other of runs) {
    if (reports.some((report) => report.run === other.id)) continue;
    stdout.line([{ text: `Run ${other.id}: ${other.state}, ${other.total} tasks`, style: 'dim' }]);
  }
  for (const line of breakerLines(breakers, command, Date.now())) stdout.line(line);
  if (pid !== undefined) stdout.line(`Process ${pid} works on it.`);
  else if (reports.some((report) => report.endedAt === null)) {
    stdout.line(
      watched
        ? `Nothing runs now, so there is nothing to watch. Go on: ${command} resume`
        : `Nothing runs now. Go on: ${command} resume`,
    );
  }
  return 0;
}

/** Runs that have not ended; when there are none, the last one. */
function chosen(runs: readonly RunView[]): readonly RunView[] {
  const open = runs.filter((run) => run.endedAt === null);
  return open.length > 0 ? open : runs.slice(-1);
}
