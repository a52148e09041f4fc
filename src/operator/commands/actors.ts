import {
  type AgentStats,
  agentStats,
  type SupervisorStatus,
  supervisorStatus,
} from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { readProject } from '../stored-runs.ts';
import { formatDuration, type Line, safeJson } from '../terminal/text.ts';

type Store = Parameters<Parameters<typeof readProject>[1]>[0];

/** What there is besides runs and tasks. */
interface Actors {
  readonly agents: readonly AgentStats[];
  readonly supervisors: readonly SupervisorStatus[];
  /** Actors of the app's own that no supervisor has. */
  readonly others: readonly OtherActor[];
}

interface OtherActor {
  readonly address: string;
  readonly machine: string;
  readonly status: string;
  readonly reason: string | null;
}

/** Kinds that are shown elsewhere, or that nobody need see. */
const HIDDEN: ReadonlySet<string> = new Set([
  ...['run', 'task', 'agent', 'breaker', 'gatekeeper', 'overseer', 'supervisor'],
]);

/** `troupe actors`: the agents with what they have done, and the trees of supervisors with their children. */
export async function actors(
  cli: CliContext,
  { json }: { readonly json: boolean },
): Promise<number> {
  const place = await cli.project();
  const found = await readProject(place, readActors);
  if (json) {
    cli.stdout.raw(`${safeJson(found)}\n`);
    return 0;
  }
  for (const line of describe(found)) cli.stdout.line(line);
  return 0;
}

export async function readActors(store: Store): Promise<Actors> {
  const all = await store.listActors();
  const agents: AgentStats[] = [];
  const supervisors: SupervisorStatus[] = [];
  const children = new Set<string>();
  for (const { address, status, updatedAt } of all) {
    const kind = address.slice(0, address.indexOf('/'));
    if (status === 'quarantined' || (kind !== 'agent' && kind !== 'supervisor')) continue;
    const [newest] = await store.listCheckpoints(address, { last: 1 });
    if (newest === undefined) continue;
    const snapshot = JSON.parse(newest.snapshotJson);
    if (kind === 'agent') agents.push(agentStats(snapshot, Date.now()));
    else supervisors.push(supervisorStatus(address, updatedAt, snapshot));
  }
  for (const { children: its } of supervisors) for (const { id } of its) children.add(id);
  const others = all
    .filter(({ address }) => !HIDDEN.has(address.slice(0, address.indexOf('/'))))
    .filter(({ address }) => !children.has(address))
    .map(({ address, machine, status, reason }) => ({ address, machine, status, reason }));
  return { agents, supervisors, others };
}

function* describe({ agents, supervisors, others }: Actors): Iterable<Line | string> {
  if (agents.length + supervisors.length + others.length === 0) {
    yield 'There are no actors yet.';
    return;
  }
  if (agents.length > 0) yield [{ text: 'Agents', style: 'bold' }];
  for (const agent of agents) {
    const rate =
      agent.successRate === null ? '' : `, ${Math.floor(agent.successRate * 100)} % of them well`;
    yield `  ${agent.name}: ${agent.state}, ${agent.processed} done${rate}, ${agent.queued} waiting, busy ${formatDuration(agent.busyMs)}`;
    if (agent.lastError !== null) yield `    last error: ${agent.lastError}`;
  }
  const nested = new Set<string>(
    supervisors.filter(({ parent }) => parent !== null).map(({ address }) => address),
  );
  const byAddress = new Map<string, SupervisorStatus>(supervisors.map((one) => [one.address, one]));
  if (supervisors.length > 0) yield [{ text: 'Supervisors', style: 'bold' }];
  for (const one of supervisors) if (!nested.has(one.address)) yield* tree(one, byAddress, '  ');
  if (others.length > 0) yield [{ text: 'Others', style: 'bold' }];
  for (const { address, machine, status, reason } of others) {
    yield `  ${address} (${machine}): ${status}${reason === null ? '' : `, ${reason}`}`;
  }
}

function* tree(
  supervisor: SupervisorStatus,
  byAddress: ReadonlyMap<string, SupervisorStatus>,
  indent: string,
): Iterable<Line | string> {
  const { address, state, strategy, failure, children } = supervisor;
  yield `${indent}${address}: ${state}, ${strategy}`;
  if (failure !== null) yield `${indent}  ${failure.message}`;
  for (const child of children) {
    const nested = byAddress.get(child.id);
    if (nested !== undefined) {
      yield* tree(nested, byAddress, `${indent}  `);
      continue;
    }
    const restarts =
      child.restarts === 0
        ? ''
        : `, restarted ${child.restarts} ${child.restarts === 1 ? 'time' : 'times'}`;
    yield `${indent}  ${child.id}: ${child.state}${restarts}`;
    if (child.lastError !== null) yield `${indent}    last error: ${child.lastError}`;
  }
}
