import { expect, test } from 'vitest';
import { branchOf, slugOf } from '../../src/workspace/branch-name.ts';
import { git, makeRepository } from './git-fixture.ts';

const ODD_NAMES = [
  '--output=/tmp/x',
  '-x',
  '--upload-pack=touch canary',
  '@{-1}',
  '@',
  'HEAD',
  'refs/heads/x',
  'a..b',
  'a.',
  '.a',
  'a.lock',
  'a.lock.lock',
  'a//b',
  'a/b',
  '../../x',
  '..',
  '.',
  '/',
  '',
  ' ',
  'a b',
  'a\nb',
  'a\0b',
  'a\tb',
  'a~1',
  'a^',
  'a:b',
  'a?',
  'a*',
  'a[b]',
  'a\\b',
  '$(touch x)',
  '`x`',
  "';x",
  '"x"',
  'é',
  '日本語',
  '🎭',
  '\u202etxt',
  'A',
  'Main',
  'CON',
  'a--b',
  'x'.repeat(300),
  'café-'.repeat(80),
];
const PLAIN_NAMES = ['main', 'task-1', 'a', '1', 'fix_bug', 'v1.2', 'a.b.c', 'x'.repeat(40)];

test('plain names stay as they are', () => {
  for (const name of PLAIN_NAMES) expect(slugOf(name)).toBe(name);
  expect(branchOf({ run: 'report-42', task: 'draft' })).toBe('troupe/report-42/draft');
});

test('every name makes a branch that git takes, and a directory of one component', () => {
  const repository = makeRepository();
  for (const name of [...ODD_NAMES, ...PLAIN_NAMES]) {
    const branch = branchOf({ run: name, task: name });
    expect(git(repository, 'check-ref-format', '--branch', branch)).toBe(branch);
    expect(slugOf(name)).toMatch(/^[a-z0-9][a-z0-9._-]{0,49}$/);
  }
});

test('different names stay different, also where case does not count', () => {
  const names = [...ODD_NAMES, ...PLAIN_NAMES];
  const slugs = names.map((name) => slugOf(name));
  // A name that looks like somebody's slug must not take it.
  slugs.push(...slugs.filter((slug) => slug.includes('--')).map((slug) => slugOf(slug)));
  expect(new Set(slugs.map((slug) => slug.toLowerCase())).size).toBe(slugs.length);
});
