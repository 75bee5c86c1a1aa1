/** The pretraining data: a folder of Parquet shards with a `text` column; the last one by name is validation (nanochat/dataset.py). */
import { basename, dirname, join } from "@std/path";
import { ParquetFile } from "./parquet.ts";

/** Shards by purpose, in the order they are read. */
export interface Split {
  /** Paths of the training shards, in order. */
  readonly train: string[];
  /** Path of the validation shard: one entry. */
  readonly val: string[];
}

/** Name of the split's parts. */
export type SplitName = keyof Split;

/** Column that holds the documents. */
export const TEXT_COLUMN = "text";

/**
 * Lists the shards of a folder, sorted by name; unfinished downloads (`.tmp`) do not count.
 *
 * @throws {Error} where the folder is missing or has no shard.
 */
export function listShards(folder: string): string[] {
  let names: string[];
  try {
    names = Array.from(Deno.readDirSync(folder)).filter((entry) => !entry.isDirectory).map((entry) => entry.name);
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    throw new Error(`Cannot read shards in "${folder}": folder missing; run "nanochat data download"`, { cause });
  }
  const shards = names.filter((name) => name.endsWith(".parquet")).sort();
  if (shards.length === 0) {
    throw new Error(
      `Cannot read shards in "${folder}": 0 of ${names.length} files end in .parquet; run "nanochat data download"`,
    );
  }
  return shards.map((name) => join(folder, name));
}

/**
 * Splits shards into training and validation: the last one is validation.
 *
 * @throws {RangeError} for fewer than two shards.
 */
export function splitShards(files: readonly string[]): Split {
  if (files.length < 2) {
    const found = files.length === 0 ? "there is none" : `"${basename(files[0])}" is the only one`;
    const where = files.length === 0 ? "" : ` in "${dirname(files[0])}"`;
    throw new RangeError(
      `Cannot split the shards${where}: ${found}, expected at least 2, because the last one is kept for validation; ` +
        `run "nanochat data download -n 2"`,
    );
  }
  return { train: files.slice(0, -1), val: files.slice(-1) };
}

/**
 * Opens a shard and checks that it has documents to read.
 *
 * @throws {Error} where it is damaged, empty or without the text column.
 */
export function openShard(path: string): ParquetFile {
  const file = ParquetFile.open(path);
  try {
    file.fieldIndex(TEXT_COLUMN);
    const empty = file.rowsOfGroup.indexOf(0);
    if (file.rowGroups === 0) throw new Error(`Cannot read "${path}": it has no row groups, expected documents`);
    if (empty >= 0) throw new Error(`Cannot read "${path}": row group ${empty} has no rows, expected documents`);
    return file;
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

/** Reads all documents of the given shards in order, a row group at a time. */
export async function* documents(files: readonly string[]): AsyncGenerator<string[]> {
  for (const path of files) {
    using file = openShard(path);
    for (let group = 0; group < file.rowGroups; group++) yield await file.readTexts(group);
  }
}
