/**
 * Finds the texts that end an answer while it streams: takes pieces of text, gives what cannot be part of such a text any more.
 *
 * Each text is searched for by its prefix function (Knuth, Morris and Pratt, 1977), a character at a time, so that neither the borders
 * of the pieces nor the length of the texts matter. The first one that is complete ends the answer, the longest of several.
 */

/** One text, prepared for the search. */
class Pattern {
  readonly #characters: readonly string[];
  /** For each beginning of the text, the length of the longest shorter one that it ends with. */
  readonly #shorter: number[] = [0];

  constructor(text: string) {
    this.#characters = [...text];
    for (let i = 1; i < this.#characters.length; i++) {
      this.#shorter.push(this.extend(this.#shorter[i - 1], this.#characters[i]));
    }
  }

  get length(): number {
    return this.#characters.length;
  }

  /** Gives how much of the text the last characters are, where they were `length` of it before this one. */
  extend(length: number, character: string): number {
    while (length > 0 && this.#characters[length] !== character) length = this.#shorter[length - 1];
    return this.#characters[length] === character ? length + 1 : 0;
  }
}

/** Watches one answer. */
export class StopTexts {
  readonly #patterns: readonly Pattern[];
  /** How much of each text the last characters are. */
  #matched: number[];
  /** Characters that may begin a stop text. */
  #held: string[] = [];
  #isFound = false;

  /** Looks for any of the texts; an empty one is never found. */
  constructor(texts: readonly (string | Pattern)[]) {
    this.#patterns = texts.filter((text) => text !== "").map((text) =>
      typeof text === "string" ? new Pattern(text) : text
    );
    this.#matched = this.#patterns.map(() => 0);
  }

  /** Makes a watch over another answer that looks for the same texts, which are not prepared again. */
  another(): StopTexts {
    return new StopTexts(this.#patterns);
  }

  /** Whether one was found; nothing comes out any more. */
  get isFound(): boolean {
    return this.#isFound;
  }

  /** Takes the next text; returns what is certainly in front of any stop text. */
  push(text: string): string {
    let free = 0;
    for (const character of text) {
      if (this.#isFound) break;
      this.#held.push(character);
      this.#matched = this.#matched.map((length, i) => this.#patterns[i].extend(length, character));
      const whole = this.#matched.filter((length, i) => length === this.#patterns[i].length);
      this.#isFound = whole.length > 0;
      const kept = (this.#isFound ? whole : this.#matched).reduce((most, length) => Math.max(most, length), 0);
      free = this.#held.length - kept;
    }
    return this.#held.splice(0, free).join("");
  }

  /** Returns what was held back, which is no stop text: the answer ends here, or something else than text comes. */
  end(): string {
    const rest = this.#isFound ? "" : this.#held.join("");
    this.#held = [];
    this.#matched.fill(0);
    return rest;
  }
}
