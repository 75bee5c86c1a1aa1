import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { textColumn } from "../data/tokenizer.ts";
import { NativeError } from "../native/call.ts";
import { trainTokenizer } from "./tok_train.ts";

const TEXTS = ["the cat and the hat", "that cat, the other cat", "hat", "", "tea and the 2024 hats"];

Deno.test("trainTokenizer() gives the same vocabulary for any batches and threads", async () => {
  async function* oneByOne() {
    for (const text of TEXTS) yield await Promise.resolve([text]);
  }
  const hashes = new Set<string>();
  for (const texts of [[TEXTS], oneByOne(), [textColumn(TEXTS)]]) {
    for (const threads of [1, 3]) {
      if (!(Symbol.iterator in texts) && threads > 1) continue; // a generator runs once
      const { tokenizer, stats } = await trainTokenizer({ texts, vocabSize: 280, threads });
      hashes.add(tokenizer.sha256);
      assertEquals([stats.documents, stats.chars, stats.numSpecialTokens], [5, 66, 9]);
      tokenizer[Symbol.dispose]();
    }
  }
  assertEquals(hashes.size, 1);
});

Deno.test("trainTokenizer() cuts documents and stops behind the document that exceeds maxChars", async () => {
  let taken = 0;
  function* texts() {
    for (const text of ["abcabcXX", "ééééé", "zzzzzz", "never read"]) {
      taken++;
      yield [text];
    }
  }
  const { tokenizer, stats } = await trainTokenizer({ texts: texts(), vocabSize: 300, maxChars: 10, docCap: 6 });
  assertEquals([stats.chars, stats.documents], [11, 2]);
  assert(taken <= 3, "at most one batch is read ahead");
  assertEquals(tokenizer.encode("abcabc").length, 1);
  assertEquals(tokenizer.encode("zz").length, 2);
  tokenizer[Symbol.dispose]();
});

Deno.test("trainTokenizer() warns and moves the special ids down where no pair is left", async () => {
  const warnings: string[] = [];
  const log = { info() {}, progress() {}, warn: (message: string) => warnings.push(message) };
  const { tokenizer } = await trainTokenizer({ texts: [["abc"]], vocabSize: 1000, log });
  assertEquals([tokenizer.vocabSize, tokenizer.bosId], [267, 258]);
  assertEquals(warnings.length, 1);
  tokenizer[Symbol.dispose]();
});

Deno.test("trainTokenizer() reports figures over the tokens that have bytes", async () => {
  const { tokenizer, stats } = await trainTokenizer({ texts: [["abab"]], vocabSize: 267 });
  // 256 bytes, "ab", "abab".
  const mean = (256 + 2 + 4) / 258;
  const squares = 256 * (1 - mean) ** 2 + (2 - mean) ** 2 + (4 - mean) ** 2;
  assertEquals([stats.tokenBytesMin, stats.tokenBytesMax], [1, 4]);
  assertAlmostEquals(stats.tokenBytesMean, mean, 1e-12);
  assertAlmostEquals(stats.tokenBytesStd, Math.sqrt(squares / 257), 1e-12);
  tokenizer[Symbol.dispose]();
});

Deno.test("trainTokenizer() refuses small vocabularies, no text, broken patterns and broken sizes", async () => {
  await assertRejects(() => trainTokenizer({ texts: [["a"]], vocabSize: 264 }), RangeError, "at least 265");
  await assertRejects(() => trainTokenizer({ texts: [] }), RangeError, "the text is empty");
  await assertRejects(() => trainTokenizer({ texts: [["", ""]] }), RangeError, "the text is empty");
  await assertRejects(() => trainTokenizer({ texts: [["a"]], pattern: "[" }), NativeError, 'split pattern "["');
  await assertRejects(() => trainTokenizer({ texts: [["a"]], docCap: 0 }), RangeError, "docCap is 0");
  async function* broken() {
    yield await Promise.resolve(["a"]);
    throw new Error("no more shards");
  }
  await assertRejects(() => trainTokenizer({ texts: broken() }), Error, "no more shards");
});
