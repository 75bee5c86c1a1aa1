/**
 * Fetches the data of the later stages into the base folder: task sets (the hub's Parquet export), CORE's bundle, the word list, the
 * reference's identity conversations. What is there is kept; of several processes one fetches and the others wait for it.
 */
import { existsSync } from "node:fs";
import { basename, dirname, join } from "@std/path";
import { format as formatBytes } from "@std/fmt/bytes";
import { type AssetName, assetPath, ASSETS } from "./assets.ts";
import { checkDiskSpace } from "./disk_space.ts";
import { fetchFile, type FetchOptions, fetchSize, keptBytes } from "./fetch_file.ts";
import type { Log } from "./log.ts";
import { SILENT } from "./log.ts";
import { ParquetFile } from "./parquet.ts";
import { readManifest, type TaskSet, taskSetFolder, writeManifest } from "./task_data.ts";
import { WaitLock } from "./wait_lock.ts";
import { extractZip, listZip } from "./zip.ts";

/** Options of `fetchAssets`. */
export interface FetchAssetsOptions extends Pick<FetchOptions, "attempts" | "timeoutMs" | "backoffMs" | "signal"> {
  /** Folder to fetch into: the base folder. */
  readonly folder: string;
  /** A server that plays all the others: `/api/datasets/...`, `/eval_bundle.zip`, `/words_alpha.txt`, `/identity_conversations.jsonl`. */
  readonly baseUrl?: string;
  /** Does not touch the network: fails where something is missing. */
  readonly offline?: boolean;
  /** Environment with `HF_ENDPOINT` and `HF_TOKEN`; default: the process's. */
  readonly env?: { get(name: string): string | undefined };
  readonly log?: Log;
}

/** What was asked for, and whether it had to be fetched. */
export interface FetchedAsset {
  /** Its name. */
  readonly name: AssetName;
  /** Where it lies. */
  readonly path: string;
  /** False where it was there already. */
  readonly fetched: boolean;
}

const splits = (repo: string, subset: string, names: readonly string[]): TaskSet[] =>
  names.map((split) => ({ repo, subset, split }));

/** Splits that the tasks of the recipes read. */
export const TASK_SETS: readonly TaskSet[] = [
  ...splits("allenai/ai2_arc", "ARC-Easy", ["train", "test"]),
  ...splits("allenai/ai2_arc", "ARC-Challenge", ["train", "test"]),
  ...splits("cais/mmlu", "all", ["test"]),
  ...splits("cais/mmlu", "auxiliary_train", ["train"]),
  ...splits("openai/gsm8k", "main", ["train", "test"]),
  ...splits("openai/openai_humaneval", "openai_humaneval", ["test"]),
  ...splits("HuggingFaceTB/smol-smoltalk", "default", ["train", "test"]),
];

const HUB = "https://huggingface.co";
const REFERENCE_FILES = "https://karpathy-public.s3.us-west-2.amazonaws.com";
const WORDS = "https://raw.githubusercontent.com/dwyl/english-words/refs/heads/master";

/**
 * Fetches what is missing of one asset, or of all.
 *
 * Of all, one that fails does not stop the others.
 *
 * @throws {Error} for what could not be had (a later call goes on where this one stopped), or `offline` with something missing.
 */
export async function fetchAssets(name: AssetName | "all", given: FetchAssetsOptions): Promise<FetchedAsset[]> {
  const options = { ...given, baseUrl: given.baseUrl?.replace(/\/+$/, "") };
  if (name !== "all") return [await fetchAsset(name, options)];
  const { log = SILENT } = options;
  const done: FetchedAsset[] = [];
  const failed: { asset: string; message: string }[] = [];
  for (const asset of ASSETS) {
    try {
      done.push(await fetchAsset(asset, options));
    } catch (error) {
      options.signal?.throwIfAborted();
      const { message } = error as Error;
      log.warn(message);
      failed.push({ asset, message });
    }
  }
  if (failed.length > 0) {
    const names = failed.map(({ asset }) => asset).join(", ");
    throw new Error(
      `Cannot fetch ${failed.length} of ${ASSETS.length} (${names}): ${
        failed[0].message
      }; run "nanochat data fetch all" ` +
        "again to go on",
    );
  }
  return done;
}

async function fetchAsset(name: AssetName, options: FetchAssetsOptions): Promise<FetchedAsset> {
  const { folder, offline = false, log = SILENT } = options;
  const path = assetPath(folder, name);
  if (MISSING[name](path).length === 0) return { name, path, fetched: false };
  if (offline) {
    const missing = MISSING[name](path);
    const more = missing.length > 1 ? ` and ${missing.length - 1} more` : "";
    throw new Error(`Cannot fetch ${name}: --offline is set, expected "${missing[0]}"${more} to be there`);
  }
  using _lock = await WaitLock.acquire(join(folder, `fetch_${name}.lock`), { what: `fetch ${name}`, log });
  // Another process may have fetched it while this one waited.
  if (MISSING[name](path).length === 0) return { name, path, fetched: false };
  log.info(`Fetching ${name} to "${path}"`);
  await FETCH[name](path, options);
  return { name, path, fetched: true };
}

/** What is not there yet; each list is empty once a fetch has ended. */
const MISSING: Readonly<Record<AssetName, (path: string) => string[]>> = {
  tasks: (path) => TASK_SETS.map((set) => join(path, taskSetFolder(set))).filter((folder) => !isWholeSet(folder)),
  "eval-bundle": (path) => [join(path, "core.yaml")].filter((file) => !existsSync(file)),
  words: (path) => [path].filter((file) => !existsSync(file)),
  identity: (path) => [path].filter((file) => !existsSync(file)),
};

const FETCH: Readonly<Record<AssetName, (path: string, options: FetchAssetsOptions) => Promise<void>>> = {
  tasks: fetchTasks,
  "eval-bundle": fetchBundle,
  words: (path, options) =>
    fetchOne(`${options.baseUrl ?? WORDS}/words_alpha.txt`, path, { options, check: checkWords }),
  identity: (path, options) => {
    const url = `${options.baseUrl ?? REFERENCE_FILES}/identity_conversations.jsonl`;
    return fetchOne(url, path, { options, check: checkJsonLines });
  },
};

/** A file of a task set. */
interface TaskFile {
  readonly url: string;
  readonly path: string;
  readonly token: string | undefined;
}

/** Asks for the files of all task sets and their sizes first, so that the room on disk is known before the first one comes. */
async function fetchTasks(path: string, options: FetchAssetsOptions): Promise<void> {
  const { log = SILENT } = options;
  const sets: { name: string; files: TaskFile[]; missing: TaskFile[] }[] = [];
  for (const [i, set] of TASK_SETS.entries()) {
    log.progress({ label: "Listing task sets", done: i, total: TASK_SETS.length });
    const name = taskSetFolder(set);
    if (isWholeSet(join(path, name))) continue;
    const files = await listTaskFiles(set, { folder: join(path, name), options });
    sets.push({ name, files, missing: files.filter((file) => !isParquet(file.path)) });
  }
  log.progress({ label: "Listing task sets", done: TASK_SETS.length, total: TASK_SETS.length });
  const transfers = new Transfers("Fetching task sets", options);
  for (const { missing } of sets) for (const file of missing) await transfers.plan(file);
  checkDiskSpace(path, transfers.neededBytes, { doing: "fetch tasks" });
  const check = (temporary: string) => ParquetFile.open(temporary)[Symbol.dispose]();
  for (const { name, files, missing } of sets) {
    for (const file of missing) await transfers.fetch(file, { check, detail: name });
    // The manifest comes last, so that a set without one is unfinished.
    writeManifest(join(path, name), files.map((file) => basename(file.path)));
  }
}

/** Asks the hub for the files of a task set. */
async function listTaskFiles(
  { repo, subset, split }: TaskSet,
  { folder, options }: { folder: string; options: FetchAssetsOptions },
): Promise<TaskFile[]> {
  const { env = Deno.env } = options;
  const hub = (options.baseUrl ?? (env.get("HF_ENDPOINT") || HUB)).replace(/\/+$/, "");
  const token = env.get("HF_TOKEN");
  Deno.mkdirSync(folder, { recursive: true });
  const list = join(folder, "urls.json");
  await fetchFile(`${hub}/api/datasets/${repo}/parquet/${subset}/${split}`, list, {
    ...options,
    token,
    check: (path) => void readUrls(path),
  });
  const urls = readUrls(list);
  Deno.removeSync(list);
  return urls.map((url, i) => ({
    url,
    path: join(folder, `${String(i).padStart(5, "0")}.parquet`),
    // The hub chooses where its files lie; only itself is told the secret.
    token: new URL(url).origin === new URL(hub).origin ? token : undefined,
  }));
}

/** Files that are fetched one after the other, with their bytes as one progress. */
class Transfers {
  readonly #label: string;
  readonly #options: FetchAssetsOptions;
  readonly #sizes = new Map<string, number>();
  #kept = 0;
  #done = 0;

  constructor(label: string, options: FetchAssetsOptions) {
    this.#label = label;
    this.#options = options;
  }

  /** Bytes that all planned files will still take, as far as their servers tell. */
  get neededBytes(): number {
    return Math.max(0, this.#total - this.#kept);
  }

  get #total(): number {
    return this.#sizes.values().reduce((sum, size) => sum + size, 0);
  }

  /** Asks for the size of a file that `fetch` is to bring. */
  async plan({ url, path, token }: TaskFile): Promise<void> {
    this.#sizes.set(path, await fetchSize(url, { ...this.#options, token }) ?? 0);
    this.#kept += keptBytes(path);
  }

  /** Fetches one of them. */
  async fetch(
    { url, path, token }: TaskFile,
    { check, detail }: { check: (path: string) => void; detail?: string },
  ): Promise<void> {
    const { log = SILENT } = this.#options;
    await fetchFile(url, path, {
      ...this.#options,
      token,
      check,
      onSize: (size) => void this.#sizes.set(path, size),
      onBytes: (bytes) => {
        this.#done += bytes;
        const total = this.#total;
        const share = `${formatBytes(this.#done)} of ${total > 0 ? formatBytes(total) : "?"}`;
        log.progress({ label: this.#label, done: this.#done, total, detail: detail ? `${share}, ${detail}` : share });
      },
    });
  }
}

/** Fetches and unpacks the bundle; the folder takes its name when it is whole. */
async function fetchBundle(path: string, options: FetchAssetsOptions): Promise<void> {
  if (existsSync(path)) {
    throw new Error(
      `Cannot fetch eval-bundle: "${path}" is there without core.yaml, expected no such folder; remove it`,
    );
  }
  const [zip, unpacked] = [`${path}.zip`, `${path}.tmp`];
  const url = `${options.baseUrl ?? REFERENCE_FILES}/eval_bundle.zip`;
  await fetchOne(url, zip, { options, check: (temporary) => void listZip(temporary) });
  remove(unpacked);
  try {
    const bytes = listZip(zip).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    checkDiskSpace(dirname(path), bytes, { doing: "unpack eval_bundle.zip" });
    await extractZip(zip, unpacked);
    const inner = join(unpacked, "eval_bundle");
    const root = existsSync(inner) ? inner : unpacked;
    if (!existsSync(join(root, "core.yaml"))) {
      throw new Error(`Cannot fetch eval-bundle: "${url}" holds no core.yaml, expected the bundle of the CORE metric`);
    }
    Deno.renameSync(root, path);
  } finally {
    remove(unpacked);
    remove(zip);
  }
}

async function fetchOne(
  url: string,
  path: string,
  { options, check }: { options: FetchAssetsOptions; check: (path: string) => void },
): Promise<void> {
  const name = url.slice(url.lastIndexOf("/") + 1);
  const transfers = new Transfers(`Fetching ${name}`, options);
  const file = { url, path, token: undefined };
  await transfers.plan(file);
  checkDiskSpace(dirname(path), transfers.neededBytes, { doing: `fetch ${name}` });
  await transfers.fetch(file, { check });
}

function readUrls(path: string): string[] {
  const urls: unknown = JSON.parse(Deno.readTextFileSync(path));
  const isUrl = (url: unknown) => typeof url === "string" && /^https?:\/\//.test(url) && URL.canParse(url);
  if (!Array.isArray(urls) || urls.length === 0 || !urls.every(isUrl)) {
    throw new Error("it is no list of web addresses, expected the files of the Parquet export");
  }
  return urls;
}

function isWholeSet(folder: string): boolean {
  if (!existsSync(join(folder, "manifest.json"))) return false;
  return readManifest(folder).every((name) => existsSync(join(folder, name)));
}

function isParquet(path: string): boolean {
  if (!existsSync(path)) return false;
  try {
    ParquetFile.open(path)[Symbol.dispose]();
    return true;
  } catch {
    return false; // fetched again
  }
}

function checkWords(path: string): void {
  const wrong = Deno.readTextFileSync(path).split("\n").findIndex((word, i, all) =>
    !/^[a-z]+\r?$/i.test(word) && !(word === "" && i === all.length - 1 && i > 0)
  );
  if (wrong >= 0) throw new Error(`line ${wrong + 1} is no word, expected letters only`);
}

function checkJsonLines(path: string): void {
  for (const [i, line] of Deno.readTextFileSync(path).trim().split("\n").entries()) {
    try {
      if (Array.isArray(JSON.parse(line))) continue;
    } catch {
      // said below
    }
    throw new Error(`line ${i + 1} is no JSON array, expected one conversation a line`);
  }
}

function remove(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
