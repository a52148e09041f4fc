import type { RunSpec, TaskInput } from '../../src/troupe.ts';

/** What one life of `worker.child.ts` is to do. */
export interface WorkerOrders {
  readonly store: string;
  readonly history: string;
  readonly durability?: 'full' | 'normal';
  /** For `FaultPoints`. */
  readonly faults?: string;
  /** Kill yourself when this state of this task (`<run>/<task>`) has been stored. */
  readonly dieWhen?: { readonly task: string; readonly state: string };
  /** When a run has ended, start the next one. */
  readonly endless?: boolean;
  /** Say in the end how long the event loop stood still: the 99th percentile and the longest time, in milliseconds. */
  readonly measureDelay?: boolean;
  /** Stay open when everything is done. */
  readonly linger?: boolean;
  /** Tasks worked on, and submissions looked at, at once. Default 8. */
  readonly concurrency?: number;
  readonly tasks: number;
  /** The first task kills the process each time. */
  readonly poison?: boolean;
  readonly workMs?: number;
}

/** What a task's agent and gatekeeper do with it; its input. */
export interface TaskPlan {
  /** The agent fails so often before it succeeds. */
  readonly failures: number;
  /** The gatekeeper then refuses so often before it accepts. */
  readonly rejections: number;
  readonly workMs: number;
  readonly poisonous?: boolean;
}

/** The n-th task, from 0: every seventh fails first, every eleventh is refused once, every third depends on earlier ones. */
export function planOf(n: number, orders: Pick<WorkerOrders, 'poison' | 'workMs'>): TaskPlan {
  return {
    failures: n % 7 === 3 ? 1 : 0,
    rejections: n % 11 === 5 ? 1 : 0,
    workMs: orders.workMs ?? n % 4,
    ...(orders.poison === true && n === 0 ? { poisonous: true } : {}),
  };
}

export function workload(number: number, orders: WorkerOrders): Omit<RunSpec, 'id'> {
  const tasks: TaskInput[] = [];
  for (let n = 0; n < orders.tasks; n++) {
    const plan = planOf(n, orders);
    const dependsOn = orders.poison === true || n % 3 !== 2 ? [] : [`t${n - 1}`, `t${n - 2}`];
    tasks.push({
      id: `t${n}`,
      agent: 'writer',
      gatekeeper: 'editor',
      dependsOn,
      input: { ...plan },
      // The others are killed from outside, again and again: no task is to blame for that.
      ...(plan.poisonous === true ? { limits: { interruptions: 3 } } : {}),
    });
  }
  const backoff = { initialMs: 2, factor: 2, maxMs: 20, jitter: 0.2 };
  return {
    title: `Run ${number}`,
    tasks,
    limits: {
      backoff,
      infrastructureBackoff: backoff,
      infrastructureAttempts: 100,
      interruptions: 100,
    },
  };
}
