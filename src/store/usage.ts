import type { EpochMs } from '../protocol/message.ts';

/** What takes how much room. Reads every page of the file. */
export interface StoreUsage {
  /** Of the file, without its log; `emptyBytes` of them are not used. */
  readonly fileBytes: number;
  readonly emptyBytes: number;
  /** The largest first. Bytes are those of the values: the file needs a tenth more or so, and as much again for indexes. */
  readonly tables: readonly TableUsage[];
  /** The largest first; `run` is null for what belongs to no run. Pieces of long texts, which runs may share, are not in it. */
  readonly runs: readonly RunUsage[];
}

export interface TableUsage {
  readonly table: string;
  readonly rows: number;
  readonly bytes: number;
}

export interface RunUsage {
  readonly run: string | null;
  readonly rows: number;
  readonly bytes: number;
}

/** What pruning would remove now. */
export interface Prunable {
  readonly checkpoints: number;
  readonly runs: number;
  readonly tasks: number;
  readonly deadLetters: number;
  readonly audit: number;
  readonly idempotency: number;
  /** Those that are not of runs. */
  readonly streams: number;
}

export interface PruneLimits {
  readonly checkpointsPerActor: number;
  readonly endedBefore: EpochMs;
  readonly deadLettersBefore: EpochMs;
  readonly deadLetters: number;
  readonly auditBefore: EpochMs;
  readonly audit: number;
  readonly now: EpochMs;
}
