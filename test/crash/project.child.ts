// One life of a runtime that works on a git project. Orders: see `ProjectOrders`. Says `open`, and `idle` when the
// run moves no more; with `untilSignal` it stops on SIGTERM (drains) or SIGINT and then ends by itself.
import path from 'node:path';
import { pino } from 'pino';
import { FaultPoints } from '../../src/runtime/fault-points.ts';
import { createTroupe, type Troupe } from '../../src/troupe.ts';
import { note } from './history.ts';
import { type ProjectOrders, paths, RUN, TASKS } from './project.ts';

const orders = JSON.parse(process.argv[2] ?? '{}') as ProjectOrders;
const say = (line: string) => process.stdout.write(`${line}\n`);
const { project, store, history, agent, meeting } = paths(orders.home);
const faults = orders.faults === undefined ? undefined : new FaultPoints(orders.faults);
// For the agents' commands, which get only what is named below.
Object.assign(process.env, { CRASH_HISTORY: history, CRASH_MEETING: meeting });

const troupe = await createTroupe({
  store,
  // The invariants replay the whole journal.
  retention: false,
  logger: pino({ level: 'error' }, pino.destination(2)),
  project: {
    directory: project,
    verify: [{ name: 'test', command: 'test ! -e broken' }],
    environment: ['CRASH_HISTORY', 'CRASH_MEETING', 'CRASH_MARKER'],
  },
  ...(faults === undefined ? {} : { faultPoint: faults.hit }),
});

troupe.on('streamed', ({ name }) => say(`progress ${name}`));
troupe.on('turn', ({ address, machine, state, context }) => {
  if (machine !== 'task') return;
  const name = address.slice('task/'.length);
  say(`${name} ${JSON.stringify(state)}`);
  const attempt = Number(context['attempt']);
  if (state === 'verifying') note(history, { op: 'verify.begun', task: name, attempt });
  if (state === 'done') note(history, { op: 'told.done', task: name });
  // Told after the commit, so this state is what the next life finds.
  const whole = typeof state === 'string' ? state : Object.entries(state as object)[0]?.join('.');
  if (name === `${RUN}/${orders.dieWhen?.task}` && orders.dieWhen?.state === whole) {
    process.kill(process.pid, 'SIGKILL');
  }
});

troupe.patchAgent('patcher', { concurrency: 2 });
troupe.commandAgent(
  'scribe',
  { run: ['sh', agent], projectDirectory: project },
  { concurrency: 2 },
);
note(history, { op: 'opened', pid: process.pid });
say('open');

const backoff = { initialMs: 20, factor: 2, maxMs: 100, jitter: 0.2 };
const run = await troupe.start({
  id: RUN,
  tasks: orders.tasks.map((id) => {
    const task = TASKS[id];
    const input = task?.input as { patches: string[] } | undefined;
    const patches = input?.patches.map((file) => path.join(orders.home, file));
    return {
      ...task,
      id,
      agent: task?.agent ?? '',
      ...(patches === undefined ? {} : { input: { patches } }),
    };
  }),
  // Killed from outside, again and again, no task is to blame for it.
  limits: {
    backoff,
    infrastructureBackoff: backoff,
    interruptions: 100,
    ...(orders.infrastructureAttempts === undefined
      ? {}
      : { infrastructureAttempts: orders.infrastructureAttempts }),
  },
});

if (orders.untilSignal === true) await stopOnSignal(troupe);
else {
  if (orders.retry !== undefined) {
    await run.result();
    await run.task(orders.retry).decide('retry', { by: 'ada' });
  }
  const { state } = await run.result();
  say(`idle ${state}`);
  if (faults !== undefined) say(`trace ${JSON.stringify([...faults.trace()])}`);
  await troupe.stop();
  say('stopped');
}

/** Every promise that the API gave must be settled when `stop` is. */
async function stopOnSignal(open: Troupe): Promise<void> {
  const promises = {
    result: run.result(),
    request: open.request('inbox/nobody', { type: 'inbox.count' }, { timeoutMs: 3_600_000 }),
    unknownRun: open.run('unknown').result(),
    send: open.send('overseer/main', { type: 'overseer.escalate' } as never),
  };
  const outcomes = Object.entries(promises).map(([name, promise]) =>
    promise.then(
      () => say(`settled ${name} resolved`),
      (error: unknown) => say(`settled ${name} ${(error as Error).name}`),
    ),
  );
  const drain = await new Promise<boolean>((resolve) => {
    // A signal's listener does not keep a process alive; this one waits, so something must.
    const alive = setInterval(() => undefined, 2 ** 30);
    const onSignal = (drains: boolean) => () => {
      clearInterval(alive);
      resolve(drains);
    };
    process.once('SIGTERM', onSignal(true));
    process.once('SIGINT', onSignal(false));
    say('waiting');
  });
  await open.stop({ drain, graceMs: 20_000 });
  say('stopped');
  await Promise.all(outcomes);
  say('all settled');
  const late = await open
    .request('inbox/nobody', { type: 'inbox.count' })
    .catch((error: Error) => error.name);
  say(`late ${String(late)}`);
}
