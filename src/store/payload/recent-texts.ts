import type { CutText } from './cut-text.ts';

/** The text that an actor's newest checkpoint holds, and what of it the store has. */
export interface RecentText extends CutText {
  /** Of the checkpoint. */
  readonly seq: number;
  readonly lists: ReadonlySet<string>;
}

/** The last long texts of the actors that write them, by a key of their own: the least recently written go first. */
export class RecentTexts {
  readonly #byKey = new Map<string, RecentText>();
  readonly #limit: number;
  #chars = 0;

  /** @param limit characters to keep, in all */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#byKey.size;
  }

  get(key: string): RecentText | undefined {
    return this.#byKey.get(key);
  }

  set(key: string, text: RecentText): void {
    this.delete(key);
    this.#byKey.set(key, text);
    this.#chars += text.text.length;
    for (const [oldest] of this.#byKey) {
      if (this.#chars <= this.#limit) return;
      this.delete(oldest);
    }
  }

  delete(key: string): void {
    this.#chars -= this.#byKey.get(key)?.text.length ?? 0;
    this.#byKey.delete(key);
  }

  clear(): void {
    this.#byKey.clear();
    this.#chars = 0;
  }
}
