import { describe, expect, test } from 'vitest';
import { Registry } from '../../src/actors/registry.ts';
import { ConfigurationError } from '../../src/protocol/errors.ts';
import { SimulatedClock } from '../runtime/simulated-clock.ts';

function registry() {
  const clock = new SimulatedClock();
  const missing: string[] = [];
  const said: unknown[] = [];
  const entries = new Registry<number>(
    'agent',
    (what, name) => missing.push(`${what} ${name}`),
    clock,
  );
  const controller = new AbortController();
  const effect = { signal: controller.signal, progress: (value: unknown) => said.push(value) };
  return { clock, missing, said, entries, controller, effect };
}

describe('a registry', () => {
  test('has what was added, once', () => {
    const { entries } = registry();
    entries.add('a', 1);
    expect([entries.get('a'), entries.get('b'), entries.names()]).toEqual([1, undefined, ['a']]);
    expect(() => entries.add('a', 2)).toThrow(ConfigurationError);
    expect(entries.get('a')).toBe(1);
  });

  test('gives what is there at once, without a word', async () => {
    const { entries, effect, missing, said } = registry();
    entries.add('a', 1);
    expect(await entries.whenReady('a', effect)).toBe(1);
    expect([missing, said]).toEqual([[], []]);
  });

  test('lets wait for what is not there yet, and shows that somebody waits', async () => {
    const { entries, effect, missing, said, clock } = registry();
    const both = Promise.all([entries.whenReady('a', effect), entries.whenReady('a', effect)]);
    expect(missing).toEqual(['agent a', 'agent a']);
    clock.step(clock.now() + 60_000);
    clock.step(clock.now());
    expect(said).toEqual(Array.from({ length: 4 }, () => ({ waitsFor: 'agent', name: 'a' })));
    entries.add('a', 1);
    expect(await both).toEqual([1, 1]);
    expect(clock.pending).toBe(0);
  });

  test('lets go of whoever does not want to wait so long', async () => {
    const { entries, effect, clock } = registry();
    const waits = entries.whenReady('a', effect, 1_000);
    const other = entries.whenReady('a', effect);
    clock.step(clock.now() + 1_000);
    await expect(waits).rejects.toMatchObject({
      code: 'unavailable',
      message: 'No agent "a" was registered in 1000 ms.',
    });
    entries.add('a', 1);
    expect(await other).toBe(1);
    expect(clock.pending).toBe(0);
    expect(await entries.whenReady('a', effect, 1_000)).toBe(1);
  });

  test('lets go of whoever is called off', async () => {
    const { entries, effect, controller, clock } = registry();
    const waits = entries.whenReady('a', effect);
    controller.abort(new Error('Called off.'));
    await expect(waits).rejects.toThrow('Called off.');
    await expect(entries.whenReady('a', effect)).rejects.toThrow('Called off.');
    expect(clock.pending).toBe(0);
    entries.add('a', 1);
  });
});
