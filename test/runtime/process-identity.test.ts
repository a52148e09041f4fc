import { describe, expect, test } from 'vitest';
import {
  bootId,
  identifyProcess,
  isSameProcess,
  parseProcStat,
  processStartTime,
} from '../../src/runtime/process-identity.ts';

describe('who a process is', () => {
  test('this one lives, and is itself', () => {
    const me = identifyProcess(process.pid);
    if (me === undefined) throw new Error('This process does not find itself.');
    expect(me.pid).toBe(process.pid);
    expect(isSameProcess(me)).toBe(true);
  });

  test('the same pid with another start, or of another boot, is another process', () => {
    const me = identifyProcess(process.pid);
    if (me === undefined) throw new Error('This process does not find itself.');
    expect(isSameProcess({ ...me, startTime: `${me.startTime}0` })).toBe(false);
    expect(isSameProcess({ ...me, bootId: `${bootId()}x` })).toBe(false);
  });

  test.each([0, -1, 1.5, Number.NaN, 2 ** 40])('%s is nobody', (pid) => {
    expect(processStartTime(pid)).toBeUndefined();
    expect(identifyProcess(pid)).toBeUndefined();
  });

  const fields = (state: string): string =>
    `${state} 1 4711 4711 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 1`;
  test.each([
    { stat: `42 (node) ${fields('S')}`, expected: { group: 4711, startTime: '987654' } },
    { stat: `42 (a (b) c) d) ${fields('R')}`, expected: { group: 4711, startTime: '987654' } },
    { stat: `42 (node) ${fields('Z')}`, expected: undefined },
    { stat: `42 (node) ${fields('X')}`, expected: undefined },
    { stat: '42 (node) S 1', expected: undefined },
    { stat: '', expected: undefined },
  ])('$stat', ({ stat, expected }) => {
    expect(parseProcStat(stat)).toEqual(expected);
  });
});
