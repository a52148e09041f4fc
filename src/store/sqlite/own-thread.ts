import { Worker } from 'node:worker_threads';

/**
 * Starts a module of this folder on a thread of its own.
 * @param name its file's, without the ending. A name in a string is not rewritten by tsc: it has the ending that this file has.
 */
export function startThread(name: string, title: string, workerData: object): Worker {
  const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  return new Worker(new URL(`./${name}.${ending}`, import.meta.url), {
    workerData,
    name: title,
    // Nothing of what the app's own program was started with: `--input-type` of a `node --eval` is refused for a file, and
    // what `--import` loads is for the app's code.
    execArgv: [],
  });
}
