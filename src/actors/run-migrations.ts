import type { JsonObject } from '../protocol/json.ts';
import { migrations } from '../runtime/migrations.ts';

/** How runs that an earlier Troupe has stored become runs of this one. */
export const runMigrations = migrations<JsonObject>()
  // 2: workflows. A run from before is a set of tasks, without phases.
  .to<JsonObject>(({ context, ...state }) => ({
    ...state,
    context: { ...context, workflow: null },
  }))
  // 3: a place knows the claim that gave it.
  .to<JsonObject>(({ context, ...state }) => ({
    ...state,
    context: {
      ...context,
      claimed: Object.fromEntries(
        Object.entries(context['claimed'] as JsonObject).map(([task, agent]) => [
          task,
          { agent: agent ?? null, claim: null },
        ]),
      ),
    },
  }));
