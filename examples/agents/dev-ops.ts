// Looks whether a project can be released, and writes its changelog from what was committed since the last release.
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { Engine } from '../../src/index.ts';

const run = promisify(execFile);

export type Check = { readonly name: string; readonly passed: boolean; readonly found: string };

export type Release = {
  readonly version: string | null;
  readonly ready: boolean;
  readonly checks: Check[];
  /** Markdown: what is new since the last tag, or ever. */
  readonly changelog: string;
};

interface PackageJson {
  readonly version?: string;
  readonly engines?: { readonly node?: string };
  readonly scripts?: Readonly<Record<string, string>>;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

export async function prepareRelease(directory: string): Promise<Release> {
  const text = await textOf(path.join(directory, 'package.json'));
  const manifest = text === null ? null : (JSON.parse(text) as PackageJson);
  const git = async (...args: readonly string[]): Promise<string | null> => {
    try {
      return (
        await run('git', args, { cwd: directory, maxBuffer: 64 * 1024 * 1024 })
      ).stdout.trim();
    } catch {
      // Not a repository, or nothing of that name in it.
      return null;
    }
  };
  const lastTag = await git('describe', '--tags', '--abbrev=0');
  const subjects = await git('log', '--format=%s', lastTag === null ? 'HEAD' : `${lastTag}..HEAD`);
  const status = await git('status', '--porcelain');
  const version = manifest?.version ?? null;
  const checks: Check[] = [
    {
      name: 'package.json',
      passed: version !== null && /^\d+\.\d+\.\d+/.test(version),
      found: version === null ? 'no version' : `version ${version}`,
    },
    await checkLock(directory, manifest),
    checkNode(manifest?.engines?.node),
    checkScripts(manifest?.scripts ?? {}),
    {
      name: 'committed',
      passed: status === '',
      found:
        status === null
          ? 'not a git repository'
          : status === ''
            ? 'nothing is open'
            : `${status.split('\n').length} files are not committed`,
    },
    {
      name: 'new version',
      passed: version !== null && lastTag?.replace(/^v/, '') !== version,
      found: lastTag === null ? 'nothing was released yet' : `the last release is ${lastTag}`,
    },
  ];
  return {
    version,
    ready: checks.every(({ passed }) => passed),
    checks,
    changelog: changelogOf(version, subjects ?? ''),
  };
}

/** As an agent: `input: { directory }`. */
export const devOps: Engine = async ({ task, step }) => {
  const { directory } = task.input as { readonly directory: string };
  return await step('prepare', () => prepareRelease(directory));
};

async function checkLock(directory: string, manifest: PackageJson | null): Promise<Check> {
  const name = 'lock file';
  const wanted = { ...manifest?.dependencies, ...manifest?.devDependencies };
  const text = await textOf(path.join(directory, 'package-lock.json'));
  if (text === null) {
    const count = Object.keys(wanted).length;
    // Without dependencies there is nothing to lock.
    return { name, passed: count === 0, found: `none, for ${count} dependencies` };
  }
  const { packages = {} } = JSON.parse(text) as {
    readonly packages?: Readonly<Record<string, PackageJson>>;
  };
  const locked = { ...packages['']?.dependencies, ...packages['']?.devDependencies };
  const names = [...new Set([...Object.keys(wanted), ...Object.keys(locked)])];
  const differing = names.filter((one) => wanted[one] !== locked[one]);
  return {
    name,
    passed: differing.length === 0,
    found:
      differing.length === 0
        ? 'as package.json'
        : `differs from package.json: ${differing.join(', ')}`,
  };
}

function checkNode(range: string | undefined): Check {
  const name = 'node';
  const [, major, minor = '0'] = /^>=\s*(\d+)(?:\.(\d+))?/.exec(range ?? '') ?? [];
  if (major === undefined)
    return { name, passed: false, found: `engines.node is ${range ?? 'not set'}` };
  const [have = 0, haveMinor = 0] = process.versions.node.split('.').map(Number);
  const passed = have > Number(major) || (have === Number(major) && haveMinor >= Number(minor));
  return {
    name,
    passed,
    found: `${range}${passed ? '' : `, and this is ${process.versions.node}`}`,
  };
}

function checkScripts(scripts: Readonly<Record<string, string>>): Check {
  const test = scripts['test'];
  // What npm init writes when nobody has said anything.
  const isReal = test !== undefined && !test.includes('no test specified');
  return { name: 'scripts', passed: isReal, found: isReal ? `test: ${test}` : 'no test script' };
}

const GROUPS = [
  { title: 'Fixed', is: /^(?:fix|bug|repair|correct)/i },
  { title: 'Added', is: /^(?:feat|add|new|introduce|support)/i },
  { title: 'Changed', is: /./ },
] as const;

function changelogOf(version: string | null, subjects: string): string {
  const all = subjects.split('\n').filter((subject) => subject !== '' && !/^Merge /.test(subject));
  const rest = new Set(all);
  const sections: string[] = [];
  for (const { title, is } of GROUPS) {
    const mine = [...rest].filter((subject) => is.test(subject));
    for (const subject of mine) rest.delete(subject);
    const entries = mine.map((subject) => `- ${subject.replace(/^\w+(?:\([^)]*\))?!?: /, '')}`);
    if (entries.length > 0) sections.push(`### ${title}\n\n${entries.join('\n')}`);
  }
  return [`## ${version ?? 'Unreleased'}`, ...sections].join('\n\n');
}

async function textOf(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
