import type { Address } from '../protocol/address.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Envelope, EpochMs } from '../protocol/message.ts';
import { redactJson } from '../protocol/redact.ts';
import type { AuditRow } from '../store/store.ts';
import type { EffectOutcome } from './effect-runner.ts';

/** What somebody outside has ordered, as it is kept: without secrets, for it outlives what it was about. */
export function orderRow({ id, to, message, correlation, sentAt }: Envelope): AuditRow {
  const { type, ...fields } = message;
  const { by } = fields;
  return {
    at: sentAt,
    kind: 'order',
    // Its answer has this as well; what it has led to names the message.
    id: correlation ?? id,
    address: to,
    // A column takes no halves of characters.
    type: type.toWellFormed(),
    by: typeof by === 'string' ? by.toWellFormed() : 'app',
    detailsJson: JSON.stringify({ message: id, payload: redactJson(fields as JsonValue) }),
  };
}

/** @param correlation that of the order */
export function answerRow(
  from: Address,
  correlation: string,
  type: string,
  outcome: EffectOutcome,
  at: EpochMs,
): AuditRow {
  const payload: JsonValue = outcome.ok
    ? { ok: true, reply: outcome.output }
    : { ok: false, failure: outcome.failure as unknown as JsonValue };
  return {
    at,
    kind: 'answer',
    id: correlation,
    address: from,
    type: type.toWellFormed(),
    by: from,
    detailsJson: JSON.stringify({ payload: redactJson(payload) }),
  };
}
