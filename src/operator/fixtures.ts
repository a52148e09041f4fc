import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { createTroupe, type RunResult, type RunSpec, type Troupe } from '../index.ts';

/*
 * Whole pieces of work, always the same, done on this machine to see that it can: git, worktrees, child processes, the
 * store and the merges, as they are in use. Nothing is asked of a model or a network, and nothing outside of a temporary
 * directory is touched.
 */

/** What came of one. */
export interface FixtureReport {
  readonly name: string;
  readonly ok: boolean;
  readonly tookMs: number;
  /** What is not as it should be: expected and got. */
  readonly problems: readonly string[];
}

interface Fixture {
  readonly name: string;
  readonly files: Readonly<Record<string, string>>;
  readonly run: (scratch: Scratch) => RunSpec;
  /** @returns what is not as it should be */
  readonly judge: (scratch: Scratch, result: RunResult) => Promise<readonly string[]>;
}

interface Scratch {
  readonly troupe: Troupe;
  /** Has `repository` and `input` in it. */
  readonly directory: string;
  git(...args: readonly string[]): Promise<string>;
}

/** For the agents and the verification of one fixture; each takes about a second. */
const LIMIT_MS = 60_000;
const SOON = { initialMs: 1, factor: 1, maxMs: 1, jitter: 0 } as const;

/** Red while a file says that it is wrong, with the file's name: that is the evidence. */
const VERIFY = `
import { readdirSync, readFileSync } from 'node:fs';
for (const name of readdirSync('src')) {
  if (!readFileSync('src/' + name, 'utf8').includes('wrong')) continue;
  console.log('expected src/' + name + ' to be right');
  process.exit(1);
}
`;
/**
 * An agent that is a command: writes the file that its task names; or mends it, if the evidence says so and it finds there
 * what was handed in.
 */
const AGENT = `
import { readFileSync, writeFileSync } from 'node:fs';
const { input, fix } = JSON.parse(readFileSync(process.env.TROUPE_TASK_FILE, 'utf8'));
if (fix === null) writeFileSync(input.file, input.text);
else {
  const [{ excerpt }] = fix.commands;
  if (!excerpt.includes(input.file) || readFileSync(input.file, 'utf8') !== input.text) process.exit(1);
  writeFileSync(input.file, input.mended);
}
`;
const BASE = { 'verify.mjs': VERIFY, 'src/first.js': 'export const first = 0;\n' } as const;

const added = (file: string, text: string): string =>
  `diff --git a/${file} b/${file}\nnew file mode 100644\n--- /dev/null\n+++ b/${file}\n@@ -0,0 +1 @@\n+${text}\n`;
const changed = (file: string, from: string, to: string): string =>
  `diff --git a/${file} b/${file}\n--- a/${file}\n+++ b/${file}\n@@ -1 +1 @@\n-${from}\n+${to}\n`;

const PATCHED = ['a', 'b'];
const WRITTEN = ['c', 'd'];
const line = (name: string): string => `export const ${name} = '${name}';`;

/** Four tasks side by side, by patches and by commands, and one that builds on two of them. */
const PARALLEL: Fixture = {
  name: 'parallel mini project',
  files: {
    ...Object.fromEntries(
      PATCHED.map((name) => [`input/${name}.patch`, added(`src/${name}.js`, line(name))]),
    ),
    'input/last.patch': changed('src/a.js', line('a'), `${line('a')} // and d`),
  },
  run: ({ directory }) => ({
    id: 'parallel',
    limits: { attempts: 2, backoff: SOON },
    tasks: [
      ...PATCHED.map((id) => ({
        ...{ id, agent: 'patcher' },
        input: { patches: [path.join(directory, 'input', `${id}.patch`)] },
      })),
      ...WRITTEN.map((id) => ({
        ...{ id, agent: 'writer' },
        input: { file: `src/${id}.js`, text: `${line(id)}\n` },
      })),
      {
        ...{ id: 'last', agent: 'patcher', dependsOn: ['a', 'd'] },
        input: { patches: [path.join(directory, 'input', 'last.patch')] },
      },
    ],
  }),
  judge: async (scratch, { state, tasks }) => {
    const files = {
      ...BASE,
      ...Object.fromEntries(
        [...PATCHED, ...WRITTEN].map((name) => [`src/${name}.js`, `${line(name)}\n`]),
      ),
      'src/a.js': `${line('a')} // and d\n`,
    };
    return [
      ...differs('the run', 'done', state),
      ...tasks.flatMap((task) => differs(`attempts at ${task.id}`, 1, task.attempts)),
      ...(await compareFiles(scratch, files)),
      ...differs('merges', tasks.length, await countMerges(scratch)),
    ];
  },
};

/** A patch that is wrong is rejected with evidence and never merged; the second one is accepted. */
const REJECTION: Fixture = {
  name: 'rejection and retry',
  files: {
    'input/wrong.patch': changed(
      'src/first.js',
      'export const first = 0;',
      "export const first = 'wrong';",
    ),
    'input/right.patch': changed(
      'src/first.js',
      'export const first = 0;',
      'export const first = 1;',
    ),
  },
  run: ({ directory }) => ({
    id: 'rejection',
    limits: { attempts: 3, backoff: SOON },
    tasks: [
      {
        ...{ id: 'fix', agent: 'patcher' },
        input: {
          patches: ['wrong', 'right'].map((name) => path.join(directory, 'input', `${name}.patch`)),
        },
      },
    ],
  }),
  judge: async (scratch, { id, state }) => {
    const attempts = await scratch.troupe.task(id, 'fix').attempts();
    const [first] = attempts;
    const { evidence } = JSON.parse(first?.detailsJson ?? '{}') as {
      evidence?: {
        artifact?: string;
        commands?: readonly { name: string; exitCode: number | null; excerpt?: string }[];
      } | null;
    };
    const [command] = evidence?.commands ?? [];
    const artifact =
      evidence?.artifact !== undefined &&
      existsSync(path.resolve(scratch.directory, 'repository', evidence.artifact));
    return [
      ...differs('the run', 'done', state),
      ...differs('attempts', 'rejected, accepted', attempts.map((one) => one.outcome).join(', ')),
      ...differs('exit code of the verification of the first', 1, command?.exitCode ?? 'none'),
      ...differs(
        'what it says of the file',
        'true',
        String(command?.excerpt?.includes('expected src/first.js to be right') === true),
      ),
      ...differs('its artifact', 'kept', artifact ? 'kept' : 'missing'),
      ...(await compareFiles(scratch, { ...BASE, 'src/first.js': 'export const first = 1;\n' })),
      ...differs('merges', 1, await countMerges(scratch)),
    ];
  },
};

/** What an agent has done wrong is mended by another one on the same branch; the attempt stays the first. */
const QA: Fixture = {
  name: 'QA pipeline',
  files: {},
  run: () => ({
    id: 'qa',
    limits: { attempts: 1, backoff: SOON },
    qa: { agent: 'mender' },
    tasks: [
      {
        ...{ id: 'mended', agent: 'writer' },
        input: { file: 'src/a.js', text: "export const a = 'wrong';\n", mended: `${line('a')}\n` },
      },
    ],
  }),
  judge: async (scratch, { id, state, tasks }) => {
    const [attempt] = await scratch.troupe.task(id, 'mended').attempts();
    const { refused, fixes = [] } = JSON.parse(attempt?.detailsJson ?? '{}') as {
      refused?: { stage: string };
      fixes?: readonly { agent: string; outcome: string }[];
    };
    const branch = await scratch.git('rev-list', '--count', 'main..troupe/qa/mended');
    return [
      ...differs('the run', 'done', state),
      ...differs('attempts', 1, tasks[0]?.attempts ?? 0),
      ...differs('where it was refused first', 'verify', refused?.stage ?? 'nowhere'),
      ...differs(
        'who has mended it',
        'mender: accepted',
        fixes.map(({ agent, outcome }) => `${agent}: ${outcome}`).join(', '),
      ),
      ...differs('submissions on its branch', 2, Number(branch)),
      ...(await compareFiles(scratch, { ...BASE, 'src/a.js': `${line('a')}\n` })),
      ...differs('merges', 1, await countMerges(scratch)),
    ];
  },
};

const FIXTURES: readonly Fixture[] = [PARALLEL, REJECTION, QA];

/** Carries out each, one after the other. A fixture that cannot even begin is one with a problem. */
export async function runFixtures(): Promise<readonly FixtureReport[]> {
  const reports: FixtureReport[] = [];
  for (const fixture of FIXTURES) {
    const began = performance.now();
    const problems = await carryOut(fixture).catch((error: unknown) => [
      error instanceof Error ? error.message : String(error),
    ]);
    const tookMs = Math.round(performance.now() - began);
    reports.push({ name: fixture.name, ok: problems.length === 0, tookMs, problems });
  }
  return reports;
}

async function carryOut(fixture: Fixture): Promise<readonly string[]> {
  const directory = await realpath(await mkdtemp(path.join(tmpdir(), 'troupe-doctor-')));
  try {
    const repository = path.join(directory, 'repository');
    const files = Object.entries(BASE).map(([name, text]) => [`repository/${name}`, text] as const);
    for (const [name, text] of [...files, ...Object.entries(fixture.files)]) {
      const file = path.join(directory, name);
      await mkdir(path.dirname(file), { recursive: true });
      await writeFile(file, text);
    }
    await writeFile(path.join(directory, 'agent.mjs'), AGENT);
    const git = gitIn(repository);
    await git('init', '--quiet', '--initial-branch=main', '--template=');
    await git('add', '--all');
    await git('commit', '--quiet', '--message', 'The project as it stands');
    const { pino } = await import('pino');
    const troupe = await createTroupe({
      store: path.join(directory, 'state.db'),
      durability: 'normal',
      logger: pino({ level: 'silent' }),
      project: {
        directory: repository,
        verify: [{ name: 'test', command: [process.execPath, 'verify.mjs'] }],
      },
    });
    try {
      troupe.patchAgent('patcher', { concurrency: 2, timeoutMs: LIMIT_MS });
      for (const name of ['writer', 'mender']) {
        troupe.commandAgent(
          name,
          { run: [process.execPath, '{project}/agent.mjs'], projectDirectory: directory },
          { concurrency: 2, timeoutMs: LIMIT_MS },
        );
      }
      const scratch = { troupe, directory, git };
      const run = await troupe.start(fixture.run(scratch));
      return await fixture.judge(scratch, await within(LIMIT_MS, run.result()));
    } finally {
      await troupe.stop();
    }
  } finally {
    await rm(directory, { recursive: true, force: true, maxRetries: 5 });
  }
}

async function within<T>(ms: number, result: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`It was not done after ${ms} ms.`)), ms);
  try {
    return await Promise.race([result, promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Nothing of the machine's or the user's configuration: hooks, signatures and templates are not what is looked at. */
function gitIn(directory: string): Scratch['git'] {
  const env = {
    PATH: process.env['PATH'],
    LC_ALL: 'C',
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_CONFIG_GLOBAL: '/dev/null',
    ...Object.fromEntries(
      ['AUTHOR', 'COMMITTER'].flatMap((who) => [
        [`GIT_${who}_NAME`, 'Troupe'],
        [`GIT_${who}_EMAIL`, 'troupe@localhost'],
      ]),
    ),
  };
  return async (...args) =>
    (await promisify(execFile)('git', args, { cwd: directory, env })).stdout;
}

/** Of the target's tree and of the files that the user has before him. */
async function compareFiles(
  { directory, git }: Scratch,
  expected: Readonly<Record<string, string>>,
): Promise<readonly string[]> {
  const names = (await git('ls-tree', '-r', '--name-only', 'main')).trim().split('\n');
  const problems = [
    ...differs('the files on main', Object.keys(expected).toSorted().join(', '), names.join(', ')),
  ];
  for (const [name, text] of Object.entries(expected)) {
    if (names.includes(name)) {
      problems.push(...differs(`${name} on main`, text, await git('show', `main:${name}`)));
    }
    const file = path.join(directory, 'repository', name);
    const inPlace = existsSync(file) ? await readFile(file, 'utf8') : '(missing)';
    problems.push(...differs(`${name} in the working tree`, text, inPlace));
  }
  return problems;
}

async function countMerges({ git }: Scratch): Promise<number> {
  return Number(await git('rev-list', '--count', '--first-parent', 'main')) - 1;
}

function differs(what: string, expected: string | number, got: string | number): readonly string[] {
  if (expected === got) return [];
  return [`Expected ${what} to be ${JSON.stringify(expected)}, got ${JSON.stringify(got)}.`];
}
