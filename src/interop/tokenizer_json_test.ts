import { assert, assertEquals, assertThrows } from "@std/assert";
import { checkMutations } from "../../dev/testing.ts";
import { SPECIAL_TOKENS, SPLIT_PATTERN } from "../data/tokenizer.ts";
import { byteAlphabet } from "./export/hf_tokenizer.ts";
import { parseTokenizerJson } from "./tokenizer_json.ts";

const letters = byteAlphabet();

/** A tokenizer.json of all bytes, some merges and nanochat's special tokens; `changes` replace entries of it. */
// deno-lint-ignore no-explicit-any
function file(change: (json: any) => void = () => {}): Uint8Array<ArrayBuffer> {
  const tokens = [...letters, "he", "Ġh", "Ġhe"];
  const json = {
    version: "1.0",
    added_tokens: SPECIAL_TOKENS.map((content, i) => ({ id: tokens.length + i, content, special: true })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: SPLIT_PATTERN }, behavior: "Isolated", invert: false },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    model: {
      type: "BPE",
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [["h", "e"], ["Ġ", "h"], ["Ġ", "he"], ["Ġh", "e"]] as unknown[],
    },
  };
  change(json);
  return new TextEncoder().encode(JSON.stringify(json));
}
const parse = (bytes: Uint8Array) => parseTokenizerJson(bytes, "tokenizer.json");

Deno.test("parseTokenizerJson() gives pattern, bytes and special tokens, of merges as pairs and as texts", () => {
  for (const text of [false, true]) {
    const { pattern, tokens, specials } = parse(file((json) => {
      if (text) json.model.merges = json.model.merges.map((pair: string[]) => pair.join(" "));
      json.model.vocab["<|bos|>"] = 259; // some programs list them twice
    }));
    assertEquals(pattern, SPLIT_PATTERN);
    assertEquals(tokens.slice(0, 256), Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)));
    assertEquals(tokens.slice(256).map((bytes) => new TextDecoder().decode(bytes)), ["he", " h", " he"]);
    assertEquals(specials, Object.fromEntries(SPECIAL_TOKENS.map((name, i) => [name, 259 + i])));
  }
});

// deno-lint-ignore no-explicit-any
const REFUSED: readonly [what: string, change: (json: any) => void, message: string][] = [
  ["another model", (json) => json.model.type = "Unigram", 'its model is "Unigram", expected a BPE'],
  ["no vocabulary", (json) => delete json.model.vocab, "expected a BPE with vocab"],
  ["a normalizer", (json) => json.normalizer = { type: "NFC" }, 'its normalizer is "NFC"'],
  ["an id that is missing", (json) => json.model.vocab.he = 300, 'token "he" has id 300'],
  ["an id that is there twice", (json) => json.model.vocab.he = 257, "expected each of 0 to 258 once"],
  ["an id that is no number", (json) => json.model.vocab.he = "1", 'has id "1"'],
  [
    "a token of other letters",
    (json) => delete Object.assign(json.model.vocab, { "日": json.model.vocab.he }).he,
    "alphabet of bytes",
  ],
  ["merges in another order", (json) => json.model.merges.reverse(), "makes token 257 after token 258"],
  ["a merge of unknown tokens", (json) => json.model.merges.push(["x", "yz"]), "merge 4"],
  ["a merge that makes nothing", (json) => json.model.merges.push(["x", "y"]), "merge 4"],
  ["a merge of three", (json) => json.model.merges[0] = ["h", "e", "h"], "merge 0"],
  ["a merge that is no pair", (json) => json.model.merges[0] = 7, "merge 0, 7,"],
  ["a token that no merge makes", (json) => json.model.merges.shift(), "no merge makes token 256"],
  ["another pre-tokenizer", (json) => json.pre_tokenizer = { type: "Whitespace" }, "of another kind"],
  ["a pattern of its own", (json) => json.pre_tokenizer.pretokenizers[1].use_regex = true, "of another kind"],
  ["a blank in front", (json) => json.pre_tokenizer.pretokenizers[1].add_prefix_space = true, "of another kind"],
  ["removed splits", (json) => json.pre_tokenizer.pretokenizers[0].behavior = "Removed", "of another kind"],
  ["a third pre-tokenizer", (json) => json.pre_tokenizer.pretokenizers.push({ type: "Digits" }), "of another kind"],
  ["an added token without id", (json) => delete json.added_tokens[0].id, "no content or id"],
];

for (const [what, change, message] of REFUSED) {
  Deno.test(`parseTokenizerJson() refuses ${what}`, () => {
    const error = assertThrows(() => parse(file(change)), SyntaxError, message);
    assert(error.message.startsWith('Cannot read the tokenizer "tokenizer.json": '), error.message);
  });
}

Deno.test("parseTokenizerJson() refuses what is no JSON object", () => {
  for (const text of ["", "{", "null", "[]", "7", '{"model":[]}']) {
    assertThrows(() => parse(new TextEncoder().encode(text)), SyntaxError, "Cannot read the tokenizer");
  }
});

Deno.test("parseTokenizerJson() survives 2,000 seeded mutations with one error or a vocabulary", async () => {
  await checkMutations({
    files: [file()],
    read: (bytes) => {
      const { tokens } = parse(bytes);
      assert(tokens.every((token) => token instanceof Uint8Array));
    },
    errors: [SyntaxError],
    refused: 0.5,
  });
});
