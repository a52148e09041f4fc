import { type Address, kindOf } from '../protocol/address.ts';
import { ConfigurationError } from '../protocol/errors.ts';
import type { EpochMs } from '../protocol/message.ts';

/**
 * Which side of the work a role is on. `internal`: those that reason (plan, review, judge). `external`: those that act on
 * the world (write files, run commands, call services).
 */
export type Tract = 'internal' | 'external';
const TRACTS: readonly Tract[] = ['internal', 'external'];

/** How messages flow between the tracts. */
export interface FlowMetrics {
  /** Counted from then on: since the runtime opened the store. In milliseconds since 1970. */
  readonly since: EpochMs;
  /** By agent. Gatekeepers and overseers are internal: they judge. */
  readonly agents: Readonly<Record<string, Tract>>;
  /** From internal to external: verdicts, decisions, results that acting agents go on from. */
  readonly toExternal: number;
  /** From external to internal: what is handed in, escalated, or found out for those that reason. */
  readonly toInternal: number;
  /** The smaller of the two by the larger: 1 is even, 0 is one way only. Null while there was no message. */
  readonly balance: number | null;
  /**
   * Of the last 100 messages between the tracts, how much of a conversation they are: the share of the 99 pairs of
   * neighbours in which the other side speaks. 1: they take turns strictly; about 0.5: as if by chance; 0: a monologue.
   * Null until there were 100. That speakers change is what makes talk a conversation: Sacks, Schegloff and Jefferson, "A
   * Simplest Systematics for the Organization of Turn-Taking for Conversation", Language 50 (1974).
   */
  readonly dialogue: number | null;
}

/** So many messages are a dialogue, or not. */
const WINDOW = 100;
/** Tasks whose agent is remembered; the longest unheard of are forgotten first. What one sends is soon handled. */
const MAX_TASKS = 5_000;

/** What an actor was told, and by whom. */
interface Heard {
  readonly address: Address;
  readonly from: string;
}

/**
 * Counts messages between tracts, after they are stored. A task speaks for the agent that does it: what it sends to its
 * gatekeeper comes from the agent's tract, and a verdict goes there. Messages within a tract, and those of runs and
 * breakers, which have none, do not count.
 *
 * Costs nothing for actors of an app; for one of Troupe's own roles a map access for each turn.
 */
export class Flow {
  readonly #since: EpochMs;
  readonly #agents = new Map<string, Tract>();
  readonly #tasks = new Map<string, string>();
  #toExternal = 0;
  #toInternal = 0;
  /** The directions of the last messages, the next to be overwritten at `#next`. */
  readonly #window = new Uint8Array(WINDOW);
  #next = 0;
  /** Pairs of neighbours in the window that differ. */
  #changes = 0;

  constructor(since: EpochMs) {
    this.#since = since;
  }

  setTract(agent: string, tract: Tract): void {
    this.#agents.set(agent, tract);
  }

  /** A task has handled a message; its agent is this one now. */
  taskHeard(heard: Heard, agent: string): void {
    this.#remember(heard.address, agent);
    this.#count(this.#tractOf(heard.from), this.#agents.get(agent));
  }

  /** A gatekeeper or an overseer has handled a message. */
  judgeHeard(heard: Heard): void {
    this.#count(this.#tractOf(heard.from), 'internal');
  }

  /** As it stands now. */
  metrics(): FlowMetrics {
    const most = Math.max(this.#toExternal, this.#toInternal);
    const total = this.#toExternal + this.#toInternal;
    return {
      since: this.#since,
      agents: Object.fromEntries(this.#agents),
      toExternal: this.#toExternal,
      toInternal: this.#toInternal,
      balance: most === 0 ? null : Math.min(this.#toExternal, this.#toInternal) / most,
      dialogue: total < WINDOW ? null : this.#changes / (WINDOW - 1),
    };
  }

  #remember(task: string, agent: string): void {
    this.#tasks.delete(task);
    this.#tasks.set(task, agent);
    if (this.#tasks.size <= MAX_TASKS) return;
    const [oldest] = this.#tasks.keys();
    if (oldest !== undefined) this.#tasks.delete(oldest);
  }

  #tractOf(address: string): Tract | undefined {
    switch (kindOf(address)) {
      case 'gatekeeper':
      case 'overseer':
        return 'internal';
      case 'task':
        return this.#agents.get(this.#tasks.get(address) ?? '');
      default:
        return undefined;
    }
  }

  #count(from: Tract | undefined, to: Tract | undefined): void {
    if (from === undefined || to === undefined || from === to) return;
    const direction = to === 'external' ? 1 : 0;
    const total = this.#toExternal + this.#toInternal;
    if (direction === 1) this.#toExternal++;
    else this.#toInternal++;
    const at = (index: number): number | undefined => this.#window[(index + WINDOW) % WINDOW];
    // The oldest leaves, and the pair that it was half of; then the newest makes one.
    if (total >= WINDOW && at(this.#next) !== at(this.#next + 1)) this.#changes--;
    if (total > 0 && at(this.#next - 1) !== direction) this.#changes++;
    this.#window[this.#next] = direction;
    this.#next = (this.#next + 1) % WINDOW;
  }
}

/** @throws {ConfigurationError} */
export function checkTract(agent: string, tract: unknown): Tract {
  if (tract === 'internal' || tract === 'external') return tract;
  throw new ConfigurationError(
    `Expected the tract of agent "${agent}" to be one of ${TRACTS.join(', ')}, got ${JSON.stringify(tract) ?? String(tract)}.`,
  );
}
