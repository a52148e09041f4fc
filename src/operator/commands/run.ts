import { ConflictError, ValidationError } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { runSpecOf } from '../compose.ts';
import { loadConfig } from '../config.ts';
import { defaultRunId } from '../project.ts';
import { Session, type SessionOptions } from '../session.ts';

/** `troupe run`: works off the backlog in troupe.yaml, or goes on with it. */
export async function run(
  cli: CliContext,
  options: SessionOptions & { readonly run?: string | undefined },
): Promise<number> {
  const place = await cli.project();
  const config = await loadConfig(place.file);
  const id = options.run ?? defaultRunId(place.file);
  if (config.tasks.length === 0) {
    throw new ValidationError(
      `${place.file} has no tasks: there is nothing to run. Add some under tasks.`,
    );
  }
  return await Session.run(cli, place, config, options, async (session) => {
    try {
      await session.troupe.start(runSpecOf(config, id));
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error;
      const command = cli.commandFor(place);
      throw new ConflictError(
        [
          `The tasks in ${place.file} are not those that run ${id} was begun with (ids, agents, inputs, limits and patches count).`,
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

/** `troupe resume`: goes on with every run that has not ended. */
export async function resume(cli: CliContext, options: SessionOptions): Promise<number> {
  const place = await cli.project();
  const config = await loadConfig(place.file);
  return await Session.run(cli, place, config, options, async (session) => {
    const runs = session.unfinished();
    if (runs.length === 0 && !options.json) {
      cli.stdout.line('Every run has ended: there is nothing to go on with.');
    }
    session.requireAgents(runs, config);
    return runs;
  });
}
