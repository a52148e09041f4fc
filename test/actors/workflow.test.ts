import { fc, test as property } from '@fast-check/vitest';
import { describe, expect, test } from 'vitest';
import { Registry } from '../../src/actors/registry.ts';
import type { Known } from '../../src/actors/run-spec.ts';
import {
  addBuiltIns,
  checkTemplate,
  instantiate,
  requireTemplate,
  type TemplateCall,
  type WorkflowTemplate,
} from '../../src/actors/templates.ts';
import { checkWorkflow, type PhaseInput, type WorkflowSpec } from '../../src/actors/workflow.ts';
import { ConfigurationError } from '../../src/protocol/errors.ts';
import { systemClock } from '../../src/runtime/clock.ts';

const KNOWN: Known = {
  agents: ['writer', 'critic'],
  gatekeepers: ['editor'],
  gatekeeper: undefined,
  overseer: 'main',
};
const check = (spec: Partial<WorkflowSpec>) =>
  checkWorkflow(
    { id: 'w', agent: 'writer', gatekeeper: 'editor', ...spec } as WorkflowSpec,
    () => 'new',
    KNOWN,
  );
const needs = (spec: Partial<WorkflowSpec>) =>
  Object.fromEntries(check(spec).tasks.map(({ id, dependsOn }) => [id, [...dependsOn].sort()]));
const phase = (id: string, tasks: string, more: Partial<PhaseInput> = {}): PhaseInput => ({
  id,
  tasks: tasks.split(' ').map((task) => ({ id: task })),
  ...more,
});

describe('phases become dependencies', () => {
  test('of a phase that comes after another, what begins it waits for what ends that one', () => {
    expect(needs({ phases: [phase('one', 'a b'), phase('two', 'c d')] })).toEqual({
      ...{ a: [], b: [], c: ['a', 'b'], d: ['a', 'b'] },
    });
  });

  test('a sequential phase is a chain, with one beginning and one end', () => {
    const phases = [
      phase('one', 'a b', { order: 'sequential' }),
      phase('two', 'c d', { order: 'sequential' }),
    ];
    expect(needs({ phases })).toEqual({ a: [], b: ['a'], c: ['b'], d: ['c'] });
  });

  test('parallel phases begin together; one may come after some of them', () => {
    const phases = [phase('one', 'a'), phase('two', 'b'), phase('three', 'c', { after: ['one'] })];
    expect(needs({ order: 'parallel', phases })).toEqual({ a: [], b: [], c: ['a'] });
  });

  test('dependencies within a phase are kept, and only its ends are waited for', () => {
    const first: PhaseInput = {
      id: 'one',
      tasks: [{ id: 'a' }, { id: 'b', dependsOn: ['a'] }, { id: 'c' }],
    };
    expect(needs({ phases: [first, phase('two', 'd')] })).toEqual({
      ...{ a: [], b: ['a'], c: [], d: ['b', 'c'] },
    });
  });

  test('each task knows its phase, and the record where the phase begins and ends', () => {
    const { tasks, workflow } = check({ phases: [phase('one', 'a b'), phase('two', 'c')] });
    expect(tasks.map((task) => task.phase)).toEqual(['one', 'one', 'two']);
    expect(workflow.phases.map(({ from, to, counts }) => [from, to, counts])).toEqual([
      [0, 2, { ready: 2 }],
      [2, 3, { waiting: 1 }],
    ]);
  });

  const arbitraryWorkflow = fc
    .array(
      fc.record({
        size: fc.integer({ min: 1, max: 5 }),
        order: fc.constantFrom('sequential' as const, 'parallel' as const),
        after: fc.option(fc.array(fc.nat(), { maxLength: 3 }), { nil: undefined }),
        inner: fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 4 }),
      }),
      { minLength: 1, maxLength: 6 },
    )
    .chain((drafts) =>
      fc.constantFrom('sequential' as const, 'parallel' as const).map((order) => ({
        order,
        phases: drafts.map(({ size, order: inOrder, after, inner }, index): PhaseInput => {
          const earlier = [...new Set((after ?? []).map((n) => (index === 0 ? -1 : n % index)))];
          return {
            id: `p${index}`,
            order: inOrder,
            ...(after === undefined
              ? {}
              : { after: earlier.filter((n) => n >= 0).map((n) => `p${n}`) }),
            tasks: Array.from({ length: size }, (_, at) => ({
              id: `t${index}-${at}`,
              dependsOn: [
                ...new Set(
                  inner.flatMap(([a, b]) =>
                    b % size === at && a % size < at ? [`t${index}-${a % size}`] : [],
                  ),
                ),
              ],
            })),
          };
        }),
      })),
    );

  property.prop([arbitraryWorkflow])(
    'no task of a later phase can start before every task of the earlier one is done',
    ({ order, phases }) => {
      const { tasks } = check({ order, phases });
      const dependsOn = new Map(tasks.map((task) => [task.id, task.dependsOn]));
      const allBefore = (id: string, seen = new Set<string>()): Set<string> => {
        for (const needed of dependsOn.get(id) ?? []) {
          if (seen.has(needed)) continue;
          seen.add(needed);
          allBefore(needed, seen);
        }
        return seen;
      };
      for (const [index, later] of phases.entries()) {
        const previous = order === 'sequential' && index > 0 ? [`p${index - 1}`] : [];
        for (const id of later.after ?? previous) {
          const earlier = phases.find((one) => one.id === id)?.tasks ?? [];
          for (const task of later.tasks) {
            const ended = allBefore(task.id);
            for (const other of earlier) expect(ended.has(other.id)).toBe(true);
          }
        }
        if (later.order !== 'sequential') continue;
        for (const [at, task] of later.tasks.entries()) {
          const one = later.tasks[at - 1];
          if (one !== undefined) expect(allBefore(task.id).has(one.id)).toBe(true);
        }
      }
    },
  );
});

describe('what is refused', () => {
  const two = [phase('one', 'a'), phase('two', 'b')];
  test.each([
    [{ phases: [] }, 'Expected workflow "w" to have 1 to 100 phases, got 0.'],
    [{ phases: [phase('one', 'a'), phase('one', 'b')] }, 'Two phases have the id "one".'],
    [
      { phases: [{ id: 'one', tasks: [] }] },
      'Expected phase "one" to have at least one task, got none.',
    ],
    [
      { phases: [phase('one', 'a', { ordr: 'parallel' } as never)] },
      'phase "one": there is no setting "ordr". Did you mean "order"?',
    ],
    [
      { phases: [phase('one', 'a', { order: 'paralell' as never })] },
      'Expected order of phase "one" to be "sequential" or "parallel", got "paralell". Did you mean "parallel"?',
    ],
    [
      { phases: [phase('one', 'a', { title: 'cut \ud83d' })] },
      'Expected the title of phase "one" to be well-formed Unicode, got half of a surrogate pair',
    ],
    [{ phases: two, budgetMs: 0 }, 'Expected budgetMs of workflow "w" to be a whole number'],
    [
      { phases: [phase('one', 'a'), phase('two', 'b', { after: ['on'] })] },
      'Expected after of phase "two" to name phases of the workflow, got "on". Did you mean "one"?',
    ],
    [
      { phases: [phase('one', 'a', { after: ['two'] }), phase('two', 'b')] },
      'Expected after of phase "one" to name phases before it in the list, got "two".',
    ],
    [
      { phases: [{ id: 'one', tasks: [{ id: 'a', dependsOn: ['b'] }] }, phase('two', 'b')] },
      'Task "a" of phase "one" depends on "b", which is in phase "two", and that begins only after "one" has ended.',
    ],
    [{ phases: [phase('one', 'a'), phase('two', 'a')] }, 'Two tasks have the id "a".'],
    [{ phases: two, agent: 'wrter' }, 'Did you mean "writer"?'],
    [
      {
        phases: [
          { id: 'one', tasks: Array.from({ length: 101 }, (_, n) => ({ id: `a${n}` })) },
          phase('two', 'b'),
        ],
      },
      'at most 100 tasks side by side, got 101',
    ],
  ] satisfies [Partial<WorkflowSpec>, string][])('%j', (spec, message) => {
    expect(() => check(spec)).toThrow(message);
  });

  test('a hundred side by side before the next phase are allowed', () => {
    const tasks = Array.from({ length: 100 }, (_, n) => ({ id: `a${n}` }));
    const { tasks: compiled } = check({ phases: [{ id: 'one', tasks }, phase('two', 'b')] });
    expect(compiled.at(-1)?.dependsOn).toHaveLength(100);
  });
});

describe('templates', () => {
  const templates = new Registry<WorkflowTemplate>('template', () => undefined, systemClock);
  addBuiltIns(templates);
  const make = (call: TemplateCall) => instantiate(requireTemplate(templates, call.template), call);

  test.each(templates.names())('%s makes a workflow with budgets in every phase', (template) => {
    const spec = make({
      ...{ template, id: 'w', gatekeeper: 'editor' },
      params: { title: 'Dark mode', agent: 'writer', reviewer: 'critic', details: { issue: 7 } },
    });
    const { tasks, workflow } = checkWorkflow(spec, () => 'new', KNOWN);
    expect(workflow.budget?.budgetMs).toBeGreaterThan(0);
    for (const { budget } of workflow.phases) expect(budget?.budgetMs).toBeGreaterThan(0);
    expect(tasks.find((task) => task.id === 'review')?.agent).toBe('critic');
    for (const { input } of tasks) {
      expect(input).toMatchObject({ title: 'Dark mode', details: { issue: 7 } });
    }
    expect(JSON.stringify(spec)).not.toContain('{{');
  });

  test('the three are there, and a parameter may be what another one is', () => {
    expect(templates.names()).toEqual(['feature', 'bugFix', 'refactoring']);
    const { phases } = make({ template: 'bugFix', params: { title: 'x', agent: 'writer' } });
    expect(phases.at(-1)?.tasks[0]?.agent).toBe('writer');
  });

  test('two of one template share nothing: one is changed at every place, the other stays', () => {
    const call = {
      template: 'feature',
      params: { title: 'x', agent: 'writer', details: { a: [1] } },
    };
    const before = JSON.stringify(make(call));
    const vandalise = (value: unknown): void => {
      if (typeof value !== 'object' || value === null) return;
      for (const child of Object.values(value)) vandalise(child);
      for (const key of Object.keys(value)) (value as Record<string, unknown>)[key] = 'changed';
    };
    vandalise(make(call));
    expect(JSON.stringify(make(call))).toBe(before);
    expect(call.params.details).toEqual({ a: [1] });
    // The one that was made before does not change with what it was made of.
    const made = make(call);
    vandalise(call.params.details);
    expect(JSON.stringify(made)).toBe(before);
  });

  test('what an app registers is kept as it was then', () => {
    const workflow = { agent: 'writer', phases: [phase('one', 'a')] };
    const kept = checkTemplate('mine', { workflow });
    (workflow.phases[0] as { id: string }).id = 'changed';
    expect(instantiate(kept, { template: 'mine' }).phases[0]?.id).toBe('one');
  });

  test('a function makes its workflow of the parameters; numbers stay numbers', () => {
    const many = checkTemplate('many', {
      params: { count: { type: 'number', default: 2 } },
      workflow: ({ count }) => ({
        phases: [phase('one', Array.from({ length: Number(count) }, (_, n) => `t${n}`).join(' '))],
      }),
    });
    expect(
      instantiate(many, { template: 'many', params: { count: 3 } }).phases[0]?.tasks,
    ).toHaveLength(3);
    const data = checkTemplate('data', {
      params: { ms: { type: 'number' } },
      workflow: { budgetMs: '{{ms}}' as never, phases: [phase('one', 'a')] },
    });
    expect(instantiate(data, { template: 'data', params: { ms: 5 } }).budgetMs).toBe(5);
  });

  test.each([
    [
      { template: 'fature' },
      'Expected the name of a template, got "fature". Did you mean "feature"? Known: feature, bugFix, refactoring.',
    ],
    [{ template: 'a new feature please' }, 'Expected the name of a template'],
    [
      { template: 'feature', params: { title: 'x' } },
      'Expected parameter "agent" of template "feature" (the agent that does it), got none.',
    ],
    [
      { template: 'feature', params: { titel: 'x' } },
      'template "feature" has no parameter "titel". Did you mean "title"?',
    ],
    [
      { template: 'feature', params: { title: 7, agent: 'a' } },
      'Expected parameter "title" of template "feature" to be a text with something in it, got 7.',
    ],
    [{ template: 'feature', phases: [] }, 'template "feature": there is no setting "phases".'],
  ] as [TemplateCall, string][])('%j is refused', (call, message) => {
    expect(() => make(call)).toThrow(message);
  });

  test('a placeholder that is no parameter is refused when the template is registered', () => {
    expect(() =>
      checkTemplate('mine', {
        params: { agent: {} },
        workflow: { agent: '{{agnt}}', phases: [phase('one', 'a')] },
      }),
    ).toThrow('got {{agnt}}. Did you mean "agent"?');
  });

  test.each([
    [undefined, 'Expected template "mine" to be an object with a workflow, got undefined.'],
    [{ parms: {} }, 'template "mine": there is no setting "parms". Did you mean "params"?'],
    [{ params: [] }, 'parameters of template "mine": expected an object with settings'],
    [{ params: { n: null } }, 'parameter "n" of template "mine": expected an object with settings'],
    [{ params: { n: { typ: 'text' } } }, 'no setting "typ". Did you mean "type"?'],
    [
      { params: { n: { type: 'number', default: 'ten' } } },
      'Expected the default of parameter "n" of template "mine" to be a number, got "ten".',
    ],
    [
      { params: { n: { type: 'json', default: new Date(0) } } },
      'Expected the default of parameter "n" of template "mine" to be plain JSON, but default is a Date.',
    ],
  ])('%j: a template that cannot work is refused when it is registered', (template, message) => {
    const whole = template && { workflow: { phases: [phase('one', 'a')] }, ...template };
    expect(() => checkTemplate('mine', whole as never)).toThrow(ConfigurationError);
    expect(() => checkTemplate('mine', whole as never)).toThrow(message);
  });

  test('a default may be empty, nothing, or name parameters before it', () => {
    const params = {
      ms: { type: 'number' },
      budget: { type: 'number', default: '{{ms}}' },
      note: { default: '' },
      more: { default: null },
    } as const;
    const workflow = { budgetMs: '{{budget}}' as never, phases: [phase('one', 'a')] };
    const kept = checkTemplate('mine', { params, workflow });
    expect(instantiate(kept, { template: 'mine', params: { ms: 5 } }).budgetMs).toBe(5);
    expect(() => instantiate(kept, { template: 'mine', params: { ms: Number.NaN } })).toThrow(
      'Expected parameter "ms" of template "mine" to be a number, got NaN.',
    );
  });
});
