// Writes src/truncate.js, and does not know the project's rule for errors. No test output teaches it: it makes
// the same mistake until a person says which checks to use, and from which file.
import { task, write, writeChange } from './task.mjs';

const guidance = task.feedback.find((each) => /\bexpect\w+.* from src\/[\w-]+\.js/.test(each));
const checks = new Set(guidance?.match(/\bexpect[A-Z]\w+/g));
const file = guidance && /from src\/([\w-]+\.js)/.exec(guidance)[1];
console.log(guidance ? `told: ${guidance}` : 'nobody said how to refuse nonsense: guessing');

const imports = guidance ? `import { ${[...checks].sort().join(', ')} } from './${file}';\n\n` : '';
const checkText = checks.has('expectString')
  ? "expectString(text, 'text');"
  : "if (typeof text !== 'string') throw new Error('bad text');";
const checkWidth = checks.has('expectInteger')
  ? "expectInteger(width, 'width', 1);"
  : "if (!(width >= 1)) throw new Error('bad width');";

write(
  'src/truncate.js',
  `${imports}/**
 * Cuts a text that is too long, between two words if there is room for one, and says so with an ellipsis.
 * @param {string} text
 * @param {number} width in characters, ellipsis included
 */
export function truncate(text, width) {
  ${checkText}
  ${checkWidth}
  if (text.length <= width) return text;
  const kept = text.slice(0, width);
  const space = kept.lastIndexOf(' ');
  return \`\${kept.slice(0, space > 0 ? space : width - 1)}…\`;
}
`,
);
write(
  'test/truncate.test.js',
  `import assert from 'node:assert/strict';
import { test } from 'node:test';
import { truncate } from '../src/truncate.js';

test('what fits stays', () => {
  assert.equal(truncate('one two', 7), 'one two');
});

test('cuts between words', () => {
  assert.equal(truncate('one two three', 9), 'one two…');
  assert.equal(truncate('one two three', 8), 'one two…');
  assert.equal(truncate('one two three', 7), 'one…');
});

test('cuts a word that has no room', () => {
  assert.equal(truncate('incomprehensible', 6), 'incom…');
});

test('is never longer than asked', () => {
  for (let width = 1; width < 20; width += 1) {
    assert.ok(truncate('a bc def ghij klmno', width).length <= width);
  }
});
`,
);
write(
  'docs/truncate.md',
  `# truncate

Cuts a text that is too long.

\`\`\`js
truncate('The quick brown fox', 12); // => 'The quick…'
\`\`\`
`,
);
writeChange();
