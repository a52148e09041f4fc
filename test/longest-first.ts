import { BaseSequencer, type TestSpecification } from 'vitest/node';

/**
 * What takes longest alone, longest first; measured, not counted in lines. Vitest orders by size when it has not seen the files
 * run, as on a machine that has just cloned the repository, and these are short: one of them at the end leaves a core with
 * nothing to do.
 */
const LONGEST: readonly string[] = [
  'simulation/simulation',
  'simulation/more-worlds',
  'crash/n-loop',
  'crash/sigkill',
  'simulation/n-loop',
  'crash/windows',
  'faults/small-disk',
  'faults/disk-errors',
  'crash/travel',
  'faults/lost-files',
  'simulation/planted-bugs',
  'workspace/workspaces',
  'workspace/merge',
  'store/sqlite/crash',
  'bench/replay',
];

const places = new Map(LONGEST.map((name, place) => [`/test/${name}.test.ts`, place]));

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number =>
      places.get(moduleId.slice(moduleId.lastIndexOf('/test/'))) ?? LONGEST.length;
    return (await super.sort(files)).toSorted((a, b) => place(a) - place(b));
  }
}
