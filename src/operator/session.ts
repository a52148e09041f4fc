import { ConfigurationError, LockConflictError, type Store, type Troupe } from '../index.ts';
import type { CliContext } from './cli-context.ts';
import { type Composition, composeTroupe } from './compose.ts';
import type { ProjectConfig } from './config.ts';
import { ControlServer } from './control/server.ts';
import { Interrupt } from './interrupt.ts';
import { type LogFile, openLogFile } from './log-file.ts';
import { performOrder } from './orders.ts';
import type { ProjectPlace } from './project.ts';
import {
  type CommandNames,
  exitCodeOf,
  type RunReport,
  reportOf,
  worstExitCode,
} from './report.ts';
import { createReporter, LineReporter, type Reporter } from './reporters.ts';
import { RunObserver } from './run-observer.ts';
import { prepareStateDirectory } from './state-directory.ts';
import { renderSummary } from './terminal/summary.ts';
import { formatDuration, safeJson } from './terminal/text.ts';

const ENDED_AT_ONCE =
  'Ended at once. Nothing that was stored is lost; an agent that still runs is ended by the next troupe here.';

/** What is being cancelled needs its agent no more. */
const OVER: ReadonlySet<string> = new Set(['done', 'cancelling', 'cancelled']);

export interface SessionOptions {
  readonly json: boolean;
  /** How long running agents may go on after the first Ctrl-C. */
  readonly graceMs: number;
  /** Take the project from a process that seems to live and shows no sign of it. */
  readonly takeOver: boolean;
}

/**
 * The process that works on a project: it holds the store, shows what happens, takes orders over the control socket,
 * and ends when its runs have come to rest or it is told to.
 */
export class Session {
  readonly troupe: Troupe;
  readonly store: Store;
  readonly #cli: CliContext;
  readonly #place: ProjectPlace;
  readonly #options: SessionOptions;
  readonly #observer: RunObserver;
  readonly #server: ControlServer;
  readonly #interrupt: Interrupt;
  readonly #log: LogFile;

  private constructor(parts: SessionParts) {
    this.troupe = parts.composition.troupe;
    this.store = parts.composition.store;
    this.#cli = parts.cli;
    this.#place = parts.place;
    this.#options = parts.options;
    this.#observer = parts.observer;
    this.#server = parts.server;
    this.#interrupt = parts.interrupt;
    this.#log = parts.log;
  }

  /**
   * Opens a project, lets `work` choose the runs to see through, and closes it again, whatever happens.
   * @returns the exit code
   * @throws {LockConflictError} another process works on the project
   */
  static async run(
    cli: CliContext,
    place: ProjectPlace,
    config: ProjectConfig,
    options: SessionOptions,
    work: (session: Session) => Promise<readonly string[]>,
  ): Promise<number> {
    const stateDirectory = await prepareStateDirectory(place.directory);
    let notify = (_text: string): void => undefined;
    const log = await openLogFile(
      stateDirectory,
      (text) => notify(text),
      cli.env['TROUPE_LOG_LEVEL'],
    );
    const interrupt = new Interrupt((exitCode) => {
      cli.stderr.line(ENDED_AT_ONCE);
      process.exit(exitCode);
    });
    let composition: Composition | undefined;
    let observer: RunObserver | undefined;
    let server: ControlServer | undefined;
    try {
      composition = await composeTroupe(config, {
        logger: log.logger,
        takeOver: options.takeOver,
      }).catch((error: unknown) => {
        if (!(error instanceof LockConflictError)) throw error;
        const command = cli.commandFor(place);
        throw new LockConflictError(
          `${error.message}\nTo look on: ${command} status --watch. To stop it: Ctrl-C in its terminal.`,
          { cause: error, context: error.context },
        );
      });
      const { troupe, store } = composition;
      for (const note of await troupe.projectNotes()) cli.stderr.line(`troupe: note: ${note}`);
      observer = await RunObserver.start(troupe, store);
      const { view } = observer;
      const onEvent = observer.onEvent.bind(observer);
      notify = (text) => observer?.notice(text);
      server = await ControlServer.listen(stateDirectory, {
        perform: (order) =>
          performOrder(order, { troupe, agents: config.agents.map(({ name }) => name) }),
        snapshot: () => ({
          runs: view.runs(),
          tasks: view.runs().flatMap((run) => view.tasks(run.id)),
          flow: troupe.flow(),
        }),
        subscribe: onEvent,
      });
      const session = new Session({
        ...{ cli, place, options, composition, observer, server, interrupt, log },
      });
      return await session.#seeThrough(await work(session));
    } finally {
      try {
        // As long as the store is ours: whoever has it next listens at the same place.
        await server?.stopListening();
      } finally {
        // After an error nothing is waited for; after a proper end it has stopped already.
        await composition?.troupe.stop();
      }
      observer?.close();
      await server?.close();
      interrupt.dispose();
      log.close();
    }
  }

  /** What the runs that the caller asked about are called in the commands we suggest. */
  get #names(): CommandNames {
    return {
      command: this.#cli.commandFor(this.#place),
      qualified: this.#observer.view.runs().length > 1,
    };
  }

  /**
   * Refuses runs with tasks for agents that do not exist (any more): they would wait for ever.
   * @throws {ConfigurationError}
   */
  requireAgents(runs: readonly string[], config: ProjectConfig): void {
    const known = new Set(config.agents.map(({ name }) => name));
    for (const run of runs) {
      const orphans = this.#observer.view
        .tasks(run)
        .filter((task) => !OVER.has(task.state) && !known.has(task.agent));
      const [first] = orphans;
      if (first === undefined) continue;
      const { command } = this.#names;
      throw new ConfigurationError(
        `Task ${first.id} of run ${run}${orphans.length > 1 ? ` and ${orphans.length - 1} more are` : ' is'} for the agent ${first.agent}, which ${this.#place.file} does not have. Add it under agents, or cancel the task: ${command} cancel ${run}/${first.id}.`,
      );
    }
  }

  /** Unfinished runs, oldest first. */
  unfinished(): readonly string[] {
    return this.#observer.view
      .runs()
      .filter((run) => run.endedAt === null)
      .map((run) => run.id);
  }

  isPaused(run: string): boolean {
    return this.#observer.view.run(run)?.state === 'paused';
  }

  async #seeThrough(runs: readonly string[]): Promise<number> {
    const { view } = this.#observer;
    for (const run of runs) if (view.run(run) === undefined) await this.#observer.load(run);
    const reporter: Reporter = this.#options.json
      ? new LineReporter(this.#cli.stderr, view)
      : createReporter(this.#cli.stdout, view, () => runs);
    const endedBefore = runs.filter((run) => (view.run(run)?.endedAt ?? null) !== null);
    this.#announce(runs, reporter);
    const off = this.#observer.onEvent((event) => reporter.event(event));
    try {
      const settled = this.#observer.untilSettled(runs).then(() => 'settled' as const);
      const end = await Promise.race([settled, this.#interrupt.first]);
      await this.#stop(end !== 'settled', reporter);
    } finally {
      off();
      reporter.end();
    }
    return this.#conclude(runs, endedBefore);
  }

  #announce(runs: readonly string[], reporter: Reporter): void {
    for (const id of runs) {
      if (!this.isPaused(id)) continue;
      reporter.say(
        `Run ${id} stays paused: what was begun goes on to an end, nothing new starts. To let it go on: ${this.#names.command} resume ${id}`,
      );
    }
    if (this.#cli.stdout.isLive && !this.#options.json) return;
    for (const id of runs) {
      if (this.#observer.view.run(id)?.endedAt !== null || this.isPaused(id)) continue;
      const tasks = this.#observer.view.tasks(id);
      const done = tasks.filter((task) => task.state === 'done').length;
      const begun = tasks.some((task) => task.attempts > 0);
      reporter.say(
        begun
          ? `Going on with run ${id}: ${done} of ${tasks.length} tasks are done.`
          : `Run ${id}: ${tasks.length} ${tasks.length === 1 ? 'task' : 'tasks'}.`,
      );
    }
  }

  async #stop(interrupted: boolean, reporter: Reporter): Promise<void> {
    const { graceMs } = this.#options;
    await this.#server.stopListening();
    const stopped = this.troupe.stop({ drain: true, graceMs });
    if (interrupted) {
      reporter.say(
        `Stopping: what runs may finish within ${formatDuration(graceMs)}. Ctrl-C again aborts it; nothing is lost.`,
      );
    }
    const second = this.#interrupt.second.then(() => 'second' as const);
    if ((await Promise.race([stopped, second])) !== 'second') return;
    reporter.say('Aborting what runs. Ctrl-C once more ends this process at once.');
    await this.troupe.stop({ drain: false });
  }

  #conclude(runs: readonly string[], endedBefore: readonly string[]): number {
    const { stdout } = this.#cli;
    const names = this.#names;
    const reports = runs.flatMap((id): RunReport[] => {
      const run = this.#observer.view.run(id);
      return run === undefined ? [] : [reportOf(run, this.#observer.view.tasks(id), names)];
    });
    const rest = runs.every((run) => this.#observer.isSettled(run));
    const signal = rest ? undefined : this.#interrupt.signal;
    const exitCode =
      signal === undefined ? worstExitCode(reports.map(exitCodeOf)) : this.#interrupt.exitCode;
    if (this.#options.json) {
      stdout.raw(`${safeJson({ runs: reports, interrupted: signal ?? null, exitCode })}\n`);
      return exitCode;
    }
    for (const report of reports) {
      stdout.line();
      const lines = renderSummary(report, {
        width: stdout.isLive ? stdout.columns : Number.POSITIVE_INFINITY,
        unicode: stdout.unicode,
        now: Date.now(),
        goOn: `${names.command} resume`,
      });
      for (const line of lines) stdout.line(line);
    }
    for (const run of endedBefore) {
      stdout.line(
        `It had ended before, so nothing was done. To work it off anew: ${names.command} run --run ${run}-2`,
      );
    }
    if (signal !== undefined) {
      stdout.line();
      stdout.line(['Interrupted. Go on: ', { text: `${names.command} resume`, style: 'cyan' }]);
    }
    return exitCode;
  }
}

interface SessionParts {
  readonly cli: CliContext;
  readonly place: ProjectPlace;
  readonly options: SessionOptions;
  readonly composition: Composition;
  readonly observer: RunObserver;
  readonly server: ControlServer;
  readonly interrupt: Interrupt;
  readonly log: LogFile;
}
