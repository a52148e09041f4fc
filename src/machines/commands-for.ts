import { type EventObject, enqueueActions, type MachineContext } from 'xstate';
import type { DurableCommand } from '../protocol/commands.ts';

type Enqueue<C extends MachineContext, E extends EventObject, P> = typeof enqueueActions<
  C,
  E,
  P,
  E,
  never,
  DurableCommand,
  never,
  never,
  never
>;

/**
 * Types an `enqueueActions` that takes params and enqueues durable commands; the helper of XState's own
 * `setup` has no place for params.
 */
export const commandsFor =
  <C extends MachineContext, E extends EventObject>() =>
  <P>(collect: Parameters<Enqueue<C, E, P>>[0]): ReturnType<Enqueue<C, E, P>> =>
    enqueueActions<C, E, P, E, never, DurableCommand, never, never, never>(collect);
