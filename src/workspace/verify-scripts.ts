import path from 'node:path';

/** What a command of the verification runs of the project's own files. */
export interface VerifyScripts {
  /** Files that are run, by their path from the project's top. */
  readonly files: ReadonlySet<string>;
  /** Scripts of package.json that are run. */
  readonly packageScripts: ReadonlySet<string>;
}

/** What starts another program and is no script itself. */
const WRAPPERS =
  /^(?:env|time|nice|exec|command|xvfb-run|npx|sudo|uvx?|poetry|pipenv|hatch|bundle|pnpx|bunx|corepack)$/;
const SHELLS = /^(?:bash|sh|zsh|dash|ksh)$/;
const INTERPRETERS =
  /^(?:node|nodejs|python\d*(?:\.\d+)?|ruby|perl|php|deno|bun|tsx|ts-node|pwsh|source|\.|Rscript|lua)$/;
/** An interpreter that is told so runs no file, or only looks at one. */
const RUNS_NO_FILE = /^(?:-[cepm]|--check|--eval|--print|--version|--test|-V|-v)$/;

/** Options of interpreters with a word of their own after them; of some that is a file to be run first. */
const TAKES_VALUE =
  /^(?:-[rCWX]|--(?:require|import|loader|experimental-loader|conditions|env-file))$/;
const RUNS_VALUE = /^(?:-r|--(?:require|import|loader|experimental-loader))$/;

/** What these programs read when they are told nothing else. */
const IMPLIED: Readonly<Record<string, readonly string[]>> = {
  make: ['Makefile', 'makefile', 'GNUmakefile'],
  gmake: ['Makefile', 'makefile', 'GNUmakefile'],
  just: ['justfile', 'Justfile', '.justfile'],
  task: ['Taskfile.yml', 'Taskfile.yaml'],
  tox: ['tox.ini'],
  nox: ['noxfile.py'],
  rake: ['Rakefile'],
  gradle: ['build.gradle', 'build.gradle.kts'],
  gradlew: ['build.gradle', 'build.gradle.kts'],
  mvn: ['pom.xml'],
  'pre-commit': ['.pre-commit-config.yaml'],
};

const MANAGERS = /^(?:npm|pnpm|yarn|bun)$/;
/** Words after which a package manager does not run a script of that name. */
const NO_SCRIPT =
  /^(?:ci|install|i|add|exec|dlx|x|audit|ls|list|pack|publish|why|outdated|create|init|config|cache)$/;
const SEVERAL = /^(?:run-s|run-p|npm-run-all2?|concurrently|wireit)$/;

/**
 * Follows commands into the project's files: the script that a command is or that an interpreter gets, what make and its
 * like read, and the scripts of package.json, through which it goes on. A file that a command only looks at (`eslint
 * src`, `node --check x.js`) is none of them.
 * @param packageScripts those of the package.json at the top
 */
export function findVerifyScripts(
  commands: readonly (string | readonly string[])[],
  packageScripts: Readonly<Record<string, string>>,
): VerifyScripts {
  const files = new Set<string>();
  const scripts = new Set<string>();
  const visit = (name: string): void => {
    for (const each of [`pre${name}`, name, `post${name}`]) {
      const body = packageScripts[each];
      if (body === undefined || scripts.has(each)) continue;
      scripts.add(each);
      follow(body);
    }
  };
  const follow = (command: string | readonly string[]): void => {
    const simple =
      typeof command === 'string'
        ? command.split(/&&|\|\||[;|&\n()]/).map(wordsOf)
        : [[...command]];
    for (const words of simple) followWords(words, files, visit, follow);
  };
  for (const command of commands) follow(command);
  return { files, packageScripts: scripts };
}

function followWords(
  all: readonly string[],
  files: Set<string>,
  visit: (script: string) => void,
  follow: (command: string) => void,
): void {
  const words = [...all];
  while (words.length > 0 && (/^\w+=/.test(words[0] ?? '') || WRAPPERS.test(words[0] ?? ''))) {
    words.shift();
    while (/^(?:-|run$|exec$|\d)/.test(words[0] ?? '')) words.shift();
  }
  if (words[0] === 'timeout') words.splice(0, 2);
  const [first = '', ...rest] = words;
  const program = path.posix.basename(first);
  const own = projectPath(first);
  if (own !== undefined && first.includes('/')) files.add(own);
  for (const name of Object.hasOwn(IMPLIED, program) ? (IMPLIED[program] ?? []) : [])
    files.add(name);
  const option = rest.findIndex((word) => /^(?:-f|--file|--makefile|--justfile)$/.test(word));
  if (Object.hasOwn(IMPLIED, program) && option >= 0) {
    const file = projectPath(rest[option + 1] ?? '');
    if (file !== undefined) files.add(file);
  }
  if (SHELLS.test(program)) followShell(rest, files, follow);
  else if (INTERPRETERS.test(program)) followInterpreter(rest, files, follow);
  if (MANAGERS.test(program)) {
    const [verb = '', ...more] = rest.filter((word) => !word.startsWith('-'));
    if (verb === 'run' || verb === 'run-script') visit(more[0] ?? '');
    else if (verb === 't') visit('test');
    else if (!NO_SCRIPT.test(verb)) visit(verb);
  }
  if (SEVERAL.test(program)) {
    for (const word of rest) visit(word.replace(/^npm:/, ''));
  }
}

function followShell(
  rest: readonly string[],
  files: Set<string>,
  follow: (command: string) => void,
): void {
  const words = [...rest];
  let isCommand = false;
  for (let word = words[0] ?? ''; /^[-+]./.test(word); word = words[0] ?? '') {
    words.shift();
    if (word === '--') break;
    if (/^-[A-Za-z]*c/.test(word)) isCommand = true;
    // `-o pipefail`, `-euo pipefail`, `+O extglob`
    if (/^[-+][A-Za-z]*[oO]$/.test(word)) words.shift();
  }
  const [first = ''] = words;
  const file = isCommand ? undefined : projectPath(first);
  if (isCommand) follow(first);
  else if (file !== undefined) files.add(file);
}

function followInterpreter(
  rest: readonly string[],
  files: Set<string>,
  follow: (command: string) => void,
): void {
  const words = [...rest];
  for (let word = words[0] ?? ''; word.startsWith('-') || word === 'run'; word = words[0] ?? '') {
    words.shift();
    // What it runs may be a command again.
    if (word === '-c') follow(words[0] ?? '');
    if (RUNS_NO_FILE.test(word)) return;
    const value = TAKES_VALUE.test(word) ? projectPath(words.shift() ?? '') : undefined;
    if (value !== undefined && RUNS_VALUE.test(word)) files.add(value);
  }
  const file = projectPath(words[0] ?? '');
  if (file !== undefined) files.add(file);
}

function wordsOf(command: string): string[] {
  return [...command.matchAll(/"([^"]*)"|'([^']*)'|([^\s"']+)/g)].map(
    ([, double, single, plain]) => double ?? single ?? plain ?? '',
  );
}

/** @returns undefined for what is outside the project, a pattern, an option, or nothing */
function projectPath(word: string): string | undefined {
  if (word === '' || /^[-/~$]|[*?[\]{}$\\]/.test(word)) return undefined;
  const normal = path.posix.normalize(word);
  return normal === '.' || normal.startsWith('..') ? undefined : normal;
}
