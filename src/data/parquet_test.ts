import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { checkMutations, temporaryFolder } from "../../dev/testing.ts";
import { NativeError } from "../native/call.ts";
import { ParquetFile, ParquetWriter, writeParquet } from "./parquet.ts";

const TEXTS = ["", "plain", "Grüße, 語言模型 🙂", "\ufeffmark in front", "a\0b", "x".repeat(100_000)];

Deno.test("ParquetFile.readTexts() returns what writeParquet() wrote", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "a.parquet");
  await writeParquet(path, TEXTS, { rowGroupSize: 4 });
  assertEquals(Array.from(Deno.readDirSync(folder.path), (entry) => entry.name), ["a.parquet"]);
  using file = ParquetFile.open(path);
  assertEquals([file.rowGroups, file.rows, file.rowsOfGroup], [2, 6, [4, 2]]);
  assertEquals(file.schema, [{ name: "text", type: "utf8", nullable: true, children: [] }]);
  assertEquals([...await file.readTexts(0), ...await file.readTexts(1)], TEXTS);
});

Deno.test("ParquetFile.readTable() stands over one buffer that JavaScript owns", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "a.parquet");
  await writeParquet(path, TEXTS.slice(0, 3));
  using file = ParquetFile.open(path);
  const table = await file.readTable();
  assertEquals(table.toArray().map((row) => row.text), TEXTS.slice(0, 3));
  const data = table.getChild("text")!.data[0];
  assertStrictEquals(data.values.buffer, data.valueOffsets.buffer);
  // Writing into the buffer shows in the vector: there is no copy in between.
  new Uint8Array(data.values.buffer, data.values.byteOffset)[0] = "P".charCodeAt(0);
  assertEquals(table.get(1)?.text, "Plain");
});

Deno.test("ParquetFile refuses a missing column, a row group out of range and a closed file", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "a.parquet");
  await writeParquet(path, TEXTS);
  const file = ParquetFile.open(path);
  await assertRejects(() => file.readTexts(0, "body"), Error, `it has the columns "text", expected "body"`);
  await assertRejects(() => file.readTexts(1), Error, "the file has 1 row groups");
  const reading = file.readTexts(0);
  file[Symbol.dispose]();
  file[Symbol.dispose]();
  assertEquals(await reading, TEXTS); // a read in flight ends before the file is freed
  await assertRejects(() => file.readTexts(0), Error, "it is closed");
  assertThrows(() => ParquetFile.open(join(folder.path, "none")), Error, "No such file");
});

Deno.test("ParquetWriter leaves nothing behind when it is not finished and nothing half-written under the name", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "a.parquet");
  {
    using writer = ParquetWriter.create(path);
    await writer.write(["one"]);
    assertEquals(Array.from(Deno.readDirSync(folder.path), (entry) => entry.name), ["a.parquet.tmp"]);
  }
  assertEquals(Array.from(Deno.readDirSync(folder.path)).length, 0);
  assertThrows(() => ParquetWriter.create(join(folder.path, "no", "a.parquet")), Error, "Cannot write");
  assertThrows(() => ParquetWriter.create(path, { level: 99 }), Error, "zstd level 99");
  using writer = ParquetWriter.create(path);
  await writer.finish();
  await assertRejects(() => writer.write(["late"]), Error, "it is finished");
  assert(Deno.statSync(path).isFile);
});

/** A row as plain JSON: 64-bit integers and bytes become text. */
function plain(value: unknown): unknown {
  const text = JSON.stringify(value, (_, item) => {
    if (typeof item === "bigint") return String(item);
    if (item instanceof Uint8Array) return new TextDecoder().decode(item);
    return item;
  });
  return JSON.parse(text);
}

Deno.test("ParquetFile.readTable() equals the rows of every codec, encoding and nesting", async () => {
  const folder = join(import.meta.dirname!, "../../dev/golden/parquet");
  const expected = Deno.readTextFileSync(join(folder, "expected.jsonl")).trim().split("\n").map((line) =>
    JSON.parse(line)
  );
  const names = Array.from(Deno.readDirSync(folder), (entry) => entry.name).filter((name) => name.endsWith(".parquet"));
  assertEquals(names.length, 7);
  for (const name of names) {
    using file = ParquetFile.open(join(folder, name));
    assertEquals(file.rowsOfGroup, [3, 1]);
    const rows = (await file.readTable()).toArray().map(plain);
    assertEquals(rows, expected, name);
    assertEquals((await file.readTable(1)).get(0)?.text, expected[3].text);
    await assertRejects(() => file.readTexts(0), Error, "row 1 is null, expected a text");
    await assertRejects(() => file.readTexts(0, "labels"), TypeError, `column "labels" holds list, expected text`);
  }
});

Deno.test("ParquetFile survives 2,000 seeded mutations of every codec and encoding with one error each", async () => {
  using folder = temporaryFolder();
  const golden = join(import.meta.dirname!, "../../dev/golden/parquet");
  const names = Array.from(Deno.readDirSync(golden), (entry) => entry.name).filter((name) => name.endsWith(".parquet"));
  const path = join(folder.path, "damaged.parquet");
  await checkMutations({
    files: names.sort().map((name) => Deno.readFileSync(join(golden, name))),
    read: async (bytes) => {
      Deno.writeFileSync(path, bytes);
      using file = ParquetFile.open(path);
      const table = await file.readTable();
      assertEquals(table.numRows, file.rows);
      table.toArray().forEach(plain);
    },
    errors: [NativeError],
    refused: 0.5,
  });
});
