// Asks one question of a repository and says the answer; goes on for ever if told so: directory, registry, `stay`.
import path from 'node:path';
import { Git } from '../../src/workspace/git.ts';
import { ObjectReader } from '../../src/workspace/object-reader.ts';
import { ProcessRegistry } from '../../src/workspace/process-registry.ts';

const [directory = '', registry = '', stay = ''] = process.argv.slice(2);
const gitDir = path.join(directory, '.git');
const git = new Git({ processes: new ProcessRegistry(registry) });
const reader = new ObjectReader({ git, place: { cwd: gitDir, gitDir }, idleMs: 2 ** 30 });
const info = await reader.info('refs/heads/main^{commit}');
if (stay === 'stay') setInterval(() => undefined, 1000);
process.stdout.write(`${info?.name}\n`);
