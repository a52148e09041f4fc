import type { JsonValue } from '../protocol/json.ts';
import { type Pending, parsePending } from '../runtime/pending.ts';
import type { PersistedSnapshot } from '../runtime/xstate-driver.ts';
import type { CheckpointRecord } from '../store/store.ts';

/** One place in which two states differ, by its path: `keys.colour`, `list[3]`. */
export type Difference =
  | { readonly path: string; readonly kind: 'added'; readonly to: JsonValue }
  | { readonly path: string; readonly kind: 'removed'; readonly from: JsonValue }
  | {
      readonly path: string;
      readonly kind: 'changed';
      readonly from: JsonValue;
      readonly to: JsonValue;
    };

export interface CheckpointDiff {
  readonly address: string;
  /** Numbers of the checkpoints. */
  readonly from: number;
  readonly to: number;
  readonly fromState: JsonValue;
  readonly toState: JsonValue;
  readonly context: readonly Difference[];
  /** Timers and effects under way, by id; `timers.<id>` and `effects.<id>`. */
  readonly pending: readonly Difference[];
}

export function diffCheckpoints(a: CheckpointRecord, b: CheckpointRecord): CheckpointDiff {
  const before = JSON.parse(a.snapshotJson) as PersistedSnapshot;
  const after = JSON.parse(b.snapshotJson) as PersistedSnapshot;
  return {
    address: b.address,
    from: a.seq,
    to: b.seq,
    fromState: before.value,
    toState: after.value,
    context: differences(before.context, after.context),
    pending: differences(byId(parsePending(a.pendingJson)), byId(parsePending(b.pendingJson))),
  };
}

/** Every place in which two JSON values differ. Lists are compared place by place. */
function differences(from: JsonValue, to: JsonValue, path = ''): Difference[] {
  if (from === to) return [];
  const isNested =
    typeof from === 'object' &&
    typeof to === 'object' &&
    from !== null &&
    to !== null &&
    Array.isArray(from) === Array.isArray(to);
  if (!isNested) return [{ path, kind: 'changed', from, to }];
  const a = from as Readonly<Record<string, JsonValue | undefined>>;
  const b = to as Readonly<Record<string, JsonValue | undefined>>;
  const found: Difference[] = [];
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
    const below = pathTo(path, key, Array.isArray(from));
    const [was, is] = [own(a, key), own(b, key)];
    if (was === undefined) {
      if (is !== undefined) found.push({ path: below, kind: 'added', to: is });
    } else if (is === undefined) found.push({ path: below, kind: 'removed', from: was });
    else found.push(...differences(was, is, below));
  }
  return found;
}

const own = (
  object: Readonly<Record<string, JsonValue | undefined>>,
  key: string,
): JsonValue | undefined => (Object.hasOwn(object, key) ? object[key] : undefined);

function pathTo(path: string, key: string, inList: boolean): string {
  if (inList) return `${path}[${key}]`;
  const name = /^[\w$-]+$/.test(key) ? key : JSON.stringify(key);
  return path === '' ? name : `${path}.${name}`;
}

function byId({ timers, effects }: Pending): JsonValue {
  const list = (entries: readonly { readonly id: string }[]): JsonValue =>
    Object.fromEntries(entries.map((entry) => [entry.id, entry as unknown as JsonValue]));
  return { timers: list(timers), effects: list(effects) };
}
