import { describe, expect, test } from 'vitest';
import type { Engine, EngineContext } from '../../src/actors/engine.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import type { Troupe } from '../../src/troupe.ts';
import { DISKS, Gate, memoryDisk, reaches } from './open-troupe.ts';

const limits = { backoff: { initialMs: 1 }, infrastructureBackoff: { initialMs: 1 } };
const accept = () => ({ accepted: true, evidence: ['seen'] }) as const;

function task(id: string, dependsOn: readonly string[] = []) {
  return { id, agent: 'worker', gatekeeper: 'nod', dependsOn };
}

/** An agent that does what the test says for each task. */
function team(troupe: Troupe, work: Readonly<Record<string, Engine>>): void {
  troupe.agent('worker', (context) => (work[context.task.id] as Engine)(context));
  troupe.gatekeeper('nod', accept);
}

describe.each(DISKS)('artifacts on $disk', ({ make }) => {
  test('are found by later attempts and by dependants; the last of one name counts', async () => {
    const troupe = await make().open();
    const found: Record<string, JsonValue> = {};
    team(troupe, {
      design: async ({ task: { attempt }, artifact, artifacts }) => {
        found[`design ${attempt}`] = (await artifacts()) as JsonValue;
        await artifact('plan', `plan ${attempt}`);
        await artifact(`only ${attempt}`, { attempt });
        if (attempt === 1) throw new Error('not good enough');
        await artifact('plan', 'the last plan');
        found['design at its end'] = (await artifacts()) as JsonValue;
        return null;
      },
      colour: async ({ artifact }) => {
        await artifact('plan', 'another');
        await artifact('colour', 'blue');
        return null;
      },
      build: async ({ artifact, artifacts }) => {
        await artifact('colour', 'red');
        found['build'] = (await artifacts()) as JsonValue;
        return null;
      },
      sell: async ({ artifacts }) => {
        found['sell'] = (await artifacts()) as JsonValue;
        return null;
      },
    });
    const run = await troupe.start({
      id: 'r',
      limits,
      tasks: [
        task('design'),
        task('colour'),
        task('build', ['colour', 'design']),
        task('sell', ['build']),
      ],
    });
    expect((await run.result()).state).toBe('done');
    const second = { 'only 1': { attempt: 1 }, 'only 2': { attempt: 2 } };
    expect(found).toEqual({
      'design 1': {},
      'design 2': { plan: 'plan 1', 'only 1': { attempt: 1 } },
      'design at its end': { plan: 'the last plan', ...second },
      build: { plan: 'the last plan', colour: 'red', ...second },
      sell: { colour: 'red' },
    });
  });

  test('survive the process, and are not made anew when the attempt runs again', async () => {
    const disk = make();
    const gate = new Gate();
    const first = await disk.open();
    let made = 0;
    team(first, {
      a: async ({ artifact, signal }) => {
        await artifact('token', ++made);
        await gate.wait(signal);
        return null;
      },
    });
    await first.start({ id: 'r', limits, tasks: [task('a')] });
    await gate.reached;
    await first.stop();
    const second = await disk.open();
    let found: JsonValue = null;
    team(second, {
      a: async ({ artifact, artifacts }) => {
        await artifact('token', ++made);
        found = (await artifacts()) as JsonValue;
        return null;
      },
    });
    await second.run('r').result();
    expect(found).toEqual({ token: 1 });
  });
});

describe('bad input', () => {
  const attempt = async (work: (context: EngineContext) => Promise<void>): Promise<string> => {
    const troupe = await memoryDisk().open();
    let said = 'nothing';
    team(troupe, {
      a: async (context) => {
        said = await work(context).then(
          () => 'fine',
          (error: unknown) => String(error),
        );
        return null;
      },
    });
    await troupe.start({ id: 'r', tasks: [task('a')] });
    await reaches(troupe, 'task/r/a', 'done');
    return said;
  };

  test.each<{ what: string; name: unknown; value: unknown; says: string }>([
    { what: 'no name', name: '', value: 1, says: 'Expected the name of an artifact' },
    { what: 'a long name', name: 'x'.repeat(241), value: 1, says: '1 to 240 characters' },
    { what: 'half a character', name: '\ud800', value: 1, says: 'half of a character' },
    { what: 'a value that is not JSON', name: 'x', value: new Map(), says: 'is a Map' },
    { what: 'nothing', name: 'x', value: undefined, says: 'fine' },
    {
      what: 'a value that is too long',
      name: 'x',
      value: 'x'.repeat(1_000_000),
      says: 'has 1000002 characters as JSON; at most 1000000 are kept',
    },
  ])('$what', async ({ name, value, says }) => {
    expect(await attempt(({ artifact }) => artifact(name as string, value as JsonValue))).toContain(
      says,
    );
  });

  test('a name that JavaScript gives a meaning to is only a name', async () => {
    const said = await attempt(async ({ artifact, artifacts }) => {
      await artifact('__proto__', { admin: true });
      await artifact('constructor', 1);
      const found = await artifacts();
      expect(Object.keys(found)).toEqual(['__proto__', 'constructor']);
      expect((found as { admin?: unknown }).admin).toBe(undefined);
    });
    expect(said).toBe('fine');
    expect(({} as { admin?: unknown }).admin).toBe(undefined);
  });
});
