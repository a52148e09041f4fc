import { describe, expect, test } from 'vitest';
import { asPromised, promisedOutput } from './expected-output.ts';

describe('promisedOutput', () => {
  test.each([
    {
      what: 'a block at the end',
      source: 'run();\n// Output:\n// one\n//   two\n',
      promised: ['one', '  two'],
    },
    { what: 'a block at the top', source: '// Output:\n// one\n\nrun();\n', promised: ['one'] },
    {
      what: 'a block below a comment',
      source: '// Says one.\n// Output:\n// one\nrun();',
      promised: ['one'],
    },
    {
      what: 'an empty line inside',
      source: '// Output:\n// one\n//\n// two',
      promised: ['one', '', 'two'],
    },
    { what: 'no block', source: "console.log('// Output: nothing');\n", promised: undefined },
  ])('reads $what', ({ source, promised }) => {
    expect(promisedOutput(source)).toEqual(promised);
  });

  test.each([
    { source: '// Output:\nrun();', message: 'Expected lines below "// Output:", got none.' },
    { source: '// Output:\n// a\nrun();\n// Output:\n// b', message: 'got a second one' },
    { source: '// Output:\n// a\n// …\n', message: 'got the line "…"' },
    { source: '// Output:\n//  … … \n', message: 'to stand for a part of a line' },
  ])('refuses $source', ({ source, message }) => {
    expect(() => promisedOutput(source)).toThrow(message);
  });
});

describe('asPromised', () => {
  test.each([
    { printed: 'one\ntwo\n', promised: ['one', 'two'], kept: true },
    { printed: 'took 12 ms\n', promised: ['took … ms'], kept: true },
    { printed: 'a.b\n', promised: ['a.b'], kept: true },
    { printed: 'axb\n', promised: ['a.b'], kept: false },
    { printed: 'took  ms\n', promised: ['took … ms'], kept: false },
    { printed: 'took ms\n', promised: ['took … ms'], kept: false },
    { printed: 'it took 12 ms\n', promised: ['took … ms'], kept: false },
    { printed: 'took 12 ms today\n', promised: ['took … ms'], kept: false },
    { printed: 'one\n', promised: ['one', 'two'], kept: false },
    { printed: 'one\ntwo\n', promised: ['one'], kept: false },
    { printed: 'two\none\n', promised: ['one', 'two'], kept: false },
    { printed: '', promised: ['one'], kept: false },
  ])('$printed against $promised', ({ printed, promised, kept }) => {
    const shown = asPromised(printed, promised);
    if (kept) expect(shown).toEqual(promised);
    else expect(shown).not.toEqual(promised);
  });
});
