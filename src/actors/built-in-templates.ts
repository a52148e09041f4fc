import type { WorkflowTemplate } from './templates.ts';

/*
 * The templates that are always there. Data; each run gets a copy. Every agent reads in its task's input what the work is
 * about (`title`, `details`) and what its own part in it is (`part`).
 */

const HOUR_MS = 3_600_000;

const PARAMS = {
  title: { description: 'what the work is about, in a line' },
  agent: { description: 'the agent that does it' },
  reviewer: { description: 'the agent that reviews it', default: '{{agent}}' },
  details: { type: 'json', description: 'whatever else the agents should know', default: null },
} as const satisfies WorkflowTemplate['params'];

const task = (id: string, part: string, agent = '{{agent}}') => ({
  id,
  title: `${id}: {{title}}`,
  agent,
  input: { title: '{{title}}', details: '{{details}}', part },
});

export const BUILT_IN_TEMPLATES: Readonly<Record<string, WorkflowTemplate>> = {
  feature: {
    description: 'Something new: design it, build it with its tests, review and document it.',
    params: PARAMS,
    workflow: {
      title: '{{title}}',
      budgetMs: 24 * HOUR_MS,
      phases: [
        {
          id: 'design',
          budgetMs: 2 * HOUR_MS,
          tasks: [
            task(
              'design',
              'Write down what is to be built, and what is not; name the parts that change.',
            ),
          ],
        },
        {
          id: 'build',
          order: 'sequential',
          budgetMs: 8 * HOUR_MS,
          tasks: [
            task('implement', 'Build it as it was designed.'),
            task('test', 'Add the tests that fail without it.'),
          ],
        },
        {
          id: 'finish',
          budgetMs: 4 * HOUR_MS,
          tasks: [
            task(
              'review',
              'Review what was built against the design, and mend what is wrong.',
              '{{reviewer}}',
            ),
            task('document', 'Describe it for those who use it.'),
          ],
        },
      ],
    },
  },
  bugFix: {
    description: 'Something is wrong: reproduce it in a test, mend it, review it.',
    params: PARAMS,
    workflow: {
      title: '{{title}}',
      budgetMs: 8 * HOUR_MS,
      phases: [
        {
          id: 'reproduce',
          budgetMs: 2 * HOUR_MS,
          tasks: [
            task(
              'reproduce',
              'Find the cause, and show it in the smallest test that fails because of it.',
            ),
          ],
        },
        {
          id: 'fix',
          budgetMs: 4 * HOUR_MS,
          tasks: [task('fix', 'Mend the cause, not the symptom; keep the test that shows it.')],
        },
        {
          id: 'review',
          budgetMs: 1 * HOUR_MS,
          tasks: [
            task(
              'review',
              'Check that the cause is gone and nothing else has changed.',
              '{{reviewer}}',
            ),
          ],
        },
      ],
    },
  },
  refactoring: {
    description: 'Better inside, the same outside: pin the behaviour, change the code, review it.',
    params: PARAMS,
    workflow: {
      title: '{{title}}',
      budgetMs: 16 * HOUR_MS,
      phases: [
        {
          id: 'prepare',
          order: 'sequential',
          budgetMs: 4 * HOUR_MS,
          tasks: [
            task('analyse', 'Say what is wrong with the structure, and what it should become.'),
            task('pin', 'Pin the behaviour as it is in tests, where there are none.'),
          ],
        },
        {
          id: 'refactor',
          budgetMs: 8 * HOUR_MS,
          tasks: [
            task('refactor', 'Change the structure in small steps; behaviour stays as it is.'),
          ],
        },
        {
          id: 'review',
          budgetMs: 2 * HOUR_MS,
          tasks: [
            task(
              'review',
              'Check that behaviour is the same and the structure is better.',
              '{{reviewer}}',
            ),
          ],
        },
      ],
    },
  },
};
