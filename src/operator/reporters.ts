import type { TaskState } from '../index.ts';
import type { RunEvent, RunsView, TaskView } from './run-view.ts';
import { type BoardEvent, renderBoard } from './terminal/board.ts';
import { LiveArea } from './terminal/live-area.ts';
import { lookOf, markOf } from './terminal/task-style.ts';
import type { Output } from './terminal/terminal.ts';
import { formatTime, type Line } from './terminal/text.ts';

/** Shows what happens while it happens. */
export interface Reporter {
  event(event: RunEvent): void;
  /** Something about the command itself: that it stops, for example. */
  say(text: string): void;
  /** The last word; nothing is shown after it. Idempotent. */
  end(): void;
}

/** @param runs whose board is drawn */
export function createReporter(
  output: Output,
  view: RunsView,
  runs: () => readonly string[],
): Reporter {
  return output.isLive ? new BoardReporter(output, view, runs) : new LineReporter(output, view);
}

/** Seen in the rows of the board anyway. */
const NOT_NEWS: ReadonlySet<TaskState> = new Set([
  'staged',
  'waiting',
  'ready',
  'preparing',
  'working',
  'verifying',
  'cancelling',
]);
const EVENTS_KEPT = 20;

class BoardReporter implements Reporter {
  readonly #area: LiveArea;
  readonly #events: BoardEvent[] = [];
  readonly #states = new Map<string, TaskState>();
  #footer: string | undefined;

  constructor(output: Output, view: RunsView, runs: () => readonly string[]) {
    this.#area = new LiveArea(output, () =>
      renderBoard(view, runs(), {
        width: output.columns - 1,
        // One line stays for the cursor: a board as high as the terminal would scroll.
        height: output.rows - 1,
        now: Date.now(),
        unicode: output.unicode,
        events: this.#events,
        ...(this.#footer === undefined ? {} : { footer: this.#footer }),
      }),
    );
  }

  event(event: RunEvent): void {
    if (event.type === 'task') {
      const { task } = event;
      const key = `${task.run}/${task.id}`;
      const isNew = this.#states.get(key) !== task.state;
      this.#states.set(key, task.state);
      if (isNew && !NOT_NEWS.has(task.state)) {
        this.#remember({ at: event.at, subject: task.id, state: task.state, text: detailOf(task) });
      }
    } else if (event.type === 'run' && event.run.state === 'paused') {
      const { id, reason } = event.run;
      this.#remember({ at: event.at, subject: `run ${id}`, state: 'paused', text: reason ?? '' });
    } else if (event.type === 'notice') {
      this.#remember({ at: event.at, subject: '', state: null, text: event.text });
    }
    this.#area.refresh();
  }

  say(text: string): void {
    this.#footer = text;
    this.#area.refresh();
  }

  end(): void {
    this.#area.close({ clear: true });
  }

  #remember(event: BoardEvent): void {
    this.#events.push(event);
    if (this.#events.length > EVENTS_KEPT) this.#events.shift();
  }
}

/** One line for every event: for pipes, logs and terminals that cannot move the cursor. */
export class LineReporter implements Reporter {
  readonly #output: Output;
  readonly #view: RunsView;
  readonly #states = new Map<string, TaskState>();

  constructor(output: Output, view: RunsView) {
    this.#output = output;
    this.#view = view;
  }

  event(event: RunEvent): void {
    const time = { text: `${formatTime(event.at)}  `, style: 'dim' } as const;
    if (event.type === 'task') {
      const { task } = event;
      const key = `${task.run}/${task.id}`;
      if (this.#states.get(key) === task.state) return;
      this.#states.set(key, task.state);
      const look = lookOf(task.state);
      const detail = detailOf(task);
      const name = this.#view.runs().length > 1 ? key : task.id;
      this.#output.line([
        time,
        name,
        { text: `  ${markOf(task.state, this.#output.unicode)} ${task.state}`, style: look.style },
        detail === '' ? '' : `  ${detail}`,
      ]);
    } else if (event.type === 'run') {
      // That a run stands still may be over in a moment, and the summary says it when it lasts.
      if (event.run.state === 'blocked' || event.run.state === 'running') return;
      if (event.run.state === 'done') return;
      this.#output.line([
        time,
        `run ${event.run.id}  ${event.run.state}`,
        reasonOf(event.run.reason),
      ]);
    } else if (event.type === 'notice') this.#output.line([time, event.text]);
  }

  say(text: string): void {
    const line: Line = [{ text, style: 'yellow' }];
    this.#output.line(line);
  }

  end(): void {
    // Every line is out already.
  }
}

const reasonOf = (reason: string | null): string => (reason === null ? '' : `  ${reason}`);

/** What of a task is worth saying in the state it came to. */
function detailOf(task: TaskView): string {
  switch (task.state) {
    case 'done':
      return task.commit === null ? '' : `merged as ${task.commit.slice(0, 10)}`;
    case 'preparing':
    case 'working':
      return `attempt ${task.attempts}, ${task.agent}`;
    case 'fixing':
      return `${task.agent}  ${task.reason ?? ''}`;
    case 'waiting':
      return task.dependsOn.length === 0 ? '' : `for ${task.dependsOn.join(', ')}`;
    default:
      return task.reason ?? '';
  }
}
