import { taskMachine, type WorkspaceInput } from '../machines/task-machine.ts';
import type { JsonValue } from '../protocol/json.ts';
import { effect } from '../runtime/effect.ts';
import type { Store } from '../store/store.ts';
import type { RegisteredAgent } from './agent.ts';
import { boundedByTask } from './bounded-by-task.ts';
import { type CompensationReport, compensate, stepScope } from './compensation.ts';
import type { GitProject } from './git-project.ts';
import type { Registry } from './registry.ts';

/** The name of the gatekeeper that guards the project's target branch. */
export const GIT_GATEKEEPER = 'git';

/** The task machine with its workspaces. Tasks of other gatekeepers are not code and need none. */
export function taskActor(
  store: Store,
  agents: Registry<RegisteredAgent>,
  project: GitProject | undefined,
) {
  return taskMachine.provide({
    actors: {
      prepare: effect<JsonValue, WorkspaceInput>(async ({ input, signal }) => {
        if (project === undefined || input.gatekeeper !== GIT_GATEKEEPER) return null;
        return (await project.prepare(input, signal)) as unknown as JsonValue;
      }, boundedByTask),
      release: effect<JsonValue, WorkspaceInput>(async (context) => {
        const { input, signal, address } = context;
        let report: CompensationReport = { compensated: [], failed: [] };
        if (input.cancelled && (await hasSteps(store, address, input.attempt))) {
          const agent = await agents.whenReady(input.agent, context);
          report = await compensate(store, agent.compensations, input, context);
        }
        if (project !== undefined && input.gatekeeper === GIT_GATEKEEPER) {
          await project.release(input, signal);
        }
        return report as unknown as JsonValue;
      }),
    },
  });
}

async function hasSteps(store: Store, task: string, attempts: number): Promise<boolean> {
  for (let attempt = 1; attempt <= attempts; attempt++) {
    if ((await store.loadSteps(stepScope(task, attempt))).length > 0) return true;
  }
  return false;
}
