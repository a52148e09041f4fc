import type { Logger } from 'pino';
import type { EngineContext } from '../../src/actors/engine.ts';
import type { Judgement, VerifyContext } from '../../src/actors/gatekeeper.ts';
import type { Escalation, PolicyDecision } from '../../src/actors/overseer.ts';
import type { TaskState } from '../../src/protocol/catalogue.ts';
import { NotFoundError, StoppedError, TroupeError } from '../../src/protocol/errors.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import type { Clock } from '../../src/runtime/clock.ts';
import { SUSPECT_ALONE_MS } from '../../src/runtime/effect-runner.ts';
import { DeliveryFault } from '../../src/runtime/fault-points.ts';
import { MemoryData } from '../../src/store/memory/memory-data.ts';
import { createTroupe, type RunSpec, type Troupe } from '../../src/troupe.ts';
import { demand, Ledger, Violation } from './invariants.ts';
import { Order } from './order.ts';
import type { Fault, PersonAction, PersonDoes, Scenario, Verification, Work } from './scenario.ts';
import { SimulatedStore, type Tampering } from './simulated-store.ts';

const RUN = 'r';
const START = Date.UTC(2026, 0, 1);
/** What is due later than this (a question without a time limit) is not waited for. */
const HORIZON_MS = 7 * 86_400_000;
const DOWN_MS = 2 * 86_400_000;
const AGENT_TIMEOUT_MS = 60_000;
const KEEP_CHECKPOINTS = 2;
const PRUNE_EVERY_COMMITS = 20;
/** More steps than this, and the world does not come to rest. */
const MAX_STEPS = 30_000;
/** The longest wait that a background timer ends is a heartbeat of 10 minutes; the host looks round each minute. */
const IDLE_LIMIT = 30;
/** A kind person mends what can be mended, so often. */
const MAX_ROUNDS = 40;

/** Crashes that a task may be under way at, in a row. */
const INTERRUPTIONS = 3;

const CANNOT_JUDGE: ReadonlySet<Verification['do']> = new Set([
  'noEvidence',
  'infrastructure',
  'hang',
]);

const ERRORS = ['the wheel is broken', 'the colour is wrong', 'the key is missing'];
/** Scripts that are gone through over and over. */
const turnOf = <T>(scripts: readonly T[] = [], turn: number): T | undefined =>
  scripts[turn % Math.max(1, scripts.length)];

/** A new one each time: whoever waits for a promise is kept by it. */
const never = (): Promise<never> => new Promise<never>(() => undefined);

interface Timer {
  readonly at: number;
  readonly order: number;
  readonly background: boolean;
  readonly callback: () => void;
}

/** Something that can happen as soon as the scheduler chooses it. */
interface Chance {
  readonly label: () => string;
  readonly happen: () => void;
}

/** One process: from its start to its crash or stop. What it does after its death reaches nothing. */
interface Life {
  readonly number: number;
  readonly store: SimulatedStore;
  dead: boolean;
  troupe: Troupe | undefined;
  ready: boolean;
  stopping: boolean;
  hits: number;
  /** A mailbox of it lost something on purpose: only the next life finds it. */
  dropped: boolean;
  /** Orders of the person that are not answered yet. */
  readonly asked: Set<string>;
  readonly jobs: Map<string, number>;
  /** What would be interrupted if it died now → since when: `agent r/t0@1`, `g r/t0@1`. */
  readonly underWay: Map<string, number>;
}

export interface WorldOptions {
  readonly tampering?: Tampering;
  /** Holds the replay of the whole journal against what is stored, at the end. Default true. */
  readonly replay?: boolean;
  /** Writes down every step. Costs a quarter more time. Default false. */
  readonly trace?: boolean;
  /** How often the host has used up its time slice when it asks. The more, the more waits in mailboxes. Default 0.1. */
  readonly shortSlices?: number;
  /** What fails goes on failing while it is mended. Default false: from then on nothing fails. */
  readonly harsh?: boolean;
}

export interface WorldReport {
  readonly steps: number;
  readonly lives: number;
  /** Hits of fault points, life by life. */
  readonly hits: readonly number[];
  /** Which of the scenario's faults have happened. */
  readonly fired: readonly Fault['do'][];
  readonly outcome: string;
  readonly turns: number;
  /** How often something that was handed in was verified once more, and not worked on. */
  readonly verifiedAgain: number;
  /** How often a checkpoint was found gone, each of them at each pruning after it. */
  readonly pruned: number;
  /** How often the process died of a task's work, and how often a task was given up for it. */
  /** Tasks that were rolled back, and that began as copies. */
  readonly rolledBack: number;
  readonly forked: number;
  readonly deathsByWork: number;
  readonly givenUp: number;
  /** How often another agent was asked to mend what was rejected. */
  readonly mended: number;
}

/**
 * A world without real time and real I/O. One scheduler owns every order: what the host defers, when the disk carries
 * a call out and when it answers, which timer is due, when work ends, what a person does, and when the process dies.
 * The same scenario gives the same world, step by step.
 */
export class World {
  readonly disk = new MemoryData();
  readonly trace: string[] = [];
  deathsByWork = 0;
  /** Times that somebody was asked to mend something. */
  mended = 0;
  readonly #scenario: Scenario;
  readonly #order: Order;
  readonly #ledger: Ledger;
  readonly #tampering: Tampering;
  readonly #replay: boolean;
  readonly #harsh: boolean;
  readonly #shortSlices: number;
  /** History is removed as the world goes on: in half of the worlds, so that in the others all checkpoints can be gone back to. */
  readonly #prunes: boolean;
  readonly #tracing: boolean;
  readonly #concurrency: Map<string, number>;
  #now = START;
  #steps = 0;
  #ids = 0;
  #timerOrder = 0;
  /** Background timers that fired in a row, and nothing else happened. */
  #idle = 0;
  #commits = 0;
  #reads = 0;
  #deliveries = 0;
  #lives = 0;
  readonly #fired: Fault['do'][] = [];
  readonly #hits: number[] = [];
  #timers: Timer[] = [];
  #deferred: (() => void)[] = [];
  #chances: Chance[] = [];
  #life: Life | undefined;
  #person: PersonAction[];
  /** From now on nothing fails, and whoever is asked helps. */
  #kind = false;
  #broken: Violation | undefined;
  /** Steps that were kept: `scope key` → result. */
  readonly #keptSteps = new Map<string, string>();
  /** Scope → how often its steps were given up by a rollback. */
  readonly #forgotten = new Map<string, number>();
  readonly #policyAsked = new Map<string, number>();
  /** How often in a row the process has died while this was under way. */
  readonly #interruptions = new Map<string, number>();
  /** `task@attempt` → how often the gatekeeper was asked about it and could not say. */
  readonly #notJudged = new Map<string, number>();
  // How likely it is that something slow goes on: a slow disk in one world, slow work in another.
  readonly #weights: { readonly disk: number; readonly work: number; readonly time: number };

  constructor(scenario: Scenario, options: WorldOptions = {}) {
    this.#scenario = scenario;
    this.#order = new Order(scenario.order);
    this.#tampering = options.tampering ?? {};
    this.#replay = options.replay ?? true;
    this.#harsh = options.harsh ?? false;
    this.#shortSlices = options.shortSlices ?? 0.1;
    this.#prunes = scenario.tasks.length % 2 === 0;
    this.#tracing = options.trace ?? false;
    this.#person = [...scenario.person].sort((a, b) => a.after - b.after);
    this.#concurrency = new Map([
      ...scenario.agents.map((n, i) => [`agent/a${i}`, n] as const),
      ...(scenario.qa === undefined ? [] : [['agent/m', scenario.qa.concurrency] as const]),
      ['gatekeeper/g', scenario.gatekeeper],
    ]);
    this.#ledger = new Ledger(this.disk, this.#concurrency, (task, attempt) => {
      // It has ended, or was called back because its answer was overdue, or was rolled back: the next request has a count
      // of its own.
      const name = `${task.slice('task/'.length)}@${attempt ?? ''}`;
      const isMeant = (job: string): boolean => {
        const what = job.slice(job.indexOf(' ') + 1);
        if (attempt === undefined) return what.startsWith(name);
        // Whoever mends an attempt has one request after the other, each of its own.
        return what === name || what.startsWith(`${name}.`);
      };
      for (const job of this.#interruptions.keys()) {
        if (isMeant(job)) this.#interruptions.delete(job);
      }
      // What was given up with the rollback is not under way any more, though it may not have heard of it yet.
      const underWay = attempt === undefined ? this.#life?.underWay : undefined;
      for (const job of underWay?.keys() ?? []) if (isMeant(job)) underWay?.delete(job);
    });
    const pick = <T>(of: readonly T[]): T => of[this.#order.pick(of.length)] as T;
    this.#weights = {
      disk: pick([4, 1, 0.2]),
      work: pick([1, 1, 0.2]),
      time: pick([0, 0.05, 0.5]),
    };
  }

  /**
   * Lives the scenario through, mends what is left, and checks everything.
   * @throws {Violation}
   */
  async live(): Promise<WorldReport> {
    try {
      await this.#untilRest();
      for (const run of this.disk.runs.keys()) this.#ledger.atRest(run);
      await this.#mend();
      for (const run of this.disk.runs.keys()) this.#ledger.ended(run);
      await this.#end();
      const turns = this.#replay ? this.#ledger.replay() : 0;
      return {
        steps: this.#steps,
        lives: this.#lives,
        hits: this.#hits,
        fired: this.#fired,
        outcome: this.#ledger.outcome(RUN),
        turns,
        verifiedAgain: this.#ledger.verifiedAgain,
        pruned: this.#ledger.prunedCheckpoints,
        rolledBack: this.#ledger.rolledBack,
        forked: this.#ledger.forked,
        deathsByWork: this.deathsByWork,
        mended: this.mended,
        givenUp: this.#ledger.givenUp,
      };
    } finally {
      this.#kill();
    }
  }

  // ── the scheduler ────────────────────────────────────────────────────────────────────────────────────

  async #untilRest(): Promise<void> {
    this.#idle = 0;
    for (;;) {
      await settled();
      if (this.#broken !== undefined) throw this.#broken;
      if (this.#life === undefined || this.#life.dead) {
        this.#begin();
        continue;
      }
      if (this.#faultsDue()) continue;
      // What a mailbox has lost would come after what was sent later; so nothing later is let in.
      if (this.#life.dropped) this.#crash('a delivery was dropped');
      if (this.#life.dead) continue;
      if (!this.#step()) {
        demand(!this.#life.stopping, () => 'Nothing moves, and stop() has not ended.');
        return;
      }
      if (++this.#steps > MAX_STEPS) {
        throw new Violation(`The world does not come to rest in ${MAX_STEPS} steps.`);
      }
    }
  }

  /** Does one of the things that can happen now. False: nothing can. */
  #step(): boolean {
    const life = this.#life as Life;
    const { store } = life;
    const next = this.#nextTimer();
    const person = life.ready && !life.stopping ? this.#person[0] : undefined;
    // A host looks round for what is idle as long as something is not: that alone is no life.
    if (this.#idle > IDLE_LIMIT && person === undefined) return false;
    const runnable =
      this.#deferred.length + store.waiting + store.unanswered + this.#chances.length > 0;
    const due = next !== undefined && next.at <= this.#now;
    const weights = [
      this.#deferred.length > 0 ? 4 : 0,
      store.waiting > 0 ? this.#weights.disk : 0,
      store.unanswered > 0 ? this.#weights.disk : 0,
      this.#chances.length * this.#weights.work,
      person !== undefined && person.after <= this.#steps ? 1 : 0,
      next === undefined ? 0 : due ? 2 : runnable ? this.#jump(next) : 1,
    ];
    const choice = this.#choose(weights);
    this.#idle = choice === 5 && next?.background === true ? this.#idle + 1 : 0;
    switch (choice) {
      case 0: {
        const [callback] = this.#deferred.splice(this.#order.pick(this.#deferred.length), 1);
        this.#pump(callback as () => void);
        return true;
      }
      case 1: {
        const { name, stored } = store.carryOut();
        this.#say(() => `disk: ${name}${stored === undefined ? '' : describe(stored)}`);
        if (stored !== undefined) {
          this.#forget(stored.clearedSteps);
          this.#ledger.committed(new Set(stored.checkpoints.map(({ address }) => address)));
          if (this.#prunes && this.#commits % PRUNE_EVERY_COMMITS === 0) this.#prune(life);
        }
        if (name === 'prune') this.#ledger.pruned(KEEP_CHECKPOINTS);
        return true;
      }
      case 2:
        {
          const answered = store.answer();
          this.#say(() => `disk answers: ${answered}`);
        }
        return true;
      case 3: {
        const [chance] = this.#chances.splice(this.#order.pick(this.#chances.length), 1);
        this.#say(() => (chance as Chance).label());
        (chance as Chance).happen();
        return true;
      }
      case 4:
        this.#person.shift();
        this.#order_(life, person as PersonAction);
        return true;
      case 5:
        this.#fire(next as Timer);
        return true;
      default:
    }
    // Nothing moves: the person does not wait any longer.
    if (person === undefined) return false;
    this.#person.shift();
    this.#order_(life, person);
    return true;
  }

  /** Steps of an attempt that was rolled back are done again. */
  #forget(scopes: readonly string[]): void {
    for (const scope of scopes) {
      this.#forgotten.set(scope, (this.#forgotten.get(scope) ?? 0) + 1);
      for (const key of this.#keptSteps.keys()) {
        if (key.startsWith(`${scope} `)) this.#keptSteps.delete(key);
      }
    }
  }

  /** Time passes while other things could happen: only in some worlds, and not over long waits. */
  #jump(next: Timer): number {
    return next.at - this.#now > 10_000 ? this.#weights.time / 20 : this.#weights.time;
  }

  #choose(weights: readonly number[]): number {
    if (this.#order.fair) return weights.findIndex((weight) => weight > 0);
    let sum = 0;
    for (const weight of weights) sum += weight;
    let at = (this.#order.pick(1_000_000) / 1_000_000) * sum;
    let last = -1;
    for (let i = 0; i < weights.length; i++) {
      const weight = weights[i] as number;
      if (weight === 0) continue;
      last = i;
      at -= weight;
      if (at < 0) break;
    }
    return last;
  }

  #nextTimer(): Timer | undefined {
    let next: Timer | undefined;
    for (const timer of this.#timers) {
      if (
        next === undefined ||
        timer.at < next.at ||
        (timer.at === next.at && timer.order < next.order)
      ) {
        next = timer;
      }
    }
    return next === undefined || next.at > this.#now + HORIZON_MS ? undefined : next;
  }

  #fire(timer: Timer): void {
    if (timer.at > this.#now) {
      this.#say(() => `${timer.at - this.#now} ms pass`);
      this.#now = timer.at;
    }
    this.#timers.splice(this.#timers.indexOf(timer), 1);
    timer.callback();
  }

  /** Runs the host; its time slice is used up when the scheduler says so, not when this machine is slow. */
  #pump(callback: () => void): void {
    const clock = performance as { now: () => number };
    const own = Object.getOwnPropertyDescriptor(clock, 'now');
    let ms = 0;
    clock.now = () => {
      if (this.#order.chance(this.#shortSlices)) ms += 1_000;
      return ms;
    };
    try {
      callback();
    } finally {
      if (own === undefined) delete (clock as { now?: unknown }).now;
      else Object.defineProperty(clock, 'now', own);
    }
  }

  #say(line: () => string): void {
    if (this.#tracing) this.trace.push(line());
  }

  // ── life and death ───────────────────────────────────────────────────────────────────────────────────

  #begin(): void {
    if (this.#life !== undefined) {
      this.#sweep(this.#life);
      for (const job of this.#life.underWay.keys()) {
        this.#interruptions.set(job, (this.#interruptions.get(job) ?? 0) + 1);
      }
    }
    const number = this.#lives++;
    this.#hits.push(0);
    const life: Life = {
      number,
      store: new SimulatedStore(
        this.disk,
        { commit: () => this.#commitFault(), read: () => this.#readFault() },
        this.#tampering,
      ),
      dead: false,
      troupe: undefined,
      ready: false,
      stopping: false,
      hits: 0,
      dropped: false,
      asked: new Set(),
      jobs: new Map(),
      underWay: new Map(),
    };
    this.#life = life;
    this.#say(() => `life ${number} begins`);
    this.#open(life).catch((error: unknown) => {
      if (life.dead || life.stopping) return;
      // The disk failed while the process started: it ends, and is started again.
      if (error instanceof TroupeError && this.#fired.length > 0) {
        this.#say(() => `life ${number} did not start: ${error.message}`);
        life.dead = true;
        this.#sweep(life);
      } else this.#breaks(`The process could not start: ${describeError(error)}`);
    });
  }

  async #open(life: Life): Promise<void> {
    const clock: Clock = {
      now: () => this.#now,
      setTimer: (delayMs, callback, background = false) => {
        if (life.dead) return () => undefined;
        const order = this.#timerOrder++;
        const timer: Timer = { at: this.#now + delayMs, order, background, callback };
        this.#timers.push(timer);
        return () => {
          const at = this.#timers.indexOf(timer);
          if (at >= 0) this.#timers.splice(at, 1);
        };
      },
    };
    const troupe = await createTroupe({
      store: life.store,
      clock,
      logger: this.#logger(),
      newId: () => `id-${++this.#ids}`,
      // Time passes here while the disk takes its time, also more than anybody would wait for a start.
      startTimeoutMs: 1_000_000_000,
      retention: this.#prunes ? { checkpointsPerActor: KEEP_CHECKPOINTS } : false,
      faultPoint: (name) => this.#faultPoint(life, name),
      defer: (callback) => {
        if (!life.dead) this.#deferred.push(callback);
      },
    });
    if (life.dead) return;
    life.troupe = troupe;
    if (this.#tracing) {
      troupe.on('turn', (turn) => {
        if (life.dead) return;
        const from = turn.event === null ? 'begins' : turn.event.type;
        this.trace.push(`  ${turn.address} #${turn.seq} ${from} → ${JSON.stringify(turn.state)}`);
      });
    }
    troupe.on('failed', (error) => this.#stop(life, error.message, false));
    this.#scenario.agents.forEach((concurrency, i) => {
      troupe.agent(`a${i}`, (context) => this.#engine(life, `a${i}`, context), {
        concurrency,
        timeoutMs: AGENT_TIMEOUT_MS,
      });
    });
    if (this.#scenario.qa !== undefined) {
      troupe.agent('m', (context) => this.#engine(life, 'm', context), {
        concurrency: this.#scenario.qa.concurrency,
        timeoutMs: AGENT_TIMEOUT_MS,
        stages: ['qa'],
      });
    }
    troupe.gatekeeper('g', (context) => this.#verify(life, context), {
      concurrency: this.#scenario.gatekeeper,
    });
    troupe.overseer((escalation) => this.#policy(life, escalation));
    await troupe.start(this.#spec());
    demand(this.disk.actors.has(`run/${RUN}`), () => 'start() resolved before the run was stored.');
    life.ready = true;
  }

  #spec(): RunSpec {
    const { tasks, limits, concurrency, qa } = this.#scenario;
    const backoff = { initialMs: 10, factor: 2, maxMs: 100, jitter: 0.2 };
    return {
      id: RUN,
      limits: {
        ...limits,
        backoff,
        infrastructureBackoff: backoff,
        interruptions: INTERRUPTIONS,
      },
      ...(concurrency === 0 ? {} : { concurrency }),
      ...(qa === undefined
        ? {}
        : { qa: { agent: 'm', sessions: qa.sessions, iterations: qa.iterations } }),
      tasks: tasks.map((task, i) => ({
        id: `t${i}`,
        agent: `a${task.agent % this.#scenario.agents.length}`,
        gatekeeper: 'g',
        dependsOn: task.dependsOn.map((index) => `t${index}`),
        priority: task.priority,
        staged: task.staged,
      })),
    };
  }

  #crash(why: string): void {
    const life = this.#life as Life;
    this.#say(() => `CRASH: ${why}`);
    life.dead = true;
    this.#sweep(life);
  }

  /** Everything of a process that is gone. */
  #sweep(life: Life): void {
    life.store.kill();
    this.#timers = [];
    this.#deferred = [];
    this.#chances = [];
  }

  #kill(): void {
    if (this.#life === undefined) return;
    this.#life.dead = true;
    this.#sweep(this.#life);
  }

  /** Stops the process as an app would, and looks whether everything lets go. */
  #stop(life: Life, why: string, drain: boolean): void {
    if (life.dead || life.stopping || life.troupe === undefined) return;
    life.stopping = true;
    this.#say(() => `STOP: ${why}`);
    life.troupe.stop({ drain, graceMs: 1_000 }).then(
      () => {
        if (life.dead) return;
        this.#say(() => 'stopped');
        // What was asked is answered with an error by now; its handlers run after this one.
        this.#chances.push({ label: () => 'the process is gone', happen: () => this.#gone(life) });
      },
      (error: unknown) => this.#breaks(`stop() failed: ${describeError(error)}`),
    );
  }

  #gone(life: Life): void {
    if (life.asked.size > 0)
      this.#breaks(`Stopped, but never answered: ${[...life.asked].join(', ')}.`);
    if (this.#timers.length > 0)
      this.#breaks(`Stopped, but ${this.#timers.length} timers are set.`);
    life.dead = true;
    this.#sweep(life);
  }

  async #end(): Promise<void> {
    const life = this.#life as Life;
    demand(life.troupe !== undefined, () => 'The last life did not start.');
    const { requests, effects } = life.troupe.host.load;
    demand(
      requests === 0 && effects === 0,
      () => `At the end ${requests} requests and ${effects} effects are open.`,
    );
    this.#stop(life, 'the end', true);
    for (let i = 0; !life.dead; i++) {
      await settled();
      if (this.#broken !== undefined) throw this.#broken;
      if (life.dead) break;
      demand(this.#step() && i < 1_000, () => 'stop() hangs.');
    }
    if (this.#broken !== undefined) throw this.#broken;
  }

  // ── what fails ───────────────────────────────────────────────────────────────────────────────────────

  /** True: something failed just now, and has consequences. */
  #faultsDue(): boolean {
    if (this.#kind) return false;
    const life = this.#life as Life;
    for (const fault of this.#scenario.faults) {
      if ((fault.do === 'crash' || fault.do === 'down') && fault.step === this.#steps) {
        this.#fired.push(fault.do);
        this.#steps++;
        this.#crash(`at step ${fault.step}`);
        if (fault.do === 'down') {
          this.#say(() => 'two days pass');
          this.#now += DOWN_MS;
        }
        return true;
      }
      if (fault.do === 'stop' && fault.step === this.#steps && life.ready && !life.stopping) {
        this.#fired.push(fault.do);
        this.#steps++;
        this.#stop(life, `at step ${fault.step}`, fault.drain);
        return true;
      }
    }
    return false;
  }

  #faultPoint(life: Life, name: string): void | Promise<void> {
    if (life.dead) return never();
    life.hits++;
    this.#hits[life.number] = life.hits;
    const delivery = name === 'bus.deliver' ? ++this.#deliveries : 0;
    if (this.#kind) return;
    for (const fault of this.#scenario.faults) {
      if (fault.do === 'crashAtPoint' && fault.life === life.number && fault.hit === life.hits) {
        this.#fired.push(fault.do);
        this.#say(() => `CRASH: at ${name}`);
        life.dead = true;
        life.store.kill();
        return never();
      }
      if ((fault.do === 'duplicate' || fault.do === 'drop') && fault.nth === delivery) {
        this.#fired.push(fault.do);
        this.#say(() => `${fault.do} of a delivery`);
        if (fault.do === 'drop') life.dropped = true;
        throw new DeliveryFault(fault.do);
      }
    }
  }

  /** A person prunes by hand, at any moment. */
  #prune(life: Life): void {
    life.troupe?.prune().catch((error: unknown) => {
      const known = error instanceof TroupeError && error.code !== 'conflict';
      if (!known && !life.dead) this.#breaks(`Pruning was answered with ${describeError(error)}`);
    });
  }

  #commitFault(): 'unstored' | 'stored' | undefined {
    this.#commits++;
    if (this.#kind) return undefined;
    for (const fault of this.#scenario.faults) {
      if (fault.do === 'commitFails' && fault.nth === this.#commits) {
        this.#fired.push(fault.do);
        return fault.stored ? 'stored' : 'unstored';
      }
    }
    return undefined;
  }

  #readFault(): 'unstored' | false {
    this.#reads++;
    if (this.#kind) return false;
    const fails = this.#scenario.faults.some((f) => f.do === 'readFails' && f.nth === this.#reads);
    if (fails) this.#fired.push('readFails');
    return fails && 'unstored';
  }

  #breaks(message: string): void {
    this.#broken ??= new Violation(message);
  }

  // ── agents, gatekeeper, policy ───────────────────────────────────────────────────────────────────────

  /** Resolves when the scheduler chooses it; rejects when the signal is aborted first. */
  #soon(life: Life, label: () => string, signal?: AbortSignal): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      if (life.dead) return;
      signal?.throwIfAborted();
      const chance: Chance = { label, happen: resolve };
      this.#chances.push(chance);
      signal?.addEventListener(
        'abort',
        () => {
          const at = this.#chances.indexOf(chance);
          if (at >= 0) this.#chances.splice(at, 1);
          reject(signal.reason as Error);
        },
        { once: true },
      );
    });
  }

  async #takes(life: Life, ms: number, label: () => string, signal: AbortSignal): Promise<void> {
    if (ms > 0) {
      await new Promise<void>((resolve, reject) => {
        if (life.dead) return;
        signal.throwIfAborted();
        const order = this.#timerOrder++;
        const timer = { at: this.#now + ms, order, background: false, callback: resolve };
        this.#timers.push(timer);
        signal.addEventListener(
          'abort',
          () => {
            const at = this.#timers.indexOf(timer);
            if (at >= 0) this.#timers.splice(at, 1);
            reject(signal.reason as Error);
          },
          { once: true },
        );
      });
    }
    await this.#soon(life, label, signal);
  }

  async #engine(life: Life, agent: string, context: EngineContext): Promise<JsonValue> {
    if (life.dead) return never();
    const { task, signal, step } = context;
    const index = Number(task.id.slice(1));
    const { fix, attempt } = task;
    const planned =
      fix === null
        ? this.#scenario.tasks[index]?.work[attempt - 1]
        : turnOf(this.#scenario.qa?.work, index + attempt + fix.number);
    const script: Work = (!this.#kind && planned) || { do: 'submit', variant: 0, ms: 0, steps: 0 };
    const name = `${task.id}@${attempt}${fix === null ? '' : `.fix${fix.number}`}`;
    if (fix !== null) {
      this.mended++;
      const { sessions = 0, iterations = 0 } = this.#scenario.qa ?? {};
      if (agent !== 'm' || fix.session > sessions || fix.iteration > iterations) {
        this.#breaks(`${agent} is asked to mend ${name}: ${JSON.stringify(fix)}`);
      }
    }
    const label = (): string => `${agent}: ${script.do} ${name}`;
    this.#say(() => `${agent} begins ${name}`);
    const begun = `agent ${task.run}/${name}`;
    const interruptions = this.#interruptions.get(begun) ?? 0;
    const release = this.#occupy(life, `agent/${agent}`, begun, signal);
    try {
      for (let i = 0; i < script.steps; i++) {
        const scope = `task/${task.run}/${name}`;
        const forgotten = this.#forgotten.get(scope);
        const value = await step(`s${i}`, async () => {
          this.#stepBegins(scope, `s${i}`);
          await this.#soon(life, () => `${agent}: step ${i} of ${name}`, signal);
          return `${name}/s${i}`;
        });
        // Stored, and given up before it was heard of: this attempt is being called off.
        if (this.#forgotten.get(scope) !== forgotten) continue;
        this.#stepKept(scope, `s${i}`, value, `${name}/s${i}`);
      }
      await this.#takes(life, script.ms, label, signal);
      switch (script.do) {
        case 'fail':
          throw new Error(ERRORS[script.variant] ?? ERRORS[0]);
        case 'infrastructure':
          throw new TroupeError('unavailable', 'The tools are not there.');
        case 'ask': {
          const answer = await context.ask({
            id: 'q',
            text: 'Which one?',
            ...(script.variant === 0 ? {} : { timeoutMs: 500 }),
            ...(script.variant === 1 ? { default: 'the default' } : {}),
          });
          return { task: task.id, attempt: task.attempt, answer };
        }
        case 'hang':
          await new Promise((_, reject) => {
            signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
          });
          break;
        case 'deaf':
          await never();
          break;
        case 'die':
          if (life.dead || (script.variant < 2 && interruptions > script.variant)) break;
          this.#crash(`of ${begun}`);
          this.deathsByWork++;
          await never();
          break;
        default:
      }
      const by = fix === null ? {} : { fix: fix.number };
      return script.do === 'submit' && script.variant > 0
        ? { task: task.id, change: script.variant, ...by }
        : { task: task.id, attempt, ...by };
    } finally {
      release();
    }
  }

  async #verify(life: Life, { submission, signal, step }: VerifyContext): Promise<Judgement> {
    if (life.dead) return never();
    const { id, attempt } = submission;
    const index = Number(id.slice(1));
    const result = submission.result as { task?: string; attempt?: number; fix?: number };
    const scripted =
      result.fix === undefined
        ? this.#scenario.tasks[index]?.verify[attempt - 1]
        : turnOf(this.#scenario.qa?.verify, index + attempt + result.fix);
    const planned = this.#kind ? undefined : scripted;
    const handedIn = `${id}@${attempt}${result.fix === undefined ? '' : `.fix${result.fix}`}`;
    const script: Verification =
      planned === undefined || this.#hasFailedEnough(planned, handedIn)
        ? { do: 'accept', variant: 0, ms: 0 }
        : planned;
    if (result.task !== id || (result.attempt ?? attempt) !== attempt) {
      this.#breaks(`${id}@${attempt} was submitted with the result ${JSON.stringify(result)}.`);
    }
    const release = this.#occupy(
      life,
      'gatekeeper/g',
      `g ${submission.run}/${id}@${attempt}`,
      signal,
    );
    this.#say(() => `g begins ${id}@${attempt}`);
    try {
      await step('look', async () => {
        await this.#soon(life, () => `g: looks at ${id}@${attempt}`, signal);
        return 'seen';
      });
      await this.#takes(life, script.ms, () => `g: ${script.do} ${id}@${attempt}`, signal);
      switch (script.do) {
        case 'reject':
          return { accepted: false, reason: ERRORS[script.variant] ?? '' };
        case 'approval':
          return { needsApproval: ['it is risky'], evidence: ['seen'] };
        case 'noEvidence':
          return { accepted: true, evidence: [] };
        case 'infrastructure':
          throw new Error('The disk is full.');
        case 'hang':
          await new Promise((_, reject) => {
            signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
          });
          break;
        default:
      }
      return { accepted: true, evidence: ['seen'] };
    } finally {
      release();
    }
  }

  /** A gatekeeper that cannot judge a submission is asked about the same again: it cannot so often, and then it can. */
  #hasFailedEnough({ do: how, variant }: Verification, submission: string): boolean {
    if (!CANNOT_JUDGE.has(how)) return false;
    const times = this.#notJudged.get(submission) ?? 0;
    this.#notJudged.set(submission, times + 1);
    return times > variant;
  }

  async #policy(life: Life, escalation: Escalation): Promise<PolicyDecision | undefined> {
    if (life.dead) return never();
    await this.#soon(life, () => `policy about ${escalation.id}`);
    const { policy, agents } = this.#scenario;
    const asked = this.#policyAsked.get(escalation.id) ?? 0;
    this.#policyAsked.set(escalation.id, asked + 1);
    // A policy that approves for ever what is rejected for ever would go on for ever.
    const answer = policy[asked];
    if (this.#kind || answer === undefined || answer === 'none') return undefined;
    if (answer !== 'reassign') return { decide: answer };
    return { decide: 'reassign', agent: this.#otherAgent(escalation.agent, agents.length) };
  }

  /** An agent that some task of the run has, so that it has places in it. */
  #otherAgent(agent: string, agents: number): string {
    const inRun = new Set(this.#scenario.tasks.map((task) => `a${task.agent % agents}`));
    return [...inRun].find((name) => name !== agent) ?? agent;
  }

  /** A job runs until it ends or is called off. Never more of them than allowed. */
  #occupy(life: Life, address: string, job: string, signal: AbortSignal): () => void {
    this.#mayBegin(life, job);
    life.underWay.set(job, this.#now);
    const now = (life.jobs.get(address) ?? 0) + 1;
    life.jobs.set(address, now);
    if (now > (this.#concurrency.get(address) ?? 0)) {
      this.#breaks(
        `${address} does ${now} jobs at once, and may do ${this.#concurrency.get(address)}.`,
      );
    }
    let released = false;
    const release = (): void => {
      if (released) return;
      released = true;
      life.underWay.delete(job);
      this.#interruptions.delete(job);
      life.jobs.set(address, (life.jobs.get(address) ?? 0) - 1);
    };
    signal.addEventListener('abort', release, { once: true });
    return release;
  }

  /** What the process has died with before is not begun for ever, and not beside others of its kind. */
  #mayBegin(life: Life, job: string): void {
    const before = this.#interruptions.get(job) ?? 0;
    if (before >= INTERRUPTIONS) {
      this.#breaks(`${job} was under way at ${before} crashes in a row, and is begun again.`);
    }
    if (before < 2) return;
    for (const [other, since] of life.underWay) {
      if ((this.#interruptions.get(other) ?? 0) < 2) continue;
      if (this.#now - since >= SUSPECT_ALONE_MS) continue;
      this.#breaks(`${job} and ${other} were under way at two crashes in a row, and run together.`);
    }
  }

  #stepBegins(scope: string, key: string): void {
    const kept = this.#keptSteps.get(`${scope} ${key}`);
    const stored = this.disk.steps.get(scope)?.get(key);
    if (kept !== undefined || stored !== undefined) {
      this.#breaks(`Step ${key} of ${scope} had been completed, and runs again.`);
    }
  }

  #stepKept(scope: string, key: string, value: string, expected: string): void {
    this.#keptSteps.set(`${scope} ${key}`, value);
    if (value !== expected) this.#breaks(`Step ${key} of ${scope} returned ${value}.`);
    if (!this.disk.steps.get(scope)?.has(key)) {
      this.#breaks(`Step ${key} of ${scope} returned before its result was stored.`);
    }
  }

  // ── the person ───────────────────────────────────────────────────────────────────────────────────────

  #order_(life: Life, action: PersonAction): void {
    const troupe = life.troupe as Troupe;
    const id = `t${action.task % this.#scenario.tasks.length}`;
    const label = action.do.startsWith('run.') ? action.do : `${action.do} ${id}`;
    const name = `${label} (${++this.#ids})`;
    this.#say(() => `person: ${label}`);
    life.asked.add(name);
    this.#carryOut(troupe, id, action.do, action.run ?? RUN).then(
      (state) => {
        life.asked.delete(name);
        this.#say(() => `person: ${label} → ${String(state)}`);
      },
      (error: unknown) => {
        life.asked.delete(name);
        this.#say(() => `person: ${label} → ${describeError(error)}`);
        const known =
          error instanceof StoppedError ||
          (error instanceof TroupeError &&
            ['conflict', 'timeout', 'unavailable', 'internal'].includes(error.code)) ||
          // What the person wants to go back to is not there any more.
          (this.#prunes && error instanceof NotFoundError && error.message.includes('pruned'));
        if (!known) this.#breaks(`"${label}" was answered with ${describeError(error)}`);
      },
    );
  }

  async #carryOut(
    troupe: Troupe,
    id: string,
    action: PersonDoes,
    runId: string,
  ): Promise<TaskState | undefined> {
    const task = troupe.task(runId, id);
    const run = troupe.run(runId);
    switch (action) {
      case 'cancel':
        return await task.cancel('not wanted', 'ada');
      case 'pause':
        return await task.pause('ada');
      case 'resume':
        return await task.resume('ada');
      case 'unblock':
        return await task.unblock({ by: 'ada' });
      case 'unblockLater':
        return await task.unblock({ by: 'ada', delayMs: 40 });
      case 'answer':
        return await task.answer('q', 'this one', 'ada');
      case 'enable':
        await troupe.send(`task/${runId}/${id}`, { type: 'task.enable' });
        return undefined;
      case 'retry':
      case 'approve':
      case 'block':
        return await task.decide(action, { guidance: 'look again', by: 'ada' });
      case 'reassign':
        return await task.decide(action, {
          agent: this.#otherAgent('', this.#scenario.agents.length),
          by: 'ada',
        });
      case 'decideCancel':
        return await task.decide('cancel', { by: 'ada' });
      case 'skipTo':
        return (await run.skipTo(id, { by: 'ada', strand: true })).state;
      case 'run.pause':
        await run.pause('ada');
        return undefined;
      case 'run.resume':
        await run.resume('ada');
        return undefined;
      case 'run.cancel':
        await run.cancel('not wanted', 'ada');
        return undefined;
      case 'run.checkpoint':
        await run.checkpoint({ label: 'kept' });
        return undefined;
      case 'run.rollback':
        await run.rollback(this.#pickCut(runId));
        return undefined;
      case 'run.fork': {
        const forks = this.disk.runs.size;
        if (forks < 3) await run.fork(this.#pickCut(runId), { id: `f${forks}` });
        return undefined;
      }
      case 'task.rollback': {
        const newest = this.disk.actors.get(`task/${runId}/${id}`)?.seq ?? 0;
        const { to } = await task.rollback(this.#order.pick(newest + 1));
        return to;
      }
    }
  }

  #pickCut(run: string): string {
    const cuts = [...this.disk.cuts.values()].filter(({ cut }) => cut.run === run);
    return cuts[this.#order.pick(cuts.length)]?.cut.id ?? 'start';
  }

  /** The faults are gone, everybody does their best, and a person answers whatever waits: the run must end. */
  async #mend(): Promise<void> {
    this.#kind = !this.#harsh;
    this.#person = [];
    this.#say(() => 'a person mends what can be mended');
    const runs = (): readonly string[] => [...this.disk.runs.keys()];
    const hasEnded = (run: string): boolean =>
      ['done', 'cancelled'].includes(this.disk.runs.get(run)?.state ?? '');
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const open = runs().filter((run) => !hasEnded(run));
      if (open.length === 0) return;
      for (const run of open) this.#help(run);
      await this.#untilRest();
      const { asked } = this.#life as Life;
      demand(
        asked.size === 0,
        () => `Nothing moves, and nobody answered: ${[...asked].join(', ')}.`,
      );
      for (const run of runs()) this.#ledger.atRest(run);
    }
    throw new Violation(`The run has not ended after ${MAX_ROUNDS} rounds of mending.`);
  }

  #help(run: string): void {
    const state = this.disk.runs.get(run)?.state;
    const before = this.#person.length;
    for (const { row } of this.disk.tasks.get(run)?.byId.values() ?? []) {
      const task = Number(row.task.slice(1));
      const rule = this.#scenario.rules?.find((r) => r.task === task && r.state === row.state);
      const action = rule?.do ?? MENDS[row.state as TaskState];
      if (action !== undefined) this.#person.push({ after: 0, do: action, task, run });
    }
    if (state === 'paused') this.#person.push({ after: 0, do: 'run.resume', task: 0, run });
    demand(
      this.#person.length > before,
      () => `Run ${run} is ${state}, and there is nothing to mend.`,
    );
  }

  #logger(): Logger {
    const say = (fields: unknown, message?: string): void => {
      const error = (fields as { err?: unknown }).err;
      const cause = error === undefined ? '' : `: ${describeError(error)}`;
      this.#say(() => `  log: ${message ?? JSON.stringify(fields)}${cause}`);
    };
    const quiet = (): void => undefined;
    return { trace: quiet, debug: quiet, info: quiet, warn: say, error: say, fatal: say } as never;
  }
}

const MENDS: Readonly<Partial<Record<TaskState, PersonDoes>>> = {
  staged: 'enable',
  awaitingInput: 'answer',
  awaitingApproval: 'approve',
  escalated: 'retry',
  blocked: 'unblock',
  paused: 'resume',
};

/** Resolves when every promise that could go on has gone on. Node runs next ticks when no microtask is left. */
function settled(): Promise<void> {
  return new Promise((resolve) => process.nextTick(resolve));
}

function describe(batch: { readonly [table: string]: readonly unknown[] } | object): string {
  const parts = Object.entries(batch)
    .filter(([, rows]) => (rows as readonly unknown[]).length > 0)
    .map(([table, rows]) => `${(rows as readonly unknown[]).length} ${table}`);
  return ` (${parts.join(', ')})`;
}

function describeError(error: unknown): string {
  if (error instanceof Violation) return error.message;
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

/**
 * Lives a scenario through in a new world. If that fails, it is lived through again, and the error tells everything that
 * happened.
 */
export async function simulate(
  scenario: Scenario,
  options: Omit<WorldOptions, 'tampering'> = {},
): Promise<WorldReport> {
  const world = (trace: boolean): World => new World(scenario, { ...options, trace });
  try {
    return await world(false).live();
  } catch (error) {
    const again = world(true);
    const repeated: unknown = await again.live().then(
      () => 'nothing',
      (thrown: unknown) => thrown,
    );
    const said = describeError(error);
    const same =
      describeError(repeated) === said ? '' : `\n(The second time: ${describeError(repeated)})`;
    const lines = again.trace.slice(-400).map((line) => `    ${line}`);
    throw new Violation(
      `${said}${same}\n\nscenario: ${JSON.stringify(scenario)}\n\ntrace (the last ${lines.length} of ${again.trace.length} lines):\n${lines.join('\n')}`,
      { cause: error },
    );
  }
}
