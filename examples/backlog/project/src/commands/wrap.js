import { wrap } from '../wrap.js';

export const wrapCommand = {
  name: 'wrap',
  usage: 'wrap [width]',
  summary: 'Wraps paragraphs to a width',
  run: (input, [width = '80']) => `${wrap(input, { width: Number(width) })}\n`,
  example: { args: ['7'], input: 'one two three', output: 'one two\nthree\n' },
};
