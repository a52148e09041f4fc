import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** @returns what tells the bytes in the heap of this process, after a full collection */
export function usedHeap(): () => number {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  return () => {
    gc();
    gc();
    return process.memoryUsage().heapUsed;
  };
}
