import { describe, expect, test } from 'vitest';
import {
  agentAddress,
  breakerAddress,
  gatekeeperAddress,
  isAddress,
  kindOf,
  nameOf,
  overseerAddress,
  parseAddress,
  parseId,
  runAddress,
  taskAddress,
} from '../../src/protocol/address.ts';
import { ValidationError } from '../../src/protocol/errors.ts';

describe('an address', () => {
  test.each([
    'task/a/b',
    'agent/writer',
    'my-kind2/x',
    'inbox/é',
    'a/!#~/x',
    `k/${'n'.repeat(240)}`,
  ])('%s', (text) => {
    expect(isAddress(text)).toBe(true);
    expect(parseAddress(text)).toBe(text);
  });

  const bad: unknown[] = [
    ...[
      '',
      'task',
      'task/',
      '/x',
      'Task/x',
      '1task/x',
      'ta sk/x',
      'task/a b',
      'task/a\nb',
      'task/\u0000',
    ],
    ...['task/\u202Ex', 'task/\uFEFF', `k/${'n'.repeat(241)}`, `${'k'.repeat(33)}/x`, '-k/x'],
    ...[null, undefined, 7, {}, ['task/a']],
  ];
  test.each(bad)('%j is refused', (text) => {
    expect(isAddress(text)).toBe(false);
    expect(() => parseAddress(text)).toThrow(ValidationError);
    expect(() => parseAddress(text)).toThrow('Expected an address such as "agent/writer"');
  });

  test('what was given is shown, but not all of it', () => {
    expect(() => parseAddress('x'.repeat(1000))).toThrow(/got "x{80}"\.$/);
    expect(() => parseAddress(7)).toThrow('got number.');
  });

  test('is made of a kind and a name', () => {
    expect([kindOf('task/a/b'), nameOf('task/a/b')]).toEqual(['task', 'a/b']);
    expect([
      runAddress('r'),
      taskAddress('r', 't'),
      agentAddress('a'),
      gatekeeperAddress('g'),
      overseerAddress('o'),
      breakerAddress('agent/a'),
    ]).toEqual(['run/r', 'task/r/t', 'agent/a', 'gatekeeper/g', 'overseer/o', 'breaker/agent/a']);
  });
});

describe('an id', () => {
  test.each(['a', 'A1', 'report-42', 'v1.2_x', '0', 'x'.repeat(64)])('%s', (id) => {
    expect(parseId(id, 'run id')).toBe(id);
  });

  test.each([
    '',
    '.a',
    '-a',
    '_a',
    'a/b',
    'a b',
    'a..b',
    '..',
    'ä',
    'x'.repeat(65),
    'a\n',
    7,
    null,
  ])('%j is refused', (id) => {
    expect(() => parseId(id, 'the run id')).toThrow(ValidationError);
    expect(() => parseId(id, 'the run id')).toThrow('Expected the run id to be 1 to 64 letters');
  });
});
