import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { CommandEvidence, Evidence, Run, TaskStatus } from '../../src/index.ts';
import type { PlannedTask } from './plan.ts';
import type { Scratch } from './scratch.ts';
import { isStage, stageOf } from './stages.ts';

/** What a script says in its last line about its tests. */
export interface ScriptResult {
  readonly exit?: number;
  readonly tests?: number;
  readonly pass?: number;
  readonly fail?: number;
}

/** One task as it ended. */
export interface TaskReport {
  readonly id: string;
  readonly state: string;
  readonly attempts: number;
  readonly reason: string | null;
  /** Where the product refused its last attempt; null for one that was merged. */
  readonly stage: string | null;
  /** Of its last attempt, and how each attempt ended. */
  readonly evidence: {
    readonly artifact: string | null;
    /** What main moved to; null for one that was not merged. */
    readonly commit: string | null;
    readonly tree: string | null;
    readonly commands: readonly CommandEvidence[];
    readonly result: ScriptResult | null;
    readonly attempts: readonly Omit<AttemptEnding, 'evidence'>[];
  };
  /** Why it did not end as it must; absent if it did. */
  readonly wrong?: string;
}

/** What is known of one task at the end. */
export interface Ending {
  readonly task: PlannedTask;
  readonly status: TaskStatus;
  readonly stage: string | null;
  readonly attempts: readonly AttemptEnding[];
  readonly result: ScriptResult | undefined;
}

interface AttemptEnding {
  readonly attempt: number;
  readonly outcome: string;
  readonly stage: string | null;
  readonly reason: string | null;
  readonly evidence: Evidence | null;
}

const NOT_MERGED: ReadonlySet<string> = new Set(['blocked', 'escalated', 'awaitingApproval']);

export async function readEnding(run: Run, task: PlannedTask, status: TaskStatus): Promise<Ending> {
  const rows = await run.task(task.id).attempts();
  const attempts = rows
    .map(({ attempt, outcome, reason, detailsJson }): AttemptEnding => {
      const { stage, evidence } = JSON.parse(detailsJson) as Pick<
        AttemptEnding,
        'stage' | 'evidence'
      >;
      return { attempt, outcome, reason, stage, evidence };
    })
    .sort((a, b) => a.attempt - b.attempt);
  const last = attempts.at(-1);
  const recorded = status.state === 'done' ? null : (last?.stage ?? null);
  return {
    task,
    status,
    attempts,
    stage: stageOf(status, recorded),
    result: scriptResult(last?.evidence?.commands.at(-1)?.excerpt ?? ''),
  };
}

/** @returns undefined when the output does not end with such a line */
export function scriptResult(output: string): ScriptResult | undefined {
  const line = output.trimEnd().split('\n').at(-1) ?? '';
  if (!line.startsWith('REALREPO_RESULT ')) return undefined;
  try {
    const value: unknown = JSON.parse(line.slice('REALREPO_RESULT '.length));
    return typeof value === 'object' && value !== null ? (value as ScriptResult) : undefined;
  } catch {
    return undefined; // what a script prints is not ours to mend
  }
}

/** @returns why a good change did not end as it must; undefined if it did */
export function judgeGood({ task, status, result }: Ending): string | undefined {
  if (status.state !== 'done') return `expected done, got ${status.state}`;
  if (task.attempts !== undefined && status.attempts !== task.attempts) {
    return `expected done with ${task.attempts} attempts, got ${status.attempts}`;
  }
  if (result?.exit !== undefined && result.exit !== 0) {
    return `merged although its verification says exit ${result.exit} in its last line`;
  }
  return undefined;
}

/** The same of a bad one. */
export function judgeBad(scratch: Scratch, ending: Ending): string | undefined {
  const expect = ending.task.change.bad?.expect;
  const { state } = ending.status;
  if (expect?.state === 'done' || expect?.state === 'merged') return judgeGood(ending);
  if (!NOT_MERGED.has(state)) return `expected not to be merged, got ${state}`;
  const missing = missingEvidence(ending);
  if (missing !== undefined) return missing;
  if (!isStage(expect?.stage, ending.stage)) {
    return `expected the stage ${expect?.stage ?? 'to be named'}, got ${ending.stage ?? 'none'}`;
  }
  const absent = expect?.outputContains.find((words) => !evidenceSays(scratch, ending, words));
  if (absent !== undefined) return `expected ${JSON.stringify(absent)} in the evidence`;
  return undefined;
}

/** One that lost a race. */
export function judgeLoser(ending: Ending): string | undefined {
  const { state } = ending.status;
  if (!NOT_MERGED.has(state)) return `expected not to be merged, for another was, got ${state}`;
  if (!isStage('apply_or_merge', ending.stage)) {
    return `expected the stage apply_or_merge, got ${ending.stage ?? 'none'}`;
  }
  return missingEvidence(ending);
}

function missingEvidence({ attempts }: Ending): string | undefined {
  const evidence = attempts.at(-1)?.evidence;
  const shown = evidence?.artifact !== undefined || (evidence?.commands.length ?? 0) > 0;
  return shown ? undefined : 'expected evidence, got none';
}

/** What is quoted in a verdict is head and tail of an output; the whole of it lies beside the artifact. */
function evidenceSays(scratch: Scratch, { attempts, status }: Ending, words: string): boolean {
  const quoted = attempts.flatMap(({ reason, evidence }) => [
    reason ?? '',
    ...(evidence?.commands ?? []).map(({ excerpt }) => excerpt),
  ]);
  if ([status.reason ?? '', ...quoted].some((text) => text.includes(words))) return true;
  return attempts.some(({ evidence }) => {
    if (evidence?.artifact === undefined) return false;
    const artifact = path.join(scratch.directory, evidence.artifact);
    const stem = path.basename(artifact, '.json');
    return readdirSync(path.dirname(artifact))
      .filter((name) => name.startsWith(`${stem}.`))
      .some((name) =>
        readFileSync(path.join(path.dirname(artifact), name), 'utf8').includes(words),
      );
  });
}

export function taskReport(ending: Ending, wrong: string | undefined): TaskReport {
  const { task, status, stage, attempts, result } = ending;
  const last = attempts.at(-1);
  const evidence = {
    artifact: last?.evidence?.artifact ?? null,
    commit: last?.evidence?.commit ?? null,
    tree: last?.evidence?.tree ?? null,
    commands: last?.evidence?.commands ?? [],
    result: result ?? null,
    attempts: attempts.map(({ evidence: _, ...rest }) => rest),
  };
  return {
    id: task.change.id,
    state: status.state,
    attempts: status.attempts,
    reason: status.reason,
    stage,
    evidence,
    ...(wrong === undefined ? {} : { wrong }),
  };
}
