import { ConfigurationError } from '../protocol/errors.ts';
import type { FaultPoint } from '../protocol/fault-point.ts';

/** What an armed point does when its turn comes. */
export const FAULT_ACTIONS = ['kill', 'throw', 'hang', 'delay', 'duplicate', 'drop'] as const;
export type FaultAction = (typeof FAULT_ACTIONS)[number];

interface Fault {
  /** A point's name, or `any`. */
  readonly point: string;
  readonly action: FaultAction;
  /** The hit at which it acts, counted from 1; for `any` over all points together. */
  readonly nth: number;
  /** For `delay`. */
  readonly ms: number;
}

/** What `throw` throws: tests recognise it, and nothing in the product does. */
export class InjectedFault extends Error {
  constructor(point: string) {
    super(`injected fault at ${point}`);
    this.name = 'InjectedFault';
  }
}

/**
 * Makes the product fail where a test wants it to. Specification: `point:action[:nth[:ms]]`, several joined by
 * commas; `any` stands for every point; `trace` only counts. Examples: `host.before-commit:kill:3`,
 * `any:kill:17`, `gate.artifact-before-ref:throw`, `effect.before-start:delay:1:50`.
 */
export class FaultPoints {
  readonly #faults: readonly Fault[];
  readonly #hits = new Map<string, number>();
  #total = 0;
  #fired = 0;

  /** @throws {ConfigurationError} the specification does not parse */
  constructor(specification: string) {
    this.#faults = specification
      .split(',')
      .map((part) => part.trim())
      .filter((part) => part !== '' && part !== 'trace')
      .map(parseFault);
  }

  /** Hands this to whatever takes a `FaultPoint`. */
  readonly hit: FaultPoint = (name) => {
    this.#total++;
    const hits = (this.#hits.get(name) ?? 0) + 1;
    this.#hits.set(name, hits);
    for (const fault of this.#faults) {
      if (fault.point !== 'any' && fault.point !== name) continue;
      if (fault.nth !== (fault.point === 'any' ? this.#total : hits)) continue;
      this.#fired++;
      switch (fault.action) {
        case 'kill':
          process.kill(process.pid, 'SIGKILL');
          // The signal is delivered on the way back from the system call; nothing after it may run.
          return new Promise(() => undefined);
        case 'throw':
          throw new InjectedFault(name);
        case 'hang':
          return new Promise(() => undefined);
        case 'delay':
          return new Promise((resolve) => setTimeout(resolve, fault.ms));
        case 'duplicate':
        case 'drop':
          throw new DeliveryFault(fault.action);
      }
    }
    return undefined;
  };

  /** Hits by point, in the order of first hits. A test that sees no hit of its point has proved nothing. */
  trace(): ReadonlyMap<string, number> {
    return this.#hits;
  }

  /** How many armed faults have acted. */
  get fired(): number {
    return this.#fired;
  }

  get total(): number {
    return this.#total;
  }
}

/** Thrown at `bus.deliver` to make the host deliver a message twice or not at all (this time). */
export class DeliveryFault extends Error {
  readonly action: 'duplicate' | 'drop';
  constructor(action: 'duplicate' | 'drop') {
    super(`injected ${action}`);
    this.action = action;
  }
}

function parseFault(part: string): Fault {
  const [point, action, nth = '1', ms = '0', ...rest] = part.split(':');
  const valid =
    point !== undefined &&
    point !== '' &&
    (FAULT_ACTIONS as readonly string[]).includes(action ?? '') &&
    /^[1-9]\d*$/.test(nth) &&
    /^\d+$/.test(ms) &&
    rest.length === 0;
  if (!valid) {
    throw new ConfigurationError(
      `Expected a fault such as "host.before-commit:kill:3" (point:action[:nth[:ms]]; actions: ${FAULT_ACTIONS.join(', ')}), got ${JSON.stringify(part)}.`,
    );
  }
  return { point: point ?? '', action: action as FaultAction, nth: Number(nth), ms: Number(ms) };
}
