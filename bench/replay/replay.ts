import { pino } from 'pino';
import {
  ConfigurationError,
  createTroupe,
  type Run,
  type RunResult,
  StoppedError,
  type TaskInput,
  type Troupe,
} from '../../src/index.ts';
import { GitError } from '../../src/workspace/git.ts';
import { expectedTree } from './expected-tree.ts';
import {
  type Ending,
  judgeBad,
  judgeGood,
  judgeLoser,
  readEnding,
  type TaskReport,
  taskReport,
} from './judge.ts';
import { commitsSince, findRed, findUnproved } from './main-check.ts';
import type { Workload } from './manifest.ts';
import type { Plan, PlannedTask } from './plan.ts';
import type { Scratch } from './scratch.ts';
import { watchTiming } from './timing.ts';
import { DEPENDENCIES_MISSING, PASSED_ON, verifyStart } from './verify-tree.ts';

export interface ReplayOptions {
  readonly agents: number;
  /** Run the script on every commit of main once more at the end, without the product. */
  readonly checkMain: boolean;
  readonly signal: AbortSignal;
}

/** What is written to the file of `--json`. */
export interface ReplayReport {
  readonly name: string;
  readonly scenario: string;
  readonly agents: number;
  /** From the start of the run to where nothing moves any more. */
  readonly seconds: number;
  readonly main_tree: string;
  readonly tree_ok: boolean;
  readonly tasks: readonly TaskReport[];
  readonly wrong: readonly string[];
  readonly merges: number;
  readonly verifications: number;
  readonly overhead_ms_per_task: number;
  readonly expected_tree: string | null;
  /** Commits of main without an accepted verdict of their tree, or, with `--check-main`, that are red. */
  readonly main_wrong: readonly string[];
  /** `green`, or how the script ended on the start. */
  readonly base: string;
  /** Changes that ran although the scenario does not list them: one that it lists depends on them. */
  readonly added: readonly string[];
  /** Good changes that the product did not merge without a person's word; the replay gave it. */
  readonly approved: readonly string[];
  readonly merges_per_second: number;
  readonly verify_ms_per_verification: number;
}

const RUN = 'replay';
const AGENT = 'patch';

/** Plays a scenario in a scratch clone. */
export async function replay(
  scratch: Scratch,
  workload: Workload,
  plan: Plan,
  options: ReplayOptions,
): Promise<ReplayReport> {
  const base = await cloneBase(scratch, workload);
  const start = await verifyStart(scratch, workload, base, options.signal);
  // Two from the same base at once need an agent each.
  const agents = Math.max(options.agents, plan.contenders.size);
  const troupe = await open(scratch, workload);
  // A run that is told to stop waits for nothing: whoever asks for its result gets a StoppedError.
  const stop = (): void => void troupe.stop();
  options.signal.addEventListener('abort', stop, { once: true });
  try {
    if (options.signal.aborted) throw new StoppedError('The replay was told to stop.');
    troupe.patchAgent(AGENT, { concurrency: agents });
    const timing = watchTiming(troupe, workload.verify.script);
    const began = performance.now();
    const run = await troupe.start({
      id: RUN,
      title: `${workload.name}, ${plan.scenario.name}`,
      tasks: plan.tasks.map((task) => taskInput(task, plan)),
    });
    const result = await playThrough(run, plan);
    const seconds = (performance.now() - began) / 1000;
    const { verifications, verifyMs, overheadMs } = timing.stop();

    const states = new Map(result.tasks.map((status) => [status.id, status]));
    const endings: Ending[] = [];
    for (const task of plan.tasks) {
      const status = states.get(task.id);
      if (status !== undefined) endings.push(await readEnding(run, task, status));
    }
    const tasks = judge(scratch, plan, endings);
    const commits = await commitsSince(scratch, base);
    const unproved = findUnproved(scratch, RUN, commits);
    const red = options.checkMain ? await findRed(scratch, workload, commits, options.signal) : [];
    const mainTree = commits.at(-1)?.tree ?? (await treeOf(scratch, base));
    const wanted = await expectedTree(scratch, workload, base, mustBeMerged(plan, endings));
    return {
      name: workload.name,
      scenario: plan.scenario.name,
      agents,
      seconds: round(seconds, 3),
      main_tree: mainTree,
      tree_ok: mainTree === wanted && unproved.length + red.length === 0,
      tasks,
      wrong: tasks.flatMap(({ id, wrong }) => (wrong === undefined ? [] : [id])),
      merges: commits.length,
      verifications,
      overhead_ms_per_task: round(overheadMs / plan.tasks.length, 1),
      expected_tree: wanted ?? null,
      main_wrong: [...unproved, ...red],
      base: start,
      added: plan.added,
      approved: plan.tasks.flatMap(({ id, change }) =>
        result.approved.has(id) ? [change.id] : [],
      ),
      merges_per_second: round(commits.length / seconds, 2),
      verify_ms_per_verification: verifications === 0 ? 0 : round(verifyMs / verifications, 1),
    };
  } finally {
    options.signal.removeEventListener('abort', stop);
    await troupe.stop();
  }
}

async function open(scratch: Scratch, workload: Workload): Promise<Troupe> {
  const { script, timeoutMs } = workload.verify;
  const limits = [...workload.changes.values()].map(({ bad }) => bad?.timeoutMs ?? 0);
  return await createTroupe({
    store: `${scratch.directory}/state.db`,
    durability: 'full',
    project: {
      directory: scratch.project,
      stateDirectory: scratch.state,
      verify: [
        {
          name: 'test',
          command: [script],
          timeoutMs,
          infrastructureExitCodes: [DEPENDENCIES_MISSING],
        },
      ],
      verifyTimeoutMs: ({ input }) => (input as { timeoutMs?: number } | null)?.timeoutMs,
      environment: PASSED_ON,
    },
    // A verification shows no sign of life until it ends.
    heartbeatMs: Math.max(600_000, timeoutMs + 120_000, ...limits.map((ms) => ms + 120_000)),
    retention: false,
    // What goes wrong is in the report.
    logger: pino({ level: 'fatal' }, pino.destination(2)),
  });
}

/** Waits are short: nothing here is rate limited, and what a task waits for is another task. */
const BACKOFF = { initialMs: 200, factor: 2, maxMs: 2_000 };
const INFRASTRUCTURE = { initialMs: 500, factor: 2, maxMs: 5_000 };
/** Of a change that is good by itself, and may meet a machine that is busy. */
const ATTEMPTS = 3;

function taskInput(task: PlannedTask, { contenders, scenario }: Plan): TaskInput {
  const { change, id, dependsOn, patches } = task;
  // A bad one gets no second try: it would be the same patch. Neither does one that has lost a race.
  const once = change.bad !== undefined || contenders.has(change);
  const attempts = once ? 1 : Math.max(ATTEMPTS, patches.length);
  return {
    id,
    title: change.title.toWellFormed().slice(0, 10_000),
    agent: AGENT,
    dependsOn: scenario.ignoreDependsOn ? [] : dependsOn,
    input: {
      patches,
      ...(change.bad?.timeoutMs === undefined ? {} : { timeoutMs: change.bad.timeoutMs }),
    },
    limits: {
      attempts,
      // The patches of a sequence may well be wrong in the same way; the number of attempts is limit enough.
      sameError: attempts + 1,
      sameChange: attempts + 1,
      sameFeedback: attempts + 1,
      infrastructureAttempts: 4,
      backoff: BACKOFF,
      infrastructureBackoff: INFRASTRUCTURE,
    },
  };
}

/** So often a good change is approved; it asks again only when it was made anew. */
const APPROVALS = 3;

/**
 * Waits until nothing moves any more, and is the person meanwhile that the product asks. That one knows from the manifest
 * which changes are good: of these it approves what waits for its word, of the others nothing.
 *
 * Where dependencies are left out, a change that is stopped may only have come too early: as long as something was merged
 * since, all that are stopped get another chance. So there are at most as many rounds as changes, and the last one has
 * shown that no further one would help.
 * @returns also the ids of the tasks that were approved
 */
export async function playThrough(
  run: Run,
  { scenario, tasks }: Pick<Plan, 'scenario' | 'tasks'>,
): Promise<RunResult & { readonly approved: ReadonlySet<string> }> {
  const good = new Set(tasks.flatMap(({ id, change }) => (change.bad === undefined ? [id] : [])));
  const approvals = new Map<string, number>();
  for (let mergedBefore = 0; ; ) {
    const result = await run.result();
    const idsOf = (...states: readonly string[]) =>
      result.tasks.flatMap(({ id, state }) => (good.has(id) && states.includes(state) ? [id] : []));
    const asking = idsOf('awaitingApproval').filter((id) => (approvals.get(id) ?? 0) < APPROVALS);
    const merged = result.tasks.filter(({ state }) => state === 'done').length;
    const again = scenario.ignoreDependsOn && merged > mergedBefore;
    const stopped = again ? idsOf('blocked', 'escalated') : [];
    if (asking.length + stopped.length === 0) {
      return { ...result, approved: new Set(approvals.keys()) };
    }
    mergedBefore = merged;
    for (const id of asking) approvals.set(id, (approvals.get(id) ?? 0) + 1);
    await Promise.all([
      ...asking.map((id) => run.task(id).decide('approve', { by: 'replay' })),
      ...stopped.map((id) => run.task(id).unblock({ by: 'replay' })),
    ]);
  }
}

function judge(scratch: Scratch, { contenders }: Plan, endings: readonly Ending[]): TaskReport[] {
  const racing = endings.filter(({ task }) => contenders.has(task.change));
  const winners = racing.filter(({ status }) => status.state === 'done');
  return endings.map((ending) => {
    const { change } = ending.task;
    if (contenders.has(change)) {
      const rule = `exactly one of ${racing.map(({ task }) => task.change.id).join(', ')}`;
      if (winners.length !== 1) {
        return taskReport(ending, `expected ${rule} to be merged, got ${winners.length}`);
      }
      return taskReport(ending, winners[0] === ending ? undefined : judgeLoser(ending));
    }
    const wrong = change.bad === undefined ? judgeGood(ending) : judgeBad(scratch, ending);
    return taskReport(ending, wrong);
  });
}

/** All good ones of the scenario, and bad ones that the manifest wants to be merged; of a race the one that won. */
function mustBeMerged({ contenders }: Plan, endings: readonly Ending[]) {
  return endings.flatMap(({ task: { change }, status }) => {
    const state = change.bad?.expect.state;
    const must = contenders.has(change)
      ? status.state === 'done'
      : state === undefined || state === 'done' || state === 'merged';
    return must ? [change] : [];
  });
}

/** @returns the commit that the run starts from */
async function cloneBase(scratch: Scratch, workload: Workload): Promise<string> {
  const { bundle, baseTree } = workload;
  try {
    await scratch.git.run(
      ['clone', '--quiet', '--branch', 'main', '--end-of-options', bundle, scratch.project],
      {
        cwd: scratch.directory,
        // Old histories hold what git would not write any more; it is there already.
        config: ['fetch.fsckObjects=false'],
        timeoutMs: 600_000,
      },
    );
  } catch (error) {
    if (!(error instanceof GitError) || error.infrastructure) throw error;
    throw new ConfigurationError(
      `Expected ${bundle} to be a git bundle with the branch main; it cannot be cloned: ${error.stderr.trim()}`,
      { cause: error },
    );
  }
  const base = await scratch.git.text(['rev-parse', '--verify', 'refs/heads/main'], {
    cwd: scratch.project,
  });
  const tree = await treeOf(scratch, base);
  if (baseTree === undefined || baseTree === tree) return base;
  throw new ConfigurationError(
    `Expected main of ${bundle} to have the tree ${baseTree} (base_tree of the manifest), got ${tree}.`,
  );
}

async function treeOf(scratch: Scratch, commit: string): Promise<string> {
  return await scratch.git.text(['rev-parse', '--verify', `${commit}^{tree}`], {
    cwd: scratch.project,
  });
}

const round = (value: number, digits: number): number => Number(value.toFixed(digits));
