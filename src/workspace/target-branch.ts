import { type FaultPoint, noFaults } from '../protocol/fault-point.ts';
import {
  type Checkout,
  findObstacle,
  finishCheckouts,
  followCheckout,
  forgetMove,
  listTargetCheckouts,
  noteMove,
  undoneRef,
} from './checkouts.ts';
import { GitError } from './git.ts';
import type { Repository } from './repository.ts';

export interface TargetMove {
  /** Where the target must stand. */
  readonly from: string;
  readonly to: string;
  /** For the reflog. */
  readonly message: string;
  /** Asked right before the swap; rejects if somebody else works on the repository by now. */
  readonly mayMove?: () => Promise<void>;
  readonly faultPoint?: FaultPoint;
}

export type TargetMoveOutcome =
  | { readonly kind: 'moved' }
  /** Somebody else moved it; nothing was changed. */
  | { readonly kind: 'moved_meanwhile' }
  /** A checkout of the target is not clean; nothing was changed. Says which and what to do. */
  | { readonly kind: 'obstructed'; readonly reason: string };

/**
 * Moves the target branch by compare-and-swap and lets the working trees that have it checked out follow, all of
 * them clean or none of it.
 * Crash: before the swap nothing has changed; after it `finishCheckouts` brings the files up to date.
 */
export async function moveTarget(
  repository: Repository,
  move: TargetMove,
): Promise<TargetMoveOutcome> {
  const faultPoint = move.faultPoint ?? noFaults;
  return await repository.exclusive(async () => {
    if ((await repository.targetHead()) !== move.from) return { kind: 'moved_meanwhile' };
    const checkouts = await listTargetCheckouts(repository);
    const obstacle = await firstObstacle(repository, checkouts, move);
    if (obstacle !== undefined) return { kind: 'obstructed', reason: obstacle };
    await move.mayMove?.();
    if (checkouts.length > 0) await noteMove(repository, move.from, move.to);
    if (!(await swap(repository, move.from, move.to, move.message))) {
      await forgetMove(repository);
      return { kind: 'moved_meanwhile' };
    }
    await faultPoint('gate.ref-before-checkout');
    const followed: Checkout[] = [];
    for (const checkout of checkouts) {
      try {
        await followCheckout(repository, checkout, move.from, move.to);
        followed.push(checkout);
      } catch (error) {
        if (!(error instanceof GitError)) throw error;
        if (followed.length > 0 || !(await undo(repository, move))) throw error;
        // It was clean a moment ago: somebody edits there right now, or the disk is full.
        const reason = `${checkout.directory} could not follow ${repository.target}: ${error.message}`;
        return { kind: 'obstructed', reason: `${reason}${await takeBack(repository)}` };
      }
    }
    await forgetMove(repository);
    await faultPoint('gate.after-checkout');
    return { kind: 'moved' };
  });
}

async function firstObstacle(
  repository: Repository,
  checkouts: readonly Checkout[],
  move: TargetMove,
): Promise<string | undefined> {
  const find = async (): Promise<string | undefined> => {
    for (const checkout of checkouts) {
      const reason = await findObstacle(repository, checkout, move.from, move.to);
      if (reason !== undefined) return reason;
    }
    return undefined;
  };
  const obstacle = await find();
  if (obstacle === undefined) return undefined;
  // What looks dirty may be our own unfinished update of an earlier move.
  return (await finishCheckouts(repository)).length === 0 ? obstacle : await find();
}

/**
 * Moves the target back, and notes for whom finds files of the move in a checkout that it was called off.
 * @returns false when the target does not stand where it was moved to
 */
async function undo(repository: Repository, { from, to }: TargetMove): Promise<boolean> {
  const updates = [`update ${repository.targetRef} ${from} ${to}`, `update ${undoneRef(to)} ${to}`];
  try {
    await repository.run(['update-ref', '-m', 'troupe: undo', '--stdin'], {
      stdin: `${updates.join('\n')}\n`,
    });
    return true;
  } catch (error) {
    if ((await repository.targetHead()) !== to) return false;
    throw error;
  }
}

/** @returns what is to be said about it; empty when the checkouts are as they were */
async function takeBack(repository: Repository): Promise<string> {
  try {
    await finishCheckouts(repository);
    return '';
  } catch (error) {
    if (!(error instanceof GitError)) throw error;
    return ` What it had written already is taken out later: ${error.message}`;
  }
}

/** @returns false when the branch does not stand at `from` */
async function swap(
  repository: Repository,
  from: string,
  to: string,
  message: string,
): Promise<boolean> {
  try {
    await repository.run(['update-ref', '-m', message, repository.targetRef, to, from]);
    return true;
  } catch (error) {
    // The exit code (128) is the same for every failure; the branch itself tells which it was.
    if ((await repository.targetHead()) !== from) return false;
    throw error;
  }
}
