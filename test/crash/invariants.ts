import { databaseInvariants } from './database-invariants.ts';
import { historyInvariants } from './history-invariants.ts';
import { journalInvariants } from './journal-invariants.ts';
import { projectInvariants } from './project-invariants.ts';
import { openWorld, type World } from './world.ts';

/*
 * The oracle that every crash test ends with: what must be true of a project whatever has happened to it.
 *
 * An invariant is a function from the world (the store, the repository, the history that the workload wrote, the
 * process table) to sentences that say what is wrong; no sentence, no complaint. To add one, add it to the list of
 * its group. Money (I5) and responsiveness (I11) will be groups of their own.
 */

/** Says what is wrong, one sentence each. */
export interface Invariant {
  readonly name: string;
  /** Left out where it cannot be asked: the history of a run that kept none, the repository of one without. */
  readonly applies?: (world: World) => boolean;
  readonly check: (world: World) => readonly string[] | Promise<readonly string[]>;
}

export interface Expectation {
  /** Task → the state it must have ended in. Left out: every task is done. */
  readonly tasks?: Readonly<Record<string, string>>;
  /** The process was killed while it was at it: whatever was committed must be consistent, but nothing need be at rest. */
  readonly atRest?: boolean;
  /** How often the fault fired. A fault that did not fire proves nothing. */
  readonly fired: number;
  /** Attempts of a task that count as failed; undefined: any number. Left out: not checked. */
  readonly failures?: (task: string) => number | undefined;
  /** Where the target branch stood before. */
  readonly base?: string;
  /** The user's own files, by path in the project, as they must still be. */
  readonly untouched?: Readonly<Record<string, string>>;
  /** `NAME=value` in the environment of everything the project has started. */
  readonly marker?: string;
}

export interface Checked {
  /** What it has looked at, so that a test can see that it has looked at something. */
  readonly actors: number;
  readonly turns: number;
  readonly facts: number;
  readonly merges: number;
}

const INVARIANTS: readonly Invariant[] = [
  ...databaseInvariants,
  ...journalInvariants,
  ...historyInvariants,
  ...projectInvariants,
];

/**
 * Checks everything that must hold after a fault. No process may have the store open.
 * @throws one error with every violation found, by invariant
 */
export async function checkInvariants(options: {
  readonly projectDirectory?: string;
  readonly storePath: string;
  /** The file that the workload wrote; see history.ts. */
  readonly history?: string;
  readonly expect: Expectation;
}): Promise<Checked> {
  using world = openWorld(options);
  const violations: string[] = [];
  if (options.expect.fired < 1) violations.push('I12 the fault fired: it did not.');
  for (const { name, applies, check } of INVARIANTS) {
    if (applies?.(world) === false) continue;
    for (const sentence of await check(world)) violations.push(`${name}: ${sentence}`);
  }
  if (violations.length > 0) {
    const shown = violations.slice(0, 40);
    const more = violations.length - shown.length;
    throw new Error(
      `${violations.length} violations:\n${shown.join('\n')}${more > 0 ? `\n… and ${more} more` : ''}`,
    );
  }
  return {
    actors: world.actors.length,
    turns: world.actors.reduce((sum, { checkpoints }) => sum + checkpoints.length, 0),
    facts: world.history.length,
    merges: world.project?.commits.length ?? 0,
  };
}
