import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import type { CommandEvidence, RejectionStage } from '../protocol/verdict.ts';
import { type TaskName, taskPath } from './branch-name.ts';
import type { PolicyFlag } from './change-rules.ts';
import { writeDurably } from './durable-file.ts';
import type { ReviewVote } from './review.ts';

/** What is kept of one attempt: of each round of its gatekeeper, or of why it never came to one. */
export interface GateArtifact {
  readonly version: 1;
  readonly run: string;
  readonly task: string;
  readonly attempt: number;
  readonly title: string;
  /** `failed`: nothing was handed in. `superseded`: it passed, and the target moved before it could be merged. */
  readonly verdict:
    | 'accepted'
    | 'failed'
    | 'rejected'
    | 'approval_required'
    | 'infrastructure'
    | 'cancelled'
    | 'superseded';
  readonly stage?: RejectionStage;
  readonly reason: string;
  readonly target: string;
  /** Where the target stood. */
  readonly targetHead?: string;
  /** Absent when nothing was handed in. */
  readonly submission?: string;
  readonly base: string;
  /** The tree that was verified. */
  readonly tree?: string;
  /** The commit that the target was to move to. */
  readonly mergeCommit?: string;
  readonly files?: readonly string[];
  readonly commands: readonly CommandEvidence[];
  /** The artifact of the verification of the same tree that was relied upon. */
  readonly verifiedBefore?: string;
  /** What the policy found in the change. */
  readonly flags?: readonly PolicyFlag[];
  /** A person has agreed to what the flags say. */
  readonly approved?: boolean;
  /** Who looked at it, and what they said. */
  readonly reviews?: readonly ReviewVote[];
  readonly errorFingerprint?: string;
  readonly changeFingerprint?: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly durationMs: number;
}

/** `.troupe/tasks/<run>/<task>/gatekeeper`. */
export function artifactDirectory(stateDirectory: string, name: TaskName): string {
  return path.join(stateDirectory, 'tasks', taskPath(name), 'gatekeeper');
}

/** A path that no artifact has yet, without the extension: `<ISO time>-<attempt>`. */
export function newArtifactPath(directory: string, startedAtMs: number, attempt: number): string {
  // No colons: they are not allowed in file names everywhere.
  const time = new Date(startedAtMs).toISOString().replaceAll(':', '-');
  const stem = path.join(directory, `${time}-${attempt}`);
  let free = stem;
  for (let n = 2; existsSync(`${free}.json`); n++) free = `${stem}-${n}`;
  return free;
}

export async function writeArtifact(file: string, artifact: GateArtifact): Promise<void> {
  await writeDurably(file, `${JSON.stringify(artifact, null, 2)}\n`);
}

/** The artifact that says a merge commit was accepted. */
export async function findAcceptance(
  directory: string,
  mergeCommit: string,
): Promise<FoundArtifact | undefined> {
  return await findArtifact(
    directory,
    (artifact) => artifact.verdict === 'accepted' && artifact.mergeCommit === mergeCommit,
  );
}

interface FoundArtifact {
  readonly file: string;
  readonly artifact: GateArtifact;
}

/** The first artifact, oldest first, that fits. */
export async function findArtifact(
  directory: string,
  fits: (artifact: GateArtifact) => boolean,
): Promise<FoundArtifact | undefined> {
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  for (const name of names.filter((candidate) => candidate.endsWith('.json')).sort()) {
    const file = path.join(directory, name);
    const artifact = await readArtifact(file);
    if (artifact !== undefined && fits(artifact)) return { file, artifact };
  }
  return undefined;
}

async function readArtifact(file: string): Promise<GateArtifact | undefined> {
  try {
    const artifact = JSON.parse(await readFile(file, 'utf8')) as GateArtifact | null;
    return Array.isArray(artifact?.commands) && artifact.commands.length > 0 ? artifact : undefined;
  } catch {
    return undefined; // damaged: then it proves nothing
  }
}
