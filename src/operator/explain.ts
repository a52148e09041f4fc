import { ConfigurationError, EXIT_CODES, TroupeError, toFailure } from '../index.ts';
import { CliContext } from './cli-context.ts';
import { type Environment, Output, type OutputStream } from './terminal/terminal.ts';
import { cleanBlock, safeJson } from './terminal/text.ts';

/**
 * Says what went wrong, in words; a stack only to those who ask for it.
 * @returns the exit code
 */
export function explain(thrown: unknown, cli: CliContext, json: boolean): number {
  const error = inTheWay(thrown) ?? thrown;
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

/** What is where a file or a directory of ours belongs, as the file system has found it. */
const OBSTACLES: Readonly<Record<string, string>> = {
  EEXIST: 'something else has this name',
  ENOTDIR: 'on the way there is something that is no directory',
  EISDIR: 'it is a directory',
  ERR_FS_EISDIR: 'it is a directory',
  EACCES: 'permission denied',
  EPERM: 'the operation is not permitted',
  ELOOP: 'it is a symbolic link that leads to itself',
  ENAMETOOLONG: 'its name is too long',
};

/** @returns undefined for what is no such error: then it may be a bug of ours */
function inTheWay(error: unknown): Error | undefined {
  if (!(error instanceof Error) || error instanceof TroupeError) return undefined;
  const { code, path, syscall } = error as NodeJS.ErrnoException;
  if (syscall === 'uv_cwd') {
    return new ConfigurationError(
      'The current directory is not there any more. Change to one that is, and run the command again.',
      { cause: error },
    );
  }
  const why = OBSTACLES[code ?? ''];
  if (why === undefined || typeof path !== 'string') return undefined;
  return new ConfigurationError(
    `Could not use ${path}: ${why} (${code}). Move it out of the way or make it usable, then run the command again.`,
    { cause: error },
  );
}

/** @returns the exit code for an error that nobody caught, after it was said */
export function explainCrash(
  error: unknown,
  { env, stderr }: { readonly env: Environment; readonly stderr: OutputStream },
): number {
  const output = new Output(stderr, env, process.platform);
  return explain(error, new CliContext('', env, output, output), false);
}
