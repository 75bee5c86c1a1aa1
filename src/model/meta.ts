/**
 * The meta file of a checkpoint, `meta_N.json`: what the other files of step N must be, and the state that a resumed run goes on from.
 *
 * The file's first three entries are its format, its version and the SHA-256 of every byte after them. So a torn or altered file is
 * recognised before its JSON is read, and a version that this program does not know is named, never guessed.
 */
import { createHash } from "node:crypto";
import type { Stage } from "../data/base_dir.ts";
import { STAGES } from "../data/base_dir.ts";
import { FORMATS } from "../data/formats.ts";
import { CheckpointError } from "./checkpoint_error.ts";
export { CheckpointError, type CheckpointProblem } from "./checkpoint_error.ts";

/** Checkpoint files are hashed in blocks of this size. */
export const BLOCK_BYTES = 64 * 1024 * 1024;
const MAX_META_BYTES = 16 * 1024 * 1024;

/** Values that JSON keeps exactly. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
/** An object of such values. */
export type JsonObject = { [key: string]: Json };

/** State of a run at a checkpoint, given by the training loop. Numbers must be finite: JSON has no infinity. */
export interface CheckpointState {
  /** Name of the run, `--run`. */
  readonly run: string;
  /** Stage of training. */
  readonly stage: Stage;
  /** Validation bits per byte at this step, where it was measured. */
  readonly valBpb: number | null;
  /** Shape of the model. */
  readonly config: JsonObject;
  /** Every flag of the run with its value. */
  readonly flags: JsonObject;
  /** Position in the data. */
  readonly loader: Json;
  /** What the run computed in, "f32" or "bf16"; absent in those of 0.1.0, which keep the flag alone, and where an import cannot tell. */
  readonly dtype?: string;
  /** State of the random numbers. */
  readonly rng: Json;
  /** Counters and running means of the training loop. */
  readonly loop: Json;
}

/** A file of a checkpoint: its size, and the SHA-256 (hex) of each block. */
export interface FileEntry {
  /** Name in the checkpoint folder. */
  readonly name: string;
  /** Size. */
  readonly bytes: number;
  /** SHA-256 (hex) of each block. */
  readonly sha256: readonly string[];
}

/** Content of a meta file. */
export interface CheckpointMeta extends CheckpointState {
  /** Number of updates that the model has had. */
  readonly step: number;
  /** Time of saving, ISO 8601. */
  readonly savedAt: string;
  /** Number of ranks that trained it. */
  readonly worldSize: number;
  /** Size of the hashed blocks. */
  readonly blockBytes: number;
  /** The tokenizer that the model was made with; null only for models without text. */
  readonly tokenizer: { readonly name: string; readonly sha256: string } | null;
  /** The model file, then one optimizer file per rank where there is one. */
  readonly files: readonly FileEntry[];
}

/** Gives a step as file names have it: six digits, more where needed. */
export function stepText(step: number): string {
  return String(step).padStart(6, "0");
}

/** Gives the names of a step's files. */
export function fileNames(step: number): { model: string; meta: string; optimizer(rank: number): string } {
  const text = stepText(step);
  return {
    model: `model_${text}.safetensors`,
    meta: `meta_${text}.json`,
    optimizer: (rank) => `optim_${text}_rank${rank}.safetensors`,
  };
}

/** Gives the SHA-256 of bytes, in hex. */
export function sha256Hex(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

const HEAD = /^\{\n {2}"format": "nanochat checkpoint",\n {2}"version": (\d{1,9}),\n {2}"sha256": "([0-9a-f]{64})",\n/;
const HEAD_BYTES_MOST = 200;

/**
 * Writes a meta file's text.
 *
 * @throws {TypeError} where a number is not finite, naming it: JSON would turn it into null.
 */
export function encodeMeta(meta: CheckpointMeta): Uint8Array<ArrayBuffer> {
  checkFinite(meta, "meta");
  const body = JSON.stringify(meta, null, 2).slice("{\n".length) + "\n";
  const sum = sha256Hex(new TextEncoder().encode(body));
  return new TextEncoder().encode(
    `{\n  "format": "nanochat checkpoint",\n  "version": ${FORMATS.checkpoint.version},\n  "sha256": "${sum}",\n${body}`,
  );
}

/**
 * Reads a meta file's bytes; `name` is what errors call it.
 *
 * @throws {CheckpointError} "damaged" where it is not what was written, "version" where another program's format begins.
 */
export function parseMeta(bytes: Uint8Array, name: string): CheckpointMeta {
  if (bytes.length > MAX_META_BYTES) {
    throw damaged(name, `it has ${bytes.length} bytes, expected at most ${MAX_META_BYTES}`);
  }
  const head = HEAD.exec(new TextDecoder().decode(bytes.subarray(0, HEAD_BYTES_MOST)));
  if (head === null) {
    const isReference = new TextDecoder().decode(bytes.subarray(0, 65536)).includes('"model_config"');
    throw isReference
      ? new CheckpointError(
        "version",
        `Cannot read ${name}: it belongs to the Python nanochat, expected our format; run "nanochat import FOLDER"`,
      )
      : damaged(name, 'it does not begin with "format": "nanochat checkpoint"');
  }
  if (Number(head[1]) !== FORMATS.checkpoint.version) {
    throw new CheckpointError(
      "version",
      `Cannot read ${name}: its format version is ${head[1]}, expected ${FORMATS.checkpoint.version}`,
    );
  }
  const body = bytes.subarray(head[0].length);
  if (sha256Hex(body) !== head[2]) throw damaged(name, "its SHA-256 differs from the one it states");
  let meta: unknown;
  try {
    meta = JSON.parse("{" + new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch (cause) {
    throw damaged(name, "it is not JSON", cause);
  }
  const problem = findProblem(meta);
  if (problem !== undefined) throw damaged(name, problem);
  return meta as CheckpointMeta;
}

function damaged(name: string, what: string, cause?: unknown): CheckpointError {
  return new CheckpointError("damaged", `Cannot read ${name}: ${what}`, { cause });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/** Says what a meta object lacks; undefined = nothing. Names are checked against the step, so that no path leaves the folder. */
function findProblem(meta: unknown): string | undefined {
  if (!isObject(meta)) return "it is no object";
  const { step, worldSize, blockBytes, files, tokenizer } = meta;
  if (!isCount(step)) return "it has no step";
  if (!isCount(worldSize) || worldSize === 0) return "it has no world size";
  if (!isCount(blockBytes) || blockBytes === 0) return "it has no block size";
  if (typeof meta.run !== "string" || typeof meta.savedAt !== "string") return "it has no run or time";
  if (!(STAGES as readonly unknown[]).includes(meta.stage)) return `its stage is ${JSON.stringify(meta.stage)}`;
  if (meta.valBpb !== null && typeof meta.valBpb !== "number") return "its bits per byte are no number";
  if (!isObject(meta.config) || !isObject(meta.flags)) return "it has no config or flags";
  if (meta.dtype !== undefined && typeof meta.dtype !== "string") return "its type is no name";
  if (meta.loader === undefined || meta.rng === undefined || meta.loop === undefined) {
    return "it has no loader, rng or loop state";
  }
  if (tokenizer !== null && !(isObject(tokenizer) && isHash(tokenizer.sha256) && isPlainName(tokenizer.name))) {
    return "its tokenizer entry is malformed";
  }
  if (!Array.isArray(files) || files.length === 0) return "it lists no files";
  const names = fileNames(step);
  for (const [i, file] of files.entries()) {
    const expected = i === 0 ? names.model : names.optimizer(i - 1);
    if (!isObject(file) || file.name !== expected) return `file ${i} is not ${expected}`;
    const { bytes, sha256 } = file;
    if (!isCount(bytes)) return `${expected} has no size`;
    if (!Array.isArray(sha256) || sha256.length !== Math.ceil(bytes / blockBytes) || !sha256.every(isHash)) {
      return `${expected} lacks the SHA-256 of its blocks`;
    }
  }
  return undefined;
}

function isHash(value: unknown): boolean {
  return typeof value === "string" && /^[0-9a-f]{64}$/.test(value);
}

function isPlainName(value: unknown): boolean {
  return typeof value === "string" && /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/.test(value);
}

function checkFinite(value: unknown, path: string): void {
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new TypeError(`Cannot save ${path}: it is ${value}, expected a finite number or null`);
  }
  if (typeof value === "bigint" || value === undefined || typeof value === "function") {
    throw new TypeError(`Cannot save ${path}: it is ${typeof value}, expected a value that JSON keeps`);
  }
  if (ArrayBuffer.isView(value)) {
    throw new TypeError(`Cannot save ${path}: it is a binary array, expected a list of numbers`);
  }
  if (typeof value === "object" && value !== null) {
    for (const [key, item] of Object.entries(value)) checkFinite(item, `${path}.${key}`);
  }
}
