/** Tokenizers of others as judges: training beside rustbpe and Hugging Face, ids beside tiktoken and Hugging Face. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { askPeer, peerTest } from "../../dev/peers.ts";
import { ROOT } from "../../dev/setup.ts";
import { testSeed } from "../../dev/testing.ts";
import { Random } from "../data/random.ts";
import { SPLIT_PATTERN, type Tokenizer } from "../data/tokenizer.ts";
import { worldDocuments } from "../../tasks/world.ts";
import { trainTokenizer } from "./tok_train.ts";

const VOCAB_SIZE = 1200;
const SPECIALS = 9;

/** Text that is easy to cut or to count wrongly. */
const HOSTILE = [
  "a".repeat(5000),
  " ".repeat(3000) + "x" + " ".repeat(2999),
  "ab ".repeat(1000),
  "a1".repeat(700) + "!",
  "\n".repeat(500) + "\t\r\n \u00a0\u0085\u2028\u3000x",
  "I'LL we'Ve 'ſ 'Kelvin \u212a's don't'd",
  "1234567890 ١٢٣ ⅷ½ 12,345.67",
  "日本語 한국어 ไทย हिन्दी العربية עברית",
  "e\u0301 \u200d\u200b\ufeff 👩‍👩‍👧‍👦🏳️‍🌈 \u{1f600}\u{10ffff}",
  "<|bos|><|user_start|>not special<|bos",
  "\u0000\u0001\u007f\u0080 \ud7ff\ue000\ufffd",
  "",
];

/** Some stories of the small world and lines in other scripts. */
function corpus(): string[] {
  const foreign = HOSTILE.filter((text) => text !== "" && text.length < 1000);
  return [...worldDocuments({ seed: 7, count: 1500, split: "train" }), ...foreign, ...foreign];
}

/** The recorded strings of `dev/golden/tokenizer`. */
function goldenTexts(): string[] {
  const path = join(ROOT, "dev", "golden", "tokenizer", "encodings_tok512.json");
  return JSON.parse(Deno.readTextFileSync(path)).encodings.map(({ text }: { text: string }) => text);
}

const tokensOf = (tokenizer: Tokenizer) =>
  Array.from({ length: tokenizer.mergeableCount }, (_, id) => tokenizer.token(id).toBase64());

/** Trains ours on {@link corpus}. */
async function trained(): Promise<Tokenizer> {
  const { tokenizer } = await trainTokenizer({ texts: [corpus()], vocabSize: VOCAB_SIZE, docCap: 1e9 });
  assertEquals(tokenizer.vocabSize, VOCAB_SIZE);
  return tokenizer;
}

for (const [library, program] of [["rustbpe", "rustbpe_train.py"], ["tokenizers", "tokenizers_train.py"]]) {
  peerTest("quick", `trainTokenizer() merges what ${library} merges, in its order`, async () => {
    using tokenizer = await trained();
    const question = { pattern: SPLIT_PATTERN, vocabSize: VOCAB_SIZE - SPECIALS, texts: corpus() };
    const { tokens } = await askPeer<{ tokens: string[] }>(program, question);
    assertEquals(tokensOf(tokenizer), tokens);
  });
}

/** Texts of random pieces: letters, digits, blanks, marks and code points of every plane. */
function randomTexts(random: Random, count: number): string[] {
  const pieces = ["the", " and", "'s", "'LL", "12", "7", " ", "  ", "\n", "\r\n", "!?", "é", "日本", "😀", "<|bos|>"];
  const codePoint = () => {
    const code = random.below(0x110000 - 0x800);
    return String.fromCodePoint(code < 0xd800 ? code : code + 0x800);
  };
  const piece = () => random.below(4) === 0 ? codePoint() : pieces[random.below(pieces.length)];
  return Array.from({ length: count }, () => Array.from({ length: random.below(30) }, piece).join(""));
}

peerTest("quick", "encode() and decode() equal tiktoken with our ranks", async () => {
  using tokenizer = await trained();
  const random = new Random(testSeed());
  const texts = [...HOSTILE, "a\ud800b\udc00", ...goldenTexts(), ...randomTexts(random, 500)];
  // Lists of random ids hold torn characters and special tokens.
  const ids = Array.from(
    { length: 300 },
    () => Array.from({ length: random.below(12) }, () => random.below(VOCAB_SIZE)),
  );
  const { pattern } = tokenizer;
  const specials = Object.fromEntries(tokenizer.specials);
  const question = { pattern, tokens: tokensOf(tokenizer), specials, texts, ids, allowed: ["<|bos|>one<|user_end|>"] };
  const judged = await askPeer<Record<"ids" | "special", number[][]> & Record<"bytes" | "decoded", string[]>>(
    "tiktoken_ids.py",
    question,
  );
  texts.forEach((text, i) => assertEquals(tokenizer.encode(text), judged.ids[i], JSON.stringify(text.slice(0, 200))));
  const batch = await tokenizer.encodeBatch(texts, { threads: 2 });
  batch.forEach((ids, i) => assertEquals(Array.from(ids), judged.ids[i]));
  assertEquals(tokenizer.encode("one", { prepend: "<|bos|>", append: "<|user_end|>" }), judged.special[0]);
  for (const [i, list] of ids.entries()) {
    assertEquals([tokenizer.decodeBytes(list).toBase64(), tokenizer.decode(list)], [
      judged.bytes[i],
      judged.decoded[i],
    ]);
  }
  assert(judged.decoded.some((text) => text.includes("\ufffd")), "some lists end inside a character");
});

peerTest("quick", "encode() equals Hugging Face tokenizers with our merges", async () => {
  using tokenizer = await trained();
  const texts = [...HOSTILE, ...goldenTexts(), ...randomTexts(new Random(testSeed()), 500)];
  const pairs = Array.from(tokenizer.merges().subarray(2 * 256));
  const merges = Array.from({ length: pairs.length / 2 }, (_, i) => pairs.slice(2 * i, 2 * i + 2));
  const question = { pattern: tokenizer.pattern, tokens: tokensOf(tokenizer), merges, texts };
  const { ids } = await askPeer<{ ids: number[][] }>("tokenizers_ids.py", question);
  texts.forEach((text, i) => assertEquals(tokenizer.encode(text), ids[i], JSON.stringify(text.slice(0, 200))));
});
