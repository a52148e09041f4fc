import { slugify } from '../slugify.js';

export const slugifyCommand = {
  name: 'slugify',
  usage: 'slugify',
  summary: 'Makes a slug of each line',
  run: (input) => input.replace(/.+/g, (line) => slugify(line)),
  example: { args: [], input: 'One, two\nThree!\n', output: 'one-two\nthree\n' },
};
