/**
 * Reads `tokenizer.json` of Hugging Face's `tokenizers`: a byte-level BPE of the kind that models of the NanoChat architecture have.
 *
 * This program joins the pair whose joined bytes have the lowest id, as tiktoken does. A file is read where its merges say the same: in
 * the order of the ids of what they make, and every token of more than one byte is made by one.
 */
import type { TokenizerParts } from "../data/tokenizer.ts";
import { byteAlphabet } from "./export/hf_tokenizer.ts";

type Json = Readonly<Record<string, unknown>>;

const MAX_BYTES = 64 << 20;

/**
 * Reads the bytes of a tokenizer.json; `what` names the file in errors.
 *
 * @throws {SyntaxError} for what is damaged, and for a tokenizer of another kind, naming what differs.
 */
export function parseTokenizerJson(bytes: Uint8Array, what: string): TokenizerParts {
  const refuse = (problem: string) => new SyntaxError(`Cannot read the tokenizer "${what}": ${problem}`);
  if (bytes.length > MAX_BYTES) throw refuse(`it has ${bytes.length} bytes, expected at most ${MAX_BYTES}`);
  let file: unknown;
  try {
    file = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw refuse(`not JSON, ${(cause as Error).message.replace(/\s+/g, " ")}`);
  }
  const { model, normalizer, pre_tokenizer, added_tokens } = objectOf(file);
  const { type, vocab, merges } = objectOf(model);
  if (type !== "BPE" || !isObject(vocab) || !Array.isArray(merges)) {
    throw refuse(`its model is ${show(type)}, expected a BPE with vocab and merges`);
  }
  if (normalizer !== null && normalizer !== undefined) {
    throw refuse(`its normalizer is ${show(objectOf(normalizer).type)}, expected none`);
  }
  const specials: Record<string, number> = {};
  for (const each of Array.isArray(added_tokens) ? added_tokens : []) {
    const { content, id } = objectOf(each);
    if (typeof content !== "string" || !Number.isInteger(id)) throw refuse("an added token has no content or id");
    specials[content] = id as number;
  }
  const letters = Object.entries(vocab).filter(([token]) => !Object.hasOwn(specials, token));
  const tokens = tokensOf(letters, refuse);
  checkMerges(merges, { ids: new Map(letters) as Map<string, number>, tokens, refuse });
  return { pattern: patternOf(pre_tokenizer, refuse), tokens, specials };
}

type Refuse = (problem: string) => SyntaxError;

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function objectOf(value: unknown): Json {
  return isObject(value) ? value : {};
}

function show(value: unknown): string {
  return JSON.stringify(value)?.slice(0, 120) ?? "missing";
}

function tokensOf(letters: readonly (readonly [string, unknown])[], refuse: Refuse): Uint8Array[] {
  const byteOf = new Map(byteAlphabet().map((letter, byte) => [letter, byte]));
  const tokens: Uint8Array[] = [];
  for (const [token, id] of letters) {
    const isNew = Number.isInteger(id) && (id as number) >= 0 && (id as number) < letters.length;
    if (!isNew || tokens[id as number] !== undefined) {
      throw refuse(`token ${show(token)} has id ${show(id)}, expected each of 0 to ${letters.length - 1} once`);
    }
    const bytes = Array.from(token, (letter) => byteOf.get(letter));
    if (bytes.includes(undefined)) throw refuse(`token ${show(token)} is not spelt in the alphabet of bytes`);
    tokens[id as number] = Uint8Array.from(bytes as number[]);
  }
  return tokens;
}

function checkMerges(
  merges: readonly unknown[],
  { ids, tokens, refuse }: { ids: ReadonlyMap<string, number>; tokens: readonly Uint8Array[]; refuse: Refuse },
): void {
  const made = new Set<number>();
  let last = -1;
  for (const [i, merge] of merges.entries()) {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    const isPair = Array.isArray(pair) && pair.length === 2 && pair.every((part) => ids.has(part));
    const id = isPair ? ids.get(pair.join("")) : undefined;
    if (id === undefined) throw refuse(`merge ${i}, ${show(merge)}, does not join two tokens to a third`);
    if (id < last) throw refuse(`merge ${i} makes token ${id} after token ${last}, expected the order of the ids`);
    made.add(last = id);
  }
  const unmade = tokens.findIndex((bytes, id) => bytes.length > 1 && !made.has(id));
  if (unmade >= 0) throw refuse(`no merge makes token ${unmade}`);
}

/** Gives the pattern that cuts a text before merging: that of a Split, followed by ByteLevel without a pattern of its own. */
function patternOf(preTokenizer: unknown, refuse: Refuse): string {
  const { pretokenizers } = objectOf(preTokenizer);
  const [split, level] = (Array.isArray(pretokenizers) ? pretokenizers : []).map(objectOf);
  const pattern = objectOf(split?.pattern).Regex;
  const isSplit = split?.type === "Split" && split.behavior === "Isolated" && split.invert !== true;
  const isLevel = level?.type === "ByteLevel" && level.use_regex === false && level.add_prefix_space !== true;
  if (!isSplit || !isLevel || typeof pattern !== "string" || (pretokenizers as unknown[]).length !== 2) {
    throw refuse("its pre-tokenizer is of another kind, expected Split by a Regex, then ByteLevel without one");
  }
  return pattern;
}
