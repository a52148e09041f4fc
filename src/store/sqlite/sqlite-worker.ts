import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { type Failure, TroupeError } from '../../protocol/errors.ts';
import { type BusyOptions, retryWhileBusy } from './busy.ts';
import { LogWatch } from './log-watch.ts';
import { readMigrations } from './migrations.ts';
import { openDatabase } from './open-database.ts';
import { SqliteConnection } from './sqlite-connection.ts';
import { explain } from './sqlite-errors.ts';
import {
  type Call,
  type CommitCall,
  type FromWriter,
  GATE,
  type Reply,
  type TransactCall,
  type WriterData,
} from './writer-protocol.ts';

/**
 * The thread that writes. Calls are carried out in the order in which they came; commits that wait together
 * share one transaction and one flush, each behind its own savepoint.
 */

/** More commits than this do not share a flush: the first of them would wait for the last. */
const MAX_GROUP = 64;

const data = workerData as WriterData;
if (parentPort === null) throw new TroupeError('internal', 'The store writer is not a program.');
const port = parentPort;
const gate = data.gate === undefined ? undefined : new Int32Array(data.gate);
const post = (message: FromWriter): void => port.postMessage(message);

const queue: Call[] = [];
let working = false;
/** A commit of this epoch has failed: those that were sent before the caller could know must fail too. */
let failedEpoch = -1;
let logWatch: LogWatch | undefined;

const busy: BusyOptions = {
  doing: `write to ${data.path}`,
  limitMs: data.busyLimitMs,
  onWarning: (message) => post({ type: 'warning', message }),
};

await start();

async function start(): Promise<void> {
  let connection: SqliteConnection;
  try {
    const { fileSystemType } = data;
    const { db, id } = await openDatabase({
      path: data.path,
      durability: data.durability,
      mayReadBytes: data.mayReadBytes,
      closedCleanly: data.closedCleanly,
      busyLimitMs: data.busyLimitMs,
      onWarning: busy.onWarning,
      migrations: readMigrations(data.schema === undefined ? undefined : new URL(data.schema)),
      ...(fileSystemType === undefined ? {} : { fileSystemType }),
      ...(data.tellsStatements
        ? { onStatement: (sql: string) => post({ type: 'statement', sql }) }
        : {}),
    });
    connection = await retryWhileBusy(() => new SqliteConnection(db, data.path, data.lock), busy);
    if (data.path !== ':memory:') logWatch = new LogWatch(db, data.path, busy.onWarning);
    post({ type: 'opened', id });
  } catch (error) {
    post({ type: 'refused', failure: failureOf(error, `open the store ${data.path}`) });
    return;
  }
  port.on('message', (call: Call) => {
    queue.push(call);
    void work(connection);
  });
}

async function work(connection: SqliteConnection): Promise<void> {
  if (working) return;
  working = true;
  for (;;) {
    takeWhatHasArrived();
    const call = queue[0];
    if (call === undefined) break;
    const replies = isGrouped(call)
      ? await commitTogether(connection, takeGroup())
      : [await carryOut(connection, queue.shift() as Exclude<Call, GroupedCall>)];
    post({ type: 'replies', replies });
    logWatch?.flushed();
  }
  working = false;
}

function takeWhatHasArrived(): void {
  while (queue.length < MAX_GROUP) {
    const arrived = receiveMessageOnPort(port) as { readonly message: Call } | undefined;
    if (arrived === undefined) return;
    queue.push(arrived.message);
  }
}

/** What shares a flush. */
type GroupedCall = CommitCall | TransactCall;

function isGrouped(call: Call | undefined): call is GroupedCall {
  return call?.[1] === 'commit' || call?.[1] === 'transact';
}

function takeGroup(): readonly GroupedCall[] {
  let count = 0;
  while (count < MAX_GROUP && isGrouped(queue[count])) count++;
  return queue.splice(0, count) as unknown as readonly GroupedCall[];
}

async function commitTogether(
  connection: SqliteConnection,
  calls: readonly GroupedCall[],
): Promise<readonly Reply[]> {
  const replies: Reply[] = [];
  try {
    atPoint('store.before-begin');
    await retryWhileBusy(() => connection.begin(), busy);
    for (const call of calls) {
      replies.push(
        call[1] === 'commit' ? applyOne(connection, call) : transactOne(connection, call),
      );
    }
    atPoint('store.before-commit');
    await retryWhileBusy(() => connection.commit(), busy);
    atPoint('store.after-commit');
    return replies;
  } catch (error) {
    connection.rollback();
    // A batch that was refused for its own sake keeps its own reason.
    const failure = failureOf(error, `store a commit in ${data.path}`);
    return calls.map(([id, method, , epoch], index) => {
      if (method === 'commit') failedEpoch = Math.max(failedEpoch, epoch);
      const own = replies[index];
      return own !== undefined && own[1] !== null ? own : [id, failure];
    });
  }
}

/** @throws when SQLite has given up the whole transaction, as it does when the disk is full */
function applyOne(connection: SqliteConnection, [id, , flat, epoch]: CommitCall): Reply {
  if (epoch <= failedEpoch) return [id, refusedAfterFailure()];
  try {
    connection.apply(flat, () => atPoint('store.mid-transaction'));
    return [id, null];
  } catch (error) {
    if (!connection.isOpen) throw error;
    failedEpoch = epoch;
    return [id, failureOf(error, `store a commit in ${data.path}`)];
  }
}

/** One that is refused harms nobody: only its caller knows of it. @throws as `applyOne` */
function transactOne(
  connection: SqliteConnection,
  [id, , transaction, epoch]: TransactCall,
): Reply {
  if (epoch <= failedEpoch) return [id, refusedAfterFailure()];
  try {
    return [id, null, connection.transact(transaction, () => atPoint('store.mid-transaction'))];
  } catch (error) {
    if (!connection.isOpen) throw error;
    return [id, failureOf(error, `store a step and its rows in ${data.path}`)];
  }
}

function refusedAfterFailure(): Failure {
  return new TroupeError(
    'unavailable',
    `A commit in ${data.path} was refused because one before it had failed: it may build on what was not stored.`,
    { retryable: false },
  ).toFailure();
}

async function carryOut(
  connection: SqliteConnection,
  call: Exclude<Call, GroupedCall>,
): Promise<Reply> {
  const [id, method] = call;
  try {
    switch (method) {
      case 'write': {
        const [, , name, args] = call;
        const write = connection[name] as (...args: unknown[]) => unknown;
        return [id, null, await retryWhileBusy(() => write.apply(connection, [...args]), busy)];
      }
      case 'read': {
        const [, , name, args] = call;
        const { reader } = connection;
        const read = reader[name] as (...args: unknown[]) => unknown;
        return [id, null, await retryWhileBusy(() => read.apply(reader, [...args]), busy)];
      }
      case 'close':
        connection.close();
        port.removeAllListeners('message');
        return [id, null];
    }
  } catch (error) {
    return [id, failureOf(error, `${method === 'write' ? 'write to' : method} ${data.path}`)];
  }
}

function failureOf(error: unknown, doing: string): Failure {
  return explain(error, doing).toFailure();
}

/** Nothing, unless a test has armed the fault points: they belong to the main thread, which is asked. */
function atPoint(name: string): void {
  if (gate === undefined) return;
  Atomics.store(gate, 0, GATE.closed);
  post({ type: 'point', name });
  Atomics.wait(gate, 0, GATE.closed);
  if (Atomics.load(gate, 0) === GATE.fail) {
    throw new TroupeError('internal', `A fault was injected at ${name}.`, {
      context: { fault: name },
    });
  }
}
