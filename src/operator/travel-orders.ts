import * as z from 'zod';
import type { Run, Troupe } from '../index.ts';
import type { Order, OrderResult } from './orders.ts';

const id = z.string().min(1).max(64);
/** A label, the beginning of an id, `start`, `last`, or a number. */
const ref = z.string().min(1).max(200);

/** Orders that keep moments of a run and go back to them. */
export const travelOrders = [
  z.strictObject({
    order: z.literal('keep'),
    run: id,
    label: z.string().min(1).max(200),
    notes: z.string().max(32_000).optional(),
  }),
  /** The whole run, or only one task of it. */
  z.strictObject({ order: z.literal('rollback'), run: id, only: id.optional(), to: ref }),
  z.strictObject({ order: z.literal('fork'), run: id, to: ref, as: id }),
] as const;

export type TravelOrder = z.infer<(typeof travelOrders)[number]>;

const NAMES: ReadonlySet<string> = new Set<TravelOrder['order']>(['keep', 'rollback', 'fork']);

export const isTravelOrder = (order: Order): order is TravelOrder => NAMES.has(order.order);

/** @throws {TroupeError} the order was refused; nothing has changed */
export async function performTravel(
  order: TravelOrder,
  troupe: Troupe,
  run: Run,
): Promise<OrderResult> {
  switch (order.order) {
    case 'keep': {
      const { label, notes } = order;
      const cut = await run.checkpoint({ label, ...(notes === undefined ? {} : { notes }) });
      return { ...(await standing(run)), cut };
    }
    case 'rollback': {
      const moves =
        order.only === undefined
          ? await run.rollback(order.to)
          : [await run.task(order.only).rollback(order.to)];
      return { ...(await standing(run)), moves: [...moves] };
    }
    case 'fork': {
      const moves = await troupe.history.moves(order.run, order.to);
      const fork = await run.fork(order.to, { id: order.as });
      return { ...(await standing(fork)), moves: moves.map((move) => ({ ...move, from: null })) };
    }
  }
}

async function standing(run: Run): Promise<OrderResult> {
  const [{ state }, tasks] = await Promise.all([run.status(), run.tasks()]);
  return {
    tasks: tasks.map((task) => ({ run: task.run, task: task.id, state: task.state })),
    run: { id: run.id, state },
  };
}
