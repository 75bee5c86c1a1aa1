/**
 * Vocabularies in the forms of tiktoken. A rank file has one `base64(token bytes) rank` line a token; the split pattern and the special
 * tokens are not in it; those of the published vocabularies stand here. A pickled Encoding, as the Python nanochat keeps its tokenizer,
 * has all of them.
 */
import { Tokenizer, type TokenizerParts } from "../data/tokenizer.ts";
import { kindOf, PickledName, PickledObject, readPickle } from "./pickle.ts";

/** Split pattern and special tokens of the published vocabularies (tiktoken 0.14, tiktoken_ext/openai_public.py). */
export const PUBLISHED = {
  gpt2: {
    pattern: String.raw`'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s`,
    specials: { "<|endoftext|>": 50256 },
  },
  cl100k_base: {
    pattern: String
      .raw`'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s`,
    specials: {
      "<|endoftext|>": 100257,
      "<|fim_prefix|>": 100258,
      "<|fim_middle|>": 100259,
      "<|fim_suffix|>": 100260,
      "<|endofprompt|>": 100276,
    },
  },
} as const;

/** Name of a published vocabulary. */
export type PublishedName = keyof typeof PUBLISHED;

/**
 * Reads the lines of a rank file: the bytes of each token, by rank.
 *
 * @throws {SyntaxError} for a line of another form, and where the ranks are not 0, 1, 2 ...
 */
export function parseRanks(text: string): Uint8Array[] {
  const tokens: Uint8Array[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    if (line === "") continue;
    const [_, token, rank] = /^([A-Za-z0-9+/]+=*) (\d+)\r?$/.exec(line) ?? [];
    if (token === undefined || Number(rank) !== tokens.length) {
      const found = JSON.stringify(line.slice(0, 80));
      throw new SyntaxError(
        `Cannot read the token ranks: line ${i + 1} is ${found}, expected base64, a blank and ${tokens.length}`,
      );
    }
    tokens.push(Uint8Array.fromBase64(token));
  }
  return tokens;
}

/** Writes the mergeable tokens of a tokenizer as a rank file. */
export function formatRanks(tokenizer: Tokenizer): string {
  return Array.from({ length: tokenizer.mergeableCount }, (_, id) => `${tokenizer.token(id).toBase64()} ${id}\n`).join(
    "",
  );
}

/** Writes the rest of `tiktoken.Encoding`'s arguments, beside the ranks, under their names there. */
export function encodingJson(tokenizer: Tokenizer): string {
  const { pattern, specials, vocabSize } = tokenizer;
  const values = { name: "nanochat", pat_str: pattern, special_tokens: Object.fromEntries(specials) };
  return JSON.stringify({ ...values, explicit_n_vocab: vocabSize }, null, 2);
}

/** Builds a published vocabulary from the text of its rank file. */
export function publishedTokenizer(name: PublishedName, ranks: string): Promise<Tokenizer> {
  return Tokenizer.fromParts({ ...PUBLISHED[name], tokens: parseRanks(ranks) });
}

/**
 * Reads a pickled Encoding of tiktoken; `what` names the file in errors.
 *
 * @throws {SyntaxError} where it is none, or its ranks are not those of one vocabulary.
 */
export function parsePickledEncoding(bytes: Uint8Array, what: string): TokenizerParts {
  const encoding = "tiktoken.core.Encoding";
  const refuse = (problem: string) => new SyntaxError(`Cannot read the tokenizer "${what}": ${problem}`);
  const names = [new PickledName(encoding, () => new PickledObject(encoding))];
  const object = readPickle(bytes, { what, names });
  if (!(object instanceof PickledObject) || !(object.state instanceof Map)) {
    throw refuse(`it holds ${kindOf(object)}, expected an ${encoding} of its own, not a published one`);
  }
  const [pattern, ranks, specials] = ["pat_str", "mergeable_ranks", "special_tokens"].map((key) =>
    (object.state as Map<unknown, unknown>).get(key)
  );
  if (typeof pattern !== "string" || !(ranks instanceof Map) || !(specials instanceof Map)) {
    throw refuse("pat_str, mergeable_ranks or special_tokens missing, expected all three");
  }
  const tokens: Uint8Array[] = [];
  for (const [token, rank] of ranks) {
    const isNew = Number.isInteger(rank) && rank >= 0 && rank < ranks.size && tokens[rank] === undefined;
    if (!(token instanceof Uint8Array) || !isNew) {
      throw refuse(`token ${tokens.length} has rank ${rank}, expected each of 0 to ${ranks.size - 1} once`);
    }
    tokens[rank] = token;
  }
  return { pattern, tokens, specials: checkSpecials(specials, refuse) };
}

/** Checks that special tokens are texts with ids. */
function checkSpecials(
  specials: ReadonlyMap<unknown, unknown>,
  refuse: (problem: string) => Error,
): Record<string, number> {
  for (const [name, id] of specials) {
    if (typeof name !== "string" || !Number.isInteger(id)) {
      throw refuse(`a special token is ${kindOf(name)} with ${kindOf(id)}, expected a text and a number`);
    }
  }
  return Object.fromEntries(specials) as Record<string, number>;
}
