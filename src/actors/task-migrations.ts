import { DEFAULT_TASK_LIMITS } from '../machines/policies/limits.ts';
import type { JsonObject } from '../protocol/json.ts';
import { migrations } from '../runtime/migrations.ts';

/** How tasks that an earlier Troupe has stored become tasks of this one. */
export const taskMigrations = migrations<JsonObject & { readonly spec: Spec }>()
  // 2: what could not be verified is verified again; deaths of the process have a limit; the policy's decisions are kept.
  .to<JsonObject>(({ context, value, ...state }) => ({
    ...state,
    value: value === 'retrying' ? { retrying: 'workAgain' } : value,
    context: {
      ...context,
      spec: {
        ...context.spec,
        limits: { ...context.spec.limits, interruptions: DEFAULT_TASK_LIMITS.interruptions },
      },
      goesOnWith: 'work',
      rewound: 'no',
      decided: [],
    },
  }))
  // 3: a task can be skipped, and remembers what it goes on without.
  .to<JsonObject>(({ context, ...state }) => ({
    ...state,
    context: { ...context, without: [], skippedFor: null },
  }))
  // 4: others may mend what was rejected.
  .to<JsonObject>(({ context, ...state }) => ({
    ...state,
    context: { ...context, fix: null, sessions: 0, fixers: [] },
  }));

type Spec = JsonObject & { readonly limits: JsonObject };
