import Database from 'better-sqlite3';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import type { Address } from '../../src/protocol/address.ts';
import { deepHash } from '../../src/protocol/hash.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import { openReadOnlyStore } from '../../src/store/sqlite/read-only.ts';
import type { Troupe } from '../../src/troupe.ts';
import { sqliteDisk } from '../actors/open-troupe.ts';
import { checkInvariants } from '../crash/invariants.ts';
import { ALL_FAULTS } from '../extent.ts';

// A whole run each, of several hundred in all, on a machine that may be busy.
vi.setConfig({ testTimeout: 240_000 });

/** C11: what would be a statement if anybody put it into one. */
const HOSTILE = [
  `'; DROP TABLE tasks;--`,
  `x' OR '1'='1`,
  `x" OR 1=1 --`,
  `%_*?[a-z]`,
  `NULL`,
  `0); DELETE FROM messages; --`,
  `:run @run $run ?1`,
  `a\0'; DROP TABLE runs;--`,
  `${'é"\''.repeat(2_000)}`,
] as const;

const tablesAndRows = (path: string): Readonly<Record<string, number>> => {
  const db = new Database(path, { readonly: true });
  const tables = db
    .prepare<[], string>("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    .pluck()
    .all();
  const rows = tables.map((table): [string, number] => [
    table,
    db.prepare<[], number>(`SELECT count(*) FROM "${table}"`).pluck().get() ?? -1,
  ]);
  db.close();
  return Object.fromEntries(rows);
};

const ROLES = { agent: 'writer', gatekeeper: 'editor' } as const;

/** Agents and a gatekeeper that know what they were given. */
function workers(troupe: Troupe): { readonly inputs: JsonValue[] } {
  const inputs: JsonValue[] = [];
  troupe.agent('writer', ({ task }) => {
    inputs.push(task.input);
    return task.input;
  });
  troupe.gatekeeper('editor', ({ submission }) => ({
    accepted: true,
    evidence: [deepHash(submission.result)],
  }));
  return { inputs };
}

describe('C11: texts are data', () => {
  test('in titles, inputs, results, notes and labels they come back as they were given', async () => {
    const disk = sqliteDisk();
    const troupe = await disk.open();
    const { inputs } = workers(troupe);
    const run = await troupe.start({
      id: 'r',
      title: HOSTILE.join('\n'),
      tasks: HOSTILE.map((text, n) => ({
        id: `t${n}`,
        title: text,
        ...ROLES,
        input: { [text]: text },
      })),
    });
    expect(await run.result()).toMatchObject({ state: 'done' });
    expect(inputs.map((input) => Object.keys(input as object)[0]).toSorted()).toEqual(
      HOSTILE.toSorted(),
    );
    expect((await run.tasks()).map(({ title }) => title)).toEqual(HOSTILE);
    expect(await run.status()).toMatchObject({ title: HOSTILE.join('\n') });
    for (const text of HOSTILE) {
      const label = text.slice(0, 200);
      const cut = await run.checkpoint({ label, step: text, notes: { [text]: text } });
      expect(await run.cuts()).toContainEqual(expect.objectContaining({ id: cut.id, label }));
    }
    await troupe.stop();
    const before = tablesAndRows(disk.path);
    expect(before).toMatchObject({ runs: 1, tasks: HOSTILE.length });

    // Whatever can be asked for by a text finds nothing more by these than by any other that is not there.
    const reader = await openReadOnlyStore(disk.path);
    for (const text of HOSTILE) {
      expect(await reader.listActors({ kind: text })).toEqual([]);
      expect(await reader.listCheckpoints(text)).toEqual([]);
      expect(await reader.listTasks(text)).toEqual([]);
      expect(await reader.listAttempts('r', text)).toEqual([]);
      expect(await reader.countTasks(text)).toEqual({});
      expect(await reader.listCuts(text)).toEqual([]);
    }
    await reader.close();
    expect(tablesAndRows(disk.path)).toEqual(before);
    await checkInvariants({ storePath: disk.path, expect: { fired: HOSTILE.length } });
  });

  test('as ids and names they are refused before anything is stored', async () => {
    const disk = sqliteDisk();
    const troupe = await disk.open();
    workers(troupe);
    for (const text of HOSTILE.filter((each) => each !== 'NULL')) {
      const task = { id: 't', ...ROLES };
      const start = (spec: object): Promise<unknown> =>
        troupe.start({ id: 'r', tasks: [task], ...spec } as never);
      await expect(start({ id: text })).rejects.toMatchObject({ code: 'validation' });
      for (const field of ['id', 'agent', 'gatekeeper']) {
        const spec = { tasks: [{ ...task, [field]: text }] };
        await expect(start(spec)).rejects.toMatchObject({
          code: expect.stringMatching(/^(validation|configuration|not_found)$/) as string,
        });
      }
      await expect(start({ tasks: [{ ...task, dependsOn: [text] }] })).rejects.toMatchObject({
        code: expect.stringMatching(/^(validation|configuration|not_found)$/) as string,
      });
      expect(() => troupe.task('r', text)).toThrow('Expected the task id to be');
      expect(() => troupe.run(text)).toThrow('Expected the run id to be');
    }
    expect(await troupe.runs()).toEqual([]);
    // One that is a word like any other is an id like any other.
    const run = await troupe.start({
      id: 'NULL',
      tasks: [{ id: 'NULL', ...ROLES }],
    });
    expect(await run.result()).toMatchObject({ id: 'NULL', state: 'done' });
    await troupe.stop();
    await checkInvariants({ storePath: disk.path, expect: { fired: 1 } });
  });
});

describe('C12: odd values are refused with their path, or come back byte for byte', () => {
  const deep = (levels: number): JsonValue => {
    let value: JsonValue = 'bottom';
    for (let n = 0; n < levels; n++) value = [value];
    return value;
  };
  const cyclic: Record<string, unknown> = {};
  cyclic['self'] = { again: cyclic };

  test.each<[what: string, value: unknown, path: RegExp]>([
    ['NaN', { n: [Number.NaN] }, /input\.n\[0\] is NaN/],
    ['Infinity', { n: Number.POSITIVE_INFINITY }, /input\.n is Infinity/],
    ['-0', { n: -0 }, /input\.n is -0/],
    ['BigInt', { n: 2n ** 53n + 1n }, /input\.n is a BigInt/],
    ['undefined in a list', [1, undefined], /input\[1\] is undefined/],
    ['a Date', { at: new Date(0) }, /input\.at is a Date/],
    ['a Map', new Map([[1, 2]]), /input is a Map/],
    ['a function', { f: () => 1 }, /input\.f is a function/],
    ['a symbol', { s: Symbol('s') }, /input\.s is a symbol/],
    ['itself', cyclic, /input\.self\.again is a reference/],
    ['__proto__', JSON.parse('{"a":{"__proto__":{"admin":true}}}'), /input\.a\.__proto__/],
    ['20 000 levels', deep(20_000), /more than 500 levels/],
    ['toJSON', { toJSON: () => 'other' }, /toJSON/],
  ])('refused: %s', async (_, value, path) => {
    const troupe = await sqliteDisk().open();
    workers(troupe);
    const tasks = [{ id: 't', ...ROLES, input: value as JsonValue }];
    const error: unknown = await troupe.start({ id: 'r', tasks }).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'validation' });
    expect(String(error)).toMatch(path);
    expect(await troupe.runs()).toEqual([]);
    expect(({} as { admin?: boolean }).admin).toBeUndefined();
    // The refusal has harmed nobody.
    const good = await troupe.start({ id: 'good', tasks: [{ ...tasks[0], input: 1 } as never] });
    expect(await good.result()).toMatchObject({ state: 'done' });
    await troupe.stop();
  });

  /** A text of anything that a JavaScript string can hold, halves of surrogate pairs as well. */
  const text = fc.string({ unit: 'binary', maxLength: 40 });
  const half = fc.constantFrom('\uD800', 'x\uDC00y', '\uDC00\uD800', 'a\0b', '\uFEFF\u2028');
  const odd = fc.oneof(text, half);
  const value = fc.jsonValue({ maxDepth: 4 }).filter((json) => !hasMinusZero(json));

  test('whatever is JSON: the same for the agent, the gatekeeper and the next process', async () => {
    const disk = sqliteDisk();
    // The checker wants the whole history.
    const first = await disk.open({ retention: false });
    const { inputs } = workers(first);
    const known = new Map<string, JsonValue>();
    const hashes = (list: readonly JsonValue[]): string[] => list.map(deepHash).toSorted();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(odd, value), { minLength: 1, maxLength: 5 }),
        async (all) => {
          inputs.length = 0;
          const id = `r${known.size}`;
          const given = all.map(([key, json]) => ({ [`k${key}`]: json, text: key }) as JsonValue);
          const tasks = given.map((input, n) => ({ id: `t${n}`, input, ...ROLES }));
          const run = await first.start({ id, tasks });
          expect(await run.result()).toMatchObject({ state: 'done' });
          expect(hashes(inputs)).toEqual(hashes(given));
          known.set(id, given[0] as JsonValue);
        },
      ),
      { numRuns: ALL_FAULTS ? 2_000 : 50 },
    );
    await first.stop();
    const second = await disk.open({ retention: false });
    workers(second);
    for (const [id, given] of known) {
      const stored = await second.host.inspect(`task/${id}/t0` as Address);
      const context: unknown = stored?.snapshot.context;
      const { spec } = context as { spec: { input: JsonValue } };
      expect(spec.input).toEqual(given);
      expect(deepHash(spec.input)).toBe(deepHash(given));
    }
    await second.stop();
    await checkInvariants({ storePath: disk.path, expect: { fired: known.size } });
  });

  /** Where somebody else's text becomes a row of its own, not a part of some JSON. */
  test.each([
    ['title of a run', 'runTitle'],
    ['title of a task', 'title'],
    ['what an agent throws', 'thrown'],
    ['why a gatekeeper refuses', 'reason'],
    ['name of a step', 'step'],
    ['result of a step', 'result'],
    ['why a task is cancelled', 'cancel'],
    ['label of a cut', 'label'],
    ['notes of a cut', 'notes'],
  ])('half of a surrogate pair as %s ends nobody', async (_, place) => {
    const bad = 'x\uDC00y';
    const disk = sqliteDisk();
    const troupe = await disk.open();
    const failed = vi.fn();
    troupe.on('failed', failed);
    troupe.agent('writer', async ({ task, step }) => {
      if (task.id !== 'odd') return 'plain';
      if (place === 'thrown' && task.attempt === 1) throw new Error(bad);
      if (place === 'step') await step(bad, () => 1);
      if (place === 'result') return await step('s', () => ({ [bad]: bad }));
      return 'odd';
    });
    troupe.gatekeeper('editor', ({ submission }) =>
      place === 'reason' && submission.id === 'odd' && submission.attempt === 1
        ? { accepted: false, reason: bad }
        : { accepted: true, evidence: ['seen'] },
    );
    const backoff = { initialMs: 1, maxMs: 1, factor: 1, jitter: 0 };
    const task = ROLES;
    const spec = {
      id: 'r',
      limits: { backoff, infrastructureBackoff: backoff, attempts: 2, infrastructureAttempts: 2 },
      ...(place === 'runTitle' ? { title: bad } : {}),
      tasks: [
        { ...task, id: 'odd', ...(place === 'title' ? { title: bad } : {}) },
        { ...task, id: 'plain' },
      ],
    };
    const outcome = await troupe
      .start(spec)
      .then(
        async (run) => {
          const { state } = await run.result();
          if (place === 'cancel') await run.cancel(bad);
          if (place === 'label') await run.checkpoint({ label: bad });
          if (place === 'notes') await run.checkpoint({ step: bad, notes: { [bad]: bad } });
          return state;
        },
        (error: unknown) => error,
      )
      .catch((error: unknown) => error);
    expect(failed).not.toHaveBeenCalled();
    if (outcome instanceof Error) {
      expect(outcome).toMatchObject({ code: 'validation' });
      expect(String(outcome)).toMatch(/surrogate/);
    }
    // Whatever became of the odd one: the runtime goes on.
    const next = await troupe.start({ id: 'next', tasks: [{ ...task, id: 'plain' }] });
    expect(await next.result()).toMatchObject({ state: 'done' });
    await troupe.stop();
    await (await disk.open()).stop();
  });
});

function hasMinusZero(value: unknown): boolean {
  if (Object.is(value, -0)) return true;
  if (typeof value !== 'object' || value === null) return false;
  return Object.keys(value).includes('__proto__') || Object.values(value).some(hasMinusZero);
}
