import path from 'node:path';
import { CancelledError, ConfigurationError, TroupeError } from '../protocol/errors.ts';
import { type FaultPoint, noFaults } from '../protocol/fault-point.ts';
import type { CommandEvidence, Evidence, RejectionStage, Verdict } from '../protocol/verdict.ts';
import type { TaskName } from './branch-name.ts';
import { readChangeFacts } from './change-facts.ts';
import {
  type ChangeFacts,
  findFlags,
  type PolicyFlag,
  type RuleName,
  type RuleSettings,
} from './change-rules.ts';
import { messageWithTrailers } from './collect.ts';
import type { Captured } from './command-cache.ts';
import { excerptOf } from './excerpt.ts';
import {
  artifactDirectory,
  findAcceptance,
  findArtifact,
  type GateArtifact,
  newArtifactPath,
  writeArtifact,
} from './gate-artifact.ts';
import { GitError } from './git.ts';
import { ensureIgnoredDirectory } from './ignored-directory.ts';
import { mergeInMemory } from './merge-in-memory.ts';
import { type Ground, type MergePlace, MergeQueue } from './merge-queue.ts';
import type { Repository } from './repository.ts';
import { describeFinding, type ReviewPanel, type ReviewVote } from './review.ts';
import { moveTarget } from './target-branch.ts';
import {
  checkVerifyCommands,
  feedbackOf,
  isAcceptCommand,
  type VerifyCommand,
  verifyCommit,
} from './verification.ts';
import { type VerifiedTree, VerifiedTrees } from './verified-trees.ts';
import type { Workspaces } from './workspaces.ts';

/** What an agent has submitted. */
export interface Submission extends TaskName {
  readonly attempt: number;
  /** Becomes the subject of the commit on the target. */
  readonly title: string;
  readonly commit: string;
  readonly base: string;
}

export interface VerifyAndMergeOptions {
  readonly submission: Submission;
  /** From the target's configuration. */
  readonly verify: readonly VerifyCommand[];
  readonly workspaces: Workspaces;
  /** The line before the target; shared by all that merge into it. Default: one of its own. */
  readonly queue?: MergeQueue;
  /** Removes from a failure's text what varies, and hashes the rest. */
  readonly fingerprint: (text: string) => string;
  /** What is refused, and what a person has to agree to. From the target's configuration as well. */
  readonly policy?: RuleSettings;
  /** The submitted commit that was approved: an approval counts for what was seen, not for what came later. */
  readonly approvedCommit?: string;
  /** Who looks at what has passed. Default nobody. */
  readonly review?: ReviewPanel;
  /** Why the project has no tests; see `VerificationOptions.noTests`. */
  readonly noTests?: string;
  /** For the commands; see `VerificationOptions.env`. */
  readonly env?: Readonly<Record<string, string>>;
  readonly redact?: (text: string) => string;
  readonly onProgress?: (progress: GateProgress) => void;
  /** Asked right before the target moves; rejects if somebody else works on the repository by now. */
  readonly mayMove?: () => Promise<void>;
  readonly signal?: AbortSignal;
  readonly faultPoint?: FaultPoint;
  /** Milliseconds since 1970. Default `Date.now`. */
  readonly now?: () => number;
}

type GateProgress =
  | { readonly phase: 'merging' }
  | { readonly phase: 'running'; readonly command: string }
  | { readonly phase: 'reviewing' }
  | { readonly phase: 'moving' };

/** How often a target that moves under our hands is followed before we leave it to a later try. */
const MAX_ROUNDS = 5;

/**
 * Verifies the target with a change on top, and moves the target to exactly the tree that was verified.
 *
 * ```
 * already merged? ── merge in memory ── policy ── fresh checkout, commands ── review ── approval ── artifact ── swap ── checkouts
 *                          │ conflict      │                │ red             │          │                       │ lost
 *                       rejected       rejected         rejected          rejected     asked           from the start (5 times)
 * ```
 * Whatever the machine, not the change, is to blame for gives `infrastructure`. Every round leaves an artifact.
 * Crash: before the swap nothing has happened to the target, and what was verified is remembered by its tree; after
 * it the merged commit is recognised by its trailers and its artifact, and is not merged again.
 * @throws {CancelledError} `signal` was aborted before the swap
 */
export async function verifyAndMerge(options: VerifyAndMergeOptions): Promise<Verdict> {
  const place = (options.queue ?? new MergeQueue()).enter();
  let merged = false;
  try {
    for (let round = 1; round <= MAX_ROUNDS; ) {
      const ground = await place.ground(options.signal);
      const verdict = await new GateRound(options, place, ground).run();
      // Not a try of its own: who was ahead is not merged, and each of them says so once.
      if (verdict === 'ground_lost') continue;
      if (verdict === 'target_moved') {
        round++;
        continue;
      }
      merged = verdict.verdict === 'accepted';
      return verdict;
    }
    return await new GateRound(options, place, await place.ground(options.signal)).giveUp(
      `${options.workspaces.repository.target} moved during each of ${MAX_ROUNDS} rounds of verification.`,
    );
  } finally {
    place.leave(merged);
  }
}

/** Rules that need the outcome of the verification. */
const COUNTED: readonly RuleName[] = ['test-count'];
/** The artifact has them all; a verdict is stored and sent. */
const MAX_FLAGS_SHOWN = 50;

const shownVote = ({ reviewer, vote, reason, findings }: ReviewVote) => ({
  reviewer,
  vote,
  ...(reason === undefined ? {} : { reason }),
  findings: findings.slice(0, 10).map(describeFinding),
});

const shownFlag = ({ rule, action, path: file, reason }: PolicyFlag) => ({
  rule,
  action,
  ...(file === undefined ? {} : { path: file }),
  reason,
});

/** One pass from the target's head to a verdict. Collects what the artifact will say. */
class GateRound {
  readonly #options: VerifyAndMergeOptions;
  readonly #place: MergePlace;
  readonly #ground: Ground;
  /** Of the caller, or of the ground it is built on. */
  readonly #signal: AbortSignal;
  /** What it is built on: the target's head, or what that will be when those ahead are merged. */
  #head = '';
  readonly #repository: Repository;
  readonly #faultPoint: FaultPoint;
  readonly #now: () => number;
  readonly #startedAtMs: number;
  /** Without extension. */
  readonly #artifactPath: string;
  #facts: Partial<GateArtifact> = {};
  /** Whether a person has agreed to these. */
  #approval: { readonly flags: readonly PolicyFlag[]; readonly given: boolean } | undefined;
  /** What commands have made of this very tree; good for others when it is merged. */
  readonly #captured: Captured[] = [];

  constructor(options: VerifyAndMergeOptions, place: MergePlace, ground: Ground) {
    this.#options = options;
    this.#place = place;
    this.#ground = ground;
    const { signal } = options;
    this.#signal = AbortSignal.any(
      signal === undefined ? [ground.signal] : [signal, ground.signal],
    );
    this.#repository = options.workspaces.repository;
    this.#faultPoint = options.faultPoint ?? noFaults;
    this.#now = options.now ?? Date.now;
    this.#startedAtMs = this.#now();
    this.#artifactPath = newArtifactPath(
      artifactDirectory(options.workspaces.stateDirectory, options.submission),
      this.#startedAtMs,
      options.submission.attempt,
    );
  }

  async run(): Promise<Verdict | 'target_moved' | 'ground_lost'> {
    try {
      await ensureIgnoredDirectory(path.join(this.#options.workspaces.stateDirectory, 'tasks'));
      checkVerifyCommands(this.#options.verify);
      this.#signal.throwIfAborted();
      return await this.#decide();
    } catch (error) {
      if (this.#options.signal?.aborted === true) {
        await this.#writeArtifact('cancelled', 'The verification was called off.');
        throw new CancelledError('The verification was called off.', { cause: error });
      }
      if (this.#ground.signal.aborted) {
        await this.#writeArtifact('superseded', (this.#ground.signal.reason as Error).message);
        return 'ground_lost';
      }
      const reason = infrastructureReason(error);
      if (reason === undefined) throw error;
      return await this.giveUp(reason);
    } finally {
      for (const captured of this.#captured.splice(0)) await captured.discard();
      await this.#options.workspaces.settled();
    }
  }

  /** An infrastructure verdict, with an artifact if the disk takes one. */
  async giveUp(reason: string): Promise<Verdict> {
    const gone = (await this.#submissionIsGone()) ? { submissionGone: true as const } : {};
    try {
      await this.#writeArtifact('infrastructure', reason);
      return { verdict: 'infrastructure', reason, ...gone, evidence: this.#evidence() };
    } catch (error) {
      const why = infrastructureReason(error);
      if (why === undefined) throw error;
      const { artifact: _, ...evidence } = this.#evidence();
      const both = `${reason} No artifact: ${why}`;
      return { verdict: 'infrastructure', reason: both, ...gone, evidence };
    }
  }

  /** Only git's own word counts: one that fails over the question has not said that the commit is not there. */
  async #submissionIsGone(): Promise<boolean> {
    const asked = ['cat-file', '-e', this.#options.submission.commit];
    return await this.#repository.run(asked, { allowExitCodes: [0, 1] }).then(
      ({ exitCode }) => exitCode === 1,
      () => false,
    );
  }

  async #decide(): Promise<Verdict | 'target_moved'> {
    const { submission, policy, verify } = this.#options;
    const repository = this.#repository;
    const head = this.#ground.commit ?? (await repository.targetHead());
    this.#head = head;
    this.#note({ targetHead: head });
    const merged = await this.#findMerged(head);
    if (merged !== undefined) return await this.#acceptMerged(merged);

    this.#options.onProgress?.({ phase: 'merging' });
    const merge = await mergeInMemory(this.#options.workspaces, head, submission.commit);
    if (merge.kind === 'conflict') {
      const files = merge.files.join(', ');
      const change = await repository.readChange(
        await repository.treeOf(submission.base),
        await repository.treeOf(submission.commit),
      );
      this.#note({
        changeFingerprint: change.fingerprint,
        errorFingerprint: this.#options.fingerprint(`merge conflict: ${files}`),
      });
      return await this.#reject(
        'merge',
        `The change conflicts with ${repository.target} in ${files}.`,
        merge.files.map((file) => `Resolve the conflict with ${repository.target} in ${file}.`),
      );
    }
    const { tree } = merge;
    this.#note({ tree });
    const treeOfHead = await repository.treeOf(head);
    if (tree === treeOfHead) {
      const reason = `The change is empty: ${repository.target} has it already.`;
      return await this.#reject('apply', reason, [reason]);
    }
    const change = await repository.readChange(treeOfHead, tree);
    this.#note({
      files: change.files.map((file) => file.path),
      changeFingerprint: change.fingerprint,
    });
    const reviewers = this.#options.review?.options.reviewers ?? [];
    const commands = [...verify, ...reviewers.filter((each) => 'command' in each)].map(
      ({ command }) => command,
    );
    const facts = await readChangeFacts(repository, treeOfHead, tree, change, commands);
    const refused = await this.#applyPolicy(findFlags(facts, policy));
    if (refused !== undefined) return refused;
    const commit = await this.#commitOnTop(head, tree);
    this.#note({ mergeCommit: commit });
    await this.#faultPoint('gate.merged-in-memory');
    // Nobody builds on what a person has to agree to first.
    if (await this.#mustBeAsked()) this.#place.doubt();
    else this.#place.offer(commit);
    const failed =
      (await this.#verify(commit, tree)) ?? (await this.#review(commit, treeOfHead, tree));
    if (failed !== undefined) return failed;
    // What those ahead have counted is known only when they are through.
    if (!(await this.#counts(true))) return 'target_moved';
    return (
      (await this.#compareCounts(treeOfHead, facts)) ??
      (await this.#requireApproval()) ??
      (await this.#merge(head, commit))
    );
  }

  /** @returns undefined when nothing of it is refused; what a person has to see is asked when it is verified */
  async #applyPolicy(found: readonly PolicyFlag[]): Promise<Verdict | 'target_moved' | undefined> {
    const flags = [...(this.#facts.flags ?? []), ...found];
    if (flags.length > 0) this.#note({ flags });
    const refusals = found.filter(({ action }) => action === 'refuse').map(({ reason }) => reason);
    if (refusals.length === 0) return undefined;
    this.#note({ errorFingerprint: this.#options.fingerprint(refusals.join('\n')) });
    return await this.#reject('policy', refusals.join(' '), refusals);
  }

  /** What the target's own verification has counted is known as long as its tree is remembered. */
  async #compareCounts(
    treeOfHead: string,
    facts: ChangeFacts,
  ): Promise<Verdict | 'target_moved' | undefined> {
    const before = await this.#verifiedTrees(this.#ownCommands()).find(treeOfHead);
    const testCounts = (before?.commands ?? []).flatMap(({ name, tests }) => {
      const after = this.#facts.commands?.find((command) => command.name === name)?.tests;
      return tests === undefined || after === undefined
        ? []
        : [{ command: name, before: tests, after }];
    });
    return await this.#applyPolicy(
      findFlags({ ...facts, testCounts }, this.#options.policy, COUNTED),
    );
  }

  /** @returns undefined when the reviewers approve, or only advise, or there are none */
  async #review(
    commit: string,
    from: string,
    tree: string,
  ): Promise<Verdict | 'target_moved' | undefined> {
    const { review, submission } = this.#options;
    const { mode = 'gate' } = review?.options ?? {};
    if (review === undefined || mode === 'off') return undefined;
    this.#options.onProgress?.({ phase: 'reviewing' });
    const diff = await this.#diffForReview(from, tree);
    if (diff === undefined) {
      if (mode === 'advisory') return undefined;
      const large = 'The diff of the change is too large to be reviewed: hand it in in parts.';
      this.#note({ errorFingerprint: this.#options.fingerprint(large) });
      return await this.#reject('review', large, [large]);
    }
    const { outcome, votes } = await review.review(
      {
        run: submission.run,
        task: submission.task,
        title: submission.title,
        commit,
        changeFingerprint: this.#facts.changeFingerprint ?? commit,
        diff,
        files: this.#facts.files ?? [],
      },
      this.#signal,
    );
    this.#note({ reviews: votes });
    if (mode === 'advisory' || outcome === 'approved') return undefined;
    if (outcome === 'undecided') {
      const why = votes.map(({ reviewer, reason }) => `${reviewer}: ${reason}`).join(' ');
      return await this.giveUp(`No reviewer could answer, which is no approval. ${why}`);
    }
    const against = votes.filter(({ vote }) => vote === 'reject');
    const findings = against.flatMap(({ reviewer, findings: found }) =>
      found.map((finding) => `${reviewer}: ${describeFinding(finding)}`),
    );
    const names = against.map(({ reviewer }) => reviewer).join(', ');
    const reason = `The review did not approve (${names}).`;
    const text = [reason, ...findings].join('\n');
    this.#note({ errorFingerprint: this.#options.fingerprint(text) });
    return await this.#reject('review', reason, [excerptOf(text)]);
  }

  /** @returns undefined when it is larger than what git may print */
  async #diffForReview(from: string, tree: string): Promise<string | undefined> {
    try {
      const how = ['diff-tree', '-r', '-p', '-M', '--end-of-options', from, tree];
      return (await this.#repository.run(how)).stdout.toString('utf8');
    } catch (error) {
      if (error instanceof GitError && error.kind === 'too_much_output') return undefined;
      throw error;
    }
  }

  /** @returns undefined when nobody has to agree, or somebody has agreed to all that was found in this very commit */
  async #requireApproval(): Promise<Verdict | 'target_moved' | undefined> {
    if (!(await this.#mustBeAsked())) return undefined;
    if (!(await this.#counts(false))) return 'target_moved';
    const flags = this.#facts.flags ?? [];
    const reasons = flags.map(({ reason }) => reason);
    this.#note({ stage: 'policy' });
    await this.#writeArtifact('approval_required', reasons.join(' '));
    return { verdict: 'approval_required', stage: 'policy', reasons, evidence: this.#evidence() };
  }

  async #mustBeAsked(): Promise<boolean> {
    const flags = this.#facts.flags ?? [];
    if (flags.length === 0) return false;
    // Asked before the commands run and after them; in between nothing may have been found.
    if (this.#approval?.flags !== flags) {
      this.#approval = { flags, given: await this.#isApproved(flags) };
    }
    if (this.#approval.given) this.#note({ approved: true });
    return !this.#approval.given;
  }

  /** Whoever approved has seen what an artifact of then lists: what is found only now has been seen by nobody. */
  async #isApproved(flags: readonly PolicyFlag[]): Promise<boolean> {
    const { approvedCommit, submission, workspaces } = this.#options;
    if (approvedCommit !== submission.commit) return false;
    const seen = await findArtifact(
      artifactDirectory(workspaces.stateDirectory, submission),
      (artifact) =>
        artifact.verdict === 'approval_required' &&
        artifact.submission === approvedCommit &&
        flags.every(({ rule, path: file }) =>
          (artifact.flags ?? []).some((shown) => shown.rule === rule && shown.path === file),
        ),
    );
    return seen !== undefined;
  }

  /** The commands before the first that belongs to one task only: whatever the task, they are the same. */
  #ownCommands(): readonly VerifyCommand[] {
    const { verify } = this.#options;
    const first = verify.findIndex(isAcceptCommand);
    return first < 0 ? verify : verify.slice(0, first);
  }

  #verifiedTrees(commands = this.#options.verify): VerifiedTrees {
    const { workspaces, env, noTests } = this.#options;
    return new VerifiedTrees(path.join(workspaces.stateDirectory, 'verified-trees'), {
      commands,
      ...(env === undefined ? {} : { env }),
      ...(noTests === undefined ? {} : { noTests }),
    });
  }

  /**
   * Waits until what was found counts: all ahead have come to their end, and the target is what it was found on.
   * @returns false: begin again. So does what it throws when its ground is lost
   */
  async #counts(passed: boolean): Promise<boolean> {
    await this.#place.turn(passed, this.#options.signal);
    if (this.#ground.commit === undefined) return true;
    return (await this.#repository.targetHead()) === this.#head;
  }

  /** @returns undefined when the tree has passed */
  async #verify(commit: string, tree: string): Promise<Verdict | 'target_moved' | undefined> {
    const { workspaces, verify, env, redact, noTests, onProgress } = this.#options;
    const verified = this.#verifiedTrees();
    // What one command has left there another may need: they run all, or none.
    const always = verify.some((command) => command.always === true);
    const before = always ? undefined : await verified.find(tree);
    if (before !== undefined) {
      this.#note({ commands: before.commands, verifiedBefore: before.artifact });
      return undefined;
    }
    const signal = this.#signal;
    const outcome = await this.#place.verify(this.#options.signal, () =>
      verifyCommit({
        workspaces,
        commit,
        commands: verify,
        logPrefix: this.#artifactPath,
        onCommand: ({ name }) => onProgress?.({ phase: 'running', command: name }),
        ...(env === undefined ? {} : { env }),
        ...(redact === undefined ? {} : { redact }),
        ...(noTests === undefined ? {} : { noTests }),
        onCaptured: (captured) => this.#captured.push(captured),
        signal,
      }),
    );
    this.#note({ commands: outcome.commands });
    switch (outcome.kind) {
      case 'infrastructure':
        return await this.giveUp(outcome.reason);
      case 'failed':
        this.#note({
          errorFingerprint: this.#options.fingerprint(`${outcome.reason}\n${outcome.output}`),
        });
        return await this.#reject(outcome.stage, outcome.reason, [feedbackOf(outcome)]);
      case 'passed':
        await this.#remember(tree, outcome.commands);
        return undefined;
    }
  }

  /** What has passed all commands has passed the first of them, too. */
  async #remember(tree: string, commands: readonly CommandEvidence[]): Promise<void> {
    const artifact = this.#relativeArtifact();
    const own = this.#ownCommands();
    await this.#rememberUnder(this.#options.verify, tree, { commands, artifact });
    if (own.length === 0 || own.length === this.#options.verify.length) return;
    const ofOwn = commands.slice(0, own.length);
    await this.#rememberUnder(own, tree, { commands: ofOwn, artifact });
  }

  async #rememberUnder(
    verify: readonly VerifyCommand[],
    tree: string,
    verified: VerifiedTree,
  ): Promise<void> {
    const trees = this.#verifiedTrees(verify);
    await trees.remember(tree, verified);
    this.#options.workspaces.removeMeanwhile(trees.prune());
  }

  async #merge(head: string, commit: string): Promise<Verdict | 'target_moved'> {
    const { submission, onProgress, signal, mayMove } = this.#options;
    await this.#faultPoint('gate.verified-before-artifact');
    const summary = `Verified and merged as ${commit}.`;
    await this.#writeArtifact('accepted', summary);
    await this.#faultPoint('gate.artifact-before-ref');
    // From here on it is done or not done, whatever the signal says.
    signal?.throwIfAborted();
    onProgress?.({ phase: 'moving' });
    const outcome = await moveTarget(this.#repository, {
      from: head,
      to: commit,
      message: `troupe: merge ${trailerValue(submission)}`,
      faultPoint: this.#faultPoint,
      ...(mayMove === undefined ? {} : { mayMove }),
    });
    switch (outcome.kind) {
      case 'moved':
        for (const captured of this.#captured.splice(0)) await captured.keep();
        return { verdict: 'accepted', evidence: this.#evidence() };
      case 'moved_meanwhile':
        await this.#writeArtifact('superseded', `${this.#repository.target} moved meanwhile.`);
        return 'target_moved';
      case 'obstructed':
        return await this.giveUp(outcome.reason);
    }
  }

  /** The commit on the target that an earlier, interrupted call has made of this very submission. */
  async #findMerged(head: string): Promise<{ commit: string; tree: string } | undefined> {
    const { submission } = this.#options;
    const merges = await findMerges(this.#repository, head, submission.base, submission);
    return merges.find((merge) => merge.submission === submission.commit);
  }

  async #acceptMerged({
    commit,
    tree,
  }: {
    commit: string;
    tree: string;
  }): Promise<Verdict | 'target_moved'> {
    this.#note({ tree, mergeCommit: commit });
    const { workspaces, submission } = this.#options;
    const acceptance = await findAcceptance(
      artifactDirectory(workspaces.stateDirectory, submission),
      commit,
    );
    if (acceptance !== undefined) {
      this.#note({ commands: acceptance.artifact.commands });
      const artifact = this.#relative(acceptance.file);
      return { verdict: 'accepted', evidence: { ...this.#evidence(), artifact } };
    }
    // It is there, and what proved it is lost: no evidence, no acceptance. So it is proved again.
    const refused = await this.#verify(commit, tree);
    if (refused !== undefined) return refused;
    await this.#writeArtifact('accepted', `Merged before as ${commit}; verified again.`);
    return { verdict: 'accepted', evidence: this.#evidence() };
  }

  async #commitOnTop(head: string, tree: string): Promise<string> {
    const { submission } = this.#options;
    const subject = submission.title.replace(/\s+/g, ' ').trim() || 'Change';
    const message = messageWithTrailers(subject, {
      [TASK_TRAILER]: trailerValue(submission),
      [SUBMISSION_TRAILER]: submission.commit,
      'Troupe-Attempt': String(submission.attempt),
    });
    return await this.#repository.text(['commit-tree', tree, '-p', head, '-F', '-'], {
      stdin: message,
    });
  }

  async #reject(
    stage: RejectionStage,
    reason: string,
    feedback: readonly string[],
  ): Promise<Verdict | 'target_moved'> {
    if (!(await this.#counts(false))) return 'target_moved';
    this.#note({ stage });
    await this.#writeArtifact('rejected', reason);
    const { errorFingerprint, changeFingerprint } = this.#facts;
    return {
      verdict: 'rejected',
      stage,
      reason,
      feedback,
      ...(errorFingerprint === undefined ? {} : { errorFingerprint }),
      ...(changeFingerprint === undefined ? {} : { changeFingerprint }),
      evidence: this.#evidence(),
    };
  }

  #note(facts: Partial<GateArtifact>): void {
    this.#facts = { ...this.#facts, ...facts };
  }

  async #writeArtifact(verdict: GateArtifact['verdict'], reason: string): Promise<void> {
    const { run, task, attempt, title, commit, base } = this.#options.submission;
    this.#note({ verdict });
    await writeArtifact(`${this.#artifactPath}.json`, {
      commands: [],
      ...this.#facts,
      version: 1,
      run,
      task,
      attempt,
      title,
      verdict,
      reason,
      target: this.#repository.target,
      submission: commit,
      base,
      startedAt: new Date(this.#startedAtMs).toISOString(),
      durationMs: this.#now() - this.#startedAtMs,
    });
  }

  #evidence(): Evidence {
    const { commands = [], verdict, mergeCommit, tree, verifiedBefore, flags } = this.#facts;
    const { stage, approved, reviews } = this.#facts;
    const details = {
      ...(verifiedBefore === undefined ? {} : { verifiedBefore }),
      ...(stage === undefined ? {} : { stage }),
      ...(flags === undefined ? {} : { flags: flags.slice(0, MAX_FLAGS_SHOWN).map(shownFlag) }),
      ...(approved === undefined ? {} : { approved }),
      ...(reviews === undefined ? {} : { reviews: reviews.map(shownVote) }),
    };
    const merged = verdict === undefined || verdict === 'accepted';
    return {
      artifact: this.#relativeArtifact(),
      commands: commands as readonly CommandEvidence[],
      ...(merged && mergeCommit !== undefined ? { commit: mergeCommit } : {}),
      ...(merged && tree !== undefined ? { tree } : {}),
      ...(Object.keys(details).length === 0 ? {} : { details }),
    };
  }

  #relativeArtifact(): string {
    return this.#relative(`${this.#artifactPath}.json`);
  }

  #relative(file: string): string {
    return path.relative(path.dirname(this.#options.workspaces.stateDirectory), file);
  }
}

/** A commit that a gatekeeper has put on the target. */
export interface Merge {
  readonly commit: string;
  readonly parent: string;
  readonly tree: string;
  /** The submitted commit that it was made of. */
  readonly submission: string;
}

/**
 * What the target has of a task between two commits, newest first; told by the trailers of its commits. What was reverted
 * since it has no more: the task is done anew.
 */
export async function findMerges(
  repository: Repository,
  head: string,
  since: string,
  task: TaskName,
): Promise<readonly Merge[]> {
  if (head === since || (await hasNoneOf(repository, head, since, trailerValue(task)))) return [];
  const trailer = (key: string) => `%(trailers:key=${key},valueonly,separator=%x2C)`;
  const log = await repository.text([
    'log',
    '--first-parent',
    `--format=%H%x09%P%x09%T%x09${trailer(SUBMISSION_TRAILER)}%x09${trailer(TASK_TRAILER)}`,
    '--end-of-options',
    head,
    `^${since}`,
  ]);
  const merges = log.split('\n').flatMap((line) => {
    const [commit = '', parent = '', tree = '', submission = '', ...name] = line.split('\t');
    const ours = submission !== '' && name.join('\t') === trailerValue(task);
    return ours ? [{ commit, parent, tree, submission }] : [];
  });
  if (merges.length === 0) return merges;
  const reverts = await repository.text([
    'log',
    '--format=%B',
    `--grep=${REVERTS}`,
    '--end-of-options',
    head,
    `^${since}`,
  ]);
  return merges.filter(({ commit }) => !reverts.includes(`${REVERTS}${commit}`));
}

/** As far as is looked without a git of its own: those that are verified beside each other are fewer. */
const FEW_COMMITS = 50;

/**
 * Whether the target has certainly nothing of a task: between the two there are few commits, and none of them as much as
 * names it. Read through the git that lives on; most changes are merged while others are being made.
 */
async function hasNoneOf(
  repository: Repository,
  head: string,
  since: string,
  name: string,
): Promise<boolean> {
  let commit: string | undefined = head;
  for (let seen = 0; seen < FEW_COMMITS && commit !== undefined; seen++) {
    if (commit === since) return true;
    const content: Buffer | undefined = await repository.objects.content(commit);
    if (content === undefined || content.includes(`${TASK_TRAILER}: ${name}`)) return false;
    commit = /^parent (\w+)$/m.exec(content.toString('latin1').split('\n\n', 1)[0] ?? '')?.[1];
  }
  return false;
}

/** What `git revert` writes. */
const REVERTS = 'This reverts commit ';

const TASK_TRAILER = 'Troupe-Task';
const SUBMISSION_TRAILER = 'Troupe-Submission';

function trailerValue({ run, task }: TaskName): string {
  return `${run}/${task}`.replace(/\s+/g, ' ').trim();
}

/** The system's codes for a machine in trouble, not a program with a mistake. */
const MACHINE_CODES = new Set([
  'ENOSPC',
  'EDQUOT',
  'EIO',
  'EROFS',
  'EMFILE',
  'ENFILE',
  'ENOMEM',
  'EAGAIN',
  'EBUSY',
  'EACCES',
  'EPERM',
]);

/** @returns undefined for what is a mistake in the program */
function infrastructureReason(error: unknown): string | undefined {
  if (error instanceof GitError || error instanceof ConfigurationError) return error.message;
  if (error instanceof TroupeError) return error.retryable ? error.message : undefined;
  const code = (error as NodeJS.ErrnoException | null)?.code;
  if (error instanceof Error && typeof code === 'string' && MACHINE_CODES.has(code)) {
    return error.message;
  }
  return undefined;
}
