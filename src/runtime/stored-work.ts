import type { Address } from '../protocol/address.ts';
import { UnreadablePayloadError } from '../protocol/errors.ts';
import type { Envelope, Message } from '../protocol/message.ts';
import type { EffectRecord, MessageRecord, Pending, TimerRecord } from '../store/store.ts';
import type { TimerAction } from './durable-timers.ts';

/** What waits in the store, read. */
export interface StoredWork {
  readonly messages: readonly Envelope[];
  readonly timers: readonly { readonly record: TimerRecord; readonly action: TimerAction }[];
  readonly effects: readonly EffectRecord[];
}

/**
 * Reads all of it before anybody goes on with any. One row that cannot be right is in the way of everything: nobody knows
 * what it said, and its actor would wait for ever for what is lost.
 * @throws {UnreadablePayloadError} names the table, the row, and what to do
 */
export function readStoredWork({ messages, timers, effects }: Pending): StoredWork {
  return {
    messages: messages.map(toEnvelope),
    timers: timers.map((record) => {
      const row = `timer "${record.id}" of ${record.address}`;
      const action = parseNamed<TimerAction>(record.actionJson, 'do', row, 'timers');
      return { record, action };
    }),
    effects: effects.map((record) => {
      // It stays a text: checkpoints keep it as it is.
      parseJson(record.inputJson, `effect "${record.id}" of ${record.address}`, 'effects');
      return record;
    }),
  };
}

function toEnvelope(record: MessageRecord): Envelope {
  const { id, to, messageJson } = record;
  return {
    id,
    from: record.from as Address,
    to: to as Address,
    message: parseNamed<Message>(messageJson, 'type', `message ${id} to ${to}`, 'messages'),
    priority: record.priority,
    sentAt: record.sentAt,
    ...(record.correlation === null ? undefined : { correlation: record.correlation }),
    ...(record.attempt === null ? undefined : { attempt: record.attempt }),
    ...(record.reply ? { reply: true as const } : undefined),
  };
}

/** @param name the field that says what it is */
function parseNamed<T>(json: string, name: string, row: string, table: string): T {
  const value = parseJson(json, row, table) as Record<string, unknown> | null;
  if (typeof value?.[name] === 'string') return value as T;
  throw unreadable(row, table, `there is no "${name}" in it`);
}

function parseJson(json: string, row: string, table: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    // Not in its own words: they quote the text, which may be a secret.
    throw unreadable(row, table, `its ${json.length} characters are no JSON`);
  }
}

function unreadable(row: string, table: string, why: string): UnreadablePayloadError {
  return new UnreadablePayloadError(
    `The ${row} (table ${table}) cannot be read: ${why}. It is damaged, or another program wrote to it. Nothing was changed: restore a backup, or delete this row if what it was for may be lost.`,
    { context: { row, table } },
  );
}
