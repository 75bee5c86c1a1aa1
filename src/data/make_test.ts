import { assert, assertEquals, assertNotEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { basename, join } from "@std/path";
import fc from "fast-check";
import { temporaryFolder, testSeed } from "../../dev/testing.ts";
import { documents, listShards } from "./dataset.ts";
import { makeShards } from "./make.ts";
import { ParquetFile, writeParquet } from "./parquet.ts";

/** Collects what is said. */
function listener() {
  const said: string[] = [];
  const log = { info: (m: string) => void said.push(m), warn: (m: string) => void said.push(m), progress: () => {} };
  return { said, log };
}

async function shardTexts(folder: string): Promise<string[][]> {
  const texts = [];
  for (const file of listShards(folder)) texts.push((await Array.fromAsync(documents([file]))).flat());
  return texts;
}

Deno.test("makeShards() reads text, JSON lines and Parquet and drops nothing", async () => {
  using folder = temporaryFolder();
  const [input, out] = [join(folder.path, "in"), join(folder.path, "out")];
  Deno.mkdirSync(join(input, "deep"), { recursive: true });
  Deno.writeTextFileSync(join(input, "a.txt"), "a text file\r\n");
  Deno.writeTextFileSync(
    join(input, "deep", "b.jsonl"),
    '{"text":"línea 1","n":1}\n\n{"text":""}\n{"text":"no newline at the end"}',
  );
  Deno.writeTextFileSync(join(input, "picture.png"), "?");
  await writeParquet(join(input, "c.parquet"), ["語言", "모델"]);
  const { said, log } = listener();
  const shards = await makeShards({ inputs: [input], out, log });
  assertEquals(shards.map((shard) => basename(shard.path)), ["shard_00000.parquet", "shard_00001.parquet"]);
  assertEquals(shards.map((shard) => shard.documents), [5, 1]);
  const texts = (await shardTexts(out)).flat();
  assertEquals(
    texts.toSorted(),
    ["", "a text file\r\n", "línea 1", "no newline at the end", "語言", "모델"].toSorted(),
  );
  assertEquals(shards.reduce((sum, shard) => sum + shard.characters, 0), texts.join("").length);
  assertEquals(said, ['Left out 1 files that are no text: "picture.png"']);
  assertEquals(Array.from(Deno.readDirSync(out)).length, 2);
});

Deno.test("makeShards() closes shards on a row-group border and keeps every document, whatever the sizes", async () => {
  const run = fc.record({
    lengths: fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 2, maxLength: 150 }),
    rowGroup: fc.integer({ min: 1, max: 8 }),
    shardChars: fc.integer({ min: 1, max: 600 }),
    bucketBytes: fc.constantFrom(64, 1 << 20),
  });
  await fc.assert(
    fc.asyncProperty(run, async ({ lengths, ...options }) => {
      using folder = temporaryFolder();
      const [input, out] = [join(folder.path, "in.jsonl"), join(folder.path, "out")];
      const texts = lengths.map((length, i) => `${i} ${"é".repeat(length)}`);
      Deno.writeTextFileSync(input, texts.map((text) => JSON.stringify({ text })).join("\n"));
      const shards = await makeShards({ inputs: [input], out, ...options });
      assert(shards.length >= 2);
      assertEquals((await shardTexts(out)).flat().toSorted(), texts.toSorted());
      for (const [i, shard] of shards.entries()) {
        using file = ParquetFile.open(shard.path);
        assert(file.rowsOfGroup.slice(0, -1).every((rows) => rows === options.rowGroup));
        assertEquals(file.rows, shard.documents);
        // All but the last two are closed by size, at a whole row group.
        if (i < shards.length - 2) {
          assertEquals(file.rowsOfGroup.at(-1), options.rowGroup);
          assert(shard.characters >= options.shardChars);
        }
      }
    }),
    { numRuns: 40, seed: testSeed() },
  );
});

Deno.test("makeShards() shuffles by the seed alone", async () => {
  using folder = temporaryFolder();
  const input = join(folder.path, "in.jsonl");
  const texts = Array.from({ length: 100 }, (_, i) => `document ${i}`);
  Deno.writeTextFileSync(input, texts.map((text) => JSON.stringify({ text })).join("\n"));
  const order = async (name: string, seed: number) => {
    const out = join(folder.path, name);
    await makeShards({ inputs: [input], out, seed });
    return (await shardTexts(out)).flat();
  };
  const first = await order("a", 42);
  assertEquals(await order("b", 42), first);
  assertNotEquals(await order("c", 43), first);
  assertNotEquals(first, texts);
});

Deno.test("makeShards() cuts a long text between characters, lines and paragraphs without losing a byte", async () => {
  using folder = temporaryFolder();
  const cases = {
    paragraphs: "One sentence of a paragraph.\nA second line.\n\n".repeat(2000),
    one_line: "word ".repeat(20_000),
    no_space: "語".repeat(30_000),
    small: "A line.\n".repeat(100),
  };
  for (const [name, text] of Object.entries(cases)) {
    const [input, out] = [join(folder.path, `${name}.txt`), join(folder.path, name)];
    Deno.writeTextFileSync(input, text);
    const { said, log } = listener();
    await makeShards({ inputs: [input], out, log });
    const pieces = (await shardTexts(out)).flat();
    assertStringIncludes(said[0], "Cut 1 long text files");
    assertEquals(pieces.join("").length, text.length, name);
    assertEquals(pieces.toSorted().join(""), pieces.toSorted().join("").replaceAll("\ufffd", ""), name);
    if (name === "paragraphs") assert(pieces.every((piece) => piece.startsWith("One") && piece.endsWith("\n\n")));
    if (name === "one_line") assert(pieces.every((piece) => piece.startsWith("word") && piece.endsWith(" ")));
  }
});

Deno.test("makeShards() replaces invalid UTF-8 and says how much and where", async () => {
  using folder = temporaryFolder();
  const [input, out] = [join(folder.path, "in"), join(folder.path, "out")];
  Deno.mkdirSync(input);
  Deno.writeFileSync(join(input, "a.txt"), Uint8Array.from([0x61, 0xff, 0xfe, 0x62, 0xef, 0xbf, 0xbd]));
  Deno.writeFileSync(join(input, "b.txt"), Uint8Array.from([0xef, 0xbb, 0xbf, 0x63])); // UTF-8 with a mark
  Deno.writeFileSync(join(input, "c.txt"), Uint8Array.from([0xff, 0xfe, 0x64, 0x00, 0xac, 0x20])); // UTF-16
  const { said, log } = listener();
  await makeShards({ inputs: [input], out, log });
  assertEquals((await shardTexts(out)).flat().toSorted(), ["a\ufffd\ufffdb\ufffd", "c", "d€"]);
  const where = join(input, "a.txt");
  assertEquals(said, [
    `Replaced invalid UTF-8 in 1 documents by 2 replacement characters, the first in "${where}"`,
  ]);
});

Deno.test("makeShards() refuses bad input and leaves no half-made shards", async () => {
  using folder = temporaryFolder();
  const out = join(folder.path, "out");
  const refused = async (name: string, text: string, message: string) => {
    const path = join(folder.path, name);
    Deno.writeTextFileSync(path, text);
    const error = await assertRejects(() => makeShards({ inputs: [path], out }), Error);
    assertStringIncludes(error.message, message);
    assertEquals(Array.from(Deno.readDirSync(out)).length, 0);
  };
  Deno.mkdirSync(out);
  await refused(
    "a.jsonl",
    '{"text":"x"}\n{"text":',
    `Cannot read line 2 of "${join(folder.path, "a.jsonl")}": it is no JSON`,
  );
  await refused("b.jsonl", '{"body":"x"}', 'its keys are "body", expected "text"; name another one with --key');
  await refused("c.jsonl", '{"text":7}', '"text" is number, expected a text');
  await refused(
    "d.jsonl",
    '{"text":"alone"}',
    "found 1 document of 5 characters in 1 files, expected at least 2, one to train on and one to validate; 1 more document is missing",
  );
  await refused(
    "e.jsonl",
    "",
    "found no document in 1 files, expected at least 2, one to train on and one to validate; 2 documents are missing",
  );
  await refused("f.bin", "", "unknown kind of file");
  await assertRejects(() => makeShards({ inputs: [join(folder.path, "none")], out }), Error, "Cannot read");
  await writeParquet(join(out, "x.parquet"), ["a"]);
  await assertRejects(
    () => makeShards({ inputs: [join(folder.path, "d.jsonl")], out }),
    Error,
    'it holds 1 already ("x.parquet"), expected an empty folder',
  );
});

Deno.test("makeShards() unpacks gzip and takes another key", async () => {
  using folder = temporaryFolder();
  const [input, out] = [join(folder.path, "in.jsonl.gz"), join(folder.path, "out")];
  const packed = new Blob(['{"body":"one"}\n{"body":"two"}\n']).stream().pipeThrough(new CompressionStream("gzip"));
  await Deno.writeFile(input, packed);
  await makeShards({ inputs: [input], out, key: "body" });
  assertEquals((await shardTexts(out)).flat().toSorted(), ["one", "two"]);
});
