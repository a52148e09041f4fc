import { type CancelReport, taskMachine, type WorkspaceInput } from '../machines/task-machine.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Clock } from '../runtime/clock.ts';
import { effect } from '../runtime/effect.ts';
import type { Store } from '../store/store.ts';
import type { RegisteredAgent } from './agent.ts';
import { boundedByTask } from './bounded-by-task.ts';
import { compensate, workScopes } from './compensation.ts';
import type { GitProject } from './git-project.ts';
import type { Registry } from './registry.ts';
import type { UnderWay } from './under-way.ts';

/** The name of the gatekeeper that guards the project's target branch. */
export const GIT_GATEKEEPER = 'git';

/**
 * What is being taken back is not given up because the process dies: each compensation has a limit of its own. This one only
 * ends what would never end.
 */
const RELEASE = {
  interruptions: ({ cancelled, interruptions }: WorkspaceInput): number =>
    cancelled ? 1_000 : interruptions,
};

/** The task machine with its workspaces. Tasks of other gatekeepers are not code and need none. */
export function taskActor(
  store: Store,
  agents: Registry<RegisteredAgent>,
  project: GitProject | undefined,
  clock: Clock,
  underWay: UnderWay,
) {
  return taskMachine.provide({
    actors: {
      prepare: effect<JsonValue, WorkspaceInput>(async ({ input, signal }) => {
        if (project === undefined || input.gatekeeper !== GIT_GATEKEEPER) return null;
        return (await project.prepare(input, signal)) as unknown as JsonValue;
      }, boundedByTask),
      release: effect<JsonValue, WorkspaceInput>(async (context) => {
        const { input, signal, address } = context;
        let report: CancelReport = { stopped: [], notStopped: [], compensated: [], failed: [] };
        if (input.cancelled) {
          // Called off already, by the turn that led here: what is still being done is not to be taken back.
          const { stopped, notStopped } = await underWay.stopped(address, signal);
          report = { ...report, stopped, notStopped };
        }
        if (input.cancelled && (await hasSteps(store, address, input))) {
          const compensationsOf = async (name: string) =>
            (await agents.whenReady(name, context)).compensations;
          const done = await compensate(store, clock, compensationsOf, input, context);
          report = { ...report, ...done };
        }
        if (project !== undefined && input.gatekeeper === GIT_GATEKEEPER) {
          await project.release(input, signal);
        }
        return report as unknown as JsonValue;
      }, RELEASE),
    },
  });
}

async function hasSteps(
  store: Store,
  task: string,
  { attempt, fixers }: WorkspaceInput,
): Promise<boolean> {
  for (const { scope } of workScopes(task, attempt, fixers)) {
    if ((await store.loadSteps(scope)).length > 0) return true;
  }
  return false;
}
