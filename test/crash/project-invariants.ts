import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import path from 'node:path';
import { taskPath } from '../../src/workspace/branch-name.ts';
import type { Invariant } from './invariants.ts';
import type { ProjectWorld, World } from './world.ts';

/** What must be true of the repository, of the places beside it, and of the process table. */
export const projectInvariants: readonly Invariant[] = [
  { name: 'I1 main is green', ...ofProject(mainIsGreen) },
  { name: 'I2 one merge for every done task', ...ofProject(oneMerge) },
  { name: 'I6 artifacts parse', ...ofProject(artifactsParse) },
  { name: 'I7 no places left', ...ofProject(noPlacesLeft, true) },
  { name: 'I7 no locks left', ...ofProject(noLocksLeft, true) },
  { name: 'I7 no processes on record', ...ofProject(registryIsEmpty, true) },
  {
    name: 'I7 no processes left',
    applies: ({ expect }) => expect.atRest !== false,
    check: noProcessesLeft,
  },
  { name: 'I10 repository is sound', ...ofProject(fsckIsClean) },
  { name: 'I10 working tree follows main', ...ofProject(workingTreeIsClean, true) },
  { name: 'I10 the user’s files are untouched', ...ofProject(untouched) },
];

function ofProject(
  check: (project: ProjectWorld, world: World) => readonly string[],
  onlyAtRest = false,
): Pick<Invariant, 'applies' | 'check'> {
  return {
    applies: ({ project, expect }) =>
      project !== undefined && (!onlyAtRest || expect.atRest !== false),
    check: (world) => check(world.project as ProjectWorld, world),
  };
}

/** By tree, not by commit: what was verified is exactly what is there. */
function mainIsGreen({ commits, artifacts, git }: ProjectWorld): string[] {
  return commits.flatMap(({ id, tree, task }) => {
    if (task === '') return [`${id} on main is not ours.`];
    if (git('rev-list', '--parents', '-1', id).split(' ').length !== 2) {
      return [`${id} of ${task} has other than one parent.`];
    }
    const proof = artifacts.find(
      ({ content }) =>
        content?.['verdict'] === 'accepted' &&
        content['tree'] === tree &&
        content['mergeCommit'] === id &&
        `${content['run']}/${content['task']}` === task,
    );
    if (proof === undefined) return [`${id} of ${task} (tree ${tree}) has no passing artifact.`];
    const commands = proof.content?.['commands'] as readonly {
      exitCode: number;
      allowedToFail?: boolean;
    }[];
    const green =
      commands.length > 0 && commands.every((c) => c.exitCode === 0 || c.allowedToFail === true);
    return green ? [] : [`${proof.file} proves nothing.`];
  });
}

function oneMerge({ commits }: ProjectWorld, { tasks, expect }: World): string[] {
  return tasks.flatMap(({ run, task, state, detailsJson }) => {
    const name = `${run}/${task}`;
    const merges = commits.filter((commit) => commit.task === name);
    if (merges.length > 1) return [`${name} was merged ${merges.length} times.`];
    if (state !== 'done') {
      // A kill may fall between the merge and the record of it.
      return expect.atRest === false || merges.length === 0
        ? []
        : [`${name} is ${state} and merged.`];
    }
    const { commit } = JSON.parse(detailsJson) as { commit: string | null };
    return merges[0] !== undefined && merges[0].id === commit
      ? []
      : [`${name} is done as ${commit}; on main is ${merges[0]?.id ?? 'nothing of it'}.`];
  });
}

function artifactsParse({ artifacts }: ProjectWorld): string[] {
  return artifacts.flatMap(({ file, content }) =>
    typeof content?.['verdict'] === 'string' && Array.isArray(content['commands'])
      ? []
      : [`${file} is no artifact.`],
  );
}

/** Places of tasks that go on stay; everything else below `.troupe` that is made for a while is gone. */
function noPlacesLeft({ directory, git }: ProjectWorld, { tasks }: World): string[] {
  const state = path.join(directory, '.troupe');
  const ended = new Set(
    tasks
      .filter((row) => row.state === 'done' || row.state === 'cancelled')
      .map((row) => taskPath(row)),
  );
  const workspaces = path.join(state, 'workspaces');
  const places = list(workspaces)
    .filter((run) => !run.startsWith('.'))
    .flatMap((run) => list(path.join(workspaces, run)).map((task) => `${run}/${task}`));
  const scratch = ['workspaces/.new', 'workspaces/.trash', 'verify'].flatMap((name) =>
    list(path.join(state, name)).map((entry) => `${name}/${entry}`),
  );
  const worktrees = git('worktree', 'list', '--porcelain')
    .split('\n')
    .filter((l) => l.startsWith('worktree '));
  return [
    ...places.filter((place) => ended.has(place)).map((place) => `the workspace ${place} is left.`),
    ...scratch.map((name) => `${name} is left.`),
    ...(worktrees.length === 1 ? [] : [`worktrees: ${worktrees.join(', ')}.`]),
    ...temporaryFiles(state).map((name) => `the temporary file ${name} is left.`),
  ];
}

/** What a write that did not end leaves beside its file. What lies in a workspace is the agent's. */
function temporaryFiles(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter(
    (name) => name.endsWith('.tmp') && !/^workspaces\/[^.]/.test(name),
  );
}

function noLocksLeft({ directory }: ProjectWorld): string[] {
  return readdirSync(path.join(directory, '.git'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.lock') || name.includes('troupe-index'))
    .map((name) => `.git/${name} is left.`);
}

function registryIsEmpty({ directory }: ProjectWorld): string[] {
  return list(path.join(directory, '.troupe', 'processes')).map((name) => `${name} is left.`);
}

/** By the marker that everything inherits, and by where it runs: our git has an environment of its own. */
function noProcessesLeft({ project, expect }: World): string[] {
  return processes().flatMap(({ pid, environment, cwd }) => {
    const marked = expect.marker !== undefined && environment.includes(expect.marker);
    const inside = project !== undefined && `${cwd}/`.startsWith(`${project.directory}/`);
    return marked || inside ? [`process ${pid} in ${cwd} is left.`] : [];
  });
}

/** Every process but this one and the zombies. */
export function processes(): readonly {
  readonly pid: number;
  readonly environment: readonly string[];
  readonly cwd: string;
}[] {
  return readdirSync('/proc').flatMap((name) => {
    const pid = Number(name);
    if (!Number.isSafeInteger(pid) || pid === process.pid) return [];
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
      return [{ pid, environment, cwd: readlinkSync(`/proc/${pid}/cwd`) }];
    } catch {
      return []; // it ended meanwhile, or is another user's
    }
  });
}

function fsckIsClean({ git }: ProjectWorld): string[] {
  try {
    git('fsck', '--full', '--strict', '--no-dangling', '--no-progress');
    return [];
  } catch (error) {
    return [String((error as { stderr?: unknown }).stderr ?? error)];
  }
}

/** Nothing but the user's own untracked files differs from main. */
function workingTreeIsClean({ git }: ProjectWorld, { expect }: World): string[] {
  const own = new Set(Object.keys(expect.untouched ?? {}).map((name) => `?? ${name}`));
  const status = git('status', '--porcelain=v1', '--untracked-files=all').split('\n');
  const wrong = status.filter((line) => line !== '' && !own.has(line));
  const branch = git('symbolic-ref', 'HEAD');
  return [
    ...wrong.map((line) => `status says "${line}".`),
    ...(branch === 'refs/heads/main' ? [] : [`${branch} is checked out.`]),
  ];
}

function untouched({ directory }: ProjectWorld, { expect }: World): string[] {
  return Object.entries(expect.untouched ?? {}).flatMap(([name, content]) => {
    let found: string;
    try {
      found = readFileSync(path.join(directory, name), 'utf8');
    } catch (error) {
      return [`${name}: ${(error as Error).message}`];
    }
    return found === content ? [] : [`${name} holds ${JSON.stringify(found)}.`];
  });
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => name !== '.gitignore');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
