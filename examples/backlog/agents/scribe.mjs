// Does the clerical work, by code: `input.job` says which.
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { quote, replaceIn, task, write, writeChange } from './task.mjs';

const read = (path) => readFileSync(path, 'utf8');
const edit = (path, pattern, text) => write(path, replaceIn(path, read(path), pattern, text));

const jobs = {
  // Generates src/entities.js from a table of names and characters, and an example of each for docs/html.md.
  entities({ entities }) {
    const rows = Object.entries(entities)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, char]) => [quote(char), quote(name)]);
    write(
      'src/entities.js',
      `// Generated: each character that HTML has a name for here, and that name. Sorted by name.
export const entities = [
${rows.map(([char, name]) => `  [${char}, ${name}],\n`).join('')}];
`,
    );
    const examples = rows.map(
      ([char, name]) => `escapeHtml(${char}); // => '&${name.slice(1, -1)};'\n`,
    );
    edit('docs/html.md', /```\n$/, `${examples.join('')}\`\`\`\n`);
    writeChange();
  },

  // Puts a JSDoc comment before each named function of a file.
  jsdoc({ file, functions }) {
    let source = read(file);
    for (const [name, lines] of Object.entries(functions)) {
      const declaration = `export function ${name}(`;
      if (!source.includes(declaration)) throw new Error(`${file} has no ${declaration}…`);
      const comment = ['/**', ...lines.map((line) => ` * ${line}`), ' */', ''].join('\n');
      source = source.replace(declaration, () => comment + declaration);
    }
    write(file, source);
    writeChange();
  },

  // Gathers changes/ into CHANGELOG.md, lists the pages of docs/ in README.md, sets the version.
  release({ version }) {
    const fragments = readdirSync('changes')
      .filter((name) => name !== 'README.md')
      .sort();
    const lines = fragments.map((name) => `- ${read(`changes/${name}`)}`).join('');
    edit('CHANGELOG.md', /^## /m, `## ${version}\n\n${lines}\n## `);
    for (const name of fragments) rmSync(`changes/${name}`);

    const modules = readdirSync('docs')
      .sort()
      .map(
        (page) => `- \`${page.replace('.md', '')}\`: ${read(`docs/${page}`).split('\n\n')[1]}\n`,
      );
    edit('README.md', /^(- `[\w-]+`: .*\n)+/m, modules.join(''));
    edit('package.json', /"version": ".*"/, `"version": "${version}"`);
  },
};

if (!Object.hasOwn(jobs, task.input.job)) {
  throw new Error(
    `Expected input.job to be ${Object.keys(jobs).join(', ')}, got ${task.input.job}`,
  );
}
jobs[task.input.job](task.input);
