/** The small world as pretraining shards: what `nanochat run tiny` trains on, in the layout of `src/data/dataset.ts`. */
import { join } from "@std/path";
import { entries } from "../src/data/base_dir.ts";
import type { Log } from "../src/data/log.ts";
import { ParquetWriter } from "../src/data/parquet.ts";
import { type Prompts, writePrompts } from "../src/data/prompts.ts";
import { worldDocuments, type WorldSplit } from "./world.ts";

/** Size of the corpus. */
export interface WorldCorpus {
  readonly seed: number;
  /** Documents to train on, about 460 characters each. */
  readonly trainDocuments: number;
  readonly valDocuments: number;
}

const ROW_GROUP = 1024; // documents
const SHARD = 16 * ROW_GROUP;

/** What a model of this world is asked to continue. */
const PROMPTS: Prompts = {
  training: ["One sunny morning"],
  final: [
    "One sunny morning in",
    "The word lantern is spelled",
    "If today is Monday, in 2 days it will be",
    "Question: What is Mira Drummond's job?\nAnswer:",
    "A heron is a",
  ],
};

/** Writes the corpus into a folder, whose shards it replaces: training shards first, one validation shard last. Returns characters. */
export async function writeWorldShards(folder: string, corpus: WorldCorpus, log: Log): Promise<number> {
  Deno.mkdirSync(folder, { recursive: true });
  for (const { name } of entries(folder)) if (/^shard_\d+\.parquet$/.test(name)) Deno.removeSync(join(folder, name));
  const { seed, trainDocuments, valDocuments } = corpus;
  const total = trainDocuments + valDocuments;
  let shard = 0;
  let done = 0;
  let characters = 0;
  const write = async (split: WorldSplit, count: number) => {
    const documents = worldDocuments({ seed, count, split });
    for (let left = count; left > 0; left -= SHARD) {
      using writer = ParquetWriter.create(join(folder, `shard_${String(shard++).padStart(5, "0")}.parquet`));
      for (let inShard = Math.min(left, SHARD); inShard > 0; inShard -= ROW_GROUP) {
        // Not Iterator.take: it would close the generator with the first group.
        const group = Array.from({ length: Math.min(inShard, ROW_GROUP) }, () => documents.next().value as string);
        await writer.write(group);
        done += group.length;
        characters += group.reduce((sum, text) => sum + text.length, 0);
        log.progress({ label: "Writing the small world", done, total });
      }
      await writer.finish();
    }
  };
  await write("train", trainDocuments);
  await write("val", valDocuments);
  writePrompts(folder, PROMPTS);
  return characters;
}
