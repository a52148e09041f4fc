import { phaseOf, type TaskState } from '../../index.ts';
import type { RunsView, RunView, TaskView } from '../run-view.ts';
import { countTasks, isUnderWay } from './task-counts.ts';
import { lookOf, markOf } from './task-style.ts';
import {
  cleanLine,
  displayWidth,
  formatDuration,
  formatTime,
  type Line,
  pad,
  type Span,
  truncate,
} from './text.ts';

/** Something that happened, for the list of the last ones. */
export interface BoardEvent {
  readonly at: number;
  /** The task, or empty. */
  readonly subject: string;
  readonly state: TaskState | null;
  readonly text: string;
}

export interface BoardOptions {
  /** Cells. */
  readonly width: number;
  /** Lines; the board is never longer. */
  readonly height: number;
  readonly now: number;
  readonly unicode: boolean;
  /** Newest last. */
  readonly events: readonly BoardEvent[];
  /** Said below everything else: that it stops, for example. */
  readonly footer?: string;
}

const MAX_EVENTS = 6;
const BAR = 24;

/**
 * The board of some runs: how far they are, what runs now, who is waited for, what happened last. Pure; at most
 * `height` lines of at most `width` cells each. With little room the events go first, then the tasks that wait.
 */
export function renderBoard(
  view: RunsView,
  runs: readonly string[],
  options: BoardOptions,
): Line[] {
  const { height, footer } = options;
  const shown = runs.flatMap((id) => view.run(id) ?? []);
  const several = shown.length > 1;
  const head = shown.flatMap((run) => headOf(run, view.tasks(run.id), options));
  const tail: Line[] = footer === undefined ? [] : [[{ text: footer, style: 'yellow' }]];
  const tasks = shown.flatMap((run) => view.tasks(run.id));
  const active = tasks.filter((task) => isUnderWay(task));
  const stuck = tasks.filter((task) => ['person', 'stuck'].includes(phaseOf(task.state)));
  const delayed = tasks.filter((task) => phaseOf(task.state) === 'delayed');

  const rows = [...active, ...stuck, ...delayed];
  const room = height - head.length - tail.length;
  const body: Line[] = [];
  if (rows.length > 0 && room > 1) {
    const lines = rows.slice(0, rows.length > room - 1 ? Math.max(0, room - 2) : rows.length);
    body.push([]);
    body.push(...taskRows(lines, view, several, options));
    const hidden = rows.length - lines.length;
    if (hidden > 0) body.push([{ text: `  and ${hidden} more`, style: 'dim' }]);
  }
  const left = room - body.length - 1;
  const events = options.events.slice(-Math.min(MAX_EVENTS, Math.max(0, left)));
  if (events.length > 0) {
    body.push([]);
    for (const event of events) body.push(eventLine(event, options.unicode));
  }
  return [...head, ...body, ...tail].slice(0, Math.max(1, height));
}

function headOf(run: RunView, tasks: readonly TaskView[], options: BoardOptions): Line[] {
  const { now, unicode } = options;
  const dot = unicode ? ' · ' : ' - ';
  const elapsed = formatDuration((run.endedAt ?? now) - run.createdAt);
  const title = run.title === run.id ? '' : `${dot}${run.title}`;
  const total = run.total;
  const ended = tasks.filter((task) => ['done', 'cancelled'].includes(task.state)).length;
  const filled = total === 0 ? 0 : Math.floor((ended / total) * BAR);
  const spans: Span[] = [
    { text: (unicode ? '█' : '#').repeat(filled), style: 'green' },
    { text: (unicode ? '░' : '.').repeat(BAR - filled), style: 'dim' },
  ];
  for (const [index, { count, words, style }] of countTasks(tasks).entries()) {
    spans.push(index === 0 ? '  ' : dot, { text: `${count} ${words}`, style });
  }
  return [
    [
      { text: `Run ${run.id}`, style: 'bold' },
      {
        text: `${title}${dot}${total} ${total === 1 ? 'task' : 'tasks'}${dot}${run.state}${dot}${elapsed}`,
        style: 'dim',
      },
    ],
    spans,
  ];
}

function taskRows(
  tasks: readonly TaskView[],
  view: RunsView,
  several: boolean,
  { width, now, unicode }: BoardOptions,
): Line[] {
  const name = (task: TaskView): string => cleanLine(several ? `${task.run}/${task.id}` : task.id);
  const nameWidth = Math.min(
    Math.max(...tasks.map((task) => displayWidth(name(task)))),
    Math.max(12, Math.floor(width / 3)),
  );
  const stateWidth = Math.max(...tasks.map((task) => lookOf(task.state).words.length));
  return tasks.map((task) => {
    const look = lookOf(task.state);
    const underWay = isUnderWay(task);
    const said = view.doing(task.run, task.id);
    const working = said === undefined ? task.agent : `${task.agent}  ${cleanLine(said)}`;
    const doing = task.state === 'verifying' ? said : working;
    const what = underWay ? (doing ?? '') : (task.reason ?? '');
    const attempt = task.attempts > 1 || !underWay ? `#${task.attempts}` : '';
    return [
      { text: `  ${markOf(task.state, unicode)} `, style: look.style },
      pad(truncate(name(task), nameWidth, unicode ? '…' : '~'), nameWidth),
      { text: `  ${pad(look.words, stateWidth)}`, style: look.style },
      {
        text: ` ${pad(attempt, 3, 'right')} ${pad(formatDuration(now - task.since), 6, 'right')}`,
        style: 'dim',
      },
      `  ${what}`,
    ];
  });
}

function eventLine(event: BoardEvent, unicode: boolean): Line {
  const { at, subject, state, text } = event;
  const spans: Span[] = [{ text: `  ${formatTime(at)}  `, style: 'dim' }];
  if (subject !== '') spans.push(subject, '  ');
  if (state !== null) {
    spans.push({
      text: `${markOf(state, unicode)} ${lookOf(state).words}`,
      style: lookOf(state).style,
    });
  }
  if (text !== '') spans.push({ text: state === null ? text : `  ${text}`, style: 'dim' });
  return spans;
}
