import { appendFileSync, existsSync, readFileSync } from 'node:fs';

/**
 * What the workload itself saw, written by agents, gatekeepers and commands while they work, not by the product:
 * the second witness of every crash test. One JSON object per line, appended in one write, so that a killed
 * process leaves whole lines.
 */
export type Fact =
  /** A process has opened the store. */
  | { readonly op: 'opened'; readonly pid: number }
  /** An agent's engine was called. */
  | { readonly op: 'work.begun'; readonly task: string; readonly attempt: number }
  /** The function of a step was called. */
  | {
      readonly op: 'step.begun';
      readonly task: string;
      readonly attempt: number;
      readonly key: string;
    }
  /** A step has returned: what it gave is stored. From here on it must never run again. */
  | {
      readonly op: 'step.kept';
      readonly task: string;
      readonly attempt: number;
      readonly key: string;
      readonly value: string;
    }
  /** A gatekeeper has it, or an observer was told that it is to be verified: so the attempt's work is stored and must never be done again. */
  | { readonly op: 'verify.begun'; readonly task: string; readonly attempt: number }
  /** A command runs that an agent or a verification has started. */
  | {
      readonly op: 'command.begun';
      readonly task: string;
      readonly attempt: number;
      readonly pid: number;
    }
  /** The same, of an agent that mends the attempt. */
  | {
      readonly op: 'fix.begun';
      readonly task: string;
      readonly attempt: number;
      readonly pid: number;
    }
  /** An observer was told that the task is done: so that is stored, and nothing of the task may run again. */
  | { readonly op: 'told.done'; readonly task: string };

/** Tasks in a history are named `<run>/<task>`. */
export function note(file: string, fact: Fact): void {
  appendFileSync(file, `${JSON.stringify(fact)}\n`);
}

export function readHistory(file: string): readonly Fact[] {
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Fact);
}
