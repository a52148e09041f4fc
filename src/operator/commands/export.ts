import { randomUUID } from 'node:crypto';
import { rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { TroupeError } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { taskOfRow } from '../run-view.ts';
import { listRuns, readProject, requireRun } from '../stored-runs.ts';
import { attemptOfRow } from '../task-history.ts';
import { safeJson } from '../terminal/text.ts';

/** `troupe export`: runs with their tasks, attempts and the paths of their evidence, as JSON. */
export async function exportRuns(
  cli: CliContext,
  run: string | undefined,
  { out }: { readonly out?: string | undefined },
): Promise<number> {
  const place = await cli.project();
  const data = await readProject(place, async (store) => {
    const runs = run === undefined ? await listRuns(store) : [await requireRun(store, run)];
    const exported: unknown[] = [];
    for (const entry of runs) {
      const tasks: unknown[] = [];
      for (const row of await store.listTasks(entry.id)) {
        const attempts = (await store.listAttempts(entry.id, row.task)).map(attemptOfRow);
        tasks.push({ ...taskOfRow(row), history: attempts.map(withoutExcerpts) });
      }
      exported.push({ ...entry, tasks });
    }
    return {
      version: 1,
      exportedAt: new Date().toISOString(),
      project: place.directory,
      runs: exported,
    };
  });
  const text = `${safeJson(data)}\n`;
  if (out === undefined) cli.stdout.raw(text);
  else await writeWhole(path.resolve(cli.cwd, out), text);
  return 0;
}

/** The artifact has them; here they would make the file large and hard to read. */
function withoutExcerpts(attempt: ReturnType<typeof attemptOfRow>) {
  const { evidence } = attempt;
  if (evidence === null) return attempt;
  const commands = evidence.commands.map(({ excerpt: _excerpt, ...command }) => command);
  return { ...attempt, evidence: { ...evidence, commands } };
}

/** A reader sees the old file or the new one, never half of it. */
async function writeWhole(file: string, text: string): Promise<void> {
  const fresh = path.join(path.dirname(file), `.${path.basename(file)}.${randomUUID()}.tmp`);
  try {
    await writeFile(fresh, text, { flag: 'wx' });
    await rename(fresh, file);
  } catch (error) {
    await rm(fresh, { force: true });
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new TroupeError(
      'unavailable',
      `Could not write ${file} (${code}). Name a file in a directory that exists and may be written to.`,
      { cause: error },
    );
  }
}
