import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wrap } from '../src/wrap.js';

test('fills lines up to the width', () => {
  assert.equal(wrap('aa bb cc dd', { width: 5 }), 'aa bb\ncc dd');
  assert.equal(wrap('aa bb cc dd', { width: 6 }), 'aa bb\ncc dd');
});

test('keeps paragraphs apart', () => {
  assert.equal(wrap('one\ntwo\n\nthree', { width: 20 }), 'one two\n\nthree');
});

test('counts the indent', () => {
  assert.equal(wrap('aa bb cc', { width: 8, indent: '> ' }), '> aa bb\n> cc');
});

test('a long word stands alone', () => {
  assert.equal(wrap('a incomprehensible b', { width: 5 }), 'a\nincomprehensible\nb');
});
