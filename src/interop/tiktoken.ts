/**
 * Vocabularies in the form of tiktoken: one `base64(token bytes) rank` line a token. The split pattern and the special tokens are not in
 * such a file; those of the published vocabularies stand here.
 */
import { Tokenizer } from "../data/tokenizer.ts";

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
