import assert from 'node:assert/strict';
import { test } from 'node:test';
import { slugify } from '../src/slugify.js';

test('small letters, digits, single hyphens', () => {
  assert.equal(slugify('  Release 2.0: what -- is new? '), 'release-2-0-what-is-new');
});

test('nothing to keep gives nothing', () => {
  assert.equal(slugify('…!'), '');
});
