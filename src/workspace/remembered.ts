/** Keeps the last answers to questions whose answer never changes. What failed is not kept. */
export class Remembered<T> {
  readonly #limit: number;
  readonly #answers = new Map<string, Promise<T>>();

  /** @param limit how many are kept; the oldest goes first */
  constructor(limit: number) {
    this.#limit = limit;
  }

  find(question: string): Promise<T> | undefined {
    return this.#answers.get(question);
  }

  get(question: string, find: () => Promise<T>): Promise<T> {
    const known = this.#answers.get(question);
    if (known !== undefined) return known;
    const answer = find();
    this.#answers.set(question, answer);
    answer.catch(() => this.#answers.delete(question));
    const [oldest] = this.#answers.keys();
    if (this.#answers.size > this.#limit && oldest !== undefined) this.#answers.delete(oldest);
    return answer;
  }
}
