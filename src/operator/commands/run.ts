import { ConflictError, type TemplateCall, ValidationError } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { runSpecOf, workflowSpecOf } from '../compose.ts';
import { loadConfig } from '../config.ts';
import { connectControl } from '../control/client.ts';
import { deliver } from '../deliver.ts';
import { type Order, type OrderResult, performOrder } from '../orders.ts';
import { defaultRunId, type ProjectPlace } from '../project.ts';
import { Session, type SessionOptions } from '../session.ts';
import { stateDirectoryOf } from '../state-directory.ts';
import { listRuns, readProject, requireRun } from '../stored-runs.ts';
import { safeJson } from '../terminal/text.ts';
import { chooseRun, resumeRun } from './order.ts';
import { inTermsOfTheCommand, skipLines, skippedTo } from './skip.ts';

/** `troupe run`: works off the backlog in troupe.yaml, or goes on with it. */
export async function run(
  cli: CliContext,
  options: SessionOptions & {
    readonly run?: string | undefined;
    /** Instead of the backlog. */
    readonly template?: string | undefined;
    /** Its parameters, each `name=value`. */
    readonly param?: readonly string[];
  },
): Promise<number> {
  const place = await cli.project();
  const config = await loadConfig(place.file, place.directory);
  const id = options.run ?? defaultRunId(place.file);
  if (options.template !== undefined) {
    const call: TemplateCall = {
      ...{ template: options.template, id, params: paramsOf(options.param ?? []) },
      ...{ concurrency: config.concurrency, limits: config.limits },
    };
    return await Session.run(cli, place, config, options, async (session) => {
      await session.troupe.startWorkflow(call);
      session.requireAgents([id], config);
      return [id];
    });
  }
  if (config.tasks.length === 0) {
    throw new ValidationError(
      `${place.file} has no tasks: there is nothing to run. Add some under tasks.`,
    );
  }
  return await Session.run(cli, place, config, options, async (session) => {
    try {
      const workflow = workflowSpecOf(config, id);
      if (workflow === undefined) await session.troupe.start(runSpecOf(config, id));
      else await session.troupe.startWorkflow(workflow);
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error;
      const command = cli.commandFor(place);
      throw new ConflictError(
        [
          `The tasks in ${place.file} are not those that run ${id} was begun with (ids, agents, inputs, limits, patches and phases count).`,
          `  To go on with run ${id} as it was begun: ${command} resume`,
          `  To run the changed backlog as a run of its own: ${command} run --run ${id}-2`,
          `  To give up run ${id} first: ${command} cancel --run ${id}`,
        ].join('\n'),
        { cause: error },
      );
    }
    session.requireAgents([id], config);
    return [id];
  });
}

/** @throws {ValidationError} one is not `name=value` */
function paramsOf(given: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    given.map((text) => {
      const at = text.indexOf('=');
      if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
      throw new ValidationError(
        `Expected --param to be name=value, such as title="Dark mode", got ${JSON.stringify(text)}.`,
      );
    }),
  );
}

/**
 * `troupe resume [RUN]`: goes on with every run that has not ended, or with one. A pause ends for the run that is
 * meant: the one named, or the only one. With several and no name, those that are paused stay so.
 */
export async function resume(
  cli: CliContext,
  named: string | undefined,
  options: SessionOptions & {
    /** The cut to roll the run back to first: its label, the beginning of its id, `start` or `last`. */
    readonly from?: string | undefined;
    /** The task to go on with, whatever becomes of those it depends on: `TASK`, or `RUN/TASK`. */
    readonly skipTo?: string | undefined;
    readonly strand?: boolean;
  },
): Promise<number> {
  const place = await cli.project();
  const config = await loadConfig(place.file, place.directory);
  const { from, skipTo, strand = false } = options;
  if (named !== undefined) await chooseRun(cli, named, 'resume-task');
  const target = skipTo === undefined ? undefined : await skippedTo(place, named, skipTo);
  const only = named ?? target?.run;
  if (only !== undefined && from === undefined) await refuseEnded(cli, place, only);
  const skipFirst = async (perform: (order: Order) => Promise<OrderResult>): Promise<void> => {
    if (target === undefined) return;
    const order: Order = { order: 'skipTo', run: target.run, to: target.task, strand };
    const { skip } = await perform(order).catch((error: unknown) => {
      const command = `${cli.commandFor(place)} resume ${target.run} --skip-to ${target.task}`;
      throw inTermsOfTheCommand(error, command);
    });
    if (skip === undefined || options.json) return;
    for (const line of skipLines(cli, place, target, skip, 'did')) cli.stdout.line(line);
  };
  if (from === undefined && (await isActive(place))) {
    await skipFirst(async (order) => (await deliver(cli, place, order)).result);
    const paused = await pausedRun(place, only);
    // To the troupe that works on it, which need not be stopped for that.
    if (paused !== undefined) return await resumeRun(cli, paused, options);
    if (target !== undefined) {
      if (options.json) cli.stdout.raw(`${safeJson({ skippedTo: target, active: true })}\n`);
      return 0;
    }
  }
  return await Session.run(cli, place, config, options, async (session) => {
    const perform = (order: Order): Promise<OrderResult> =>
      performOrder(order, { troupe: session.troupe, agents: [] });
    if (only !== undefined && from !== undefined) {
      await perform({ order: 'rollback', run: only, to: from });
    }
    await skipFirst(perform);
    const unfinished = session.unfinished();
    const runs = only === undefined ? unfinished : [only];
    if (runs.length === 0 && !options.json) {
      cli.stdout.line('Every run has ended: there is nothing to go on with.');
    }
    session.requireAgents(runs, config);
    const [meant, ...others] = runs;
    if (meant !== undefined && others.length === 0 && session.isPaused(meant)) {
      await perform({ order: 'resumeRun', run: meant });
    }
    return runs;
  });
}

/** @throws {ConflictError} the run has ended */
export async function refuseEnded(
  cli: CliContext,
  place: ProjectPlace,
  named: string,
): Promise<void> {
  const { state, endedAt } = await readProject(place, (store) => requireRun(store, named));
  if (endedAt === null) return;
  const command = cli.commandFor(place);
  throw new ConflictError(
    [
      `Run ${named} has ended: it is ${state} since ${new Date(endedAt).toISOString()}. There is nothing to resume.`,
      `  To work the backlog off anew: ${command} run --run ${named}-2`,
      `  To go back to a moment of it: ${command} checkpoints ${named}, then ${command} rollback ${named} CUT`,
    ].join('\n'),
  );
}

/** Whether a troupe works on the project just now. */
async function isActive(place: ProjectPlace): Promise<boolean> {
  const connection = await connectControl(stateDirectoryOf(place.directory));
  connection?.close();
  return connection !== undefined;
}

/**
 * The paused run that is meant.
 * @throws {ValidationError} several are paused, and none was named
 */
async function pausedRun(
  place: ProjectPlace,
  named: string | undefined,
): Promise<string | undefined> {
  const paused = (await readProject(place, listRuns))
    .filter((entry) => entry.state === 'paused' && (named ?? entry.id) === entry.id)
    .map((entry) => entry.id);
  if (paused.length < 2) return paused[0];
  throw new ValidationError(`Several runs are paused: ${paused.join(', ')}. Name one.`);
}
