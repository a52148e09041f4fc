import { test as property } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type AgentContext, agentMachine } from '../../src/machines/agent-machine.ts';
import { breakerMachine } from '../../src/machines/breaker-machine.ts';
import type { ReplyParams } from '../../src/protocol/commands.ts';
import type { Meta } from '../../src/protocol/message.ts';
import { Driven, type Fact, type Moment, START, type Step, stateOf } from './driven.ts';

const machine = new Driven(breakerMachine, 'breaker/model/large');
const SETTINGS = { failures: 3, openMs: 100, successes: 2 };

interface Answer {
  readonly admitted: boolean;
  readonly state: string;
  readonly permit: number | null;
  readonly retryAfterMs: number;
}
const answerOf = ({ actions }: Step): Answer => {
  const [reply] = actions.flatMap((action) =>
    action.kind === 'command' && action.command === 'reply' ? [action.params as ReplyParams] : [],
  );
  return (reply as unknown as { reply: Answer }).reply;
};

/** What Release It! says, in twenty lines: the machine must agree with it about every call. */
class Model {
  state: 'closed' | 'open' | 'halfOpen' = 'closed';
  failures = 0;
  successes = 0;
  openUntil = 0;
  probe: { readonly call: number; readonly until: number } | undefined;

  admits(call: number, now: number): boolean {
    if (this.state === 'closed') return true;
    if (this.state === 'open' || (this.probe !== undefined && now < this.probe.until)) return false;
    this.probe = { call, until: now + SETTINGS.openMs };
    return true;
  }

  records(call: number, ok: boolean, asProbe: boolean, now: number): void {
    if (this.state === 'closed') {
      this.failures = ok ? 0 : this.failures + 1;
      if (this.failures === SETTINGS.failures) this.open(now);
    } else if (this.state === 'halfOpen' && asProbe && this.probe?.call === call) {
      this.probe = undefined;
      if (!ok) this.open(now);
      else if (++this.successes === SETTINGS.successes) this.close();
    }
  }

  cool(): void {
    this.state = 'halfOpen';
    this.successes = 0;
    this.probe = undefined;
  }

  open(now: number): void {
    this.state = 'open';
    this.openUntil = now + SETTINGS.openMs;
  }

  close(): void {
    this.state = 'closed';
    this.failures = 0;
  }
}

const step = fc.oneof(
  { weight: 4, arbitrary: fc.constant({ do: 'ask' } as const) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('end' as const),
      which: fc.nat(20),
      ok: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.nat(150) }) },
  { weight: 1, arbitrary: fc.constant({ do: 'reset' } as const) },
);

describe('a breaker that is asked', () => {
  property.prop([fc.array(step, { maxLength: 60 })])(
    'admits the calls that the model admits: half open, one at a time',
    (steps) => {
      const model = new Model();
      let now = START;
      let calls = 0;
      let underWay: { readonly call: number; readonly permit: number; asProbe: boolean }[] = [];
      let moment: Moment = machine.begin({ agent: null, ...SETTINGS });
      const take = (fact: Fact): Step => {
        const meta: Partial<Meta> = { at: now, correlation: 'app!1', attempt: 1 };
        const next = machine.take(moment, fact, meta);
        moment = next;
        return next;
      };
      for (const one of steps) {
        switch (one.do) {
          case 'ask': {
            const call = ++calls;
            const isProbe = model.state === 'halfOpen';
            const admitted = model.admits(call, now);
            const answer = answerOf(take({ type: 'breaker.admit' }));
            expect(answer).toMatchObject({ admitted, state: model.state });
            if (model.state === 'open') expect(answer.retryAfterMs).toBe(model.openUntil - now);
            if (admitted) {
              underWay.push({ call, permit: answer.permit as number, asProbe: isProbe });
            }
            break;
          }
          case 'end': {
            const call = underWay[one.which % Math.max(1, underWay.length)];
            if (call === undefined) break;
            underWay = underWay.filter((other) => other !== call);
            model.records(call.call, one.ok, call.asProbe, now);
            const outcome = one.ok ? 'success' : 'failure';
            take({ type: 'breaker.record', outcome, permit: call.permit });
            break;
          }
          case 'wait':
            now += one.ms;
            // As the host does it: the timer first, then what comes after.
            if (model.state === 'open' && now >= model.openUntil) {
              model.cool();
              take({ type: 'xstate.after.cooling.breaker.open' });
            }
            break;
          case 'reset':
            model.close();
            take({ type: 'breaker.reset', by: 'ada' });
            break;
        }
        expect(stateOf(moment)).toBe(model.state);
      }
    },
  );

  test('a success while all is well leaves no checkpoint', () => {
    const closed = machine.begin({ agent: null });
    const next = machine.take(closed, { type: 'breaker.record', outcome: 'success', permit: 0 });
    expect(next.snapshot.context).toBe(closed.snapshot.context);
    expect(machine.take(next, { type: 'breaker.admit' }).snapshot.context).toBe(
      closed.snapshot.context,
    );
  });

  test('one that was stored by an earlier Troupe opens and lets a probe through', () => {
    const { snapshot } = machine.begin({ agent: 'writer', ...SETTINGS });
    const context = { ...(snapshot.context as Record<string, unknown>) };
    delete context['probe'];
    let moment: Moment = {
      ...machine.begin({ agent: 'writer', ...SETTINGS }),
      snapshot: { ...snapshot, context } as never,
    };
    for (let i = 0; i < 3; i++) {
      moment = machine.take(moment, { type: 'breaker.record', outcome: 'failure' });
    }
    moment = machine.take(moment, { type: 'xstate.after.cooling.breaker.open' });
    const first = machine.take(moment, { type: 'breaker.admit' }, { correlation: 'c', attempt: 1 });
    expect(answerOf(first).admitted).toBe(true);
  });
});

describe('an agent whose breaker is half open', () => {
  const agent = new Driven(agentMachine, 'agent/writer');
  const context = (moment: Moment) => moment.snapshot.context as unknown as AgentContext;
  const facts = fc.array(
    fc.oneof(
      fc.record({ do: fc.constant('work' as const), task: fc.nat(9) }),
      fc.record({ do: fc.constant('end' as const), which: fc.nat(9), ok: fc.boolean() }),
      fc.record({ do: fc.constant('cancel' as const), which: fc.nat(9) }),
      fc.record({
        do: fc.constant('breaker' as const),
        state: fc.constantFrom('closed', 'open', 'halfOpen'),
      }),
    ),
    { maxLength: 60 },
  );
  property.prop([facts])('begins one thing at a time, and only that counts', (all) => {
    let moment: Moment = agent.begin({ name: 'writer', concurrency: 3 });
    let probe: string | undefined;
    for (const fact of all) {
      const { breaker, pool } = context(moment);
      const job =
        fact.do === 'work' || fact.do === 'breaker' ? undefined : pool.running[fact.which];
      let taken: Step;
      if (fact.do === 'work') {
        const task = `task/r/${fact.task}`;
        const work = { type: 'agent.work', task, run: 'r', id: 'x', attempt: 1 };
        taken = agent.take(moment, work, { from: task as never, correlation: task, attempt: 1 });
      } else if (fact.do === 'breaker') {
        taken = agent.take(moment, { type: 'agent.breaker', state: fact.state });
      } else if (job === undefined) continue;
      else if (fact.do === 'cancel') {
        taken = agent.take(moment, {
          type: 'request.cancelled',
          request: 'agent.work',
          correlation: job.replyTo?.correlation,
          attempt: 1,
        });
        expect(taken.actions).toContainEqual({ kind: 'stopEffect', id: job.id });
      } else {
        taken = agent.take(
          moment,
          fact.ok
            ? {
                type: `xstate.done.actor.${job.id}`,
                actorId: job.id,
                output: { outcome: 'submitted' },
              }
            : {
                type: `xstate.error.actor.${job.id}`,
                actorId: job.id,
                error: { code: 'unavailable', message: 'away', retryable: true },
              },
        );
        const records = taken.actions.filter(
          (action) => action.kind === 'command' && action.command === 'send',
        );
        expect(records).toHaveLength(breaker === 'halfOpen' && job.id !== probe ? 0 : 1);
      }
      const begun = taken.actions.filter(({ kind }) => kind === 'startEffect').length;
      moment = taken;
      const now = context(moment);
      if (now.breaker === 'open') expect(begun).toBe(0);
      if (now.breaker === 'halfOpen') {
        expect(begun).toBeLessThanOrEqual(1);
        // A new one only when the one before is over.
        if (begun === 1) {
          if (probe !== undefined && breaker === 'halfOpen') {
            expect(now.pool.running.map(({ id }) => id)).not.toContain(probe);
          }
          probe = now.pool.running.at(-1)?.id;
        }
      } else probe = undefined;
    }
  });
});
