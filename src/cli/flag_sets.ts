/** Flags that several commands share. */
import { atLeast, bool, type FlagTable, int, string } from "./flags.ts";

/** Which folders a command reads, where not the base folder's or the most recent run's. */
export const DATA_DIR = { "data-dir": string(undefined, { help: "folder of shards" }) } as const satisfies FlagTable;

/** Shards of the reference's data set. */
export const DOWNLOAD = {
  "num-files": int(-1, { help: "shards to download, from the first one; -1 = all 1,823", short: "n" }),
  "num-workers": int(4, { help: "downloads at a time", short: "w", check: atLeast(1) }),
  "base-url": string(undefined, { help: "folder of a mirror that holds shard_00000.parquet and so on" }),
  offline: bool(false, { help: "uses no network; fails where a shard is missing" }),
  ...DATA_DIR,
} as const satisfies FlagTable;
