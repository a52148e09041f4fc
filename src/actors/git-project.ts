import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { blame } from '../machines/policies/failure-class.ts';
import { errorFingerprint } from '../machines/policies/fingerprint.ts';
import { readSettings } from '../machines/policies/settings.ts';
import type { WorkspaceInput } from '../machines/task-machine.ts';
import type { FixOrder, WorkOutcome } from '../protocol/catalogue.ts';
import {
  ConfigurationError,
  fromFailure,
  type TroupeError,
  toFailure,
} from '../protocol/errors.ts';
import { type FaultPoint, noFaults } from '../protocol/fault-point.ts';
import type { JsonValue } from '../protocol/json.ts';
import { RefusedWorkError, refusalIn } from '../protocol/refused-work.ts';
import type { RejectionStage } from '../protocol/verdict.ts';
import { slugOf } from '../workspace/branch-name.ts';
import type { RuleSettings } from '../workspace/change-rules.ts';
import { buildEnvironment } from '../workspace/environment.ts';
import { excerptOf } from '../workspace/excerpt.ts';
import { artifactDirectory, newArtifactPath, writeArtifact } from '../workspace/gate-artifact.ts';
import { Git } from '../workspace/git.ts';
import { ensureIgnoredDirectory } from '../workspace/ignored-directory.ts';
import { findMerges, verifyAndMerge } from '../workspace/merge.ts';
import { MergeQueue } from '../workspace/merge-queue.ts';
import { applyPatch, type PatchOutcome } from '../workspace/patch.ts';
import { checkPortNames } from '../workspace/ports.ts';
import { type Leftover, ProcessRegistry } from '../workspace/process-registry.ts';
import { type Redact, redactorFor } from '../workspace/redact.ts';
import { Repository } from '../workspace/repository.ts';
import { checkReviewOptions, type ReviewOptions, ReviewPanel } from '../workspace/review.ts';
import {
  findLeftoverFiles,
  findLeftoverRefs,
  LIST_REFS,
  removeLeftoverFiles,
  runsWithFiles,
} from '../workspace/run-leftovers.ts';
import { removeStaleLocks } from '../workspace/stale-locks.ts';
import {
  acceptName,
  checkInPlace,
  checkVerifyCommands,
  feedbackOf,
  type VerifyCommand,
} from '../workspace/verification.ts';
import type { Workspace } from '../workspace/workspace.ts';
import { type Reaped, Workspaces } from '../workspace/workspaces.ts';
import type { Submission, Verifier } from './gatekeeper.ts';
import type { WholeRetention } from './retention.ts';

/** A git repository whose target branch only a gatekeeper moves. */
export interface GitProjectOptions {
  /** The repository's working tree. */
  readonly directory: string;
  /** The branch that accepted work goes to. Default `main`. */
  readonly target?: string;
  /** Run in this order, in a fresh copy of target + change; all must succeed. At least one. */
  readonly verify: readonly VerifyCommand[];
  /**
   * A time limit for each command of `verify` that holds for one submission only, in milliseconds. Asked before it is
   * verified; undefined leaves what `verify` says.
   */
  readonly verifyTimeoutMs?: (submission: Submission) => number | undefined;
  /**
   * Run `verify` in the agent's workspace first, right after its work is taken: what is red there fails the attempt with
   * the same feedback, and no gatekeeper is asked. It counts as the agent's time. Default false: it costs a second run of
   * the commands for work that is good, and saves the wait for the gatekeeper for work that is not.
   */
  readonly preflight?: boolean;
  /**
   * Verifications that run at once, each on top of the changes ahead of it: see MergeQueue. 1 for commands that get in
   * each other's way (a fixed port, one database). Default: one per core, at most 4.
   */
  readonly verifyAtOnce?: number;
  /**
   * Rules about changes: what is refused, and what a person has to agree to, whatever the commands say. Every rule has a
   * default; `protectedPaths` names what no change may touch.
   */
  readonly policy?: RuleSettings;
  /** Why the project has no tests, in words. Only then may a command named `test` find none to run. */
  readonly noTests?: string;
  /** Who looks at a change that has passed all commands. Default nobody. */
  readonly review?: ReviewOptions;
  /** Names of environment variables that agents and verification get besides the usual ones. */
  readonly environment?: readonly string[];
  /**
   * Names of environment variables that get a free port each, another for every agent at work and every verification:
   * `['PORT', 'API_PORT']`. On the loopback interface, from 20 000 to 29 999. Default none.
   */
  readonly ports?: readonly string[];
  /** Default `<directory>/.troupe`. */
  readonly stateDirectory?: string;
  /**
   * Refuse to open while a checkout of the target has uncommitted changes: they would hold back every merge. Nothing
   * has been begun then. Default false: what is ready to be merged waits, as an infrastructure fault, until it is clean.
   */
  readonly requireClean?: boolean;
}

// Written as an object so that the compiler misses a key that was forgotten.
const PROJECT_KEYS: Record<keyof GitProjectOptions, true> = {
  directory: true,
  target: true,
  verify: true,
  verifyTimeoutMs: true,
  preflight: true,
  verifyAtOnce: true,
  policy: true,
  noTests: true,
  review: true,
  environment: true,
  ports: true,
  stateDirectory: true,
  requireClean: true,
};

interface TaskOfRun {
  readonly run: string;
  readonly id: string;
  readonly title: string;
  readonly attempt: number;
  /** What is handed in mends that attempt. */
  readonly fix?: Pick<FixOrder, 'number' | 'session' | 'iteration'>;
}

/** The project as the roles use it: places to work in, submissions, verdicts. */
export class GitProject {
  readonly repository: Repository;
  readonly processes: ProcessRegistry;
  readonly #workspaces: Workspaces;
  readonly #options: GitProjectOptions;
  readonly #queue: MergeQueue;
  readonly #stateDirectory: string;
  readonly #faultPoint: FaultPoint;
  /** Files that configure the verification, from the top of the repository. */
  readonly #configuration: readonly string[];
  /** Takes secrets out of a text: those of the environment that commands get, and of `hideValuesOf`. */
  readonly redact: Redact = (text) => this.#redactor(text);
  #redactor: Redact;
  readonly #hidden = new Set<string>();
  /** By directory: the tree that a patch has made of a workspace's files, until they are collected or made anew. */
  readonly #patched = new Map<string, { readonly attempt: number; readonly tree: string }>();
  readonly #review: ReviewPanel | undefined;

  private constructor(
    options: GitProjectOptions,
    repository: Repository,
    processes: ProcessRegistry,
    stateDirectory: string,
    faultPoint: FaultPoint,
  ) {
    this.#options = options;
    this.#queue = new MergeQueue(options.verifyAtOnce ?? Math.min(availableParallelism(), 4));
    this.repository = repository;
    this.processes = processes;
    this.#stateDirectory = stateDirectory;
    this.#faultPoint = faultPoint;
    this.#configuration = (options.policy?.configuration ?? []).map((file) =>
      path
        .relative(repository.root, path.resolve(options.directory, file))
        .split(path.sep)
        .join('/'),
    );
    this.#redactor = redactorFor(this.environment({}));
    this.#workspaces = new Workspaces({
      repository,
      root: path.join(stateDirectory, 'workspaces'),
      faultPoint,
      ...(options.ports === undefined ? {} : { ports: options.ports }),
    });
    this.#review =
      options.review === undefined
        ? undefined
        : new ReviewPanel(withProject(options.review, options.directory), {
            workspaces: this.#workspaces,
            env: this.environment({}),
            redact: this.redact,
          });
  }

  /**
   * Opens the repository and puts in order what a crash has left: processes, and a checkout that had not followed.
   * @throws {ConfigurationError} the repository or the options cannot be worked with; nothing was changed
   */
  static async open(
    options: GitProjectOptions,
    faultPoint: FaultPoint = noFaults,
  ): Promise<GitProject> {
    readSettings(options, Object.keys(PROJECT_KEYS), 'project');
    checkVerifyCommands(options.verify);
    const { verifyAtOnce } = options;
    if (verifyAtOnce !== undefined && !(Number.isSafeInteger(verifyAtOnce) && verifyAtOnce >= 1)) {
      throw new ConfigurationError(
        `Expected project.verifyAtOnce to be a positive integer, got ${String(verifyAtOnce)}.`,
      );
    }
    if (options.review !== undefined) checkReviewOptions(options.review);
    checkPortNames(options.ports ?? []);
    const stateDirectory = path.resolve(
      options.stateDirectory ?? path.join(options.directory, '.troupe'),
    );
    await ensureIgnoredDirectory(stateDirectory);
    const processes = new ProcessRegistry(path.join(stateDirectory, 'processes'));
    const repository = await Repository.open({
      directory: options.directory,
      processes,
      ...(options.target === undefined ? {} : { target: options.target }),
    });
    return new GitProject(options, repository, processes, stateDirectory, faultPoint);
  }

  /** Ends processes of a crashed predecessor and completes a checkout it had not brought forward. */
  async recover(): Promise<{
    readonly processes: readonly Leftover[];
    readonly checkouts: readonly string[];
  }> {
    const processes = await this.processes.killLeftovers();
    // A git that was killed leaves its locks; whose they are is known from the processes that have just gone.
    await removeStaleLocks(this.repository, processes);
    const checkouts = await this.repository.finishCheckouts();
    return { processes, checkouts };
  }

  /**
   * Refuses what `requireClean` is about, if that was asked for. After `recover`: what looks like changes of the user
   * may be a checkout that a crash of ours has left behind.
   * @throws {ConfigurationError} names the checkouts, the changed files, and what to do
   */
  async checkClean(): Promise<void> {
    if (this.#options.requireClean !== true) return;
    const checkouts = await this.repository.checkedOutTargets();
    const reasons = checkouts.flatMap(({ reason }) => (reason === undefined ? [] : [reason]));
    if (reasons.length === 0) return;
    throw new ConfigurationError(
      `${reasons.join('\n')}\nUntil then nothing can be merged into ${this.repository.target}, and agents would not see these changes.`,
    );
  }

  /**
   * What of the project agents and verification will not see as its user does, though they can work: submodules, files in
   * LFS, a history that is cut. One sentence each, with what to do.
   */
  async notes(): Promise<readonly string[]> {
    const { repository } = this;
    const notes: string[] = [];
    if (existsSync(path.join(repository.commonDir, 'shallow'))) {
      notes.push(
        `The history of ${repository.root} is cut off (a shallow clone): a merge that needs what is missing will fail. Complete it: git fetch --unshallow.`,
      );
    }
    const { repositories, attributes } = await repository.specialEntries(
      await repository.targetHead(),
    );
    if (repositories.length > 0) {
      notes.push(
        `${some(repositories)} ${repositories.length === 1 ? 'is a submodule and an empty directory' : 'are submodules and empty directories'} for agents and verification, and stays as it is. What needs the files can fetch them first: git submodule update --init.`,
      );
    }
    for (const { path: name, blob } of attributes) {
      const text = (await repository.objects.content(blob))?.toString('utf8') ?? '';
      const patterns = text
        .split('\n')
        .filter((line) => !line.startsWith('#') && /\sfilter=lfs\b/.test(line))
        .map((line) => line.trim().split(/\s+/)[0] ?? '');
      if (patterns.length === 0) continue;
      notes.push(
        `Files in LFS (${some(patterns)} in ${name}) are pointers for agents and verification. What needs their content can fetch it first: git lfs pull. No agent should change them: its version would not be in LFS.`,
      );
    }
    return notes;
  }

  /** For when all work is over: waits for removals, ends what was kept running for the next question. */
  async close(): Promise<void> {
    await this.#workspaces.close();
    await this.repository.close();
    this.processes.close();
  }

  /** Removes the places of tasks that are over. */
  reap(live: readonly { readonly run: string; readonly task: string }[]): Promise<Reaped> {
    return this.#workspaces.reap(live);
  }

  /**
   * Removes what runs that have ended have left beside the store: artifacts and logs that are too many or too old, and
   * refs of runs that the store has forgotten. What cannot be removed now is queued.
   * @param runs asked for after looking, so that no run that has just been begun is missed
   * @returns how many of each
   */
  prune(
    runs: () => Promise<readonly { readonly run: string; readonly endedAt: number | null }[]>,
    retention: WholeRetention,
    now: number,
  ): Promise<Readonly<Record<'artifacts' | 'logs' | 'refs', number>>> {
    return this.#workspaces.pruneInTurn(async (cleanup) => {
      const live = slugsOf((await runs()).filter(({ endedAt }) => endedAt === null));
      const files = await findLeftoverFiles(this.#stateDirectory, live, retention.files, now);
      const removed = await removeLeftoverFiles(this.#stateDirectory, files, cleanup);
      const refs = await this.repository.exclusive(async () => {
        const listed = await this.repository.text(LIST_REFS);
        const withFiles = await runsWithFiles(this.#stateDirectory);
        const known = new Set([...slugsOf(await runs()), ...withFiles]);
        const found = findLeftoverRefs(listed, known, now - retention.finishedRunsMs);
        if (found.length > 0) {
          const orders = found.map(({ ref, object }) => `delete ${ref}\0${object}\0`);
          await this.repository.run(['update-ref', '-z', '--stdin'], { stdin: orders.join('') });
        }
        return found.length;
      });
      return { ...removed, refs };
    });
  }

  /** Where a task's files for people lie: its log, its task file, its evidence. */
  taskDirectory(run: string, task: string): string {
    return path.join(this.#stateDirectory, 'tasks', slugOf(run), slugOf(task));
  }

  /** @param more names of variables besides those that every command gets */
  environment(
    extra: Readonly<Record<string, string>>,
    more: readonly string[] = [],
  ): Record<string, string> {
    return buildEnvironment([...(this.#options.environment ?? []), ...more], extra);
  }

  /** From now on `redact` takes out the values of these variables as well: one agent is given them. */
  hideValuesOf(variables: readonly string[]): void {
    for (const name of variables) this.#hidden.add(name);
    this.#redactor = redactorFor(this.environment({}, [...this.#hidden]));
  }

  async prepare(
    input: Pick<WorkspaceInput, 'run' | 'id' | 'attempt' | 'submission'>,
    signal: AbortSignal,
  ): Promise<Workspace> {
    await this.repository.ensureBackupRef(input.run);
    const { commit } = (input.submission ?? {}) as { readonly commit?: string };
    const workspace = await this.#workspaces.prepare({
      run: input.run,
      task: input.id,
      attempt: input.attempt,
      ...(commit === undefined ? {} : { continueFrom: commit }),
      signal,
    });
    this.#patched.delete(workspace.directory);
    await this.#bringDependencies(workspace, signal);
    return workspace;
  }

  /** What a verification has made, and keeps, the agent need not make again; unless git would take it for the agent's work. */
  async #bringDependencies(workspace: Workspace, signal: AbortSignal): Promise<void> {
    for (const { command, cache } of this.#options.verify) {
      if (cache === undefined) continue;
      const { directory, gitDir } = workspace;
      const ignored = await this.repository.git.list(['check-ignore', '-z', '--stdin'], {
        cwd: directory,
        gitDir,
        workTree: directory,
        // Something in it: a rule about directories (`deps/`) says nothing about what is not there yet.
        stdin: cache.paths.map((each) => `${each}/x\0`).join(''),
        allowExitCodes: [0, 1],
        signal,
      });
      if (ignored.length < cache.paths.length) continue;
      const place = { directory, env: this.environment({}) };
      await this.#workspaces.cache.restore({ command, cache }, place);
    }
  }

  async release(input: WorkspaceInput, signal: AbortSignal): Promise<void> {
    await this.#workspaces.release({ run: input.run, task: input.id, signal });
  }

  /**
   * The submission of an earlier attempt that is on the target although its task does not know: the process was
   * killed again and again between the merge and its record, until the verification was given up.
   * @returns undefined when the target has nothing of the task since the run began
   */
  async findMerged(task: TaskOfRun): Promise<WorkOutcome | undefined> {
    const began = await this.repository.ensureBackupRef(task.run);
    const head = await this.repository.targetHead();
    const name = { run: task.run, task: task.id };
    const [merge] = await findMerges(this.repository, head, began, name);
    if (merge === undefined) return undefined;
    const { submission: commit, parent: base, tree } = merge;
    return { outcome: 'submitted', result: { commit, base, tree, note: null } };
  }

  /**
   * Applies a patch in a workspace in which nobody has worked yet. What it makes of the files is remembered until they
   * are collected, so that they need not be looked for then: whoever calls this lets nobody else work there.
   */
  async applyPatch(
    workspace: Workspace,
    patch: Uint8Array,
    signal: AbortSignal,
  ): Promise<PatchOutcome> {
    this.#patched.delete(workspace.directory);
    const { repository } = this;
    const outcome = await applyPatch({ repository, workspace, patch, untouched: true, signal });
    if (outcome.kind === 'applied') {
      this.#patched.set(workspace.directory, { attempt: workspace.attempt, tree: outcome.tree });
    }
    return outcome;
  }

  /** Makes a submission of what the agent left. One that changes nothing is a failed attempt, not a submission. */
  async collect(
    task: TaskOfRun,
    workspace: Workspace,
    note: JsonValue,
    signal: AbortSignal,
  ): Promise<WorkOutcome> {
    const patched = this.#patched.get(workspace.directory);
    this.#patched.delete(workspace.directory);
    const collected = await this.#workspaces.collect({
      workspace,
      ...(patched?.attempt === workspace.attempt ? { tree: patched.tree } : {}),
      ...nameOf(task),
      signal,
    });
    switch (collected.kind) {
      case 'empty':
        throw refused(
          task.fix === undefined
            ? 'The agent changed nothing.'
            : 'The agent changed nothing of what was handed in.',
          'apply',
        );
      case 'refused':
        throw refused(`The change cannot be taken: ${collected.reason}`, 'policy');
      case 'submitted': {
        const { kind: _kind, ...submission } = collected;
        return { outcome: 'submitted', result: { ...submission, note } };
      }
    }
  }

  /**
   * Runs the project's commands where the agent has worked, if `preflight` says so. After `collect`: what they write is
   * no part of the change.
   * @throws {RefusedWorkError} a command that counts has failed
   */
  async preflight(
    submission: Submission,
    workspace: Workspace,
    signal: AbortSignal,
    onCommand: (name: string) => void,
  ): Promise<void> {
    if (this.#options.preflight !== true) return;
    const { noTests } = this.#options;
    const { run, id: task, attempt } = submission;
    const directory = artifactDirectory(this.#stateDirectory, { run, task });
    const outcome = await checkInPlace(
      {
        workspaces: this.#workspaces,
        commands: this.#verifyCommandsFor(submission),
        // Beside those of the gatekeeper, and kept as long.
        logPrefix: `${newArtifactPath(directory, Date.now(), attempt)}.preflight`,
        redact: this.redact,
        ...(noTests === undefined ? {} : { noTests }),
        onCommand: ({ name }) => onCommand(name),
        signal,
      },
      workspace.directory,
      this.environment(workspace.env),
    );
    // What the machine is to blame for is for the gatekeeper to find: it keeps the work, and verifies it again later.
    if (outcome.kind !== 'failed') return;
    throw new RefusedWorkError(
      ...(['validation', feedbackOf(outcome), outcome.stage, outcome.commands] as const),
      submission.result,
    );
  }

  /**
   * Saves what an agent has left that was ended, or has died, in the middle of its work. What it had committed is a
   * submission, for the gatekeeper to judge; what it had not is kept below `refs/troupe/salvage/<run>/<task>`.
   * @param reason why it was ended
   */
  async salvage(
    task: TaskOfRun,
    workspace: Workspace,
    reason: string,
    signal: AbortSignal,
  ): Promise<{ readonly outcome?: WorkOutcome; readonly keptAs?: string }> {
    this.#patched.delete(workspace.directory);
    const collected = await this.#workspaces.collect({
      workspace,
      committedOnly: true,
      ...nameOf(task, { 'Troupe-Salvaged': 'yes' }),
      signal,
    });
    // After it: what is on the branch already is not kept twice.
    let ref: string | undefined;
    let rest = '';
    try {
      ref = await this.#workspaces.salvage(workspace);
      if (ref !== undefined) rest = ` What it had not committed is kept as ${ref}.`;
    } catch (error) {
      // What is committed is good without it.
      if (collected.kind !== 'submitted' || signal.aborted) throw error;
      rest = ` What it had not committed could not be kept: ${toFailure(error).message}`;
    }
    const kept = ref === undefined ? {} : { keptAs: path.posix.dirname(ref) };
    if (collected.kind !== 'submitted') return kept;
    const { kind: _kind, ...submission } = collected;
    const why = reason.split('\n', 1)[0] ?? reason;
    return {
      ...kept,
      outcome: {
        outcome: 'submitted',
        result: { ...submission, note: { salvaged: why, uncommitted: ref ?? null } },
        summary: `Salvaged: what the agent had committed before it was ended is handed in. ${why}${rest}`,
      },
    };
  }

  /** Submissions the gatekeeper takes at once: one in each lane, and as many that are made ready for one or wait to be merged. */
  get gatekeeperConcurrency(): number {
    return this.#queue.lanes * 2;
  }

  /**
   * Keeps an artifact of an attempt that never came to a gatekeeper: a patch that does not apply, an empty change, a
   * missing tool, an agent that took too long.
   * @returns the same failure, with the artifact's path among its facts; without, and saying why, when it could not be written
   */
  async keepFailure(task: TaskOfRun, workspace: Workspace, error: unknown): Promise<TroupeError> {
    const failure = toFailure(error);
    const { stage } = failure.context ?? {};
    const isStage = STAGES.some((each) => each === stage);
    const name = { run: task.run, task: task.id };
    const startedAtMs = Date.now();
    const directory = artifactDirectory(this.#stateDirectory, name);
    const file = `${newArtifactPath(directory, startedAtMs, task.attempt)}.json`;
    const message = this.redact(failure.message);
    try {
      await ensureIgnoredDirectory(path.join(this.#stateDirectory, 'tasks'));
      await writeArtifact(file, {
        version: 1,
        ...name,
        attempt: task.attempt,
        title: task.title,
        verdict: isStage ? 'rejected' : blame(failure) === 'work' ? 'failed' : 'infrastructure',
        ...(isStage ? { stage: stage as RejectionStage } : {}),
        reason: excerptOf(message),
        target: this.repository.target,
        base: workspace.base,
        commands: refusalIn(failure)?.evidence.commands ?? [],
        errorFingerprint: errorFingerprint(message) ?? '',
        startedAt: new Date(startedAtMs).toISOString(),
        durationMs: 0,
      });
    } catch (unwritten) {
      const why = unwritten instanceof Error ? unwritten.message : String(unwritten);
      return fromFailure({ ...failure, message: `${message} No artifact: ${why}` });
    }
    const artifact = path.relative(path.dirname(this.#stateDirectory), file);
    return fromFailure({ ...failure, message, context: { ...failure.context, artifact } });
  }

  /**
   * The gatekeeper of the target branch.
   * @param mayMove asked right before the target moves; rejects when another process has taken over meanwhile
   */
  verifier(mayMove: () => Promise<void>): Verifier {
    return async ({ submission, signal, progress }) => {
      const change = submission.result as unknown as {
        readonly commit: string;
        readonly base: string;
      };
      const { policy, noTests } = this.#options;
      const verdict = await verifyAndMerge({
        workspaces: this.#workspaces,
        submission: {
          run: submission.run,
          task: submission.id,
          attempt: submission.attempt,
          title: submission.title,
          commit: change.commit,
          base: change.base,
        },
        verify: [...this.#verifyCommandsFor(submission), ...acceptOf(submission.accept)],
        queue: this.#queue,
        policy: { ...policy, configuration: this.#configuration },
        ...(noTests === undefined ? {} : { noTests }),
        ...(this.#review === undefined ? {} : { review: this.#review }),
        ...(submission.approved ? { approvedCommit: change.commit } : {}),
        redact: this.redact,
        env: this.environment({}),
        fingerprint: (text) => errorFingerprint(text) ?? '',
        signal,
        onProgress: progress,
        mayMove,
        faultPoint: this.#faultPoint,
      });
      if (verdict.verdict === 'accepted') {
        // The work is in the target; the place it was made in is not needed any more.
        const { run, id: task } = submission;
        this.#workspaces.removeMeanwhile(this.#workspaces.release({ run, task }));
      }
      return verdict;
    };
  }

  #verifyCommandsFor(submission: Submission): readonly VerifyCommand[] {
    const { verify, verifyTimeoutMs } = this.#options;
    const timeoutMs = verifyTimeoutMs?.(submission);
    return timeoutMs === undefined ? verify : verify.map((step) => ({ ...step, timeoutMs }));
  }
}

/** What a submission is called in the history. */
function nameOf(
  { run, id, title, attempt, fix }: TaskOfRun,
  more: Readonly<Record<string, string>> = {},
) {
  return {
    message: title,
    ...(fix === undefined ? {} : { label: `${attempt}-fix${fix.number}` }),
    trailers: {
      'Troupe-Task': `${run}/${id}`,
      'Troupe-Attempt': String(attempt),
      ...(fix === undefined
        ? {}
        : { 'Troupe-Fix': `session ${fix.session}, iteration ${fix.iteration}` }),
      ...more,
    },
  };
}

/** Where work is refused before a gatekeeper sees it. */
const STAGES: readonly RejectionStage[] = ['apply', 'policy', 'setup', 'verify', 'verify_timeout'];

/** What an agent has left cannot be submitted: its fault, and not worth a verification. */
function refused(reason: string, stage: 'apply' | 'policy'): RefusedWorkError {
  return new RefusedWorkError('policy', reason, stage, {
    name: 'collect',
    command: 'git add --all',
    exitCode: null,
    excerpt: reason,
  });
}

const slugsOf = (runs: readonly { readonly run: string }[]): ReadonlySet<string> =>
  new Set(runs.map(({ run }) => slugOf(run)));

/**
 * What `prune` would remove from a project; reads only, also while a troupe works there.
 * @param retention of files and, for refs, of runs that have ended
 */
export async function countPrunableFiles(
  directory: string,
  runs: readonly { readonly run: string; readonly endedAt: number | null }[],
  retention: WholeRetention,
  now: number,
): Promise<Readonly<Record<'artifacts' | 'logs' | 'refs', number>>> {
  const stateDirectory = path.join(path.resolve(directory), '.troupe');
  const live = slugsOf(runs.filter(({ endedAt }) => endedAt === null));
  const files = await findLeftoverFiles(stateDirectory, live, retention.files, now);
  const processes = new ProcessRegistry(path.join(stateDirectory, 'processes'));
  try {
    const listed = await new Git({ processes }).text(LIST_REFS, { cwd: directory });
    // A run whose files would all go is known by them still: its refs go with the next round.
    const known = new Set([...slugsOf(runs), ...(await runsWithFiles(stateDirectory))]);
    const count = (kind: string): number => files.filter((file) => file.kind === kind).length;
    return {
      artifacts: count('artifacts'),
      logs: count('logs'),
      refs: findLeftoverRefs(listed, known, now - retention.finishedRunsMs).length,
    };
  } finally {
    processes.close();
  }
}

const some = (names: readonly string[]): string =>
  `${names.slice(0, 5).join(', ')}${names.length > 5 ? ', …' : ''}`;

/** It was checked when the run was made. */
function acceptOf(accept: JsonValue | undefined): readonly VerifyCommand[] {
  return ((accept ?? []) as unknown as readonly VerifyCommand[]).map((command) => ({
    ...command,
    name: acceptName(command),
  }));
}

/** In the words of a reviewer's command, `{project}` is where the project is, as for agents. */
function withProject(options: ReviewOptions, directory: string): ReviewOptions {
  return {
    ...options,
    reviewers: options.reviewers.map((reviewer) =>
      'command' in reviewer && typeof reviewer.command !== 'string'
        ? {
            ...reviewer,
            command: reviewer.command.map((word) => word.replaceAll('{project}', () => directory)),
          }
        : reviewer,
    ),
  };
}
