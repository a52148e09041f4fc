// Generates src/roman.js from a table of symbols, and docs/roman.md, whose examples the tests run. On its first attempt it dies like a process that the system
// killed: in the middle of a file, without a word.
import { quote, task, write, writeChange } from './task.mjs';

const { symbols, samples } = task.input;

const module = `import { expectInteger } from './expect.js';

// Generated. Largest first: what goes in is taken out.
const symbols = [
${symbols.map(([value, symbol]) => `  [${value}, ${quote(symbol)}],\n`).join('')}];

/**
 * Writes a number as the Romans did.
 * @param {number} number 1 or more
 */
export function toRoman(number) {
  let rest = expectInteger(number, 'number', 1);
  let roman = '';
  for (const [value, symbol] of symbols) {
    roman += symbol.repeat(Math.floor(rest / value));
    rest %= value;
  }
  return roman;
}
`;

if (task.attempt === 1) {
  write('src/roman.js', module.slice(0, module.length / 2));
  process.kill(process.pid, 'SIGKILL');
}

write('src/roman.js', module);
write(
  'docs/roman.md',
  `# roman

Writes numbers as the Romans did.

\`\`\`js
${samples.map(([number, roman]) => `toRoman(${number}); // => ${quote(roman)}\n`).join('')}\`\`\`
`,
);
writeChange();
