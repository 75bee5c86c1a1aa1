import { assertEquals } from "@std/assert";
import { documents, listShards, splitShards } from "../src/data/dataset.ts";
import { type Log, SILENT } from "../src/data/log.ts";
import { worldDocuments } from "./world.ts";
import { writeWorldShards } from "./world_shards.ts";

Deno.test("writeWorldShards() writes both splits in order and replaces what was there", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await writeWorldShards(folder, { seed: 9, trainDocuments: 40_000, valDocuments: 10 }, SILENT);
    const corpus = { seed: 3, trainDocuments: 2500, valDocuments: 300 };
    const seen: number[] = [];
    const log: Log = { ...SILENT, progress: ({ done, total }) => void seen.push(done / total) };
    const characters = await writeWorldShards(folder, corpus, log);
    const { train, val } = splitShards(listShards(folder));
    assertEquals([train.length, val.length], [1, 1]);
    const read = async (files: string[]) => (await Array.fromAsync(documents(files))).flat();
    const [trained, validated] = [await read(train), await read(val)];
    assertEquals(trained, [...worldDocuments({ seed: 3, count: 2500, split: "train" })]);
    assertEquals(validated, [...worldDocuments({ seed: 3, count: 300, split: "val" })]);
    assertEquals([...trained, ...validated].join("").length, characters);
    assertEquals(seen.at(-1), 1);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
