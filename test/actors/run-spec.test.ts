import { describe, expect, test } from 'vitest';
import { checkRunSpec, type Known, type RunSpec } from '../../src/actors/run-spec.ts';
import { ValidationError } from '../../src/protocol/errors.ts';

const known: Known = {
  agents: ['writer', 'poet'],
  gatekeepers: ['editor'],
  gatekeeper: undefined,
  overseer: 'main',
};
const check = (spec: unknown, over: Partial<Known> = {}) =>
  checkRunSpec(spec as RunSpec, () => 'new-id', { ...known, ...over });
const a = { id: 'a', agent: 'writer', gatekeeper: 'editor' };
const run = (...tasks: unknown[]) => ({ id: 'r', tasks });
const many = (n: number) => Array.from({ length: n }, (_, i) => ({ ...a, id: `t${i}` }));

describe('what cannot work is refused, with one clear message', () => {
  test.each<{ spec: unknown; says: string }>([
    // The run.
    { spec: undefined, says: 'run "new-id": expected an object with settings, got null.' },
    {
      spec: { id: 'a b', tasks: [a] },
      says: 'Expected the run id to be 1 to 64 letters, digits, dots, dashes or underscores (no two dots in a row), got "a b".',
    },
    {
      spec: { id: '../r', tasks: [a] },
      says: 'Expected the run id to be 1 to 64 letters, digits, dots, dashes or underscores (no two dots in a row), got "../r".',
    },
    {
      spec: { id: 7, tasks: [a] },
      says: 'Expected the run id to be 1 to 64 letters, digits, dots, dashes or underscores (no two dots in a row), got 7.',
    },
    { spec: { id: 'r' }, says: 'Expected run "r" to have 1 to 1000000 tasks, got undefined.' },
    { spec: run(), says: 'Expected run "r" to have 1 to 1000000 tasks, got 0.' },
    {
      spec: { ...run(a), concurency: 2 },
      says: 'run "r": there is no setting "concurency". Did you mean "concurrency"? Known settings: id, title, tasks, limits, qa, concurrency, staging.',
    },
    {
      spec: { ...run(a), concurrency: 0 },
      says: 'Expected the concurrency of run "r" to be a positive integer, got 0.',
    },
    {
      spec: { ...run(a), title: 7 },
      says: 'Expected the title of run "r" to be a text of at most 10000 characters, got number.',
    },
    {
      spec: { ...run(a), limits: { attempts: Number.NaN } },
      says: 'limits of run "r": expected attempts to be a positive integer, got NaN. Leave it out for the default, 10.',
    },
    {
      spec: { ...run(a), limits: { atempts: 3 } },
      says: 'limits of run "r": there is no setting "atempts". Did you mean "attempts"? Known settings: attempts, sameError, sameChange, sameFeedback, infrastructureAttempts, interruptions, backoff, infrastructureBackoff.',
    },
    // A task by itself.
    {
      spec: run(a, null),
      says: 'Expected task 2 of run "r" to be an object such as { id, agent, gatekeeper }, got null.',
    },
    {
      spec: run('a'),
      says: 'Expected task 1 of run "r" to be an object such as { id, agent, gatekeeper }, got string.',
    },
    {
      spec: run(a, { agent: 'writer' }),
      says: 'Expected the id of task 2 of run "r" to be 1 to 64 letters, digits, dots, dashes or underscores (no two dots in a row), got undefined.',
    },
    {
      spec: run({ ...a, id: 'a/b' }),
      says: 'Expected the id of task 1 of run "r" to be 1 to 64 letters, digits, dots, dashes or underscores (no two dots in a row), got "a/b".',
    },
    {
      spec: run({ ...a, dependson: [] }),
      says: 'task "a": there is no setting "dependson". Did you mean "dependsOn"? Known settings: id, title, agent, gatekeeper, dependsOn, priority, input, accept, limits, qa, staged.',
    },
    {
      spec: run({ ...a, staged: 'yes' }),
      says: 'Expected staged of task "a" to be true or false, got "yes".',
    },
    {
      spec: run({ ...a, title: 'x'.repeat(10_001) }),
      says: 'Expected the title of task "a" to be a text of at most 10000 characters, got 10001 characters.',
    },
    {
      spec: run({ ...a, priority: 9 }),
      says: 'Expected a priority: low (1), normal (2), high (3), urgent (4), critical (5); got 9.',
    },
    {
      spec: run({ ...a, priority: 'hihg' }),
      says: 'Expected a priority: low (1), normal (2), high (3), urgent (4), critical (5); got "hihg".',
    },
    {
      spec: run({ ...a, limits: { attempts: 0 } }),
      says: 'limits of task "a": expected attempts to be a positive integer, got 0. Leave it out for the default, 10.',
    },
    {
      spec: run({ ...a, limits: { backoff: { factor: 0.5 } } }),
      says: 'limits of task "a", backoff: expected factor to be a number from 1 to 1000000, got 0.5. Leave it out for the default, 2.',
    },
    {
      spec: run({ ...a, input: { when: new Date(0) } }),
      says: 'Expected the input of task "a" to be plain JSON, but input.when is a Date.',
    },
    {
      spec: run({ ...a, input: [1, Number.NaN] }),
      says: 'Expected the input of task "a" to be plain JSON, but input[1] is NaN.',
    },
    {
      spec: run({ ...a, input: () => 1 }),
      says: 'Expected the input of task "a" to be plain JSON, but input is a function.',
    },
    // What it names.
    {
      spec: run({ ...a, agent: 'wrter' }),
      says: 'Expected task "a" to name a registered agent, got "wrter". Did you mean "writer"? Known: writer, poet.',
    },
    {
      spec: run({ id: 'a', gatekeeper: 'editor' }),
      says: 'Expected task "a" to name a registered agent, got nothing. Known: writer, poet.',
    },
    {
      spec: run({ ...a, gatekeeper: 'edtor' }),
      says: 'Expected task "a" to name a registered gatekeeper, got "edtor". Did you mean "editor"? Known: editor.',
    },
    {
      spec: run({ id: 'a', agent: 'writer' }),
      says: 'Expected task "a" to name a gatekeeper: without one nothing can be accepted. Register one: troupe.gatekeeper(name, verify).',
    },
    // Among each other.
    {
      spec: run(a, a),
      says: 'Two tasks have the id "a". Ids must be unique within a run: rename one of them.',
    },
    {
      spec: run({ ...a, dependsOn: 'b' }),
      says: 'Expected dependsOn of task "a" to be a list of task ids, got "b".',
    },
    {
      spec: run({ ...a, dependsOn: [1] }),
      says: 'Expected dependsOn of task "a" to be a list of task ids, got [1].',
    },
    {
      spec: run({ ...a, dependsOn: ['a'] }),
      says: 'Task "a" depends on itself, so it could never start. Remove that dependency.',
    },
    {
      spec: run(a, { ...a, id: 'draft', dependsOn: ['b'] }),
      says: 'Task "draft" depends on "b", which is not a task of this run. Did you mean "a"?',
    },
    {
      spec: run(a, { ...a, id: 'b', dependsOn: ['a', 'a'] }),
      says: 'Task "b" names the dependency "a" twice. Remove one of the two.',
    },
    {
      spec: run(
        { ...a, dependsOn: ['c'] },
        { ...a, id: 'b', dependsOn: ['a'] },
        { ...a, id: 'c', dependsOn: ['b'] },
      ),
      says: 'The tasks wait for each other in a circle: a → c → b → a. Remove one of these dependencies.',
    },
    {
      spec: run(...many(21), { ...a, id: 'z', dependsOn: many(21).map(({ id }) => id) }),
      says: 'Task "z" has 21 dependencies; at most 20 are allowed. Put a task between them that waits for a part of them.',
    },
  ])('$says', ({ spec, says }) => {
    let error: unknown;
    try {
      check(spec);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(ValidationError);
    expect((error as Error).message).toBe(says);
  });
});

describe('what can work', () => {
  test('has its defaults', () => {
    expect(check(run(a))).toEqual({
      id: 'r',
      title: 'r',
      concurrency: undefined,
      tasks: [
        {
          run: 'r',
          id: 'a',
          title: 'a',
          agent: 'writer',
          gatekeeper: 'editor',
          overseer: 'main',
          priority: 2,
          dependsOn: [],
          dependants: [],
          input: null,
          limits: expect.objectContaining({ attempts: 10, sameError: 3 }),
          staged: false,
          position: 0,
        },
      ],
    });
    expect(check({ tasks: [a] }).id).toBe('new-id');
  });

  test('knows who waits for whom', () => {
    const { tasks } = check(
      run(a, { ...a, id: 'b', dependsOn: ['a'] }, { ...a, id: 'c', dependsOn: ['a', 'b'] }),
    );
    expect(tasks.map(({ dependants, position }) => [position, ...dependants])).toEqual([
      [0, 'b', 'c'],
      [1, 'c'],
      [2],
    ]);
  });

  test("a task's own limits go before its run's", () => {
    const limits = { attempts: 3, backoff: { maxMs: 5_000 } as never };
    const { tasks } = check({ ...run(a, { ...a, id: 'b', limits: { attempts: 7 } }), limits });
    expect(tasks.map((task) => [task.limits.attempts, task.limits.backoff.maxMs])).toEqual([
      [3, 5_000],
      [7, 5_000],
    ]);
  });

  test('the project has a gatekeeper for whoever names none', () => {
    const { tasks } = check(run({ id: 'a', agent: 'poet' }), {
      gatekeeper: 'git',
      gatekeepers: ['git'],
    });
    expect(tasks[0]?.gatekeeper).toBe('git');
  });

  test('the input is handed on as it is', () => {
    const input = { words: [1, 'two', null], deep: { er: true } };
    expect(check(run({ ...a, input })).tasks[0]?.input).toEqual(input);
  });

  test('priorities by name and by number', () => {
    const { tasks } = check(run({ ...a, priority: 'urgent' }, { ...a, id: 'b', priority: 5 }));
    expect(tasks.map(({ priority }) => priority)).toEqual([4, 5]);
  });
});
