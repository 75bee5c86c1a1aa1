/** Downloads the shards of the reference (nanochat/dataset.py): fineweb-edu, shuffled, 1,823 files of about 100 MB. */
import { basename, join } from "@std/path";
import { pooledMap } from "@std/async";
import { format as formatBytes } from "@std/fmt/bytes";
import { entries } from "./base_dir.ts";
import { openShard } from "./dataset.ts";
import { checkDiskSpace } from "./disk_space.ts";
import { fileList } from "./documents.ts";
import type { FetchOptions } from "./fetch_file.ts";
import { fetchFile, fetchSize, keptBytes } from "./fetch_file.ts";
import type { Log } from "./log.ts";
import { SILENT } from "./log.ts";
import { OWN_CREATOR, ParquetFile } from "./parquet.ts";

/** Shards of the reference's data set. */
export const SHARDS = 1823;

const REPOSITORY = "datasets/karpathy/fineweb-edu-100b-shuffle/resolve/main";
const HUB = "https://huggingface.co";
/** Size of a shard where the server does not say. */
const SHARD_BYTES = 100e6;

/** Options of `downloadShards`. */
export interface DownloadOptions extends Pick<FetchOptions, "attempts" | "timeoutMs" | "backoffMs" | "signal"> {
  /** Folder of the shards; created where missing. */
  readonly out: string;
  /** Number of shards, from the first one; -1 = all. Default -1. */
  readonly numFiles?: number;
  /** Downloads at a time; default 4. */
  readonly numWorkers?: number;
  /** Where `shard_00000.parquet` and so on lie; default: the reference's repository at `HF_ENDPOINT`, else at the Hugging Face hub. */
  readonly baseUrl?: string;
  /** Does not touch the network: fails where a shard is missing. */
  readonly offline?: boolean;
  /** Environment with `HF_ENDPOINT` and `HF_TOKEN`; default: the process's. */
  readonly env?: { get(name: string): string | undefined };
  readonly log?: Log;
}

/** Name of shard number `index`. */
export function shardName(index: number): string {
  return `shard_${String(index).padStart(5, "0")}.parquet`;
}

/**
 * Downloads the shards that are missing, several at a time, and returns the paths of all that were asked for.
 *
 * A file that fails does not stop the others; what is already there is checked and kept.
 *
 * @throws {Error} for shards that could not be had (a later call goes on where this one stopped), too little free space, `offline` with
 *   shards missing, or a folder with shards of one's own.
 */
export async function downloadShards(options: DownloadOptions): Promise<string[]> {
  const { out, numFiles = -1, numWorkers = 4, offline = false, env = Deno.env, log = SILENT } = options;
  if (!Number.isInteger(numFiles) || numFiles === 0 || numFiles < -1) {
    throw new RangeError(`Cannot download ${numFiles} shards, expected a number from 1 to ${SHARDS}, or -1 for all`);
  }
  const count = numFiles === -1 ? SHARDS : Math.min(numFiles, SHARDS);
  const paths = Array.from({ length: count }, (_, i) => join(out, shardName(i)));
  const endpoint = env.get("HF_ENDPOINT"); // an empty one counts as none
  const mirror = options.baseUrl ?? (endpoint ? `${endpoint}/${REPOSITORY}` : undefined);
  const url = (path: string) => `${(mirror ?? `${HUB}/${REPOSITORY}`).replace(/\/+$/, "")}/${basename(path)}`;
  const token = env.get("HF_TOKEN");
  await refuseOwn(out, {
    size: mirror && !offline ? (path) => fetchSize(url(path), { ...options, token }) : undefined,
    mirror,
  });
  const missing = paths.filter((path) => !isWhole(path, { offline, log }));
  if (missing.length === 0) {
    log.info(`All ${count} shards are in "${out}" already`);
    return paths;
  }
  if (offline) {
    throw new Error(
      `Cannot download ${missing.length} of ${count} shards: --offline is set, expected them in "${out}" (${
        fileList(missing)
      })`,
    );
  }
  const shardBytes = await fetchSize(url(missing[0]), { ...options, token }) ?? SHARD_BYTES;
  const kept = missing.reduce((sum, path) => sum + keptBytes(path), 0);
  checkDiskSpace(out, Math.max(0, missing.length * shardBytes - kept), { doing: `download ${missing.length} shards` });

  const sizes = new Map(missing.map((path) => [path, shardBytes]));
  let [done, files] = [0, 0];
  const show = () => {
    const total = Array.from(sizes.values()).reduce((a, b) => a + b, 0);
    const atMost = files < sizes.size ? total - 1 : total; // the last bytes are there before the last check is made
    const detail = `${files} of ${missing.length} shards, ${formatBytes(done)} of ${formatBytes(total)}`;
    log.progress({ label: "Downloading shards", done: Math.min(done, atMost), total, detail });
  };
  const failed: { path: string; message: string }[] = [];
  const download = async (path: string): Promise<void> => {
    try {
      await fetchFile(url(path), path, {
        ...options,
        token,
        check: (temporary) => openShard(temporary)[Symbol.dispose](),
        onSize: (size) => void sizes.set(path, size),
        onBytes: (bytes) => {
          done += bytes;
          show();
        },
      });
      files++;
    } catch (error) {
      options.signal?.throwIfAborted();
      sizes.delete(path);
      failed.push({ path, message: (error as Error).message });
      log.warn((error as Error).message);
    }
  };
  log.info(`Downloading ${missing.length} of ${count} shards to "${out}" with ${numWorkers} workers`);
  for await (const _ of pooledMap(Math.max(1, numWorkers), missing, download));
  show();
  if (failed.length > 0) {
    throw new Error(
      `Cannot download ${failed.length} of ${count} shards (${fileList(failed.map(({ path }) => path))}): ${
        failed[0].message
      }; run "nanochat data download" again to go on`,
    );
  }
  return paths;
}

/**
 * Refuses a folder with shards that this program wrote: `data make` gives them the same names. A mirror may hold such shards; then they
 * are told apart by their size.
 */
async function refuseOwn(
  out: string,
  { mirror, size }: { mirror?: string; size?: (path: string) => Promise<number | undefined> },
): Promise<void> {
  const own: string[] = [];
  for (const { name } of entries(out).filter(({ name }) => /^shard_\d+\.parquet$/.test(name))) {
    const path = join(out, name);
    if (!isOwn(path)) continue;
    const there = await size?.(path);
    if (mirror === undefined || (there !== undefined && there !== Deno.statSync(path).size)) own.push(path);
  }
  if (own.length === 0) return;
  throw new Error(
    `Cannot download shards to "${out}": ${own.length} there were made by nanochat itself (${
      fileList(own)
    }), expected only ` +
      "downloaded ones; choose another folder with --data-dir=FOLDER, or move them away",
  );
}

function isOwn(path: string): boolean {
  try {
    using file = ParquetFile.open(path);
    return file.createdBy === OWN_CREATOR;
  } catch {
    return false; // damaged: for isWhole to say
  }
}

/** Tells whether a shard is there and readable; a damaged one is put out of the way. */
function isWhole(path: string, { offline, log }: { offline: boolean; log: Log }): boolean {
  try {
    if (!Deno.statSync(path).isFile) return false;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
  try {
    openShard(path)[Symbol.dispose]();
    return true;
  } catch (error) {
    if (offline) throw error;
    log.warn(`Downloading "${basename(path)}" again: ${(error as Error).message}`);
    Deno.removeSync(path);
    return false;
  }
}
