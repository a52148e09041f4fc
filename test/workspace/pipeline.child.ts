// Makes one change and brings it to main, unless a fault point kills it: directory, specification of the faults.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { FaultPoints } from '../../src/runtime/fault-points.ts';
import { verifyAndMerge } from '../../src/workspace/merge.ts';
import { ProcessRegistry } from '../../src/workspace/process-registry.ts';
import { Repository } from '../../src/workspace/repository.ts';
import { Workspaces } from '../../src/workspace/workspaces.ts';

const [directory = '', faults = ''] = process.argv.slice(2);
const faultPoint = new FaultPoints(faults).hit;
const state = path.join(directory, '.troupe');
const processes = new ProcessRegistry(path.join(state, 'processes'));
const repository = await Repository.open({ directory, processes });
const workspaces = new Workspaces({ repository, root: path.join(state, 'workspaces'), faultPoint });
const workspace = await workspaces.prepare({ run: 'run', task: 'task', attempt: 1 });
// As PIPELINE_CHANGE of the fixture, which needs vitest.
writeFileSync(path.join(workspace.directory, 'a.txt'), 'a\n');
writeFileSync(path.join(workspace.directory, 'readme.md'), 'changed\n');
const collected = await workspaces.collect({ workspace, message: 'Do task' });
if (collected.kind !== 'submitted') throw new Error(collected.kind);
await verifyAndMerge({
  submission: { run: 'run', task: 'task', attempt: 1, title: 'Do task', ...collected },
  verify: [{ name: 'test', command: 'test -f readme.md' }],
  workspaces,
  fingerprint: (text) => text,
  faultPoint,
});
