// Four agents that need no model, on a real project: one plans, one tests, one reviews, one prepares the release.
// Run: node examples/08-agents.ts

import { execFileSync } from 'node:child_process';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createTroupe } from '../src/index.ts';
import { architect, type Plan } from './agents/architect.ts';
import { devOps, type Release } from './agents/dev-ops.ts';
import { type Finding, hound, houndGatekeeper } from './agents/hound.ts';
import { type TestReport, testRunner } from './agents/test-runner.ts';

// A copy of the example project, with a history: what was released, and a fix since.
const directory = await mkdtemp(path.join(tmpdir(), 'troupe-agents-'));
await cp(path.join(import.meta.dirname, 'backlog', 'project'), directory, { recursive: true });
const git = (...args: readonly string[]): string =>
  execFileSync('git', ['-c', 'user.name=ada', '-c', 'user.email=ada@example.org', ...args], {
    cwd: directory,
    encoding: 'utf8',
  });
git('init', '-q');
git('add', '.');
git('commit', '-q', '-m', 'Wrap, slug and CSV');
git('tag', 'v0.2.0');
git('commit', '-q', '--allow-empty', '-m', 'fix: keep quotes in CSV');

const troupe = await createTroupe({ store: ':memory:' });
troupe.agent('architect', architect, { tract: 'internal' });
troupe.agent('tester', testRunner);
troupe.agent('release', devOps);
troupe.agent('hound', hound, { tract: 'internal' });
// Writes a change, and what it has learned from the review of the first one.
troupe.agent('writer', ({ task: { feedback } }) => ({
  diff: [
    '+++ b/src/slugify.js',
    '@@ -0,0 +1,2 @@',
    feedback.length === 0 ? '+console.log(text);' : '+// TODO(#7) umlauts',
    '+export const separator = "-";',
  ].join('\n'),
}));
troupe.gatekeeper('hound', houndGatekeeper);
// What the others found is not a change to be reviewed: it only has to be there.
troupe.gatekeeper('reader', ({ submission: { result } }) =>
  result === null
    ? { accepted: false, reason: 'There is nothing to read.' }
    : { accepted: true, evidence: ['read it'] },
);

const input = { directory };
const run = await troupe.start({
  id: 'check',
  limits: { backoff: { initialMs: 1, maxMs: 1 } },
  tasks: [
    { id: 'plan', agent: 'architect', gatekeeper: 'reader', input },
    { id: 'test', agent: 'tester', gatekeeper: 'reader', input },
    { id: 'change', agent: 'writer', gatekeeper: 'hound', dependsOn: ['plan', 'test'] },
    {
      id: 'review',
      agent: 'hound',
      gatekeeper: 'reader',
      input: { diff: '+++ b/src/a.js\n@@ -0,0 +1 @@\n+// FIXME wraps too early' },
    },
    { id: 'release', agent: 'release', gatekeeper: 'reader', dependsOn: ['change'], input },
  ],
});
const { state } = await run.result();

/** What an agent has found, from its last answer in the audit stream. */
async function found<T>(task: string): Promise<T> {
  let last: unknown;
  for await (const entry of troupe.audit({ address: `task/check/${task}` })) {
    if (entry.type === 'agent.work:ok')
      last = (entry.payload as { reply: { result: T } }).reply.result;
  }
  return last as T;
}

const { modules, cycles, untested, hotSpots } = await found<Plan>('plan');
console.log(
  `plan: ${modules.length} modules, ${cycles.length} circles, without a test: ${untested.join(', ') || 'none'}`,
);
console.log(`hottest: ${hotSpots[0]?.name}`);
const { passed, failed } = await found<TestReport>('test');
console.log(`tests: ${passed} passed, ${failed} failed`);
for (const { outcome, reason } of await run.task('change').attempts()) {
  console.log(`change: ${outcome}${reason === null ? '' : `, ${reason}`}`);
}
const { findings } = await found<{ readonly findings: readonly Finding[] }>('review');
for (const { file, line, rule } of findings) console.log(`review: ${file}:${line}: ${rule}`);
const { ready, checks, changelog } = await found<Release>('release');
for (const { name, passed: ok, found: what } of checks)
  console.log(`${ok ? 'ok ' : 'NOT'} ${name}: ${what}`);
console.log(`ready: ${ready}`);
console.log(changelog);
console.log(state, troupe.flow().toExternal, troupe.flow().toInternal);
await troupe.stop();
await rm(directory, { recursive: true });

// Output:
// plan: 24 modules, 0 circles, without a test: bin/textkit.js
// hottest: src/expect.js
// tests: 45 passed, 0 failed
// change: rejected, The review found 1 problem.
// change: accepted
// review: src/a.js:1: todo-without-issue
// ok  package.json: version 0.3.0
// ok  lock file: none, for 0 dependencies
// ok  node: >=22.8
// ok  scripts: test: node --test --test-isolation=none
// ok  committed: nothing is open
// ok  new version: the last release is v0.2.0
// ready: true
// ## 0.3.0
//
// ### Fixed
//
// - keep quotes in CSV
// done 5 4
