import { EXIT_CODES, TroupeError, toFailure } from '../index.ts';
import { CliContext } from './cli-context.ts';
import { type Environment, Output, type OutputStream } from './terminal/terminal.ts';
import { cleanBlock, safeJson } from './terminal/text.ts';

/**
 * Says what went wrong, in words; a stack only to those who ask for it.
 * @returns the exit code
 */
export function explain(error: unknown, cli: CliContext, json: boolean): number {
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

/** @returns the exit code for an error that nobody caught, after it was said */
export function explainCrash(
  error: unknown,
  { env, stderr }: { readonly env: Environment; readonly stderr: OutputStream },
): number {
  const output = new Output(stderr, env, process.platform);
  return explain(error, new CliContext('', env, output, output), false);
}
