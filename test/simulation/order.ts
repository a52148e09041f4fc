/**
 * The one source of order and chance in a simulated world: a seeded generator (splitmix32, as in
 * https://gee.cs.oswego.edu/dl/papers/oopsla14.pdf, section 4). Seed 0 makes no random choice at all: first come,
 * first served, nothing is unlikely. Shrinking leads there.
 */
export class Order {
  #state: number;
  readonly fair: boolean;

  constructor(seed: number) {
    this.#state = seed | 0;
    this.fair = seed === 0;
  }

  /** A whole number from 0 to `below - 1`. */
  pick(below: number): number {
    return this.fair ? 0 : Math.floor(this.#unit() * below);
  }

  chance(probability: number): boolean {
    return !this.fair && this.#unit() < probability;
  }

  #unit(): number {
    this.#state = (this.#state + 0x9e3779b9) | 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  }
}
