import type { JsonObject } from '../protocol/json.ts';
import { migrations } from '../runtime/migrations.ts';

/** How agents that an earlier Troupe has stored become agents of this one. */
export const agentMigrations = migrations<JsonObject>()
  // 2: limits by key and by time. An agent that is registered with some is told them then.
  .to<JsonObject>(({ context, ...state }) => ({ ...state, context: { ...context, flow: null } }));
