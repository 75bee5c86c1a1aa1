import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import fc from "fast-check";
import { checkMutations, temporaryFolder, testRuns, testSeed } from "../../dev/testing.ts";
import { NativeError } from "../native/call.ts";
import { TOKENIZER_FILE } from "./base_dir.ts";
import { SPECIAL_TOKENS, StreamDecoder, textColumn, Tokenizer, type TokenizerParts } from "./tokenizer.ts";

const golden = JSON.parse(
  Deno.readTextFileSync(join(import.meta.dirname!, "../../dev/golden/tokenizer/tok512.json")),
);
const parts: TokenizerParts = {
  pattern: golden.split_pattern,
  tokens: golden.mergeable_ranks_base64.map((token: string) => Uint8Array.fromBase64(token)),
  specials: golden.special_tokens,
};
const tok512 = () => Tokenizer.fromParts(parts);

/** Text of words, signs, special names and any character. */
const text = () =>
  fc.array(
    fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constantFrom(
        ...SPECIAL_TOKENS,
        " the",
        "  \n",
        "\r\n",
        "2024",
        "'ll",
        "été",
        "日本語",
        "\u0085",
        "\ufeff",
        "😀",
      ),
    ),
    { maxLength: 12 },
  ).map((list) => list.join(""));

Deno.test("decode() gives back what encode() took, one by one and in batches", async () => {
  using tokenizer = await tok512();
  await fc.assert(
    fc.asyncProperty(fc.array(text(), { maxLength: 6 }), async (texts) => {
      const batch = await tokenizer.encodeBatch(texts, { prepend: "<|bos|>", append: 3, threads: 2 });
      for (const [i, text] of texts.entries()) {
        const ids = tokenizer.encode(text);
        assertEquals(tokenizer.decode(ids), text);
        assert(ids.every((id) => id < tokenizer.mergeableCount), "special names in a text are plain text");
        assertEquals(Array.from(batch[i]), [tokenizer.bosId, ...ids, 3]);
      }
    }),
    { seed: testSeed(), numRuns: testRuns(60) },
  );
});

Deno.test("StreamDecoder gives the text of decode(), however the ids arrive", async () => {
  using tokenizer = await tok512();
  const ids = fc.array(fc.integer({ min: 0, max: tokenizer.vocabSize - 1 }), { maxLength: 40 });
  fc.assert(
    fc.property(ids, fc.nat(8), (ids, step) => {
      const stream = new StreamDecoder(tokenizer);
      let text = "";
      for (let i = 0; i < ids.length; i += step + 1) text += stream.push(...ids.slice(i, i + step + 1));
      assertEquals(text + stream.flush(), tokenizer.decode(ids));
    }),
    { seed: testSeed(), numRuns: testRuns(100) },
  );
});

Deno.test("StreamDecoder holds back a torn character until it is whole", async () => {
  using tokenizer = await tok512();
  const stream = new StreamDecoder(tokenizer);
  const [a, b, c, d] = new TextEncoder().encode("😀");
  assertEquals([stream.push(a), stream.push(b, c), stream.push(d), stream.flush()], ["", "", "😀", ""]);
  assertEquals([stream.push(a), stream.flush()], ["", "\ufffd"]);
});

Deno.test("save() and load() keep the tokenizer and its hash", async () => {
  using folder = temporaryFolder();
  using tokenizer = await tok512();
  const place = join(folder.path, "new", "tokenizer");
  await tokenizer.save(place);
  assertEquals([...Deno.readDirSync(place)].map((entry) => entry.name), [TOKENIZER_FILE]);
  using loaded = await Tokenizer.load(place);
  assertEquals(loaded.sha256, tokenizer.sha256);
  assertEquals([loaded.pattern, [...loaded.specials]], [tokenizer.pattern, [...tokenizer.specials]]);
  assertEquals(loaded.encode("Hello world"), tokenizer.encode("Hello world"));
  assertEquals(loaded.merges(), tokenizer.merges());
});

Deno.test("load() names the command where there is no tokenizer", async () => {
  using folder = temporaryFolder();
  await assertRejects(() => Tokenizer.load(folder.path), Error, 'run "nanochat tokenizer train"');
});

Deno.test("load() refuses files that are not ours, of another version or damaged", async () => {
  using folder = temporaryFolder();
  const write = (text: string) => Deno.writeTextFileSync(join(folder.path, TOKENIZER_FILE), text);
  const file = { format: "nanochat tokenizer", version: 1, pattern: "x", tokens: ["AA=="], specials: {} };
  for (
    const [text, message] of [
      ["{", "not JSON"],
      ["[]", "format is undefined"],
      [JSON.stringify({ ...file, version: 2 }), "version is 2, expected 1"],
      [JSON.stringify({ ...file, tokens: ["%"] }), "not base64"],
      [JSON.stringify({ ...file, specials: null }), "specials missing"],
    ]
  ) {
    write(text);
    await assertRejects(() => Tokenizer.load(folder.path), SyntaxError, message);
  }
  write(JSON.stringify(file));
  await assertRejects(() => Tokenizer.load(folder.path), NativeError, "byte 1 is no token");
});

Deno.test("load() survives 2,000 seeded mutations with one error each or a tokenizer that gives texts back", async () => {
  using folder = temporaryFolder();
  using tokenizer = await tok512();
  await tokenizer.save(folder.path);
  const path = join(folder.path, TOKENIZER_FILE);
  const text = "Hello world, 語言モデル in 2024 don't\n";
  await checkMutations({
    files: [Deno.readFileSync(path)],
    read: async (bytes) => {
      Deno.writeFileSync(path, bytes);
      using loaded = await Tokenizer.load(folder.path);
      assertEquals(loaded.decode(loaded.encode(text)), text);
    },
    errors: [SyntaxError, RangeError, NativeError],
    refused: 0.4,
  });
});

Deno.test("fromParts() refuses special ids that collide and broken patterns", async () => {
  await assertRejects(() => Tokenizer.fromParts({ ...parts, specials: { "<|bos|>": 5 } }), RangeError, "the id 5");
  const error = await assertRejects(() => Tokenizer.fromParts({ ...parts, pattern: "(" }), NativeError);
  assertStringIncludes(error.message, 'Cannot use the split pattern "("');
});

Deno.test("ids outside the vocabulary are errors", async () => {
  using tokenizer = await tok512();
  for (const id of [-1, 512, 1.5, NaN]) assertThrows(() => tokenizer.token(id), RangeError, `${id}`);
  assertThrows(() => tokenizer.decode([1, 512]), RangeError, "0 to 511");
  assertThrows(() => tokenizer.decode(Int32Array.of(1, -1)), RangeError, "token id -1");
  assertThrows(() => tokenizer.decode(Int32Array.of(512)), RangeError, "token id 512");
  assertThrows(() => tokenizer.encode("a", { append: 512 }), RangeError, "512");
  assertThrows(() => tokenizer.encodeSpecial("<|none|>"), RangeError, '"<|none|>"');
});

Deno.test("a disposed tokenizer says so; encodings in flight still end", async () => {
  const tokenizer = await tok512();
  const running = tokenizer.encodeBatch(Array(2000).fill("some text to encode"));
  tokenizer[Symbol.dispose]();
  tokenizer[Symbol.dispose]();
  assertEquals((await running).length, 2000);
  assertThrows(() => tokenizer.encode("a"), Error, "disposed");
});

Deno.test("encodeColumn() refuses bytes that are not UTF-8 and names the document", async () => {
  using tokenizer = await tok512();
  const column = textColumn(["good", "bad"]);
  column.bytes[5] = 0xff;
  const error = await assertRejects(() => tokenizer.encodeColumn(column), NativeError);
  assertStringIncludes(error.message, "byte 1 is not UTF-8 (document 1 of the batch)");
});

Deno.test("encodeBatch() takes pathological texts: quadratic work on any of them would not end", async () => {
  using tokenizer = await tok512();
  const n = 1_000_000;
  const texts = [
    "a".repeat(n),
    " ".repeat(n),
    "\n ".repeat(n / 2),
    "a1".repeat(n / 2),
    "=a".repeat(n / 2),
    "'".repeat(n),
    "é".repeat(n / 2),
    "\u0085\r".repeat(n / 2),
    `${" ".repeat(n)}x`,
  ];
  const batch = await tokenizer.encodeBatch(texts);
  for (const [i, ids] of batch.entries()) assert(tokenizer.decode(ids) === texts[i], `text ${i}`);
});
