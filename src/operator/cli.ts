import { readFileSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { CliContext } from './cli-context.ts';
import type { AuditFlags } from './commands/audit.ts';
import { type Environment, Output, type OutputStream } from './terminal/terminal.ts';
import { cleanBlock } from './terminal/text.ts';

/** What the command is called with; everything else it finds in the project. */
export interface CliOptions {
  /** Without the program: `['run', '--json']`. */
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly env: Environment;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
}

/**
 * The `troupe` command. Prints what there is to say and never throws.
 * @returns the exit code: 0, or one of `EXIT_CODES`, or 130 and 143 when it was interrupted
 */
export async function runCli({ argv, cwd, env, stdout, stderr }: CliOptions): Promise<number> {
  const cli = new CliContext(
    cwd,
    env,
    new Output(stdout, env, process.platform),
    new Output(stderr, env, process.platform),
  );
  let exitCode = 0;
  const program = commandLine(cli, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync([...argv], { from: 'user' });
    await new Promise((resolve) => setImmediate(resolve));
    const { failure } = cli.stdout;
    if (exitCode !== 0 || failure === undefined) return exitCode;
    const { explain } = await import('./explain.ts');
    return explain(await notWritten(failure), cli, false);
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has said it. Its own exit code for every mistake is 1.
      return error.exitCode === 0 ? 0 : (await import('../index.ts')).EXIT_CODES.validation;
    }
    const { explain } = await import('./explain.ts');
    return explain(error, cli, argv.includes('--json'));
  }
}

async function notWritten(failure: Error): Promise<Error> {
  const { TroupeError } = await import('../index.ts');
  return new TroupeError(
    'unavailable',
    `Could not write the output: ${failure.message}. What was to be done is done; only what was to be shown of it is cut off. Make room, and look at it with "troupe status".`,
    { cause: failure },
  );
}

/**
 * A command that is loaded when it is called: most need little of what `run` works with, `--help` and a mistake in the
 * words nothing at all.
 */
const loaded =
  <Args extends unknown[]>(load: () => Promise<(...args: Args) => Promise<number>>) =>
  async (...args: Args): Promise<number> =>
    await (await load())(...args);

const actors = loaded(async () => (await import('./commands/actors.ts')).actors);
const audit = loaded(async () => (await import('./commands/audit.ts')).audit);
const resetBreaker = loaded(async () => (await import('./commands/breakers.ts')).resetBreaker);
const check = loaded(async () => (await import('./commands/check.ts')).check);
const doctor = loaded(async () => (await import('./commands/doctor.ts')).doctor);
const exportRuns = loaded(async () => (await import('./commands/export.ts')).exportRuns);
const flow = loaded(async () => (await import('./commands/flow.ts')).flow);
const init = loaded(async () => (await import('./commands/init.ts')).init);
const logs = loaded(async () => (await import('./commands/logs.ts')).logs);
const cancelRun = loaded(async () => (await import('./commands/order.ts')).cancelRun);
const enqueue = loaded(async () => (await import('./commands/order.ts')).enqueue);
const orderTask = loaded(async () => (await import('./commands/order.ts')).orderTask);
const pauseRun = loaded(async () => (await import('./commands/order.ts')).pauseRun);
const regress = loaded(async () => (await import('./commands/order.ts')).regress);
const unblockAll = loaded(async () => (await import('./commands/order.ts')).unblockAll);
const plan = loaded(async () => (await import('./commands/plan.ts')).plan);
const query = loaded(async () => (await import('./commands/query.ts')).query);
const reencrypt = loaded(async () => (await import('./commands/reencrypt.ts')).reencrypt);
const resume = loaded(async () => (await import('./commands/run.ts')).resume);
const run = loaded(async () => (await import('./commands/run.ts')).run);
const orderSchedule = loaded(async () => (await import('./commands/schedules.ts')).orderSchedule);
const schedules = loaded(async () => (await import('./commands/schedules.ts')).schedules);
const show = loaded(async () => (await import('./commands/show.ts')).show);
const status = loaded(async () => (await import('./commands/status.ts')).status);
const backup = loaded(async () => (await import('./commands/store.ts')).backup);
const du = loaded(async () => (await import('./commands/store.ts')).du);
const prune = loaded(async () => (await import('./commands/store.ts')).prune);
const checkpoints = loaded(async () => (await import('./commands/travel.ts')).checkpoints);
const diff = loaded(async () => (await import('./commands/travel.ts')).diff);
const fork = loaded(async () => (await import('./commands/travel.ts')).fork);
const rollback = loaded(async () => (await import('./commands/travel.ts')).rollback);

const EXAMPLES = `
Examples:
  $ troupe init                                  write a first troupe.yaml
  $ troupe run                                   work off its tasks
  $ troupe status --watch                        look on from another terminal
  $ troupe show parser                           what was tried, and why it failed
  $ troupe retry parser --guidance "keep the old signature"
  $ troupe answer release "yes"                  answer what a task asks
  $ troupe unblock --all --transient             after the disk was full
  $ troupe resume                                go on after Ctrl-C, a crash or "troupe pause"

Exit codes: 0 all done, 20 wrong usage, 21 not found, 22 conflict or cancelled, 23 another troupe works here,
30 a task is blocked or escalated, 31 only answers or approvals are missing, 41 configuration, 42 unexpected,
130 and 143 interrupted.`;

function commandLine(cli: CliContext, done: (exitCode: number) => void): Command {
  const program = new Command('troupe')
    .description('Works off a backlog of tasks with agents, and merges only what was verified.')
    .version(version(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand('help [command]', 'print the help of a command')
    .option('-f, --file <file>', 'the project: its troupe.yaml (default: the nearest one)')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => cli.stdout.raw(text),
      writeErr: (text) => cli.stderr.raw(text),
      outputError: (text, write) => {
        for (const line of cleanBlock(text)) write(`${line.replace(/^error: /, 'troupe: ')}\n`);
      },
      getOutHelpWidth: () => (cli.stdout.isLive ? cli.stdout.columns : 100),
      getErrHelpWidth: () => (cli.stderr.isLive ? cli.stderr.columns : 100),
      getOutHasColors: () => cli.stdout.color,
      getErrHasColors: () => cli.stderr.color,
    })
    .addHelpText('after', EXAMPLES)
    .exitOverride()
    // What follows a command is its own: there -f may mean something else.
    .enablePositionalOptions()
    .hook('preAction', (_program, called) => {
      const { file } = called.opts<{ file?: string }>();
      cli.file = file ?? program.opts<{ file?: string }>().file;
    });
  const command = (usage: string, description: string, file = '-f, --file <file>'): Command =>
    program
      .command(usage)
      .description(description)
      // Listed among the options of all commands.
      .addOption(new Option(file).hideHelp());
  const json = ['--json', 'print one JSON object, and nothing else', false] as const;
  const grace = [
    '--grace <time>',
    'after Ctrl-C, how long running agents may go on',
    parseDuration,
    30_000,
  ] as const;

  const takeOver = [
    '--take-over',
    'take the project from a process that hangs: it can then write no more',
    false,
  ] as const;

  command('init', 'look at a project and write its first troupe.yaml')
    .argument('[dir]', 'the project', '.')
    .action(async (directory: string) => done(await init(cli, directory)));

  command('run', 'work off the backlog, or go on with it')
    .option('--run <id>', 'what the run is called (default: main, or the x of troupe.x.yaml)')
    .option(...grace)
    .option('--template <name>', 'instead of the backlog: feature, bugFix or refactoring')
    .option('--param <name=value>', 'of the template; may be repeated', collect, [])
    .option(...takeOver)
    .option(...json)
    .action(async ({ grace: graceMs, ...options }: SessionFlags & RunFlags, self: Command) => {
      if (options.template !== undefined && options.run === undefined) {
        self.error('error: name the run that --template makes: --run ID');
      }
      if (options.template === undefined && options.param.length > 0) {
        self.error('error: --param is for --template');
      }
      done(await run(cli, { ...options, run: options.run, graceMs }));
    });

  command('resume', 'go on with every run that has not ended, or with one; ends its pause')
    .argument('[run]', 'only this run')
    .option('--dry-run', 'say what would go on, and change nothing', false)
    .option('--from <cut>', 'roll the run back first: to a label, the beginning of an id, or start')
    .option('--skip-to <task>', 'go on with a task without those it depends on: they are cancelled')
    .option('--strand', 'with --skip-to: also when that leaves other tasks blocked', false)
    .option(...grace)
    .option(...takeOver)
    .option(...json)
    .action(
      async (
        id: string | undefined,
        {
          dryRun,
          grace: graceMs,
          ...options
        }: SessionFlags & {
          dryRun: boolean;
          from: string | undefined;
          skipTo: string | undefined;
          strand: boolean;
        },
        self: Command,
      ) => {
        if (options.strand && options.skipTo === undefined) {
          self.error('error: --strand is for --skip-to');
        }
        const isNamed = id !== undefined || options.skipTo !== undefined;
        if (options.from !== undefined && (!isNamed || dryRun)) {
          self.error(
            !isNamed
              ? 'error: name the run that --from is for'
              : 'error: --from changes the run; to see what it would do: rollback --dry-run',
          );
        }
        done(
          dryRun ? await plan(cli, id, options) : await resume(cli, id, { ...options, graceMs }),
        );
      },
    );

  command('status', 'show how the runs stand, also while one is active')
    .argument('[run]', 'only this run')
    .option('-w, --watch', 'follow what happens until it ends', false)
    .option(...json)
    .action(async (id: string | undefined, options: { json: boolean; watch: boolean }) =>
      done(await status(cli, id, options)),
    );

  command('show', 'show one task: what was tried, what came of it, what was decided')
    .argument('<task>', 'TASK, or RUN/TASK')
    .option(...json)
    .action(async (task: string, options: { json: boolean }) =>
      done(await show(cli, task, options)),
    );

  command('logs', 'print what the agent of a task has written, and what it writes', '--file <file>')
    .argument('<task>', 'TASK, or RUN/TASK')
    .option('--stream <name>', 'another stream, such as progress', 'output')
    .option('--from <offset>', 'begin with this chunk, counted from 0', parseOffset, 0)
    .option('-f, --follow', 'go on until the stream or the task ends', false)
    .option('--json', 'print one JSON object on a line for each chunk', false)
    .action(
      async (
        task: string,
        options: { stream: string; from: number; follow: boolean; json: boolean },
      ) => done(await logs(cli, task, options)),
    );

  command('query', 'ask about the state of an actor, without a turn')
    .argument('<address>', 'such as agent/writer, or an actor of your own')
    .argument('<name>', 'a query of its machine; an agent has work')
    .argument('[args]', 'its arguments, as JSON')
    .option('--machines <module>', 'a module that exports the machines of your own')
    .action(
      async (
        address: string,
        name: string,
        args: string | undefined,
        options: { machines?: string },
      ) => done(await query(cli, address, name, args, options)),
    );

  command('signal', 'tell something to the agent of a task while it works')
    .argument('<task>', 'TASK, or RUN/TASK')
    .argument('<name>', 'the name under which it waits for it')
    .argument('[value]', 'a text, or JSON')
    .option(...json)
    .action(
      async (task: string, name: string, value: string | undefined, options: { json: boolean }) =>
        done(
          await orderTask(
            cli,
            task,
            { order: 'signal', name, ...(value === undefined ? {} : { value }) },
            options,
          ),
        ),
    );

  command('answer', 'answer the question a task waits with')
    .argument('<task>', 'TASK, or RUN/TASK')
    .argument('<text>', 'the answer')
    .option('--question <id>', 'refuse if it asks another question by now')
    .option(...json)
    .action(async (task: string, text: string, options: { json: boolean; question?: string }) =>
      done(
        await orderTask(
          cli,
          task,
          {
            order: 'answer',
            text,
            ...(options.question === undefined ? {} : { question: options.question }),
          },
          options,
        ),
      ),
    );

  command('approve', 'approve what waits for approval')
    .argument('<task>', 'TASK, or RUN/TASK')
    .option(...json)
    .action(async (task: string, options: { json: boolean }) =>
      done(await orderTask(cli, task, { order: 'approve' }, options)),
    );

  command('retry', 'give a blocked or escalated task another chance')
    .argument('<task>', 'TASK, or RUN/TASK')
    .option('--guidance <text>', 'what the next attempt is told')
    .option('--agent <name>', 'hand it to another agent')
    .option(...json)
    .action(async (task: string, options: { json: boolean; guidance?: string; agent?: string }) =>
      done(
        await orderTask(
          cli,
          task,
          {
            order: 'retry',
            ...(options.guidance === undefined ? {} : { guidance: options.guidance }),
            ...(options.agent === undefined ? {} : { agent: options.agent }),
          },
          options,
        ),
      ),
    );

  command('unblock', 'unblock a task, or all of a run')
    .argument('[task]', 'TASK, or RUN/TASK')
    .option(
      '--all',
      'every blocked or escalated task; more than six start one after the other',
      false,
    )
    .option('--transient', 'with --all: only what infrastructure has stopped', false)
    .option('--run <id>', 'with --all: the run, if there are several')
    .option(...json)
    .action(
      async (
        task: string | undefined,
        options: { json: boolean; all: boolean; transient: boolean; run?: string },
        self: Command,
      ) => {
        if (options.all === (task !== undefined)) {
          self.error('error: name a task, or use --all (one of the two)');
        }
        if (options.transient && !options.all) self.error('error: --transient is for --all');
        done(
          task === undefined
            ? await unblockAll(cli, options.run, options)
            : await orderTask(cli, task, { order: 'unblock' }, options),
        );
      },
    );

  command('regress', 'report that a task which was done is broken again: a new task is made for it')
    .argument('<task>', 'TASK, or RUN/TASK')
    .requiredOption('--reason <text>', 'what is wrong, for whoever mends it')
    .option('--evidence <text>', 'what shows it: output, a link, the name of a file')
    .option(...json)
    .action(
      async (
        task: string,
        { json: asJson, ...report }: { json: boolean; reason: string; evidence?: string },
      ) => done(await regress(cli, task, report, { json: asJson })),
    );

  command('enqueue', 'let the next staged tasks of a run in, the most urgent first')
    .argument('[count]', 'how many', parseCount, 10)
    .option('--run <id>', 'the run, if there are several')
    .option(...json)
    .action(async (count: number, { run: id, ...options }: { json: boolean; run?: string }) =>
      done(await enqueue(cli, id, count, options)),
    );

  command('block', 'set an escalated task aside')
    .argument('<task>', 'TASK, or RUN/TASK')
    .option('--reason <text>', 'why')
    .option(...json)
    .action(async (task: string, options: { json: boolean; reason?: string }) =>
      done(
        await orderTask(
          cli,
          task,
          { order: 'block', ...(options.reason === undefined ? {} : { reason: options.reason }) },
          options,
        ),
      ),
    );

  command('cancel', 'cancel a task, or a whole run')
    .argument('[task]', 'TASK, or RUN/TASK')
    .option('--run [id]', 'the whole run, which may be left out if there is only one')
    .option('--reason <text>', 'why', 'Cancelled on the command line.')
    .option(...json)
    .action(
      async (
        task: string | undefined,
        options: { json: boolean; run?: string | true; reason: string },
        self: Command,
      ) => {
        const { run: named, reason } = options;
        if ((named === undefined) === (task === undefined)) {
          self.error('error: name a task, or use --run (one of the two)');
        }
        done(
          task === undefined
            ? await cancelRun(cli, named === true ? undefined : named, reason, options)
            : await orderTask(cli, task, { order: 'cancel', reason }, options),
        );
      },
    );

  command('pause', 'hold a run: nothing new starts until resume, whatever restarts in between')
    .argument('[run]', 'the run, which may be left out if there is only one')
    .option(...json)
    .action(async (id: string | undefined, options: { json: boolean }) =>
      done(await pauseRun(cli, id, options)),
    );

  command('pause-task', 'hold a task: it starts nothing new until resume-task')
    .argument('<task>', 'TASK, or RUN/TASK')
    .option(...json)
    .action(async (task: string, options: { json: boolean }) =>
      done(await orderTask(cli, task, { order: 'pause' }, options)),
    );

  command('resume-task', 'let a paused task go on')
    .argument('<task>', 'TASK, or RUN/TASK')
    .option(...json)
    .action(async (task: string, options: { json: boolean }) =>
      done(await orderTask(cli, task, { order: 'resume' }, options)),
    );

  command('reset-breaker', 'ask an agent again that its circuit breaker leaves alone')
    .argument('<name>', 'the agent, or the key of another circuit breaker')
    .option(...json)
    .action(async (name: string, options: { json: boolean }) =>
      done(await resetBreaker(cli, name, options)),
    );

  command('checkpoints', 'list the moments that a run, a task or an actor can go back to')
    .argument('<name>', 'RUN, TASK, RUN/TASK, or the address of an actor')
    .option('--last <n>', 'only the newest', parseCount, 20)
    .option('--make <label>', 'keep a run as it is now, under this label')
    .option('--notes <text>', 'with --make: what to remember about it')
    .option(...json)
    .action(
      async (
        name: string,
        options: { json: boolean; last: number; make?: string; notes?: string },
        self: Command,
      ) => {
        if (options.notes !== undefined && options.make === undefined) {
          self.error('error: --notes is for --make');
        }
        done(await checkpoints(cli, name, options));
      },
    );

  command('rollback', 'make a run, or a task, what it was; merges stay')
    .argument('<name>', 'RUN, TASK or RUN/TASK')
    .argument('<to>', 'a label, the beginning of an id, start or last; of a task also a number')
    .option('--dry-run', 'say what it would do to each task of a run, and change nothing', false)
    .option(...json)
    .action(async (name: string, to: string, options: { json: boolean; dryRun: boolean }) =>
      done(await rollback(cli, name, to, options)),
    );

  command('fork', 'begin a new run that is what another one was')
    .argument('<run>', 'the run')
    .argument('<to>', 'a label, the beginning of an id, start or last')
    .requiredOption('--as <id>', 'what the new run is called')
    .option(...json)
    .action(async (name: string, to: string, options: { json: boolean; as: string }) =>
      done(await fork(cli, name, to, options)),
    );

  command('diff', 'say how a run, a task or an actor differs between two moments')
    .argument('<name>', 'RUN, TASK, RUN/TASK, or the address of an actor')
    .argument('<from>', 'as "troupe checkpoints" lists it')
    .argument('<to>', 'the same')
    .option(...json)
    .action(async (name: string, from: string, to: string, options: { json: boolean }) =>
      done(await diff(cli, name, from, to, options)),
    );

  command('schedules', 'list the schedules that a program has made here; hold one, or fire it')
    .argument('[act]', 'pause, resume or trigger')
    .argument('[id]', 'the schedule')
    .option(...json)
    .action(
      async (
        act: string | undefined,
        id: string | undefined,
        options: { json: boolean },
        self: Command,
      ) => {
        if (act === undefined) {
          done(await schedules(cli, options));
          return;
        }
        if (act !== 'pause' && act !== 'resume' && act !== 'trigger') {
          self.error(`error: expected pause, resume or trigger, got ${act}`);
        }
        if (id === undefined) self.error(`error: name the schedule to ${act}`);
        done(await orderSchedule(cli, act, id, options));
      },
    );

  command('audit', 'list what has happened: turns, orders and answers, dead letters; oldest first')
    .option('--from <time>', 'not before: 2026-11-30T12:00:00Z, or so long ago: 30m, 2h, 7d')
    .option('--to <time>', 'before')
    .option('--correlation <id>', 'only this turn, message or request, and what came of it')
    .option('--address <address>', 'only what this actor has handled')
    .option('--follow', 'go on with what happens until the active run ends', false)
    .option('--json', 'print one JSON object on each line, and nothing else', false)
    .action(async (options: AuditFlags) => done(await audit(cli, options)));

  command('flow', 'show how messages flow between agents that reason and agents that act')
    .option(...json)
    .action(async (options: { json: boolean }) => done(await flow(cli, options)));

  command('check', 'try an upgrade: can this version go on from everything that is stored?')
    .argument('[store]', "the store's file (default: the project's)")
    .option('--machines <module>', 'a module that exports the machines of your own')
    .option(...json)
    .action(async (store: string | undefined, options: { machines?: string; json: boolean }) =>
      done(await check(cli, store, options)),
    );

  command('actors', 'show the agents with what they have done, and who supervises whom')
    .option(...json)
    .action(async (options: { json: boolean }) => done(await actors(cli, options)));

  command('doctor', 'say what is wrong here and does not mend itself: store, git, disks, leftovers')
    .option(
      '--fixtures',
      'also do whole pieces of work in a temporary directory, and compare',
      false,
    )
    .option(...json)
    .action(async (options: { fixtures: boolean; json: boolean }) =>
      done(await doctor(cli, options)),
    );

  command('prune', 'remove history that is older than troupe.yaml says, and give its space back')
    .option('--dry-run', 'only count what would go', false)
    .option(...json)
    .action(async (options: { dryRun: boolean; json: boolean }) => done(await prune(cli, options)));

  command('backup', 'copy the store to a file, also while a run is active')
    .argument('<file>', 'a file that is not there yet')
    .option(...json)
    .action(async (file: string, options: { json: boolean }) =>
      done(await backup(cli, file, options)),
    );

  command('reencrypt', 'bring everything that is stored under the current key of encryption')
    .option(...json)
    .action(async (options: { json: boolean }) => done(await reencrypt(cli, options)));

  command('du', 'show what takes how much room in the store')
    .option(...json)
    .action(async (options: { json: boolean }) => done(await du(cli, options)));

  command('export', 'write runs with their tasks, attempts and evidence as JSON')
    .argument('[run]', 'only this run')
    .option('--out <file>', 'write to a file instead of the standard output')
    .action(async (id: string | undefined, options: { out?: string }) =>
      done(await exportRuns(cli, id, options)),
    );

  return program;
}

interface RunFlags {
  readonly run?: string;
  readonly template?: string;
  readonly param: readonly string[];
}

interface SessionFlags {
  readonly grace: number;
  readonly takeOver: boolean;
  readonly json: boolean;
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

function parseDuration(text: string): number {
  const [, count, unit] = /^(\d{1,6})(ms|s|m|h)$/.exec(text) ?? [];
  if (count === undefined || unit === undefined) {
    throw new InvalidArgumentError('Expected a time such as 500ms, 30s or 5m.');
  }
  return Number(count) * (UNITS[unit] ?? 0);
}

const collect = (text: string, before: readonly string[]): readonly string[] => [...before, text];

function parseCount(text: string): number {
  if (/^[1-9]\d{0,6}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('Expected a number of 1 or more.');
}

function parseOffset(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('Expected an offset, which is a number from 0.');
}

function version(): string {
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
