// One task: an agent does it, a gatekeeper refuses it once and says why, the agent mends it.
// Run: node examples/01-one-task.ts

import { createTroupe } from '../src/index.ts';

const troupe = await createTroupe({ store: ':memory:' });

troupe.agent('greeter', ({ task }) => {
  const politely = task.feedback.includes('Say please.');
  return politely ? 'Come in, please.' : 'Come in.';
});

troupe.gatekeeper('butler', ({ submission }) =>
  String(submission.result).includes('please')
    ? { accepted: true, evidence: [`heard "${submission.result}"`] }
    : { accepted: false, reason: 'That was rude.', feedback: ['Say please.'] },
);

troupe.on('turn', ({ address, state }) => {
  if (address.startsWith('task/')) console.log(state);
});

const run = await troupe.start({
  id: 'visit',
  limits: { backoff: { initialMs: 1 } },
  tasks: [{ id: 'greet', agent: 'greeter', gatekeeper: 'butler' }],
});
const { state, tasks } = await run.result();
console.log(`${state} after ${tasks[0]?.attempts} attempts`);
await troupe.stop();

// Output:
// ready
// preparing
// working
// verifying
// { retrying: 'workAgain' }
// ready
// preparing
// working
// verifying
// done
// done after 2 attempts
