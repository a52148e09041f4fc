import * as z from 'zod';
import type { ErrorCode, Failure, FlowMetrics } from '../../index.ts';
import { type OrderResult, orderSchema } from '../orders.ts';
import type { RunEvent, RunView, TaskView } from '../run-view.ts';

/*
 * What is said over the control socket: JSON, one message on a line.
 *
 *     server: {"troupe":"control/1","pid":4711}                  first, so that a client knows it is heard
 *     client: {"id":1,"token":"…","do":"order","order":{…}}      one request at a time on a connection
 *     server: {"id":1,"ok":true,"result":{…}}                    or {"id":1,"ok":false,"failure":{code, message, …}}
 *     client: {"id":2,"token":"…","do":"watch"}
 *     server: {"id":2,"ok":true,"result":{runs, tasks}}          and then {"event":{…}} for everything that happens
 *
 * The token is in a file that only the user can read, new for every process that listens. Whoever cannot name it, or
 * sends what is not a request, is told so once and is cut off; nothing has changed then.
 */

export const PROTOCOL = 'control/1';

/** A longer line is no request of ours. The longest text in an order, every character escaped, fits. */
export const MAX_LINE_BYTES = 256 * 1024;
/** What a server sends may be longer: a snapshot of all tasks. */
export const MAX_ANSWER_BYTES = 256 * 1024 * 1024;

const envelope = { id: z.int().min(0), token: z.string().max(200) };

export const requestSchema = z.discriminatedUnion('do', [
  z.strictObject({ ...envelope, do: z.literal('order'), order: orderSchema }),
  z.strictObject({ ...envelope, do: z.literal('watch') }),
]);
export type Request = z.infer<typeof requestSchema>;

/** All that a watcher needs to begin with. */
export interface Snapshot {
  readonly runs: readonly RunView[];
  readonly tasks: readonly TaskView[];
  readonly flow: FlowMetrics;
}

export type Answer =
  | { readonly id: number; readonly ok: true; readonly result: OrderResult | Snapshot }
  | { readonly id: number; readonly ok: false; readonly failure: Failure };

export interface EventLine {
  readonly event: RunEvent;
}

export const helloSchema = z.object({ troupe: z.string().max(100), pid: z.int().min(1) });

/** The server is the user's own process; still, what it sends is checked before it is believed. */
export const answerSchema = z.union([
  z.object({ id: z.int(), ok: z.literal(true), result: z.unknown() }),
  z.object({
    id: z.int(),
    ok: z.literal(false),
    failure: z.object({
      code: z.string() as unknown as z.ZodType<ErrorCode>,
      message: z.string(),
      retryable: z.boolean(),
    }),
  }),
]);

export const eventSchema = z.object({
  event: z.custom<RunEvent>(
    (value) => typeof (value as { type?: unknown } | null)?.type === 'string',
  ),
});
