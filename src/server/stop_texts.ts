/**
 * Finds the texts that end an answer while it streams: takes pieces of text, gives what cannot be part of such a text any more.
 *
 * Each text is searched for by its prefix function (Knuth, Morris and Pratt, 1977), a character at a time, so that neither the borders
 * of the pieces nor the length of the texts matter. The first one that is complete ends the answer, the longest of several.
 */

/** One text and how much of it the last characters are. */
class Search {
  readonly characters: readonly string[];
  /** For each beginning of the text, the length of the longest shorter one that it ends with. */
  readonly #shorter: number[] = [0];
  matched = 0;

  constructor(text: string) {
    this.characters = [...text];
    for (let i = 1; i < this.characters.length; i++) {
      this.#shorter.push(this.#extend(this.#shorter[i - 1], this.characters[i]));
    }
  }

  get isWhole(): boolean {
    return this.matched === this.characters.length;
  }

  push(character: string): void {
    this.matched = this.#extend(this.matched, character);
  }

  #extend(length: number, character: string): number {
    while (length > 0 && this.characters[length] !== character) length = this.#shorter[length - 1];
    return this.characters[length] === character ? length + 1 : 0;
  }
}

/** Watches one answer. */
export class StopTexts {
  readonly #searches: readonly Search[];
  /** Characters that may begin a stop text. */
  #held: string[] = [];
  #isFound = false;

  /** Looks for any of the texts; an empty one is never found. */
  constructor(texts: readonly string[]) {
    this.#searches = texts.filter((text) => text !== "").map((text) => new Search(text));
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
      for (const search of this.#searches) search.push(character);
      const whole = this.#searches.filter((search) => search.isWhole);
      this.#isFound = whole.length > 0;
      const kept = (this.#isFound ? whole : this.#searches).reduce((most, { matched }) => Math.max(most, matched), 0);
      free = this.#held.length - kept;
    }
    return this.#held.splice(0, free).join("");
  }

  /** Returns what was held back, which is no stop text: the answer ends here, or something else than text comes. */
  end(): string {
    const rest = this.#isFound ? "" : this.#held.join("");
    this.#held = [];
    for (const search of this.#searches) search.matched = 0;
    return rest;
  }
}
