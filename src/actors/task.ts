import { taskMachine, type WorkspaceInput } from '../machines/task-machine.ts';
import type { JsonValue } from '../protocol/json.ts';
import { effect } from '../runtime/effect.ts';
import type { GitProject } from './git-project.ts';

/** The name of the gatekeeper that guards the project's target branch. */
export const GIT_GATEKEEPER = 'git';

/** The task machine with its workspaces. Tasks of other gatekeepers are not code and need none. */
export function taskActor(project: GitProject | undefined) {
  return taskMachine.provide({
    actors: {
      prepare: effect<JsonValue, WorkspaceInput>(async ({ input, signal }) => {
        if (project === undefined || input.gatekeeper !== GIT_GATEKEEPER) return null;
        return (await project.prepare(input, signal)) as unknown as JsonValue;
      }),
      release: effect<JsonValue, WorkspaceInput>(async ({ input, signal }) => {
        if (project !== undefined && input.gatekeeper === GIT_GATEKEEPER) {
          await project.release(input, signal);
        }
        return null;
      }),
    },
  });
}
