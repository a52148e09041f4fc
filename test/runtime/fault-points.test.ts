import { describe, expect, test } from 'vitest';
import { DeliveryFault, FaultPoints, InjectedFault } from '../../src/runtime/fault-points.ts';

describe('fault points', () => {
  test('act at the n-th hit of their point, and only then', () => {
    const faults = new FaultPoints('a:throw:2, b:throw');
    void faults.hit('a');
    expect(() => faults.hit('a')).toThrow(InjectedFault);
    void faults.hit('a');
    expect(() => faults.hit('b')).toThrow('injected fault at b');
    expect([faults.fired, faults.total]).toEqual([2, 4]);
    expect([...faults.trace()]).toEqual([
      ['a', 3],
      ['b', 1],
    ]);
  });

  test('any counts the hits of all points together', () => {
    const faults = new FaultPoints('any:throw:3');
    void faults.hit('a');
    void faults.hit('b');
    expect(() => faults.hit('c')).toThrow('injected fault at c');
    void faults.hit('a');
    expect(faults.fired).toBe(1);
  });

  test('trace only counts', () => {
    const faults = new FaultPoints('trace');
    for (const name of ['a', 'b', 'a']) void faults.hit(name);
    expect([faults.fired, faults.total]).toEqual([0, 3]);
  });

  test('delay and hang give a promise, duplicate and drop what the host understands', async () => {
    const faults = new FaultPoints('a:delay:1:0,b:hang,c:duplicate,d:drop');
    await faults.hit('a');
    expect(faults.hit('b')).toBeInstanceOf(Promise);
    for (const [name, action] of [
      ['c', 'duplicate'],
      ['d', 'drop'],
    ] as const) {
      try {
        void faults.hit(name);
        expect.unreachable();
      } catch (error) {
        expect(error).toBeInstanceOf(DeliveryFault);
        expect((error as DeliveryFault).action).toBe(action);
      }
    }
  });

  test.each([
    'a',
    'a:explode',
    'a:throw:0',
    'a:throw:x',
    'a:delay:1:-5',
    ':throw',
    'a:throw:1:2:3',
  ])('%s is refused', (specification) => {
    expect(() => new FaultPoints(specification)).toThrow(
      'Expected a fault such as "host.before-commit:kill:3"',
    );
  });
});
