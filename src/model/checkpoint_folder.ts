/**
 * What lies in a checkpoint folder: which steps, whether their files are whole, and how they are removed.
 *
 * Steps are compared as numbers. Nothing here reads tensors.
 */
import { join } from "@std/path";
import { entries, TOKENIZER_FILE } from "../data/base_dir.ts";
import type { Log } from "../data/log.ts";
import { SILENT } from "../data/log.ts";
import type { CheckpointMeta } from "./meta.ts";
import { CheckpointError, fileNames, parseMeta, sha256Hex } from "./meta.ts";

/**
 * Checks that a tokenizer is the one that a checkpoint was made with; without `tokenizerFolder`, the copy beside the checkpoint.
 *
 * @throws {CheckpointError} "tokenizer", naming both.
 */
export function checkTokenizer(found: FoundCheckpoint, tokenizerFolder: string = found.folder): void {
  if (found.meta.tokenizer === null) return;
  const path = join(tokenizerFolder, TOKENIZER_FILE);
  const bytes = readIfPresent(path);
  const { sha256 } = found.meta.tokenizer;
  const is = bytes === undefined ? "is missing" : `has SHA-256 ${sha256Hex(bytes)}`;
  if (bytes === undefined || sha256Hex(bytes) !== sha256) {
    throw new CheckpointError(
      "tokenizer",
      `Cannot use "${path}" with step ${found.step} of "${found.folder}": it ${is}, expected SHA-256 ${sha256}`,
    );
  }
}

/** A checkpoint whose meta is valid and whose files have the right sizes. */
export interface FoundCheckpoint {
  /** Where it lies. */
  readonly folder: string;
  /** Number of updates that its model has had. */
  readonly step: number;
  /** Its meta file. */
  readonly meta: CheckpointMeta;
}

/** Lists the steps that have a meta file, ascending as numbers; whether they are whole is for `findCheckpoint` to say. */
export function listSteps(folder: string): number[] {
  return entries(folder)
    .map(({ name }) => /^meta_(\d{6,15})\.json$/.exec(name))
    .filter((found) => found !== null && fileNames(Number(found[1])).meta === found[0])
    .map((found) => Number(found![1]))
    .sort((a, b) => a - b);
}

/**
 * Reads the meta file of a step and checks that its files are there with the right sizes.
 *
 * @param options.modelOnly optimizer files may be absent: generating and evaluating do without them
 * @throws {CheckpointError} "missing", "damaged" or "version".
 */
export function readMeta(
  { folder, step }: { folder: string; step: number },
  options: { modelOnly?: boolean } = {},
): CheckpointMeta {
  const path = join(folder, fileNames(step).meta);
  const bytes = readIfPresent(path);
  if (bytes === undefined) {
    const steps = listSteps(folder);
    const there = steps.length === 0 ? "it holds no checkpoint" : `it holds ${describeSteps(steps)}`;
    throw new CheckpointError("missing", `Cannot find step ${step} in "${folder}": ${there}`);
  }
  const meta = parseMeta(bytes, `"${path}"`);
  if (meta.step !== step) {
    throw new CheckpointError("damaged", `Cannot read "${path}": it is about step ${meta.step}, expected ${step}`);
  }
  const needed = options.modelOnly ? meta.files.slice(0, 1) : meta.files;
  for (const file of needed) {
    const size = fileSize(join(folder, file.name));
    if (size !== file.bytes) {
      const is = size === undefined ? "is missing" : `has ${size} bytes`;
      throw new CheckpointError(
        "damaged",
        `Cannot use step ${step} of "${folder}": ${file.name} ${is}, expected ${file.bytes} bytes`,
      );
    }
  }
  return meta;
}

/**
 * Finds a checkpoint: the given step, else the largest valid one (damaged ones are passed over aloud); undefined where there is none.
 *
 * @param options.step number of updates that its model has had
 * @param options.log hears of the damaged ones; default: silent
 * @throws {CheckpointError} where the given step is missing or damaged, or a checkpoint has a format that is not known.
 */
export function findCheckpoint(
  folder: string,
  options: { step?: number; modelOnly?: boolean; log?: Log } = {},
): FoundCheckpoint | undefined {
  const { step, modelOnly, log = SILENT } = options;
  if (step !== undefined) return { folder, step, meta: readMeta({ folder, step }, { modelOnly }) };
  for (const candidate of listSteps(folder).reverse()) {
    try {
      return { folder, step: candidate, meta: readMeta({ folder, step: candidate }, { modelOnly }) };
    } catch (error) {
      if (!(error instanceof CheckpointError) || error.problem === "version") throw error;
      log.warn(`${error.message}; looking for an earlier checkpoint`);
    }
  }
  return undefined;
}

/** Says which steps there are: "steps 10, 20 and 30". */
export function describeSteps(steps: readonly number[]): string {
  if (steps.length === 1) return `step ${steps[0]}`;
  if (steps.length > 6) return `${steps.length} steps from ${steps[0]} to ${steps.at(-1)}`;
  return `steps ${steps.slice(0, -1).join(", ")} and ${steps.at(-1)}`;
}

/** Lists the paths of a step's files that may exist, meta first. */
function stepFiles(folder: string, step: number): string[] {
  const names = fileNames(step);
  const optimizer = new RegExp(`^${names.optimizer(0).replace(/0\.safetensors$/, "\\d+\\.safetensors")}$`);
  const optimizers = entries(folder).map(({ name }) => name).filter((name) => optimizer.test(name));
  return [names.meta, names.model, ...optimizers].map((name) => join(folder, name));
}

/** Gives the bytes that `removeStep` would free. */
export function stepBytes(folder: string, step: number): number {
  return stepFiles(folder, step).reduce((sum, path) => sum + (fileSize(path) ?? 0), 0);
}

/** Removes the files of a step, meta first, so that a crash in between leaves no broken checkpoint. Returns the bytes freed. */
export function removeStep(folder: string, step: number): number {
  return stepFiles(folder, step).reduce((sum, path) => sum + removeFile(path), 0);
}

/** Removes every checkpoint of a folder, for `--overwrite`. The tokenizer stays: the new run may use it, else its first save replaces it. */
export function clearCheckpoints(folder: string): void {
  for (const step of listSteps(folder)) removeStep(folder, step);
  removeUnfinished(folder);
}

/** Removes temporary files and files of steps without meta: leftovers of a crash. Files of `current` stay: other ranks may be writing. */
export function removeUnfinished(folder: string, current?: number): void {
  const steps = new Set([...listSteps(folder), current]);
  for (const { name, isFile } of entries(folder)) {
    if (!isFile) continue;
    const step = /^(?:model|optim|meta)_(\d{6,15})(?!\d)/.exec(name)?.[1];
    const isTemporary = name.includes(".tmp") && (step !== undefined || name.startsWith(TOKENIZER_FILE));
    const isOrphan = step !== undefined && !steps.has(Number(step));
    if ((isTemporary && Number(step) !== current) || isOrphan) removeFile(join(folder, name));
  }
}

/** Removes a file; gives the bytes freed, 0 where there was none. */
export function removeFile(path: string): number {
  const size = fileSize(path);
  if (size === undefined) return 0;
  Deno.removeSync(path);
  return size;
}

function fileSize(path: string): number | undefined {
  try {
    return Deno.statSync(path).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Reads a file; undefined where there is none. */
export function readIfPresent(path: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
