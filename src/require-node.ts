/**
 * Refuses a Node that is too old, before anything native is loaded: `src/index.ts` and the `troupe`
 * command import this file first. On an older Node one line goes to stderr and the process exits
 * with 41 (`configuration`). Nothing has been opened by then, so nothing is left behind.
 *
 * An ES module's imports are evaluated in order, so the exit comes before any database is opened.
 * That would not fail politely: better-sqlite3 13 ends Node 20 with a segmentation fault.
 *
 * The compiled file has to run on those old versions itself: it imports nothing and keeps to ES2015.
 */

const NEEDED_MAJOR = 24;
const NEEDED_MINOR = 12; // The first release whose type stripping is stable.
const EXIT_CODE = 41; // EXIT_CODES.configuration; importing it would make errors.ts a part of this check.

/**
 * @param nodeVersion as in `process.versions.node`: `24.12.0`, without a leading `v`
 * @param executable the path of the running Node, named in the message
 * @returns one line for the user, or `undefined` when this Node will do
 * @internal
 */
export function complaintAboutNode(nodeVersion: string, executable: string): string | undefined {
  const [major = 0, minor = 0] = nodeVersion.split('.').map(Number);
  if (major > NEEDED_MAJOR || (major === NEEDED_MAJOR && minor >= NEEDED_MINOR)) return undefined;
  return (
    `troupe needs Node ${NEEDED_MAJOR}.${NEEDED_MINOR} or newer, and this is Node ${nodeVersion} (${executable}): ` +
    'install a newer Node (https://nodejs.org), or "npm install node@24" in this project and start it with npx or an npm script.'
  );
}

const complaint = complaintAboutNode(process.versions.node, process.execPath);
if (complaint !== undefined) {
  process.stderr.write(`${complaint}\n`);
  process.exit(EXIT_CODE);
}
