import { readSettings } from '../machines/policies/settings.ts';
import type { Regression, TaskSpec } from '../machines/task-machine.ts';
import type { TaskState } from '../protocol/catalogue.ts';
import { ConfigurationError, ValidationError } from '../protocol/errors.ts';
import { deepHash } from '../protocol/hash.ts';
import { findNonJson, type JsonValue } from '../protocol/json.ts';

/*
 * A task that was done and is found broken again. Done is final, and what a run is about never changes once it was made; so
 * the work is a new task in a run of its own, whose id follows from the task: whoever reports it again finds it.
 */

/** What is found broken. */
export interface RegressionReport {
  /** What is wrong, for whoever mends it: at most 2 000 characters. */
  readonly reason: string;
  /** What shows it: output, a link, a file's name. At most 32 000 characters as JSON. Default null. */
  readonly evidence?: JsonValue;
}

/** The task that mends it. */
export interface ReportedRegression {
  readonly run: string;
  readonly task: string;
  readonly state: TaskState;
  /** False: it had been reported already, and nothing has changed. */
  readonly isNew: boolean;
}

const REPORT_KEYS: Record<keyof RegressionReport, true> = { reason: true, evidence: true };
const MAX_REASON_CHARS = 2_000;
const MAX_EVIDENCE_CHARS = 32_000;
/** The agent is shown so much of the evidence; the rest is in the task. */
const MAX_SHOWN_CHARS = 1_500;
/** What is left of the name for people; with what follows it an id stays within its 64 characters. */
const MAX_READABLE_CHARS = 32;

/** @throws {ValidationError} no reason, or evidence that cannot be kept */
export function checkReport(
  report: RegressionReport,
  where: string,
): { readonly reason: string; readonly evidence: JsonValue } {
  try {
    readSettings(report ?? null, Object.keys(REPORT_KEYS), where);
  } catch (error) {
    if (!(error instanceof ConfigurationError)) throw error;
    throw new ValidationError(error.message, { context: error.context });
  }
  const { reason, evidence = null } = report;
  if (typeof reason !== 'string' || reason.trim() === '' || reason.length > MAX_REASON_CHARS) {
    throw new ValidationError(
      `Expected the reason of ${where} to be a text of 1 to ${MAX_REASON_CHARS} characters that says what is broken, got ${typeof reason === 'string' ? `${reason.length} characters` : typeof reason}.`,
    );
  }
  const problem = findNonJson(evidence, 'evidence');
  if (problem !== undefined) {
    throw new ValidationError(
      `Expected the evidence of ${where} to be plain JSON, but ${problem.path} is ${problem.found}.`,
    );
  }
  const { length } = JSON.stringify(evidence);
  if (length > MAX_EVIDENCE_CHARS) {
    throw new ValidationError(
      `Expected the evidence of ${where} to have at most ${MAX_EVIDENCE_CHARS} characters as JSON, got ${length}: keep it in a file, and name that.`,
    );
  }
  return { reason: reason.trim(), evidence };
}

/** What the ids of all runs begin with that mend this task; a number follows. Different tasks have different ones. */
export function regressionPrefix(run: string, task: string): string {
  const readable = `${run}-${task}`.slice(0, MAX_READABLE_CHARS);
  return `${readable}-regression-${deepHash([run, task]).slice(0, 10)}-`;
}

/** The number of a run that mends this task; undefined for any other run. */
export function regressionNumber(id: string, prefix: string): number | undefined {
  const rest = id.startsWith(prefix) ? id.slice(prefix.length) : '';
  return /^[1-9]\d{0,8}$/.test(rest) ? Number(rest) : undefined;
}

/** The task as it was, in another run and by itself, with what is known about its failure. */
export function regressionTask(spec: TaskSpec, run: string, regressionOf: Regression): TaskSpec {
  const { phase: _phase, ...rest } = spec;
  return {
    ...rest,
    run,
    title: spec.regressionOf === undefined ? `Regression: ${spec.title}` : spec.title,
    dependsOn: [],
    dependants: [],
    staged: false,
    position: 0,
    regressionOf,
    guidance: [regressionGuidance(regressionOf)],
  };
}

/** What its agent is told. */
function regressionGuidance({ run, task, commit, reason, evidence }: Regression): string {
  const shown =
    evidence === null ? '' : typeof evidence === 'string' ? evidence : JSON.stringify(evidence);
  return [
    `This was done once, as task ${task} of run ${run}${commit === null ? '' : ` (commit ${commit})`}, and is broken again: ${reason}`,
    ...(shown === '' ? [] : [`What shows it: ${shown.slice(0, MAX_SHOWN_CHARS).toWellFormed()}`]),
  ].join('\n');
}
