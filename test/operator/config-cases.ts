/** A configuration that must be refused, and what else lies in its directory. */
export interface BadConfig {
  readonly name: string;
  readonly text: string | Uint8Array;
  /** Further files by their path; a value that begins with `-> ` makes a symbolic link. */
  readonly files?: Readonly<Record<string, string>>;
}

/** The shortest configuration that works: the cases below differ from it in one thing. */
export const MINIMAL = 'version: 1\nverify: [{ name: test, run: npm test }]\n';

const AGENTS = `${MINIMAL}agents:
  patcher: { engine: patch }
  scribe: { engine: command, run: [node, scribe.mjs] }
`;

function verify(...lines: readonly string[]): string {
  return `version: 1\nverify:\n${lines.map((line) => `  ${line}\n`).join('')}`;
}

function tasks(...lines: readonly string[]): string {
  return `${AGENTS}tasks:\n${lines.map((line) => `  ${line}\n`).join('')}`;
}

const PATCHES = { 'a.patch': 'a', 'b.patch': 'b' };

/** Each level is nine times the one before: 9^9 values in 400 characters. */
const BOMB = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i']
  .map((name, index, all) => {
    const inner = index === 0 ? 'x' : `*${all[index - 1]}`;
    return `    ${name}: &${name} [${Array.from({ length: 9 }, () => inner).join(', ')}]`;
  })
  .join('\n');

export const BAD_CONFIGS: readonly BadConfig[] = [
  // The file as a whole.
  { name: 'empty file', text: '' },
  { name: 'only comments', text: '# nothing here\n\n# nor here\n' },
  { name: 'a word instead of a mapping', text: 'npm test\n' },
  { name: 'a list instead of a mapping', text: '- version: 1\n' },
  { name: 'bytes that are not UTF-8', text: new Uint8Array([0x76, 0xff, 0xfe, 0x00, 0x80]) },
  { name: 'UTF-16', text: new Uint8Array([0xff, 0xfe, 0x76, 0x00, 0x3a, 0x00]) },
  { name: 'a control character', text: `${MINIMAL}target: ma\u0000in\n` },
  { name: 'larger than 1 MiB', text: `${MINIMAL}# ${'x'.repeat(1024 * 1024)}\n` },
  { name: 'two documents', text: `${MINIMAL}---\n${MINIMAL}` },
  { name: 'YAML 1.1 directive', text: `%YAML 1.1\n---\n${MINIMAL}` },
  // Not YAML, or too much of it.
  { name: 'tab as indentation', text: 'version: 1\nverify:\n\t- name: test\n' },
  { name: 'unclosed quote', text: 'version: 1\ntarget: "main\n' },
  { name: 'unclosed bracket', text: 'version: 1\nverify: [{ name: test, run: npm test }\n' },
  { name: 'colon in a plain text', text: 'version: 1\ntarget: a: b\n' },
  { name: 'duplicate key', text: `${MINIMAL}target: main\nversion: 1\n` },
  { name: 'duplicate key, deep', text: verify('- { name: test, run: a, run: b }') },
  {
    name: 'merge key',
    text: verify('- &a { name: test, run: npm test }', '- <<: *a', '  name: b'),
  },
  { name: '!!js tag', text: `${MINIMAL}target: !!js/function "function () {}"\n` },
  { name: 'tag of a mapping', text: `${MINIMAL}limits: !limits { attempts: 3 }\n` },
  { name: '__proto__ as a key', text: `${MINIMAL}agents:\n  __proto__: { engine: patch }\n` },
  { name: 'key that is a list', text: `${MINIMAL}[a, b]: 1\n` },
  { name: 'anchor that does not exist', text: `${MINIMAL}target: *main\n` },
  { name: 'alias of itself', text: `${MINIMAL}environment: &e [*e]\n` },
  {
    name: 'anchors bomb',
    text: tasks('- id: a', '  agent: scribe', `  input:\n${BOMB}`),
  },
  { name: 'deep nesting', text: `${MINIMAL}limits: ${'['.repeat(150)}${']'.repeat(150)}\n` },
  {
    name: 'an alias to something deep',
    text: `${MINIMAL}environment: &e ${'['.repeat(60)}${']'.repeat(60)}\nlimits: ${'['.repeat(60)}*e${']'.repeat(60)}\n`,
  },
  {
    name: 'duplicate key and merge key among other problems',
    text: `${MINIMAL}concurrency: .nan\nconcurrency: 0\nlimits: &l { attempts: 0 }\nagents:\n  a:\n    <<: *l\n    engine: patch\n    concurency: 1\n`,
  },
  {
    name: 'limits of an agent by key and by time',
    text: `${MINIMAL}agents:\n  a:\n    engine: patch\n    perKey: { key: task.id, limit: 0 }\n    throttle: { limit: 1, period: 5, per: key }\n    rateLimit: { limit: 1.5 }\n    debounce: 5s\n`,
  },
  // The root.
  { name: 'nothing but unknown keys', text: 'foo: 1\nbar: 2\n' },
  { name: 'no version', text: 'verify: [{ name: test, run: npm test }]\n' },
  { name: 'version of the future', text: 'version: 2\nverify: [{ name: test, run: npm test }]\n' },
  { name: 'version as text', text: 'version: "1"\nverify: [{ name: test, run: npm test }]\n' },
  { name: 'misspelt key', text: `${MINIMAL}tragets: main\n` },
  { name: 'key of another tool', text: `${MINIMAL}env: [CI]\n` },
  { name: 'key like no other', text: `${MINIMAL}zebra: 1\n` },
  { name: 'target that is an option', text: `${MINIMAL}target: --upload-pack=x\n` },
  { name: 'target with dots', text: `${MINIMAL}target: a..b\n` },
  { name: 'target that is a full ref', text: `${MINIMAL}target: refs/heads/main\n` },
  { name: 'target without a value', text: `${MINIMAL}target:\n` },
  {
    name: 'environment with a secret',
    text: `${MINIMAL}environment: [A, TOKEN=s3cret, "s3 cret"]\n`,
  },
  { name: 'encryption without a place for keys', text: `${MINIMAL}encryption: {}\n` },
  {
    name: 'encryption with two places for keys',
    text: `${MINIMAL}encryption: { keyFile: keys, keyVariable: KEYS }\n`,
  },
  { name: 'encryption with a key in it', text: `${MINIMAL}encryption: { key: c2VjcmV0 }\n` },
  {
    name: 'encryption by a variable that cannot be one',
    text: `${MINIMAL}encryption: { keyVariable: A=b }\n`,
  },
  { name: 'encryption in words', text: `${MINIMAL}encryption: true\n` },
  { name: 'concurrency of 0', text: `${MINIMAL}concurrency: 0\n` },
  { name: 'concurrency of 1e9', text: `${MINIMAL}concurrency: 1e9\n` },
  { name: 'concurrency is NaN', text: `${MINIMAL}concurrency: .nan\n` },
  { name: 'concurrency is infinite', text: `${MINIMAL}concurrency: .inf\n` },
  { name: 'concurrency of one and a half', text: `${MINIMAL}concurrency: 1.5\n` },
  { name: 'concurrency in words', text: `${MINIMAL}concurrency: four\n` },
  { name: 'number too big to keep', text: `${MINIMAL}concurrency: 12345678901234567890\n` },
  // Verification.
  { name: 'no verify', text: 'version: 1\n' },
  { name: 'verify without a value', text: 'version: 1\nverify:\ntarget: main\n' },
  { name: 'zero verify commands', text: 'version: 1\nverify: []\n' },
  { name: 'zero verify commands and no tests', text: 'version: 1\nverify: []\ntests: none\n' },
  { name: 'verify is a text', text: 'version: 1\nverify: npm test\n' },
  { name: 'verify holds texts', text: 'version: 1\nverify: [npm test]\n' },
  { name: 'no test command', text: verify('- { name: lint, run: npm run lint }') },
  { name: 'tests: false', text: `${verify('- { name: lint, run: x }')}tests: false\n` },
  { name: 'tests: none with a test command', text: `${MINIMAL}tests: none\n` },
  { name: 'allowFail on test', text: verify('- { name: test, run: npm test, allowFail: true }') },
  {
    name: 'allowFail: yes',
    text: verify('- { name: test, run: a }', '- { name: b, run: b, allowFail: yes }'),
  },
  {
    name: 'two commands of one name',
    text: verify('- { name: test, run: a }', '- { name: test, run: b }'),
  },
  { name: 'command without run', text: verify('- name: test') },
  { name: 'blank command', text: verify('- { name: test, run: "  " }') },
  { name: 'run: true', text: verify('- { name: test, run: true }') },
  { name: 'empty argument vector', text: verify('- { name: test, run: [] }') },
  { name: 'number as an argument', text: verify('- { name: test, run: [node, -p, 1] }') },
  { name: 'argument vector without program', text: verify('- { name: test, run: ["", a] }') },
  { name: 'timeout without a unit', text: verify('- { name: test, run: a, timeout: 60 }') },
  {
    name: 'timeout as text without a unit',
    text: verify('- { name: test, run: a, timeout: "60" }'),
  },
  { name: 'negative timeout', text: verify('- { name: test, run: a, timeout: -5s }') },
  { name: 'timeout of zero', text: verify('- { name: test, run: a, timeout: 0s }') },
  { name: 'timeout in days', text: verify('- { name: test, run: a, timeout: 3d }') },
  { name: 'timeout of a year', text: verify('- { name: test, run: a, timeout: 8760h }') },
  // What a change is held against.
  {
    name: 'a rule that there is not',
    text: `${MINIMAL}gate: { rules: { test-deleted: refuse } }\n`,
  },
  {
    name: 'a rule with another action',
    text: `${MINIMAL}gate: { rules: { tests-deleted: warn } }\n`,
  },
  {
    name: 'thresholds that cannot be',
    text: `${MINIMAL}gate: { maxDeletedFiles: -1, maxDeletedShare: 2, maxFileBytes: 10MB }\n`,
  },
  { name: 'protect is a text', text: `${MINIMAL}protect: db/**\n` },
  { name: 'a review by nobody', text: `${MINIMAL}review: { mode: on, reviewers: [] }\n` },
  {
    name: 'two reviewers of one name',
    text: `${MINIMAL}review: { reviewers: [{ name: a, run: x }, { name: a, run: y }] }\n`,
  },
  { name: 'noTests: true', text: `${verify('- { name: lint, run: x }')}noTests: true\n` },
  { name: 'noTests without a word', text: `${verify('- { name: lint, run: x }')}noTests: " "\n` },
  { name: 'always: often', text: verify('- { name: test, run: a, always: often }') },
  {
    name: 'acceptance that may fail, twice of one name, without a command',
    text: tasks(
      '- { id: a, agent: scribe, accept: [{ name: x, run: y, allowFail: true }, { name: x, run: z }] }',
      '- { id: b, agent: scribe, accept: [{ name: x }] }',
      '- { id: c, agent: scribe, accept: ./accept.sh }',
    ),
  },
  // Agents, limits, policy.
  {
    name: 'fallback that is no agent',
    text: `${MINIMAL}agents: { a: { engine: patch, fallback: bb }, b: { engine: patch } }\n`,
  },
  {
    name: 'agents of a task, and who mends',
    text: `${AGENTS}  mender: { engine: command, run: x, stages: [qa] }
  other: { engine: command, run: x, stages: [implement, implement] }
  odd: { engine: command, run: x, stages: [qua] }
  even: { engine: command, run: x, stages: [] }
  flat: { engine: patch, stages: [qa] }
qa: { agent: [mendre, patcher, 7], sessions: 11, rounds: 2 }
tasks:
  - { id: a, agent: [scribe, scrib, scribe] }
  - { id: b, agent: mender, qa: { agent: mender, iterations: 0 } }
  - { id: c, agent: [], qa: true }
  - { id: d, agent: { scribe: 1 }, qa: {} }
  - { id: e, agent: [scribe], patch: a.patch }
  - { id: f, agent: [scribe, patcher] }
`,
    files: PATCHES,
  },
  {
    name: 'fallbacks in a circle',
    text: `${MINIMAL}agents:\n  a: { engine: patch, fallback: b }\n  b: { engine: patch, fallback: c }\n  c: { engine: patch, fallback: a }\n`,
  },
  {
    name: 'agent that is its own fallback',
    text: `${MINIMAL}agents: { a: { engine: patch, fallback: a } }\n`,
  },
  {
    name: 'breaker and mailbox that cannot be',
    text: `${MINIMAL}agents: { a: { engine: patch, mailbox: 0, overflow: dropOldest, breaker: { failures: 0, open: 5 } } }\n`,
  },
  { name: 'agents is a list', text: `${MINIMAL}agents: [patcher]\n` },
  {
    name: 'agent with a bad name',
    text: `${MINIMAL}agents:\n  "The Patcher": { engine: patch }\n`,
  },
  { name: 'agent without engine', text: `${MINIMAL}agents:\n  a: { concurrency: 2 }\n` },
  {
    name: 'agent with an unknown engine',
    text: `${MINIMAL}agents:\n  a: { engine: comand, run: x }\n`,
  },
  { name: 'command agent without run', text: `${MINIMAL}agents:\n  a: { engine: command }\n` },
  {
    name: 'presets: unknown, beside a command, and what only they may have',
    text: `${MINIMAL}agents:
  a: { engine: command, preset: codx }
  b: { engine: command, preset: codex, run: x }
  c: { engine: command, run: x, arguments: [y], environment: [Z] }
  d: { engine: command, preset: codex, arguments: [1], environment: codex }
`,
  },
  {
    name: 'variables that a preset does not know, and one with its value',
    text: `${MINIMAL}agents:
  a: { engine: command, preset: claude, environment: [OPENAI_API_KEY] }
  b: { engine: command, preset: claude, environment: ["ANTHROPIC_API_KEY=sk-secret"] }
`,
  },
  { name: 'patch agent with run', text: `${MINIMAL}agents:\n  a: { engine: patch, run: x }\n` },
  {
    name: 'agent with concurrency 0',
    text: `${MINIMAL}agents:\n  a: { engine: patch, concurrency: 0 }\n`,
  },
  {
    name: 'limits out of range',
    text: `${MINIMAL}limits: { attempts: 0, sameError: -3, sameChange: 2.5, sameFeedback: 1e9 }\n`,
  },
  {
    name: 'backoff out of range',
    text: `${MINIMAL}limits:\n  backoff: { initial: 10, factor: 0.5, max: never, jitter: 1 }\n`,
  },
  {
    name: 'backoff that shrinks',
    text: `${MINIMAL}limits: { backoff: { initial: 1h, max: 1m } }\n`,
  },
  {
    name: 'infrastructure backoff: misspelt, out of range, and one that shrinks',
    text: `${MINIMAL}limits:
  infrastructureBackof: { initial: 1s }
  infrastructureBackoff: { initialMs: 10, factor: 11, max: 5 }
agents: { a: { engine: patch } }
tasks: [{ id: a, agent: a, patch: x, limits: { infrastructureBackoff: { initial: 1h, max: 1m } } }]
`,
    files: { x: '' },
  },
  {
    name: 'a rule that answers how often?',
    text: `${MINIMAL}overseer:
  policy:
    - { when: {}, decide: retry, times: 0 }
    - { when: {}, decide: retry, times: twice }
    - { when: {}, decide: retry, tiems: 2 }
`,
  },
  {
    name: 'policy about nobody',
    text: `${tasks('- { id: first, agent: scribe }')}overseer:
  policy:
    - { when: { task: frist }, decide: retry }
    - { when: { agent: scrib }, decide: block }
    - { when: { state: blocked }, decide: approve }
    - { when: {}, decide: reject }
    - { decide: cancel }
    - { when: {}, decide: approve, guidance: "Be quick." }
`,
  },
  // Tasks.
  { name: 'tasks is a mapping', text: tasks('first: { agent: scribe }') },
  { name: 'an id with two dots in a row', text: tasks('- { id: a..b, agent: scribe }') },
  { name: 'task with a bad id', text: tasks('- { id: First Task, agent: scribe }') },
  { name: 'task with nothing', text: tasks('- {}') },
  {
    name: 'duplicate task ids',
    text: tasks('- { id: a, agent: scribe }', '- { id: a, agent: scribe }'),
  },
  {
    name: 'unknown agent',
    text: tasks('- { id: a, agent: scribble }', '- { id: b, agent: nobody }'),
  },
  { name: 'no agents at all', text: `${MINIMAL}tasks: [{ id: a, agent: scribe }]\n` },
  {
    name: 'unknown key of a task',
    text: tasks('- { id: a, agent: scribe, depends_on: [], afterr: b }'),
  },
  { name: 'unknown priority', text: tasks('- { id: a, agent: scribe, priority: hihg }') },
  { name: 'priority as a number', text: tasks('- { id: a, agent: scribe, priority: 5 }') },
  { name: 'title over two lines', text: tasks('- { id: a, agent: scribe, title: "one\\ntwo" }') },
  {
    name: 'dependencies that cannot be',
    text: tasks(
      '- { id: slugify, agent: scribe, dependsOn: [slugify] }',
      '- { id: b, agent: scribe, dependsOn: [slugfy, slugify, slugify, quite-another] }',
    ),
  },
  {
    name: 'dependency cycle',
    text: tasks(
      '- { id: a, agent: scribe, dependsOn: [b] }',
      '- { id: b, agent: scribe, dependsOn: [c] }',
      '- { id: c, agent: scribe, dependsOn: [a] }',
      '- { id: d, agent: scribe, dependsOn: [a] }',
    ),
  },
  {
    name: 'two dependency cycles',
    text: tasks(
      '- { id: a, agent: scribe, dependsOn: [b] }',
      '- { id: b, agent: scribe, dependsOn: [a] }',
      '- { id: c, agent: scribe, dependsOn: [d] }',
      '- { id: d, agent: scribe, dependsOn: [a, c] }',
    ),
  },
  {
    name: 'long dependency cycle',
    text: tasks(
      ...Array.from(
        { length: 14 },
        (_, index) => `- { id: t${index}, agent: scribe, dependsOn: [t${(index + 1) % 14}] }`,
      ),
    ),
  },
  {
    name: 'too many dependencies',
    text: tasks(
      ...Array.from({ length: 21 }, (_, index) => `- { id: t${index}, agent: scribe }`),
      `- { id: last, agent: scribe, dependsOn: [${Array.from({ length: 21 }, (_, index) => `t${index}`).join(', ')}] }`,
    ),
  },
  // Patches.
  { name: 'patch agent without a patch', text: tasks('- { id: a, agent: patcher }') },
  {
    name: 'patch for a command agent',
    text: tasks('- { id: a, agent: scribe, patch: a.patch }'),
    files: PATCHES,
  },
  {
    name: 'patch and patches',
    text: tasks('- { id: a, agent: patcher, patch: a.patch, patches: [b.patch] }'),
    files: PATCHES,
  },
  { name: 'empty list of patches', text: tasks('- { id: a, agent: patcher, patches: [] }') },
  {
    name: 'patch that does not exist',
    text: tasks('- { id: a, agent: patcher, patches: [a.patch, c.patch] }'),
    files: PATCHES,
  },
  {
    name: 'patch outside the project',
    text: tasks('- { id: a, agent: patcher, patch: ../../etc/passwd }'),
  },
  { name: 'absolute patch', text: tasks('- { id: a, agent: patcher, patch: /etc/passwd }') },
  {
    name: 'patch that is a directory',
    text: tasks('- { id: a, agent: patcher, patch: dir }'),
    files: { 'dir/x': '' },
  },
  {
    name: 'patch behind links that lead out',
    text: tasks(
      '- { id: a, agent: patcher, patch: link.patch }',
      '- { id: b, agent: patcher, patch: out/passwd }',
      '- { id: c, agent: patcher, patch: loop }',
    ),
    files: { 'link.patch': '-> /etc/passwd', out: '-> /etc', loop: '-> loop' },
  },
  // Tasks in a file of their own.
  { name: 'task file that does not exist', text: `${AGENTS}tasks: backlog.yaml\n` },
  { name: 'task file outside', text: `${AGENTS}tasks: ../backlog.yaml\n` },
  {
    name: 'task file with a mapping',
    text: `${AGENTS}tasks: b.yaml\n`,
    files: { 'b.yaml': 'tasks: []\n' },
  },
  {
    name: 'problems in both files',
    text: `${AGENTS}concurrency: 0\ntasks: work/b.yaml\n`,
    files: { 'work/b.yaml': '- id: a\n  agent: scrib\n- id: a\n  agent: scribe\n  stagd: true\n' },
  },
  {
    name: 'task file that is not YAML',
    text: `${AGENTS}tasks: b.yaml\noverseer: { policy: [{ when: { task: a }, decide: retry }] }\n`,
    files: { 'b.yaml': '- id: "a\n' },
  },
  // Many at once.
  {
    name: 'more problems than are shown',
    text: `${MINIMAL}${Array.from({ length: 25 }, (_, index) => `zebra${index}: 1\n`).join('')}`,
  },
  // How much history is kept.
  { name: 'retention that is a word', text: `${MINIMAL}retention: none\n` },
  { name: 'retention that is true', text: `${MINIMAL}retention: true\n` },
  {
    name: 'retention with an unknown setting',
    text: `${MINIMAL}retention: { checkpointPerActor: 5 }\n`,
  },
  {
    name: 'retention that keeps no checkpoint',
    text: `${MINIMAL}retention: { checkpointsPerActor: 0, finishedRunsDays: 30d, deadLetters: 1.5 }\n`,
  },
  // Phases.
  {
    name: 'phases that name what is not there',
    text: `${tasks('- { id: a, agent: scribe }', '- { id: b, agent: scribe }', '- { id: c, agent: scribe }')}workflow:
  phases:
    - { id: first, tasks: [a, bb], after: [last] }
    - { id: first, tasks: [a] }
    - { id: last, tasks: [], after: [frst] }
`,
  },
  {
    name: 'settings of phases',
    text: `${tasks('- { id: a, agent: scribe }')}workflow:
  order: sequentially
  budget: 3
  phases:
    - { id: first, tasks: [a], budjet: 2h, onBudget: stop, onFailure: hold on }
`,
  },
  { name: 'a workflow without phases', text: `${AGENTS}workflow: { phases: [] }\n` },
];
