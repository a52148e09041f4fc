import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { exitCodeOf, reportOf, worstExitCode } from '../../src/operator/report.ts';
import { createReporter } from '../../src/operator/reporters.ts';
import type { TaskView } from '../../src/operator/run-view.ts';
import { type BoardEvent, renderBoard } from '../../src/operator/terminal/board.ts';
import { renderSummary } from '../../src/operator/terminal/summary.ts';
import { Output } from '../../src/operator/terminal/terminal.ts';
import { displayWidth, type Line, renderLine } from '../../src/operator/terminal/text.ts';
import { FakeStream, FakeTerminal } from './cli-terminal.ts';
import { aRun, aTask, aView, NOON, SOME_TASKS } from './cli-views.ts';

const EVENTS: readonly BoardEvent[] = [
  { at: NOON + 1_000, subject: 'csv-quotes', state: 'done', text: 'merged as 486dc1527d' },
  { at: NOON + 2_000, subject: '', state: null, text: 'ended processes that were left behind' },
];

const plain = (lines: readonly Line[], width?: number): string =>
  lines
    .map((line) => renderLine(line, { color: false, ...(width === undefined ? {} : { width }) }))
    .map((line) => line.trimEnd())
    .join('\n');

describe('the board', () => {
  const view = aView(SOME_TASKS);
  view.setDoing('main', 'csv-delimiter', 'test');

  test.each([
    { width: 100, height: 40, unicode: true },
    { width: 60, height: 40, unicode: false },
    { width: 30, height: 12, unicode: true },
  ])('at $width × $height is as it was agreed', async ({ width, height, unicode }) => {
    const lines = renderBoard(view, ['main'], {
      ...{ width, height, unicode, now: NOON + 60_000, events: EVENTS },
      footer: 'Stopping: what runs may finish within 30s.',
    });
    await expect(`${plain(lines, width)}\n`).toMatchFileSnapshot(
      `golden/board-${width}x${height}.txt`,
    );
  });

  test.each([1, 2, 3, 4, 5, 6, 8, 10, 15])('is never higher than %i lines', (height) => {
    const options = { width: 80, height, unicode: true, now: NOON, events: EVENTS };
    expect(renderBoard(view, ['main'], options).length).toBeLessThanOrEqual(height);
    const withFooter = renderBoard(view, ['main'], { ...options, footer: 'Stopping' });
    expect(withFooter.length).toBeLessThanOrEqual(height);
  });

  test.each([20, 33, 57, 80])('is never wider than %i cells', (width) => {
    const wide = aView([
      aTask('日本語の長い名前の仕事ですよこれは', { state: 'working', reason: '日本' }),
      ...SOME_TASKS,
    ]);
    const lines = renderBoard(wide, ['main'], {
      ...{ width, height: 40, unicode: true, now: NOON, events: EVENTS },
    });
    for (const line of plain(lines, width).split('\n')) {
      expect(displayWidth(line)).toBeLessThanOrEqual(width);
    }
  });
});

describe('the summary', () => {
  const report = reportOf(aRun({ state: 'blocked', total: 11 }), SOME_TASKS, {
    command: 'troupe',
    qualified: false,
  });

  test.each([
    { name: 'piped', width: Number.POSITIVE_INFINITY, unicode: true },
    { name: '80', width: 80, unicode: true },
    { name: '50-ascii', width: 50, unicode: false },
  ])('$name is as it was agreed', async ({ name, width, unicode }) => {
    const lines = renderSummary(report, {
      ...{ width, unicode, now: NOON + 61_000, goOn: 'troupe resume' },
    });
    await expect(`${plain(lines)}\n`).toMatchFileSnapshot(`golden/summary-${name}.txt`);
  });

  test('names tasks with their run when there are several, and the file when one was named', () => {
    const { needs } = reportOf(aRun(), SOME_TASKS, {
      command: 'troupe --file docs.yaml',
      qualified: true,
    });
    expect(needs.find(({ task }) => task === 'release')?.commands).toEqual([
      'troupe --file docs.yaml show main/release',
      'troupe --file docs.yaml approve main/release',
      'troupe --file docs.yaml cancel main/release',
    ]);
  });

  test('an answer that is suggested can be typed as it is, whatever the agent offers', () => {
    const choices = ["it's $(touch bad) `touch bad` \\", 'no'];
    const question = { id: 'q', text: 'Which?', choices };
    const { needs } = reportOf(aRun(), [aTask('one', { state: 'awaitingInput', question })], {
      command: 'troupe',
      qualified: false,
    });
    const [command = ''] = needs[0]?.commands ?? [];
    const typed = command.replace('troupe answer one', 'printf %s');
    expect(execFileSync('sh', ['-c', typed], { encoding: 'utf8' })).toBe(choices[0]);
    expect(existsSync('bad')).toBe(false);
  });

  test('what infrastructure has stopped goes on with one command, whatever else the run waits for', () => {
    const question = { id: 'q', text: 'Which?' };
    const stopped = { state: 'blocked', cause: 'infrastructure' } as const;
    const tasks = [
      aTask('asks', { state: 'awaitingInput', question }),
      aTask('one', stopped),
      aTask('two', stopped),
    ];
    const unblockLine = (qualified: boolean): string | undefined => {
      const names = { command: 'troupe --file docs.yaml', qualified };
      const blocked = reportOf(aRun({ state: 'blocked' }), tasks, names);
      const options = { width: 80, unicode: true, now: NOON };
      return plain(renderSummary(blocked, options))
        .split('\n')
        .find((line) => line.includes('unblock'))
        ?.replace(/.*is mended: /, '');
    };
    expect(unblockLine(false)).toBe('troupe --file docs.yaml unblock --all --transient');
    // Of several runs it must be said which one is meant.
    expect(unblockLine(true)).toBe('troupe --file docs.yaml unblock --all --transient --run main');
  });
});

describe('the exit code', () => {
  const tasks = (...states: TaskView['state'][]): TaskView[] =>
    states.map((state, index) => aTask(`t${index}`, { state }));

  test.each([
    { state: 'done', of: ['done', 'done'], code: 0 },
    { state: 'done', of: ['done', 'cancelled'], code: 22 },
    { state: 'cancelled', of: ['done', 'cancelled'], code: 22 },
    { state: 'blocked', of: ['done', 'awaitingApproval', 'waiting'], code: 31 },
    { state: 'blocked', of: ['awaitingInput', 'awaitingApproval'], code: 31 },
    { state: 'blocked', of: ['awaitingInput', 'escalated'], code: 30 },
    { state: 'blocked', of: ['blocked', 'waiting'], code: 30 },
    { state: 'blocked', of: ['paused'], code: 30 },
    { state: 'blocked', of: ['staged'], code: 30 },
  ] as const)('of a run that is $state with $of is $code', ({ state, of, code }) => {
    expect(exitCodeOf({ state, tasks: tasks(...of) })).toBe(code);
  });

  test('of several runs is that of the one that needs most attention', () => {
    expect(worstExitCode([0, 31, 30, 22])).toBe(30);
    expect(worstExitCode([22, 31, 0])).toBe(31);
    expect(worstExitCode([0, 22])).toBe(22);
    expect(worstExitCode([])).toBe(0);
  });
});

describe('on a terminal', () => {
  beforeEach(() => {
    vi.useFakeTimers();
    vi.setSystemTime(NOON + 60_000);
  });
  afterEach(() => vi.useRealTimers());

  const open = (terminal: FakeTerminal, tasks: readonly TaskView[]) => {
    const view = aView(tasks);
    const output = new Output(terminal, { LANG: 'C.UTF-8' }, 'linux');
    return { view, output, reporter: createReporter(output, view, () => ['main']) };
  };

  test('the board is redrawn in its place, and taken away at the end', () => {
    const terminal = new FakeTerminal();
    terminal.write('$ troupe run\n');
    const { view, reporter } = open(terminal, [aTask('one', { state: 'working', attempts: 1 })]);
    expect(terminal.screen).toContainEqual(expect.stringMatching(/◑ one\s+working/));
    expect(terminal.cursorVisible).toBe(false);
    const before = terminal.screen.length;

    const task = aTask('one', { state: 'done', attempts: 1, commit: '486dc1527d94f3b8' });
    view.setTask(task);
    reporter.event({ type: 'task', at: NOON, task });
    vi.advanceTimersByTime(100);
    expect(terminal.screen).toContainEqual(expect.stringMatching(/one {2}✓ done {2}merged as/));
    expect(terminal.screen.length).toBeLessThanOrEqual(before + 1);
    expect(terminal.screen[0]).toBe('$ troupe run');

    reporter.end();
    expect(terminal.screen).toEqual(['$ troupe run']);
    expect(terminal.cursorVisible).toBe(true);
  });

  test('many events in a moment make one frame, and none makes none', () => {
    const terminal = new FakeTerminal();
    const { view, reporter } = open(terminal, [aTask('one', { state: 'working' })]);
    vi.advanceTimersByTime(100);
    const before = terminal.writes.length;
    for (let attempts = 1; attempts <= 50; attempts++) {
      const task = aTask('one', { state: 'verifying', attempts });
      view.setTask(task);
      reporter.event({ type: 'task', at: NOON, task });
    }
    vi.advanceTimersByTime(100);
    expect(terminal.writes.length).toBe(before + 1);
    reporter.event({ type: 'notice', at: NOON, text: 'hello' });
    vi.advanceTimersByTime(100);
    reporter.say('hello');
    reporter.say('hello');
    vi.advanceTimersByTime(100);
    expect(terminal.writes.length).toBe(before + 3);
    reporter.end();
  });

  test('that a run is paused is news, that it goes on is seen', () => {
    const terminal = new FakeTerminal();
    const { reporter } = open(terminal, [aTask('one', { state: 'working' })]);
    reporter.event({ type: 'run', at: NOON, run: aRun({ state: 'paused', reason: 'By ada.' }) });
    reporter.event({ type: 'run', at: NOON, run: aRun({ state: 'running' }) });
    vi.advanceTimersByTime(100);
    expect(terminal.screen.filter((line) => line.includes('run main'))).toEqual([
      '  12:00:00  run main  ‖ paused  By ada.',
    ]);
    reporter.end();
  });

  test('elapsed times go on by themselves', () => {
    const terminal = new FakeTerminal();
    const { reporter } = open(terminal, [aTask('one', { state: 'working', attempts: 2 })]);
    expect(terminal.screen.join('\n')).toMatch(/#2 {2}1m00s/);
    vi.advanceTimersByTime(3_000);
    expect(terminal.screen.join('\n')).toMatch(/#2 {2}1m03s/);
    reporter.end();
  });

  test('a terminal that becomes narrower shows no remains', () => {
    const terminal = new FakeTerminal({ columns: 100 });
    terminal.write('$ troupe run\n');
    const { reporter } = open(terminal, SOME_TASKS);
    terminal.resize(41);
    vi.advanceTimersByTime(100);
    expect(terminal.screen[0]).toBe('$ troupe run');
    expect(terminal.screen.filter((line) => line.startsWith('Run main'))).toHaveLength(1);
    terminal.resize(90);
    vi.advanceTimersByTime(100);
    expect(terminal.screen.filter((line) => line.startsWith('Run main'))).toHaveLength(1);
    reporter.end();
    expect(terminal.screen).toEqual(['$ troupe run']);
  });

  test('nothing that comes from a task reaches the terminal as a command', () => {
    const terminal = new FakeTerminal();
    const evil = '\u001b]52;c;ZXZpbA==\u0007\u001b[2J\u009b1A\u202e';
    // The fake terminal throws when anything but the board's own sequences is written.
    const { reporter } = open(terminal, [
      aTask('one', { state: 'blocked', reason: `why${evil}`, title: `t${evil}` }),
    ]);
    reporter.event({
      ...{ type: 'task', at: NOON },
      task: aTask('two', { state: 'blocked', reason: `no${evil}` }),
    });
    reporter.event({ type: 'notice', at: NOON, text: `note${evil}` });
    vi.advanceTimersByTime(100);
    expect(terminal.screen.join('\n')).toContain('why');
    expect(terminal.screen.join('\n')).toContain('note');
    reporter.end();
  });
});

describe('piped', () => {
  test('every event is a line: time, task, state and why', () => {
    const stream = new FakeStream();
    const view = aView([]);
    const reporter = createReporter(new Output(stream, {}, 'linux'), view, () => ['main']);
    const tell = (task: TaskView): void => reporter.event({ type: 'task', at: NOON, task });
    tell(aTask('one', { state: 'working', attempts: 1 }));
    tell(aTask('one', { state: 'working', attempts: 1 }));
    tell(aTask('one', { state: 'retrying', attempts: 1, reason: 'test failed\u001b[31m\nbadly' }));
    tell(aTask('one', { state: 'done', attempts: 2, commit: '486dc1527d94f3b8' }));
    reporter.event({ type: 'run', at: NOON, run: aRun({ state: 'blocked' }) });
    reporter.event({ type: 'run', at: NOON, run: aRun({ state: 'paused', reason: 'By ada.' }) });
    reporter.event({ type: 'notice', at: NOON, text: 'left over' });
    reporter.say('Stopping');
    reporter.end();
    expect(stream.text.split('\n')).toEqual([
      '12:00:00  one  ◑ working  attempt 1, patcher',
      '12:00:00  one  ↻ retrying  test failed badly',
      '12:00:00  one  ✓ done  merged as 486dc1527d',
      '12:00:00  run main  paused  By ada.',
      '12:00:00  left over',
      'Stopping',
      '',
    ]);
  });
});
