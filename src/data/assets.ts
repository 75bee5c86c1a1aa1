/**
 * Where the data of the later stages lies: task sets, CORE's bundle, the word list, identity conversations.
 *
 * In the base folder they have the names that `nanochat data fetch` and the Python nanochat give them; a folder of one's own may also
 * keep them in subfolders and compressed. Finding says nothing about the content: what reads it does.
 */
import { existsSync } from "node:fs";
import { join } from "@std/path";

/** What can be fetched, in the order of `data fetch all`. */
export const ASSETS = ["tasks", "eval-bundle", "words", "identity"] as const;
/** Name of something that can be fetched. */
export type AssetName = (typeof ASSETS)[number];

/** Names below a data folder, the one that a fetch writes first. */
const PLACES: Readonly<Record<AssetName, readonly string[]>> = {
  tasks: ["task_data"],
  "eval-bundle": ["eval_bundle"],
  words: ["words_alpha.txt", "words_alpha.txt.gz", "words/words_alpha.txt", "words/words_alpha.txt.gz"],
  identity: [
    "identity_conversations.jsonl",
    "identity_conversations.jsonl.gz",
    "chat/identity_conversations.jsonl",
    "chat/identity_conversations.jsonl.gz",
  ],
};

/** Gives the path that a fetch into `folder` writes. */
export function assetPath(folder: string, name: AssetName): string {
  return join(folder, PLACES[name][0]);
}

/** Finds a fetched or own copy below `folder`; where there is none, gives the path that a fetch writes, for the reader to refuse. */
export function findAsset(folder: string, name: AssetName): string {
  return PLACES[name].map((place) => join(folder, place)).find((path) => existsSync(path)) ?? assetPath(folder, name);
}
