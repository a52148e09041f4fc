import assert from 'node:assert/strict';
import { test } from 'node:test';
import { camelCase, kebabCase, snakeCase, titleCase } from '../src/case.js';

for (const name of [
  'background color',
  'background-color',
  'background_color',
  'backgroundColor',
]) {
  test(`${name} in every case`, () => {
    assert.equal(camelCase(name), 'backgroundColor');
    assert.equal(kebabCase(name), 'background-color');
    assert.equal(snakeCase(name), 'background_color');
    assert.equal(titleCase(name), 'Background Color');
  });
}

test('digits belong to the word before them', () => {
  assert.equal(kebabCase('utf8Text'), 'utf8-text');
});
