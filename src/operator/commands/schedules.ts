import { listSchedules, type ScheduleStatus } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { deliver } from '../deliver.ts';
import { notFound } from '../not-found.ts';
import { readProject } from '../stored-runs.ts';
import { safeJson } from '../terminal/text.ts';

/** `troupe schedules`: those of the project's store, which a program of the user's has made. */
export async function schedules(
  cli: CliContext,
  { json }: { readonly json: boolean },
): Promise<number> {
  const { stdout } = cli;
  const place = await cli.project();
  const all = await readProject(place, listSchedules);
  if (json) {
    stdout.raw(`${safeJson({ schedules: all })}\n`);
    return 0;
  }
  if (all.length === 0) {
    stdout.line('There are no schedules. A program makes them: troupe.schedule(id, when, what).');
  }
  for (const schedule of all) for (const line of linesOf(schedule)) stdout.line(line);
  return 0;
}

function* linesOf(schedule: ScheduleStatus): Generator<string> {
  const { id, state, timing, action, nextAt, last, running, queued, skipped, failure } = schedule;
  const when =
    'everyMs' in timing ? `every ${timing.everyMs} ms` : `${timing.cron} ${timing.timeZone}`;
  const what = 'send' in action ? `sends to ${action.send.to}` : `starts ${action.start.template}`;
  yield `${id}: ${state}, ${when}, ${what}`;
  if (nextAt !== null) yield `  next ${iso(nextAt)}`;
  if (last !== null) yield `  last ${iso(last.dueAt)} (${last.key}), ${schedule.fired} in all`;
  if (running.length > 0) yield `  not ended: ${running.join(', ')}; ${queued} wait`;
  if (skipped !== null)
    yield `  skipped ${iso(skipped.from)} to ${iso(skipped.to)}: ${skipped.reason}`;
  if (failure !== null) yield `  not started ${iso(failure.dueAt)}: ${failure.reason}`;
}

const iso = (ms: number): string => new Date(ms).toISOString();

/** `troupe schedules pause|resume|trigger ID`. */
export async function orderSchedule(
  cli: CliContext,
  act: 'pause' | 'resume' | 'trigger',
  id: string,
  { json }: { readonly json: boolean },
): Promise<number> {
  const { stdout } = cli;
  const place = await cli.project();
  const ids = (await readProject(place, listSchedules)).map((schedule) => schedule.id);
  if (!ids.includes(id)) throw notFound(`schedule ${id}`, id, ids, 'the schedules are');
  const { result, active } = await deliver(cli, place, { order: 'schedule', act, schedule: id });
  const { state, key } = result.schedule ?? { state: 'unknown' };
  if (json) stdout.raw(`${safeJson({ schedule: id, state, key: key ?? null, active })}\n`);
  else if (key !== undefined) {
    stdout.line(
      `Fired ${id}: ${key}.${active ? '' : ' A run of it starts with the next process.'}`,
    );
  } else stdout.line(`Schedule ${id} is ${state}.`);
  return 0;
}
