import path from 'node:path';
import { inject } from 'vitest';

/**
 * A program of the tests, bundled so that it starts quickly: see `programs.setup.ts`.
 * @param name its path in this folder, without its ending: `crash/worker` for `crash/worker.child.ts`
 * @returns a file for Node to run
 */
export function program(name: string): string {
  return path.join(inject('programs'), `${name.replaceAll('/', '-')}.child.js`);
}

/** The environment for whoever starts a program: in it, it finds what others before it have compiled. */
export function programEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, NODE_COMPILE_CACHE: path.join(inject('programs'), 'compiled') };
}
