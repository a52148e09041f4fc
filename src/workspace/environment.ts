import { SECRET_NAME } from './redact.ts';

/** What a command needs to find its tools and to speak the user's language, and no more. */
const ALWAYS_ALLOWED = [
  'PATH',
  'HOME',
  'LANG',
  'LANGUAGE',
  'LC_*',
  'TERM',
  'TMPDIR',
  'USER',
  'LOGNAME',
  'SHELL',
  'TZ',
  'CI',
  'NO_COLOR',
  'FORCE_COLOR',
] as const;

/**
 * The complete environment of an agent's or a verification's command, picked from `source`.
 * @param allow names beyond the default list; `NAME_*` stands for a prefix. Git's own variables (`GIT_DIR`,
 *   `GIT_INDEX_FILE`, …) and Troupe's are never passed on: they would turn a command against another repository.
 * @param extra set as they are, after everything else.
 */
export function buildEnvironment(
  allow: readonly string[] = [],
  extra: Readonly<Record<string, string>> = {},
  source: NodeJS.ProcessEnv = process.env,
): Record<string, string> {
  const exact = new Set<string>();
  const prefixes: string[] = [];
  for (const entry of [...ALWAYS_ALLOWED, ...allow]) {
    if (entry.endsWith('*')) prefixes.push(entry.slice(0, -1));
    else exact.add(entry);
  }
  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries(source)) {
    if (value === undefined || /^(GIT|TROUPE)_/i.test(name)) continue;
    // A pattern never lets through what is named like a secret; only its exact name does.
    const byPattern = prefixes.some((prefix) => name.startsWith(prefix)) && !SECRET_NAME.test(name);
    if (exact.has(name) || byPattern) environment[name] = value;
  }
  return { ...environment, ...extra };
}
