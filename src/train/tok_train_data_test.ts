import { assert, assertEquals } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "@std/path";
import { splitTexts } from "../../dev/parity/tokenizer.ts";
import { listShards, openShard, splitShards } from "../data/dataset.ts";
import { SPLIT_PATTERN, type TextColumn, Tokenizer } from "../data/tokenizer.ts";
import { parseRanks, PUBLISHED, publishedTokenizer } from "../interop/tiktoken.ts";
import { trainTokenizer } from "./tok_train.ts";

const root = Deno.env.get("NANOCHAT_DATA");
const present = root !== undefined && existsSync(join(root, "tokenizer"));
if (!present) console.log("skipped: tokenizer is absent; set NANOCHAT_DATA");
const path = (...parts: string[]) => join(root ?? "", ...parts);

/** Text of a gzip file. */
function gunzip(file: string): Promise<string> {
  const bytes = new Response(Deno.readFileSync(file)).body!;
  return new Response(bytes.pipeThrough(new DecompressionStream("gzip"))).text();
}

/** Rows of a gzip file of JSON lines. */
async function rows<T>(file: string): Promise<T[]> {
  return (await gunzip(file)).trim().split("\n").map((line) => JSON.parse(line));
}

/** Tokens of a gzip file of ranks. */
async function ranks(file: string): Promise<Uint8Array[]> {
  return parseRanks(await gunzip(file));
}

/** Compares ids of all rows, one by one and as a batch. */
async function checkVectors(tokenizer: Tokenizer, file: string): Promise<void> {
  const vectors = await rows<{ text: string; ids: number[] }>(file);
  const batch = await tokenizer.encodeBatch(vectors.map(({ text }) => text), { threads: 2 });
  for (const [i, { text, ids }] of vectors.entries()) {
    assertEquals(tokenizer.encode(text), ids, JSON.stringify(text));
    assertEquals(Array.from(batch[i]), ids, JSON.stringify(text));
    assert(tokenizer.decode(ids) === text, JSON.stringify(text));
  }
}

/** Training documents of the recorded trainings, as data/README.md describes them. */
const CORPORA: Record<string, () => AsyncGenerator<TextColumn | string[]> | Generator<string[]>> = {
  *shakespeare() {
    yield Deno.readTextFileSync(path("text/tinyshakespeare.txt")).split("\n\n");
  },
  *multilingual() {
    const names = Array.from(Deno.readDirSync(path("text/multilingual")), (entry) => entry.name);
    for (const name of names.filter((name) => /^ud_.*\.txt$/.test(name)).sort()) {
      yield Deno.readTextFileSync(path("text/multilingual", name)).split("\n").filter((line) => line !== "");
    }
  },
  tiny: () => shards(path("pretrain_tiny")),
  pretrain: () => shards(path("pretrain")),
};

async function* shards(folder: string): AsyncGenerator<TextColumn> {
  for (const file of splitShards(listShards(folder)).train) {
    using shard = openShard(file);
    for (let group = 0; group < shard.rowGroups; group++) yield await shard.readBytes(group);
  }
}

Deno.test({
  name: "both split patterns give the recorded pieces",
  ignore: !present,
  fn: async () => {
    const patterns = JSON.parse(Deno.readTextFileSync(path("tokenizer/patterns.json")));
    assertEquals(patterns.nanochat, SPLIT_PATTERN);
    const vectors = await rows<Record<string, string[]> & { text: string }>(path("tokenizer/split_vectors.jsonl.gz"));
    for (const name of ["nanochat", "gpt4_123"]) {
      // As written the pattern is split by hand; in a group, which changes nothing, by the regex engine.
      for (const pattern of [patterns[name], `(?:${patterns[name]})`]) {
        const pieces = await splitTexts(vectors.map(({ text }) => text), pattern);
        for (const [i, vector] of vectors.entries()) {
          assertEquals(pieces[i], vector[name], `${pattern} ${JSON.stringify(vector.text)}`);
        }
      }
    }
  },
});

Deno.test({
  name: "the GPT-2 vocabulary gives tiktoken's ids",
  ignore: !present,
  fn: async () => {
    const { gpt2 } = JSON.parse(Deno.readTextFileSync(path("tokenizer/patterns.json")));
    assertEquals(PUBLISHED.gpt2.pattern, gpt2);
    using tokenizer = await publishedTokenizer("gpt2", await gunzip(path("tokenizer/gpt2/gpt2.tiktoken.gz")));
    await checkVectors(tokenizer, path("tokenizer/gpt2/encode_vectors.jsonl.gz"));
  },
});

const folders = present ? Array.from(Deno.readDirSync(path("tokenizer")), (entry) => entry.name) : [];
for (const name of folders.sort()) {
  const [_, corpus, size] = /^rustbpe_(\w+)_(\d+)$/.exec(name) ?? [];
  if (corpus === undefined) continue;
  Deno.test(`trainTokenizer() and encode() equal ${name}`, async () => {
    const { tokenizer } = await trainTokenizer({ texts: CORPORA[corpus](), vocabSize: Number(size) });
    using _ = tokenizer;
    const expected = await ranks(path("tokenizer", name, "ranks.tiktoken.gz"));
    assertEquals(tokenizer.mergeableCount, expected.length);
    for (const [id, token] of expected.entries()) assertEquals(tokenizer.token(id), token, `token ${id}`);
    await checkVectors(tokenizer, path("tokenizer", name, "encode_vectors.jsonl.gz"));
  });
}

Deno.test({
  name: "token counts of the validation documents equal the recorded ones",
  ignore: !present,
  fn: async () => {
    const [{ docs, bytes, tokens_gpt2, tokens_pretrain_32768 }] = JSON.parse(
      Deno.readTextFileSync(path("tokenizer/token_counts.json")),
    );
    using shard = openShard(splitShards(listShards(path("pretrain"))).val[0]);
    const column = await shard.readBytes(0);
    assertEquals([column.length, column.offsets.at(-1)! - column.offsets[0]], [docs, bytes]);
    for (
      const [pattern, file, count] of [
        [PUBLISHED.gpt2.pattern, "gpt2/gpt2.tiktoken.gz", tokens_gpt2],
        [SPLIT_PATTERN, "rustbpe_pretrain_32768/ranks.tiktoken.gz", tokens_pretrain_32768],
      ]
    ) {
      using tokenizer = await Tokenizer.fromParts({
        pattern,
        tokens: await ranks(path("tokenizer", file)),
        specials: {},
      });
      assertEquals((await tokenizer.encodeColumn(column)).ids.length, count);
    }
  },
});
