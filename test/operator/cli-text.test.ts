import { fc, test as prop } from '@fast-check/vitest';
import { describe, expect, test } from 'vitest';
import { hasUnicode, Output, wantsColor } from '../../src/operator/terminal/terminal.ts';
import {
  cleanBlock,
  cleanLine,
  displayWidth,
  formatDuration,
  renderLine,
  safeJson,
  truncate,
  wrap,
} from '../../src/operator/terminal/text.ts';
import { FakeStream } from './cli-terminal.ts';

/** Bytes that act on a terminal, whatever stands around them. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not get through
const ACTING = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/;

const hostile = fc.string({
  unit: fc.constantFrom(
    ...[
      'a',
      'Z',
      ' ',
      'ü',
      '日',
      '👩‍👩‍👧',
      'e\u0301',
      '\u001b',
      '[',
      ']',
      '2',
      'J',
      'm',
      ';',
      '\u0007',
    ],
    ...[
      '\u009b',
      '\u202e',
      '\u2066',
      '\r',
      '\n',
      '\t',
      '\u0000',
      '\u200b',
      '\ufeff',
      '\ud800',
      '\u2028',
    ],
  ),
});

describe('text from others', () => {
  test.each([
    { from: '\u001b[31mred\u001b[0m', to: 'red' },
    { from: '\u001b]8;;https://evil.example\u0007click\u001b]8;;\u0007', to: 'click' },
    { from: '\u001b]52;c;ZXZpbA==\u0007', to: '' },
    { from: 'done\rfailed', to: 'done failed' },
    { from: 'user\u202etxt.exe', to: 'usertxt.exe' },
    { from: 'two\nlines\tand a tab', to: 'two lines and a tab' },
    { from: '\u001b[2J\u001b[1;1Hgone', to: 'gone' },
    { from: 'half \ud800 a pair', to: 'half \ufffd a pair' },
    { from: 'naïve 日本 👍', to: 'naïve 日本 👍' },
  ])('$from becomes $to on one line', ({ from, to }) => {
    expect(cleanLine(from)).toBe(to);
  });

  test('of several lines keeps its lines, and nothing else that acts', () => {
    expect(cleanBlock('one\r\n  two\u001b[1A\n50%\r100%\n\n')).toEqual([
      'one',
      '  two',
      '50%',
      '100%',
    ]);
  });

  prop.prop([hostile])('never acts on the terminal', (text) => {
    expect(cleanLine(text)).not.toMatch(ACTING);
    for (const line of cleanBlock(text)) expect(line).not.toMatch(ACTING);
    const shown = renderLine([text, { text, style: 'red' }], { color: false, width: 30 });
    expect(shown).not.toMatch(ACTING);
    expect(safeJson({ [text]: text }).replaceAll('\n', '')).not.toMatch(ACTING);
  });

  test('hides nothing in JSON either: letters that no terminal shows are written out', () => {
    const hidden = 'ok\u{e0072}\u{e006d}\u{e007f}';
    expect(cleanLine(hidden)).toBe('ok');
    expect(safeJson(hidden)).toBe('"ok\\udb40\\udc72\\udb40\\udc6d\\udb40\\udc7f"');
    expect(JSON.parse(safeJson(hidden))).toBe(hidden);
  });

  prop.prop([fc.anything({ values: [hostile, fc.integer(), fc.boolean()] })])(
    'as JSON means the same',
    (value) => {
      const json = JSON.stringify(value);
      if (json === undefined) return;
      expect(JSON.parse(safeJson(value))).toEqual(JSON.parse(json));
    },
  );
});

describe('what needs no tables to be measured', () => {
  const plain = fc.string({ unit: fc.constantFrom(...'aZ 0~', ...'éßÿ©ž', ...'–‖…→↻─░█○◑◔◕✓✗·') });
  const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' });

  prop.prop([plain, fc.nat(12)])(
    'is as wide, and cut where, the tables would say',
    (text, width) => {
      expect(displayWidth(text)).toBe([...graphemes.segment(text)].length);
      // A mark that is not plain sends the same text the long way.
      const [cut, longWay] = [truncate(text, width), truncate(`${text}e\u0301`, width)];
      if (text.length > width) expect(cut).toBe(longWay);
      else expect(cut).toBe(text);
    },
  );
});

describe('width', () => {
  test.each([
    { text: 'plain', width: 5 },
    { text: 'naïve', width: 5 },
    { text: 'e\u0301', width: 1 },
    { text: '日本', width: 4 },
    { text: '👩‍👩‍👧', width: 2 },
    { text: '✓', width: 1 },
    { text: '', width: 0 },
  ])('$text takes $width cells', ({ text, width }) => {
    expect(displayWidth(text)).toBe(width);
  });

  prop.prop([hostile, fc.integer({ min: 0, max: 40 })])(
    'a cut text is never wider',
    (text, width) => {
      const clean = cleanLine(text);
      const cut = truncate(clean, width);
      expect(displayWidth(cut)).toBeLessThanOrEqual(width);
      if (displayWidth(clean) <= width) expect(cut).toBe(clean);
    },
  );

  prop.prop([fc.array(hostile, { maxLength: 5 }), fc.integer({ min: 1, max: 40 })])(
    'a rendered line is never wider',
    (texts, width) => {
      expect(displayWidth(renderLine(texts, { color: false, width }))).toBeLessThanOrEqual(width);
    },
  );

  prop.prop([hostile, fc.integer({ min: 2, max: 30 })])('wrapping loses nothing', (text, width) => {
    const clean = cleanLine(text);
    const lines = wrap(clean, width);
    for (const line of lines) expect(displayWidth(line)).toBeLessThanOrEqual(width);
    expect(lines.join('').replaceAll(' ', '')).toBe(clean.replaceAll(' ', ''));
  });

  test('what is cut is marked, also where a part of the line ends', () => {
    const line = [{ text: 'state', style: 'red' }, ' and more'] as const;
    expect(renderLine(line, { color: false, width: 8 })).toBe('state a…');
    expect(renderLine(line, { color: false, width: 5 })).toBe('stat…');
    expect(renderLine(line, { color: false, width: 14 })).toBe('state and more');
    expect(renderLine(line, { color: true, width: 8 })).toBe('\u001b[31mstate\u001b[39m a…');
  });
});

test.each([
  { env: {}, tty: true, color: true },
  { env: {}, tty: false, color: false },
  { env: { NO_COLOR: '1' }, tty: true, color: false },
  { env: { NO_COLOR: '' }, tty: true, color: true },
  { env: { FORCE_COLOR: '1' }, tty: false, color: true },
  { env: { FORCE_COLOR: '1', NO_COLOR: '1' }, tty: false, color: true },
  { env: { FORCE_COLOR: '0' }, tty: true, color: false },
  { env: { TERM: 'dumb' }, tty: true, color: false },
])('with $env and a terminal ($tty) colour is $color', ({ env, tty, color }) => {
  expect(wantsColor(env, tty)).toBe(color);
});

test.each([
  { env: { LANG: 'en_US.UTF-8' }, unicode: true },
  { env: { LANG: 'C' }, unicode: false },
  { env: { LANG: 'C', LC_ALL: 'C.utf8' }, unicode: true },
  { env: { LANG: 'en_US.UTF-8', LC_ALL: 'POSIX' }, unicode: false },
  { env: {}, unicode: true },
])('with $env more than ASCII is $unicode', ({ env, unicode }) => {
  expect(hasUnicode(env, 'linux')).toBe(unicode);
});

test.each([
  { ms: 0, text: '0s' },
  { ms: 59_999, text: '59s' },
  { ms: 185_000, text: '3m05s' },
  { ms: 7_620_000, text: '2h07m' },
  { ms: 356_400_000, text: '4d03h' },
  { ms: -5, text: '0s' },
])('$ms ms are $text', ({ ms, text }) => {
  expect(formatDuration(ms)).toBe(text);
});

describe('an output', () => {
  test('whose reader has gone takes what is written and drops it: nothing has failed', () => {
    const stream = new FakeStream();
    const output = new Output(stream, {}, 'linux');
    output.line('one');
    stream.fail('EPIPE');
    output.line('two');
    expect(stream.text).toBe('one\n');
    expect(output.failure).toBeUndefined();
  });

  test('on a full disk remembers the first failure', () => {
    const stream = new FakeStream();
    const output = new Output(stream, {}, 'linux');
    stream.fail('ENOSPC');
    stream.fail('EIO');
    output.line('one');
    expect(stream.text).toBe('');
    expect(output.failure).toMatchObject({ code: 'ENOSPC' });
  });
});
