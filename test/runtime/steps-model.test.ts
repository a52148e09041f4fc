import { test } from '@fast-check/vitest';
import fc from 'fast-check';
import { expect } from 'vitest';
import { assign, setup } from 'xstate';
import type { JsonValue } from '../../src/protocol/json.ts';
import { effect } from '../../src/runtime/effect.ts';
import { FaultPoints } from '../../src/runtime/fault-points.ts';
import type { Step } from '../../src/runtime/step.ts';
import type { MemoryStore } from '../../src/store/memory/memory-store.ts';
import type { Batch } from '../../src/store/store.ts';
import { TestStore, World } from './world.ts';

/*
 * Random programs of steps, one after the other and side by side, in a process that stands still and dies at any point
 * of its way, several times. The model: a step has the value that was stored for it first, and once that is stored
 * its function is never called again.
 */

type Part =
  | { readonly kind: 'one'; readonly name: string; readonly fails: number }
  | { readonly kind: 'again'; readonly name: string; readonly key: number }
  | { readonly kind: 'parallel'; readonly name: string; readonly delays: readonly number[] };

const name = fc.constantFrom('read', 'write', 'mail');
const part: fc.Arbitrary<Part> = fc.oneof(
  fc.record({ kind: fc.constant('one' as const), name, fails: fc.nat({ max: 2 }) }),
  fc.record({ kind: fc.constant('again' as const), name, key: fc.nat({ max: 2 }) }),
  fc.record({
    kind: fc.constant('parallel' as const),
    name,
    delays: fc.array(fc.nat({ max: 3 }), { minLength: 2, maxLength: 5 }),
  }),
);

/** What ran, in all lives; and which value is the stored one. */
class Model {
  #made = 0;
  readonly stored = new Map<string, JsonValue>();
  readonly violations: string[] = [];

  run(key: string): string {
    if (this.stored.has(key)) this.violations.push(`${key} ran although it was stored`);
    return `${key} = ${this.#made++}`;
  }

  /** What a commit stores. */
  note(steps: Batch['steps']): void {
    for (const { key, outcomeJson } of steps) {
      if (this.stored.has(key)) this.violations.push(`${key} is stored again`);
      this.stored.set(key, JSON.parse(outcomeJson) as JsonValue);
    }
  }
}

/** A store that tells the model what is stored, at the moment it is. */
class WatchedStore extends TestStore {
  readonly #model: Model;

  constructor(inner: MemoryStore, model: Model) {
    super(inner);
    this.#model = model;
  }

  override async commit(batch: Batch): Promise<void> {
    await super.commit(batch);
    this.#model.note(batch.steps);
  }
}

/** @param sleep resolves in the life in which it was called, or never */
async function play(
  program: readonly Part[],
  step: Step,
  model: Model,
  sleep: (ms: number) => Promise<void>,
): Promise<JsonValue> {
  const results: Record<string, JsonValue> = {};
  const uses = new Map<string, number>();
  for (const [index, part] of program.entries()) {
    switch (part.kind) {
      case 'one': {
        const use = (uses.get(part.name) ?? 0) + 1;
        uses.set(part.name, use);
        const key = use === 1 ? part.name : `${part.name}#${use}`;
        const retry = { attempts: 3, initialMs: 1, while: () => true };
        results[key] = await step(part.name, { retry }, ({ attempt }) => {
          if (attempt <= part.fails) throw new Error('not yet');
          return model.run(key);
        });
        break;
      }
      case 'again':
        results[`${part.name}[${part.key}]`] = await step(part.name, { key: part.key }, () =>
          model.run(`${part.name}[${part.key}]`),
        );
        break;
      case 'parallel':
        await Promise.all(
          part.delays.map(async (delay, n) => {
            const key = `p${index}.${n}`;
            results[`${part.name}[${key}]`] = await step(part.name, { key }, async () => {
              if (delay > 0) await sleep(delay);
              return model.run(`${part.name}[${key}]`);
            });
          }),
        );
        break;
    }
  }
  return results;
}

test.prop([
  fc.array(part, { minLength: 1, maxLength: 6 }),
  fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 5 }),
])(
  'whatever the program and whenever it dies, a stored step is done once',
  async (program, deaths) => {
    const model = new Model();
    let life = 0;
    const sleep = (ms: number) => {
      const own = life;
      return new Promise<void>((resolve) => {
        world.clock.setTimer(ms, () => {
          if (own === life) resolve();
        });
      });
    };
    const machine = setup({
      actors: { work: effect<JsonValue>(({ step }) => play(program, step, model, sleep)) },
    }).createMachine({
      context: () => ({ output: null }),
      initial: 'working',
      states: {
        working: {
          invoke: {
            src: 'work',
            id: 'w',
            input: null,
            onDone: {
              target: 'done',
              actions: assign({ output: ({ event }) => event.output }),
            },
          },
        },
        done: {},
      },
    });
    const world: World = new World(
      { worker: machine },
      {
        maxEffectRestarts: 1_000,
        wrap: (memory) => new WatchedStore(memory, model),
      },
    );
    for (const death of [...deaths, undefined]) {
      // It stands still at that point, for good: what is under way is stored or not, and nobody ever hears of it.
      const faults = new FaultPoints(death === undefined ? 'trace' : `any:hang:${death}`);
      life++;
      await world.reopen({ faultPoint: faults.hit });
      world.host.spawn([{ address: 'worker/a', machine: 'worker' }]).catch(() => undefined);
      await world.advance(1_000);
    }
    expect(model.violations).toEqual([]);
    expect(world.state('worker/a').value).toBe('done');
    const output = world.context('worker/a')['output'] as Record<string, JsonValue>;
    expect(output).toEqual(Object.fromEntries(model.stored));
    for (const [key, value] of Object.entries(output)) {
      expect(String(value).startsWith(`${key} = `)).toBe(true);
    }
    expect(world.facts('stepsUnused')).toEqual([]);
  },
);
