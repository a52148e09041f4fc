import { randomUUID } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { type Checked, checkInvariants } from './invariants.ts';
import { atLast, Life, scratch } from './life.ts';
import { makeProject, type ProjectOrders, paths, RUN, USER_FILES } from './project.ts';
import { processes } from './project-invariants.ts';
import { gitAsUser } from './world.ts';

/** A project of its own, and the lives that work on it. Disposing of it removes both. */
export class ProjectUnderTest implements Disposable {
  readonly home = scratch();
  readonly base = makeProject(this.home);
  readonly directory = paths(this.home).project;
  readonly #tasks: readonly string[];
  readonly #id = randomUUID();
  readonly #remove: () => void;
  /** Lives that were killed. */
  kills = 0;

  /** @param tasks ids of `TASKS` */
  constructor(...tasks: readonly string[]) {
    this.#tasks = tasks;
    this.#remove = atLast(() => {
      // A test that has failed may have left what a restart would have ended.
      for (const { pid } of this.processes()) process.kill(pid, 'SIGKILL');
      rmSync(this.home, { recursive: true, force: true, maxRetries: 3 });
    });
  }

  [Symbol.dispose](): void {
    this.#remove();
  }

  /** Everything that runs on its behalf, whoever has started it. */
  processes(): ReturnType<typeof processes> {
    return processes().filter(({ environment }) => environment.includes(this.marker));
  }

  get marker(): string {
    return `CRASH_MARKER=${this.#id}`;
  }

  /** @param under see `Life` */
  begin(
    orders: Omit<Partial<ProjectOrders>, 'home' | 'tasks'> = {},
    under: readonly string[] = [],
    env: Readonly<Record<string, string>> = {},
  ): Life {
    return new Life(
      'project',
      { home: this.home, tasks: this.#tasks, ...orders },
      { CRASH_MARKER: this.#id, ...env },
      under,
    );
  }

  /** A life that ends by a kill, its own or ours. @returns false when it came to its end untouched */
  async killed(orders: Omit<Partial<ProjectOrders>, 'home' | 'tasks'>): Promise<boolean> {
    const life = this.begin(orders);
    const death = await life.death();
    if (death === 0) return false;
    if (death !== 'SIGKILL') throw new Error(`It ended with ${death}.\n${life.stderr}`);
    this.kills++;
    return true;
  }

  /** What was committed up to a kill is consistent, whatever was cut off. Before the first commit there is nothing. */
  async checkMidway(): Promise<void> {
    if (existsSync(paths(this.home).store)) await this.#check({ atRest: false });
  }

  /**
   * A plain life to the end; then everything must be as if nothing had ever happened.
   * @param states of those tasks that do not end done
   */
  async finish(
    states: Readonly<Record<string, string>> = {},
    orders: Pick<ProjectOrders, 'retry' | 'infrastructureAttempts'> = {},
  ): Promise<Checked> {
    await this.begin(orders).finished();
    return await this.#check({ tasks: states, failures });
  }

  git(...args: string[]): string {
    return gitAsUser(this.directory, ...args);
  }

  head(): string {
    return this.git('rev-parse', 'refs/heads/main');
  }

  tree(): string {
    return this.git('rev-parse', 'refs/heads/main^{tree}');
  }

  #check(expect: Omit<Parameters<typeof checkInvariants>[0]['expect'], 'fired'>): Promise<Checked> {
    const { project, store, history } = paths(this.home);
    return checkInvariants({
      projectDirectory: project,
      storePath: store,
      history,
      expect: {
        fired: this.kills,
        base: this.base,
        untouched: USER_FILES,
        marker: this.marker,
        ...expect,
      },
    });
  }
}

/** What goes wrong in the work itself. Of `left` and `right` whoever comes second fails, if they meet at all. */
function failures(task: string): number | undefined {
  switch (task.slice(RUN.length + 1)) {
    case 'flawed':
      return 1;
    case 'hopeless':
      return 2;
    case 'left':
    case 'right':
      return undefined;
    default:
      return 0;
  }
}
