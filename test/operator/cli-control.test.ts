import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { Flow } from '../../src/actors/flow.ts';
import { ConflictError, TroupeError } from '../../src/index.ts';
import { connectControl } from '../../src/operator/control/client.ts';
import {
  createEndpoint,
  findEndpoint,
  removeEndpoint,
} from '../../src/operator/control/endpoint.ts';
import { MAX_LINE_BYTES } from '../../src/operator/control/messages.ts';
import { type ControlHandlers, ControlServer } from '../../src/operator/control/server.ts';
import { MAX_TEXT, type Order } from '../../src/operator/orders.ts';
import type { RunEvent } from '../../src/operator/run-view.ts';
import { aRun, aTask, NOON } from './cli-views.ts';

const RETRY: Order = { order: 'retry', run: 'main', task: 'one', guidance: 'look "here"\n' };

function stateDirectory(depth = 0): string {
  const root = realpathSync(mkdtempSync(path.join(tmpdir(), 'troupe-control-')));
  onTestFinished(() => rmSync(root, { recursive: true, force: true }));
  const directory = path.join(root, 'x'.repeat(depth), '.troupe');
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  return directory;
}

/** A server whose orders are only noted. */
async function listen(
  directory: string,
  handlers: Partial<ControlHandlers> = {},
  options: { readonly idleMs?: number } = {},
) {
  const orders: Order[] = [];
  const listeners = new Set<(event: RunEvent) => void>();
  const server = await ControlServer.listen(
    directory,
    {
      perform: async (order) => {
        orders.push(order);
        return { tasks: [{ run: 'main', task: 'one', state: 'ready' }] };
      },
      snapshot: () => ({
        runs: [aRun()],
        tasks: [aTask('one', { state: 'working' })],
        flow: new Flow(NOON).metrics(),
      }),
      subscribe: (listener) => {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
      ...handlers,
    },
    options,
  );
  onTestFinished(() => server.close());
  const tell = (text: string): void => {
    for (const listener of listeners) listener({ type: 'notice', at: NOON, text });
  };
  return { server, orders, listeners, tell };
}

async function raw(directory: string): Promise<{ socket: Socket; lines: AsyncIterator<string> }> {
  const endpoint = await findEndpoint(directory);
  const socket = connect(endpoint?.path ?? '');
  socket.on('error', () => undefined);
  onTestFinished(() => {
    socket.destroy();
  });
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  await lines.next(); // the greeting
  return { socket, lines };
}

describe('orders', () => {
  test('reach the handlers as they were given, and their result comes back', async () => {
    const directory = stateDirectory();
    const { orders } = await listen(directory);
    const connection = await connectControl(directory);
    expect(connection?.pid).toBe(process.pid);
    expect(await connection?.perform(RETRY)).toEqual({
      tasks: [{ run: 'main', task: 'one', state: 'ready' }],
    });
    await connection?.perform({ order: 'pause', run: 'main', task: 'two' });
    expect(orders).toEqual([RETRY, { order: 'pause', run: 'main', task: 'two' }]);
    connection?.close();
  });

  test('that are refused come back as the same error', async () => {
    const directory = stateDirectory();
    await listen(directory, {
      perform: async () => {
        throw new ConflictError('Task one is done.', { context: { state: 'done' } });
      },
    });
    const connection = await connectControl(directory);
    const refusal = connection?.perform(RETRY);
    await expect(refusal).rejects.toMatchObject({ code: 'conflict', message: 'Task one is done.' });
    await expect(refusal).rejects.toBeInstanceOf(TroupeError);
    connection?.close();
  });

  test('of the longest text still fit into a line', async () => {
    const directory = stateDirectory();
    const { orders } = await listen(directory);
    const connection = await connectControl(directory);
    // Six bytes for each character once it is JSON.
    const order: Order = {
      order: 'answer',
      run: 'main',
      task: 'one',
      text: '\u0001'.repeat(MAX_TEXT),
    };
    await connection?.perform(order);
    expect(orders).toEqual([order]);
    connection?.close();
  });
});

describe('watching', () => {
  test('begins with a snapshot and goes on with what happens, until the server closes', async () => {
    const directory = stateDirectory();
    const { server, tell, listeners } = await listen(directory);
    const connection = await connectControl(directory);
    const events: RunEvent[] = [];
    const watched = await connection?.watch((event) => events.push(event));
    expect(watched?.snapshot.tasks).toMatchObject([{ id: 'one', state: 'working' }]);
    tell('first');
    tell('second\nline');
    await server.close();
    await watched?.ended;
    expect(events.map((event) => event.type === 'notice' && event.text)).toEqual([
      'first',
      'second\nline',
    ]);
    expect(listeners.size).toBe(0);
  });

  test('goes on while the server takes nobody new', async () => {
    const directory = stateDirectory();
    const { server, tell } = await listen(directory);
    const connection = await connectControl(directory);
    const events: RunEvent[] = [];
    const watched = await connection?.watch((event) => events.push(event));
    await server.stopListening();
    expect(await connectControl(directory)).toBeUndefined();
    tell('last words');
    await server.close();
    await watched?.ended;
    expect(events).toHaveLength(1);
  });

  test('ends with the watcher', async () => {
    const directory = stateDirectory();
    const { listeners } = await listen(directory);
    const { socket, lines } = await raw(directory);
    const token = (await findEndpoint(directory))?.token;
    socket.write(`${JSON.stringify({ id: 1, token, do: 'watch' })}\n`);
    await lines.next();
    expect(listeners.size).toBe(1);
    const gone = new Promise<void>((resolve) => {
      const drop = [...listeners][0];
      const { delete: remove } = listeners;
      listeners.delete = (listener) => {
        if (listener === drop) resolve();
        return remove.call(listeners, listener);
      };
    });
    socket.destroy();
    await gone;
    expect(listeners.size).toBe(0);
  });

  test('never makes the server hold more than its share for one who does not read', async () => {
    const directory = stateDirectory();
    const { tell, listeners } = await listen(directory);
    const { socket, lines } = await raw(directory);
    const token = (await findEndpoint(directory))?.token;
    socket.write(`${JSON.stringify({ id: 1, token, do: 'watch' })}\n`);
    await lines.next();
    socket.pause();
    const text = 'x'.repeat(1024 * 1024);
    for (let sent = 0; sent < 20; sent++) tell(text);
    await new Promise((resolve) => setImmediate(resolve));
    expect(listeners.size).toBe(0);
  });
});

describe('whoever is not one of us', () => {
  test.each([
    {
      what: 'a wrong token',
      line: JSON.stringify({ id: 1, token: 'guess', do: 'order', order: RETRY }),
      code: 'unauthorized',
    },
    {
      what: 'no token',
      line: JSON.stringify({ id: 1, do: 'order', order: RETRY }),
      code: 'unauthorized',
    },
    { what: 'no JSON', line: 'GET / HTTP/1.1', code: 'validation' },
    { what: 'no object', line: 'null', code: 'unauthorized' },
    { what: 'binary', line: '\u0000\u0001\ufffd', code: 'validation' },
    { what: 'an empty line', line: '', code: 'validation' },
  ])('$what is told so and cut off; nothing changes', async ({ line, code }) => {
    const directory = stateDirectory();
    const { orders } = await listen(directory);
    const { socket, lines } = await raw(directory);
    socket.write(`${line}\n`);
    const { value } = await lines.next();
    expect(JSON.parse(value as string)).toMatchObject({ ok: false, failure: { code } });
    await once(socket, 'close');
    expect(orders).toEqual([]);
  });

  test.each([
    { what: 'an unknown order', order: { order: 'format', run: 'main', task: 'one' } },
    { what: 'an unknown field', order: { ...RETRY, force: true } },
    { what: 'a wrong type', order: { order: 'pause', run: 'main', task: { $gt: '' } } },
    { what: 'too long a text', order: { ...RETRY, guidance: 'x'.repeat(MAX_TEXT + 1) } },
    {
      what: 'a prototype',
      order: JSON.parse('{"order":"pause","run":"m","task":"t","__proto__":{}}') as object,
    },
  ])('$what is refused, with the right token', async ({ order }) => {
    const directory = stateDirectory();
    const { orders } = await listen(directory);
    const { socket, lines } = await raw(directory);
    const token = (await findEndpoint(directory))?.token;
    socket.write(`${JSON.stringify({ id: 1, token, do: 'order', order })}\n`);
    const { value } = await lines.next();
    expect(JSON.parse(value as string)).toMatchObject({
      ok: false,
      failure: { code: 'validation' },
    });
    expect(orders).toEqual([]);
  });

  test('cannot make it hold an endless line', async () => {
    const directory = stateDirectory();
    const { orders } = await listen(directory);
    const { socket, lines } = await raw(directory);
    socket.write('x'.repeat(MAX_LINE_BYTES + 1));
    const { value } = await lines.next();
    expect(JSON.parse(value as string)).toMatchObject({
      failure: { message: `Expected lines of at most ${MAX_LINE_BYTES} bytes, got a longer one.` },
    });
    await once(socket, 'close');
    const connection = await connectControl(directory);
    await connection?.perform(RETRY);
    connection?.close();
    expect(orders).toEqual([RETRY]);
  });

  test('cannot keep the others out with 1 000 connections', async () => {
    const directory = stateDirectory();
    const { orders } = await listen(directory, {}, { idleMs: 500 });
    const endpoint = await findEndpoint(directory);
    let greeted = 0;
    const sockets = Array.from({ length: 1_000 }, () => {
      const socket = connect(endpoint?.path ?? '');
      socket.on('error', () => undefined);
      socket.once('data', () => greeted++).resume();
      return socket;
    });
    const closed = sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve)));
    // Most are turned away at once; those that were let in say nothing and have to go after a while.
    await Promise.all(closed);
    expect(greeted).toBeLessThan(200);
    const connection = await connectControl(directory);
    await connection?.perform(RETRY);
    connection?.close();
    expect(orders).toEqual([RETRY]);
  });

  test('half a request and then nothing is forgotten', async () => {
    const directory = stateDirectory();
    const { orders } = await listen(directory);
    const { socket } = await raw(directory);
    const token = (await findEndpoint(directory))?.token;
    socket.end(JSON.stringify({ id: 1, token, do: 'order', order: RETRY }));
    await once(socket, 'close');
    expect(orders).toEqual([]);
  });
});

describe('the endpoint', () => {
  test('is for its owner only', async () => {
    const directory = stateDirectory();
    await listen(directory);
    expect(statSync(path.join(directory, 'control.sock')).mode & 0o777).toBe(0o600);
    expect(statSync(path.join(directory, 'control.token')).mode & 0o777).toBe(0o600);
    expect(readFileSync(path.join(directory, 'control.token'), 'utf8')).toMatch(/^[0-9a-f]{64}\n$/);
  });

  test('is gone afterwards', async () => {
    const directory = stateDirectory();
    const { server } = await listen(directory);
    await server.close();
    expect(existsSync(path.join(directory, 'control.sock'))).toBe(false);
    expect(existsSync(path.join(directory, 'control.token'))).toBe(false);
    expect(await connectControl(directory)).toBeUndefined();
  });

  test('that a crash left behind is nobody, and is replaced', async () => {
    const directory = stateDirectory();
    await createEndpoint(directory);
    writeFileSync(path.join(directory, 'control.sock'), '');
    expect(await connectControl(directory)).toBeUndefined();
    const { orders } = await listen(directory);
    const connection = await connectControl(directory);
    await connection?.perform(RETRY);
    connection?.close();
    expect(orders).toEqual([RETRY]);
  });

  test('has a new token each time', async () => {
    const directory = stateDirectory();
    const first = await createEndpoint(directory);
    const second = await createEndpoint(directory);
    expect(second.token).not.toBe(first.token);
  });

  test('lies in the temporary directory when the path would be too long', async () => {
    const directory = stateDirectory(120);
    const { server, orders } = await listen(directory);
    const elsewhere = readFileSync(path.join(directory, 'control.path'), 'utf8').trim();
    expect(path.dirname(path.dirname(elsewhere))).toBe(realpathSync(tmpdir()));
    expect(statSync(path.dirname(elsewhere)).mode & 0o777).toBe(0o700);
    const connection = await connectControl(directory);
    await connection?.perform(RETRY);
    connection?.close();
    expect(orders).toEqual([RETRY]);
    await server.close();
    expect(existsSync(path.dirname(elsewhere))).toBe(false);
    expect(existsSync(path.join(directory, 'control.path'))).toBe(false);
  });

  test('is found by who has another temporary directory', async () => {
    const directory = stateDirectory(120);
    await listen(directory);
    vi.stubEnv('TMPDIR', path.dirname(path.dirname(directory)));
    onTestFinished(() => void vi.unstubAllEnvs());
    const connection = await connectControl(directory);
    expect(connection?.pid).toBe(process.pid);
    connection?.close();
  });

  test.each([
    {
      says: '{"troupe":"control/9","pid":7}',
      error: /^Process 7 works on .*it speaks control\/9/,
    },
    { says: '{"hello":"you"}', error: /^What answers at .*control\.sock is no troupe, or one of/ },
    { says: 'HTTP/1.1 400 Bad Request', error: /^What answers at .* is no troupe, or one of/ },
  ])('who answers with $says is not taken for this version', async ({ says, error }) => {
    const directory = stateDirectory();
    const { path: socket } = await createEndpoint(directory);
    const server = createServer((client) => client.end(`${says}\n`)).listen(socket);
    onTestFinished(() => void server.close());
    await once(server, 'listening');
    await expect(connectControl(directory)).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringMatching(error),
    });
  });

  test.each([{ depth: 0 }, { depth: 120 }])(
    'of whoever has taken the store over stays when the one before ends at last (depth $depth)',
    async ({ depth }) => {
      const directory = stateDirectory(depth);
      const before = await listen(directory);
      const { orders } = await listen(directory);
      await before.server.close();
      const connection = await connectControl(directory);
      await connection?.perform(RETRY);
      connection?.close();
      expect(orders).toEqual([RETRY]);
    },
  );

  test('is not looked for, and nothing removed, where a planted path file points', async () => {
    const directory = stateDirectory();
    const victim = path.join(path.dirname(directory), 'precious');
    mkdirSync(victim);
    writeFileSync(path.join(victim, 's'), 'keep');
    writeFileSync(path.join(directory, 'control.token'), 'x\n');
    writeFileSync(path.join(directory, 'control.path'), `${path.join(victim, 's')}\n`);
    expect(await findEndpoint(directory)).toBeUndefined();
    await removeEndpoint(directory);
    expect(readFileSync(path.join(victim, 's'), 'utf8')).toBe('keep');
  });
});
