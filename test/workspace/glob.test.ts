import path from 'node:path';
import { expect, test } from 'vitest';
import { matchesGlob } from '../../src/workspace/glob.ts';

test.each([
  { pattern: 'db/**', yes: ['db/a', 'db/a/b', 'db/.env', 'db/.x/y', 'DB/a'], no: ['db', 'a/db/c'] },
  { pattern: '**/*.key', yes: ['a.key', 'a/b.key', '.key', '.a/.b.key'], no: ['a.keys', 'key'] },
  { pattern: '**/db/*', yes: ['db/a', 'x/db/.a'], no: ['db/a/b', 'xdb/a'] },
  { pattern: '*.json', yes: ['a.json', '.json'], no: ['a/b.json', 'a.jsonc'] },
  { pattern: '.github/**', yes: ['.github/x', '.github/.x/y'], no: ['github/x'] },
  { pattern: 'src/?.ts', yes: ['src/a.ts'], no: ['src/ab.ts', 'src//.ts'] },
  { pattern: 'v[0-9].[!a]', yes: ['v1.b'], no: ['v1.a', 'vx.b', 'v1./'] },
  { pattern: '{a,b/*}/c', yes: ['a/c', 'b/x/c'], no: ['b/c', '{a,b/*}/c'] },
  { pattern: 'a+(b).$c', yes: ['a+(b).$c'], no: ['ab.c'] },
  { pattern: 'a**b', yes: ['ab', 'axb'], no: ['a/b'] },
  { pattern: '[z-a]', yes: [], no: ['b'] },
  { pattern: '[]&~|^-]', yes: ['&', '~', '|', '^', '-', ']'], no: ['b'] },
  { pattern: '@(a|b)/*', yes: ['a/c'], no: ['c/c'] },
  { pattern: 'a\\*b\\', yes: ['a*b\\'], no: ['acb'] },
  { pattern: '**', yes: ['a', 'a/.b'], no: [] },
  { pattern: 'guarded', yes: ['guarded'], no: ['guarded/x'] },
  { pattern: 'café/*', yes: ['café/😀'], no: [] },
])('$pattern', ({ pattern, yes, no }) => {
  expect([...yes, ...no].filter((each) => matchesGlob(each, pattern))).toEqual(yes);
  // What Node's own matches, without regard to dots and case, is matched as well.
  for (const each of no) expect(path.matchesGlob(each, pattern)).toBe(false);
});
