import type { JsonObject } from '../protocol/json.ts';
import { migrations } from '../runtime/migrations.ts';

/** How runs that an earlier Troupe has stored become runs of this one. */
export const runMigrations = migrations<JsonObject>()
  // 2: workflows. A run from before is a set of tasks, without phases.
  .to<JsonObject>(({ context, ...state }) => ({
    ...state,
    context: { ...context, workflow: null },
  }));
