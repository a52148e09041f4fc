import { projectTask } from '../../src/machines/projections.ts';
import type { TaskContext } from '../../src/machines/task-machine.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import type { Verdict } from '../../src/protocol/verdict.ts';
import type { LiveSnapshot, MachineAction } from '../../src/runtime/xstate-driver.ts';
import type { Invariant } from './invariants.ts';
import type { StoredActorLife, World } from './world.ts';

/** The store's rows against each other, and every actor's journal against its machine. */
export const journalInvariants: readonly Invariant[] = [
  {
    name: 'journal without gaps',
    check: ({ actors, database }) => [
      ...actors.flatMap(({ record, checkpoints }) => {
        const seqs = checkpoints.map(({ seq }) => seq);
        if (seqs.every((seq, n) => seq === n) && record.seq === seqs.length - 1) return [];
        return [`${record.address} is at ${record.seq}, its checkpoints are ${seqs.join(', ')}.`];
      }),
      ...database
        .prepare('SELECT DISTINCT address FROM checkpoints EXCEPT SELECT address FROM actors')
        .pluck()
        .all()
        .map((address) => `${String(address)} has checkpoints and is no actor.`),
    ],
  },
  { name: 'every message handled once', check: handledOnce },
  { name: 'no turn on a message from a turn that is not stored', check: knownCauses },
  {
    name: 'replay is byte-identical',
    check: (world) => world.actors.flatMap((actor) => replay(world, actor).mismatch ?? []),
  },
  { name: 'no message lost', check: lostMessages },
  { name: 'children are effects', check: childrenAreEffects },
  {
    name: 'no dead letters',
    check: ({ deadLetters }) => deadLetters.map((letter) => JSON.stringify(letter)),
  },
  { name: 'no actor failed', check: failedActors },
  { name: 'rows say what the actors are', check: projectionsAgree },
  { name: 'I2 done once', check: doneOnce },
  { name: 'I3 one accepting verdict', check: acceptedOnce },
  { name: 'I4 legal transitions', check: legalTransitions },
  { name: 'I4 nothing active without an owner', check: ownedTasks },
  { name: 'I6 evidence of every verdict', check: evidenceOfVerdicts },
  { name: 'I9 at rest', applies: ({ expect }) => expect.atRest !== false, check: atRest },
  {
    name: 'I9 ended as expected',
    applies: ({ expect }) => expect.atRest !== false,
    check: endedAsExpected,
  },
  {
    name: 'I9 no attempt burnt',
    applies: ({ expect }) => expect.failures !== undefined,
    check: burntAttempts,
  },
];

/** Durable messages, timers and effects all have an id that is used once. */
function handledOnce({ actors }: World): string[] {
  const wrong: string[] = [];
  const messages = new Map<string, string>();
  for (const { record, checkpoints } of actors) {
    const own = new Set<string>();
    for (const { event, seq } of checkpoints) {
      if (event === null) continue;
      const { id, from } = event.meta;
      const place = `${record.address}#${seq}`;
      if (own.has(id)) wrong.push(`${place} handled ${event.type} (${id}) a second time.`);
      own.add(id);
      // A deadline has the id of the request that it belongs to, in the asker's own journal.
      if (from === record.address) continue;
      const other = messages.get(id);
      if (other !== undefined) wrong.push(`${place} handled ${id}, which ${other} had handled.`);
      messages.set(id, place);
    }
  }
  return wrong;
}

/** A message's id names the turn that sent it: `<address>#<seq>.<k>`. */
function knownCauses({ actors, pending }: World): string[] {
  const last = new Map(actors.map(({ record }) => [record.address, record.seq]));
  const wrong: string[] = [];
  const check = (id: string, where: string): void => {
    const [, sender, seq] = /^([^#~!]+)#(\d+)\.\d+$/.exec(id) ?? [];
    if (sender === undefined || sender.startsWith('app/')) return;
    const known = last.get(sender);
    if (known === undefined || known < Number(seq)) {
      wrong.push(`${where} has ${id}; ${sender} is stored up to ${known ?? 'nothing'}.`);
    }
  };
  for (const { record, checkpoints } of actors) {
    for (const { event, seq } of checkpoints) {
      if (event !== null) check(event.meta.id, `${record.address}#${seq}`);
    }
  }
  for (const message of pending.messages) check(message.id, `The mailbox of ${message.to}`);
  for (const effect of pending.effects) check(effect.generation, `An effect of ${effect.address}`);
  return wrong;
}

/** What came of taking an actor's events through its pure machine, from its first state on. */
interface Replay {
  /** Where what is stored is not what the machine gives. */
  readonly mismatch: string | undefined;
  readonly sent: readonly { readonly id: string; readonly to: string; readonly type: string }[];
}

const replays = new WeakMap<StoredActorLife, Replay>();

function replay(world: World, actor: StoredActorLife): Replay {
  const known = replays.get(actor);
  if (known !== undefined) return known;
  const { record, checkpoints } = actor;
  const driver = world.driver(record.machine);
  const [first, ...rest] = checkpoints;
  let mismatch = driver === undefined ? `There is no machine "${record.machine}".` : undefined;
  const sent: { id: string; to: string; type: string }[] = [];
  if (driver !== undefined && first !== undefined) {
    let live: LiveSnapshot = driver.restore(record.address, first.snapshot);
    for (const { seq, event, snapshotJson } of rest) {
      const turn = driver.transition(record.address, live, event as never);
      live = turn.snapshot;
      const given = JSON.stringify(driver.persist(live));
      if (given !== snapshotJson) {
        mismatch ??= `${record.address}#${seq} (${event?.type}) is stored as ${snapshotJson}, replayed as ${given}.`;
      }
      for (const [k, action] of turn.actions.entries()) {
        const message = messageOf(action);
        if (message !== undefined) sent.push({ ...message, id: `${record.address}#${seq}.${k}` });
      }
    }
  }
  const result = { mismatch, sent };
  replays.set(actor, result);
  return result;
}

/** Messages that change whoever handles them, so that handling them leaves a checkpoint. */
const ALWAYS_FELT = new Set([
  'agent.work',
  'gatekeeper.verify',
  'overseer.escalate',
  'task.claim',
  'task.dependencyEnded',
  'agent.work:ok',
  'agent.work:err',
  'gatekeeper.verify:ok',
  'gatekeeper.verify:err',
]);

/** Whatever a stored turn has sent was handled, or still waits, or its receiver has ended. */
function lostMessages(world: World): string[] {
  const handled = new Set<string>();
  const ended = new Set<string>();
  for (const { record, checkpoints } of world.actors) {
    for (const { event } of checkpoints) if (event !== null) handled.add(event.meta.id);
    if (record.status !== 'active') ended.add(record.address);
    // Whoever was called off does not wait for answers any more.
    const { value } = checkpoints.at(-1)?.snapshot ?? {};
    if (value === 'cancelled' || value === 'cancelling') ended.add(record.address);
  }
  for (const { id } of world.pending.messages) handled.add(id);
  return world.actors.flatMap((actor) =>
    replay(world, actor).sent.flatMap(({ id, to, type }) =>
      !ALWAYS_FELT.has(type) || ended.has(to) || handled.has(id)
        ? []
        : [`${type} (${id}) to ${to} was never handled.`],
    ),
  );
}

function messageOf(
  action: MachineAction,
): { readonly to: string; readonly type: string } | undefined {
  if (action.kind !== 'command') return undefined;
  const params = action.params as {
    readonly to?: string | { readonly address: string };
    readonly type?: string;
    readonly message?: { readonly type: string };
    readonly failure?: unknown;
  };
  if (typeof params.to === 'string' && params.message !== undefined) {
    return { to: params.to, type: params.message.type };
  }
  if (action.command === 'reply' && typeof params.to === 'object') {
    const outcome = params.failure === undefined ? 'ok' : 'err';
    return { to: params.to.address, type: `${params.type}:${outcome}` };
  }
  return undefined;
}

/** The effects an actor has are exactly those its machine runs. */
function childrenAreEffects({ actors, pending }: World): string[] {
  const effects = new Map<string, string[]>();
  for (const { address, id, src } of pending.effects) {
    effects.set(address, [...(effects.get(address) ?? []), `${id}:${src}`]);
  }
  return actors.flatMap(({ record, checkpoints }) => {
    const children = checkpoints.at(-1)?.snapshot.children ?? {};
    const wanted =
      record.status === 'active' ? Object.entries(children).map((c) => c.join(':')) : [];
    const found = effects.get(record.address) ?? [];
    return wanted.toSorted().join() === found.toSorted().join()
      ? []
      : [
          `${record.address} runs ${wanted.join(', ') || 'nothing'}; stored are ${found.join(', ') || 'none'}.`,
        ];
  });
}

function failedActors({ actors }: World): string[] {
  return actors
    .filter(({ record }) => record.status === 'error' || record.status === 'quarantined')
    .map(({ record }) => `${record.address} is ${record.status}: ${record.reason}`);
}

const topLevel = (value: JsonValue): string =>
  typeof value === 'string' ? value : (Object.keys(value as object)[0] ?? '');

function tasksOf({ actors }: World): { readonly name: string; readonly life: StoredActorLife }[] {
  return actors
    .filter(({ record }) => record.machine === 'task')
    .map((life) => ({ name: life.record.address.slice('task/'.length), life }));
}

function projectionsAgree(world: World): string[] {
  const rows = new Map(world.tasks.map((row) => [`${row.run}/${row.task}`, row]));
  const wrong = tasksOf(world).flatMap(({ name, life }) => {
    const last = life.checkpoints.at(-1);
    const row = rows.get(name);
    if (last === undefined || row === undefined) return [`${name} has no row or no checkpoint.`];
    const { value, context } = last.snapshot;
    const [projected] = projectTask({
      value,
      context: context as unknown as TaskContext,
      at: row.updatedAt,
    });
    return JSON.stringify(projected?.row) === JSON.stringify(row)
      ? []
      : [
          `the row of ${name} is ${JSON.stringify(row)}, its state gives ${JSON.stringify(projected?.row)}.`,
        ];
  });
  const actors = tasksOf(world).length;
  return actors === rows.size ? wrong : [...wrong, `${rows.size} rows for ${actors} tasks.`];
}

function doneOnce(world: World): string[] {
  return tasksOf(world).flatMap(({ name, life }) => {
    const times = life.checkpoints.filter(({ snapshot }) => snapshot.value === 'done').length;
    return times > 1 ? [`${name} was done ${times} times.`] : [];
  });
}

/** Per task and attempt a gatekeeper accepts at most once, and the task hears of it at most once. */
function acceptedOnce(world: World): string[] {
  const accepted = new Map<string, number>();
  const count = (name: string): void => {
    accepted.set(name, (accepted.get(name) ?? 0) + 1);
  };
  for (const { record, checkpoints } of world.actors) {
    for (const [n, { event }] of checkpoints.entries()) {
      if (event === null) continue;
      if (record.machine === 'task' && event.type === 'gatekeeper.verify:ok') {
        const verdict = event['reply'] as Verdict;
        if (verdict.verdict === 'accepted') count(`${record.address}, as the task heard it,`);
      }
      if (record.machine !== 'gatekeeper' || !event.type.startsWith('xstate.done.actor.')) continue;
      const verdict = event['output'] as Verdict;
      const before = checkpoints[n - 1]?.snapshot.context as unknown as Pooled | undefined;
      const job = before?.pool.running.find(({ id }) => id === event['actorId']);
      if (verdict.verdict === 'accepted') count(`${job?.task}@${job?.attempt}`);
    }
  }
  return [...accepted].flatMap(([name, times]) =>
    times > 1 ? [`${name} was accepted ${times} times.`] : [],
  );
}

interface Pooled {
  readonly pool: {
    readonly running: readonly Job[];
    readonly queue: readonly Job[];
  };
}

interface Job {
  readonly id: string;
  readonly task: string;
  readonly attempt: number;
}

const ADMITTED = ['staged', 'waiting', 'ready', 'verifying', 'paused', 'blocked'];
const ASSESSED = ['retrying', 'blocked', 'escalated'];

/** Written down from the description of a task's life, not from the machine: the machine is what is on trial. */
const LEGAL: Readonly<Record<string, readonly string[]>> = {
  staged: ['waiting', 'ready', 'paused', 'blocked', 'cancelling'],
  waiting: ['ready', 'blocked', 'paused', 'cancelling'],
  ready: ['preparing', 'paused', 'cancelling'],
  preparing: ['working', ...ASSESSED, 'cancelling'],
  working: ['verifying', 'awaitingInput', ...ASSESSED, 'cancelling'],
  awaitingInput: ['working', 'fixing', 'escalated', 'cancelling'],
  fixing: ['verifying', 'awaitingInput', ...ASSESSED, 'cancelling'],
  verifying: ['done', 'fixing', 'awaitingApproval', ...ASSESSED, 'cancelling'],
  retrying: [...ADMITTED, 'cancelling'],
  blocked: [...ADMITTED, 'retrying', 'cancelling'],
  escalated: [...ADMITTED, 'cancelling'],
  awaitingApproval: [...ADMITTED, 'cancelling'],
  paused: [...ADMITTED, 'cancelling'],
  cancelling: ['cancelled'],
  cancelled: [],
  done: [],
};

function legalTransitions(world: World): string[] {
  return tasksOf(world).flatMap(({ name, life }) => {
    const states = life.checkpoints.map(({ snapshot }) => topLevel(snapshot.value));
    const wrong: string[] = [];
    if (!['staged', 'waiting', 'ready'].includes(states[0] ?? '')) {
      wrong.push(`${name} began as ${states[0]}.`);
    }
    for (let n = 1; n < states.length; n++) {
      const [from = '', to = ''] = [states[n - 1], states[n]];
      const legal = from === to ? from !== 'done' : LEGAL[from]?.includes(to);
      if (legal !== true) wrong.push(`${name} went from ${from} to ${to} (${n}).`);
    }
    return wrong;
  });
}

/** Whoever waits for something is known to whoever it waits for. True of every committed state, at rest or not. */
function ownedTasks(world: World): string[] {
  const snapshots = new Map(
    world.actors.map(({ record, checkpoints }) => [record.address, checkpoints.at(-1)?.snapshot]),
  );
  const effects = new Set(world.pending.effects.map(({ address, id }) => `${address} ${id}`));
  const mail = new Set(
    world.pending.messages.map(({ from, to, messageJson }) => {
      const { type } = JSON.parse(messageJson) as { type: string };
      return `${from} ${to} ${type}`;
    }),
  );
  const has = (address: string, task: string, attempt: number): boolean => {
    const { pool } = (snapshots.get(address)?.context ?? {
      pool: { running: [], queue: [] },
    }) as unknown as Pooled;
    return [...pool.running, ...pool.queue].some(
      (job) => job.task === task && job.attempt === attempt,
    );
  };
  return tasksOf(world).flatMap(({ name, life }) => {
    const task = life.record.address;
    const snapshot = life.checkpoints.at(-1)?.snapshot;
    if (snapshot === undefined) return [];
    const { value, context } = snapshot;
    const { agent, attempt, fix, spec } = context as unknown as TaskContext;
    const waitsFor = (owner: string, request: string): string[] =>
      has(owner, task, attempt) ||
      mail.has(`${task} ${owner} ${request}`) ||
      mail.has(`${owner} ${task} ${request}:ok`) ||
      mail.has(`${owner} ${task} ${request}:err`)
        ? []
        : [`${name} (attempt ${attempt}) waits for ${owner}, which does not know of it.`];
    switch (topLevel(value)) {
      case 'preparing':
        return effects.has(`${task} prepare`)
          ? []
          : [`${name} is preparing, and nothing prepares it.`];
      case 'cancelling':
        return effects.has(`${task} release`)
          ? []
          : [`${name} is cancelling, and nothing does it.`];
      case 'working':
        return waitsFor(`agent/${agent}`, 'agent.work');
      case 'fixing':
        return effects.has(`${task} prepare`)
          ? []
          : waitsFor(`agent/${fix?.agent ?? 'nobody'}`, 'agent.work');
      case 'verifying':
        return waitsFor(`gatekeeper/${spec.gatekeeper}`, 'gatekeeper.verify');
      default:
        return [];
    }
  });
}

function evidenceOfVerdicts({ attempts, project }: World): string[] {
  return attempts.flatMap(({ run, task, attempt, outcome, detailsJson }) => {
    const name = `${run}/${task}@${attempt}`;
    const { stage, evidence } = JSON.parse(detailsJson) as {
      stage: string | null;
      evidence: { artifact?: string; commands: readonly Record<string, unknown>[] } | null;
    };
    if (outcome !== 'accepted' && stage === null) return []; // no gatekeeper has seen it
    if (evidence === null) return [`${name} was ${outcome} without evidence.`];
    if (outcome === 'accepted' && evidence.commands.length === 0) {
      return [`${name} was accepted with nothing that proves it.`];
    }
    const vague = evidence.commands.filter(
      ({ command, exitCode, signal, durationMs, excerpt }) =>
        typeof command !== 'string' ||
        (typeof exitCode !== 'number' && typeof signal !== 'string') ||
        typeof durationMs !== 'number' ||
        typeof excerpt !== 'string' ||
        excerpt.length > 4000,
    );
    if (vague.length > 0) return [`${name}: ${JSON.stringify(vague[0])} is no evidence.`];
    if (project === undefined) return [];
    const artifact = project.artifacts.find(({ file }) => file.endsWith(`/${evidence.artifact}`));
    if (artifact === undefined)
      return [`${name} names the artifact ${evidence.artifact}, which is not there.`];
    // Work that an earlier attempt had merged, unknown to its task, is accepted by that attempt's artifact.
    const proved = Number(artifact.content?.['attempt']);
    const fits = outcome === 'accepted' ? proved <= attempt : proved === attempt;
    return fits && artifact.content?.['verdict'] === outcome
      ? []
      : [
          `${name} was ${outcome}; ${artifact.file} says ${String(artifact.content?.['verdict'])} (${proved}).`,
        ];
  });
}

function atRest(world: World): string[] {
  const { pending, runs, tasks } = world;
  const moving = 'ready preparing working verifying fixing retrying cancelling'.split(' ');
  return [
    ...pending.messages.map(({ id, to }) => `the message ${id} waits at ${to}.`),
    ...pending.effects.map(({ address, id }) => `the effect ${id} of ${address} has not ended.`),
    ...tasks
      .filter(({ state }) => moving.includes(state))
      .map(({ run, task, state }) => `${run}/${task} is still ${state}.`),
    ...runs.filter(({ state }) => state === 'running').map(({ run }) => `${run} is still running.`),
    ...runs.flatMap((row) => countsOf(world, row.run)),
  ];
}

/** A run knows how many of its tasks are where; none was counted twice or forgotten. */
function countsOf({ runs, tasks }: World, run: string): string[] {
  const row = runs.find((entry) => entry.run === run);
  const { counts } = JSON.parse(row?.detailsJson ?? '{"counts":{}}') as {
    counts: Readonly<Record<string, number>>;
  };
  const own = tasks.filter((entry) => entry.run === run);
  return (['done', 'cancelled'] as const).flatMap((state) => {
    const there = own.filter((entry) => entry.state === state).length;
    return counts[state] === there
      ? []
      : [`${run} counts ${counts[state]} ${state}; there are ${there}.`];
  });
}

function endedAsExpected({ tasks, expect }: World): string[] {
  const names = new Map(tasks.map((row) => [`${row.run}/${row.task}`, row]));
  const missing = Object.keys(expect.tasks ?? {}).filter((name) => !names.has(name));
  return [
    ...missing.map((name) => `there is no task ${name}.`),
    ...[...names].flatMap(([name, { state, reason }]) => {
      const wanted = expect.tasks?.[name] ?? 'done';
      return state === wanted
        ? []
        : [`${name} is ${state}, expected ${wanted}${reason === null ? '' : ` (${reason})`}.`];
    }),
  ];
}

/** Faults of the machine are not the task's: only what went wrong in the work counts as a failed attempt. */
function burntAttempts({ attempts, tasks, expect }: World): string[] {
  const failed = new Map<string, number>();
  for (const { run, task, outcome } of attempts) {
    if (outcome !== 'failed' && outcome !== 'rejected') continue;
    failed.set(`${run}/${task}`, (failed.get(`${run}/${task}`) ?? 0) + 1);
  }
  return tasks.flatMap(({ run, task }) => {
    const name = `${run}/${task}`;
    const [found, wanted] = [failed.get(name) ?? 0, expect.failures?.(name)];
    return wanted === undefined || found === wanted
      ? []
      : [`${name} failed ${found} times, expected ${wanted}.`];
  });
}
