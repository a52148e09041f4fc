import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fc, test as property } from '@fast-check/vitest';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { ConfigurationError } from '../../src/index.ts';
import { runSpecOf } from '../../src/operator/compose.ts';
import { loadConfig, type ProjectConfig } from '../../src/operator/config.ts';
import { cpuTimeMs } from '../cpu-time.ts';
import { BAD_CONFIGS, MINIMAL } from './config-cases.ts';

let root: string;
beforeAll(async () => {
  root = await realpath(await mkdtemp(path.join(tmpdir(), 'troupe-config-')));
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});

/** Makes a new project directory and returns the path of its troupe.yaml. */
async function project(
  text: string | Uint8Array,
  files: Readonly<Record<string, string>> = {},
): Promise<string> {
  const directory = await mkdtemp(path.join(root, 'p-'));
  await writeFile(path.join(directory, 'troupe.yaml'), text);
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(directory, name);
    await mkdir(path.dirname(file), { recursive: true });
    if (content.startsWith('-> ')) await symlink(content.slice(3), file);
    else await writeFile(file, content);
  }
  return path.join(directory, 'troupe.yaml');
}

async function load(
  text: string | Uint8Array,
  files: Readonly<Record<string, string>> = {},
): Promise<ProjectConfig> {
  return loadConfig(await project(text, files));
}

async function refusal(file: string): Promise<ConfigurationError> {
  const outcome: unknown = await loadConfig(file).catch((error: unknown) => error);
  expect(outcome).toBeInstanceOf(ConfigurationError);
  return outcome as ConfigurationError;
}

describe('what is refused', () => {
  test('every message is the one in the golden file', async () => {
    expect(new Set(BAD_CONFIGS.map((bad) => bad.name)).size).toBe(BAD_CONFIGS.length);
    const sections: string[] = [];
    for (const { name, text, files } of BAD_CONFIGS) {
      const file = await project(text, files);
      const error = await refusal(file);
      expect(error.exitCode, name).toBe(41);
      sections.push(
        `## ${name}\n${error.message.replaceAll(`${path.dirname(file)}${path.sep}`, '')}\n`,
      );
    }
    await expect(sections.join('\n')).toMatchFileSnapshot('./golden/config-messages.txt');
  });

  test('the problems are in the error as data too, at most 20 of them', async () => {
    const file = await project(`${MINIMAL}concurrency: 0\ntarget: 3\n`);
    expect((await refusal(file)).context).toEqual({
      file,
      total: 2,
      problems: [
        {
          file,
          line: 3,
          column: 14,
          path: 'concurrency',
          message: 'expected a whole number from 1 to 1000, got the number 0',
        },
        {
          file,
          line: 4,
          column: 9,
          path: 'target',
          message: 'expected the name of a branch, such as main, got the number 3',
        },
      ],
    });
    const many = Array.from({ length: 500 }, (_, index) => `key${index}: 1\n`).join('');
    const { context } = await refusal(await project(`${MINIMAL}${many}`));
    expect(context['total']).toBe(500);
    expect(context['problems']).toHaveLength(20);
  });

  test('a file that is not there, a directory, a directory that is not there', async () => {
    const empty = await mkdtemp(path.join(root, 'p-'));
    const missing = path.join(empty, 'troupe.yaml');
    expect((await refusal(missing)).message).toBe(
      `${missing} cannot be used, because of 1 problem:\n${missing}: there is no such file; \`troupe init\` writes a first one`,
    );
    await mkdir(missing);
    expect((await refusal(missing)).message).toContain(
      'expected a file; troupe.yaml is a directory',
    );
    expect((await refusal(path.join(empty, 'no', 'troupe.yaml'))).message).toContain(
      'The project directory',
    );
  });

  test('a configuration that is a link out of its directory', async () => {
    const target = await project(MINIMAL);
    const directory = await mkdtemp(path.join(root, 'p-'));
    const link = path.join(directory, 'troupe.yaml');
    await symlink(target, link);
    expect((await refusal(link)).message).toContain('a symbolic link that leads out of it');
  });

  test.skipIf(process.platform === 'win32')('a device, without reading it', async () => {
    expect((await refusal('/dev/zero')).message).toContain('expected a file');
  });

  test.each([
    { what: 'arguments', text: 'verify: [{ name: test, run: [a, ?] }]' },
    { what: 'variables', text: 'verify: [{ name: test, run: a }]\nenvironment: [?]' },
    { what: 'dependencies', text: 'tasks: [{ id: a, agent: a, dependsOn: [?] }]' },
    {
      what: 'patches',
      text: 'agents: { a: { engine: patch } }\ntasks: [{ id: a, agent: a, patches: [?] }]',
    },
    { what: 'tasks', text: 'tasks: [?]' },
  ])('a hundred thousand $what', async ({ text }) => {
    const list = Array.from({ length: 100_000 }, (_, index) => index).join(',');
    const words = Array.from({ length: 100_000 }, (_, index) => `x${index}`).join(',');
    await refusal(await project(`version: 1\n${text.replace('?', list)}\n`));
    await refusal(await project(`version: 1\n${text.replace('?', words)}\n`));
  });

  test('a key from the file never reaches a prototype', async () => {
    await refusal(
      await project(`${MINIMAL}tasks: [{ id: a, agent: b, input: { __proto__: { x: 1 } } }]\n`),
    );
    expect(({} as Record<string, unknown>)['x']).toBeUndefined();
  });
});

describe('what is accepted', () => {
  test('the smallest configuration gets every default', async () => {
    const file = await project(MINIMAL);
    expect(await loadConfig(file)).toEqual({
      file,
      directory: path.dirname(file),
      target: 'main',
      verify: [{ name: 'test', run: 'npm test', timeoutMs: 600_000, allowFail: false }],
      tests: 'command',
      gate: { configuration: [path.basename(file)] },
      environment: [],
      agents: [],
      limits: {
        attempts: 10,
        sameError: 3,
        sameChange: 3,
        sameFeedback: 2,
        infrastructureAttempts: 10,
        interruptions: 3,
        backoff: { initialMs: 10_000, factor: 2, maxMs: 600_000 },
        infrastructureBackoff: { initialMs: 10_000, factor: 2, maxMs: 600_000 },
      },
      retention: {},
      policy: [],
      concurrency: 1,
      tasks: [],
    });
  });

  test('a configuration that uses everything', async () => {
    const file = await project(
      `version: 1
target: release/2.x
verify:
  - name: setup
    run: npm ci && npm run generate
    timeout: 5m
  - name: test
    run: [npm, test]
    timeout: 200ms
  - { name: lint, run: npm run lint, allowFail: true }
environment: [CI, NODE_ENV]
retention: { checkpointsPerActor: 20, finishedRunsDays: 0.5 }
agents:
  patcher: { engine: patch, concurrency: 2, mailbox: 50, overflow: wait, fallback: scribe, breaker: { failures: 4, open: 2m }, perKey: { key: input.customer, limit: 1 }, debounce: { key: input, period: 5s } }
  scribe: { engine: command, run: [node, "{project}/agents/scribe.mjs"], concurrency: 3, timeout: 2h, throttle: { limit: 9, period: 1m }, rateLimit: { limit: 2, period: 10s, key: input.a.b } }
  shell: { engine: command, run: ./work.sh, stages: [qa] }
qa: { agent: shell, sessions: 2 }
limits: { attempts: 5, backoff: { initial: 1s, factor: 1.5 }, infrastructureBackoff: { initial: 5s } }
overseer:
  policy:
    - { when: { task: second, state: escalated, agent: scribe }, decide: retry, guidance: "Look again.", times: 3 }
    - { when: { state: awaitingApproval }, decide: approve }
    - { when: {}, decide: block }
tasks:
  - id: first
    title: The first thing
    agent: patcher
    patch: patches/01.patch
    priority: urgent
  - id: second
    agent: scribe
    dependsOn: [first]
    input: { text: "x", list: [1, -2.5, null, true], deep: { constructor: 0 } }
    limits: { sameError: 1, backoff: { max: 30s }, infrastructureBackoff: { factor: 1, max: 20s } }
    staged: true
    qa: { agent: [shell, scribe], iterations: 4 }
  - { id: third, agent: [patcher, scribe], patches: [patches/01.patch, patches/../patches/02.patch], qa: false }
`,
      { 'patches/01.patch': '1', 'patches/02.patch': '2' },
    );
    const config = await loadConfig(file);
    const patches = path.join(path.dirname(file), 'patches');
    const limits = {
      attempts: 5,
      sameError: 3,
      sameChange: 3,
      sameFeedback: 2,
      infrastructureAttempts: 10,
      interruptions: 3,
      backoff: { initialMs: 1_000, factor: 1.5, maxMs: 600_000 },
      infrastructureBackoff: { initialMs: 5_000, factor: 2, maxMs: 600_000 },
    };
    expect(config).toEqual({
      file,
      directory: path.dirname(file),
      target: 'release/2.x',
      verify: [
        {
          name: 'setup',
          run: 'npm ci && npm run generate',
          timeoutMs: 300_000,
          allowFail: false,
        },
        { name: 'test', run: ['npm', 'test'], timeoutMs: 200, allowFail: false },
        { name: 'lint', run: 'npm run lint', timeoutMs: 600_000, allowFail: true },
      ],
      tests: 'command',
      gate: { configuration: [path.basename(file)] },
      environment: ['CI', 'NODE_ENV'],
      agents: [
        {
          name: 'patcher',
          engine: 'patch',
          tract: 'external',
          concurrency: 2,
          mailboxLimit: 50,
          overflow: 'wait',
          fallback: 'scribe',
          breaker: { failures: 4, openMs: 120_000 },
          perKey: { key: 'input.customer', limit: 1 },
          debounce: { key: 'input', periodMs: 5_000 },
        },
        {
          throttle: { limit: 9, periodMs: 60_000 },
          rateLimit: { limit: 2, periodMs: 10_000, key: 'input.a.b' },
          name: 'scribe',
          engine: 'command',
          tract: 'external',
          run: ['node', '{project}/agents/scribe.mjs'],
          concurrency: 3,
          timeoutMs: 7_200_000,
        },
        {
          name: 'shell',
          engine: 'command',
          tract: 'external',
          run: './work.sh',
          stages: ['qa'],
          concurrency: 1,
          timeoutMs: 1_200_000,
        },
      ],
      limits,
      retention: { checkpointsPerActor: 20, finishedRunsDays: 0.5 },
      policy: [
        {
          when: { task: 'second', state: 'escalated', agent: 'scribe' },
          decide: 'retry',
          guidance: 'Look again.',
          times: 3,
        },
        { when: { state: 'awaitingApproval' }, decide: 'approve' },
        { when: {}, decide: 'block' },
      ],
      qa: { agent: 'shell', sessions: 2 },
      concurrency: 101,
      tasks: [
        {
          id: 'first',
          title: 'The first thing',
          agent: 'patcher',
          patches: [path.join(patches, '01.patch')],
          dependsOn: [],
          priority: 'urgent',
          limits,
          staged: false,
        },
        {
          id: 'second',
          title: 'second',
          agent: 'scribe',
          patches: [],
          dependsOn: ['first'],
          priority: 'normal',
          input: { text: 'x', list: [1, -2.5, null, true], deep: { constructor: 0 } },
          limits: {
            ...limits,
            sameError: 1,
            backoff: { ...limits.backoff, maxMs: 30_000 },
            infrastructureBackoff: { initialMs: 5_000, factor: 1, maxMs: 20_000 },
          },
          qa: { agent: ['shell', 'scribe'], iterations: 4 },
          staged: true,
        },
        {
          id: 'third',
          title: 'third',
          agent: ['patcher', 'scribe'],
          qa: false,
          patches: [path.join(patches, '01.patch'), path.join(patches, '02.patch')],
          dependsOn: [],
          priority: 'normal',
          limits,
          staged: false,
        },
      ],
    });
  });

  test('what the gatekeeper holds a change against, and commands of one task', async () => {
    const file = await project(
      `version: 1
verify:
  - { name: test, run: make, always: true }
noTests: It is prose.
protect: ["db/**"]
gate: { rules: { tests-deleted: refuse, mass-deletion: "off" }, maxDeletedFiles: 3, maxDeletedShare: 0.1, maxFileBytes: 5 }
review: { mode: advisory, decide: all, pause: 1m, reviewers: [{ name: ada, run: [look, hard] }] }
agents: { scribe: { engine: command, run: x } }
tasks: work/list.yaml
`,
      {
        'work/list.yaml':
          '- { id: a, agent: scribe, accept: [{ name: speaks, run: ./speaks.sh, timeout: 5s }] }\n- { id: b, agent: scribe, accept: [] }\n',
      },
    );
    const config = await loadConfig(file);
    expect(config.verify[0]?.always).toBe(true);
    expect(config.noTests).toBe('It is prose.');
    expect(config.review).toEqual({
      mode: 'advisory',
      decide: 'all',
      pauseMs: 60_000,
      reviewers: [{ name: 'ada', command: ['look', 'hard'], timeoutMs: 600_000 }],
    });
    expect(config.gate).toEqual({
      rules: { 'tests-deleted': 'refuse', 'mass-deletion': 'off' },
      protectedPaths: ['db/**'],
      maxDeletedFiles: 3,
      maxDeletedShare: 0.1,
      maxFileBytes: 5,
      configuration: [path.basename(file), 'work/list.yaml'],
    });
    const accept = [{ name: 'speaks', run: './speaks.sh', timeoutMs: 5_000 }];
    expect(config.tasks.map((task) => task.accept)).toEqual([accept, undefined]);
    expect(runSpecOf(config, 'r').tasks[0]?.accept).toEqual([
      { name: 'speaks', command: './speaks.sh', timeoutMs: 5_000 },
    ]);
    expect(Object.keys(runSpecOf(config, 'r').tasks[1] ?? {})).not.toContain('accept');
  });

  test('a link by whose name a file is read configures what verifies as much as the file', async () => {
    const file = await project('', {
      'settings/real.yaml': `${MINIMAL}agents: { scribe: { engine: command, run: x } }\ntasks: list.yaml\n`,
      'docs.yaml': '-> settings/real.yaml',
      'settings/list.yaml': '- { id: a, agent: scribe }\n',
      'list.yaml': '-> settings/list.yaml',
    });
    const { gate } = await loadConfig(path.join(path.dirname(file), 'docs.yaml'));
    expect(gate.configuration?.toSorted()).toEqual([
      'docs.yaml',
      'list.yaml',
      'settings/list.yaml',
      'settings/real.yaml',
    ]);
  });

  test('tests: none, when another command verifies', async () => {
    const config = await load('version: 1\nverify: [{ name: build, run: make }]\ntests: none\n');
    expect(config.tests).toBe('none');
  });

  test('a byte order mark, Windows line ends, JSON', async () => {
    expect((await load(`\uFEFF${MINIMAL}`)).target).toBe('main');
    expect((await load(MINIMAL.replaceAll('\n', '\r\n'))).target).toBe('main');
    const json = JSON.stringify({ version: 1, verify: [{ name: 'test', run: 'npm test' }] });
    expect((await load(json)).target).toBe('main');
  });

  test('an alias, and a problem behind it stands where its anchor is', async () => {
    const text = (attempts: number) => `${MINIMAL}agents: { a: { engine: command, run: x } }
tasks:
  - { id: a, agent: a, limits: &few { attempts: ${attempts} } }
  - { id: b, agent: a, limits: *few }
`;
    const config = await load(text(2));
    expect(config.tasks.map((task) => task.limits.attempts)).toEqual([2, 2]);
    const { message } = await refusal(await project(text(0)));
    expect(message.match(/troupe\.yaml:5:\d+: tasks\[[01]\]\.limits\.attempts/g)).toHaveLength(2);
  });

  test('an alias keeps its meaning when its name is given again later', async () => {
    const config = await load(`${MINIMAL}agents: { a: { engine: command, run: x } }
tasks:
  - { id: a, agent: a, input: { y: &y 1, x: &x [*y], z: &y 2, again: *x, now: *y } }
`);
    expect(config.tasks[0]?.input).toEqual({ y: 1, x: [1], z: 2, again: [1], now: 2 });
  });

  test('what JSON cannot tell apart is one thing', async () => {
    const config = await load(`${MINIMAL}agents: { a: { engine: command, run: x } }
tasks: [{ id: a, agent: a, input: [-0, -0.0, 0x10, 1_0, yes, ~, 2026-01-01] }]
`);
    expect(config.tasks[0]?.input).toEqual([0, 0, 16, '1_0', 'yes', null, '2026-01-01']);
  });

  test('tasks in a file of their own', async () => {
    const config = await load(
      `${MINIMAL}agents: { patcher: { engine: patch } }\ntasks: work/backlog.yaml\n`,
      {
        'work/backlog.yaml': '- { id: a, agent: patcher, patch: a.patch }\n',
        'a.patch': 'relative to the project, not to the task file',
      },
    );
    expect(config.tasks[0]?.patches).toEqual([path.join(config.directory, 'a.patch')]);
  });

  test('a link inside the project', async () => {
    const config = await load(
      `${MINIMAL}agents: { patcher: { engine: patch } }\ntasks: [{ id: a, agent: patcher, patch: link }]\n`,
      { 'real/a.patch': '', link: '-> real/a.patch' },
    );
    expect(config.tasks[0]?.patches).toEqual([path.join(config.directory, 'real', 'a.patch')]);
  });

  test('10 000 tasks, each with a patch and a dependency, in a time that grows with their number only', async () => {
    const lines = Array.from({ length: 10_000 }, (_, index) => {
      const after = index === 0 ? '' : `, dependsOn: [task-${index - 1}]`;
      return `- { id: task-${index}, agent: patcher, patch: patches/${index % 100}.patch${after} }\n`;
    });
    const file = await project(
      `${MINIMAL}agents: { patcher: { engine: patch } }\ntasks: backlog.yaml\n`,
      {
        'backlog.yaml': lines.join(''),
        ...Object.fromEntries(
          Array.from({ length: 100 }, (_, index) => [`patches/${index}.patch`, '']),
        ),
      },
    );
    const start = cpuTimeMs();
    const config = await loadConfig(file);
    expect(config.tasks).toHaveLength(10_000);
    expect(config.tasks.at(-1)).toMatchObject({ id: 'task-9999', dependsOn: ['task-9998'] });
    // About 1 000 ms; anything quadratic in the tasks takes minutes.
    expect(cpuTimeMs() - start).toBeLessThan(10_000);
  });

  const example = path.resolve('examples/backlog/troupe.yaml');
  test.skipIf(!existsSync(example))('the example of this repository', async () => {
    const config = await loadConfig(example);
    expect(config.tasks.length).toBeGreaterThan(0);
    expect(config.verify.map((command) => command.name)).toContain('test');
  });
});

/** The parts of a configuration that works, to be spoilt one at a time. */
const GOOD = {
  version: 1,
  target: 'main',
  verify: [
    { name: 'test', run: ['npm', 'test'], timeout: '10s' },
    { name: 'lint', run: 'npm run lint', allowFail: true },
  ],
  environment: ['CI'],
  agents: { a: { engine: 'command', run: 'x', concurrency: 1, timeout: '1m' } },
  limits: {
    attempts: 3,
    backoff: { initial: '1s', factor: 2, max: '1m' },
    infrastructureBackoff: { initial: '1s', max: '1m' },
  },
  overseer: { policy: [{ when: { task: 'one' }, decide: 'retry', guidance: 'again', times: 2 }] },
  concurrency: 2,
  tasks: [
    { id: 'one', agent: 'a', input: { x: 1 } },
    { id: 'two', agent: 'a', dependsOn: ['one'], priority: 'low', staged: false },
  ],
};

/** Every path into a JSON value, the value itself included. */
function pathsInto(value: unknown): readonly (readonly (string | number)[])[] {
  if (typeof value !== 'object' || value === null) return [[]];
  const entries: [string | number, unknown][] = Array.isArray(value)
    ? value.map((item: unknown, index) => [index, item])
    : Object.entries(value);
  return [[], ...entries.flatMap(([key, item]) => pathsInto(item).map((rest) => [key, ...rest]))];
}

function replaceAt(value: unknown, keys: readonly (string | number)[], by: unknown): unknown {
  const [key, ...rest] = keys;
  if (key === undefined) return by;
  const copy = structuredClone(value) as Record<string | number, unknown>;
  copy[key] = replaceAt(copy[key], rest, by);
  return copy;
}

describe('whatever the file holds', () => {
  async function loadsOrRefuses(text: string | Uint8Array): Promise<void> {
    const outcome: unknown = await load(text).catch((error: unknown) => error);
    if (outcome instanceof Error) expect(outcome).toBeInstanceOf(ConfigurationError);
    else expect((outcome as ProjectConfig).verify.length).toBeGreaterThan(0);
  }

  property.prop([fc.jsonValue()], { numRuns: 100 })(
    'any JSON value is loaded or refused with a ConfigurationError',
    (value) => loadsOrRefuses(JSON.stringify(value)),
  );

  property.prop([fc.constantFrom(...pathsInto(GOOD)), fc.jsonValue(), fc.boolean()], {
    numRuns: 300,
  })('so is a good configuration with any value in any place', (keys, value, asYaml) => {
    const spoilt = replaceAt(GOOD, keys, value);
    return loadsOrRefuses(asYaml ? stringify(spoilt) : JSON.stringify(spoilt));
  });

  property.prop([fc.oneof(fc.uint8Array(), fc.string({ unit: 'binary' }))], { numRuns: 100 })(
    'so is any content at all',
    (content) => loadsOrRefuses(content),
  );

  test('the good configuration of these properties is one', async () => {
    expect((await load(JSON.stringify(GOOD))).tasks).toHaveLength(2);
  });

  const edges = fc.array(fc.tuple(fc.nat({ max: 7 }), fc.nat({ max: 7 })), { maxLength: 14 });
  property.prop([edges], { numRuns: 200 })(
    'a cycle is named if and only if the tasks cannot be put in order',
    async (pairs) => {
      const names = Array.from({ length: 8 }, (_, index) => `t${index}`);
      const dependsOn = names.map((_, from) => [
        ...new Set(pairs.filter(([a, b]) => a === from && b !== from).map(([, b]) => `t${b}`)),
      ]);
      const tasks = names.map((id, index) => ({ id, agent: 'a', dependsOn: dependsOn[index] }));
      const left = new Map(tasks.map((task) => [task.id, task.dependsOn ?? []]));
      for (let removed = true; removed; ) {
        removed = false;
        for (const [id, needs] of left) {
          if (needs.some((need) => left.has(need))) continue;
          left.delete(id);
          removed = true;
        }
      }
      const outcome: unknown = await load(JSON.stringify({ ...GOOD, overseer: {}, tasks })).catch(
        (error: unknown) => error,
      );
      if (left.size === 0) {
        expect(outcome).not.toBeInstanceOf(Error);
        return;
      }
      const cycles = [...String(outcome).matchAll(/dependency cycle: (.+)/g)];
      expect(cycles.length).toBeGreaterThan(0);
      for (const [, cycle = ''] of cycles) {
        const steps = cycle.split(' -> ');
        expect(steps.at(-1)).toBe(steps[0]);
        for (const [index, id] of steps.slice(1).entries()) {
          expect(dependsOn[names.indexOf(steps[index] ?? '')]).toContain(id);
        }
      }
    },
  );
});
