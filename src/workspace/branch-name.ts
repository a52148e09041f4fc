import { createHash } from 'node:crypto';

/** What all our branches begin with; nothing else in a user's repository does. */
export const BRANCH_PREFIX = 'troupe';

const MAX_SLUG_CHARACTERS = 40;
// Lower case only: refs and directories must also differ on file systems that ignore case.
const PLAIN_SLUG = /^[a-z0-9](?:[a-z0-9_]|\.(?!\.|$)|-(?!-))*$/;

/**
 * One path component for one id: the id itself if it is harmless everywhere (refs, directories, shells, file
 * systems that ignore case), else what is left of it and a hash, so that different ids stay different.
 */
export function slugOf(id: string): string {
  if (PLAIN_SLUG.test(id) && id.length <= MAX_SLUG_CHARACTERS && !id.endsWith('.lock')) return id;
  const hash = createHash('sha256').update(id).digest('hex').slice(0, 10);
  const readable = id
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, MAX_SLUG_CHARACTERS - hash.length - 1)
    .replace(/^-+|-+$/g, '');
  // `--` is in no plain slug, so that no plain id equals another one's slug with hash.
  return readable === '' ? `x--${hash}` : `${readable}--${hash}`;
}

export interface TaskName {
  readonly run: string;
  readonly task: string;
}

/** `<run>/<task>`, harmless in a ref and as a directory. */
export function taskPath({ run, task }: TaskName): string {
  return `${slugOf(run)}/${slugOf(task)}`;
}

/** The short name of a task's branch: `troupe/<run>/<task>`. */
export function branchOf(name: TaskName): string {
  return `${BRANCH_PREFIX}/${taskPath(name)}`;
}
