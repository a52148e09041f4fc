// An agent streams what it does; a reader that was away misses nothing and sees nothing twice. A signal steers it.
// Run: node examples/05-stream.ts

import { createTroupe } from '../src/index.ts';

const troupe = await createTroupe({ store: ':memory:' });

troupe.agent('poet', async ({ write, progress, nextSignal }) => {
  for (const line of ['The otter', 'slept on']) await write(line);
  progress({ percent: 50, step: 'waits for the ending' });
  const ending = await nextSignal('ending', { timeoutMs: 60_000 });
  await write(ending === null ? 'and on.' : ending.value);
  progress(100);
  return 'a poem';
});
troupe.gatekeeper('reader', () => ({ accepted: true, evidence: ['read it aloud'] }));

const run = await troupe.start({
  id: 'book',
  tasks: [{ id: 'poem', agent: 'poet', gatekeeper: 'reader' }],
});

let from = 0;
for await (const { offset, value } of troupe.readStream('task/book/poem')) {
  console.log(`${offset}: ${value}`);
  from = offset + 1;
  if (from === 2) break; // the reader goes away
}

await troupe.signal('task/book/poem', 'ending', 'its back.');
await run.result();

for await (const { offset, value } of troupe.readStream('task/book/poem', { from })) {
  console.log(`${offset}: ${value}`);
}
const { progress } = await run.task('poem').status();
console.log(`${progress?.percent} %`);
await troupe.stop();

// Output:
// 0: The otter
// 1: slept on
// 2: its back.
// 100 %
