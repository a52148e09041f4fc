import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { requirePrograms } from '../../src/operator/programs.ts';
import { REPOSITORY } from '../tooling/run-command.ts';
import { commit, git, temporaryDirectory, write } from '../workspace/git-fixture.ts';
import {
  Cli,
  configure,
  type Ended,
  makeProject,
  merges,
  ONCE,
  troupe,
  workedProject,
  writing,
} from './cli-fixture.ts';

// Real processes on a machine that does other things as well.
vi.setConfig({ testTimeout: 120_000 });

const TASKS = [writing('one', { pid: 'pid' })];

/** A project whose main and side have changed the same line. */
function divided(): string {
  const directory = makeProject(TASKS);
  git(directory, 'checkout', '-q', '-b', 'side');
  commit(directory, { 'src/main.js': 'export const main = 2;\n' });
  git(directory, 'checkout', '-q', 'main');
  commit(directory, { 'src/main.js': 'export const main = 3;\n' });
  return directory;
}

/** A program of this name, first on the PATH. */
function pathWith(name: string, script: string): string {
  const bin = temporaryDirectory();
  writeFileSync(path.join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return `${bin}:${process.env['PATH'] ?? ''}`;
}

const runWith = (directory: string, env: NodeJS.ProcessEnv): Promise<Ended> =>
  new Cli(directory, ['run'], env).ended;

interface Refused {
  readonly what: string;
  readonly make: () => string;
  readonly env?: () => NodeJS.ProcessEnv;
  readonly says: string;
}

const REFUSED: readonly Refused[] = [
  {
    what: 'that is no git repository',
    make: () => {
      const directory = makeProject(TASKS);
      rmSync(path.join(directory, '.git'), { recursive: true });
      return directory;
    },
    says: 'git init -b main && git add -A && git commit',
  },
  {
    what: 'in a bare repository',
    make: () => {
      const directory = path.join(temporaryDirectory(), 'bare.git');
      git(temporaryDirectory(), 'init', '-q', '--bare', directory);
      configure(directory, TASKS);
      return directory;
    },
    says: 'Use a clone of it',
  },
  {
    what: 'without a commit',
    make: () => {
      const directory = makeProject(TASKS);
      rmSync(path.join(directory, '.git'), { recursive: true });
      git(directory, 'init', '-q', '-b', 'main');
      return directory;
    },
    says: 'has no commit yet. Make the first one',
  },
  {
    what: 'without the target branch',
    make: () => makeProject(TASKS, { target: 'mian' }),
    says: 'Expected the branch mian in',
  },
  {
    what: 'in the middle of a merge',
    make: () => {
      const directory = divided();
      expect(() => git(directory, 'merge', 'side')).toThrow();
      return directory;
    },
    says: 'A merge is in progress',
  },
  {
    what: 'in the middle of a rebase',
    make: () => {
      const directory = divided();
      expect(() => git(directory, 'rebase', 'side')).toThrow();
      return directory;
    },
    says: 'git rebase --abort',
  },
  {
    what: 'with uncommitted changes',
    make: () => {
      const directory = makeProject(TASKS);
      write(directory, { 'src/main.js': 'export const main = 2;\n' });
      return directory;
    },
    says: 'has uncommitted changes ("src/main.js"). Commit or stash them.\nUntil then nothing can be merged into main, and agents would not see these changes.',
  },
  {
    what: 'with changes that are only staged',
    make: () => {
      const directory = makeProject(TASKS);
      write(directory, { 'src/more.js': '' });
      git(directory, 'add', 'src/more.js');
      return directory;
    },
    says: 'has uncommitted changes ("src/more.js")',
  },
  {
    what: 'with uncommitted changes in another checkout of the target',
    make: () => {
      const directory = makeProject(TASKS);
      git(directory, 'checkout', '-q', '-b', 'side');
      const other = path.join(temporaryDirectory(), 'other');
      git(directory, 'worktree', 'add', '-q', other, 'main');
      write(other, { 'src/main.js': 'export const main = 2;\n' });
      return directory;
    },
    says: 'other, which has main checked out, has uncommitted changes',
  },
  {
    what: 'with an old git',
    make: () => makeProject(TASKS),
    env: () => ({ PATH: pathWith('git', 'echo git version 2.37.9') }),
    says: 'Expected git 2.38 or newer (merges are made by "git merge-tree --write-tree"), got git version 2.37.9.',
  },
  {
    what: 'whose commands begin with programs that are not there',
    make: () =>
      makeProject(TASKS, {
        verify: [
          { name: 'test', run: 'pytset -q' },
          { name: 'lint', run: ['pytset', '--lint'] },
        ],
      }),
    says: '\n  pytset (verify: test, verify: lint)\nInstall it, correct the command, or mend PATH, which is /',
  },
];

describe('nothing is begun in a project', () => {
  test.each(REFUSED)('$what', async ({ make, env, says }) => {
    const directory = make();
    // The programs of another PATH are those of another process.
    const ended = env === undefined ? troupe(directory, 'run') : runWith(directory, env());
    const { exitCode, stdout, stderr } = await ended;
    expect({ exitCode, stdout }).toEqual({ exitCode: 41, stdout: '' });
    expect(stderr).toContain(says);
    expect(stderr).toMatch(/^troupe: /);
    expect(stderr).not.toMatch(/ {4}at /);
    expect(existsSync(path.join(directory, 'pid'))).toBe(false);
    const status = await troupe(directory, 'status');
    expect(status.stdout).toBe('There is no run yet. Begin with "troupe run".\n');
  });

  test('whose state cannot be kept', async ({ skip }) => {
    const root = process.getuid?.() === 0;
    // Root may write anywhere: then it is somebody else who runs it.
    const other = root ? { uid: 65_534, gid: 65_534 } : {};
    const bin = path.join(REPOSITORY, 'src', 'operator', 'bin.ts');
    const readable = spawnSync(
      '/bin/sh',
      ['-c', '"$0" --version && test -r "$1"', process.execPath, bin],
      other,
    );
    if (readable.status !== 0) skip('nobody else may read the sources here');
    const directory = makeProject(TASKS);
    const state = path.join(directory, '.troupe');
    mkdirSync(state);
    writeFileSync(path.join(state, '.gitignore'), '*\n');
    chmodSync(state, 0o500);
    if (root)
      for (const place of [path.dirname(directory), directory, state])
        chownSync(place, 65_534, 65_534);
    const child = spawn(process.execPath, [bin, 'run'], {
      ...other,
      cwd: directory,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const [exitCode] = (await once(child, 'close')) as [number];
    expect(stderr).toContain(`Cannot keep state in ${state}: EACCES: permission denied`);
    expect(stderr).toContain('Troupe needs a directory there that it may write to.');
    expect(exitCode).toBe(41);
  });
});

test('what stands in the way is in the way of resume as well, and of no decision', async () => {
  const directory = await workedProject(
    [writing('wrong', { wrongUntil: 'do it right' })],
    30,
    ONCE,
  );
  write(directory, { 'src/main.js': 'export const main = 2;\n' });
  expect(await troupe(directory, 'retry', 'wrong', '--guidance', 'do it right')).toMatchObject({
    exitCode: 0,
    stderr: '',
  });
  const refused = await troupe(directory, 'resume', '--json');
  expect(JSON.parse(refused.stdout)).toMatchObject({
    error: { code: 'configuration' },
    exitCode: 41,
  });
  expect(merges(directory)).toEqual([]);
  git(directory, 'stash', '-q');
  expect(await troupe(directory, 'resume')).toMatchObject({ exitCode: 0, stderr: '' });
  expect(merges(directory)).toEqual(['wrong']);
});

interface Unusual {
  readonly what: string;
  readonly make: () => { readonly directory: string; readonly env?: NodeJS.ProcessEnv };
  /** What is said before work begins; nothing where all is as usual. */
  readonly notes?: readonly string[];
}

/** A project, and what somebody has done to it. */
const made = (change: (directory: string) => void): { readonly directory: string } => {
  const directory = makeProject(TASKS);
  change(directory);
  return { directory };
};

test.each<Unusual>([
  {
    what: 'in a shallow clone',
    make: () => {
      const directory = path.join(temporaryDirectory(), 'clone');
      const { directory: from } = made((origin) => commit(origin, { 'more.txt': 'x\n' }));
      git(temporaryDirectory(), 'clone', '-q', '--depth', '1', `file://${from}`, directory);
      return { directory };
    },
    notes: ['is cut off (a shallow clone)', 'git fetch --unshallow'],
  },
  {
    what: 'with submodules',
    make: () =>
      made((directory) => {
        const other = makeProject([]);
        git(
          directory,
          '-c',
          'protocol.file.allow=always',
          'submodule',
          'add',
          '-q',
          other,
          'lib/other',
        );
        git(directory, 'commit', '-q', '-m', 'submodule');
      }),
    notes: ['lib/other is a submodule', 'git submodule update --init'],
  },
  {
    what: 'with files in LFS',
    make: () =>
      made((directory) => {
        commit(directory, { '.gitattributes': '# filter=lfs\n*.bin filter=lfs diff=lfs\n' });
      }),
    notes: ['Files in LFS (*.bin in .gitattributes) are pointers', 'git lfs pull'],
  },
  {
    what: 'on a detached HEAD',
    make: () => made((directory) => git(directory, 'checkout', '-q', '--detach')),
  },
  {
    what: 'in a linked worktree',
    make: () => {
      const linked = path.join(temporaryDirectory(), 'linked');
      made((directory) => {
        git(directory, 'checkout', '-q', '-b', 'side');
        git(directory, 'worktree', 'add', '-q', linked, 'main');
      });
      return { directory: linked };
    },
  },
  {
    what: 'with a sparse checkout',
    make: () =>
      made((directory) =>
        git(directory, 'sparse-checkout', 'set', '--no-cone', '/*', '!/add.patch'),
      ),
  },
  {
    what: 'without an identity',
    make: () => ({
      ...made(() => undefined),
      env: {
        HOME: temporaryDirectory(),
        XDG_CONFIG_HOME: '/nonexistent',
        GIT_CONFIG_NOSYSTEM: '1',
        EMAIL: '',
      },
    }),
  },
])(
  'work goes on $what, and what is unlike elsewhere is said before',
  async ({ make, notes = [] }) => {
    const { directory, env } = make();
    const ended = env === undefined ? troupe(directory, 'run') : runWith(directory, env);
    const { exitCode, stderr } = await ended;
    expect({ exitCode, stderr: notes.length === 0 ? stderr : '' }).toEqual({
      exitCode: 0,
      stderr: '',
    });
    for (const note of notes) expect(stderr).toContain(note);
    if (notes.length > 0) expect(stderr).toMatch(/^troupe: note: .*\n$/);
    expect(git(directory, 'log', '-1', '--format=%s', 'main')).toBe('one');
  },
);

test('changes are in nobody’s way where the target is not checked out, nor are untracked files', async () => {
  const directory = makeProject([writing('one')]);
  git(directory, 'checkout', '-q', '-b', 'mine');
  write(directory, { 'src/main.js': 'export const main = 2;\n', 'notes.txt': 'mine\n' });
  expect(await troupe(directory, 'run')).toMatchObject({ exitCode: 0, stderr: '' });
  expect(merges(directory)).toEqual(['one']);
});

test('what a crash of ours has left looks like a change, and is in nobody’s way', async () => {
  const directory = makeProject([writing('one')]);
  const first = git(directory, 'rev-parse', 'main');
  const merged = commit(directory, { 'src/zero.js': '' }, 'zero\n\nTroupe-Task: main/zero');
  // The branch has moved to what was accepted, and the process was killed before the files followed.
  git(directory, 'reset', '-q', '--hard', first);
  git(directory, 'update-ref', 'refs/heads/main', merged);
  mkdirSync(path.join(directory, '.git', 'troupe'));
  writeFileSync(path.join(directory, '.git', 'troupe', 'move'), `${first} ${merged}\n`);
  expect(git(directory, 'status', '--porcelain')).toBe('D  src/zero.js');
  expect(await troupe(directory, 'run')).toMatchObject({ exitCode: 0, stderr: '' });
  expect(merges(directory)).toEqual(['zero', 'one']);
  expect(git(directory, 'status', '--porcelain')).toBe('');
});

describe('the programs that commands begin with', () => {
  const verify = (name: string, run: string | readonly string[], allowFail = false) => ({
    ...{ name, run, timeoutMs: 1, allowFail },
  });
  const agent = (name: string, run: string | readonly string[]) =>
    ({ name, engine: 'command', tract: 'external', run, concurrency: 1, timeoutMs: 1 }) as const;
  const check = (
    verifications: readonly ReturnType<typeof verify>[],
    agents: readonly ReturnType<typeof agent>[] = [],
    searchPath?: string,
  ) => requirePrograms({ verify: verifications, agents }, searchPath);

  test.each<{ run: string | readonly string[] }>([
    { run: ['sh', '-c', 'nothing'] },
    { run: 'sh -c nothing' },
    { run: 'cd src && nothing' },
    { run: 'if nothing; then nothing; fi' },
    { run: '  test -f x' },
    // What a shell makes of these is for the shell.
    { run: 'CI=1 nothing' },
    { run: '"$TOOL" nothing' },
    { run: '(nothing)' },
    { run: 'nothing;' },
    // In the place where the command will run there may be what is not here.
    { run: './nothing.sh' },
    { run: ['./nothing.sh'] },
    { run: ['{project}/nothing.sh'] },
    { run: ['/no/such/program'] },
  ])('are found, or not looked for: $run', ({ run }) => {
    check([verify('test', run)], [agent('a', run)]);
  });

  test.each<{ run: string | readonly string[]; searchPath?: string }>([
    { run: ['no-such-program', 'x'] },
    { run: ' no-such-program x' },
    { run: 'no-such-program' },
    // A shell's word is no program.
    { run: ['if'] },
    { run: ['sh'], searchPath: '' },
    { run: ['sh'], searchPath: '/nonexistent' },
  ])('are missed: $run', ({ run, searchPath }) => {
    expect(() => check([verify('test', run)], [], searchPath)).toThrow('(verify: test)');
    expect(() => check([], [agent('scribe', run)], searchPath)).toThrow('(agents: scribe)');
  });

  test('are missed when a preset starts them', () => {
    const coder = {
      name: 'coder',
      engine: 'preset',
      tract: 'external',
      concurrency: 1,
      timeoutMs: 1,
      program: { preset: 'codex' },
    } as const;
    const config = { verify: [verify('test', 'sh')], agents: [coder] };
    expect(() => requirePrograms(config, '/usr/bin:/bin')).toThrow('codex (agents: coder)');
  });

  test('a directory or a file that cannot be executed is none', () => {
    const bin = temporaryDirectory();
    mkdirSync(path.join(bin, 'tool'));
    expect(() => check([verify('test', ['tool'])], [], bin)).toThrow('tool (verify: test)');
    rmSync(path.join(bin, 'tool'), { recursive: true });
    writeFileSync(path.join(bin, 'tool'), '', { mode: 0o644 });
    expect(() => check([verify('test', ['tool'])], [], bin)).toThrow('tool (verify: test)');
    chmodSync(path.join(bin, 'tool'), 0o755);
    check([verify('test', ['tool'])], [], `/nonexistent:${bin}`);
  });

  test('are not looked for after setup, which may install them, nor where failing is allowed', () => {
    check([verify('setup', 'sh'), verify('test', 'nothing')]);
    check([verify('lint', ['nothing'], true)]);
    expect(() => check([verify('setup', 'nothing'), verify('test', 'sh')])).toThrow(
      'nothing (verify: setup)',
    );
  });

  test('are missed when a reviewer begins with them, unless nobody is asked', () => {
    const review = { reviewers: [{ name: 'ada', command: ['nothing'] }] };
    const config = { verify: [verify('test', 'sh')], agents: [] };
    expect(() => requirePrograms({ ...config, review })).toThrow('nothing (review: ada)');
    requirePrograms({ ...config, review: { ...review, mode: 'off' } });
  });

  test('are all named in one error', () => {
    const both = () =>
      check([verify('test', 'nothing')], [agent('a', ['none']), agent('b', 'none')], '/bin');
    expect(both).toThrow(
      'Programs that the commands in troupe.yaml need are not on PATH:\n  nothing (verify: test)\n  none (agents: a, agents: b)\nInstall them, correct the command, or mend PATH, which is /bin.',
    );
  });
});
