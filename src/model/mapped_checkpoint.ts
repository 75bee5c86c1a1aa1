/**
 * A checkpoint mapped into memory: tensors are read from the file when they are touched, nothing is copied before.
 *
 * Opening checks headers and sizes; `verify` checks every block. `chat`, `serve` and `eval` open first and verify in the background,
 * resume and import verify first.
 */
import { join } from "@std/path";
import { formatProblem, FORMATS } from "../data/formats.ts";
import { bindNative } from "../native/call.ts";
import { pointerFrom } from "../native/call.ts";
import type { MappedFile, NativeContext } from "../native/files.ts";
import { addressAt, hashMemory, loadMemory, mapFile, readMemory, unmapFile } from "../native/files.ts";
import { openLibrary } from "../native/load.ts";
import type { NamedTensor } from "./checkpoint.ts";
import { findCheckpoint } from "./checkpoint_folder.ts";
import type { CheckpointMeta, FileEntry } from "./meta.ts";
import { CheckpointError, fileNames } from "./meta.ts";
import { headerBytes, parseHeader } from "./safetensors.ts";
import type { TensorDtype } from "./safetensors.ts";

/** A tensor of a mapped file. */
export interface MappedTensor {
  /** Element type. */
  readonly dtype: TensorDtype;
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** Address of the first element in the mapping. */
  readonly pointer: Deno.PointerObject;
  /** Size in bytes. */
  readonly bytes: number;
}

/** Model and, where asked for, one rank's optimizer of a checkpoint, mapped read-only. */
export class MappedCheckpoint implements Disposable {
  /** Where the checkpoint lies. */
  readonly folder: string;
  /** Its meta file. */
  readonly meta: CheckpointMeta;
  /** Tensors of the model, in the order of the file. */
  readonly tensors: Map<string, MappedTensor>;
  /** Tensors of the optimizer; empty where none was asked for. */
  readonly optimizer: Map<string, MappedTensor>;
  readonly #context: NativeContext;
  readonly #files: MappedFile[] = [];
  readonly #entries: FileEntry[] = [];

  /**
   * Maps step `step`, else the largest valid one.
   *
   * @param options.rank also map the optimizer state of this rank
   * @throws {CheckpointError} "missing", "damaged" or "version".
   */
  constructor(options: NativeContext & { folder: string; step?: number; rank?: number }) {
    const { folder, step, rank } = options;
    const found = findCheckpoint(folder, { step, modelOnly: rank === undefined });
    if (found === undefined) {
      throw new CheckpointError("missing", `Cannot open a checkpoint in "${folder}": it holds no valid one`);
    }
    this.#context = options;
    this.folder = folder;
    this.meta = found.meta;
    try {
      this.tensors = this.#map(fileNames(found.step).model);
      this.optimizer = rank === undefined ? new Map() : this.#map(fileNames(found.step).optimizer(rank));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Number of updates that the model has had. */
  get step(): number {
    return this.meta.step;
  }

  #map(name: string): Map<string, MappedTensor> {
    const entry = this.meta.files.find((file) => file.name === name);
    if (entry === undefined) {
      throw new CheckpointError(
        "missing",
        `Cannot open ${name} in "${this.folder}": the checkpoint has ${this.meta.files.map((f) => f.name).join(", ")}`,
      );
    }
    const path = join(this.folder, name);
    const file = mapFile(this.#context, path);
    this.#files.push(file);
    this.#entries.push(entry);
    if (file.bytes !== entry.bytes) {
      throw new CheckpointError(
        "damaged",
        `Cannot open "${path}": it has ${file.bytes} bytes, expected ${entry.bytes}`,
      );
    }
    try {
      const first = readMemory(this.#context, { pointer: file.pointer, bytes: Math.min(8, file.bytes) });
      const head = 8 + headerBytes(first, file.bytes);
      const header = parseHeader(readMemory(this.#context, { pointer: file.pointer, bytes: head }), file.bytes);
      const { format, version = "1" } = header.metadata; // 0.1.0 wrote no version
      const problem = formatProblem({ format, version: Number(version) }, { expected: FORMATS.tensors });
      if (problem) throw new CheckpointError("version", `Cannot open "${path}": ${problem}`);
      return new Map(
        [...header.tensors].map(([tensor, { dtype, shape, begin, end }]) => [
          tensor,
          { dtype, shape, pointer: addressAt(file.pointer, begin), bytes: end - begin },
        ]),
      );
    } catch (cause) {
      if (!(cause instanceof SyntaxError)) throw cause;
      throw new CheckpointError("damaged", `Cannot open "${path}": ${cause.message}`, { cause });
    }
  }

  /**
   * Checks the SHA-256 of every block of the mapped files, on threads of its own: the device's queue stays free, and the checkpoint
   * may be disposed of meanwhile.
   *
   * @param options.threads 0 = all; 1 leaves the machine to the work in the foreground
   * @throws {CheckpointError} "damaged", naming file and block.
   */
  async verify({ threads = 0 }: { threads?: number } = {}): Promise<void> {
    await verifyFiles(this.folder, { entries: this.#entries, blockBytes: this.meta.blockBytes, threads });
  }

  /** Gives the memory back; every pointer of the maps is dead afterwards. */
  [Symbol.dispose](): void {
    for (const file of this.#files.splice(0)) unmapFile(this.#context, file);
  }
}

/**
 * Checks the SHA-256 of every block of files.
 *
 * @throws {CheckpointError} "damaged", naming file and block.
 */
export async function verifyFiles(
  folder: string,
  options: { entries: readonly FileEntry[]; blockBytes: number; threads?: number },
): Promise<void> {
  const { entries, blockBytes, threads = 0 } = options;
  const nc = bindNative(openLibrary("cpu"));
  const out = new BigUint64Array(1);
  nc.context_create(out, 0, threads);
  const context = { nc, ctx: pointerFrom(out) };
  try {
    for (const entry of entries) {
      const path = join(folder, entry.name);
      const file = mapFile(context, path);
      try {
        const hashes = await hashMemory(context, { memory: file, blockBytes });
        const bad = entry.sha256.findIndex((hash, i) => hash !== hashes[i]);
        if (bad >= 0 || hashes.length !== entry.sha256.length) {
          const block = bad >= 0 ? bad : entry.sha256.length;
          throw new CheckpointError(
            "damaged",
            `Cannot use "${path}": block ${block} (bytes ${block * blockBytes} on) differs from what was saved, ` +
              "expected the SHA-256 in meta; take an earlier step or save again",
          );
        }
      } finally {
        unmapFile(context, file);
      }
    }
  } finally {
    nc.context_free(context.ctx);
  }
}

/**
 * Enqueues the copy of saved tensors into a model's or optimizer's memory, by name.
 *
 * @throws {CheckpointError} "mismatch", naming the first tensor that is missing, left over or of another shape; nothing is copied then.
 */
export function loadTensors(
  context: NativeContext,
  options: { from: ReadonlyMap<string, MappedTensor>; into: readonly NamedTensor[]; what: string },
): void {
  const { from, into, what } = options;
  const wanted = new Set(into.map(({ name }) => name));
  const left = [...from.keys()].find((name) => !wanted.has(name));
  if (left !== undefined) {
    throw new CheckpointError(
      "mismatch",
      `Cannot load ${what}: it holds tensor "${left}", expected only ${listNames(wanted)}`,
    );
  }
  for (const { name, dtype, shape } of into) {
    const saved = from.get(name);
    const is = saved === undefined ? "missing" : `${saved.dtype} (${saved.shape.join(", ")})`;
    const expected = `${dtype} (${shape.join(", ")})`;
    if (is !== expected) {
      throw new CheckpointError("mismatch", `Cannot load ${what}: tensor "${name}" is ${is}, expected ${expected}`);
    }
  }
  for (const { name, pointer, bytes } of into) {
    loadMemory(context, { to: pointer, from: from.get(name)!.pointer, bytes });
  }
}

function listNames(names: ReadonlySet<string>): string {
  const all = [...names];
  return all.length <= 4 ? all.map((name) => `"${name}"`).join(", ") : `the ${all.length} tensors of this model`;
}
