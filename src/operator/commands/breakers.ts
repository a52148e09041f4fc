import { type BreakerStatus, listBreakers } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { deliver } from '../deliver.ts';
import { readProject } from '../stored-runs.ts';
import { safeJson } from '../terminal/text.ts';

/** `reset-breaker AGENT`: what was left alone is asked again at once. */
export async function resetBreaker(
  cli: CliContext,
  name: string,
  { json }: { readonly json: boolean },
): Promise<number> {
  const place = await cli.project();
  // First: what is there has a name, and nothing is opened for what is not.
  const keys = await readProject(place, async (store) =>
    (await listBreakers(store)).map(({ key }) => key),
  );
  // People know agents by their names; a breaker of the app's own has a key as it is.
  const key = keys.includes(name) ? name : `agent/${name}`;
  const { result, active } = await deliver(cli, place, { order: 'resetBreaker', key });
  if (json) cli.stdout.raw(`${safeJson({ ...result, active })}\n`);
  else cli.stdout.line(`The circuit breaker of ${nameOf(key)} is closed.`);
  return 0;
}

/** What `status` says of breakers that are not closed. */
export function breakerLines(
  breakers: readonly BreakerStatus[],
  command: string,
  now: number,
): readonly string[] {
  return breakers.flatMap(({ key, state, openUntil, settings }) => {
    if (state === 'closed') return [];
    const reset = `Ask it again now: ${command} reset-breaker ${key.replace(/^agent\//, '')}`;
    if (state === 'halfOpen') {
      return [
        `The circuit breaker of ${nameOf(key)} is half open: it does one thing at a time until ${settings.successes} have gone well. ${reset}`,
      ];
    }
    const seconds = Math.max(0, Math.ceil(((openUntil ?? now) - now) / 1000));
    const then = seconds === 0 ? 'when a troupe runs' : `in ${seconds} s`;
    return [
      `The circuit breaker of ${nameOf(key)} is open after ${settings.failures} failures in a row: it is tried again ${then}. ${reset}`,
    ];
  });
}

const nameOf = (key: string): string =>
  key.startsWith('agent/') ? `agent ${key.slice('agent/'.length)}` : key;
