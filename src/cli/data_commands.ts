/** `nanochat data`: shards of one's own text, of the reference's data set, and what a folder of shards holds. */
import { resolve } from "@std/path";
import { format as formatBytes } from "@std/fmt/bytes";
import { type AssetName, ASSETS } from "../data/assets.ts";
import { chooseData, foldersOf, resolveBaseDir } from "../data/base_dir.ts";
import { downloadShards } from "../data/download.ts";
import { fetchAssets } from "../data/fetch_assets.ts";
import { makeShards } from "../data/make.ts";
import { shardStats } from "../data/stats.ts";
import { UsageError } from "./flags.ts";
import { nearest } from "./parse.ts";
import type { Terminal } from "./progress.ts";
import { EXIT } from "./signals.ts";

/** Where shards are written: `--data-dir`, else the base folder's `data/`. */
function target({ baseDir, dataDir }: { baseDir?: string; dataDir?: string }): string {
  return dataDir ? resolve(dataDir) : foldersOf(resolveBaseDir(baseDir)).data;
}

/** Makes shards of files and folders. */
export async function makeData(
  inputs: readonly string[],
  values: {
    baseDir?: string;
    dataDir?: string;
    key: string;
    seed: number;
    shardChars: number;
    terminal: Terminal;
  },
): Promise<void> {
  const { key, seed, shardChars, terminal } = values;
  const shards = await makeShards({ inputs, out: target(values), key, seed, shardChars, log: terminal });
  for (const { path, documents, characters } of shards) {
    terminal.result(`${path}  documents: ${documents}, characters: ${characters}`, { path, documents, characters });
  }
}

/** Gives what a transfer brings; undefined where the user stopped the recipe that it is a stage of: what came is kept. */
async function unlessStopped<T>(stop: AbortSignal, transfer: Promise<T>): Promise<T | undefined> {
  try {
    return await transfer;
  } catch (error) {
    if (stop.aborted) return undefined;
    throw error;
  }
}

/** Downloads the reference's shards. */
export async function downloadData(
  values: {
    baseDir?: string;
    dataDir?: string;
    numFiles: number;
    numWorkers: number;
    baseUrl?: string;
    offline: boolean;
    terminal: Terminal;
    stop: AbortSignal;
  },
): Promise<number> {
  const { numFiles, numWorkers, baseUrl, offline, terminal, stop } = values;
  const out = target(values);
  const options = { out, numFiles, numWorkers, baseUrl, offline, log: terminal, signal: stop };
  const paths = await unlessStopped(stop, downloadShards(options));
  if (!paths) return EXIT.STOPPED;
  terminal.result(`${paths.length} shards in ${out}`, { shards: paths.length, folder: out });
  return EXIT.DONE;
}

/** Fetches one asset of the later stages, or all. */
export async function fetchData(
  name: string,
  { baseDir, dataDir, baseUrl, offline, terminal, stop }: {
    baseDir?: string;
    dataDir?: string;
    baseUrl?: string;
    offline: boolean;
    terminal: Terminal;
    stop: AbortSignal;
  },
): Promise<number> {
  const known = [...ASSETS, "all"];
  if (!known.includes(name)) {
    throw new UsageError(
      `Cannot fetch ${JSON.stringify(name)}: expected one of ${known.join(", ")}${nearest(name, known)}`,
    );
  }
  const folder = dataDir ? resolve(dataDir) : resolveBaseDir(baseDir);
  const options = { folder, baseUrl, offline, log: terminal, signal: stop };
  const assets = await unlessStopped(stop, fetchAssets(name as AssetName | "all", options));
  if (!assets) return EXIT.STOPPED;
  for (const asset of assets) {
    const state = asset.fetched ? "fetched" : "there already";
    terminal.result(`${asset.name.padEnd(12)} ${asset.path}  ${state}`, asset);
  }
  return EXIT.DONE;
}

const BYTES = new Set(["text_bytes", "file_bytes"]);

/** Counts what the shards of a folder hold; the last row is the sum. */
export async function showStats(
  folder: string | undefined,
  { baseDir, terminal }: { baseDir?: string; terminal: Terminal },
): Promise<void> {
  const chosen = chooseData(resolveBaseDir(baseDir), folder);
  terminal.info(`Shards in "${chosen.folder}" (${chosen.why})`);
  const table = await shardStats(chosen.folder, { log: terminal });
  const rows = table.toArray().map((row) => row.toJSON() as Record<string, string | number>);
  if (terminal.json) {
    for (const row of rows) terminal.result("", row);
    return;
  }
  const total: Record<string, string | number> = { shard: "total", split: "" };
  for (const name of ["row_groups", "documents", "characters", "text_bytes", "file_bytes"]) {
    total[name] = rows.reduce((sum, row) => sum + Number(row[name]), 0);
  }
  const names = table.schema.fields.map(({ name }) => name);
  const cell = (row: Record<string, string | number>, name: string) =>
    row[name] === undefined ? "" : BYTES.has(name) ? formatBytes(Number(row[name])) : String(row[name]);
  const grid = [names, ...[...rows, total].map((row) => names.map((name) => cell(row, name)))];
  const widths = names.map((_, i) => Math.max(...grid.map((line) => line[i].length)));
  for (const line of grid) {
    const shown = line.map((text, i) => i === 0 ? text.padEnd(widths[i]) : text.padStart(widths[i]));
    terminal.result(shown.join("  ").trimEnd());
  }
}
