/**
 * The small template language that the world is written in.
 *
 * - `{bird}` a word of the list "bird", or the slot of that name if the scene has one
 * - `{bird#1}` the same, but drawn once: later `{bird#1}` of the scene repeat it
 * - `{a:bird}` with its article, `{s:bird}` in the plural; `{a:bird#1}` both
 * - `[one|two|]` one of the alternatives, which may be empty and may hold templates
 *
 * The first letter of each sentence becomes a capital by itself.
 */
import type { Random } from "../src/data/random.ts";

type Node = string | { readonly form: "" | "a" | "s"; readonly list: string; readonly key: string } | {
  readonly choices: readonly (readonly Node[])[];
};

const compiled = new Map<string, readonly Node[]>();

/** Parses a template; the result is kept, since a corpus uses each some thousand times. */
function compile(template: string): readonly Node[] {
  let nodes = compiled.get(template);
  if (nodes === undefined) {
    const parser = { text: template, at: 0 };
    nodes = sequence(parser, 0);
    if (parser.at !== template.length) {
      throw new SyntaxError(`Cannot read template "${template}": unexpected "]" or "|"`);
    }
    compiled.set(template, nodes);
  }
  return nodes;
}

function sequence(parser: { text: string; at: number }, depth: number): Node[] {
  const nodes: Node[] = [];
  const { text } = parser;
  while (parser.at < text.length) {
    const c = text[parser.at];
    if (c === "]" || (c === "|" && depth > 0)) break;
    if (c === "{") {
      const end = text.indexOf("}", parser.at);
      const match = /^(?:(a|s):)?((\w+)(?:#\w+)?)$/.exec(text.slice(parser.at + 1, end));
      if (end < 0 || !match) throw new SyntaxError(`Cannot read template "${text}": bad slot at ${parser.at}`);
      nodes.push({ form: (match[1] ?? "") as "" | "a" | "s", list: match[3], key: match[2] });
      parser.at = end + 1;
    } else if (c === "[") {
      const choices: Node[][] = [];
      do {
        parser.at++; // "[" or "|"
        choices.push(sequence(parser, depth + 1));
      } while (text[parser.at] === "|");
      if (text[parser.at] !== "]") throw new SyntaxError(`Cannot read template "${text}": "[" without "]"`);
      parser.at++;
      nodes.push({ choices });
    } else {
      let end = parser.at + 1;
      while (end < text.length && !"{[|]".includes(text[end])) end++;
      nodes.push(text.slice(parser.at, end));
      parser.at = end;
    }
  }
  return nodes;
}

const IRREGULAR: Readonly<Record<string, string>> = {
  mouse: "mice",
  goose: "geese",
  sheep: "sheep",
  moose: "moose",
  deer: "deer",
  bison: "bison",
  fish: "fish",
  salmon: "salmon",
  trout: "trout",
  wolf: "wolves",
  shelf: "shelves",
  knife: "knives",
  scarf: "scarves",
  leaf: "leaves",
  loaf: "loaves",
  foot: "feet",
  scissors: "scissors",
  pliers: "pliers",
  trousers: "trousers",
  bellows: "bellows",
};

/** Returns the plural of a noun. */
export function plural(noun: string): string {
  const of = noun.indexOf(" of "); // pieces of furniture
  if (of > 0) return plural(noun.slice(0, of)) + noun.slice(of);
  if (IRREGULAR[noun] !== undefined) return IRREGULAR[noun];
  if (/[^aeiou]y$/.test(noun)) return `${noun.slice(0, -1)}ies`;
  return /(s|x|ch|sh)$/.test(noun) ? `${noun}es` : `${noun}s`;
}

/** Returns a noun phrase with its indefinite article. */
export function withArticle(phrase: string): string {
  if (/^(hour|honest|heir)/.test(phrase)) return `an ${phrase}`;
  if (/^(use|uni|one|eu)/i.test(phrase)) return `a ${phrase}`;
  return `${/^[aeiou]/i.test(phrase) ? "an" : "a"} ${phrase}`;
}

/**
 * Gives each sentence a capital: at the start of the text and of lines, after a full stop, question or exclamation mark, also inside
 * quotes. What follows a closed quote with ? or ! goes on with its sentence ("Why?" she asked).
 */
export function capitalise(text: string): string {
  return text.replace(
    /(^"?|[.!?] +"?|[.,]" +"|\." +|[?!]" +"|\n"?)([a-z])/g,
    (_, before, letter) => before + letter.toUpperCase(),
  );
}

/** One text in the making: its random numbers, its named slots and the words that it has already drawn. */
export class Scene {
  readonly random: Random;
  readonly #lists: Readonly<Record<string, readonly string[]>>;
  readonly #bound: Map<string, string>;

  /** `lists` are the words that a slot without a value is drawn from. */
  constructor(
    random: Random,
    lists: Readonly<Record<string, readonly string[]>>,
    slots: Readonly<Record<string, string>> = {},
  ) {
    this.random = random;
    this.#lists = lists;
    this.#bound = new Map(Object.entries(slots));
  }

  /** Sets slots for the templates to come. */
  set(slots: Readonly<Record<string, string>>): void {
    for (const [key, value] of Object.entries(slots)) this.#bound.set(key, value);
  }

  /** Writes one template, or one of several, without touching its capitals. */
  raw(template: string | readonly string[]): string {
    return this.#render(compile(typeof template === "string" ? template : this.random.choice(template)));
  }

  /** Writes one template, or one of several, with a capital at the start of each sentence. */
  say(template: string | readonly string[]): string {
    return capitalise(this.raw(template));
  }

  #render(nodes: readonly Node[]): string {
    let text = "";
    for (const node of nodes) {
      if (typeof node === "string") text += node;
      else if ("choices" in node) text += this.#render(this.random.choice(node.choices));
      else {
        const word = this.#word(node.list, node.key);
        text += node.form === "a" ? withArticle(word) : node.form === "s" ? plural(word) : word;
      }
    }
    return text;
  }

  #word(list: string, key: string): string {
    const bound = this.#bound.get(key);
    if (bound !== undefined) return bound;
    const items = this.#lists[list];
    if (items === undefined) throw new SyntaxError(`Cannot fill slot "${key}": no slot or word list of this name`);
    const word = this.random.choice(items);
    if (key !== list) this.#bound.set(key, word);
    return word;
  }
}
