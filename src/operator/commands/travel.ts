import {
  type CheckpointDiff,
  type CheckpointInfo,
  type CutDiff,
  type CutInfo,
  type Difference,
  History,
  type JsonValue,
  NotFoundError,
  type TaskMove,
  ValidationError,
} from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { deliver } from '../deliver.ts';
import type { Order, OrderResult } from '../orders.ts';
import { quoted } from '../report.ts';
import { readProject, requireRun, requireTask } from '../stored-runs.ts';
import { lookOf } from '../terminal/task-style.ts';
import { cleanLine, formatWhen, type Line, safeJson, truncate } from '../terminal/text.ts';

/** What somebody means: a run, a task of one, or any actor by its address. */
type Target =
  | { readonly kind: 'run'; readonly run: string }
  | { readonly kind: 'task'; readonly run: string; readonly task: string; readonly address: string }
  | { readonly kind: 'actor'; readonly address: string };

interface Json {
  readonly json: boolean;
}

/** A value in a diff is shown up to this width. */
const VALUE_WIDTH = 60;

/** `troupe checkpoints NAME`: the moments to go back to. With `--make`, keeps one more of a run. */
export async function checkpoints(
  cli: CliContext,
  name: string,
  options: Json & {
    readonly last: number;
    readonly make?: string;
    readonly notes?: string;
  },
): Promise<number> {
  const { json, last, make, notes } = options;
  const target = await findTarget(cli, name);
  if (make !== undefined) {
    if (target.kind !== 'run') {
      throw new ValidationError(
        `Expected a run to keep a moment of, got ${describe(target)}: each of its turns is a checkpoint anyway.`,
      );
    }
    const order: Order = {
      order: 'keep',
      run: target.run,
      label: make,
      ...(notes === undefined ? {} : { notes }),
    };
    return await carryOut(cli, order, { json }, ({ cut }, command) => [
      `Kept run ${target.run} with its ${cut?.tasks} tasks as ${make} (${cut?.id}).`,
      `Back to it: ${command} rollback ${target.run} ${/^[\w.@:-]+$/.test(make) ? make : quoted(make)}`,
    ]);
  }
  const place = await cli.project();
  const now = Date.now();
  if (target.kind === 'run') {
    const all = await readProject(place, (store) => new History(store).cuts(target.run));
    const cuts = all.slice(-last);
    if (json) cli.stdout.raw(`${safeJson({ run: target.run, cuts })}\n`);
    else for (const cut of cuts) cli.stdout.line(cutLine(cut, now));
    return 0;
  }
  const found = await readProject(place, (store) =>
    new History(store).checkpoints(target.address, { last }),
  );
  if (json) cli.stdout.raw(`${safeJson({ address: target.address, checkpoints: found })}\n`);
  else for (const checkpoint of found) cli.stdout.line(checkpointLine(checkpoint, now));
  return 0;
}

/** `troupe rollback NAME TO`: a run, or one task of it. */
export async function rollback(
  cli: CliContext,
  name: string,
  to: string,
  { json, dryRun }: Json & { readonly dryRun: boolean },
): Promise<number> {
  const target = await findTarget(cli, name);
  if (target.kind === 'actor') throw notHere(target.address, 'rollback');
  if (dryRun) {
    if (target.kind === 'task') {
      throw new ValidationError(
        '--dry-run is for a run; what a task would become, "troupe diff" shows.',
      );
    }
    const place = await cli.project();
    const moves = await readProject(place, (store) => new History(store).moves(target.run, to));
    if (json) cli.stdout.raw(`${safeJson({ run: target.run, moves, dryRun: true })}\n`);
    else {
      cli.stdout.line(
        `Nothing was changed. A rollback of run ${target.run} to ${cleanLine(to)} would do this:`,
      );
      for (const line of moveLines(moves, 'would')) cli.stdout.line(line);
    }
    return 0;
  }
  const order: Order = {
    order: 'rollback',
    run: target.run,
    to,
    ...(target.kind === 'task' ? { only: target.task } : {}),
  };
  const what = target.kind === 'task' ? `Task ${target.task}` : `Run ${target.run}`;
  return await carryOut(cli, order, { json }, ({ moves = [] }, command) => [
    `${what} was rolled back to ${cleanLine(to)}. How it was is kept: ${command} checkpoints ${name}`,
    ...moveLines(moves, 'did'),
  ]);
}

/** `troupe fork RUN TO --as ID`. */
export async function fork(
  cli: CliContext,
  name: string,
  to: string,
  { json, as }: Json & { readonly as: string },
): Promise<number> {
  const target = await findTarget(cli, name);
  if (target.kind === 'actor') throw notHere(target.address, 'fork');
  if (target.kind === 'task') {
    throw new ValidationError(
      `Expected a run to fork, got ${describe(target)}. Fork its run: ${target.run}.`,
    );
  }
  const order: Order = { order: 'fork', run: target.run, to, as };
  return await carryOut(cli, order, { json }, ({ moves = [] }) => [
    `Run ${as} begins as what ${target.run} was at ${cleanLine(to)}:`,
    ...moveLines(moves, 'did'),
  ]);
}

/** `troupe diff NAME FROM TO`. */
export async function diff(
  cli: CliContext,
  name: string,
  from: string,
  to: string,
  { json }: Json,
): Promise<number> {
  const target = await findTarget(cli, name);
  const place = await cli.project();
  if (target.kind === 'run') {
    const { run } = target;
    const found = await readProject(place, (store) => new History(store).diffCuts(run, from, to));
    if (json) cli.stdout.raw(`${safeJson(found)}\n`);
    else for (const line of cutDiffLines(found)) cli.stdout.line(line);
    return 0;
  }
  const { address } = target;
  const found = await readProject(place, (store) => new History(store).diff(address, from, to));
  if (json) cli.stdout.raw(`${safeJson(found)}\n`);
  else for (const line of diffLines(found, '')) cli.stdout.line(line);
  return 0;
}

async function carryOut(
  cli: CliContext,
  order: Order,
  { json }: Json,
  inWords: (result: OrderResult, command: string) => readonly (string | Line)[],
): Promise<number> {
  const place = await cli.project();
  const { result, active } = await deliver(cli, place, order);
  if (json) {
    cli.stdout.raw(`${safeJson({ ...result, active })}\n`);
    return 0;
  }
  for (const line of inWords(result, cli.commandFor(place))) cli.stdout.line(line);
  const moves = result.tasks.some(({ state }) => !REST.has(state));
  if (!active && order.order !== 'keep' && moves) {
    cli.stdout.line(`Nothing runs now. It goes on with: ${cli.commandFor(place)} resume`);
  }
  return 0;
}

const REST: ReadonlySet<string> = new Set(['done', 'cancelled', 'blocked', 'paused']);

/** A run by its id, a task as `TASK` or `RUN/TASK`, any actor by its address. */
async function findTarget(cli: CliContext, name: string): Promise<Target> {
  const place = await cli.project();
  return await readProject(place, async (store): Promise<Target> => {
    const run = await requireRun(store, name).catch(ignoreMissing);
    if (run !== undefined) return { kind: 'run', run: run.id };
    const [kind = '', id = '', task] = name.split('/');
    if (kind === 'run' && task === undefined)
      return { kind: 'run', run: (await requireRun(store, id)).id };
    if (name.includes('/') && (await store.listActors({ kind })).some((a) => a.address === name)) {
      return kind === 'task' && task !== undefined
        ? { kind, run: id, task, address: name }
        : { kind: 'actor', address: name };
    }
    const found = await requireTask(store, name);
    return { kind: 'task', ...found, address: `task/${found.run}/${found.task}` };
  });
}

function ignoreMissing(error: unknown): undefined {
  if (error instanceof NotFoundError) return undefined;
  throw error;
}

const describe = (target: Target): string =>
  target.kind === 'run'
    ? `run ${target.run}`
    : target.kind === 'task'
      ? `task ${target.task}`
      : target.address;

function notHere(address: string, what: 'rollback' | 'fork'): ValidationError {
  return new ValidationError(
    `Expected a run or a task, got ${address}. The machine of an actor of your own is known to your program only: call troupe.${what}("${address}", …) there.`,
  );
}

// ── in words ───────────────────────────────────────────────────────────────────────────────────────────

function cutLine(cut: CutInfo, now: number): Line {
  return [
    { text: cut.id.slice(0, 8), style: 'cyan' },
    `  ${formatWhen(cut.at, now)}  ${cut.kind.padEnd(9)}  `,
    ...notedSpans(cut),
  ];
}

function checkpointLine(checkpoint: CheckpointInfo, now: number): Line {
  const { id, seq, at, kind, event, state, timers, effects } = checkpoint;
  const under = [
    ...(timers === 0 ? [] : [`${timers} ${timers === 1 ? 'timer' : 'timers'}`]),
    ...(effects === 0 ? [] : [`${effects} ${effects === 1 ? 'effect' : 'effects'}`]),
  ];
  return [
    `#${String(seq).padEnd(4)} `,
    { text: id.slice(0, 8), style: 'cyan' },
    `  ${formatWhen(at, now)}  ${kind.padEnd(9)}  ${shown(state)}`,
    ...(event === null ? [] : [{ text: `  after ${cleanLine(event)}`, style: 'dim' as const }]),
    ...(under.length === 0 ? [] : [{ text: `  with ${under.join(', ')}`, style: 'dim' as const }]),
    ...(checkpoint.label === null ? [] : ['  ']),
    ...notedSpans(checkpoint),
  ];
}

function notedSpans({ label, step, progress, notes }: CutInfo | CheckpointInfo): Line {
  return [
    ...(label === null ? [] : [{ text: cleanLine(label), style: 'bold' as const }]),
    ...(step === null ? [] : [` at ${cleanLine(step)}`]),
    ...(progress === null ? [] : [` ${progress} %`]),
    ...(notes === null ? [] : [{ text: ` ${shown(notes)}`, style: 'dim' as const }]),
  ];
}

function moveLines(moves: readonly TaskMove[], mood: 'would' | 'did'): readonly string[] {
  const again = mood === 'would' ? 'would begin again' : 'begins again';
  const changed = moves.filter(({ from, to, redoes }) => from !== to || redoes !== null);
  const same = moves.length - changed.length;
  const lines = changed.map(({ task, from, to, redoes, merged }) => {
    const { words } = lookOf(to);
    const path = from === null || from === to ? words : `${lookOf(from).words} → ${words}`;
    const redo = redoes === null ? '' : `; attempt ${redoes} ${again}`;
    const kept = merged === null ? '' : `; its merge ${merged.slice(0, 10)} stays`;
    return `  ${task}: ${path}${redo}${kept}`;
  });
  if (same > 0)
    lines.push(`  ${same} ${same === 1 ? 'task stays as it is' : 'tasks stay as they are'}`);
  return lines;
}

function cutDiffLines({ from, to, self, tasks }: CutDiff): readonly Line[] {
  const name = (cut: CutInfo): string => cleanLine(cut.label ?? cut.id.slice(0, 8));
  if (tasks.length === 0 && self === null) {
    return [[`Nothing differs between ${name(from)} and ${name(to)}.`]];
  }
  return [
    ...(self === null ? [] : [[{ text: 'run', style: 'bold' as const }], ...diffLines(self, '  ')]),
    ...tasks.flatMap(({ task, diff: of }) => [
      [{ text: `task ${task}`, style: 'bold' as const }],
      ...diffLines(of, '  '),
    ]),
  ];
}

function diffLines(found: CheckpointDiff, indent: string): readonly Line[] {
  const { fromState, toState, context, pending } = found;
  const [before, after] = [shown(fromState), shown(toState)];
  const lines: Line[] = [
    [`${indent}state: ${before === after ? before : `${before} → ${after}`}`],
    ...context.map((each) => differenceLine(each, indent)),
    ...pending.map((each) => differenceLine({ ...each, path: `pending.${each.path}` }, indent)),
  ];
  if (before === after && context.length + pending.length === 0) {
    lines.push([`${indent}nothing else differs`]);
  }
  return lines;
}

function differenceLine(each: Difference, indent: string): Line {
  const path = cleanLine(each.path);
  switch (each.kind) {
    case 'added':
      return [indent, { text: `+ ${path}: ${shown(each.to)}`, style: 'green' }];
    case 'removed':
      return [indent, { text: `- ${path}: ${shown(each.from)}`, style: 'red' }];
    case 'changed':
      return [
        indent,
        { text: `~ ${path}: ${shown(each.from)} → ${shown(each.to)}`, style: 'yellow' },
      ];
  }
}

const shown = (value: JsonValue): string =>
  truncate(cleanLine(typeof value === 'string' ? value : JSON.stringify(value)), VALUE_WIDTH);
