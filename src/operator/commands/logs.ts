import type { JsonValue, Store } from '../../index.ts';
import { NotFoundError } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { type ControlConnection, connectControl } from '../control/client.ts';
import { stateDirectoryOf } from '../state-directory.ts';
import { readProject, requireTask } from '../stored-runs.ts';
import { cleanBlock, formatTime, safeJson } from '../terminal/text.ts';

export interface LogsOptions {
  readonly stream: string;
  readonly from: number;
  readonly follow: boolean;
  /** Only with `follow`: one JSON object on a line. */
  readonly json: boolean;
}

/** Chunks read in one go. */
const PAGE = 200;
const ENDED = new Set(['done', 'cancelled']);

type StreamStore = Pick<Store, 'listStreams' | 'listStreamChunks' | 'listTasks'>;
type Chunk = Awaited<ReturnType<Store['listStreamChunks']>>[number];

/**
 * `troupe logs`: prints a stream of a task, and follows it. What is stored is read from the store; that there is more is
 * told over the control socket by the troupe that works on it.
 */
export async function logs(cli: CliContext, name: string, options: LogsOptions): Promise<number> {
  const place = await cli.project();
  return await readProject(place, async (store) => {
    const { run, task } = await requireTask(store, name);
    const address = `task/${run}/${task}`;
    const connection = options.follow
      ? await connectControl(stateDirectoryOf(place.directory))
      : undefined;
    const stop = new AbortController();
    const onSignal = (): void => stop.abort();
    process.once('SIGINT', onSignal);
    process.once('SIGTERM', onSignal);
    void cli.stdout.gone.then(onSignal);
    try {
      const news = await listen(connection, address, options.stream, stop.signal);
      let next = options.from;
      for (;;) {
        const woken = news.next();
        // Before the chunks: of a task that has ended there come no more.
        const isOver = await hasEnded(store, run, task, options.stream, next);
        const found = await printFrom(cli, store, address, next, options);
        next += found;
        if (found > 0) continue;
        if (!options.follow || isOver || news.isOver()) break;
        await woken;
      }
      if (!options.follow && next === options.from)
        await requireStream(store, address, options.stream);
      return 0;
    } finally {
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
      connection?.close();
    }
  });
}

/** @returns how many chunks it has printed */
async function printFrom(
  cli: CliContext,
  store: StreamStore,
  address: string,
  from: number,
  { stream: name, json }: LogsOptions,
): Promise<number> {
  const page = await store.listStreamChunks({ address, name, from, limit: PAGE });
  for (const chunk of page) print(cli, chunk, name, json);
  return page.length;
}

function print(cli: CliContext, chunk: Chunk, stream: string, json: boolean): void {
  const { offset, at, writer, epoch, seq, valueJson } = chunk;
  const value = JSON.parse(valueJson) as JsonValue;
  if (json) {
    cli.stdout.raw(`${safeJson({ offset, at, writer, epoch, seq, value }, 0)}\n`);
    return;
  }
  // The output of a command is shown as it was, less what would take over the terminal.
  if (stream === 'output' && typeof value === 'string') {
    // Line by line: of a whole block the empty lines at its end are left out, and here more may follow.
    const lines = value.split('\n').map((line) => cleanBlock(line).join('\n'));
    cli.stdout.raw(lines.join('\n'));
    return;
  }
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  for (const line of cleanBlock(text)) {
    cli.stdout.line([{ text: `${formatTime(at)}  `, style: 'dim' }, line]);
  }
}

interface News {
  /** Resolves when something has happened since the call. */
  next(): Promise<void>;
  /** Nobody tells any more. */
  isOver(): boolean;
}

/** Nothing is asked again and again: whoever works on it says when there is more. */
async function listen(
  connection: ControlConnection | undefined,
  address: string,
  stream: string,
  signal: AbortSignal,
): Promise<News> {
  let wake = (): void => undefined;
  let isOver = connection === undefined;
  const end = (): void => {
    isOver = true;
    wake();
  };
  signal.addEventListener('abort', end);
  if (connection !== undefined) {
    const { ended } = await connection.watch((event) => {
      const isAbout =
        event.type === 'stream'
          ? event.address === address && event.name === stream
          : event.type === 'task' && `task/${event.task.run}/${event.task.id}` === address;
      if (isAbout) wake();
    });
    void ended.then(end);
  }
  return {
    next: () =>
      new Promise((resolve) => {
        wake = resolve;
      }),
    isOver: () => isOver,
  };
}

async function hasEnded(
  store: StreamStore,
  run: string,
  task: string,
  name: string,
  next: number,
): Promise<boolean> {
  const [head] = await store.listStreams({ address: `task/${run}/${task}`, name });
  if (head !== undefined && head.closedAt !== null && head.next <= next) return true;
  const row = (await store.listTasks(run)).find((entry) => entry.task === task);
  return row !== undefined && ENDED.has(row.state);
}

/** @throws {NotFoundError} */
async function requireStream(store: StreamStore, address: string, name: string): Promise<void> {
  const streams = await store.listStreams({ address });
  if (streams.some((stream) => stream.name === name)) return;
  const names = streams.map((stream) => stream.name);
  throw new NotFoundError(
    `${address} has no stream "${name}" yet${names.length === 0 ? ', nor any other' : `; it has ${names.join(', ')}`}.`,
  );
}
