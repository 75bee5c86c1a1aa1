/**
 * Checkpoints: the named tensors of a model and its optimizer on disk, with the state that a run goes on from.
 *
 * Step N is three kinds of files in one folder: `model_N.safetensors` (fp32 masters), `optim_N_rank<r>.safetensors` and, written last,
 * `meta_N.json`. A step without valid meta is no checkpoint, so a crash at any moment leaves the one before. The folder also holds a
 * copy of the tokenizer. Tensors move between device memory and files on the native side; this file handles names, sizes and order.
 */
import { join } from "@std/path";
import { format as formatBytes } from "@std/fmt/bytes";
import { TOKENIZER_FILE } from "../data/base_dir.ts";
import { FORMATS } from "../data/formats.ts";
import type { Log } from "../data/log.ts";
import type { NativeContext, Segment } from "../native/files.ts";
import { freeDiskBytes, writeFile } from "../native/files.ts";
import { listSteps, readIfPresent, removeFile, removeStep, removeUnfinished } from "./checkpoint_folder.ts";
import type { CheckpointMeta, CheckpointState, FileEntry } from "./meta.ts";
import { BLOCK_BYTES, CheckpointError, encodeMeta, fileNames, sha256Hex } from "./meta.ts";
import { encodeHeader } from "./safetensors.ts";
import type { TensorDtype } from "./safetensors.ts";

export * from "./checkpoint_folder.ts";
export * from "./mapped_checkpoint.ts";
export * from "./meta.ts";

/** A tensor in device memory under the name that files know it by. */
export interface NamedTensor {
  /** Unique among the tensors of a file. */
  readonly name: string;
  /** Element type. */
  readonly dtype: TensorDtype;
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** Address of the first element; the rest follows without gaps. */
  readonly pointer: Deno.PointerValue;
  /** Size in memory and on disk. */
  readonly bytes: number;
}

/** What saving needs from the machine; `nativeIo` is the one for use, tests give others. */
export interface CheckpointIo {
  /** Writes a file that is whole or absent after any crash; gives the SHA-256 of its blocks of `BLOCK_BYTES`. */
  write(path: string, content: { head: Uint8Array<ArrayBuffer>; segments: readonly Segment[] }): Promise<string[]>;
  /** Bytes that may still be written to the file system of a folder. */
  freeBytes(folder: string): number;
}

/** Writes checkpoints through the native library. */
export function nativeIo(context: NativeContext): CheckpointIo {
  return {
    write: (path, { head, segments }) => writeFile(context, { path, head, segments, blockBytes: BLOCK_BYTES }),
    freeBytes: (folder) => freeDiskBytes(context, folder),
  };
}

/** What to save and where. */
export interface SaveOptions extends NativeContext {
  /** Where to; created where it is missing. */
  readonly folder: string;
  /** Number of updates that the model has had. */
  readonly step: number;
  /** fp32 masters of the model. */
  readonly model: readonly NamedTensor[];
  /** This rank's optimizer state; empty = none is kept. */
  readonly optimizer: readonly NamedTensor[];
  /** What a resumed run goes on from. */
  readonly state: CheckpointState;
  /** Checkpoints that stay in the folder, this one included; 0 or less = all. */
  readonly keep: number;
  /** Folder of the tokenizer in use; null for a model without text. */
  readonly tokenizerFolder: string | null;
  /** Hears of a full disk. */
  readonly log: Log;
  /** Several ranks: rank 0 writes the model and meta, every rank its optimizer; `gather` collects their entries in rank order. */
  readonly ranks?: { rank: number; worldSize: number; gather(mine: FileEntry): Promise<FileEntry[]> };
  /** Replaces the native writer. */
  readonly io?: CheckpointIo;
  /** Pauses before the further attempts on a full disk, and how to pause. */
  readonly retryMs?: readonly number[];
  /** Replaces the pause before a further attempt. */
  readonly pause?: (ms: number) => Promise<void>;
}

const META_ROOM_BYTES = 4_194_304;
const RETRY_MS = [10_000, 60_000];

/** Gives the bytes that the next checkpoint takes on disk. */
export function checkpointBytes(
  model: readonly NamedTensor[],
  optimizer: readonly NamedTensor[],
  worldSize: number = 1,
): number {
  const size = (tensors: readonly NamedTensor[]) => tensors.reduce((sum, { bytes }) => sum + bytes, 0);
  return size(model) + worldSize * size(optimizer) + META_ROOM_BYTES;
}

/**
 * Checks that the next checkpoint will fit, to be called before the first step.
 *
 * @param options.reclaimed bytes of files that will have been removed by then; default 0
 * @throws {CheckpointError} "disk", with both sizes.
 */
export function checkSpace(
  options: Pick<SaveOptions, "folder" | "model" | "optimizer" | "ranks"> & { io: CheckpointIo; reclaimed?: number },
): void {
  const { folder, model, optimizer, ranks, io, reclaimed = 0 } = options;
  Deno.mkdirSync(folder, { recursive: true });
  const needed = checkpointBytes(model, optimizer, ranks?.worldSize);
  const free = io.freeBytes(folder) + reclaimed;
  if (free < needed) {
    throw new CheckpointError(
      "disk",
      `Cannot save to "${folder}": ${formatBytes(free)} are free there, expected ${formatBytes(needed)}`,
    );
  }
}

/**
 * Saves a checkpoint. Waits for the device's queue first; the tensors must not change until the promise is fulfilled.
 *
 * A full disk is reported and tried again after each pause; the last good checkpoint is never touched before the new one is complete.
 *
 * @throws {CheckpointError} "disk" after the last attempt, "tokenizer" where the folder holds another tokenizer.
 */
export async function saveCheckpoint(options: SaveOptions): Promise<CheckpointMeta | undefined> {
  const { nc, ctx, folder, step, log, retryMs = RETRY_MS, pause = sleep } = options;
  const io = options.io ?? nativeIo(options);
  await nc.wait(ctx);
  for (let attempt = 0;; attempt++) {
    try {
      return await saveOnce(options, io);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      removeUnfinished(folder, options.ranks ? step : undefined);
      const last = listSteps(folder).at(-1);
      const kept = last === undefined ? "no checkpoint exists yet" : `the checkpoint of step ${last} is kept`;
      if (attempt >= retryMs.length) {
        throw new CheckpointError(
          "disk",
          `Cannot save step ${step} to "${folder}": the disk is full after ${attempt + 1} attempts and ${kept}; ` +
            "free some space and go on with --resume",
          { cause: error },
        );
      }
      const wait = retryMs[attempt];
      const seconds = Math.round(wait / 1000);
      log.warn(`The disk is full (${(error as Error).message}); ${kept}; trying again in ${seconds} s`);
      await pause(wait);
    }
  }
}

async function saveOnce(options: SaveOptions, io: CheckpointIo): Promise<CheckpointMeta | undefined> {
  const { folder, step, model, optimizer, state, keep, tokenizerFolder, ranks } = options;
  const rank = ranks?.rank ?? 0;
  Deno.mkdirSync(folder, { recursive: true });
  const names = fileNames(step);
  if (rank === 0) {
    removeUnfinished(folder, step);
    checkSpace({ folder, model, optimizer, ranks, io });
    removeFile(join(folder, names.meta)); // a step that is written again is no checkpoint meanwhile
  }
  const write = async (name: string, tensors: readonly NamedTensor[]): Promise<FileEntry> => {
    const head = encodeHeader(tensors, { format: FORMATS.tensors.format, version: String(FORMATS.tensors.version) });
    const sha256 = await io.write(join(folder, name), { head, segments: tensors });
    return { name, bytes: tensors.reduce((sum, { bytes }) => sum + bytes, head.length), sha256 };
  };
  const files: FileEntry[] = [];
  if (rank === 0) files.push(await write(names.model, model));
  if (optimizer.length > 0) {
    const mine = await write(names.optimizer(rank), optimizer);
    files.push(...(ranks ? await ranks.gather(mine) : [mine]));
  }
  if (rank !== 0) return undefined;
  const meta: CheckpointMeta = {
    ...state,
    step,
    savedAt: new Date().toISOString(),
    worldSize: ranks?.worldSize ?? 1,
    blockBytes: BLOCK_BYTES,
    tokenizer: tokenizerFolder === null ? null : await keepTokenizer(io, { folder, tokenizerFolder }),
    files,
  };
  await io.write(join(folder, names.meta), { head: encodeMeta(meta), segments: [] });
  rotate(folder, { step, keep });
  return meta;
}

/** Writes the meta of a saved step again, with figures that were measured after the step was saved; its other files stay. */
export async function amendMeta(
  io: CheckpointIo,
  { folder, meta }: { folder: string; meta: CheckpointMeta },
): Promise<void> {
  await io.write(join(folder, fileNames(meta.step).meta), { head: encodeMeta(meta), segments: [] });
}

/** Copies the tokenizer into the checkpoint folder; while checkpoints there use the copy, checks that it is the same. */
async function keepTokenizer(
  io: CheckpointIo,
  { folder, tokenizerFolder }: { folder: string; tokenizerFolder: string },
): Promise<{ name: string; sha256: string }> {
  const bytes = readIfPresent(join(tokenizerFolder, TOKENIZER_FILE));
  if (bytes === undefined) {
    throw new CheckpointError(
      "tokenizer",
      `Cannot save to "${folder}": no ${TOKENIZER_FILE} in "${tokenizerFolder}"; run "nanochat tokenizer train"`,
    );
  }
  const sha256 = sha256Hex(bytes);
  const copy = readIfPresent(join(folder, TOKENIZER_FILE));
  if (copy === undefined || (sha256Hex(copy) !== sha256 && listSteps(folder).length === 0)) {
    await io.write(join(folder, TOKENIZER_FILE), { head: bytes, segments: [] });
  } else if (sha256Hex(copy) !== sha256) {
    throw new CheckpointError(
      "tokenizer",
      `Cannot save to "${folder}": its tokenizer has SHA-256 ${sha256Hex(copy)}, expected ${sha256} of ` +
        `"${tokenizerFolder}"; choose another --model-tag=NAME`,
    );
  }
  return { name: TOKENIZER_FILE, sha256 };
}

/**
 * Keeps the newest `keep` checkpoints. The one just saved is the newest: larger steps come from a run that this one left by resuming
 * from before them, so they go first.
 */
function rotate(folder: string, { step, keep }: { step: number; keep: number }): void {
  if (keep <= 0) return;
  const steps = listSteps(folder);
  const newestFirst = [...steps.filter((s) => s <= step).reverse(), ...steps.filter((s) => s > step)];
  for (const old of newestFirst.slice(keep)) removeStep(folder, old);
}

function isDiskFull(error: unknown): boolean {
  if (error instanceof CheckpointError) return error.problem === "disk";
  // The system's own words: ENOSPC and EDQUOT.
  return error instanceof Error && /os error (?:28|122)\b|No space left|quota exceeded/i.test(error.message);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
