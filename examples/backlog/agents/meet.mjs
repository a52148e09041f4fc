import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/**
 * Two processes wait for each other, through a port of this machine that follows from the name: who comes
 * first listens, who comes second knocks. Nothing is left behind when either is killed.
 * @param {string} name what both call their meeting
 * @param {number} limitMs who waits longer than this goes on alone
 * @returns {Promise<boolean>} whether they met
 */
export async function meet(name, limitMs) {
  const greeting = `${createHash('sha256').update(name).digest('hex')}\n`;
  const first = Number.parseInt(greeting.slice(0, 6), 16);
  const signal = AbortSignal.timeout(limitMs);
  for (let next = 0; next < 10; next += 1) {
    const port = 20_000 + ((first + next) % 10_000);
    // Another program may hold the port. Both sides find that out, and both go to the next one.
    const met = (await listen(port, greeting, signal)) ?? (await knock(port, greeting, signal));
    if (met !== undefined) return met;
  }
  return false;
}

/** @returns {Promise<boolean | undefined>} undefined: the port is taken */
async function listen(port, greeting, signal) {
  const server = createServer();
  try {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening', { signal });
    while (true) {
      const [socket] = await once(server, 'connection', { signal });
      if (await exchange(socket, greeting, signal)) return true;
    }
  } catch (error) {
    if (error.name === 'AbortError') return false;
    return undefined;
  } finally {
    server.close();
  }
}

/** @returns {Promise<boolean | undefined>} undefined: somebody else answers there, or nobody */
async function knock(port, greeting, signal) {
  const socket = connect(port, '127.0.0.1');
  return (await exchange(socket, greeting, signal)) ? true : undefined;
}

async function exchange(socket, greeting, signal) {
  try {
    signal.throwIfAborted();
    socket.setEncoding('utf8');
    socket.end(greeting);
    let heard = '';
    AbortSignal.any([signal, AbortSignal.timeout(1000)]).onabort = () => socket.destroy();
    for await (const chunk of socket) heard += chunk;
    return heard === greeting;
  } catch {
    // Refused, reset or too late: whoever that was, it is not the one we wait for.
    return false;
  }
}
