/**
 * Which token sequences the saved rows of a decoder hold: a new prompt continues the longest beginning that is there instead of computing
 * it again. Where all places are taken, the sequence that was least recently used makes room.
 */

/** A saved sequence. */
interface Entry {
  readonly place: number;
  tokens: readonly number[];
}

/** The sequences in the places `first`, `first + 1`, ... of a decoder. */
export class PrefixCache {
  readonly #free: number[];
  /** Least recently used first. */
  readonly #entries: Entry[] = [];

  /** Starts with `size` empty places; 0 = nothing is ever found. */
  constructor({ first, size }: { readonly first: number; readonly size: number }) {
    this.#free = Array.from({ length: size }, (_, i) => first + size - 1 - i);
  }

  /** Whether it has places at all. */
  get isOn(): boolean {
    return this.#free.length + this.#entries.length > 0;
  }

  /** Finds the place whose sequence begins most like `tokens`, and how many tokens they share; counts as a use where that is any. */
  find(tokens: readonly number[]): { readonly place: number; readonly length: number } {
    let best: Entry | undefined;
    let length = 0;
    for (const entry of this.#entries) {
      const shared = commonPrefix(entry.tokens, tokens);
      if (shared > length) [best, length] = [entry, shared];
    }
    if (best) this.#use(best);
    return { place: best?.place ?? -1, length };
  }

  /**
   * Gives the place in which a sequence is to be saved: that of its own beginning, a free one, or that of the sequence which was least
   * recently used. Null where the sequence is there already, as the beginning of another, or there are no places.
   */
  add(tokens: readonly number[]): number | null {
    for (const entry of this.#entries) {
      const shared = commonPrefix(entry.tokens, tokens);
      if (shared < entry.tokens.length && shared < tokens.length) continue;
      this.#use(entry);
      if (shared === tokens.length) return null;
      entry.tokens = tokens;
      return entry.place;
    }
    const place = this.#free.pop() ?? this.#entries.shift()?.place ?? null;
    if (place !== null) this.#entries.push({ place, tokens });
    return place;
  }

  #use(entry: Entry): void {
    this.#entries.splice(this.#entries.indexOf(entry), 1);
    this.#entries.push(entry);
  }
}

/** Counts the tokens that two sequences begin with alike. */
export function commonPrefix(a: readonly number[], b: readonly number[]): number {
  const end = Math.min(a.length, b.length);
  for (let i = 0; i < end; i++) if (a[i] !== b[i]) return i;
  return end;
}
