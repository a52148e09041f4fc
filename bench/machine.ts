import { closeSync, fdatasyncSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { cpus, loadavg, totalmem } from 'node:os';
import { join } from 'node:path';
import { percentile } from './report.ts';

/** Of `statfs`; see statfs(2). */
const TMPFS = 0x01021994;

/** What the figures depend on, in lines to be printed above them. */
export function describeMachine(directory: string): readonly string[] {
  const [cpu] = cpus();
  return [
    `${cpus().length} × ${cpu?.model.trim() ?? 'unknown CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.versions.node}, ${process.platform}`,
    `load average ${loadavg()
      .map((load) => load.toFixed(2))
      .join(' ')}`,
    isInMemory(directory)
      ? `${directory} is in memory: "full" promises nothing there. Name a directory on a disk: --dir`
      : `a 4 kB write and fdatasync takes ${timeOfFlush(directory).toFixed(2)} ms (p50) in ${directory}`,
  ];
}

function isInMemory(directory: string): boolean {
  return process.platform === 'linux' && statfsSync(directory).type === TMPFS;
}

function timeOfFlush(directory: string): number {
  const file = join(directory, 'flush');
  const handle = openSync(file, 'w');
  const page = Buffer.alloc(4096, 1);
  const times = Float64Array.from({ length: 100 }, (_, i) => {
    const before = performance.now();
    writeSync(handle, page, 0, page.length, i * page.length);
    fdatasyncSync(handle);
    return performance.now() - before;
  });
  closeSync(handle);
  rmSync(file);
  return percentile(times.sort(), 0.5);
}
