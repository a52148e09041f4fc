import path from 'node:path';
import type { CliContext } from '../cli-context.ts';
import { writeInitialConfig } from '../config.ts';

/** `troupe init`: looks at a project and writes its first troupe.yaml. */
export async function init(cli: CliContext, directory: string): Promise<number> {
  const { stdout } = cli;
  const { file, detected, complete, gitignore } = await writeInitialConfig(
    path.resolve(cli.cwd, directory),
  );
  const because = detected.because.length === 0 ? '' : ` (${detected.because.join(', ')})`;
  stdout.line([{ text: `Wrote ${path.relative(cli.cwd, file) || file}`, style: 'bold' }]);
  stdout.line(
    detected.kind === 'unknown'
      ? 'What kind of project this is could not be told.'
      : `Found a project of kind ${detected.kind}${because}; work goes to the branch ${detected.target}.`,
  );
  for (const { name, run } of detected.commands) stdout.line(`  ${name}: ${run}`);
  if (gitignore !== 'unchanged')
    stdout.line(`.gitignore was ${gitignore}: .troupe/ is not for git.`);
  stdout.line(
    complete
      ? 'Next: write your agents and tasks into it, commit, then "troupe run".'
      : 'No test command was found: fill in the place that is marked in it, write your agents and tasks, commit, then "troupe run".',
  );
  return 0;
}
