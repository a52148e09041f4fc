import { type ClaimInput, type ListInput, runMachine } from '../machines/run-machine.ts';
import type { JsonValue } from '../protocol/json.ts';
import { effect } from '../runtime/effect.ts';
import type { Store } from '../store/store.ts';

/** Tasks cancelled in one turn. */
const CANCEL_AT_ONCE = 200;

const OPEN_STATES = [
  'staged',
  'waiting',
  'ready',
  'preparing',
  'working',
  'verifying',
  'fixing',
  'retrying',
  'awaitingInput',
  'awaitingApproval',
  'escalated',
  'blocked',
  'paused',
];

/** The orchestrator: the run machine, with the store to ask what is next. */
export function runActor(store: Store) {
  return runMachine.provide({
    actors: {
      claim: effect<JsonValue, ClaimInput>(async ({ input, signal }) => {
        const claimed: { task: string; agent: string }[] = [];
        for (const [agent, free] of Object.entries(input.slots)) {
          // Even with no room left: a claim made again must find all that it had claimed the first time.
          const limit = Math.max(0, Math.min(free, input.total - claimed.length));
          // Called off, it must not claim behind the back of the one that takes its place.
          signal.throwIfAborted();
          // The token is the claim's own: one repeated after a crash or a pause finds what it had claimed.
          const tasks = await store.claimTasks({
            run: input.run,
            agent,
            limit,
            token: `${input.run}#${input.claim}/${agent}`,
            ...(input.except === undefined ? {} : { except: input.except }),
          });
          for (const task of tasks) claimed.push({ task, agent });
        }
        return claimed;
      }),
      listOpen: effect<JsonValue, ListInput>(async ({ input }) => {
        const rows = await store.listTasks(input.run, {
          states: OPEN_STATES,
          afterPosition: input.afterPosition,
          limit: CANCEL_AT_ONCE,
        });
        const { beforePosition = Number.POSITIVE_INFINITY } = input;
        const wanted = rows.filter(({ position }) => position < beforePosition);
        const isLast = rows.length < CANCEL_AT_ONCE || wanted.length < rows.length;
        return {
          tasks: wanted.map((row) => row.task),
          upTo: isLast ? null : (rows.at(-1)?.position ?? null),
        };
      }),
    },
  });
}
