import { readFileSync, utimesSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { verifyAndMerge } from '../../src/workspace/merge.ts';
import { git, openProject, sha256, submit } from './git-fixture.ts';

// A checkout that was copied, or in which a file was touched, is clean; only its index has the old times.
test('main is followed by a checkout whose index knows its files by other times', async () => {
  const project = await openProject();
  const { directory, workspaces } = project;
  const submission = await submit(project, { 'readme.md': 'changed\n' });
  const file = path.join(directory, 'readme.md');
  utimesSync(file, new Date(1), new Date(1));
  const verify = [{ name: 'test', command: 'true' }];
  const verdict = await verifyAndMerge({ submission, verify, workspaces, fingerprint: sha256 });
  expect(verdict).toMatchObject({ verdict: 'accepted' });
  expect(readFileSync(file, 'utf8')).toBe('changed\n');
  expect(git(directory, 'status', '--porcelain')).toBe('');
  await project.repository.close();
  project.processes.close();
});
