import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { documents, listShards, openShard, splitShards } from "./dataset.ts";
import { ParquetWriter, writeParquet } from "./parquet.ts";

Deno.test("listShards() sorts by name and leaves out unfinished files", () => {
  using folder = temporaryFolder();
  for (const name of ["shard_00010.parquet", "shard_00002.parquet", "shard_00003.parquet.tmp", "notes.txt"]) {
    Deno.writeTextFileSync(join(folder.path, name), "");
  }
  const expected = ["shard_00002.parquet", "shard_00010.parquet"].map((name) => join(folder.path, name));
  assertEquals(listShards(folder.path), expected);
  assertEquals(splitShards(expected), { train: [expected[0]], val: [expected[1]] });
});

Deno.test("listShards() and splitShards() say what is missing", () => {
  using folder = temporaryFolder();
  assertThrows(() => listShards(join(folder.path, "none")), Error, "folder missing; run");
  Deno.writeTextFileSync(join(folder.path, "a.parquet.tmp"), "");
  assertThrows(() => listShards(folder.path), Error, "0 of 1 files end in .parquet");
  assertThrows(() => splitShards(["/data/a.parquet"]), RangeError, "the last one is kept for validation");
  assertThrows(() => splitShards([]), RangeError, "there is none, expected at least 2");
});

Deno.test("documents() yields every row group in order", async () => {
  using folder = temporaryFolder();
  const files = ["a.parquet", "b.parquet"].map((name) => join(folder.path, name));
  await writeParquet(files[0], ["one", "two", "three"], { rowGroupSize: 2 });
  await writeParquet(files[1], ["four", ""], { rowGroupSize: 2 });
  assertEquals(await Array.fromAsync(documents(files)), [["one", "two"], ["three"], ["four", ""]]);
});

Deno.test("openShard() refuses damaged, empty and foreign files and names them", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "x.parquet");
  Deno.writeTextFileSync(path, "");
  assertThrows(() => openShard(path), Error, `Cannot open Parquet file "${path}": it has 0 bytes`);
  Deno.writeTextFileSync(path, "<html>Not found</html>");
  assertThrows(() => openShard(path), Error, "its end is not that of a Parquet file");
  {
    using writer = ParquetWriter.create(path);
    await writer.finish();
  }
  assertThrows(() => openShard(path), Error, "it has no row groups, expected documents");
  {
    using writer = ParquetWriter.create(path);
    await writer.write(["text"]);
    await writer.write([]);
    await writer.finish();
  }
  assertThrows(() => openShard(path), Error, "row group 1 has no rows");
  const bytes = Deno.readFileSync(path);
  await writeParquet(path, ["a text that is compressed", "b"]);
  const whole = Deno.readFileSync(path);
  whole.fill(0xff, 30, 40);
  Deno.writeFileSync(path, whole);
  await assertRejects(() => Array.fromAsync(documents([path])), Error, `Cannot read row group 0 of "${path}"`);
  Deno.writeFileSync(path, bytes.subarray(0, bytes.length - 9));
  assertThrows(() => openShard(path), Error, "Cannot open Parquet file");
});
