import type { CommandEvidence, Store } from '../index.ts';

type AttemptRow = Awaited<ReturnType<Store['listAttempts']>>[number];
type CheckpointRow = Awaited<ReturnType<Store['listCheckpoints']>>[number];

/** One try at a task. */
export interface AttemptView {
  readonly attempt: number;
  readonly outcome: string;
  /** Where in the verification it was refused. */
  readonly stage: string | null;
  readonly reason: string | null;
  readonly startedAt: number;
  readonly endedAt: number | null;
  readonly summary: string | null;
  readonly evidence: EvidenceView | null;
  /** Who did it, when the task's own agent could not be asked, and why not. */
  readonly by?: {
    readonly agent: string;
    readonly insteadOf: readonly { readonly agent: string; readonly reason: string }[];
  };
  /** Why it was refused before others were asked to mend it. */
  readonly refused?: Pick<FixView, 'stage' | 'reason' | 'artifact'> & { readonly at: number };
  /** How those have come out who were, oldest first; who is at it now, if anybody is. */
  readonly fixes?: readonly FixView[];
  readonly fixing?: Pick<FixView, 'session' | 'iteration' | 'agent' | 'startedAt'>;
}

/** One try to mend a rejected attempt. */
export interface FixView {
  readonly session: number;
  readonly iteration: number;
  readonly agent: string;
  readonly startedAt: number;
  readonly endedAt: number;
  readonly outcome: string;
  readonly stage: string | null;
  readonly reason: string | null;
  readonly artifact: string | null;
  readonly insteadOf?: readonly { readonly agent: string; readonly reason: string }[];
}

interface EvidenceView {
  /** The file, relative to the project. */
  readonly artifact: string | null;
  readonly commit: string | null;
  readonly tree: string | null;
  readonly commands: readonly CommandEvidence[];
}

export function attemptOfRow(row: AttemptRow): AttemptView {
  const { stage, summary, evidence, ...more } = JSON.parse(row.detailsJson) as {
    readonly stage: string | null;
    readonly summary: string | null;
    readonly evidence: Partial<EvidenceView> | null;
  } & Pick<AttemptView, 'by' | 'refused' | 'fixes' | 'fixing'>;
  return {
    attempt: row.attempt,
    outcome: row.outcome,
    stage,
    reason: row.reason,
    startedAt: row.startedAt,
    endedAt: row.endedAt,
    summary,
    // Who did it, and what others have mended of it: there if there is anything to say.
    ...more,
    evidence:
      evidence === null
        ? null
        : {
            artifact: evidence.artifact ?? null,
            commit: evidence.commit ?? null,
            tree: evidence.tree ?? null,
            commands: evidence.commands ?? [],
          },
  };
}

/** What somebody decided about a task: a person or the overseer's policy. */
export interface DecisionView {
  readonly at: number;
  readonly what: string;
  readonly by: string;
  readonly text: string | null;
}

interface Said {
  readonly type: string;
  readonly by?: string;
  readonly decision?: string;
  readonly guidance?: string;
  readonly agent?: string;
  readonly reason?: string;
  readonly answer?: unknown;
  readonly reply?: {
    readonly decision: string;
    readonly by?: string;
    readonly guidance?: string;
    readonly agent?: string;
  };
}

/** Read from the task's own turns: nothing else has to be kept for it. */
export function decisionsIn(checkpoints: readonly CheckpointRow[]): DecisionView[] {
  return checkpoints.flatMap(({ at, eventJson }): DecisionView[] => {
    if (eventJson === null) return [];
    const event = JSON.parse(eventJson) as Said;
    const said = (what: string, by = 'unknown', text: string | null = null): DecisionView[] => [
      { at, what, by, text },
    ];
    switch (event.type) {
      case 'task.decide':
        return said(decided(event.decision, event.agent), event.by, event.guidance);
      case 'overseer.escalate:ok':
        return event.reply === undefined || event.reply.decision === 'none'
          ? []
          : said(
              decided(event.reply.decision, event.reply.agent),
              event.reply.by,
              event.reply.guidance,
            );
      case 'task.answer':
        return said(
          'answer',
          event.by,
          typeof event.answer === 'string' ? event.answer : JSON.stringify(event.answer),
        );
      case 'task.unblock':
      case 'task.pause':
      case 'task.resume':
        return said(event.type.slice('task.'.length), event.by);
      case 'task.cancel':
        return said('cancel', event.by, event.reason);
      default:
        return [];
    }
  });
}

const decided = (decision = '', agent: string | undefined): string =>
  agent === undefined ? decision : `${decision} to ${agent}`;
