import os from 'node:os';
import { type ErrorCode, TroupeError } from '../protocol/errors.ts';
import { excerptOf } from './excerpt.ts';
import type { LaunchOptions } from './launcher.ts';
import type { ProcessRegistry } from './process-registry.ts';
import { runProcessTree } from './process-tree.ts';

/** Why git did not do it. All but `failed` are nobody's fault who worked on a task. */
export type GitErrorKind = 'failed' | 'locked' | 'disk' | 'missing' | 'timeout' | 'too_much_output';

/** A git command that ended other than expected. Its message names command, directory and what git said. */
export class GitError extends TroupeError {
  readonly kind: GitErrorKind;
  readonly args: readonly string[];
  readonly exitCodeOfGit: number | null;
  /** At most 1 000 characters. */
  readonly stderr: string;
  /** The lock that was in the way, when `kind` is `locked`. */
  readonly lockFile: string | undefined;

  constructor(
    kind: GitErrorKind,
    message: string,
    facts: {
      readonly args: readonly string[];
      readonly exitCode: number | null;
      readonly stderr: string;
      readonly lockFile?: string;
    },
  ) {
    super(CODES[kind], message, {
      context: { kind, args: facts.args.slice(0, 20), stderr: facts.stderr },
    });
    this.kind = kind;
    this.args = facts.args;
    this.exitCodeOfGit = facts.exitCode;
    this.stderr = facts.stderr;
    this.lockFile = facts.lockFile;
  }

  /** Disk, locks, time, a missing git: trying again later may help, and no attempt is to be counted. */
  get infrastructure(): boolean {
    return this.kind !== 'failed';
  }
}

export interface GitOptions {
  readonly cwd: string;
  /** Names the repository explicitly; git then looks at no `.git` of the directory. */
  readonly gitDir?: string;
  readonly workTree?: string;
  readonly indexFile?: string;
  readonly stdin?: string | Buffer;
  /** Added to the hardened environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** `key=value`, each given as `-c`, before and so below the hardening. */
  readonly config?: readonly string[];
  /**
   * Read the user's own configuration too. For questions (which identity, which line endings) and for the user's
   * own working tree, whose filters may be configured there; never where an agent can write.
   */
  readonly userConfiguration?: boolean;
  /** Default 120 000. */
  readonly timeoutMs?: number;
  /** Exit codes that are answers, not errors. Default only 0. */
  readonly allowExitCodes?: readonly number[];
  readonly signal?: AbortSignal;
  /** Default 67 108 864. */
  readonly maxStdoutBytes?: number;
}

export interface GitResult {
  readonly exitCode: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface GitIdentity {
  readonly name: string;
  readonly email: string;
}

/**
 * Runs git with argument arrays, so that nothing a repository or an agent has planted runs with it: no hooks, no
 * fsmonitor, no external diff or text conversion, no configuration of machine or user, no replaced objects, no
 * prompts, no protocol but local files. Filters named in a repository's own configuration cannot be switched off
 * this way: in a directory an agent can write to, `gitDir` names a git directory that it has not written.
 * Source: git(1), git-config(1).
 */
export class Git {
  readonly processes: ProcessRegistry;
  readonly #identity: GitIdentity;

  /** @param identity author and committer of what we commit; git's own settings are not read */
  constructor(options: { readonly processes: ProcessRegistry; readonly identity?: GitIdentity }) {
    this.processes = options.processes;
    this.#identity = options.identity ?? DEFAULT_IDENTITY;
  }

  get identity(): GitIdentity {
    return this.#identity;
  }

  /**
   * Runs one command. A lock that is held is waited for (about 1.5 s in all), then reported with its name.
   * @throws {GitError} exit code not in `allowExitCodes`, time limit, git missing, too much output
   * @throws the reason of `signal` when that is aborted
   */
  async run(args: readonly string[], options: GitOptions): Promise<GitResult> {
    for (const waitMs of LOCK_WAITS_MS) {
      try {
        return await this.#runOnce(args, options);
      } catch (error) {
        if (!(error instanceof GitError && error.kind === 'locked')) throw error;
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      }
    }
    return await this.#runOnce(args, options);
  }

  /** Standard output as text, without the newline at its end. */
  async text(args: readonly string[], options: GitOptions): Promise<string> {
    const { stdout } = await this.run(args, options);
    return stdout.toString('utf8').replace(/\n$/, '');
  }

  /** The parts of an output that git separates by NUL (`-z`). */
  async list(args: readonly string[], options: GitOptions): Promise<string[]> {
    const { stdout } = await this.run(args, options);
    return splitNul(stdout.toString('utf8'));
  }

  /** How a command is started: hardened, with the complete environment. For one that lives longer than a question. */
  invocation(
    args: readonly string[],
    options: GitOptions,
  ): {
    readonly argv: readonly [string, ...string[]];
    readonly env: Readonly<Record<string, string>>;
  } {
    return {
      argv: ['git', ...configArguments(options.config ?? []), ...harden(args)],
      env: {
        ...hardenedEnvironment(this.#identity),
        ...(options.userConfiguration === true ? userConfiguration() : NO_USER_CONFIGURATION),
        ...locations(options),
        ...options.env,
      },
    };
  }

  async #runOnce(args: readonly string[], options: GitOptions): Promise<GitResult> {
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    const maxStdoutBytes = options.maxStdoutBytes ?? 64 * 1024 * 1024;
    let stdoutBytes = 0;
    let stderrBytes = 0;
    const tooMuch = new AbortController();
    const signals = [tooMuch.signal, ...(options.signal === undefined ? [] : [options.signal])];
    const command: LaunchOptions = {
      ...this.invocation(args, options),
      label: `git ${args.join(' ')}`,
      cwd: options.cwd,
      timeoutMs: options.timeoutMs ?? 120_000,
      signal: AbortSignal.any(signals),
      ...(options.stdin === undefined ? {} : { stdin: options.stdin }),
      onStdout: (chunk) => {
        stdoutBytes += chunk.length;
        if (stdoutBytes > maxStdoutBytes) tooMuch.abort();
        else stdout.push(chunk);
      },
      onStderr: (chunk) => {
        stderrBytes += chunk.length;
        if (stderrBytes < 1_000_000) stderr.push(chunk);
      },
    };
    const { processes } = this;
    const end =
      (await processes.launcher.run(command)) ?? (await runProcessTree({ ...command, processes }));
    options.signal?.throwIfAborted();
    const said = Buffer.concat(stderr).toString('utf8');
    const fail = (kind: GitErrorKind, why: string, lockFile?: string): GitError =>
      new GitError(kind, `git ${args[0] ?? ''} in ${options.cwd}: ${why}`, {
        args,
        exitCode: end.exitCode,
        stderr: excerptOf(said, 1000),
        ...(lockFile === undefined ? {} : { lockFile }),
      });
    if (end.spawnError === 'ENOENT' || end.spawnError === 'EACCES') {
      throw fail('missing', 'git was not found. Install git 2.38 or newer, or mend PATH.');
    }
    if (end.spawnError !== undefined) {
      // No such directory is a mistake of the caller; EAGAIN, EMFILE and the like are the machine's.
      const kind = end.spawnError === 'ENOCWD' ? 'failed' : 'disk';
      throw fail(kind, `it could not be started (${end.spawnError}).`);
    }
    if (stdoutBytes > maxStdoutBytes) {
      throw fail('too_much_output', `more than ${maxStdoutBytes} bytes of output.`);
    }
    if (end.timedOut) throw fail('timeout', `no end within ${options.timeoutMs ?? 120_000} ms.`);
    if (end.exitCode !== null && (options.allowExitCodes ?? [0]).includes(end.exitCode)) {
      return { exitCode: end.exitCode, stdout: Buffer.concat(stdout), stderr: said };
    }
    const lockFile = LOCK_HELD.exec(said)?.[1];
    if (lockFile !== undefined) {
      throw fail(
        'locked',
        `${lockFile} is held. If no git command runs there, a crashed one left it: remove that file.`,
        lockFile,
      );
    }
    const how = end.exitCode === null ? `signal ${end.signal}` : `exit code ${end.exitCode}`;
    const kind = MACHINE_TROUBLE.test(said) || end.exitCode === null ? 'disk' : 'failed';
    throw fail(kind, `${how}. ${excerptOf(said, 1000)}`);
  }
}

/** Splits what git separates by NUL. The last part ends with one too, so nothing follows it. */
export function splitNul(text: string): string[] {
  const parts = text.split('\0');
  if (parts.at(-1) === '') parts.pop();
  return parts;
}

const DEFAULT_IDENTITY: GitIdentity = { name: 'Troupe', email: 'troupe@localhost' };

const CODES: Readonly<Record<GitErrorKind, ErrorCode>> = {
  failed: 'internal',
  locked: 'lock_conflict',
  disk: 'unavailable',
  missing: 'configuration',
  timeout: 'timeout',
  too_much_output: 'internal',
};

const LOCK_WAITS_MS = [50, 100, 200, 400, 800];
const LOCK_HELD = /Unable to create '(.+\.lock)': File exists/;
/** The C library's words (LC_ALL=C) for a machine that is full or broken. */
const MACHINE_TROUBLE =
  /No space left on device|Disk quota exceeded|Read-only file system|Too many open files|Cannot allocate memory|Input\/output error|Resource temporarily unavailable/;

/** What `-c` can switch off. A command line beats every configuration file. */
const HARDENED_CONFIG = [
  'core.hooksPath=/dev/null',
  'core.fsmonitor=false',
  'core.attributesFile=/dev/null',
  'core.excludesFile=/dev/null',
  'core.pager=cat',
  'core.editor=false',
  'core.quotePath=false',
  'core.askPass=',
  'credential.helper=',
  'commit.gpgSign=false',
  'log.showSignature=false',
  'gc.auto=0',
  'maintenance.auto=false',
  'submodule.recurse=false',
  'fetch.recurseSubmodules=false',
  'transfer.fsckObjects=true',
  'advice.detachedHead=false',
  'protocol.allow=never',
  'protocol.file.allow=always',
  'protocol.ext.allow=never',
];

/** Options that these commands need for the same reason. */
const HARDENED_OPTIONS: Readonly<Record<string, readonly string[]>> = {
  diff: ['--no-ext-diff', '--no-textconv', '--no-color'],
  'diff-tree': ['--no-ext-diff', '--no-textconv', '--no-color'],
  'diff-index': ['--no-ext-diff', '--no-textconv', '--no-color'],
  'diff-files': ['--no-ext-diff', '--no-textconv', '--no-color'],
  log: ['--no-ext-diff', '--no-textconv', '--no-color'],
  grep: ['--no-textconv', '--no-color'],
};

function configArguments(config: readonly string[]): string[] {
  return [...config, ...HARDENED_CONFIG].flatMap((entry) => ['-c', entry]);
}

function harden([command = '', ...rest]: readonly string[]): string[] {
  return [command, ...(HARDENED_OPTIONS[command] ?? []), ...rest];
}

function hardenedEnvironment(identity: GitIdentity): Record<string, string> {
  return {
    PATH: process.env['PATH'] ?? '/usr/bin:/bin',
    LC_ALL: 'C',
    GIT_ATTR_NOSYSTEM: '1',
    GIT_TERMINAL_PROMPT: '0',
    GIT_NO_REPLACE_OBJECTS: '1',
    GIT_OPTIONAL_LOCKS: '0',
    // Unlike `-c`, these reach the other side of a local fetch too.
    GIT_ALLOW_PROTOCOL: 'file',
    GIT_NO_LAZY_FETCH: '1',
    GIT_AUTHOR_NAME: identity.name,
    GIT_AUTHOR_EMAIL: identity.email,
    GIT_COMMITTER_NAME: identity.name,
    GIT_COMMITTER_EMAIL: identity.email,
  };
}

/** No configuration but the repository's own. */
const NO_USER_CONFIGURATION: Readonly<Record<string, string>> = {
  HOME: '/nonexistent',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_SYSTEM: '/dev/null',
  GIT_CONFIG_GLOBAL: '/dev/null',
};

function userConfiguration(): Record<string, string> {
  const environment: Record<string, string> = { HOME: os.homedir() };
  for (const name of [
    'XDG_CONFIG_HOME',
    'GIT_CONFIG_GLOBAL',
    'GIT_CONFIG_SYSTEM',
    'GIT_CONFIG_NOSYSTEM',
  ]) {
    const value = process.env[name];
    if (value !== undefined) environment[name] = value;
  }
  return environment;
}

function locations(options: GitOptions): Record<string, string> {
  return {
    ...(options.gitDir === undefined ? {} : { GIT_DIR: options.gitDir }),
    ...(options.workTree === undefined ? {} : { GIT_WORK_TREE: options.workTree }),
    ...(options.indexFile === undefined ? {} : { GIT_INDEX_FILE: options.indexFile }),
  };
}
