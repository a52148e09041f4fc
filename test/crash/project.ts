import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { TaskInput } from '../../src/troupe.ts';
import { gitAsUser } from './world.ts';

/** What one life of `project.child.ts` is to do. */
export interface ProjectOrders {
  /** Holds `project`, `store/state.db`, `history.jsonl`, `agent.sh`, the patches. */
  readonly home: string;
  /** Ids of the tasks of the run; see `TASKS`. */
  readonly tasks: readonly string[];
  /** For `FaultPoints`. */
  readonly faults?: string;
  /** Kill yourself when this state of this task has been stored; `fixing.working` for one within another. */
  readonly dieWhen?: { readonly task: string; readonly state: string };
  /** Somebody has this task tried again when nothing moves any more. */
  readonly retry?: string;
  /** Infrastructure faults in a row that a task bears. Default: the product's. */
  readonly infrastructureAttempts?: number;
  /** Do not wait for the run to end: stay open until a signal comes. SIGTERM drains, SIGINT does not. */
  readonly untilSignal?: boolean;
}

export const RUN = 'run';

/** The user's own files: one that git does not know, one that it ignores. */
export const USER_FILES = { 'notes.txt': 'mine\n' } as const;

const FILES = {
  'readme.md': '# A project\n',
  'list.txt': 'alpha\nzulu\n',
  'chain.txt': 'zero\n',
  'src/a.txt': 'a\n',
  'src/b.txt': 'b\n',
};

/**
 * What the tasks do. `good` adds a file; `chain-1` and `chain-2` change the same line after each other; `flawed`
 * breaks the build first; `left` and `right` put a line each into the same place of a sorted list; `hopeless` always
 * breaks the build, in the same way. `solo` is nothing special; `patient` works until `release` is called; `untidy` needs
 * a temporary file; `mended` breaks the build, and another agent mends it; `poison` kills the runtime, and is given up after the usual number of times, as is `unlucky`, which does nothing to deserve it.
 */
export const TASKS: Readonly<Record<string, Omit<TaskInput, 'id'>>> = {
  good: { agent: 'patcher', input: { patches: ['good.patch'] } },
  'chain-1': { agent: 'patcher', input: { patches: ['chain-1.patch'] } },
  'chain-2': { agent: 'scribe', dependsOn: ['chain-1'] },
  flawed: { agent: 'patcher', input: { patches: ['broken.patch', 'mended.patch'] } },
  left: { agent: 'scribe', priority: 'urgent' },
  right: { agent: 'scribe', priority: 'urgent' },
  hopeless: {
    agent: 'patcher',
    input: { patches: ['broken.patch'] },
    limits: { sameError: 2, sameChange: 2, sameFeedback: 5 },
  },
  solo: { agent: 'scribe' },
  patient: { agent: 'scribe' },
  untidy: { agent: 'scribe' },
  mended: {
    agent: 'patcher',
    input: { patches: ['broken.patch'] },
    qa: { agent: 'scribe' },
    limits: { attempts: 1 },
  },
  poison: { agent: 'scribe', limits: { interruptions: 3 } },
  unlucky: {
    agent: 'patcher',
    input: { patches: ['good.patch'] },
    limits: { interruptions: 3 },
  },
};

export const ALL_TASKS = ['good', 'chain-1', 'chain-2', 'flawed', 'left', 'right', 'hopeless'];

/** How a run of `ALL_TASKS` ends. */
export const FINAL_STATES: Readonly<Record<string, string>> = { [`${RUN}/hopeless`]: 'blocked' };

export const paths = (home: string) => ({
  project: path.join(home, 'project'),
  store: path.join(home, 'store', 'state.db'),
  history: path.join(home, 'history.jsonl'),
  agent: path.join(home, 'agent.sh'),
  meeting: path.join(home, 'meeting'),
});

/** Lets the task `patient` come to its end. */
export function release(home: string): void {
  writeFileSync(path.join(paths(home).meeting, 'released'), '');
}

/** Says in the history that it runs, then does its task; a shell, because it starts in a millisecond. */
const AGENT = `set -eu
what=command.begun
[ -z "\${TROUPE_FIX-}" ] || what=fix.begun
printf '{"op":"%s","task":"%s/%s","attempt":%s,"pid":%s}\\n' \\
  "$what" "$TROUPE_RUN" "$TROUPE_TASK" "$TROUPE_ATTEMPT" $$ >> "$CRASH_HISTORY"
insert() { printf '%s\\n' "$1" >> list.txt; LC_ALL=C sort -o list.txt list.txt; }
meet() {
  : > "$CRASH_MEETING/$1"
  n=0
  while [ ! -e "$CRASH_MEETING/$2" ] && [ $n -lt 200 ]; do sleep 0.02; n=$((n + 1)); done
}
case "$TROUPE_TASK" in
  chain-2) printf 'two\\n' >> chain.txt ;;
  left) meet left right; insert left ;;
  right) meet right left; insert right ;;
  solo) printf 'solo\\n' > solo.txt ;;
  patient)
    sleep 97531 &
    echo started
    while [ ! -e "$CRASH_MEETING/released" ]; do sleep 0.05; done
    printf 'patient\\n' > patient.txt ;;
  mended) rm broken ; printf 'mended\\n' > mended.txt ;;
  poison) kill -9 $PPID ; sleep 5 ;;
  untidy)
    head -c 100000 /dev/zero > "\${TMPDIR:-/tmp}/untidy.$$"
    rm "\${TMPDIR:-/tmp}/untidy.$$"
    printf 'untidy\\n' > untidy.txt ;;
esac
`;

/** Makes the project, its patches and its agent's script. @returns the commit that main stands at */
export function makeProject(home: string): string {
  const { project, agent, meeting } = paths(home);
  mkdirSync(meeting, { recursive: true });
  writeFiles(project, FILES);
  writeFileSync(agent, AGENT);
  chmodSync(agent, 0o755);
  gitAsUser(project, 'init', '-q', '-b', 'main');
  gitAsUser(project, 'add', '-A');
  gitAsUser(project, 'commit', '-q', '-m', 'first');
  writeFiles(project, USER_FILES);
  writeFiles(home, {
    'good.patch': addition('good.txt', 'good'),
    'broken.patch': addition('broken', 'yes'),
    'mended.patch': addition('mended.txt', 'mended'),
    'chain-1.patch': `--- a/chain.txt\n+++ b/chain.txt\n@@ -1 +1,2 @@\n zero\n+one\n`,
  });
  return gitAsUser(project, 'rev-parse', 'refs/heads/main');
}

function addition(name: string, line: string): string {
  return `--- /dev/null\n+++ b/${name}\n@@ -0,0 +1 @@\n+${line}\n`;
}

function writeFiles(directory: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(directory, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
}
