import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { AGENT_PRESETS, type AgentPreset, promptFor } from '../../src/actors/agent-presets.ts';
import type { TaskInput, Troupe } from '../../src/troupe.ts';
import { git, makeRepository, temporaryDirectory } from '../workspace/git-fixture.ts';
import { memoryDisk } from './open-troupe.ts';

const SECRET = 'sk-preset-secret-1';
/** What a shell would make something of. */
const NASTY = '--help "; touch pwned; $(touch pwned) `touch pwned` \' -';

const before = { ...process.env };
afterEach(() => {
  for (const key of Object.keys(process.env)) if (!(key in before)) delete process.env[key];
  Object.assign(process.env, before);
});

/** A program of this name that says how it was called, and then does what the script says. */
function install(name: string, script: string): string {
  const bin = temporaryDirectory();
  const said = path.join(bin, 'said');
  mkdirSync(said);
  writeFileSync(
    path.join(bin, name),
    `#!/bin/sh
for each in "$@"; do printf '%s\\n' "$each"; done > '${said}/arguments'
env > '${said}/environment'
cat > '${said}/input'
${script}
`,
    { mode: 0o755 },
  );
  process.env['PATH'] = `${bin}:${before['PATH'] ?? ''}`;
  return said;
}

const WRITES = 'echo done > made.txt';
const READS = [
  { preset: 'codex', argv: ['exec', '--sandbox', 'workspace-write', '--model', 'm', '-'] },
  { preset: 'claude', argv: ['-p', '--permission-mode', 'acceptEdits', '--model', 'm'] },
  { preset: 'gemini', argv: ['--approval-mode', 'auto_edit', '--model', 'm'] },
] as const;

const LIMITS = { attempts: 1, infrastructureAttempts: 1 };

async function open(directory: string): Promise<Troupe> {
  return await memoryDisk().open({
    project: {
      directory,
      verify: [{ name: 'test', command: 'env > seen.txt; cat seen.txt; exit 0' }],
    },
  });
}

async function run(troupe: Troupe, task: Partial<TaskInput> = {}) {
  const given = { id: 'one', agent: 'coder', limits: LIMITS, ...task };
  return await (await troupe.start({ id: 'r', tasks: [given] })).result();
}

describe('an agent that is a preset', () => {
  test.each(READS)(
    '$preset: its flags, the task on its input, no shell',
    async ({ preset, argv }) => {
      const [variable = ''] = AGENT_PRESETS[preset].environment;
      const others = AGENT_PRESETS[preset].environment.slice(1);
      for (const name of [variable, ...others, 'SOME_TOKEN'])
        process.env[name] = `${SECRET}-${name}`;
      const said = install(preset, `${WRITES}; echo "my key is $${variable}"`);
      const directory = makeRepository();
      const troupe = await open(directory);
      const given = { preset, arguments: ['--model', 'm'], environment: [variable] };
      troupe.commandAgent('coder', given);
      const { state } = await run(troupe, { title: NASTY, input: { ask: NASTY } });
      expect(state).toBe('done');
      expect(git(directory, 'show', 'main:made.txt')).toBe('done');
      const read = (file: string) => readFileSync(path.join(said, file), 'utf8');
      expect(read('arguments').trimEnd().split('\n')).toEqual(argv);
      expect(read('input')).toBe(
        promptFor({ title: NASTY, input: { ask: NASTY }, feedback: [], guidance: [] }),
      );
      // Of its variables those that are named; of others none.
      expect(read('environment')).toContain(`${variable}=${SECRET}-${variable}\n`);
      for (const name of [...others, 'SOME_TOKEN'])
        expect(read('environment')).not.toContain(`${name}=`);
      const tasks = path.join(directory, '.troupe', 'tasks');
      const kept = readdirSync(tasks, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => readFileSync(path.join(entry.parentPath, entry.name), 'utf8'))
        .join('\n');
      // The verification does not get them, and what the agent prints is without them.
      expect(kept).toContain(`my key is [${variable}]`);
      expect(kept).not.toContain(SECRET);
    },
  );

  test('is told what to mend before all else, and shown what has failed', () => {
    const prompt = promptFor({
      ...{ title: 'It', input: null, feedback: [], guidance: [] },
      fix: {
        ...{ number: 1, session: 1, sessions: 3, iteration: 1, iterations: 2, stage: 'verify' },
        ...{ reason: 'test failed.', artifact: '.troupe/1.json', result: null },
        instruction: 'Mend only this.',
        commands: [
          {
            ...{ name: 'test', command: 'npm test', exitCode: 1, signal: null, durationMs: 1 },
            excerpt: 'expected 1, got 2',
          },
        ],
      },
    });
    expect(prompt).toContain('was done here and refused: mend that by editing files here.');
    expect(prompt.replace(/^You work [^\n]*\n/, '')).toBe(`
# What to mend

Mend only this.

## test (exit code 1)

expected 1, got 2

# Task

It
`);
  });

  test('is told what was wrong before, and what people advise', () => {
    const prompt = promptFor({
      title: 'It',
      input: 'Make it.',
      feedback: ['test failed\nline 2', 'lint failed'],
      guidance: ['Look at x.'],
    });
    expect(prompt.replace(/^You work [^\n]*\n/, '')).toBe(`
# Task

It

# Input

Make it.

# What was wrong with earlier attempts, newest last

- test failed
  line 2
- lint failed

# Advice

- Look at x.
`);
  });

  test.each([
    { what: 'does not log in', script: 'echo "no key" >&2; exit 41', cause: 'infrastructure' },
    { what: 'gives up', script: 'echo "too hard" >&2; exit 1', cause: 'work' },
  ])('that $what: the cause is $cause', async ({ script, cause }) => {
    install('gemini', script);
    const troupe = await open(makeRepository());
    troupe.commandAgent('coder', { preset: 'gemini' });
    const { tasks } = await run(troupe);
    expect(tasks[0]).toMatchObject({ state: 'escalated', cause });
  });

  test('that is not installed is nobody’s work, and the next in the chain does it', async () => {
    install('claude', WRITES);
    process.env['PATH'] = `${process.env['PATH']?.split(':')[0]}:/usr/bin:/bin`;
    const troupe = await open(makeRepository());
    const breaker = { failures: 1, openMs: 3_600_000 };
    troupe.commandAgent('coder', { preset: 'codex' }, { breaker, fallback: 'second' });
    troupe.commandAgent('second', { preset: 'gemini' }, { breaker, fallback: 'third' });
    troupe.commandAgent('third', { preset: 'claude' });
    const infrastructureBackoff = { initialMs: 1, factor: 1, maxMs: 1, jitter: 0 };
    const { state, tasks } = await run(troupe, {
      limits: { infrastructureAttempts: 20, infrastructureBackoff },
    });
    expect([state, tasks[0]?.agent]).toEqual(['done', 'third']);
    const attempts = await troupe.run('r').task('one').attempts();
    const by = attempts.map(({ detailsJson }) => (JSON.parse(detailsJson) as { by?: unknown }).by);
    expect(by.at(-1)).toMatchObject({
      agent: 'third',
      insteadOf: [
        { agent: 'coder', reason: expect.stringContaining('codex exec') },
        { agent: 'second', reason: expect.stringContaining('gemini --approval-mode') },
      ],
    });
  });
});

test.each([
  {
    given: { preset: 'codx' as AgentPreset },
    says: 'to be one of codex, claude, gemini, got "codx"',
  },
  { given: { preset: 'toString' as AgentPreset }, says: 'to be one of codex, claude, gemini' },
  { given: { preset: 'codex', arguments: 'x' as never }, says: 'to be a list of texts' },
  { given: { preset: 'codex', arguments: ['a\0b'] }, says: 'to be a list of texts' },
  {
    given: { preset: 'codex', environment: [`CODEX_API_KEY=${SECRET}`] },
    says: 'to be names from CODEX_API_KEY, CODEX_ACCESS_TOKEN, CODEX_HOME;',
  },
  { given: { preset: 'gemini', environment: ['CODEX_API_KEY'] }, says: 'to be names from GEMINI_' },
] as const)('a preset that cannot be is refused: $says', async ({ given, says }) => {
  const troupe = await open(makeRepository());
  expect(() => troupe.commandAgent('coder', given)).toThrow(says);
  expect(() => troupe.commandAgent('coder', given)).not.toThrow(SECRET);
  // Nothing of it is left.
  troupe.commandAgent('coder', { preset: 'codex' });
});
