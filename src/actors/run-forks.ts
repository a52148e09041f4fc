import { forkedInput, forkedRun, forkedTask, forkedToken } from '../machines/forks.ts';
import type { RunContext } from '../machines/run-machine.ts';
import { type Address, kindOf, runAddress, taskAddress } from '../protocol/address.ts';
import { deepHash } from '../protocol/hash.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Envelope } from '../protocol/message.ts';
import type { TimerAction } from '../runtime/durable-timers.ts';
import type { Pending } from '../runtime/pending.ts';
import type { Journey, Sent } from '../runtime/time-travel.ts';
import {
  contextOf,
  isTask,
  type LoadedCut,
  pendingOf,
  putBack,
  rewinds,
  snapshotOf,
} from './cuts.ts';

/*
 * A run as a copy of another one at a cut: everything in it that says which run it is says the new one.
 */

export function movedAddress(address: string, from: string, to: string): Address {
  if (address === runAddress(from)) return runAddress(to);
  const prefix = `task/${from}/`;
  return address.startsWith(prefix)
    ? taskAddress(to, address.slice(prefix.length))
    : (address as Address);
}

/** A correlation begins with the address of who has asked. */
function movedCorrelation(correlation: string, map: (address: string) => Address): string {
  const end = correlation.indexOf('!');
  return map(correlation.slice(0, end)) + correlation.slice(end);
}

export function forked(
  loaded: LoadedCut,
  as: string,
  map: (address: string) => Address,
  at: number,
): Journey {
  const { stored, members } = loaded;
  const { cut } = stored;
  const isMember = (address: string): boolean => members.has(address);
  const pending = pendingOf(stored, at, isMember);
  const tasks = [...members].filter(([address]) => isTask(address));
  const specs = tasks
    .map(([, checkpoint]) => ({ ...contextOf(snapshotOf(checkpoint)).spec, run: as }))
    .sort((a, b) => a.position - b.position);
  const fork = {
    run: as,
    createdAt: at,
    specHash: deepHash(specs as unknown as JsonValue),
    cut: cut.id,
  };
  return {
    forks: [...members].map(([address, checkpoint]) => {
      const snapshot = snapshotOf(checkpoint);
      const context = isTask(address)
        ? forkedTask(contextOf(snapshot), as)
        : forkedRun(snapshot.context as unknown as RunContext, fork);
      return {
        address: map(address),
        machine: kindOf(address),
        version: checkpoint.version,
        snapshotJson: JSON.stringify({ ...snapshot, context }),
        pending: movedPending(pending(address), map, as),
        label: `forked from ${address}#${checkpoint.seq}`,
      };
    }),
    messages: [
      ...putBack(stored, isMember).flatMap((sent): readonly Sent[] => {
        // What was ordered from outside was ordered of the other run.
        if (!isMember(sent.from)) return [];
        const { was: _was, correlation, ...rest } = sent;
        return [
          {
            ...rest,
            from: map(sent.from),
            to: map(sent.to),
            ...(correlation === undefined
              ? {}
              : { correlation: movedCorrelation(correlation, map) }),
          },
        ];
      }),
      ...tasks.flatMap(([address, checkpoint]) => rewinds(map(address), checkpoint)),
    ],
    rows: stored.attempts.map((row) => ({ table: 'attempts', row: { ...row, run: as } })),
    claims: stored.claims.map((claim) => ({
      ...claim,
      run: as,
      token: claim.token === null ? null : forkedToken(claim.token, cut.run, as),
    })),
  };
}

function movedPending(
  { timers, effects }: Pending,
  map: (address: string) => Address,
  run: string,
): Pending {
  return {
    timers: timers.map((timer) => ({ ...timer, action: movedAction(timer.action, map) })),
    effects: effects.map((effect) => ({ ...effect, input: forkedInput(effect.input, run) })),
  };
}

function movedAction(action: TimerAction, map: (address: string) => Address): TimerAction {
  switch (action.do) {
    case 'deadline':
      return {
        ...action,
        to: map(action.to),
        correlation: movedCorrelation(action.correlation, map),
      };
    case 'rolledBack':
      return { ...action, to: map(action.to) };
    case 'send': {
      const { envelope } = action;
      const moved: Envelope = { ...envelope, from: map(envelope.from), to: map(envelope.to) };
      return { ...action, envelope: moved };
    }
    case 'event':
    case 'end':
      return action;
  }
}
