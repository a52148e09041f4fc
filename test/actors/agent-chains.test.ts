import { expect, test } from 'vitest';
import type { AgentOptions } from '../../src/index.ts';
import { ConfigurationError, TroupeError, ValidationError } from '../../src/protocol/errors.ts';
import type { Troupe } from '../../src/troupe.ts';
import { accepts, memoryDisk } from './open-troupe.ts';

const SOON = { initialMs: 1, factor: 1, maxMs: 1, jitter: 0 };
const LIMITS = { infrastructureBackoff: SOON, backoff: SOON };

/** Agents by name; each does at its first calls what is listed, and then delivers. */
async function open(
  agents: Readonly<Record<string, readonly string[]>>,
  options: AgentOptions = {},
) {
  const troupe = await memoryDisk().open();
  const asked: string[] = [];
  for (const [name, script] of Object.entries(agents)) {
    const left = [...script];
    troupe.agent(
      name,
      ({ task }) => {
        asked.push(`${name} ${task.attempt}`);
        const fault = left.shift();
        if (fault === 'fail') throw new Error('I cannot do it.');
        if (fault === 'died') {
          throw new TroupeError('unhandled', 'It was ended.', { context: { diedOf: 'SIGKILL' } });
        }
        if (fault !== undefined) {
          const more = fault === 'rate_limited' ? { retryAfterMs: 3_600_000 } : {};
          throw new TroupeError(fault as 'unavailable', `It is ${fault}.`, more);
        }
        return name;
      },
      options,
    );
  }
  troupe.gatekeeper('editor', accepts);
  return { troupe, asked };
}

const byOf = async (troupe: Troupe) =>
  (await troupe.task('r', 'a').attempts()).map(
    ({ detailsJson }) => (JSON.parse(detailsJson) as { by?: unknown }).by,
  );
const start = async (troupe: Troupe, agent: string | readonly string[]) =>
  await (
    await troupe.start({
      ...{ id: 'r', limits: LIMITS },
      tasks: [{ id: 'a', agent, gatekeeper: 'editor' }],
    })
  ).result();

test.each(['unavailable', 'rate_limited', 'died'])(
  'after an attempt whose agent was %s the next one is for the next in the list',
  async (fault) => {
    const { troupe, asked } = await open({ first: [fault, fault], second: [fault], third: [] });
    const { state, tasks } = await start(troupe, ['first', 'second', 'third']);
    // It does not wait for as long as the first one asked to be left alone.
    expect([state, asked, tasks[0]?.agent]).toEqual([
      'done',
      ['first 1', 'second 2', 'third 3'],
      'third',
    ]);
    expect(await byOf(troupe)).toEqual([
      undefined,
      { agent: 'second', insteadOf: [{ agent: 'first', reason: expect.any(String) }] },
      {
        agent: 'third',
        insteadOf: [
          expect.objectContaining({ agent: 'first' }),
          expect.objectContaining({ agent: 'second' }),
        ],
      },
    ]);
    expect((await troupe.task('r', 'a').attempts())[0]?.reason).toContain(
      'The next attempt is for "second".',
    );
  },
);

test('behind the last one the first is asked again; bad work is no reason to ask another one', async () => {
  const { troupe, asked } = await open({
    first: ['unavailable', 'fail', 'fail'],
    second: ['unavailable'],
  });
  const { state } = await start(troupe, ['first', 'second']);
  expect([state, asked]).toEqual([
    'done',
    ['first 1', 'second 2', 'first 3', 'first 4', 'first 5'],
  ]);
});

test('a single agent has its fallbacks as a chain, and a list counts alone', async () => {
  const { troupe, asked } = await open({ first: [], third: [] });
  const away = (name: string) => () => {
    asked.push(name);
    throw new TroupeError('unavailable', 'It is away.');
  };
  troupe.agent('alone', away('alone'), { fallback: 'third' });
  expect((await start(troupe, 'alone')).tasks[0]?.agent).toBe('third');
  const run = await troupe.start({
    ...{ id: 's', limits: LIMITS },
    tasks: [{ id: 'a', agent: ['alone', 'first'], gatekeeper: 'editor' }],
  });
  expect((await run.result()).tasks[0]?.agent).toBe('first');
});

test('an agent whose breaker is open is passed over within the attempt', async () => {
  const { troupe, asked } = await open(
    { first: ['unavailable'], second: [] },
    { breaker: { failures: 1, openMs: 3_600_000 } },
  );
  await start(troupe, ['first', 'second']);
  const run = await troupe.start({
    id: 's',
    tasks: [{ id: 'a', agent: ['first', 'second'], gatekeeper: 'editor' }],
  });
  expect((await run.result()).tasks[0]).toMatchObject({ agent: 'second', attempts: 1 });
  expect(asked).toEqual(['first 1', 'second 2', 'second 1']);
});

test.each([
  { agent: [], says: 'got an empty list' },
  { agent: ['first', 'frist'], says: 'Did you mean "first"?' },
  { agent: ['first', 'first'], says: 'got "first" twice' },
  {
    agent: ['first', 'mender'],
    says: 'whose stages are qa. Name another one, or give it the stage: stages: [qa, implement]',
  },
  {
    agent: 'leads',
    says: '(by the fallbacks of "leads") to name an agent for the stage implement, got "mender"',
  },
  { agent: Array.from({ length: 21 }, (_, n) => `a${n}`), says: 'a list of 1 to 20, got 21' },
])('what cannot be a chain is refused: $says', async ({ agent, says }) => {
  const { troupe } = await open({ first: [] });
  troupe.agent('mender', () => null, { stages: ['qa'] });
  troupe.agent('leads', () => null, { fallback: 'mender', stages: ['implement'] });
  const started = start(troupe, agent);
  await expect(started).rejects.toThrow(ValidationError);
  await expect(started).rejects.toThrow(says);
  expect(await troupe.runs()).toEqual([]);
});

test.each([
  { stages: [], says: 'to be a list of implement, qa, got []' },
  { stages: ['qu'], says: 'got "qu". Did you mean "qa"?' },
  { stages: ['qa', 'qa'], says: 'got "qa" twice' },
  { stages: 'qa', says: 'got "qa"' },
])('stages that are none are refused: $says', async ({ stages, says }) => {
  const { troupe } = await open({});
  const register = () => troupe.agent('x', () => null, { stages: stages as never });
  expect(register).toThrow(says);
  expect(register).toThrow(ConfigurationError);
});

test('an agent that is only for mending is not reassigned a task', async () => {
  const { troupe } = await open({ first: [] });
  troupe.agent('mender', () => null, { stages: ['qa'] });
  await start(troupe, 'first');
  await expect(troupe.task('r', 'a').decide('reassign', { agent: 'mender' })).rejects.toThrow(
    'for the stage implement, got "mender"',
  );
});
