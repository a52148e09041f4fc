// An agent asks a person. The task waits, for days if need be; what the agent had done is not done again.
// Run: node examples/03-ask-a-person.ts

import { createTroupe } from '../src/index.ts';

const troupe = await createTroupe({ store: ':memory:' });

troupe.agent('tailor', async ({ step, ask }) => {
  const cloth = await step('cut', () => {
    console.log('cuts the cloth');
    return 'four yards of wool';
  });
  const colour = await ask({ id: 'colour', text: 'Which colour?', choices: ['red', 'blue'] });
  return `a ${colour} coat from ${cloth}`;
});

troupe.gatekeeper('customer', ({ submission }) => {
  console.log(`gets ${submission.result}`);
  return { accepted: true, evidence: ['it fits'] };
});

const run = await troupe.start({
  id: 'order',
  tasks: [{ id: 'coat', agent: 'tailor', gatekeeper: 'customer' }],
});

// Nothing moves by itself any more: the run says what it waits for.
const waiting = await run.result();
console.log(`${waiting.state}: ${waiting.tasks[0]?.reason}`);

await run.task('coat').answer('colour', 'red', 'ada');
console.log((await run.result()).state);
await troupe.stop();

// Output:
// cuts the cloth
// blocked: Which colour?
// gets a red coat from four yards of wool
// done
