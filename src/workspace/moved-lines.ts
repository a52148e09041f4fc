import { counted, surplus, take } from './multiset.ts';

/** Both sides of one changed file; undefined where there is none, or none that is read. */
export interface ChangedText {
  readonly path: string;
  readonly before: string | undefined;
  readonly after: string | undefined;
}

/**
 * The deleted files whose content lives on: at least half of the lines they held were added to other files by the same
 * change, whatever stands before and after the words (a list's dash, an indent, a comma). So notes that are gathered into a
 * changelog, and modules that are merged into one, are no loss. One added line stands for one lost line.
 */
export function findMovedOn(files: readonly ChangedText[]): ReadonlySet<string> {
  const added = counted(
    files.flatMap(({ before, after }) => surplus(linesOf(after), linesOf(before))),
  );
  const movedOn = new Set<string>();
  for (const { path, before, after } of files) {
    if (before === undefined || after !== undefined) continue;
    const lines = linesOf(before);
    const found = lines.filter((line) => take(added, line));
    if (found.length * 2 >= lines.length && found.length > 0) movedOn.add(path);
    // What is lost all the same leaves these lines for others.
    else for (const line of found) added.set(line, (added.get(line) ?? 0) + 1);
  }
  return movedOn;
}

/** Without what surrounds the words; lines without any word say nothing. */
function linesOf(text: string | undefined): string[] {
  return (text ?? '')
    .split('\n')
    .map((line) => line.replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, ''))
    .filter((line) => line !== '');
}
