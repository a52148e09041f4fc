import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { complaintAboutNode } from '../../src/require-node.ts';
import { REPOSITORY } from './run-command.ts';

interface LockedPackage {
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly optional?: boolean;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const packageJson = JSON.parse(read('package.json')) as {
  readonly engines: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
  readonly allowScripts: Readonly<Record<string, boolean>>;
  readonly scripts: Readonly<Record<string, string>>;
};
const lock = JSON.parse(read('package-lock.json')) as {
  readonly packages: Readonly<Record<string, LockedPackage>>;
};

describe('package-lock.json', () => {
  const locked = Object.entries(lock.packages).filter(([path]) => path !== '');

  test('names no host: whoever installs does so from a registry of his own', () => {
    expect(locked.length).toBeGreaterThan(50);
    expect(locked.filter(([, { resolved }]) => resolved !== undefined)).toEqual([]);
    expect(read('package-lock.json')).not.toMatch(/registry/i);
    expect(read('.npmrc')).not.toMatch(/https?:|registry *=|_auth/i);
  });

  test('pins the content of everything that is installed', () => {
    // The packages of other platforms may lack a hash: not every registry has them to take it from.
    const unpinned = locked
      .filter(([, { integrity }]) => !/^sha512-/.test(integrity ?? ''))
      .filter(([path, { optional }]) => optional !== true || existsSync(join(REPOSITORY, path)));
    expect(unpinned).toEqual([]);
  });

  test('has the packages of every platform: npm ci refuses a lockfile that leaves some out', () => {
    const missing = locked.flatMap(([path, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies).filter(
        (name) =>
          lock.packages[`${path}/node_modules/${name}`] === undefined &&
          lock.packages[`node_modules/${name}`] === undefined,
      ),
    );
    expect(missing).toEqual([]);
  });

  test('belongs to package.json', () => {
    const { dependencies, devDependencies, engines } = packageJson;
    expect(lock.packages['']).toMatchObject({ dependencies, devDependencies, engines });
  });
});

describe('package.json', () => {
  test('pins xstate exactly: stored snapshots and our reading of its actions depend on it', () => {
    const pinned = packageJson.dependencies['xstate'];
    expect(pinned).toMatch(/^\d+\.\d+\.\d+$/);
    expect(lock.packages['node_modules/xstate']?.version).toBe(pinned);
  });

  test('asks for the Node that require-node.ts asks for', () => {
    const [, minimum = ''] = /^>=(\d+\.\d+)$/.exec(packageJson.engines['node'] ?? '') ?? [];
    expect(minimum).not.toBe('');
    const [major, minor] = minimum.split('.').map(Number);
    expect(complaintAboutNode(`${minimum}.0`, 'node')).toBeUndefined();
    expect(complaintAboutNode(`${major}.${Number(minor) - 1}.0`, 'node')).toContain(
      `Node ${minimum} `,
    );
  });

  test('lets the node package fetch its binary, and nothing else run a script', () => {
    expect(packageJson.allowScripts).toEqual({ node: true });
  });

  test('builds before it packs, so that no stale dist is published', () => {
    expect(packageJson.scripts['prepack']).toBe('npm run build');
  });
});

describe('the public names', () => {
  test('are those of the golden list: a difference is a decision and a line in the changelog', async () => {
    const names = publicNames(read('src/index.ts'));
    const list = names.map(({ kind, name }) => `${kind} ${name}\n`).sort();
    await expect(list.join('')).toMatchFileSnapshot('public-names.golden.txt');
  });

  test('are all that src/index.ts exports when it runs', async () => {
    const values = publicNames(read('src/index.ts')).filter(({ kind }) => kind === 'value');
    const exported = Object.keys(await import('../../src/index.ts'));
    expect(exported.sort()).toEqual(values.map(({ name }) => name).sort());
  });

  test.each([
    { source: "export * from './protocol/errors.ts';" },
    { source: 'export const version = 1;' },
    { source: "import { x } from './x.ts';" },
  ])('cannot be told from $source', ({ source }) => {
    expect(() => publicNames(source)).toThrow('Expected src/index.ts to hold named exports only');
  });
});

/** Reads the table of contents that `src/index.ts` is. Throws on anything that is not one. */
function publicNames(source: string): { kind: 'type' | 'value'; name: string }[] {
  const names: { kind: 'type' | 'value'; name: string }[] = [];
  const rest = source
    .replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '')
    .replace("import './require-node.ts';", '')
    .replaceAll(
      /export (type )?\{([^}]*)\} from '[^']+';/g,
      (_, type: string | undefined, list: string) => {
        for (const item of list
          .split(',')
          .map((text) => text.trim())
          .filter((text) => text !== '')) {
          const isType = type !== undefined || item.startsWith('type ');
          names.push({ kind: isType ? 'type' : 'value', name: item.split(' ').at(-1) ?? item });
        }
        return '';
      },
    )
    .trim();
  if (rest !== '') {
    throw new Error(
      `Expected src/index.ts to hold named exports only (export { … } from '…'), got: ${rest}`,
    );
  }
  return names;
}

function read(file: string): string {
  return readFileSync(join(REPOSITORY, file), 'utf8');
}
