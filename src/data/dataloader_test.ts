import { assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import fc from "fast-check";
import { temporaryFolder, testRuns, testSeed } from "../../dev/testing.ts";
import { DataLoader, type DocumentEncoder, hashIds, type LoaderOptions } from "./dataloader.ts";
import { ParquetWriter, writeParquet } from "./parquet.ts";
import { SPLIT_PATTERN, Tokenizer } from "./tokenizer.ts";

/** Ids are the UTF-8 bytes; 256 begins a document. */
const BYTES: DocumentEncoder = {
  bosId: 256,
  encodeBatch: (texts, { prepend }) =>
    Promise.resolve(texts.map((text) => [prepend, ...new TextEncoder().encode(text)])),
};

/** The same ids from a native tokenizer. */
function nativeBytes(): Promise<Tokenizer> {
  const tokens = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  return Tokenizer.fromParts({ pattern: SPLIT_PATTERN, tokens, specials: { "<|bos|>": 256 } });
}

/** Shards as texts: file, row group, document. */
type Shards = string[][][];

async function writeShards(folder: string, shards: Shards): Promise<string[]> {
  const files = shards.map((_, i) => join(folder, `shard_${i}.parquet`));
  // All row groups but the last one of a file have two documents.
  for (const [i, file] of files.entries()) await writeParquet(file, shards[i].flat(), { rowGroupSize: 2 });
  return files;
}

/** The specification: one list of ids, each with the place it came from, cut into pieces of B*T + 1. */
function* expectedBatches(
  shards: Shards,
  { B, T, rank, world }: { B: number; T: number; rank: number; world: number },
) {
  const stream: { id: number; epoch: number; pq_idx: number; rg_idx: number; offset: number }[] = [];
  for (let epoch = 0;; epoch++) {
    for (const [pq_idx, shard] of shards.entries()) {
      for (let rg_idx = rank; rg_idx < shard.length; rg_idx += world) {
        const ids = shard[rg_idx].flatMap((text) => [256, ...new TextEncoder().encode(text)]);
        stream.push(...ids.map((id, i) => ({ id, epoch, pq_idx, rg_idx, offset: i + 1 })));
        while (stream.length > B * T) yield stream.splice(0, B * T + 1);
      }
    }
  }
}

const SHARDS: Shards = [
  [["first document", "second"], ["third", ""], ["fourth document"]],
  [["fifth", "sixth of the documents"]],
  [["seventh", "eighth"], ["ninth", "tenth"], ["eleventh", "twelfth"], ["thirteenth"]],
];

Deno.test("DataLoader equals the specification for every rank, with and without work ahead and a native tokenizer", async () => {
  using folder = temporaryFolder();
  const files = await writeShards(folder.path, SHARDS);
  using native = await nativeBytes();
  for (const world of [1, 2, 3]) {
    for (let rank = 0; rank < world; rank++) {
      for (const [prefetch, tokenizer] of [[0, BYTES], [3, BYTES], [2, native]] as const) {
        const sizes = { B: 2, T: 5, rank, world };
        await using loader = new DataLoader({ files, tokenizer, prefetch, ...sizes });
        const expected = expectedBatches(SHARDS, sizes);
        for (let i = 0; i < 60; i++) {
          const { inputs, targets, hash, state } = await loader.next();
          const batch = expected.next().value!;
          const ids = batch.map(({ id }) => id);
          const { id: _, ...place } = batch.at(-1)!;
          assertEquals(state, { ...place, file: `shard_${place.pq_idx}.parquet`, rank, world });
          assertEquals([...inputs], ids.slice(0, -1));
          assertEquals([...targets], ids.slice(1));
          assertEquals(hash, hashIds(Int32Array.from(ids)));
        }
      }
    }
  }
});

Deno.test("DataLoader resumed at any batch gives the batches of an uninterrupted run", async () => {
  const text = fc.string({ maxLength: 12 });
  const shard = fc.array(text, { minLength: 1, maxLength: 9 }).map((texts) => {
    const groups = [];
    for (let i = 0; i < texts.length; i += 2) groups.push(texts.slice(i, i + 2));
    return groups;
  });
  const run = fc.record({
    shards: fc.array(shard, { minLength: 1, maxLength: 3 }),
    B: fc.integer({ min: 1, max: 3 }),
    T: fc.integer({ min: 1, max: 9 }),
    stop: fc.integer({ min: 1, max: 12 }),
    prefetch: fc.integer({ min: 0, max: 2 }),
  });
  await fc.assert(
    fc.asyncProperty(run, async ({ shards, stop, ...options }) => {
      using folder = temporaryFolder();
      const files = await writeShards(folder.path, shards);
      await using whole = new DataLoader({ files, tokenizer: BYTES, ...options });
      let state;
      for (let i = 0; i < stop; i++) state = (await whole.next()).state;
      const stored = JSON.parse(JSON.stringify(state));
      await using resumed = new DataLoader({ files, tokenizer: BYTES, ...options, prefetch: 1, state: stored });
      for (let i = 0; i < 12; i++) {
        const [a, b] = [await whole.next(), await resumed.next()];
        assertEquals({ ...b, inputs: [...b.inputs] }, { ...a, inputs: [...a.inputs] });
      }
    }),
    { numRuns: testRuns(60), seed: testSeed() },
  );
});

Deno.test("DataLoader resumed by the reference's rule goes on at the row group after the stored one", async () => {
  using folder = temporaryFolder();
  const files = await writeShards(folder.path, SHARDS);
  const first = async (state: LoaderOptions["state"], rank: number) => {
    const options = { files, tokenizer: BYTES, B: 1, T: 5, rank, world: 2, resume: "reference" as const, state };
    await using loader = new DataLoader(options);
    return String.fromCharCode(...(await loader.next()).inputs.subarray(1));
  };
  assertEquals(await first({ pq_idx: 0, rg_idx: 0 }, 0), "four");
  assertEquals(await first({ pq_idx: 0, rg_idx: 1 }, 0), "four");
  assertEquals(await first({ pq_idx: 0, rg_idx: 2 }, 0), "fift"); // past the end: next file, from the rank's first group
  assertEquals(await first({ pq_idx: 2, rg_idx: 0 }, 1), "thir");
  assertEquals(await first({ pq_idx: 2, rg_idx: 3 }, 1), "thir"); // the next pass begins with file 0, row group 1
  const options = { tokenizer: BYTES, B: 1, T: 5, resume: "reference" as const };
  for (const file of [0, 2]) {
    // The only file is at its end: that is no pass without row groups.
    const state = { pq_idx: 0, rg_idx: SHARDS[file].length - 1 };
    await using loader = new DataLoader({ files: [files[file]], state, ...options });
    assertEquals((await loader.next()).state.epoch, 1);
  }
  await using last = new DataLoader({ files: files.slice(0, 2), state: { pq_idx: 1, rg_idx: -1 }, ...options });
  assertEquals((await last.next()).state, {
    epoch: 0,
    pq_idx: 1,
    rg_idx: 0,
    offset: 6,
    file: "shard_1.parquet",
    rank: 0,
    world: 1,
  });
  // A file in the middle without a row group for this rank: again no pass without any.
  const state = { pq_idx: 1, rg_idx: -1 };
  await using passing = new DataLoader({ files: files.slice(0, 2), state, rank: 1, world: 2, ...options });
  assertEquals((await passing.next()).state.epoch, 1);
});

Deno.test("DataLoader refuses a state that is not of this stream", async () => {
  using folder = temporaryFolder();
  const files = await writeShards(folder.path, SHARDS);
  const options = { files, tokenizer: BYTES, B: 1, T: 4 };
  const state = { epoch: 0, pq_idx: 1, rg_idx: 0, offset: 3, file: "shard_1.parquet", rank: 0, world: 1 };
  const refused = (change: Partial<LoaderOptions>, message: string) =>
    assertThrows(() => new DataLoader({ ...options, ...change }), Error, message);
  refused({ state: { pq_idx: 0, rg_idx: 0 } }, "its state has no token offset");
  refused({ state, rank: 1, world: 2 }, "its state is of rank 0 of 1, expected rank 1 of 2");
  refused({ state, world: 2 }, "its state is of rank 0 of 1, expected rank 0 of 2");
  refused({ state: { ...state, world: 2 }, rank: 1, world: 2 }, "its state is of rank 0 of 2, expected rank 1 of 2");
  refused({ state, files: files.slice(1) }, `shard 1 is "shard_2.parquet", expected "shard_1.parquet"`);
  refused({ state: { ...state, pq_idx: 7 } }, `shard 7 is "missing"`);
  refused({ state: { ...state, pq_idx: 3 } }, `shard 3 is "missing"`);
  refused({ B: 0 }, "Cannot make batches of 0 x 4");
  refused({ T: 0 }, "Cannot make batches of 1 x 0");
  refused({ rank: 2, world: 2 }, "for rank 2 of 2");
  refused({ rank: -1 }, "for rank -1 of 1");
  refused({ files: [] }, "there are no shards");
  await using loader = new DataLoader({ ...options, state: { ...state, offset: 1000 } });
  await assertRejects(() => loader.next(), Error, "expected at least 1000");
});

Deno.test("DataLoader encodes the next row group while the caller computes, unless it is told not to", async () => {
  using folder = temporaryFolder();
  const files = await writeShards(folder.path, [[["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"], ["i"]]]);
  let wake = () => {};
  const encoded: string[] = [];
  const tokenizer: DocumentEncoder = {
    bosId: 256,
    encodeBatch: (texts, options) => {
      encoded.push(texts[0]);
      wake();
      return BYTES.encodeBatch(texts, options);
    },
  };
  {
    await using loader = new DataLoader({ files, tokenizer, B: 1, T: 3, prefetch: 0 });
    await loader.next(); // takes the first row group and nothing else
    assertEquals(encoded, ["a"]);
    await loader.next();
    assertEquals(encoded, ["a", "c"]);
  }
  assertEquals(encoded, ["a", "c"]);
  encoded.length = 0;
  {
    await using loader = new DataLoader({ files, tokenizer, B: 1, T: 3, prefetch: 1 });
    const ahead = new Promise<void>((resolve) => wake = () => encoded.length === 3 ? resolve() : undefined);
    await loader.next();
    assertEquals(encoded, ["a", "c"]); // this batch and the next one
    await ahead; // no further call to next()
    assertEquals(encoded, ["a", "c", "e"]);
  }
  for (
    const { T, prefetch, expected } of [
      { T: 3, prefetch: undefined, expected: ["a", "c", "e"] }, // this batch and two more where nothing is said
      { T: 1, prefetch: 1, expected: ["a", "c"] }, // the first row group holds both batches, the second is in reserve
    ]
  ) {
    encoded.length = 0;
    await using loader = new DataLoader({ files, tokenizer, B: 1, T, prefetch });
    await loader.next();
    assertEquals(encoded, expected);
  }
});

Deno.test("DataLoader that is closed gives no further batch", async () => {
  using folder = temporaryFolder();
  const files = await writeShards(folder.path, SHARDS);
  for (const prefetch of [0, 1]) {
    const loader = new DataLoader({ files, tokenizer: BYTES, B: 1, T: 200, prefetch });
    await loader.next();
    await loader[Symbol.asyncDispose]();
    // What was ready may still come; behind it the loader ends instead of reading on.
    const drain = async () => {
      for (let i = 0; i < 9; i++) await loader.next();
    };
    await assertRejects(drain, Error, "Cannot make a batch: the loader is closed");
  }
});

Deno.test("DataLoader says that a rank has no row group instead of searching for ever", async () => {
  using folder = temporaryFolder();
  const files = await writeShards(folder.path, SHARDS.slice(0, 2));
  await using loader = new DataLoader({ files, tokenizer: BYTES, B: 1, T: 4, rank: 3, world: 4 });
  await assertRejects(() => loader.next(), Error, "none of the 2 shards has a row group 3");
  await assertRejects(() => loader.next(), Error, "none of the 2 shards has a row group 3");
});

Deno.test("DataLoader reports a damaged shard when its turn comes", async () => {
  using folder = temporaryFolder();
  const files = await writeShards(folder.path, SHARDS);
  Deno.writeTextFileSync(files[1], "not a shard at all");
  await using loader = new DataLoader({ files, tokenizer: BYTES, B: 1, T: 9 });
  await loader.next();
  await assertRejects(
    async () => {
      for (;;) await loader.next();
    },
    Error,
    `Cannot open Parquet file "${files[1]}"`,
  );
});

Deno.test("DataLoader names row group and row of a text that is null or not UTF-8", async () => {
  const samples = join(import.meta.dirname!, "../../dev/golden/parquet");
  const path = join(samples, "none_plain.parquet"); // its second row is null
  using native = await nativeBytes();
  for (const tokenizer of [BYTES, native]) {
    await using loader = new DataLoader({ files: [path], tokenizer, B: 1, T: 4 });
    await assertRejects(
      () => loader.next(),
      Error,
      `Cannot read row group 0 of "${path}": row 1 is null, expected a text`,
    );
  }
  using folder = temporaryFolder();
  const damaged = join(folder.path, "a.parquet");
  {
    using writer = ParquetWriter.create(damaged);
    await writer.writeBytes(Uint8Array.of(97, 0xff), BigInt64Array.of(1n, 2n));
    await writer.finish();
  }
  for (const tokenizer of [BYTES, native]) {
    await using loader = new DataLoader({ files: [damaged], tokenizer, B: 1, T: 4 });
    const message = `Cannot read row group 0 of "${damaged}": value 1 of column "text" is not UTF-8, expected text`;
    await assertRejects(() => loader.next(), Error, message);
  }
});

Deno.test("hashIds() tells order and length apart", () => {
  const hash = (...ids: number[]) => hashIds(Int32Array.from(ids));
  assertEquals(hash(1, 2, 3), hash(1, 2, 3));
  assertNotEquals(hash(1, 2, 3), hash(3, 2, 1));
  assertNotEquals(hash(0), hash(0, 0));
  // Written into events: it may not change between versions.
  assertEquals([hash(), hash(1, 2), hash(65535, 0, 7)], ["9e37e78e00000000", "c2b8d52f06669d66", "89665f0ae9cc1cac"]);
});
