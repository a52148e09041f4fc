// Adds a command to textkit's command line: its module with an example that the tests
// run, and its place in src/commands.js.
//
// Two tasks that do this at the same time write the same lines of src/commands.js, so the second one to be
// merged conflicts and is done again on the new main. To make sure of "at the same time", each waits on its
// first attempt until the other has begun as well.
import { readdirSync } from 'node:fs';
import { meet } from './meet.mjs';
import { quote, task, write, writeChange } from './task.mjs';

const { command, usage, summary, imports, run, example, meeting } = task.input;

if (task.attempt === 1) {
  const met = await meet(`${process.env.TROUPE_RUN}/${meeting}`, 5000);
  console.log(met ? 'both have begun' : 'the other one did not come: going on alone');
}

const importLines = Object.keys(imports)
  .sort()
  .map((module) => `import { ${imports[module].join(', ')} } from '../${module}.js';\n`)
  .join('');
write(
  `src/commands/${command}.js`,
  `${importLines}
export const ${command}Command = {
  name: ${quote(command)},
  usage: ${quote(usage)},
  summary: ${quote(summary)},
  run: ${run},
  example: {
    args: [${example.args.map(quote).join(', ')}],
    input: ${quote(example.input)},
    output: ${quote(example.output)},
  },
};
`,
);

// The list is made anew from what is there, sorted, so it does not matter who comes first.
const names = readdirSync('src/commands')
  .map((file) => file.replace('.js', ''))
  .sort();
write(
  'src/commands.js',
  `${names.map((name) => `import { ${name}Command } from './commands/${name}.js';\n`).join('')}
/** What the command line can do, sorted by name. */
export const commands = [${names.map((name) => `${name}Command`).join(', ')}];
`,
);
writeChange();
