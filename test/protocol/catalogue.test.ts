import { describe, expect, expectTypeOf, test } from 'vitest';
import { setup } from 'xstate';
import {
  type Address,
  agentAddress,
  gatekeeperAddress,
  runAddress,
  taskAddress,
} from '../../src/protocol/address.ts';
import {
  type Answer,
  type CommandTo,
  checkAgainstCatalogue,
  DECISIONS,
  type Inbound,
  type MessageOf,
  type OverseerAnswer,
  type ReplyTypeOf,
  type RequestType,
  type TaskState,
  type WorkOutcome,
} from '../../src/protocol/catalogue.ts';
import {
  type AcceptedBy,
  anyAddress,
  durableActions,
  type RequestParams,
  type SendParams,
} from '../../src/protocol/commands.ts';
import { type Failure, ValidationError } from '../../src/protocol/errors.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import type { Message, Meta } from '../../src/protocol/message.ts';
import type { Verdict } from '../../src/protocol/verdict.ts';

/** `send` as the app sees it: what an address accepts is known from its kind. */
declare function send<A extends Address>(to: A, message: AcceptedBy<A>): void;
/** Only compiled: the checker is tsc. */
const compiled = (_: () => void): void => undefined;

describe('the types of the catalogue', () => {
  test('a message fits its receiver, or it does not compile', () => {
    compiled(() => {
      send(taskAddress('r', 't'), { type: 'task.pause', by: 'cli' });
      send(agentAddress('a'), { type: 'agent.configure', concurrency: 2 });
      send(runAddress('r'), { type: 'run.cancel', by: 'cli', reason: 'enough' });
      send(taskAddress('r', 't'), { type: 'task.enable' });
      // A kind of the app's own takes anything.
      send('inbox/ada', { type: 'inbox.add', text: 'hello' });

      // @ts-expect-error a field is missing
      send(taskAddress('r', 't'), { type: 'task.pause' });
      // @ts-expect-error a field has the wrong type
      send(agentAddress('a'), { type: 'agent.configure', concurrency: 'two' });
      // @ts-expect-error no such message
      send(taskAddress('r', 't'), { type: 'task.explode' });
      // @ts-expect-error a message to somebody else
      send(agentAddress('a'), { type: 'task.pause', by: 'cli' });
      // @ts-expect-error not one of the decisions
      send(taskAddress('r', 't'), { type: 'task.decide', decision: 'explode', by: 'cli' });
      // @ts-expect-error a field nobody knows
      send(taskAddress('r', 't'), { type: 'task.enable', hard: true });
      // @ts-expect-error not an address
      send('nowhere', { type: 'x' });
      // @ts-expect-error not JSON
      send('inbox/ada', { type: 'inbox.add', when: new Date() });
    });
  });

  test('what a machine sends or asks is checked as well', () => {
    const machine = setup({ actions: { ...durableActions } });
    compiled(() => {
      machine.createMachine({
        entry: [
          {
            type: 'send',
            params: { to: agentAddress('a'), message: { type: 'agent.configure', concurrency: 1 } },
          },
          {
            type: 'request',
            params: {
              to: taskAddress('r', 't'),
              message: { type: 'task.claim' },
              timeoutMs: 100,
            },
          },
          { type: 'send', params: { to: anyAddress('inbox/ada'), message: { type: 'anything' } } },
        ],
      });
    });
    expectTypeOf<{
      to: Address<'agent'>;
      message: { type: 'agent.configure'; concurrency: number };
    }>().toExtend<SendParams>();
    expectTypeOf<{
      to: Address<'agent'>;
      message: { type: 'task.claim' };
    }>().not.toExtend<SendParams>();
    expectTypeOf<{
      to: Address<'task'>;
      message: { type: 'task.claim' };
    }>().not.toExtend<RequestParams>();
    expectTypeOf<{
      to: Address<'task'>;
      message: { type: 'task.claim' };
      timeoutMs: number;
    }>().toExtend<RequestParams>();
  });

  test('a request has the type of its answer; a message that is none has no answer', () => {
    expectTypeOf<ReplyTypeOf<'agent.work'>>().toEqualTypeOf<WorkOutcome>();
    expectTypeOf<ReplyTypeOf<'gatekeeper.verify'>>().toEqualTypeOf<Verdict>();
    expectTypeOf<ReplyTypeOf<'overseer.escalate'>>().toEqualTypeOf<OverseerAnswer>();
    expectTypeOf<ReplyTypeOf<'task.claim'>>().toExtend<{ state: TaskState }>();
    expectTypeOf<ReplyTypeOf<'inbox.add'>>().toEqualTypeOf<JsonValue>();
    expectTypeOf<'agent.work'>().toExtend<RequestType>();
    expectTypeOf<'agent.cancel'>().not.toExtend<RequestType>();
    expectTypeOf<
      Extract<Answer<'agent.work'>, { type: 'agent.work:ok' }>['reply']
    >().toEqualTypeOf<WorkOutcome>();
    expectTypeOf<
      Extract<Answer<'agent.work'>, { type: 'agent.work:err' }>['failure']
    >().toEqualTypeOf<Failure>();
    compiled(() => {
      // @ts-expect-error not a request
      type _None = Answer<'agent.cancel'>;
      // @ts-expect-error not one of the outcomes
      const _wrong: ReplyTypeOf<'agent.work'> = { outcome: 'done' };
    });
  });

  test('what a machine receives carries its meta', () => {
    expectTypeOf<Inbound<'breaker'>['type']>().toEqualTypeOf<
      'breaker.record' | 'breaker.reset' | 'breaker.admit' | 'breaker.configure'
    >();
    expectTypeOf<Inbound<'breaker'>['meta']>().toEqualTypeOf<Meta>();
    expectTypeOf<CommandTo<'breaker'>['type']>().toEqualTypeOf<
      'breaker.record' | 'breaker.reset' | 'breaker.admit' | 'breaker.configure'
    >();
    expectTypeOf<MessageOf<'breaker.record'>['outcome']>().toEqualTypeOf<'success' | 'failure'>();
  });
});

describe('a message from outside', () => {
  const good: readonly (readonly [string, Message])[] = [
    ['run', { type: 'run.pause', by: 'cli' }],
    ['task', { type: 'task.enable' }],
    ['task', { type: 'task.unblock', by: 'cli', delayMs: 0 }],
    ['task', { type: 'task.unblock', by: 'cli' }],
    ['task', { type: 'task.answer', question: 'q', answer: { any: ['json'] }, by: 'ada' }],
    ['task', { type: 'task.answer', question: 'q', answer: null, by: 'ada' }],
    ['agent', { type: 'agent.cancel', task: 'task/r/t', attempt: 1 }],
    ['gatekeeper', { type: 'gatekeeper.configure', concurrency: 3 }],
    ['breaker', { type: 'breaker.reset', by: 'cli' }],
    ['inbox', { type: 'whatever', anything: 1 }],
    ...DECISIONS.map((decision) => ['task', { type: 'task.decide', decision, by: 'x' }] as const),
  ];
  test.each(good)('to %s: %o', (kind, message) => {
    expect(() => checkAgainstCatalogue(kind, message)).not.toThrow();
  });

  const bad: readonly (readonly [string, Message, string])[] = [
    [
      'task',
      { type: 'run.pause', by: 'cli' },
      'An actor of kind "task" does not accept "run.pause"; it accepts task.enable, ',
    ],
    ['agent', { type: 'nonsense' }, 'An actor of kind "agent" does not accept "nonsense"'],
    ['task', { type: 'task.pause' }, 'The message "task.pause" is malformed at "by"'],
    ['task', { type: 'task.pause', by: '' }, 'malformed at "by"'],
    ['task', { type: 'task.pause', by: 7 }, 'malformed at "by"'],
    ['task', { type: 'task.enable', more: 1 }, 'The message "task.enable" is malformed'],
    ['task', { type: 'task.decide', decision: 'explode', by: 'x' }, 'malformed at "decision"'],
    ['task', { type: 'task.unblock', by: 'x', delayMs: -1 }, 'malformed at "delayMs"'],
    ['task', { type: 'task.unblock', by: 'x', delayMs: 1.5 }, 'malformed at "delayMs"'],
    [
      'task',
      { type: 'task.answer', question: 'q', by: 'x' },
      'malformed at "answer": expected a JSON value',
    ],
    ['agent', { type: 'agent.configure', concurrency: 0 }, 'malformed at "concurrency"'],
    ['breaker', { type: 'breaker.record', outcome: 'maybe' }, 'malformed at "outcome"'],
    ['gatekeeper', { type: 'gatekeeper.verify', task: 't' }, 'malformed at '],
  ];
  test.each(bad)('to %s: %o is refused', (kind, message, says) => {
    expect(() => checkAgainstCatalogue(kind, message)).toThrow(says);
    expect(() => checkAgainstCatalogue(kind, message)).toThrow(ValidationError);
  });
});

test('addresses carry their kind', () => {
  expectTypeOf(taskAddress('r', 't')).toEqualTypeOf<Address<'task'>>();
  expectTypeOf(gatekeeperAddress('git')).toEqualTypeOf<Address<'gatekeeper'>>();
});
