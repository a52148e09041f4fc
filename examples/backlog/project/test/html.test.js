import assert from 'node:assert/strict';
import { test } from 'node:test';
import { entities } from '../src/entities.js';
import { escapeHtml, unescapeHtml } from '../src/html.js';

test('escapes once', () => {
  assert.equal(escapeHtml('<b> & &amp;'), '&lt;b&gt; &amp; &amp;amp;');
});

test('and back', () => {
  assert.equal(unescapeHtml(escapeHtml('if (a < b && b > c)')), 'if (a < b && b > c)');
  assert.equal(unescapeHtml('&nosuch; &lt;'), '&nosuch; <');
});

test('no entity twice, each there and back', () => {
  assert.equal(new Set(entities.flat()).size, entities.length * 2);
  for (const [char, name] of entities) {
    assert.equal(escapeHtml(char), `&${name};`);
    assert.equal(unescapeHtml(`&${name};`), char);
  }
});
