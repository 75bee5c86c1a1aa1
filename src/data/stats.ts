/** What a folder of shards holds, as an `apache-arrow` table with one row per shard. */
import type { Table } from "apache-arrow";
import { basename } from "@std/path";
import { listShards, openShard, TEXT_COLUMN } from "./dataset.ts";
import { characters } from "./documents.ts";
import type { Log } from "./log.ts";
import { SILENT } from "./log.ts";
import { loadArrow } from "./parquet.ts";

/**
 * Reads every document of every shard and counts.
 *
 * Columns: `shard`, `split` (train or val), `row_groups`, `documents`, `characters`, `text_bytes`, `file_bytes`, and over the
 * documents' lengths in bytes `shortest`, `median`, `longest`.
 *
 * @throws {Error} where the folder has no shards or one is damaged, empty or without the text column.
 */
export async function shardStats(folder: string, { log = SILENT }: { readonly log?: Log } = {}): Promise<Table> {
  const { tableFromArrays } = await loadArrow();
  const files = listShards(folder);
  const column = (): Float64Array<ArrayBuffer> => new Float64Array(files.length);
  const numbers = {
    row_groups: column(),
    documents: column(),
    characters: column(),
    text_bytes: column(),
    file_bytes: column(),
    shortest: column(),
    median: column(),
    longest: column(),
  };
  for (const [i, path] of files.entries()) {
    using file = openShard(path);
    const lengths: number[] = [];
    for (let group = 0; group < file.rowGroups; group++) {
      const texts = (await file.readTable(group)).getChild(TEXT_COLUMN)!.data[0];
      const offsets = texts.valueOffsets as Int32Array;
      for (let row = 0; row < texts.length; row++) lengths.push(offsets[row + 1] - offsets[row]);
      numbers.characters[i] += characters(texts.values as Uint8Array);
      numbers.text_bytes[i] += texts.values.length;
    }
    lengths.sort((a, b) => a - b);
    numbers.row_groups[i] = file.rowGroups;
    numbers.documents[i] = lengths.length;
    numbers.file_bytes[i] = file.sizeBytes;
    numbers.shortest[i] = lengths[0];
    numbers.median[i] = lengths[lengths.length >> 1];
    numbers.longest[i] = lengths[lengths.length - 1];
    log.progress({ label: "Reading shards", done: i + 1, total: files.length });
  }
  return tableFromArrays({
    shard: files.map((path) => basename(path)),
    split: files.map((_, i) => i < files.length - 1 ? "train" : "val"),
    ...numbers,
  });
}
