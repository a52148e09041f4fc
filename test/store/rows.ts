import type {
  ActorRecord,
  AttemptRow,
  Batch,
  CheckpointRecord,
  CutRequest,
  DeadLetterRecord,
  EffectRecord,
  IdempotencyRecord,
  MessageRecord,
  Projection,
  RunRow,
  StepRecord,
  StreamChunkRow,
  StreamRow,
  TaskRow,
  TimerRecord,
} from '../../src/store/store.ts';

/** Rows for tests: give what matters, the rest is plausible. */

export function batch(parts: Partial<Batch> = {}): Batch {
  return {
    actors: [],
    checkpoints: [],
    consumed: [],
    messages: [],
    clearedTimers: [],
    timers: [],
    clearedEffects: [],
    effects: [],
    steps: [],
    clearedSteps: [],
    clearedIdempotency: [],
    idempotency: [],
    deadLetters: [],
    projections: [],
    removedAttempts: [],
    claims: [],
    cuts: [],
    ...parts,
  };
}

export const actor = (parts: Partial<ActorRecord> = {}): ActorRecord => ({
  address: 'inbox/ada',
  machine: 'inbox',
  version: 1,
  status: 'active',
  seq: 0,
  parent: null,
  reason: null,
  updatedAt: 1_000,
  ...parts,
});

export const checkpoint = (parts: Partial<CheckpointRecord> = {}): CheckpointRecord => ({
  address: 'inbox/ada',
  seq: 0,
  at: 1_000,
  kind: 'auto',
  label: null,
  version: 1,
  eventJson: null,
  snapshotJson: '{"value":"empty"}',
  pendingJson: null,
  detailsJson: null,
  ...parts,
});

/** An actor's turn: its row and the checkpoint of the same number. */
export function turn(
  address: string,
  seq: number,
  snapshotJson = `{"seq":${seq}}`,
): Partial<Batch> {
  return {
    actors: [actor({ address, seq })],
    checkpoints: [checkpoint({ address, seq, snapshotJson })],
  };
}

export const message = (parts: Partial<MessageRecord> = {}): MessageRecord => ({
  id: 'm1',
  from: 'client/test',
  to: 'inbox/ada',
  priority: 2,
  sentAt: 1_000,
  messageJson: '{"type":"inbox.add"}',
  correlation: null,
  attempt: null,
  reply: false,
  ...parts,
});

export const timer = (parts: Partial<TimerRecord> = {}): TimerRecord => ({
  address: 'inbox/ada',
  id: 'wake',
  generation: 'g1',
  dueAt: 5_000,
  actionJson: '{"type":"wake"}',
  ...parts,
});

export const effect = (parts: Partial<EffectRecord> = {}): EffectRecord => ({
  address: 'inbox/ada',
  id: 'fetch',
  generation: 'g1',
  src: 'fetchPage',
  inputJson: '{}',
  attempt: 1,
  startedAt: 1_000,
  ...parts,
});

export const step = (parts: Partial<StepRecord> = {}): StepRecord => ({
  scope: 'inbox/ada#fetch',
  key: 'download',
  at: 1_000,
  kind: 'step',
  inputHash: null,
  outcomeJson: '{"ok":1}',
  ...parts,
});

export const idempotency = (parts: Partial<IdempotencyRecord> = {}): IdempotencyRecord => ({
  key: 'order-7',
  inputHash: 'abc',
  correlation: null,
  outcomeJson: null,
  createdAt: 1_000,
  expiresAt: 9_000,
  ...parts,
});

export const deadLetter = (parts: Partial<DeadLetterRecord> = {}): DeadLetterRecord => ({
  id: 'm1',
  at: 1_000,
  address: 'inbox/ada',
  reason: 'the guard threw',
  messageJson: '{"type":"inbox.add"}',
  ...parts,
});

export const runRow = (parts: Partial<RunRow> = {}): RunRow => ({
  run: 'r1',
  title: 'A run',
  state: 'running',
  total: 3,
  createdAt: 1_000,
  updatedAt: 1_000,
  endedAt: null,
  detailsJson: '{}',
  ...parts,
});

export const taskRow = (parts: Partial<TaskRow> = {}): TaskRow => ({
  run: 'r1',
  task: 't1',
  title: 'A task',
  state: 'ready',
  agent: 'writer',
  priority: 2,
  unblocks: 0,
  position: 1,
  attempts: 0,
  reason: null,
  updatedAt: 1_000,
  detailsJson: '{}',
  ...parts,
});

export const attemptRow = (parts: Partial<AttemptRow> = {}): AttemptRow => ({
  run: 'r1',
  task: 't1',
  attempt: 1,
  outcome: 'running',
  reason: null,
  startedAt: 1_000,
  endedAt: null,
  detailsJson: '{}',
  ...parts,
});

export const cut = (parts: Partial<CutRequest> = {}): CutRequest => ({
  id: 'c1',
  run: 'r1',
  at: 1_000,
  kind: 'manual',
  label: null,
  detailsJson: null,
  address: 'run/r1',
  prefix: 'task/r1/',
  keep: null,
  ...parts,
});

export const streamRow = (parts: Partial<StreamRow> = {}): StreamRow => ({
  address: 'task/r1/t1',
  name: 'output',
  next: 0,
  size: 0,
  createdAt: 1_000,
  updatedAt: 1_000,
  closedAt: null,
  ...parts,
});

export const streamChunk = (parts: Partial<StreamChunkRow> = {}): StreamChunkRow => ({
  address: 'task/r1/t1',
  name: 'output',
  offset: 0,
  at: 1_000,
  writer: 'task/r1/t1@1',
  epoch: 1,
  seq: 1,
  valueJson: '"word"',
  ...parts,
});

export const tasks = (...rows: readonly Partial<TaskRow>[]): readonly Projection[] =>
  rows.map((row) => ({ table: 'tasks', row: taskRow(row) }));
