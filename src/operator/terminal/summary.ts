import { describeProgress, type PhaseStatus, phaseOf } from '../../index.ts';
import type { RunReport } from '../report.ts';
import type { TaskView } from '../run-view.ts';
import { countTasks } from './task-counts.ts';
import { lookOf, markOf } from './task-style.ts';
import {
  cleanLine,
  displayWidth,
  formatDuration,
  type Line,
  pad,
  type Span,
  type Style,
  truncate,
  wrap,
} from './text.ts';

export interface SummaryOptions {
  /** Cells; infinite when the output is not a terminal: then nothing is cut. */
  readonly width: number;
  readonly unicode: boolean;
  readonly now: number;
  /** `troupe resume`, or nothing when a troupe runs. */
  readonly goOn?: string;
}

/** How a run ended or stands: one line, the table of its tasks, and what it waits for with the commands to go on. */
export function renderSummary(report: RunReport, options: SummaryOptions): Line[] {
  const needs = needLines(report, options);
  return [
    headline(report, options),
    ...phaseTable(report.phases ?? [], options),
    ...taskTable(report.tasks, options),
    ...(needs.length === 0 ? [] : [[], ...needs]),
    ...(report.resume === null
      ? []
      : [
          [],
          [
            `${cleanLine(report.reason ?? 'It is paused.')} Nothing new starts until: `,
            { text: report.resume, style: 'cyan' } as const,
          ],
        ]),
  ];
}

const STATE_STYLES: Readonly<Partial<Record<RunReport['state'], Style>>> = {
  done: 'green',
  blocked: 'red',
  paused: 'yellow',
  cancelled: 'dim',
};

function headline(report: RunReport, { unicode, now }: SummaryOptions): Line {
  const parts = countTasks(report.tasks).map(({ count, words }) => `${count} ${words}`);
  const style = STATE_STYLES[report.state];
  const took = formatDuration((report.endedAt ?? now) - report.createdAt);
  return [
    { text: `Run ${report.run}: `, style: 'bold' },
    style === undefined ? report.state : { text: report.state, style },
    {
      text: `${unicode ? ' · ' : ' - '}${parts.join(', ')}${unicode ? ' · ' : ' - '}${took}`,
      style: 'dim',
    },
  ];
}

const PHASE_STYLES: Readonly<Partial<Record<PhaseStatus['state'], Style>>> = {
  done: 'green',
  running: 'cyan',
  blocked: 'red',
};

/** One line for each phase of a workflow: name, state, how many tasks are done, and its time. */
function phaseTable(
  phases: readonly PhaseStatus[],
  { width, unicode, now }: SummaryOptions,
): Line[] {
  const nameWidth = Math.max(0, ...phases.map(({ id }) => displayWidth(cleanLine(id))));
  return phases.map((phase): Line => {
    const { state, counts, total, budgetMs, dueAt, usedUpAt, openedAt, endedAt, held } = phase;
    const style = PHASE_STYLES[state] ?? 'dim';
    const notes = [`${counts.done ?? 0} of ${total} done`];
    if (openedAt !== null) notes.push(formatDuration((endedAt ?? now) - openedAt));
    if (usedUpAt !== null) notes.push(`its time (${formatDuration(budgetMs ?? 0)}) is used up`);
    else if (dueAt !== null) notes.push(`${formatDuration(Math.max(0, dueAt - now))} left`);
    if (held) notes.push(`held because of ${phase.failed.join(', ')}`);
    const text = cleanLine(notes.join(unicode ? ' · ' : ' - '));
    const used = 11 + nameWidth + 2 + 9 + 2;
    return [
      { text: '  phase    ', style: 'dim' },
      pad(cleanLine(phase.id), nameWidth),
      { text: `  ${pad(state, 9)}  `, style },
      { text: truncate(text, Math.max(0, width - used), unicode ? '…' : '~'), style: 'dim' },
    ];
  });
}

/** One line for each task: mark, name, state, attempts, merge commit or reason, evidence. */
function taskTable(tasks: readonly TaskView[], { width, unicode }: SummaryOptions): Line[] {
  if (tasks.length === 0) return [];
  const ellipsis = unicode ? '…' : '~';
  const names = tasks.map((task) => cleanLine(task.id));
  const nameWidth = Math.min(
    Math.max(...names.map(displayWidth)),
    Number.isFinite(width) ? Math.max(12, Math.floor(width / 3)) : 64,
  );
  const stateWidth = Math.max(...tasks.map((task) => lookOf(task.state).words.length));
  const lines: Line[] = [];
  for (const [index, task] of tasks.entries()) {
    const look = lookOf(task.state);
    const start: Span[] = [
      { text: `  ${markOf(task.state, unicode)} `, style: look.style },
      pad(truncate(names[index] ?? '', nameWidth, ellipsis), nameWidth),
      { text: `  ${pad(look.words, stateWidth)}`, style: look.style },
      {
        text: `  ${pad(task.attempts === 0 ? '-' : String(task.attempts), 2, 'right')}  `,
        style: 'dim',
      },
    ];
    const used = 4 + nameWidth + 2 + stateWidth + 2 + Math.max(2, String(task.attempts).length) + 2;
    const result = cleanLine(resultOf(task));
    const evidence = task.evidence === null ? '' : cleanLine(task.evidence);
    if (evidence === '') {
      lines.push([...start, truncate(result, Math.max(0, width - used), ellipsis)]);
    } else if (used + displayWidth(result) + 2 + displayWidth(evidence) <= width) {
      lines.push([...start, result, { text: `  ${evidence}`, style: 'dim' }]);
    } else {
      lines.push([...start, truncate(result, Math.max(0, width - used), ellipsis)]);
      // On a line of its own and whole: a path that is cut cannot be opened.
      lines.push([{ text: `      ${evidence}`, style: 'dim' }]);
    }
  }
  return lines;
}

function resultOf(task: TaskView): string {
  if (task.state === 'done') return task.commit === null ? '' : task.commit.slice(0, 10);
  if (task.state === 'waiting' && task.dependsOn.length > 0) {
    return `waits for ${task.dependsOn.join(', ')}`;
  }
  if (task.reason === null && task.progress !== undefined && phaseOf(task.state) === 'active') {
    return describeProgress(task.progress);
  }
  return task.reason ?? '';
}

function needLines(report: RunReport, options: SummaryOptions): Line[] {
  const { width, unicode, goOn } = options;
  if (report.needs.length === 0) return [];
  const lines: Line[] = [[{ text: 'It waits for you:', style: 'bold' }]];
  for (const need of report.needs) {
    const look = lookOf(need.state);
    lines.push([
      { text: `  ${markOf(need.state, unicode)} `, style: look.style },
      { text: need.task, style: 'bold' },
      { text: `  ${look.words}`, style: look.style },
    ]);
    const reason = cleanLine(need.reason ?? '');
    if (reason !== '') {
      const room = Number.isFinite(width) ? Math.max(20, width - 4) : Number.POSITIVE_INFINITY;
      for (const line of wrap(reason, room)) lines.push([`    ${line}`]);
    }
    if (need.choices !== undefined) lines.push([`    choices: ${need.choices.join(', ')}`]);
    for (const command of need.commands) {
      lines.push([
        { text: `      ${unicode ? command : command.replaceAll('…', '...')}`, style: 'cyan' },
      ]);
    }
  }
  if (report.transient !== undefined) {
    const { count, command } = report.transient;
    lines.push([
      `  ${count} of them were stopped by infrastructure. When that is mended: `,
      { text: command, style: 'cyan' },
    ]);
  }
  if (goOn !== undefined && report.resume === null)
    lines.push(['Then go on: ', { text: goOn, style: 'cyan' }]);
  return lines;
}
