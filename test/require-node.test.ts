import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { complaintAboutNode } from '../src/require-node.ts';

const source = join(import.meta.dirname, '..', 'src');

describe('complaintAboutNode', () => {
  test.each(['24.12.0', '24.21.0', '25.0.0', '26.3.1', '24.12.0-nightly20261101'])(
    'Node %s will do',
    (version) => {
      expect(complaintAboutNode(version, '/usr/bin/node')).toBeUndefined();
    },
  );

  test.each(['24.11.9', '24.9.0', '23.99.0', '22.12.0', '20.20.2', '8.17.0'])(
    'Node %s is too old',
    (version) => {
      expect(complaintAboutNode(version, '/usr/bin/node')).toBe(
        `troupe needs Node 24.12 or newer, and this is Node ${version} (/usr/bin/node): ` +
          'install a newer Node (https://nodejs.org), or "npm install node@24" in this project ' +
          'and start it with npx or an npm script.',
      );
    },
  );
});

describe('who imports it', () => {
  // What is imported before it is loaded before it, too old a Node or not.
  const entries = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter(
    (file) => file === 'index.ts' || file === join('operator', 'bin.ts'),
  );

  test.each(entries)('src/%s imports it first', (file) => {
    const [first] =
      readFileSync(join(source, file), 'utf8').match(/^(?:import|export)\b.*$/m) ?? [];
    expect(first).toMatch(/^import '\.{1,2}\/require-node\.ts';$/);
  });

  test('the public index is among them', () => {
    expect(entries).toContain('index.ts');
  });
});
