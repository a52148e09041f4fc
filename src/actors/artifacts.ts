import type { TaskContext } from '../machines/task-machine.ts';
import { ValidationError } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Step } from '../runtime/step.ts';
import type { Store } from '../store/store.ts';
import { workScopes } from './compensation.ts';

/** What attempts hand on, by name. */
export type Artifacts = Readonly<Record<string, JsonValue>>;

/** Of one value, as JSON. What is larger belongs into a file, and its path here. */
const MAX_ARTIFACT_CHARS = 1_000_000;
const MAX_NAME = 240;

/** A journal of its own: names of artifacts never meet names of steps. */
export const artifactScope = (scope: string): string => `${scope}/artifacts`;

interface Kept {
  readonly name: string;
  readonly value: JsonValue;
}

/**
 * Keeps the artifacts of one attempt.
 * @param step of `artifactScope`
 */
export function artifactKeeper(step: Step): (name: string, value: JsonValue) => Promise<void> {
  const times = new Map<string, number>();
  return async (name, value) => {
    if (typeof name !== 'string' || name === '' || name.length > MAX_NAME) {
      throw new ValidationError(
        `Expected the name of an artifact to be a text of 1 to ${MAX_NAME} characters, got ${JSON.stringify(name) ?? String(name)}.`,
      );
    }
    const size = JSON.stringify(value)?.length ?? 0;
    if (size > MAX_ARTIFACT_CHARS) {
      throw new ValidationError(
        `The artifact "${name}" has ${size} characters as JSON; at most ${MAX_ARTIFACT_CHARS} are kept. Put it into a file, and hand on the path.`,
      );
    }
    const time = (times.get(name) ?? 0) + 1;
    times.set(name, time);
    await step('artifact', { key: `${time} ${name}` }, () => ({ name, value }));
  };
}

/**
 * What an attempt finds: what the tasks it depends on have kept, then what earlier attempts have and this one has so
 * far; of one name, the last one counts.
 */
export async function loadArtifacts(
  store: Store,
  task: string,
  attempt: number,
): Promise<Artifacts> {
  const [own] = await loadTasks(store, [task]);
  const dependencies = await loadTasks(
    store,
    own?.spec.dependsOn.map((id) => `${task.slice(0, task.lastIndexOf('/'))}/${id}`) ?? [],
  );
  const scopes = [...dependencies, { address: task, attempt, fixers: own?.fixers ?? [] }].flatMap(
    (one) => workScopes(one.address, one.attempt, one.fixers),
  );
  const found: Record<string, JsonValue> = {};
  for (const steps of await Promise.all(
    scopes.map(({ scope }) => store.loadSteps(artifactScope(scope))),
  )) {
    for (const { outcomeJson } of steps) {
      const { name, value } = JSON.parse(outcomeJson) as Kept;
      // Not by assignment: a name is whatever an agent chose.
      Object.defineProperty(found, name, {
        value,
        enumerable: true,
        configurable: true,
        writable: true,
      });
    }
  }
  return found;
}

/** The tasks among `addresses` that exist, in their order. */
async function loadTasks(store: Store, addresses: readonly string[]) {
  const stored = new Map(
    (await store.loadActors(addresses)).map((actor) => [actor.address, actor]),
  );
  return addresses.flatMap((address) => {
    const actor = stored.get(address);
    if (actor === undefined) return [];
    const { context } = JSON.parse(actor.snapshotJson) as {
      context: Pick<TaskContext, 'spec' | 'attempt'> & Partial<Pick<TaskContext, 'fixers'>>;
    };
    // As it is stored, perhaps by an earlier Troupe.
    const { spec, attempt, fixers = [] } = context;
    return [{ address, spec, attempt, fixers }];
  });
}
