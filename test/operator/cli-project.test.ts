import { spawnSync } from 'node:child_process';
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { defaultRunId, findProject } from '../../src/operator/project.ts';
import { prepareStateDirectory } from '../../src/operator/state-directory.ts';
import { program } from '../program.ts';
import { makeProject, troupe, writing } from './cli-fixture.ts';

function temporary(): string {
  const directory = realpathSync(mkdtempSync(path.join(tmpdir(), 'troupe project #1 ')));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

afterEach(() => {
  vi.unstubAllEnvs();
});

describe('the project', () => {
  test('is that of the nearest troupe.yaml', async () => {
    const root = temporary();
    const inside = path.join(root, 'src', 'deep');
    mkdirSync(inside, { recursive: true });
    writeFileSync(path.join(root, 'troupe.yaml'), '');
    expect(await findProject(inside, undefined)).toEqual({
      file: path.join(root, 'troupe.yaml'),
      directory: root,
    });
    expect(await findProject(root, undefined)).toEqual({ file: 'troupe.yaml', directory: root });
  });

  test('is also where a run has left its state, and else the current directory', async () => {
    const root = temporary();
    const inside = path.join(root, 'src');
    mkdirSync(inside);
    expect(await findProject(inside, undefined)).toMatchObject({ directory: inside });
    mkdirSync(path.join(root, '.troupe'));
    writeFileSync(path.join(root, '.troupe', 'state.db'), '');
    expect(await findProject(inside, undefined)).toMatchObject({ directory: root });
  });

  test.runIf(process.getuid?.() === 0)(
    'is not one above the current directory that is another user’s, unless it is named',
    async () => {
      const root = temporary();
      const inside = path.join(root, 'src');
      mkdirSync(inside);
      const file = path.join(root, 'troupe.yaml');
      writeFileSync(file, '');
      chownSync(file, 12345, 12345);
      await expect(findProject(inside, undefined)).rejects.toMatchObject({
        code: 'configuration',
        message: `Expected the project above the current directory to be yours; ${file} belongs to another user (uid 12345), and what it says would be run. If that is meant, name it: troupe --file '${file}'`,
      });
      expect(await findProject(inside, file)).toMatchObject({ directory: root });
      expect(await findProject(root, undefined)).toMatchObject({ directory: root });
      vi.stubEnv('SUDO_UID', '12345');
      expect(await findProject(inside, undefined)).toMatchObject({ directory: root });
    },
  );

  test('is that of the file, or the directory, that was named', async () => {
    const root = temporary();
    mkdirSync(path.join(root, 'other'));
    const directory = path.join(root, 'other');
    expect(await findProject(root, 'other/docs.yaml')).toEqual({
      file: 'other/docs.yaml',
      directory,
    });
    expect(await findProject(root, 'other')).toEqual({ file: 'other/troupe.yaml', directory });
    await expect(findProject(root, 'none/troupe.yaml')).rejects.toMatchObject({
      code: 'configuration',
      message: 'The directory of none/troupe.yaml cannot be used: there is no such file.',
    });
  });
});

test.each([
  { file: 'troupe.yaml', run: 'main' },
  { file: 'troupe.yml', run: 'main' },
  { file: '/somewhere/troupe.docs.yaml', run: 'docs' },
  { file: 'docs.yaml', run: 'docs' },
  { file: 'the plan (2).yaml', run: 'the-plan-2' },
  { file: '..yaml', run: 'main' },
  { file: 'a..b.yaml', run: 'a.b' },
  { file: `${'x'.repeat(100)}.yaml`, run: 'x'.repeat(64) },
])('the backlog in $file is the run $run', ({ file, run }) => {
  expect(defaultRunId(file)).toBe(run);
});

describe('the state directory', () => {
  test('is for its owner, and git does not see it', async () => {
    const root = temporary();
    mkdirSync(path.join(root, '.troupe'), { mode: 0o755 });
    const directory = await prepareStateDirectory(root);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(readFileSync(path.join(directory, '.gitignore'), 'utf8')).toBe('*\n');
    expect(await prepareStateDirectory(root)).toBe(directory);
  });

  test('is no link: what we write would go wherever it leads', async () => {
    const root = temporary();
    const victim = temporary();
    symlinkSync(victim, path.join(root, '.troupe'));
    await expect(prepareStateDirectory(root)).rejects.toMatchObject({
      code: 'configuration',
      message: `Expected ${root}/.troupe to be a directory, got a symbolic link. Remove it and try again.`,
    });
    expect(() => statSync(path.join(victim, '.gitignore'))).toThrow('ENOENT');
  });

  test('that cannot be made is said in words', async () => {
    const root = temporary();
    writeFileSync(path.join(root, '.troupe'), '');
    await expect(prepareStateDirectory(root)).rejects.toMatchObject({ code: 'configuration' });
  });
});

describe('what is in the way of a file of ours is named, with what to do', () => {
  test.each([
    { argv: ['run'], there: '.troupe/logs', make: 'file' },
    { argv: ['run'], there: '.troupe/control.token', make: 'directory' },
    { argv: ['init'], there: 'package.json', make: 'directory' },
    { argv: ['init'], there: '.gitignore', make: 'directory' },
  ])('$argv: $there is a $make', async ({ argv, there, make }) => {
    const directory = argv[0] === 'run' ? makeProject([writing('one')]) : temporary();
    const file = path.join(directory, there);
    if (make === 'directory') mkdirSync(file, { recursive: true });
    else {
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(file, '');
    }
    const { exitCode, stderr } = await troupe(directory, ...argv);
    expect(stderr).toMatch(
      /^troupe: Could not use .*: .* \((?:EEXIST|EISDIR|ERR_FS_EISDIR)\)\. Move it out of the way or make it usable, then run the command again\.\n$/,
    );
    expect(stderr).toContain(`Could not use ${file}: `);
    expect(exitCode).toBe(41);
    expect(existsSync(path.join(directory, 'troupe.yaml'))).toBe(argv[0] === 'run');
  });

  test('a directory that is gone', async () => {
    const directory = temporary();
    // It is removed when the program is there already.
    const script = 'cd "$1" && rmdir "$1" && exec "$2" "$3" status';
    const { status, stderr } = spawnSync(
      'sh',
      ['-c', script, 'sh', directory, process.execPath, program('operator/bin')],
      { encoding: 'utf8' },
    );
    expect(stderr).toBe(
      'troupe: The current directory is not there any more. Change to one that is, and run the command again.\n',
    );
    expect(status).toBe(41);
  });
});
