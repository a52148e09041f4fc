import { createServer } from 'node:net';
import { ConfigurationError, TroupeError } from '../protocol/errors.ts';

/** Below the ports that systems give to outgoing connections (from 32 768 on Linux, 49 152 elsewhere). */
const FIRST = 20_000;
const COUNT = 10_000;

/**
 * Ports on the loopback interface for whoever works beside others: a web server and an API of a task, or of a
 * verification, that must not meet those of the next one. Each name of a variable gets a port of its own per holder.
 *
 * A port that is given is free at that moment, tested by listening on it, and no other holder has it. Nobody else is kept
 * from taking it: another program may, before the holder listens.
 * Crash: nothing is kept; whoever works again is given new ones.
 */
export class PortPool {
  /** Names of environment variables. */
  readonly names: readonly string[];
  readonly #held = new Map<string, Readonly<Record<string, string>>>();
  readonly #taken = new Set<number>();
  /** Two processes on one machine begin their search in different places. */
  #next = FIRST + ((process.pid * 97) % COUNT);

  constructor(names: readonly string[]) {
    this.names = names;
  }

  /**
   * Gives a holder its ports; the same ones when it has some.
   * @returns a value for each name
   * @throws {TroupeError} unavailable: none is free
   */
  async take(holder: string): Promise<Readonly<Record<string, string>>> {
    const held = this.#held.get(holder);
    if (held !== undefined) return held;
    const ports: Record<string, string> = {};
    // From here on it holds them, so that it is given them once, however often it asks meanwhile.
    this.#held.set(holder, ports);
    try {
      for (const name of this.names) ports[name] = String(await this.#takeOne());
    } catch (error) {
      this.release(holder);
      throw error;
    }
    return ports;
  }

  /** What a holder has; nothing when it has none. */
  of(holder: string): Readonly<Record<string, string>> {
    return this.#held.get(holder) ?? {};
  }

  release(holder: string): void {
    for (const port of Object.values(this.of(holder))) this.#taken.delete(Number(port));
    this.#held.delete(holder);
  }

  async #takeOne(): Promise<number> {
    for (let tried = 0; tried < COUNT; tried++) {
      const port = this.#next;
      this.#next = FIRST + ((port + 1 - FIRST) % COUNT);
      if (this.#taken.has(port)) continue;
      // Before it is tested: another holder may be looking at the same time.
      this.#taken.add(port);
      if (await isFree(port)) return port;
      this.#taken.delete(port);
    }
    throw new TroupeError(
      'unavailable',
      `Expected a free port from ${FIRST} to ${FIRST + COUNT - 1} for ${this.names.join(', ')}, found none. Stop what listens there.`,
    );
  }
}

/**
 * Refuses what is no list of different names of variables.
 * @throws {ConfigurationError} expected and got
 */
export function checkPortNames(names: readonly string[]): void {
  for (const [index, name] of names.entries()) {
    if (
      /^[A-Za-z_]\w*$/.test(name) &&
      !/^(?:GIT|TROUPE)_/i.test(name) &&
      names.indexOf(name) === index
    ) {
      continue;
    }
    throw new ConfigurationError(
      `Expected project.ports to be different names of environment variables such as "PORT", got ${JSON.stringify(name)}.`,
    );
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () =>
      server.close(() => resolve(true)),
    );
  });
}
