import type { FlowMetrics } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { connectControl } from '../control/client.ts';
import { stateDirectoryOf } from '../state-directory.ts';
import { cleanLine, formatWhen, safeJson } from '../terminal/text.ts';

/** The flow of the process that works on the project; null when there is none. It counts in memory, from its start on. */
export async function flowOf(directory: string): Promise<FlowMetrics | null> {
  const connection = await connectControl(stateDirectoryOf(directory));
  if (connection === undefined) return null;
  try {
    return (await connection.watch(() => undefined)).snapshot.flow;
  } finally {
    connection.close();
  }
}

/** `troupe flow`: how messages flow between those that reason and those that act. */
export async function flow(cli: CliContext, { json }: { readonly json: boolean }): Promise<number> {
  const { stdout } = cli;
  const metrics = await flowOf((await cli.project()).directory);
  if (json) {
    stdout.raw(`${safeJson({ flow: metrics })}\n`);
    return 0;
  }
  if (metrics === null) {
    stdout.line('Nothing runs now. The flow between tracts is counted while a run is active.');
    return 0;
  }
  const { since, agents, toExternal, toInternal, balance, dialogue } = metrics;
  for (const tract of ['internal', 'external'] as const) {
    const names = Object.keys(agents).filter((name) => agents[name] === tract);
    stdout.line(`${tract}: ${cleanLine(names.join(', ')) || 'no agents'}`);
  }
  const total = toExternal + toInternal;
  stdout.line(`internal → external: ${toExternal}`);
  stdout.line(`external → internal: ${toInternal}`);
  stdout.line(`balance: ${balance === null ? 'no message yet' : balance.toFixed(2)}`);
  stdout.line(
    `dialogue: ${dialogue === null ? `told after 100 messages, there were ${total}` : dialogue.toFixed(2)}`,
  );
  stdout.line([{ text: `Counted since ${formatWhen(since, Date.now())}.`, style: 'dim' }]);
  return 0;
}
