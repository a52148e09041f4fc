import { assign, fromPromise, setup } from 'xstate';
import { type SuperviseOptions, supervisorInput } from '../../src/actors/supervisor.ts';
import { overseerMachine } from '../../src/machines/overseer-machine.ts';
import { supervisorMachine } from '../../src/machines/supervisor-machine.ts';
import type { Address } from '../../src/protocol/address.ts';
import { anyAddress, durableActions } from '../../src/protocol/commands.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import { replyTo } from '../../src/protocol/message.ts';
import type { ChildStatus } from '../../src/protocol/supervision.ts';
import { puppetMachine } from './machines.ts';
import type { Outside } from './world.ts';
import { type Machines, World } from './world.ts';

/**
 * A child that does as it is told: counts, fails by an effect that nobody handles, throws, comes to its end, waits. It
 * says good-bye when it is asked to stop, unless its input says that it is `deaf` to that or `slow` (it never gets there).
 */
function workerMachine(outside: Outside) {
  return setup({
    actors: {
      breaks: fromPromise<JsonValue, JsonValue>(() => Promise.reject(new Error('it broke'))),
      work: outside.effect('work'),
    },
    actions: durableActions,
    guards: {
      isSlow: ({ context }) => context['input']?.manner === 'slow',
      isDeaf: ({ context }) => context['input']?.manner === 'deaf',
    },
  }).createMachine({
    id: 'worker',
    context: ({ input }) => {
      if ((input as { manner?: string } | null)?.manner === 'stillborn')
        throw new Error('cannot be born');
      return { n: 0, rang: 0, timeouts: 0, input: input ?? null };
    },
    initial: 'idle',
    on: {
      inc: { actions: assign({ n: ({ context }) => context['n'] + 1 }) },
      count: {
        actions: {
          type: 'reply',
          params: ({ context, event }) => ({
            to: replyTo(event['meta']),
            type: 'count',
            reply: context['n'],
          }),
        },
      },
      ring: { actions: assign({ rang: ({ context }) => context['rang'] + 1 }) },
      ask: {
        actions: {
          type: 'request',
          params: { to: anyAddress('wall/1'), message: { type: 'hello' }, timeoutMs: 5_000 },
        },
      },
      'hello:err': { actions: assign({ timeouts: ({ context }) => context['timeouts'] + 1 }) },
      throw: {
        actions: assign(() => {
          throw new Error('told to throw');
        }),
      },
      fail: '.breaking',
      finish: '.finished',
      wait: '.waiting',
      work: '.working',
      'actor.stop': [
        { guard: 'isDeaf' },
        { guard: 'isSlow', target: '.leaving' },
        { target: '.finished' },
      ],
    },
    states: {
      idle: {},
      waiting: { after: { 60000: { target: 'idle', actions: assign({ rang: 99 }) } } },
      working: { invoke: { src: 'work', id: 'work', input: null, onDone: 'idle' } },
      breaking: { invoke: { src: 'breaks', id: 'breaks', input: null } },
      leaving: {},
      finished: { type: 'final' },
    },
  });
}

/** Answers nobody. */
const wallMachine = setup({}).createMachine({ id: 'wall', on: { hello: {} } });

export class SupervisedWorld extends World {
  constructor(outside: Outside, options: ConstructorParameters<typeof World>[1] = {}) {
    super(machinesOf(outside), options);
  }

  async supervise(id: string, options: SuperviseOptions): Promise<void> {
    const place = { overseer: 'main', parent: null };
    const input = supervisorInput(id, options, () => undefined, place);
    await this.create([input.address as Address, 'supervisor', input as unknown as JsonValue]);
    await this.settle();
  }

  children(id: string): readonly ChildStatus[] {
    return this.context(`supervisor/${id}`)['children'] as unknown as readonly ChildStatus[];
  }

  /** `a running 1, b delayed 2`: each child with its state and its lives. */
  line(id: string): string {
    return this.children(id)
      .map((child) => `${child.id.replace(/^.*\//, '')} ${child.state} ${child.lives}`)
      .join(', ');
  }

  /** How many timers and effects of it are stored. */
  pending(address: string): { readonly timers: number; readonly effects: number } {
    return {
      timers: this.data.timers.get(address)?.size ?? 0,
      effects: this.data.effects.get(address)?.size ?? 0,
    };
  }

  /** What the lives of an actor began with, as its checkpoints have kept it. */
  lives(address: string): readonly number[] {
    return (this.data.checkpoints.get(address) ?? []).flatMap(({ detailsJson }) => {
      const details = JSON.parse(detailsJson ?? '{}') as { life?: number };
      return details.life === undefined ? [] : [details.life];
    });
  }
}

export const machinesOf = (outside: Outside): Machines => ({
  supervisor: { machine: supervisorMachine, supervises: true },
  overseer: overseerMachine,
  worker: workerMachine(outside),
  wall: wallMachine,
  puppet: puppetMachine,
});
