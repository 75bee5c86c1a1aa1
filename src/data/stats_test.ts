import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { writeParquet } from "./parquet.ts";
import { shardStats } from "./stats.ts";

Deno.test("shardStats() counts documents, characters and lengths of every shard", async () => {
  using folder = temporaryFolder();
  await writeParquet(join(folder.path, "a.parquet"), ["é", "", "abc", "語言"], { rowGroupSize: 3 });
  await writeParquet(join(folder.path, "b.parquet"), ["x"]);
  const table = await shardStats(folder.path);
  const rows = table.toArray().map((row) => row.toJSON());
  for (const row of rows) delete row.file_bytes; // depends on the compressor
  const sizes = { shortest: 0, median: 3, longest: 6 };
  assertEquals(rows, [
    { shard: "a.parquet", split: "train", row_groups: 2, documents: 4, characters: 6, text_bytes: 11, ...sizes },
    {
      shard: "b.parquet",
      split: "val",
      row_groups: 1,
      documents: 1,
      characters: 1,
      text_bytes: 1,
      shortest: 1,
      median: 1,
      longest: 1,
    },
  ]);
});

Deno.test("shardStats() names a shard that cannot be read", async () => {
  using folder = temporaryFolder();
  Deno.writeTextFileSync(join(folder.path, "a.parquet"), "no shard, but long enough");
  await assertRejects(() => shardStats(folder.path), Error, "its end is not that of a Parquet file");
});
