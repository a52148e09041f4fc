import { describeProgress, type JsonValue, type Store, type TaskProgress } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { reportOf } from '../report.ts';
import { progressOfRun, type TaskView, taskOfRow, withProgress } from '../run-view.ts';
import { readProject, requireRun, requireTask } from '../stored-runs.ts';
import {
  type AttemptView,
  attemptOfRow,
  type DecisionView,
  decisionsIn,
  type FixView,
} from '../task-history.ts';
import { lookOf, markOf } from '../terminal/task-style.ts';
import { cleanBlock, formatDuration, formatWhen, type Line, safeJson } from '../terminal/text.ts';

/** `troupe show`: one task with everything that was tried and decided. */
export async function show(
  cli: CliContext,
  name: string,
  { json }: { readonly json: boolean },
): Promise<number> {
  const { stdout } = cli;
  const place = await cli.project();
  const found = await readProject(place, async (store) => {
    const { run, task: id } = await requireTask(store, name);
    const rows = await store.listTasks(run);
    const row = rows.find((entry) => entry.task === id);
    if (row === undefined) throw new Error(`Task ${run}/${id} was there a moment ago.`);
    const checkpoints = await store.listCheckpoints(`task/${run}/${id}`);
    const task = withProgress(taskOfRow(row), await progressOfRun(store, run));
    const names = { command: cli.commandFor(place), qualified: name.includes('/') };
    const [need] = reportOf(await requireRun(store, run), [task], names).needs;
    return {
      task,
      attempts: (await store.listAttempts(run, id)).map(attemptOfRow),
      decisions: decisionsIn(checkpoints),
      checkpoints: checkpoints.length,
      said: await saidIn(store, `task/${run}/${id}`),
      need: need ?? null,
    };
  });
  if (json) {
    stdout.raw(`${safeJson(found)}\n`);
    return 0;
  }
  const { task, attempts, decisions, checkpoints, need, said } = found;
  for (const line of headOf(task, stdout.unicode)) stdout.line(line);
  // The outputs of earlier attempts are in their files; the last one is what there is to act on.
  const latest = attempts.findLast(({ evidence }) => evidence !== null);
  for (const attempt of attempts) {
    stdout.line();
    for (const line of attemptLines(attempt, attempt === latest)) stdout.line(line);
  }
  if (said.length > 0) {
    stdout.line();
    stdout.line([{ text: 'Said', style: 'bold' }]);
    for (const line of said.map(saidLine)) stdout.line(line);
  }
  if (decisions.length > 0) {
    stdout.line();
    stdout.line([{ text: 'Decided', style: 'bold' }]);
    for (const line of decisions.map(decisionLine)) stdout.line(line);
  }
  stdout.line();
  stdout.line([{ text: `${checkpoints} checkpoints are stored.`, style: 'dim' }]);
  if (need !== null) {
    stdout.line('What you can do:');
    for (const command of need.commands.filter((text) => !/ show /.test(text))) {
      stdout.line([{ text: `  ${command}`, style: 'cyan' }]);
    }
  }
  return 0;
}

/** So many of the last things that its agents have said are shown; `troupe logs --stream progress` has all. */
const SAID = 20;

/** What the agents of a task have said, with the time and the attempt. */
interface SaidView extends TaskProgress {
  readonly at: number;
  readonly attempt: number | null;
}

async function saidIn(
  store: Pick<Store, 'listStreams' | 'listStreamChunks'>,
  address: string,
): Promise<readonly SaidView[]> {
  const [stream] = await store.listStreams({ address, name: 'progress' });
  if (stream === undefined) return [];
  const from = Math.max(0, stream.next - SAID);
  const chunks = await store.listStreamChunks({ address, name: 'progress', from, limit: SAID });
  return chunks.map(({ at, writer, valueJson }) => ({
    ...(JSON.parse(valueJson) as TaskProgress),
    at,
    attempt: Number(/@(\d+)(?:\.fix\d+)?$/.exec(writer)?.[1] ?? Number.NaN) || null,
  }));
}

function saidLine(said: SaidView): Line {
  const { at, attempt, detail } = said;
  const more = detail === null ? '' : JSON.stringify(detail satisfies JsonValue);
  return [
    {
      text: `  ${formatWhen(at, Date.now())}  ${attempt === null ? '' : `#${attempt}  `}`,
      style: 'dim',
    },
    [describeProgress(said), more].filter((part) => part !== '').join('  '),
  ];
}

function headOf(task: TaskView, unicode: boolean): Line[] {
  const look = lookOf(task.state);
  const lines: Line[] = [
    [
      { text: `${task.run}/${task.id}`, style: 'bold' },
      `  ${markOf(task.state, unicode)} `,
      { text: look.words, style: look.style },
      task.title === task.id ? '' : `  ${task.title}`,
    ],
    [`  agent: ${task.agent}   attempts: ${task.attempts}`],
  ];
  if (task.dependsOn.length > 0) lines.push([`  after: ${task.dependsOn.join(', ')}`]);
  if (task.regressionOf !== undefined) {
    const { run, task: id } = task.regressionOf;
    lines.push([`  broken again: ${run}/${id}`]);
  }
  if (task.reason !== null) lines.push([`  reason: ${task.reason}`]);
  if (task.cause === 'infrastructure') {
    lines.push(['  cause: infrastructure; the work itself was not to blame']);
  }
  if (task.question !== null) {
    lines.push([`  asks (${task.question.id}): ${task.question.text}`]);
    const { choices = [] } = task.question;
    if (choices.length > 0) lines.push([`  choices: ${choices.join(', ')}`]);
  }
  if (task.progress !== undefined) {
    const words = describeProgress(task.progress);
    if (words !== '') lines.push([`  progress: ${words}`]);
  }
  if (task.commit !== null) lines.push([`  merged as: ${task.commit}`]);
  return lines;
}

function attemptLines(attempt: AttemptView, withOutput: boolean): Line[] {
  const { outcome, evidence } = attempt;
  const style = outcome === 'accepted' ? 'green' : outcome === 'running' ? 'cyan' : 'red';
  const took =
    attempt.endedAt === null ? '' : `, ${formatDuration(attempt.endedAt - attempt.startedAt)}`;
  const lines: Line[] = [
    [
      { text: `Attempt ${attempt.attempt}  `, style: 'bold' },
      { text: outcome, style },
      attempt.stage === null ? '' : ` (${attempt.stage})`,
      { text: `  ${formatWhen(attempt.startedAt, Date.now())}${took}`, style: 'dim' },
    ],
  ];
  if (attempt.by !== undefined) {
    const { agent, insteadOf } = attempt.by;
    for (const { agent: first, reason } of insteadOf) {
      for (const line of cleanBlock(`not by ${first}: ${reason}`)) lines.push([`  ${line}`]);
    }
    lines.push([`  by ${agent} instead`]);
  }
  lines.push(...fixLines(attempt));
  if (attempt.reason !== null) {
    for (const line of cleanBlock(attempt.reason)) lines.push([`  ${line}`]);
  }
  if (evidence === null) return lines;
  for (const command of evidence.commands) {
    const end =
      command.signal !== null
        ? `ended by ${command.signal}`
        : command.timedOut === true
          ? 'timed out'
          : `exit ${command.exitCode ?? '?'}`;
    const failed = command.exitCode !== 0;
    lines.push([
      `  ${command.name}: `,
      { text: end, style: failed ? 'red' : 'green' },
      { text: `  ${formatDuration(command.durationMs)}  ${command.command}`, style: 'dim' },
    ]);
    // What went well needs no reading; the file has it all.
    if (!failed || !withOutput) continue;
    for (const line of cleanBlock(command.excerpt))
      lines.push([{ text: '    | ', style: 'dim' }, line]);
  }
  if (evidence.artifact !== null) lines.push([`  evidence: ${evidence.artifact}`]);
  return lines;
}

/** Why it was refused at first, and who has tried to mend it. */
function fixLines({ refused, fixes = [], fixing }: AttemptView): Line[] {
  const lines: Line[] = [];
  if (refused !== undefined) {
    lines.push([
      `  refused${refused.stage === null ? '' : ` (${refused.stage})`}  `,
      { text: formatWhen(refused.at, Date.now()), style: 'dim' },
    ]);
    for (const line of cleanBlock(refused.reason ?? '')) lines.push([`    ${line}`]);
    if (refused.artifact !== null) lines.push([`    evidence: ${refused.artifact}`]);
  }
  const nameOf = (fix: Pick<FixView, 'session' | 'iteration' | 'agent'>): string =>
    `  QA session ${fix.session}, iteration ${fix.iteration}, ${fix.agent}  `;
  for (const fix of fixes) {
    for (const { agent, reason } of fix.insteadOf ?? []) {
      for (const line of cleanBlock(`not by ${agent}: ${reason}`)) lines.push([`  ${line}`]);
    }
    lines.push([
      nameOf(fix),
      { text: fix.outcome, style: fix.outcome === 'accepted' ? 'green' : 'red' },
      fix.stage === null ? '' : ` (${fix.stage})`,
      { text: `  ${formatDuration(fix.endedAt - fix.startedAt)}`, style: 'dim' },
    ]);
    const said = fix.reason === null ? [] : cleanBlock(fix.reason);
    for (const line of said) lines.push([`    ${line}`]);
    if (fix.artifact !== null) lines.push([`    evidence: ${fix.artifact}`]);
  }
  if (fixing !== undefined) lines.push([nameOf(fixing), { text: 'running', style: 'cyan' }]);
  return lines;
}

function decisionLine(decision: DecisionView): Line {
  const { at, what, by, text } = decision;
  return [
    { text: `  ${formatWhen(at, Date.now())}  `, style: 'dim' },
    `${what} by ${by}`,
    text === null ? '' : `: ${text}`,
  ];
}
