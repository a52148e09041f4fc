import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { slugOf } from '../../src/workspace/branch-name.ts';
import type { GateArtifact } from '../../src/workspace/gate-artifact.ts';
import type { Workload } from './manifest.ts';
import type { Scratch } from './scratch.ts';
import { verifyTree } from './verify-tree.ts';

/** A commit of main. */
interface MainCommit {
  readonly commit: string;
  readonly tree: string;
}

/** What has come onto main since, oldest first. */
export async function commitsSince(scratch: Scratch, base: string): Promise<readonly MainCommit[]> {
  const log = await scratch.git.text(
    [
      'log',
      '--first-parent',
      '--reverse',
      '--format=%H %T',
      '--end-of-options',
      'main',
      `^${base}`,
    ],
    { cwd: scratch.project },
  );
  return log.split('\n').flatMap((line) => {
    const [commit = '', tree = ''] = line.split(' ');
    return commit === '' ? [] : [{ commit, tree }];
  });
}

/**
 * Whether main was green at every commit: for each there is an accepted verdict, whose commands passed, of exactly its
 * tree.
 * @returns one sentence per commit without
 */
export function findUnproved(
  scratch: Scratch,
  run: string,
  commits: readonly MainCommit[],
): readonly string[] {
  const accepted = new Map<string, GateArtifact>();
  for (const artifact of artifactsOf(scratch, run)) {
    if (artifact.verdict !== 'accepted' || artifact.mergeCommit === undefined) continue;
    accepted.set(artifact.mergeCommit, artifact);
  }
  return commits.flatMap(({ commit, tree }) => {
    const artifact = accepted.get(commit);
    if (artifact === undefined) return [`main: ${commit} has no accepted verdict.`];
    if (artifact.tree !== tree) {
      return [`main: ${commit} has the tree ${tree}, and ${artifact.tree} was verified.`];
    }
    const passed = artifact.commands.some(({ exitCode }) => exitCode === 0);
    const failed = artifact.commands.some((c) => c.exitCode !== 0 && c.allowedToFail !== true);
    return passed && !failed ? [] : [`main: ${commit} was accepted without a command that passed.`];
  });
}

/** Runs the workload's script itself on every commit of main. @returns one sentence per commit that is not green */
export async function findRed(
  scratch: Scratch,
  workload: Workload,
  commits: readonly MainCommit[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const red: string[] = [];
  for (const { commit } of commits) {
    const end = await verifyTree(scratch, workload, commit, signal);
    const { exitCode, timedOut } = end;
    if (exitCode === 0 && !timedOut) continue;
    red.push(
      `main: ${commit} is red (${timedOut ? 'timeout' : (end.signal ?? `exit code ${exitCode}`)}).`,
    );
  }
  return red;
}

function artifactsOf(scratch: Scratch, run: string): GateArtifact[] {
  const root = path.join(scratch.state, 'tasks', slugOf(run));
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((name) => path.basename(path.dirname(name)) === 'gatekeeper' && name.endsWith('.json'))
    .map((name) => JSON.parse(readFileSync(path.join(root, name), 'utf8')) as GateArtifact);
}
