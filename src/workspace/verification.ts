import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { ConfigurationError } from '../protocol/errors.ts';
import { redactText } from '../protocol/redact.ts';
import type { CommandEvidence } from '../protocol/verdict.ts';
import { ceilingEnvironment, makeGitDirectory } from './borrowed-checkout.ts';
import { type CommandResult, describeCommand, runCommand } from './child-process.ts';
import {
  type CachedCommand,
  type CacheSettings,
  type Captured,
  checkCacheSettings,
} from './command-cache.ts';
import { diskTrouble } from './disk-trouble.ts';
import { buildEnvironment } from './environment.ts';
import { excerptOf, MAX_EXCERPT_CHARACTERS, stripControls } from './excerpt.ts';
import { ensureIgnoredDirectory } from './ignored-directory.ts';
import { countTests } from './test-counts.ts';
import type { Workspaces } from './workspaces.ts';

/** One command that decides whether a change is good. It comes from the target's configuration, never from the change. */
export interface VerifyCommand {
  /** What it is for: `setup`, `test`, `lint`, … Unique. */
  readonly name: string;
  /** An array is program and arguments; a string is the user's own shell command. */
  readonly command: readonly string[] | string;
  /** Default 600 000. */
  readonly timeoutMs?: number;
  /** Its failure is noted and does not count. Not possible for `test`. Default false. */
  readonly allowFail?: boolean;
  /**
   * Exit codes by which the command says that the machine, not the change, is to blame: dependencies that are not
   * there, a service that is down. It is then verified again later, and no attempt is used up. Default none.
   */
  readonly infrastructureExitCodes?: readonly number[];
  /** Run also when its tree has passed before: its outcome depends on more than the tree. Default false. */
  readonly always?: boolean;
  /** What it makes is kept when the change is merged, and the command not run where the same would be made. Default never. */
  readonly cache?: CacheSettings;
}

export interface VerificationOptions {
  readonly workspaces: Workspaces;
  /** Exactly this is checked out, in a fresh place. */
  readonly commit: string;
  readonly commands: readonly VerifyCommand[];
  /** The complete environment; TMPDIR is set to a directory that is removed afterwards. Default `buildEnvironment()`. */
  readonly env?: Readonly<Record<string, string>>;
  /** Path and begin of the name for the commands' log files. */
  readonly logPrefix: string;
  /** Takes secrets out of what is kept as evidence. */
  readonly redact?: (text: string) => string;
  /** Why the project has no tests, in words: then `test` may find none. Without, that is a failure. */
  readonly noTests?: string;
  readonly onCommand?: (command: VerifyCommand) => void;
  /** Gets what commands with a `cache` have made; see `CommandCache.capture`. Without it nothing is kept or used. */
  readonly onCaptured?: (captured: Captured) => void;
  readonly signal?: AbortSignal;
}

export type VerificationOutcome =
  | { readonly kind: 'passed'; readonly commands: readonly CommandEvidence[] }
  | {
      readonly kind: 'failed';
      readonly stage: 'setup' | 'verify' | 'verify_timeout';
      readonly reason: string;
      /** The failed command's output, for the fingerprint. */
      readonly output: string;
      readonly commands: readonly CommandEvidence[];
    }
  | {
      readonly kind: 'infrastructure';
      readonly reason: string;
      readonly commands: readonly CommandEvidence[];
    };

const DEFAULT_TIMEOUT_MS = 600_000;
/** Of a command's name in the name of its log file; its number comes before it. */
const MAX_SLUG_CHARACTERS = 60;

/**
 * Refuses a list of commands that could let something pass unproved.
 * @throws {ConfigurationError} expected and got, by command
 */
export function checkVerifyCommands(commands: readonly VerifyCommand[]): void {
  const refuse = (expected: string, got: string): never => {
    throw new ConfigurationError(`Verification: expected ${expected}, got ${got}.`);
  };
  if (commands.length === 0) refuse('at least one command', 'none; nothing would be proved');
  const names = new Set<string>();
  for (const step of commands) {
    const { name, command, timeoutMs, allowFail, infrastructureExitCodes = [] } = step;
    if (name === '' || names.has(name))
      refuse('a unique name for each command', JSON.stringify(name));
    names.add(name);
    const program = typeof command === 'string' ? command.trim() : (command[0] ?? '');
    if (program === '') refuse(`a command for ${name}`, 'an empty one');
    if (timeoutMs !== undefined && !(Number.isSafeInteger(timeoutMs) && timeoutMs > 0)) {
      refuse(`a positive number of milliseconds as timeoutMs of ${name}`, String(timeoutMs));
    }
    for (const code of infrastructureExitCodes) {
      if (Number.isSafeInteger(code) && code >= 1 && code <= 255) continue;
      refuse(`exit codes from 1 to 255 as infrastructureExitCodes of ${name}`, String(code));
    }
    if (name === 'test' && allowFail === true) refuse('that test must pass', 'allowFail: true');
    if (name === 'test' && step.cache !== undefined) refuse('that test is run', 'a cache');
    if (step.cache !== undefined) checkCacheSettings(step.cache, name);
  }
  if (commands.every(({ name, allowFail }) => allowFail === true || name === 'setup')) {
    refuse('a command besides setup that must pass', 'none');
  }
}

/**
 * Refuses acceptance commands of a task that prove nothing or cannot be told apart.
 * @throws {ConfigurationError} expected and got, by command
 */
export function checkAcceptCommands(commands: unknown, where: string): readonly VerifyCommand[] {
  if (
    !Array.isArray(commands) ||
    commands.some((each) => typeof each !== 'object' || each === null)
  ) {
    throw new ConfigurationError(
      `Expected accept of ${where} to be a list of commands such as { name, command }, got ${JSON.stringify(commands)}.`,
    );
  }
  for (const command of commands as readonly VerifyCommand[]) {
    const unknown = Object.keys(command).find(
      (key) => !['name', 'command', 'timeoutMs'].includes(key),
    );
    const given: unknown = command.command;
    const isCommand =
      typeof given === 'string' ||
      (Array.isArray(given) && given.every((word) => typeof word === 'string'));
    if (typeof command.name !== 'string' || !isCommand || unknown !== undefined) {
      throw new ConfigurationError(
        `Expected each command of accept of ${where} to be { name, command, timeoutMs? }, got ${JSON.stringify(command)}.`,
      );
    }
  }
  const accept = commands as readonly VerifyCommand[];
  if (accept.length > 0)
    checkVerifyCommands(accept.map((each) => ({ ...each, name: acceptName(each) })));
  return accept;
}

const ACCEPT = 'accept: ';

/** As it is called among the project's own: what belongs to one task is told apart. */
export function acceptName({ name }: Pick<VerifyCommand, 'name'>): string {
  return name === '' ? '' : `${ACCEPT}${name}`;
}

export function isAcceptCommand({ name }: Pick<VerifyCommand, 'name'>): boolean {
  return name.startsWith(ACCEPT);
}

/** What the next attempt is told: why, and what the command printed; at most 4 000 characters. */
export function feedbackOf({
  reason,
  output,
}: {
  readonly reason: string;
  readonly output: string;
}): string {
  const left = MAX_EXCERPT_CHARACTERS - reason.length - 1;
  if (left < 100) return excerptOf(reason);
  return `${reason}\n${excerptOf(output, left)}`.trim();
}

/**
 * Checks a commit out into a fresh place and runs the commands there in order, up to the first failure that counts.
 * Nothing of that place is used afterwards: what may be merged is the commit's tree.
 * @throws {GitError} the place cannot be made
 */
export async function verifyCommit(options: VerificationOptions): Promise<VerificationOutcome> {
  const { cache } = options.workspaces;
  const reused: string[] = [];
  const outcome = await inFreshCheckout(options, (workTree, env) =>
    runCommands(options, workTree, env, options.onCaptured === undefined ? undefined : { reused }),
  );
  if (outcome.kind === 'passed') for (const name of reused) cache.trust(name);
  const doubtful = reused.filter((name) => !cache.isTrusted(name));
  if (outcome.kind !== 'failed' || doubtful.length === 0) return outcome;
  // Made by tools that may be others by now: whose fault it is shows without it.
  for (const name of doubtful) await cache.drop(name);
  return await inFreshCheckout(options, (workTree, env) =>
    runCommands(options, workTree, env, { reused: [] }),
  );
}

/**
 * Runs the commands in a place where somebody has worked, as `verifyCommit` does in a fresh one. What passes here may
 * still fail there: files that are ignored, or left from before, are not in the commit.
 */
export async function checkInPlace(
  options: Omit<VerificationOptions, 'commit' | 'env'>,
  directory: string,
  env: Readonly<Record<string, string>>,
): Promise<VerificationOutcome> {
  return await runCommands(options, directory, env);
}

/**
 * Gives some work a fresh checkout of a commit. It is removed meanwhile; see `Workspaces.settled`.
 * @throws {GitError} the place cannot be made
 * Crash: `Workspaces.reap` removes the place.
 */
export async function inFreshCheckout<T>(
  {
    workspaces,
    commit,
    env: given,
    signal,
  }: Pick<VerificationOptions, 'workspaces' | 'commit' | 'env' | 'signal'>,
  work: (workTree: string, env: Readonly<Record<string, string>>) => Promise<T>,
): Promise<T> {
  const { repository } = workspaces;
  const root = path.join(workspaces.stateDirectory, 'verify');
  await ensureIgnoredDirectory(root);
  // A short name: sockets in TMPDIR have about a hundred characters for their whole path.
  const place = path.join(root, randomUUID().slice(0, 8));
  const workTree = path.join(place, 'work');
  const temporary = path.join(place, 'tmp');
  try {
    await mkdir(temporary, { recursive: true });
    const gitDir = path.join(workTree, '.git');
    const make = () =>
      makeGitDirectory({ repository, gitDir, branch: 'troupe/verify', commit, base: commit });
    await workspaces.spares.fill({ gitDir, workTree, commit }, make, signal);
    return await work(workTree, {
      ...(given ?? buildEnvironment()),
      ...ceilingEnvironment(workTree),
      ...(await workspaces.ports.take(place)),
      TMPDIR: temporary,
    });
  } finally {
    workspaces.ports.release(place);
    // Hundreds of files take their time, and what comes next does not need it.
    workspaces.removeMeanwhile(workspaces.discard(place));
  }
}

/** @param caching names of what was used in place of a command are added; absent: all are run */
async function runCommands(
  options: Omit<VerificationOptions, 'commit' | 'env'>,
  cwd: string,
  env: Readonly<Record<string, string>>,
  caching?: { readonly reused: string[] },
): Promise<VerificationOutcome> {
  const { signal } = options;
  const { cache: caches } = options.workspaces;
  const redact = options.redact ?? redactText;
  const commands: CommandEvidence[] = [];
  for (const [index, step] of options.commands.entries()) {
    signal?.throwIfAborted();
    options.onCommand?.(step);
    const cached = caching === undefined ? undefined : cachedCommand(step);
    if (caching !== undefined && cached !== undefined) {
      const startedAt = performance.now();
      const name = await caches.restore(cached, { directory: cwd, env });
      if (name !== undefined) {
        caching.reused.push(name);
        commands.push({
          name: step.name,
          command: redact(describeCommand(step.command)),
          exitCode: 0,
          signal: null,
          durationMs: Math.round(performance.now() - startedAt),
          excerpt: `Not run: ${cached.cache.paths.join(', ')} as it was made for the same ${cached.cache.key.join(', ')}.`,
          cached: name,
        });
        continue;
      }
    }
    const slug = step.name
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')
      .slice(0, MAX_SLUG_CHARACTERS);
    const result = await runCommand({
      command: step.command,
      cwd,
      env,
      timeoutMs: step.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      processes: options.workspaces.repository.processes,
      logFile: `${options.logPrefix}.${index + 1}-${slug}.log`,
      redact,
      ...(signal === undefined ? {} : { signal }),
    });
    signal?.throwIfAborted();
    const output = redact(result.output);
    const exitedGreen = result.exitCode === 0 && !result.timedOut;
    const tests = countTests(stripControls(output));
    // A runner that found nothing to run proves nothing, whatever its exit code; nor does it say that something is wrong.
    const ranNone =
      step.name === 'test' && tests === 0 && result.signal === null && !result.timedOut;
    const green = exitedGreen && !(ranNone && options.noTests === undefined);
    const allowed =
      !green && (step.allowFail === true || (ranNone && options.noTests !== undefined));
    commands.push({
      name: step.name,
      command: redact(result.command),
      exitCode: result.exitCode,
      signal: result.signal,
      durationMs: result.durationMs,
      excerpt: excerptOf(output),
      ...(result.timedOut ? { timedOut: true } : {}),
      ...(allowed ? { allowedToFail: true } : {}),
      ...(tests === undefined ? {} : { tests }),
    });
    if (green && cached !== undefined) {
      const captured = await caches.capture(cached, { directory: cwd, env });
      if (captured !== undefined) options.onCaptured?.(captured);
    }
    if (green || allowed) continue;
    const trouble = await infrastructureTrouble(step, result, cwd);
    if (trouble !== undefined) return { kind: 'infrastructure', reason: trouble, commands };
    return {
      kind: 'failed',
      stage: result.timedOut ? 'verify_timeout' : step.name === 'setup' ? 'setup' : 'verify',
      reason: redact(ranNone ? describeNoTests(step, result) : describeFailure(step, result)),
      output,
      commands,
    };
  }
  return { kind: 'passed', commands };
}

function cachedCommand({ command, cache }: VerifyCommand): CachedCommand | undefined {
  return cache === undefined ? undefined : { command, cache };
}

/** Why a failure is not the change's: a tool that is not there, a machine that cannot start it, a full disk. */
async function infrastructureTrouble(
  step: VerifyCommand,
  result: CommandResult,
  cwd: string,
): Promise<string | undefined> {
  const shown = `${step.name} (${describeCommand(step.command)})`;
  if (result.missingTool) {
    const code = result.spawnError ?? `exit code ${result.exitCode}`;
    return `${shown} needs a tool that is not there (${code}). Install it, or mend the command or PATH.`;
  }
  if (result.spawnError !== undefined) {
    return `${shown} could not be started (${result.spawnError}).`;
  }
  if (!result.timedOut && step.infrastructureExitCodes?.includes(result.exitCode ?? 0) === true) {
    const said = excerptOf(result.output, 500).split('\n').at(-1) ?? '';
    return `${shown} says with exit code ${result.exitCode} that the machine is to blame, not the change: ${said}`;
  }
  const trouble = await diskTrouble([cwd]);
  return trouble === undefined ? undefined : `${shown} failed while ${trouble}.`;
}

function describeNoTests(step: VerifyCommand, result: CommandResult): string {
  return (
    `${step.name} (${describeCommand(step.command)}) ran no tests (exit code ${result.exitCode}), and so proves nothing. ` +
    'If the project has none, its configuration says so in words: noTests: "why".'
  );
}

function describeFailure(step: VerifyCommand, result: CommandResult): string {
  const shown = `${step.name} (${describeCommand(step.command)})`;
  if (result.timedOut) {
    return `${shown} did not end within ${step.timeoutMs ?? DEFAULT_TIMEOUT_MS} ms.`;
  }
  if (result.signal !== null) return `${shown} was ended by ${result.signal}.`;
  return `${shown} failed with exit code ${result.exitCode}.`;
}
