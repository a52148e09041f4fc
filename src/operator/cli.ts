import { readFileSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { EXIT_CODES, TroupeError, toFailure } from '../index.ts';
import { CliContext } from './cli-context.ts';
import { exportRuns } from './commands/export.ts';
import { init } from './commands/init.ts';
import { cancelRun, orderTask, unblockAll } from './commands/order.ts';
import { resume, run } from './commands/run.ts';
import { show } from './commands/show.ts';
import { status } from './commands/status.ts';
import { type Environment, Output, type OutputStream } from './terminal/terminal.ts';
import { cleanBlock, safeJson } from './terminal/text.ts';

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
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has said it. Its own exit code for every mistake is 1.
      return error.exitCode === 0 ? 0 : EXIT_CODES.validation;
    }
    return explain(error, cli, argv.includes('--json'));
  }
}

/** @returns the exit code for an error that nobody caught, after it was said */
export function explainCrash(
  error: unknown,
  { env, stderr }: { readonly env: Environment; readonly stderr: OutputStream },
): number {
  const output = new Output(stderr, env, process.platform);
  return explain(error, new CliContext('', env, output, output), false);
}

/** Says what went wrong, in words; a stack only to those who ask for it. */
function explain(error: unknown, cli: CliContext, json: boolean): number {
  const failure = toFailure(error);
  const exitCode = EXIT_CODES[failure.code];
  const expected = error instanceof TroupeError;
  const [first = '', ...rest] = cleanBlock(failure.message);
  cli.stderr.line([{ text: 'troupe: ', style: 'red' }, expected ? first : `unexpected: ${first}`]);
  for (const line of rest) cli.stderr.line(line);
  if (cli.env['TROUPE_DEBUG'] === '1' && error instanceof Error) {
    for (const line of cleanBlock(error.stack ?? '')) cli.stderr.line(line);
  } else if (!expected) {
    cli.stderr.line('Run it again with TROUPE_DEBUG=1 to see where this comes from.');
  }
  if (json) cli.stdout.raw(`${safeJson({ error: failure, exitCode })}\n`);
  return exitCode;
}

const EXAMPLES = `
Examples:
  $ troupe init                                  write a first troupe.yaml
  $ troupe run                                   work off its tasks
  $ troupe status --watch                        look on from another terminal
  $ troupe show parser                           what was tried, and why it failed
  $ troupe retry parser --guidance "keep the old signature"
  $ troupe answer release "yes"                  answer what a task asks
  $ troupe unblock --all --transient             after the disk was full
  $ troupe resume                                go on after Ctrl-C or a crash

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
    .hook('preAction', () => {
      cli.file = program.opts<{ file?: string }>().file;
    });
  const command = (usage: string, description: string): Command =>
    program.command(usage).description(description);
  const json = ['--json', 'print one JSON object, and nothing else', false] as const;
  const grace = [
    '--grace <time>',
    'after Ctrl-C, how long running agents may go on',
    parseDuration,
    30_000,
  ] as const;

  command('init', 'look at a project and write its first troupe.yaml')
    .argument('[dir]', 'the project', '.')
    .action(async (directory: string) => done(await init(cli, directory)));

  command('run', 'work off the backlog, or go on with it')
    .option('--run <id>', 'what the run is called (default: main, or the x of troupe.x.yaml)')
    .option(...grace)
    .option(...json)
    .action(async (options: { run?: string; grace: number; json: boolean }) =>
      done(await run(cli, { run: options.run, graceMs: options.grace, json: options.json })),
    );

  command('resume', 'go on with every run that has not ended')
    .option(...grace)
    .option(...json)
    .action(async (options: { grace: number; json: boolean }) =>
      done(await resume(cli, { graceMs: options.grace, json: options.json })),
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

  command('pause', 'hold a task: it starts nothing new until resume-task')
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

  command('export', 'write runs with their tasks, attempts and evidence as JSON')
    .argument('[run]', 'only this run')
    .option('--out <file>', 'write to a file instead of the standard output')
    .action(async (id: string | undefined, options: { out?: string }) =>
      done(await exportRuns(cli, id, options)),
    );

  return program;
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

function parseDuration(text: string): number {
  const [, count, unit] = /^(\d{1,6})(ms|s|m|h)$/.exec(text) ?? [];
  if (count === undefined || unit === undefined) {
    throw new InvalidArgumentError('Expected a time such as 500ms, 30s or 5m.');
  }
  return Number(count) * (UNITS[unit] ?? 0);
}

function version(): string {
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
