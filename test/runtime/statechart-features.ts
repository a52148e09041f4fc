import {
  type AnyEventObject,
  and,
  assign,
  cancel,
  emit,
  enqueueActions,
  not,
  or,
  raise,
  sendParent,
  sendTo,
  setup,
  spawnChild,
  stateIn,
  stopChild,
} from 'xstate';
import { anyAddress, durableActions } from '../../src/protocol/commands.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import { replyTo } from '../../src/protocol/message.ts';
import type { Machines, Outside } from './world.ts';

/** What happens from outside, one thing at a time. */
export type Step =
  | { readonly send: string; readonly with?: Readonly<Record<string, JsonValue>> }
  | { readonly afterMs: number }
  | { readonly finish: string; readonly output: JsonValue }
  | { readonly fail: string; readonly message: string };

/** One thing a statechart can do that the durable host promises to do as well, with a story that shows it. */
export interface Feature {
  readonly name: string;
  /** The machine `subject` lives at `subject/1`; others may be spawned. `sink` is always there. */
  readonly machines: (outside: Outside) => Machines;
  readonly input?: JsonValue;
  readonly story: readonly Step[];
  /** The state it ends in, and what its context holds then (at least). */
  readonly ends: JsonValue;
  readonly context?: Readonly<Record<string, JsonValue>>;
  /** The types of the events emitted, in order. */
  readonly emits?: readonly string[];
  /** What `sink/1` has been sent, in order. */
  readonly sent?: readonly JsonValue[];
  readonly status?: 'active' | 'done' | 'error';
  readonly output?: JsonValue;
  readonly deadLetters?: number;
}

const SINK = anyAddress('sink/1');

/** Remembers what it was sent. */
export const sinkMachine = setup({}).createMachine({
  id: 'sink',
  context: () => ({ got: [] }),
  on: {
    '*': {
      actions: assign({
        got: ({ context, event }) => {
          const { meta, ...message } = event;
          return [...context['got'], { ...message, from: meta.from }];
        },
      }),
    },
  },
});

type Effects = Readonly<Record<string, ReturnType<Outside['effect']>>>;
const remembering = (actors: Effects) =>
  setup({
    actors,
    actions: {
      ...durableActions,
      note: assign({ log: ({ context }, what: string) => [...context['log'], what] }),
    },
  });
const base = remembering({});
/** Writes a word into `context.log`. */
const note = (what: string) => ({ type: 'note', params: what }) as const;

const log = (): { log: string[] } => ({ log: [] });

export const FEATURES: readonly Feature[] = [
  {
    name: 'guards choose among transitions',
    machines: () => ({
      subject: base
        .extend({
          guards: {
            big: ({ event }) => event['n'] > 10,
            small: ({ event }) => event['n'] < 3,
            five: ({ event }) => event['n'] === 5,
          },
        })
        .createMachine({
          id: 'subject',
          context: log,
          on: {
            n: [
              { guard: 'big', actions: note('big') },
              {
                guard: and([not('big'), or(['small', 'five'])]),
                actions: note('small or five'),
              },
              { actions: note('other') },
            ],
          },
        }),
    }),
    story: [11, 2, 5, 7].map((n) => ({ send: 'n', with: { n } })),
    ends: {},
    context: { log: ['big', 'small or five', 'small or five', 'other'] },
  },
  {
    name: 'always goes on by itself',
    machines: () => ({
      subject: base.createMachine({
        id: 'subject',
        context: () => ({ n: 0 }),
        initial: 'counting',
        states: {
          counting: {
            on: { inc: { actions: assign({ n: ({ context }) => context['n'] + 1 }) } },
            always: { guard: ({ context }) => context['n'] >= 2, target: 'passing' },
          },
          passing: { always: 'full' },
          full: {},
        },
      }),
    }),
    story: [{ send: 'inc' }, { send: 'inc' }, { send: 'inc' }],
    ends: 'full',
    context: { n: 2 },
  },
  {
    name: 'raise now is part of the same turn',
    machines: () => ({
      subject: base.createMachine({
        id: 'subject',
        context: log,
        initial: 'a',
        states: {
          a: { on: { go: { target: 'b', actions: raise({ type: 'further' }) } } },
          b: { on: { further: { target: 'c', actions: note('raised') } } },
          c: {},
        },
      }),
    }),
    story: [{ send: 'go' }],
    ends: 'c',
    context: { log: ['raised'] },
  },
  {
    name: 'raise with a delay, and cancel',
    machines: () => ({
      subject: base.createMachine({
        id: 'subject',
        context: log,
        on: {
          set: { actions: raise({ type: 'rang' }, { delay: 100, id: 'alarm' }) },
          setOther: {
            actions: raise({ type: 'rangToo' }, { delay: ({ event }) => event['ms'] }),
          },
          cancel: { actions: cancel('alarm') },
          rang: { actions: note('rang') },
          rangToo: { actions: note('rang too') },
        },
      }),
    }),
    story: [
      { send: 'set' },
      { send: 'setOther', with: { ms: 250 } },
      { afterMs: 99 },
      { send: 'cancel' },
      { afterMs: 1 },
      { send: 'set' },
      { afterMs: 90 },
      // Set again under the same id: it starts anew.
      { send: 'set' },
      { afterMs: 60 },
      { send: 'unknown' },
      { afterMs: 40 },
    ],
    ends: {},
    context: { log: ['rang too', 'rang'] },
  },
  {
    name: 'after, numeric',
    machines: () => ({
      subject: base.createMachine({
        id: 'subject',
        context: log,
        initial: 'a',
        states: {
          a: {
            after: {
              100: { target: 'b', actions: note('100') },
              200: { actions: note('never') },
            },
          },
          b: { after: { 50: [{ guard: () => false, target: 'a' }, { target: 'c' }] } },
          c: {},
        },
      }),
    }),
    story: [{ afterMs: 99 }, { send: 'x' }, { afterMs: 1 }, { afterMs: 50 }, { afterMs: 500 }],
    ends: 'c',
    context: { log: ['100'] },
  },
  {
    name: 'after, named and computed',
    machines: () => ({
      subject: base
        .extend({ delays: { patience: ({ context }) => context['ms'] * 2, fixed: 30 } })
        .createMachine({
          id: 'subject',
          context: () => ({ ms: 10 }),
          initial: 'a',
          states: {
            a: {
              after: { patience: 'b' },
              on: { more: { target: 'a', reenter: true, actions: assign({ ms: 40 }) } },
            },
            b: { after: { fixed: 'c' } },
            c: {},
          },
        }),
    }),
    story: [{ afterMs: 19 }, { send: 'more' }, { afterMs: 79 }, { afterMs: 1 }, { afterMs: 30 }],
    ends: 'c',
    context: { ms: 40 },
  },
  {
    name: 'an invoked effect that is done',
    machines: (outside) => ({
      subject: remembering({ work: outside.effect('work') }).createMachine({
        id: 'subject',
        context: ({ input }) => ({ task: input, result: null }),
        initial: 'working',
        states: {
          working: {
            invoke: {
              src: 'work',
              id: 'w',
              input: ({ context }) => ({ task: context['task'] }),
              onDone: { target: 'done', actions: assign({ result: ({ event }) => event.output }) },
              onError: 'failed',
            },
          },
          done: {},
          failed: {},
        },
      }),
    }),
    input: 'paint',
    story: [{ send: 'x' }, { finish: 'work', output: { colour: 'red' } }],
    ends: 'done',
    context: { task: 'paint', result: { colour: 'red' } },
  },
  {
    name: 'an invoked effect that fails',
    machines: (outside) => ({
      subject: remembering({ work: outside.effect('work') }).createMachine({
        id: 'subject',
        context: () => ({ reason: null }),
        initial: 'working',
        states: {
          working: {
            invoke: {
              src: 'work',
              id: 'w',
              onDone: 'done',
              onError: {
                target: 'failed',
                actions: assign({
                  reason: ({ event }) => (event.error as { message: string }).message,
                }),
              },
            },
          },
          done: {},
          failed: {},
        },
      }),
    }),
    story: [{ send: 'x' }, { fail: 'work', message: 'no paint' }],
    ends: 'failed',
    context: { reason: 'no paint' },
  },
  {
    name: 'an effect whose failure nobody handles ends the actor',
    machines: (outside) => ({
      subject: remembering({ work: outside.effect('work') }).createMachine({
        id: 'subject',
        initial: 'working',
        states: { working: { invoke: { src: 'work', id: 'w', onDone: 'done' } }, done: {} },
      }),
    }),
    story: [{ fail: 'work', message: 'no paint' }],
    ends: 'working',
    status: 'error',
  },
  {
    name: 'an effect is aborted when its state is left, and its late result dropped',
    machines: (outside) => ({
      subject: remembering({ work: outside.effect('work', { deaf: true }) }).createMachine({
        id: 'subject',
        context: log,
        initial: 'working',
        states: {
          working: {
            invoke: { src: 'work', id: 'w', onDone: { target: 'done', actions: note('done') } },
            on: { leave: 'away' },
          },
          away: { on: { 'xstate.done.actor.w': { actions: note('late') } } },
          done: {},
        },
      }),
    }),
    story: [{ send: 'leave' }, { finish: 'work', output: 1 }, { afterMs: 10_000 }],
    ends: 'away',
    context: { log: [] },
  },
  {
    name: 'parallel regions with an effect each, and onDone of the whole',
    machines: (outside) => ({
      subject: remembering({
        left: outside.effect('left'),
        right: outside.effect('right'),
      }).createMachine({
        id: 'subject',
        context: log,
        initial: 'both',
        states: {
          both: {
            type: 'parallel',
            states: {
              left: {
                initial: 'busy',
                states: {
                  busy: {
                    invoke: {
                      src: 'left',
                      id: 'l',
                      onDone: { target: 'ready', actions: note('left') },
                    },
                  },
                  ready: { type: 'final' },
                },
              },
              right: {
                initial: 'busy',
                states: {
                  busy: {
                    invoke: {
                      src: 'right',
                      id: 'r',
                      onDone: { target: 'ready', actions: note('right') },
                    },
                  },
                  ready: { type: 'final' },
                },
              },
            },
            onDone: { target: 'together', actions: note('both') },
          },
          together: {},
        },
      }),
    }),
    story: [{ finish: 'right', output: null }, { send: 'x' }, { finish: 'left', output: null }],
    ends: 'together',
    context: { log: ['right', 'left', 'both'] },
  },
  {
    name: 'shallow history',
    machines: () => ({ subject: historyMachine('shallow') }),
    story: [
      { send: 'deeper' },
      { send: 'deepest' },
      { send: 'pause' },
      { send: 'x' },
      { send: 'back' },
    ],
    ends: { on: { two: 'a' } },
  },
  {
    name: 'deep history',
    machines: () => ({ subject: historyMachine('deep') }),
    story: [
      { send: 'deeper' },
      { send: 'deepest' },
      { send: 'pause' },
      { send: 'x' },
      { send: 'back' },
    ],
    ends: { on: { two: 'b' } },
  },
  {
    name: 're-entry arms timers anew, and stops and starts an effect of the same id',
    machines: (outside) => ({
      subject: remembering({ work: outside.effect('work') }).createMachine({
        id: 'subject',
        context: () => ({ log: [], result: null }),
        initial: 'a',
        states: {
          a: {
            entry: note('in'),
            exit: note('out'),
            after: { 100: 'late' },
            invoke: {
              src: 'work',
              id: 'w',
              onDone: { target: 'done', actions: assign({ result: ({ event }) => event.output }) },
            },
            on: { again: { target: 'a', reenter: true } },
          },
          late: {},
          done: {},
        },
      }),
    }),
    story: [
      { afterMs: 60 },
      { send: 'again' },
      { afterMs: 60 },
      { send: 'again' },
      { afterMs: 60 },
      { finish: 'work', output: 'third' },
      { afterMs: 500 },
    ],
    ends: 'done',
    context: { log: ['in', 'out', 'in', 'out', 'in', 'out'], result: 'third' },
  },
  {
    name: 'a final state ends the actor with an output',
    machines: () => ({
      subject: base.createMachine({
        id: 'subject',
        context: () => ({ n: 3 }),
        initial: 'a',
        output: ({ context }) => ({ total: context['n'] * 2 }),
        states: { a: { after: { 100: 'b' }, on: { end: 'b' } }, b: { type: 'final' } },
      }),
    }),
    story: [{ send: 'x' }, { send: 'end' }, { send: 'x' }, { afterMs: 200 }],
    ends: 'b',
    status: 'done',
    output: { total: 6 },
  },
  {
    name: 'the end of an inner state is an event of the outer one',
    machines: () => ({
      subject: base.createMachine({
        id: 'subject',
        context: log,
        initial: 'phase',
        states: {
          phase: {
            initial: 'one',
            states: { one: { on: { next: 'two' } }, two: { type: 'final', output: 'both' } },
            onDone: {
              target: 'after',
              actions: assign({ log: ({ event }) => [String(event.output)] }),
            },
          },
          after: {},
        },
      }),
    }),
    story: [{ send: 'next' }],
    ends: 'after',
    context: { log: ['both'] },
  },
  {
    name: 'enqueueActions decides what is done',
    machines: () => ({
      subject: base
        .extend({ guards: { loud: ({ event }) => event['loud'] === true } })
        .createMachine({
          id: 'subject',
          context: log,
          on: {
            say: {
              actions: enqueueActions(({ context, event, enqueue, check }) => {
                if (check('loud')) enqueue(note('shout'));
                else enqueue.assign({ log: [...context['log'], 'whisper'] });
                enqueue({
                  type: 'send',
                  params: { to: SINK, message: { type: 'said', words: event['words'] } },
                });
                enqueue.raise({ type: 'echo' }, { delay: 10 });
              }),
            },
            echo: { actions: note('echo') },
          },
        }),
    }),
    story: [
      { send: 'say', with: { loud: true, words: 'hey' } },
      { send: 'say', with: { words: 'psst' } },
      { afterMs: 10 },
    ],
    ends: {},
    context: { log: ['shout', 'whisper', 'echo', 'echo'] },
    sent: [
      { type: 'said', words: 'hey', from: 'subject/1' },
      { type: 'said', words: 'psst', from: 'subject/1' },
    ],
  },
  {
    name: 'emit tells observers',
    machines: () => ({
      subject: base.createMachine({
        id: 'subject',
        context: () => ({ n: 0 }),
        entry: emit({ type: 'born' }),
        on: {
          inc: {
            actions: [
              assign({ n: ({ context }) => context['n'] + 1 }),
              emit(({ context }) => ({ type: `counted-${context['n']}`, n: context['n'] })),
            ],
          },
        },
      }),
    }),
    story: [{ send: 'inc' }, { send: 'inc' }],
    ends: {},
    emits: ['born', 'counted-1', 'counted-2'],
  },
  {
    name: 'tags and stateIn',
    machines: () => ({
      subject: base.extend({ guards: { lit: stateIn({ light: 'on' }) } }).createMachine({
        id: 'subject',
        type: 'parallel',
        context: log,
        states: {
          light: {
            initial: 'off',
            states: {
              off: { tags: 'dark', on: { switch: 'on' } },
              on: { tags: ['bright', 'warm'], on: { switch: 'off' } },
            },
          },
          eye: {
            on: {
              look: [{ guard: 'lit', actions: note('seen') }, { actions: note('black') }],
            },
          },
        },
      }),
    }),
    story: [{ send: 'look' }, { send: 'switch' }, { send: 'look' }],
    ends: { light: 'on', eye: {} },
    context: { log: ['black', 'seen'] },
  },
  {
    name: 'sendTo oneself, now and later',
    machines: () => ({
      subject: base.createMachine({
        id: 'subject',
        context: log,
        on: {
          go: {
            actions: [
              sendTo(({ self }) => self, { type: 'later' }, { delay: 20 }),
              sendTo(({ self }) => self, { type: 'now' }),
              note('go'),
            ],
          },
          now: { actions: note('now') },
          later: { actions: note('later') },
        },
      }),
    }),
    story: [{ send: 'go' }, { afterMs: 20 }],
    ends: {},
    context: { log: ['go', 'now', 'later'] },
  },
  {
    name: 'sendParent, now and later',
    machines: () => ({
      subject: base.createMachine({
        id: 'subject',
        context: log,
        on: {
          start: {
            actions: {
              type: 'spawn',
              params: { address: 'child/1', machine: 'child', input: { name: 'c' } },
            },
          },
          hello: {
            actions: assign({ log: ({ context, event }) => [...context['log'], event['name']] }),
          },
          bye: { actions: note('bye') },
          kick: {
            actions: {
              type: 'send',
              params: { to: anyAddress('child/1'), message: { type: 'kick' } },
            },
          },
        },
      }),
      child: base.createMachine({
        id: 'child',
        context: ({ input }) => ({ name: (input as { name: string }).name }),
        entry: sendParent(({ context }) => ({ type: 'hello', name: context['name'] })),
        on: {
          kick: { actions: sendParent({ type: 'bye' }, { delay: 30 }) },
        },
      }),
    }),
    story: [{ send: 'start' }, { send: 'kick' }, { afterMs: 29 }, { afterMs: 1 }],
    ends: {},
    context: { log: ['c', 'bye'] },
  },
  {
    name: 'wildcards',
    machines: () => ({
      subject: base.createMachine({
        id: 'subject',
        context: log,
        on: {
          'mouse.*': { actions: note('mouse') },
          '*': { actions: note('anything') },
        },
      }),
    }),
    story: [{ send: 'mouse.click.left' }, { send: 'key' }],
    ends: {},
    context: { log: ['mouse', 'anything'] },
  },
  {
    name: 'a guard that throws makes a dead letter, and the actor lives on',
    machines: () => ({
      subject: base
        .extend({
          guards: {
            broken: () => {
              throw new Error('the guard is broken');
            },
          },
        })
        .createMachine({
          id: 'subject',
          context: log,
          on: {
            fine: { actions: note('fine') },
            bad: { guard: 'broken', actions: note('never') },
            worse: {
              actions: [
                note('never'),
                assign(() => {
                  throw new Error('the assign is broken');
                }),
              ],
            },
          },
        }),
    }),
    story: [{ send: 'fine' }, { send: 'bad' }, { send: 'worse' }, { send: 'fine' }],
    ends: {},
    context: { log: ['fine', 'fine'] },
    deadLetters: 2,
  },
  {
    name: 'effects spawned and stopped by name',
    machines: (outside) => ({
      subject: remembering({ work: outside.effect('work') }).createMachine({
        id: 'subject',
        context: log,
        on: {
          start: {
            actions: spawnChild('work', {
              id: ({ event }) => event['id'],
              input: ({ event }: { event: AnyEventObject }) => event['id'],
            }),
          },
          stop: { actions: stopChild(({ event }) => event['id']) },
          'xstate.done.actor.*': {
            actions: [
              assign({
                log: ({ context, event }) => [
                  ...context['log'],
                  `${event['actorId']}: ${event['output']}`,
                ],
              }),
              stopChild(({ event }) => event['actorId']),
            ],
          },
        },
      }),
    }),
    story: [
      { send: 'start', with: { id: 'one' } },
      { send: 'start', with: { id: 'two' } },
      { send: 'stop', with: { id: 'two' } },
      { send: 'start', with: { id: 'three' } },
      { finish: 'work', output: 'fin' },
    ],
    ends: {},
    context: { log: ['three: fin'] },
  },
  {
    name: 'messages, requests and replies between actors',
    machines: () => ({
      subject: base.createMachine({
        id: 'subject',
        context: log,
        on: {
          start: {
            actions: [
              { type: 'spawn', params: { address: 'oracle/1', machine: 'oracle' } },
              { type: 'send', params: { to: SINK, message: { type: 'started' }, delayMs: 40 } },
            ],
          },
          ask: {
            actions: {
              type: 'request',
              params: ({ event }) => ({
                to: anyAddress('oracle/1'),
                message: { type: 'question', about: event['about'] },
                timeoutMs: 50,
                id: event['about'],
              }),
            },
          },
          forget: {
            actions: { type: 'cancelRequest', params: ({ event }) => ({ id: event['about'] }) },
          },
          'question:ok': {
            actions: assign({
              log: ({ context, event }) => [
                ...context['log'],
                `${event['meta'].request} → ${event['reply']}`,
              ],
            }),
          },
          'question:err': {
            actions: assign({
              log: ({ context, event }) => [
                ...context['log'],
                `${event['meta'].request} → ${event['failure'].code}`,
              ],
            }),
          },
        },
      }),
      oracle: base.createMachine({
        id: 'oracle',
        on: {
          question: [
            { guard: ({ event }) => ['death', 'taxes'].includes(event['about']) },
            {
              guard: ({ event }) => event['about'] === 'war',
              actions: {
                type: 'reply',
                params: ({ event }) => ({
                  to: replyTo(event['meta']),
                  type: 'question',
                  failure: { code: 'forbidden', message: 'not that', retryable: false },
                }),
              },
            },
            {
              actions: {
                type: 'reply',
                params: ({ event }) => ({
                  to: replyTo(event['meta']),
                  type: 'question',
                  reply: `all about ${event['about']}`,
                }),
              },
            },
          ],
        },
      }),
    }),
    story: [
      { send: 'start' },
      { send: 'ask', with: { about: 'love' } },
      { send: 'ask', with: { about: 'war' } },
      { send: 'ask', with: { about: 'death' } },
      { send: 'ask', with: { about: 'taxes' } },
      { send: 'forget', with: { about: 'taxes' } },
      { afterMs: 100 },
    ],
    ends: {},
    context: { log: ['love → all about love', 'war → forbidden', 'death → timeout'] },
    sent: [{ type: 'started', from: 'subject/1' }],
  },
  {
    name: 'entry and exit actions, from the outside in and from the inside out',
    machines: () => ({
      subject: base.createMachine({
        id: 'subject',
        context: log,
        entry: note('in root'),
        initial: 'a',
        states: {
          a: {
            entry: note('in a'),
            exit: note('out a'),
            initial: 'b',
            states: { b: { entry: note('in b'), exit: note('out b') } },
            on: { go: 'c' },
          },
          c: { entry: note('in c') },
        },
      }),
    }),
    story: [{ send: 'go' }],
    ends: 'c',
    context: { log: ['in root', 'in a', 'in b', 'out b', 'out a', 'in c'] },
  },
  {
    name: 'an effect started and stopped within one turn never runs',
    machines: (outside) => ({
      subject: remembering({ work: outside.effect('work') }).createMachine({
        id: 'subject',
        context: log,
        initial: 'idle',
        states: {
          idle: { on: { go: 'flicker' } },
          flicker: {
            invoke: { src: 'work', id: 'w', onDone: { actions: note('never') } },
            always: 'rest',
          },
          rest: {},
        },
      }),
    }),
    story: [{ send: 'go' }, { send: 'x' }],
    ends: 'rest',
    context: { log: [] },
  },
];

function historyMachine(history: 'shallow' | 'deep') {
  return base.createMachine({
    id: 'subject',
    initial: 'on',
    states: {
      on: {
        initial: 'one',
        states: {
          one: { on: { deeper: 'two' } },
          two: { initial: 'a', states: { a: { on: { deepest: 'b' } }, b: {} } },
          memory: { type: 'history', history },
        },
        on: { pause: 'paused' },
      },
      paused: { on: { back: 'on.memory' } },
    },
  });
}
