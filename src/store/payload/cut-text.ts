/*
 * Where a long text is cut: at places that its content chooses, so that a change moves only the cuts near it and
 * everything before and after it falls into the same pieces as before.
 *
 * A rolling hash over the last 32 characters (gear: https://www.usenix.org/conference/atc16/technical-sessions/presentation/xia,
 * "FastCDC") says where: a piece ends where enough of its bits are zero, more of them below the size that is wanted
 * and fewer above it, so that sizes lie close together. Each piece depends on nothing but its own characters and, at
 * its end, on whether the text goes on.
 */

export const MIN_PIECE = 1_024;
export const WANTED_PIECE = 4_096;
export const MAX_PIECE = 16_384;

/** Below and above the wanted size: two bits more and two fewer than its logarithm (FastCDC's "normalised chunking"). */
const HARD_MASK = 0xfffc_0000;
const EASY_MASK = 0xffc0_0000;

/** How far ahead the piece after a change is looked for among those of the text before. */
const LOOK_AHEAD = 16;

/** A piece and, when the text before had it, the name it was given there. */
export interface Piece {
  readonly text: string;
  readonly name: string | undefined;
}

/** A text that has been cut, to compare the next one with. */
export interface CutText {
  readonly text: string;
  readonly pieces: readonly { readonly length: number; readonly name: string }[];
}

/**
 * Cuts a text. The pieces are the same with `before` and without it: comparing is only faster than finding the cuts
 * anew, about six times (bench: conversation).
 * @param text well-formed Unicode, not empty; no piece ends within a character
 */
export function cutText(text: string, before?: CutText): Piece[] {
  const pieces: Piece[] = [];
  const known = new Known(before);
  let start = 0;
  while (start < text.length) {
    const name = known.next(text, start);
    if (name !== undefined) {
      pieces.push({ text: text.slice(start, start + known.length), name });
      start += known.length;
      continue;
    }
    const end = findCut(text, start);
    pieces.push({ text: text.slice(start, end), name: known.find(text, start, end) });
    start = end;
  }
  return pieces;
}

/** Follows the text before, piece by piece, for as long as it is the same. */
class Known {
  /** Of the piece that `next` has found. */
  length = 0;
  readonly #before: CutText;
  #index = 0;
  #start = 0;
  #following = true;

  constructor(before: CutText = NOTHING) {
    this.#before = before;
  }

  /** @returns the name of the piece that begins at `start`, if it is the one that is expected */
  next(text: string, start: number): string | undefined {
    const piece = this.#following ? this.#before.pieces[this.#index] : undefined;
    if (piece === undefined || !this.#isAt(text, start, this.#index, this.#start)) {
      this.#following = false;
      return undefined;
    }
    this.#index++;
    this.#start += piece.length;
    this.length = piece.length;
    return piece.name;
  }

  /** @returns the name of a piece that was cut anew, if it comes soon; from there on the texts may be the same again */
  find(text: string, start: number, end: number): string | undefined {
    const { pieces } = this.#before;
    let at = this.#start;
    const last = Math.min(pieces.length, this.#index + LOOK_AHEAD);
    for (let index = this.#index; index < last; index++) {
      const { length, name } = pieces[index] as CutText['pieces'][number];
      if (length === end - start && this.#isAt(text, start, index, at)) {
        this.#index = index + 1;
        this.#start = at + length;
        this.#following = true;
        return name;
      }
      at += length;
    }
    return undefined;
  }

  #isAt(text: string, start: number, index: number, from: number): boolean {
    const { text: old, pieces } = this.#before;
    const { length } = pieces[index] as CutText['pieces'][number];
    const end = start + length;
    // The last one ended because the text did.
    if (end > text.length || (index === pieces.length - 1 && end < text.length)) return false;
    return text.slice(start, end) === old.slice(from, from + length);
  }
}

const NOTHING: CutText = { text: '', pieces: [] };

function findCut(text: string, start: number): number {
  const end = Math.min(start + MAX_PIECE, text.length);
  const wanted = Math.min(start + WANTED_PIECE, end);
  let at = start + MIN_PIECE;
  let hash = 0;
  for (; at < wanted; at++) {
    const unit = text.charCodeAt(at);
    hash = ((hash << 1) + (GEAR[(unit ^ (unit >> 8)) & 255] as number)) | 0;
    if ((hash & HARD_MASK) === 0) return wholeCharacter(text, at + 1);
  }
  for (; at < end; at++) {
    const unit = text.charCodeAt(at);
    hash = ((hash << 1) + (GEAR[(unit ^ (unit >> 8)) & 255] as number)) | 0;
    if ((hash & EASY_MASK) === 0) return wholeCharacter(text, at + 1);
  }
  return wholeCharacter(text, end);
}

/** Half of a surrogate pair has no UTF-8. */
function wholeCharacter(text: string, end: number): number {
  const unit = text.charCodeAt(end - 1);
  return end < text.length && unit >= 0xd800 && unit <= 0xdbff ? end + 1 : end;
}

/** 256 random numbers, the same for ever: xorshift32 from a fixed seed. They need no other quality than to look random. */
const GEAR = makeGear();

function makeGear(): Int32Array {
  const gear = new Int32Array(256);
  let state = 0x9e37_79b9;
  for (let i = 0; i < gear.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    gear[i] = state;
  }
  return gear;
}
