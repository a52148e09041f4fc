import { beforeAll, describe, expect, test } from 'vitest';
import { phaseOf } from '../../src/machines/policies/task-phase.ts';
import { startState, type TaskContext } from '../../src/machines/task-machine.ts';
import { checkAgainstCatalogue, type TaskState } from '../../src/protocol/catalogue.ts';
import { parseMessage } from '../../src/protocol/message.ts';
import {
  answerIn,
  type Fact,
  messagesIn,
  type Step,
  shownState,
  stateOf,
  toldRun,
} from './driven.ts';
import {
  accepted,
  acceptedWithoutProof,
  answer,
  asks,
  backoffIsOver,
  breaksDown,
  cancel,
  claimed,
  contextOf,
  decide,
  dependency,
  enable,
  fails,
  failsPreflight,
  gatekeeperFails,
  isNotThere,
  needsApproval,
  nobodyAnswers,
  nonsense,
  notPrepared,
  notReleased,
  notVerified,
  pause,
  policyDecides,
  policyFails,
  prepareDies,
  prepared,
  rejected,
  released,
  resume,
  skipped,
  skipTo,
  spec,
  submissionIsGone,
  submitted,
  task,
  timeUp,
  unblock,
  undecided,
  verificationDies,
  workDies,
} from './task-facts.ts';

/*
 * Every state that a task can get into, found by trying every event that a host could deliver in every state found so
 * far. Two moments are the same state when nothing that decides about the future differs: numbers that only count up
 * (attempts made, requests sent) and texts are left out. The limits are small, so there is an end to it.
 */
const SMALL = {
  attempts: 2,
  sameError: 2,
  sameChange: 9,
  sameFeedback: 2,
  infrastructureAttempts: 2,
};
const ALONE = spec({ dependsOn: ['a', 'b'], dependants: ['x'], staged: true, limits: SMALL });
const MENDED = spec({
  limits: { ...SMALL, attempts: 1 },
  qa: { agents: ['mender', 'other'], sessions: 1, iterations: 2 },
});
let SPEC = ALONE;

/** Deliverable at any time. */
const ORDERS: readonly Fact[] = [
  claimed,
  ...['retry', 'approve', 'block', 'cancel'].map((decision) => decide(decision)),
  decide('reassign', { agent: 'poet' }),
  decide('reassign'),
  answer(),
  answer('red', 'size'),
  unblock(),
  unblock(5_000),
  pause,
  resume,
  cancel,
  skipTo,
  skipped,
  enable,
  timeUp,
];

/** What a gatekeeper says that could not verify: the work is neither good nor bad. */
const UNJUDGED: ReadonlySet<Fact> = new Set([
  notVerified(),
  acceptedWithoutProof,
  nonsense,
  gatekeeperFails,
  verificationDies,
]);

/** Deliverable only as the answer to what is open. */
const OUTCOMES = {
  requests: {
    work: [
      submitted(),
      asks(),
      asks({ timeoutMs: 1, default: 'red' }),
      asks({ timeoutMs: 1 }),
      fails(),
      failsPreflight(),
      breaksDown(),
      isNotThere,
      workDies,
    ],
    verify: [accepted, rejected(), needsApproval, submissionIsGone, ...UNJUDGED],
    escalate: [
      undecided,
      policyFails,
      ...['retry', 'approve', 'block', 'cancel'].map((d) => policyDecides(d)),
    ],
  },
  effects: { prepare: [prepared, notPrepared, prepareDies], release: [released, notReleased] },
} as const;

/** A question without a time limit has a timer all the same, which nobody lives to see. */
const NEVER_MS = 100 * 365 * 86_400_000;

interface Node extends Step {
  readonly key: string;
  /** Dependencies that have ended: each does once. */
  readonly ended: readonly string[];
  readonly from: Node | undefined;
  readonly by: string;
  readonly leadsTo: Set<string>;
}

const nodes = new Map<string, Node>();
/** What did not hold, nearest to the beginning first. */
const problems: string[] = [];

function possible({ pending, ended }: Node): readonly Fact[] {
  const facts = [...ORDERS];
  for (const id of SPEC.dependsOn) {
    if (!ended.includes(id)) facts.push(dependency(id), dependency(id, 'cancelled'));
  }
  for (const id of pending.requests.keys()) facts.push(...OUTCOMES.requests[id as 'work']);
  for (const id of pending.effects) facts.push(...OUTCOMES.effects[id as 'prepare']);
  for (const { event, delayMs } of pending.timers.values()) {
    if (delayMs < NEVER_MS) facts.push(event as Fact);
  }
  return facts;
}

function keyOf(step: Step, ended: readonly string[]): string {
  const context = contextOf(step);
  const { progress, question } = context;
  const isOver = ['cancelling', 'cancelled'].includes(shownState(step));
  return JSON.stringify([
    step.snapshot.value,
    ended,
    ...(isOver
      ? // Only what it still has to tell, if it is skipped, makes a difference.
        [context.skippedFor !== null || union(context.remaining, context.lost, context.without)]
      : // What it goes on without is told in any state; when it has ended, nothing comes of that.
        [context.remaining, context.lost, context.without.filter((id) => !ended.includes(id))]),
    context.staged,
    context.pauseAsked,
    context.policyRounds,
    context.submitted,
    context.next,
    context.goesOnWith,
    context.told,
    context.heard,
    context.last?.outcome ?? null,
    // Above a limit all numbers are the same; approvals let them grow on.
    context.sessions,
    context.fix && [context.fix.iteration, context.fix.agent],
    [
      progress.attempts,
      progress.infrastructureStreak,
      progress.error.streak,
      progress.feedback.streak,
    ].map((n) => Math.min(n, 2)),
    question && [question.timeoutMs !== undefined, question.default !== undefined],
    context.reason === null,
  ]);
}

const union = (...lists: readonly (readonly string[])[]): readonly string[] =>
  [...new Set(lists.flat())].sort();

/** The way to it. */
const where = ({ from, by }: Node): string => (from === undefined ? '' : `${where(from)} · ${by}`);
const label = (fact: Fact): string =>
  fact.type +
  ('reply' in fact
    ? ` ${JSON.stringify(fact['reply']).slice(0, 60)}`
    : 'decision' in fact
      ? ` ${String(fact['decision'])}`
      : '');

const WAITS_FOR: Readonly<
  Record<string, { requests?: string[]; effects?: string[]; timers?: number }>
> = {
  preparing: { effects: ['prepare'] },
  working: { requests: ['work'] },
  'fixing.preparing': { effects: ['prepare'] },
  'fixing.working': { requests: ['work'] },
  verifying: { requests: ['verify'] },
  awaitingInput: { timers: 1 },
  'retrying.workAgain': { timers: 1 },
  'retrying.verifyAgain': { timers: 1 },
  'escalated.asking': { requests: ['escalate'] },
  'awaitingApproval.asking': { requests: ['escalate'] },
  cancelling: { effects: ['release'] },
};
const ATTEMPT_RUNS: ReadonlySet<string> = new Set([
  'preparing',
  'working',
  'awaitingInput',
  'verifying',
  'fixing',
  'awaitingApproval',
]);
const KINDS: ReadonlySet<string> = new Set([
  'command',
  'startEffect',
  'stopEffect',
  'raiseLater',
  'cancelTimer',
]);

/** What must hold after every single event. Written without `expect`, which is slow a million times over. */
function check(before: Node, fact: Fact, node: Node): void {
  const must = (holds: boolean, what: string): void => {
    if (!holds) throw new Error(`${what}, in ${stateOf(node)} after ${where(node)}`);
  };
  const same = (got: unknown, wanted: unknown, what: string): void =>
    must(
      JSON.stringify(got) === JSON.stringify(wanted),
      `${what}: expected ${JSON.stringify(wanted)}, got ${JSON.stringify(got)}`,
    );
  const state = stateOf(node);
  const shown = shownState(node) as TaskState;
  const context = contextOf(node);

  // Promise 5: only a verdict of acceptance, with evidence, makes a task done.
  if (shown === 'done') same(fact, accepted, 'what made it done');
  if (['blocked', 'escalated', 'awaitingApproval'].includes(shown)) {
    must((context.reason ?? '') !== '', 'it waits without a reason');
  }

  // Every order is answered, once, and truly.
  const asked = /^task\.(?!dependencyEnded|enable|timeUp)/.test(fact.type);
  const said = answerIn(node.actions);
  same(said !== undefined, asked, 'whether it was answered');
  if (said?.startsWith('✗')) same(state, stateOf(before), 'the state after a refusal');
  else if (said !== undefined) same(said, shown, 'the answer');

  // Skipping tells what is not done of its dependencies, and, skipped itself, does so once.
  const skips = messagesIn(node.actions).filter((m) => m.message.type === 'task.cancel');
  const wasOpen = new Set([
    ...contextOf(before).remaining,
    ...contextOf(before).lost,
    ...contextOf(before).without,
  ]);
  const passesOn =
    (fact === skipTo && !said?.startsWith('✗')) ||
    (fact === skipped && contextOf(before).skippedFor === null);
  same(skips.length, passesOn ? wasOpen.size : 0, 'dependencies told that they are skipped');
  if (fact === skipTo && passesOn) {
    same([...context.without].sort(), [...wasOpen].sort(), 'what it goes on without');
    must(context.lost.length === 0 && !context.staged, 'something is still in its way');
  }

  // Everything asked for is of a known kind.
  for (const action of node.actions) {
    must(KINDS.has(action.kind), `it asks for ${action.kind}`);
    if (action.kind === 'raiseLater') must(action.delayMs >= 0, 'a delay below 0');
  }
  for (const { to, message } of messagesIn(node.actions)) {
    checkAgainstCatalogue(to.split('/')[0] ?? '', parseMessage(message));
  }

  // What is open belongs to the state, and nothing else is.
  const open = WAITS_FOR[state] ?? {};
  same([...node.pending.requests.keys()], open.requests ?? [], 'open requests');
  same([...node.pending.effects], open.effects ?? [], 'running effects');
  same(node.pending.timers.size, open.timers ?? 0, 'timers');

  // The run hears a chain: what it is told next begins with what it was told last.
  let { told } = contextOf(before);
  let heard = 0;
  let telling = 0;
  for (const word of toldRun(node.actions)) {
    same(word.from, told, 'what the run was told before');
    told = word.to as TaskContext['told'];
    heard += word.heard;
    telling += word.telling;
  }
  same(told, state.endsWith('.asking') ? 'delayed' : phaseOf(shown), 'what the run is told');
  same(heard, fact.type === 'task.dependencyEnded' ? 1 : 0, 'ends it says it has heard of');
  const ends = ['done', 'cancelled'].includes(shown) && shown !== shownState(before);
  same(telling, ends ? SPEC.dependants.length : 0, 'dependants the run knows are told');
  const tells = messagesIn(node.actions).filter((m) => m.message.type === 'task.dependencyEnded');
  same(tells.length, telling, 'dependants told');

  // An attempt that runs is open, any other has ended.
  if (context.last !== null) {
    const running = context.last.outcome === 'running';
    same(context.last.endedAt === null, running, 'whether its attempt is open');
    if (ATTEMPT_RUNS.has(shown)) must(running, 'its attempt has ended');
    else must(!running, 'its attempt is still open');
  }
  // What was handed in is verified again, by itself, only while it is there and nobody has judged it.
  if (context.goesOnWith === 'verification') {
    must(context.submitted, 'there is nothing to verify again');
    must(['infrastructure', 'cancelled'].includes(context.last?.outcome ?? ''), 'it was judged');
    must(!ATTEMPT_RUNS.has(shown) && shown !== 'ready', 'it is on its way already');
  }
  if (UNJUDGED.has(fact)) same(context.goesOnWith, 'verification', 'what is tried again');
  const asksAgent = messagesIn(node.actions).some((m) => m.message.type === 'agent.work');
  must(
    !asksAgent || contextOf(before).goesOnWith === 'work',
    'the agent is asked for what was not judged',
  );
  same(context.question !== null, shown === 'awaitingInput', 'whether it has a question');
  // A pause that was asked holds as soon as nothing runs.
  must(!(context.pauseAsked && shown === 'ready'), 'it is to be paused');
}

/** Everything from which a node that `is` can be reached. */
function whence(is: (node: Node) => boolean): ReadonlySet<string> {
  const from = new Map<string, string[]>();
  for (const node of nodes.values()) {
    for (const to of node.leadsTo) from.set(to, [...(from.get(to) ?? []), node.key]);
  }
  const found = new Set<string>();
  const queue = [...nodes.values()].filter(is).map(({ key }) => key);
  for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
    if (found.has(key)) continue;
    found.add(key);
    queue.push(...(from.get(key) ?? []));
  }
  return found;
}

describe.each([
  { name: 'alone', whole: ALONE },
  { name: 'with somebody who mends', whole: MENDED },
])('all states a task can get into, $name', ({ whole }) => {
  beforeAll(() => {
    SPEC = whole;
    nodes.clear();
    problems.length = 0;
    const first = task.begin(SPEC);
    const root: Node = {
      ...first,
      key: keyOf(first, []),
      ended: [],
      from: undefined,
      by: '',
      leadsTo: new Set(),
    };
    expect(contextOf(root).told).toBe(phaseOf(startState(SPEC)));
    nodes.set(root.key, root);
    const queue = [root];
    // Nearest first, so that a fault is reported with the shortest way to it.
    for (let at = 0; at < queue.length; at++) {
      const node = queue[at] as Node;
      // The host refuses whatever comes for an actor that has ended.
      if (node.snapshot.status === 'done') continue;
      for (const fact of possible(node)) {
        const step = task.take(node, fact);
        const ended =
          fact.type === 'task.dependencyEnded'
            ? [...node.ended, String(fact['task'])].sort()
            : node.ended;
        const key = keyOf(step, ended);
        const next: Node = {
          ...step,
          key,
          ended,
          from: node,
          by: label(fact),
          leadsTo: new Set(),
        };
        try {
          check(node, fact, next);
        } catch (error) {
          problems.push((error as Error).message);
        }
        node.leadsTo.add(key);
        if (nodes.has(key)) continue;
        nodes.set(key, next);
        queue.push(next);
      }
    }
  }, 120_000);

  test('there are many, and every one of the documented states is among them', () => {
    const states = new Set([...nodes.values()].map(shownState));
    expect([...states].sort()).toEqual(
      [
        'awaitingApproval',
        'awaitingInput',
        'blocked',
        'cancelled',
        'cancelling',
        'done',
        'escalated',
        'paused',
        'preparing',
        'ready',
        'retrying',
        'staged',
        'verifying',
        'waiting',
        'working',
        ...(whole.qa === undefined ? [] : ['fixing']),
      ]
        .filter((state) => whole.qa === undefined || !['staged', 'waiting'].includes(state))
        .sort(),
    );
    expect(nodes.size).toBeGreaterThan(500);
  });

  test('after every event it is answered, told and waited for as it must be', () => {
    expect(problems.slice(0, 3)).toEqual([]);
  });

  test('none is without an exit but done and cancelled', () => {
    const stuck = [...nodes.values()].filter(
      (node) =>
        !['done', 'cancelled'].includes(shownState(node)) &&
        [...node.leadsTo].every((key) => stateOf(nodes.get(key) as Node) === stateOf(node)),
    );
    expect(stuck.map(where)).toEqual([]);
  });

  test('from every one the task can still be cancelled, and unless it is being cancelled, done', () => {
    const cancellable = whence((node) => shownState(node) === 'cancelled');
    const doable = whence((node) => shownState(node) === 'done');
    for (const node of nodes.values()) {
      const shown = shownState(node);
      if (shown !== 'done') expect(cancellable.has(node.key), where(node)).toBe(true);
      if (!['cancelling', 'cancelled'].includes(shown)) {
        expect(doable.has(node.key), where(node)).toBe(true);
      }
    }
  });

  test('done and cancelled are final', () => {
    for (const node of nodes.values()) {
      const shown = shownState(node);
      if (shown === 'done') expect(node.snapshot.status).toBe('done');
      if (shown !== 'cancelled') continue;
      for (const key of node.leadsTo) expect(shownState(nodes.get(key) as Node)).toBe('cancelled');
    }
  });

  test('without people and policies there is no endless loop', () => {
    // By itself a task moves only by outcomes; every circle of those must go through a claim, and use up a budget.
    const alone = new Map<string, Set<string>>();
    for (const node of nodes.values()) {
      if (node.snapshot.status === 'done') continue;
      const next = new Set<string>();
      for (const fact of possible(node)) {
        const people = /^task\.(?!claim|dependencyEnded)|^overseer\./.test(fact.type);
        // A question that is asked again after its default was taken is the same attempt; its agent is limited in time.
        if (people || fact === nobodyAnswers || fact.type === nobodyAnswers.type) continue;
        const key = keyOf(
          task.take(node, fact),
          fact.type === 'task.dependencyEnded'
            ? [...node.ended, String(fact['task'])].sort()
            : node.ended,
        );
        if (key !== node.key) next.add(key);
      }
      alone.set(node.key, next);
    }
    const state = new Map<string, 'open' | 'closed'>();
    const visit = (key: string): void => {
      const found = state.get(key);
      if (found === 'closed') return;
      expect(found, `a circle: ${where(nodes.get(key) as Node)}`).toBeUndefined();
      state.set(key, 'open');
      for (const next of alone.get(key) ?? []) visit(next);
      state.set(key, 'closed');
    };
    for (const key of alone.keys()) visit(key);
  });

  test('every one survives the way to the store and back', () => {
    for (const node of nodes.values()) {
      const back = task.throughStore(node.snapshot);
      expect(back.value).toEqual(node.snapshot.value);
      expect(back.context).toEqual(node.snapshot.context);
    }
  });

  test('the backoff is the only way out of retrying by itself', () => {
    for (const node of nodes.values()) {
      if (shownState(node) !== 'retrying') continue;
      expect([...node.pending.timers.values()].map(({ event }) => event.type)).toEqual([
        backoffIsOver.type,
      ]);
    }
  });
});
