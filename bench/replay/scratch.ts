import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, realpathSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ConfigurationError } from '../../src/index.ts';
import { Git } from '../../src/workspace/git.ts';
import { ProcessRegistry } from '../../src/workspace/process-registry.ts';
import { processesOf, stateOf } from './scratch-layout.ts';

/**
 * Where a replay works: a directory of its own that is gone afterwards, whatever becomes of the replay. Another process
 * watches over it: when this one has ended without removing it, be it by `kill -9`, that one ends what is still running
 * there and removes it.
 */
export class Scratch {
  readonly directory: string;
  /** The clone that the run works on. */
  readonly project: string;
  /** Troupe's state directory, with the record of all processes. */
  readonly state: string;
  readonly processes: ProcessRegistry;
  readonly git: Git;
  readonly #guardian: ChildProcess;

  /** @param parent where it is made */
  constructor(parent: string) {
    if (!isDirectory(parent)) {
      throw new ConfigurationError(`Expected a directory to work in at ${parent}; there is none.`);
    }
    this.directory = mkdtempSync(path.join(realpathSync(parent), 'troupe-replay-'));
    this.project = path.join(this.directory, 'project');
    this.state = stateOf(this.directory);
    this.#guardian = spawn(process.execPath, [GUARDIAN, this.directory], {
      // In a group of its own: what ends ours does not end it.
      detached: true,
      stdio: ['pipe', 'ignore', 'inherit'],
      cwd: '/',
    });
    this.#guardian.unref();
    this.#guardian.stdin?.on('error', () => undefined);
    mkdirSync(this.state);
    this.processes = new ProcessRegistry(processesOf(this.directory));
    this.git = new Git({ processes: this.processes });
  }

  /** Ends what still runs in it, and removes it. */
  async remove(): Promise<void> {
    this.processes.close();
    await rm(this.directory, { recursive: true, force: true, maxRetries: 5 });
    await this.#dismiss();
  }

  /** Leaves it to whoever wants to look around in it. */
  async keep(): Promise<void> {
    this.processes.close();
    this.#guardian.stdin?.write('keep\n');
    await this.#dismiss();
  }

  async #dismiss(): Promise<void> {
    if (this.#guardian.exitCode !== null || this.#guardian.signalCode !== null) return;
    this.#guardian.ref();
    const exited = once(this.#guardian, 'exit');
    this.#guardian.stdin?.end();
    await exited;
  }
}

const GUARDIAN = fileURLToPath(new URL('./guardian.ts', import.meta.url));

function isDirectory(directory: string): boolean {
  return existsSync(directory) && statSync(directory).isDirectory();
}
