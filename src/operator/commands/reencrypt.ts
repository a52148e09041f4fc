import { ConfigurationError, type Reencrypted } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { loadConfig } from '../config.ts';
import { deliver } from '../deliver.ts';
import { readProject } from '../stored-runs.ts';
import { safeJson } from '../terminal/text.ts';

/** While nothing can be shown in place, a line each so many texts. */
const SAY_EVERY = 10_000;

/**
 * `troupe reencrypt`: brings everything that is stored under the current key, while a run may be active. Killed, it is
 * begun again: what is done is only looked at.
 */
export async function reencrypt(
  cli: CliContext,
  { json }: { readonly json: boolean },
): Promise<number> {
  const place = await cli.project();
  const { encryption } = await loadConfig(place.file, place.directory);
  if (encryption === undefined) {
    throw new ConfigurationError(
      `There is no key to encrypt with: ${place.file} has no encryption. Say where the keys are, for example "encryption: { keyFile: ../keys.txt }".`,
    );
  }
  // A store that nobody has made yet is refused here, and not made.
  await readProject(place, () => Promise.resolve());
  let said = 0;
  const onProgress = ({ texts, rewritten }: Reencrypted): void => {
    if (json || texts - said < SAY_EVERY) return;
    said = texts;
    cli.stderr.line(`${texts} texts looked at, ${rewritten} of them encrypted anew.`);
  };
  const order = { order: 'reencrypt' } as const;
  const { result, active } = await deliver(cli, place, order, { onReencrypted: onProgress });
  const { texts, rewritten } = result.reencrypted ?? { texts: 0, rewritten: 0 };
  if (json) cli.stdout.raw(`${safeJson({ texts, rewritten, active })}\n`);
  else {
    cli.stdout.line(
      rewritten === 0
        ? `All ${texts} texts were under the current key.`
        : `Encrypted ${rewritten} of ${texts} texts anew. Older keys are needed no more, but for backups.`,
    );
  }
  return 0;
}
