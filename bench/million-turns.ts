import { rmSync, statSync } from 'node:fs';
import { parseRetention } from '../src/actors/retention.ts';
import { notebook, notebookAddress } from './notebook.ts';
import { keepOutstanding, makeHost, openStore, storedTurns } from './place.ts';
import { type Bench, type BenchOptions, Samples } from './report.ts';

const ACTORS = 500;
const OUTSTANDING = 256;

/**
 * The size of the database after 1 000 000 turns, with history removed as it is by default, and what that costs a turn.
 *
 * How: 500 actors, a checkpoint of about 500 bytes for each turn, 256 messages outstanding, `full`. The size is that of
 * the file and its log when the last turn is stored, while the store is still open. Then a tenth as many turns with all
 * history kept, and with it removed, one after the other: what a turn costs and how much a turn adds without.
 *
 * Cheating would be: actors that take fewer turns than are kept, a size after `prune` or after closing, an empty file
 * given back with VACUUM at the end, or turns that the store does not hold.
 */
export const millionTurns: Bench = {
  title: 'Database size after 1 000 000 turns',
  async run(options: BenchOptions) {
    const turns = options.quick ? 2_000 : 1_000_000;
    const samples = new Samples();
    const add = (name: string, figures: Figures): void => {
      for (const [figure, value] of Object.entries(figures)) {
        samples.add(`${name} ${figure}`, value);
      }
    };
    for (let run = 0; run < options.runs; run++) {
      add('pruned', await measure(turns, true, options.directory));
      const kept = await measure(turns / 10, false, options.directory);
      add('kept, tenth', kept);
      samples.add('all', kept.megabytes * 10);
      add('pruned, tenth', await measure(turns / 10, true, options.directory));
    }
    return [
      {
        columns: [
          'turns',
          'history',
          'file and log, MB',
          'MB : with all history',
          'turns/s',
          'turns/s : with all history',
          'CPU of the other threads, µs per turn',
        ],
        rows: [
          [
            turns.toLocaleString('en-US').replaceAll(',', ' '),
            'default retention',
            samples.of('pruned megabytes'),
            samples.ratio('pruned megabytes', 'all'),
            samples.of('pruned perSecond'),
            samples.ratio('pruned perSecond', 'kept, tenth perSecond'),
            samples.of('pruned others'),
          ],
          [
            (turns / 10).toLocaleString('en-US').replaceAll(',', ' '),
            'default retention',
            samples.of('pruned, tenth megabytes'),
            samples.ratio('pruned, tenth megabytes', 'kept, tenth megabytes'),
            samples.of('pruned, tenth perSecond'),
            samples.ratio('pruned, tenth perSecond', 'kept, tenth perSecond'),
            samples.of('pruned, tenth others'),
          ],
          [
            (turns / 10).toLocaleString('en-US').replaceAll(',', ' '),
            'all',
            samples.of('kept, tenth megabytes'),
            '1',
            samples.of('kept, tenth perSecond'),
            '1',
            samples.of('kept, tenth others'),
          ],
        ],
      },
    ];
  },
};

interface Figures {
  readonly megabytes: number;
  readonly perSecond: number;
  readonly others: number;
}

async function measure(turns: number, prunes: boolean, directory: string): Promise<Figures> {
  const store = await openStore('full', directory);
  const host = makeHost(store, { retention: prunes ? parseRetention() : undefined });
  host.register('notebook', notebook);
  await host.open();
  await host.spawn(
    Array.from({ length: ACTORS }, (_, name) => ({
      address: notebookAddress(name),
      machine: 'notebook',
      input: { name },
    })),
  );
  let left = turns;
  const mainBefore = process.threadCpuUsage();
  const allBefore = process.cpuUsage();
  const begin = performance.now();
  await keepOutstanding(host, OUTSTANDING, ACTORS, () => left-- > 0);
  const seconds = (performance.now() - begin) / 1000;
  const main = process.threadCpuUsage(mainBefore);
  const all = process.cpuUsage(allBefore);
  const stored = await storedTurns(store);
  if (stored !== turns) throw new Error(`Expected ${turns} turns to be stored, got ${stored}.`);
  const bytes = statSync(store.name).size + statSync(`${store.name}-wal`).size;
  await host.stop();
  rmSync(store.name);
  return {
    megabytes: bytes / 1e6,
    perSecond: turns / seconds,
    others: (all.user + all.system - main.user - main.system) / turns,
  };
}
