import { spawnSync } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import path from 'node:path';
import { AGENT_PRESETS, ConfigurationError } from '../index.ts';
import type { ProjectConfig } from './config.ts';

/** What is searched when PATH is not set. */
const DEFAULT_PATH = '/usr/bin:/bin';

/**
 * Looks whether the programs are there that the project's commands begin with: without one no attempt of any task can
 * end well, and each would be retried as an infrastructure fault for a long time.
 *
 * Only what can be known is said: a program that is named without a directory. Not looked for are those of commands
 * that may fail, and of those after `setup`, which may install them.
 * @throws {ConfigurationError} one error for all that are missing: each with the commands that need it
 */
export function requirePrograms(
  config: Pick<ProjectConfig, 'verify' | 'agents' | 'review'>,
  searchPath = process.env['PATH'] ?? DEFAULT_PATH,
): void {
  const setup = config.verify.findIndex(({ name }) => name === 'setup');
  const commands = [
    ...config.verify
      .slice(0, setup === -1 ? undefined : setup + 1)
      .filter(({ allowFail }) => !allowFail)
      .map(({ name, run }) => ({ run, of: `verify: ${name}` })),
    ...(config.review?.mode === 'off' ? [] : (config.review?.reviewers ?? [])).flatMap(
      (reviewer) =>
        'command' in reviewer ? [{ run: reviewer.command, of: `review: ${reviewer.name}` }] : [],
    ),
    ...config.agents.flatMap((agent) => {
      if (agent.engine === 'patch') return [];
      const run =
        agent.engine === 'preset' ? AGENT_PRESETS[agent.program.preset].command : agent.run;
      return [{ run, of: `agents: ${agent.name}` }];
    }),
  ];
  const missing = new Map<string, string[]>();
  for (const { run, of } of commands) {
    const program = programOf(run);
    if (program === undefined || isThere(program, searchPath, typeof run === 'string')) continue;
    missing.set(program, [...(missing.get(program) ?? []), of]);
  }
  if (missing.size === 0) return;
  const lines = [...missing].map(([program, users]) => `  ${program} (${users.join(', ')})`);
  throw new ConfigurationError(
    `${missing.size === 1 ? 'A program that the commands in troupe.yaml need is' : 'Programs that the commands in troupe.yaml need are'} not on PATH:
${lines.join('\n')}
Install ${missing.size === 1 ? 'it' : 'them'}, correct the command, or mend PATH, which is ${searchPath === '' ? 'empty' : searchPath}.`,
  );
}

/** What a command begins with; undefined if that is a path, or anything but a plain word of a shell command. */
function programOf(run: string | readonly string[]): string | undefined {
  const program = typeof run === 'string' ? /^\s*(\w[\w.+-]*)(?=\s|$)/.exec(run)?.[1] : run[0];
  return program === undefined || program.includes('/') ? undefined : program;
}

function isThere(program: string, searchPath: string, forShell: boolean): boolean {
  const found = searchPath
    .split(':')
    .some((directory) => isExecutable(path.join(directory === '' ? '.' : directory, program)));
  // A shell has words of its own: cd, if, …
  return found || (forShell && isWordOfShell(program, searchPath));
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    // Not there, or not for us: for a search of PATH the same.
    return false;
  }
}

function isWordOfShell(word: string, searchPath: string): boolean {
  const { status } = spawnSync('/bin/sh', ['-c', 'command -v "$1"', 'sh', word], {
    env: { PATH: searchPath },
    stdio: 'ignore',
  });
  return status === 0;
}
