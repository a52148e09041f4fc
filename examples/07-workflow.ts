// A workflow: phases one after the other, tasks side by side, a time budget that is used up, and a person who decides.
// Run: node examples/07-workflow.ts

import { createTroupe } from '../src/index.ts';

const troupe = await createTroupe({ store: ':memory:' });

let patient = false;
troupe.agent(
  'cook',
  ({ task, signal }) => {
    if (task.id !== 'bake' || patient) return `${task.id} is done`;
    // It would take for ever; when its time is used up, it is called off.
    return new Promise((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
  },
  { concurrency: 3 },
);
troupe.gatekeeper('taster', ({ submission }) => ({
  accepted: true,
  evidence: [`tasted: ${submission.result}`],
}));

troupe.template('cake', {
  params: { taste: { description: 'what it tastes of' } },
  workflow: {
    title: 'A cake that tastes of {{taste}}',
    agent: 'cook',
    gatekeeper: 'taster',
    phases: [
      { id: 'prepare', tasks: [{ id: 'dough' }, { id: 'filling', input: '{{taste}}' }] },
      { id: 'oven', budgetMs: 50, tasks: [{ id: 'bake' }] },
      { id: 'serve', order: 'sequential', tasks: [{ id: 'cool' }, { id: 'cut' }] },
    ],
  },
});

const run = await troupe.startWorkflow({ template: 'cake', params: { taste: 'plums' } });
const before = await run.result();
for (const { id, state } of before.phases) console.log(`${id}: ${state}`);
console.log(before.tasks.find(({ id }) => id === 'bake')?.reason);

patient = true;
await run.task('bake').decide('retry', { guidance: 'Take your time.' });
const after = await run.result();
console.log(`${after.title}: ${after.state}`);
for (const { id, state, counts } of after.phases) console.log(`${id}: ${state}, ${counts.done}`);
await troupe.stop();

// Output:
// prepare: done
// oven: blocked
// serve: waiting
// The time budget of phase "oven" (50 ms) is used up.
// A cake that tastes of plums: done
// prepare: done, 2
// oven: done, 1
// serve: done, 2
