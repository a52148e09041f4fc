import assert from 'node:assert/strict';
import { test } from 'node:test';
import { render } from '../src/template.js';

test('fills in placeholders', () => {
  assert.equal(render('{{ a }}-{{b.c}}', { a: 1, b: { c: 'x' } }), '1-x');
});

test('a value is not a template', () => {
  assert.equal(render('{{ a }}', { a: '{{ a }}' }), '{{ a }}');
});

test('a missing value is an error that names it', () => {
  assert.throws(() => render('{{ user.name }}', { user: {} }), /asks for user\.name/);
  assert.throws(() => render('{{ toString }}', {}), RangeError);
});
