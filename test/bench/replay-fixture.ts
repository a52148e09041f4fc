import { cpSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, onTestFinished } from 'vitest';
import { dataWorkload } from '../../bench/workload/data.ts';
import { javaScriptWorkload } from '../../bench/workload/javascript.ts';
import { writeWorkload } from '../../bench/workload/workload.ts';

/** A directory that is removed when the test ends. */
export function temporaryDirectory(): string {
  const directory = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'troupe replay-test-')));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

type Kind = 'data' | 'javascript';

const made = new Map<Kind, string>();
afterAll(() => {
  for (const folder of made.values()) rmSync(folder, { recursive: true, force: true });
});

/** A small workload in a folder of its own. Made once; what a test gets is a copy. */
export function makeWorkload(kind: Kind): string {
  const folder = path.join(temporaryDirectory(), kind);
  cpSync(madeWorkload(kind), folder, { recursive: true });
  return folder;
}

function madeWorkload(kind: Kind): string {
  const known = made.get(kind);
  if (known !== undefined) return known;
  const folder = mkdtempSync(path.join(os.tmpdir(), 'troupe-workload-test-'));
  made.set(kind, folder);
  writeWorkload(
    folder,
    kind === 'data'
      ? dataWorkload({ changes: 12, files: 12, seed: 1 })
      : javaScriptWorkload({ changes: 12, seed: 1 }),
  );
  return folder;
}

// biome-ignore lint/suspicious/noExplicitAny: a manifest that is to be spoilt in every way
export function editManifest(folder: string, edit: (manifest: any) => void): void {
  const file = path.join(folder, 'manifest.json');
  const manifest: unknown = JSON.parse(readFileSync(file, 'utf8'));
  edit(manifest);
  writeFileSync(file, JSON.stringify(manifest));
}
