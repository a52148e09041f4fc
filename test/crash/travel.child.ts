// One life of a runtime that rolls a run back, or forks it, and is killed on the way. Orders: see `TravelOrders`. Without
// `killAt` it works the runs off to their end and says `ended`.
import { pino } from 'pino';
import { createTroupe } from '../../src/troupe.ts';

/** What one life of `travel.child.ts` is to do. */
export interface TravelOrders {
  readonly store: string;
  readonly do: 'begin' | 'rollback' | 'fork' | 'finish';
  /** The process is killed at this hit of this point after the journey has been asked for. */
  readonly killAt?: { readonly point: string; readonly hit: number };
}

const orders = JSON.parse(process.argv[2] ?? '{}') as TravelOrders;
const say = (line: string) => process.stdout.write(`${line}\n`);
let hits: number | undefined;

const troupe = await createTroupe({
  store: orders.store,
  durability: 'normal',
  logger: pino({ level: 'fatal' }, pino.destination(2)),
  faultPoint: (name) => {
    if (hits === undefined || name !== orders.killAt?.point) return;
    if (++hits === orders.killAt.hit) process.kill(process.pid, 'SIGKILL');
  },
});
/** The commits of the start are over: what comes then is the journey's. */
const configured = new Set<string>();
const quiet = Promise.withResolvers<void>();
troupe.on('turn', ({ address, event }) => {
  if (event?.type.endsWith('.configure') === true) configured.add(address);
  if (configured.size === 2) quiet.resolve();
});
const half = Promise.withResolvers<void>();
const finish = Promise.withResolvers<void>();
troupe.agent(
  'writer',
  async ({ task, step, signal }) => {
    await step('begin', () => task.id);
    if (orders.do === 'begin' && task.id === 't3') {
      half.resolve();
      await finish.promise;
      signal.throwIfAborted();
    }
    return task.id;
  },
  { concurrency: 3 },
);
troupe.gatekeeper('editor', () => ({ accepted: true, evidence: ['read it'] }));

if (orders.do === 'begin') {
  const tasks = Array.from({ length: 6 }, (_, n) => ({
    id: `t${n}`,
    agent: 'writer',
    gatekeeper: 'editor',
    dependsOn: n >= 4 ? ['t3'] : [],
  }));
  const run = await troupe.start({ id: 'r', tasks });
  await half.promise;
  await run.checkpoint({ label: 'half' });
  finish.resolve();
  await run.result();
} else if (orders.do !== 'finish') {
  await quiet.promise;
  await troupe.host.flush();
  hits = 0;
  const run = troupe.run('r');
  if (orders.do === 'rollback') await run.rollback('half');
  else await run.fork('half', { id: 'f' });
  say(`survived after ${hits} hits`);
}
if (orders.do === 'finish') {
  for (const { id } of await troupe.runs()) {
    const { state, counts } = await troupe.run(id).result();
    say(`ended ${id} ${state} ${counts.done}`);
  }
}
await troupe.stop();
