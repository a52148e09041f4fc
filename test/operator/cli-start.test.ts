import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { expect, test } from 'vitest';
import { REPOSITORY } from '../tooling/run-command.ts';
import { temporaryDirectory } from '../workspace/git-fixture.ts';

/** Tells, on the standard error, every file that was loaded. */
const WITNESS = `
import { registerHooks } from 'node:module';
registerHooks({
  load(url, context, next) {
    if (url.startsWith('file:')) process.stderr.write('loaded ' + url + '\\n');
    return next(url, context);
  },
});`;

/** The packages, and the files of src, that a command has loaded when it ends. */
function loadedBy(...argv: readonly string[]): { packages: string[]; sources: string[] } {
  const script = `"$@" 2>&1 >/dev/null; true`;
  const witness = `data:text/javascript,${encodeURIComponent(WITNESS)}`;
  const bin = path.join(REPOSITORY, 'src', 'operator', 'bin.ts');
  const node = [process.execPath, '--import', witness, bin, ...argv];
  const said = execFileSync('/bin/sh', ['-c', script, 'sh', ...node], {
    cwd: temporaryDirectory(),
    encoding: 'utf8',
  });
  const loaded = said.matchAll(/^loaded file:\/\/(.*)$/gm).toArray();
  const files = loaded.map(([, file = '']) => path.relative(REPOSITORY, decodeURI(file)));
  const packages = files.map((file) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1]);
  return {
    packages: [...new Set(packages)].filter((name) => name !== undefined),
    sources: files.filter((file) => file.startsWith('src/')),
  };
}

test.each<{ argv: readonly string[] }>([
  { argv: ['--help'] },
  { argv: ['--version'] },
  { argv: ['run', '--help'] },
])('troupe $argv loads nothing of what works', ({ argv }) => {
  const { packages, sources } = loadedBy(...argv);
  expect(packages).toEqual(['commander']);
  expect(sources).toContain('src/operator/cli.ts');
  expect(sources).not.toContain('src/index.ts');
});

test.each<{ argv: readonly string[]; without: readonly string[] }>([
  // Nothing was run here: the store is looked for all the same.
  { argv: ['status'], without: ['src/operator/session.ts', 'src/operator/commands/travel.ts'] },
  { argv: ['run'], without: ['src/operator/fixtures.ts', 'src/operator/commands/status.ts'] },
])('troupe $argv loads no observables, and nothing of other commands', ({ argv, without }) => {
  const { packages, sources } = loadedBy(...argv);
  expect(packages).toContain('better-sqlite3');
  expect(packages).not.toContain('rxjs');
  expect(packages).not.toContain('pino');
  expect(sources).toContain('src/index.ts');
  expect(sources.filter((file) => without.includes(file))).toEqual([]);
});
