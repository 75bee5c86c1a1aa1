/** What importers of all formats give: a model of another program as the tensors of a checkpoint of ours. */
import type { Stage } from "../data/base_dir.ts";
import type { TokenizerParts } from "../data/tokenizer.ts";
import type { NamedTensor } from "../model/checkpoint.ts";
import { type GPTConfig, parameterSpecs } from "../model/gpt.ts";
import { readIfPresent } from "../model/checkpoint_folder.ts";
import { CheckpointError } from "../model/meta.ts";
import type { Device, OwnedTensor } from "../tensor/device.ts";
import { dtypeBytes, dtypeCode } from "../tensor/dtype.ts";

/** A model of another program. Its tensors may lie in mapped files: dispose of it when they have been written. */
export interface ForeignModel extends Disposable {
  /** Where it comes from, for the report: "the Python nanochat". */
  readonly origin: string;
  /** Files that were read. */
  readonly files: readonly string[];
  /** Stage of training, where the files say. */
  readonly stage?: Stage;
  /** Name of its folder, where the files say. */
  readonly tag?: string;
  /** Number of updates; 0 where the files do not say. */
  readonly step: number;
  /** Sizes. */
  readonly config: GPTConfig;
  /** What its run computed in, where the files say. */
  readonly dtype?: "bf16";
  /** Weights under our names, f32. */
  readonly model: readonly NamedTensor[];
  /** Moments and momentum under our names, f32; empty = none. */
  readonly optimizer: readonly NamedTensor[];
  /** Tokenizer beside the model. */
  readonly tokenizer?: TokenizerParts;
  /** Flags and state of the run that trained it, as its program wrote them. */
  readonly run: Readonly<Record<string, unknown>>;
}

/** Parts that only models of the newest tree of the Python nanochat have (commit 92d63d4). */
export const NEWEST_PARTS = /resid_lambdas|x0_lambdas|value_embeds|ve_gate|smear|backout/;

/** Gives the error for models of that tree; `sign` says how it was recognised. */
export function newestGeneration(path: string, sign: string): CheckpointError {
  return new CheckpointError(
    "version",
    `Cannot import "${path}": it belongs to the newest generation of the Python nanochat (${sign}), which this program does not ` +
      "know yet; expected a model of the tree of December 2025",
  );
}

/** A tensor in memory that device code reads: of a mapped file, or of the device. */
export interface ForeignTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly pointer: Deno.PointerObject;
}

/** Makes f32 tensors of what files hold; what is f32 already stays where it is. */
export class Widener implements Disposable {
  readonly #device: Device;
  readonly #owned: OwnedTensor[] = [];

  /** Works on a device, which must outlive it. */
  constructor(device: Device) {
    this.#device = device;
  }

  /** Names a tensor; bf16 is widened. @throws {TypeError} for other types. */
  name(name: string, tensor: ForeignTensor): NamedTensor {
    const { dtype, shape, pointer } = tensor;
    const bytes = shape.reduce((product, n) => product * n, 4);
    if (dtype === "f32") return { name, dtype, shape, pointer, bytes };
    return this.join(name, [tensor]);
  }

  /** Names the rows of several tensors, one below the other. @throws {TypeError} for types other than f32 and bf16. */
  join(name: string, parts: readonly ForeignTensor[]): NamedTensor {
    const cols = parts[0].shape.slice(1);
    const shape = [parts.reduce((sum, part) => sum + part.shape[0], 0), ...cols];
    const { nc, ctx } = this.#device;
    const whole = this.#device.tensor(shape, "f32");
    this.#owned.push(whole);
    let at = 0;
    for (const { dtype, shape, pointer } of parts) {
      if (dtype !== "f32" && dtype !== "bf16") {
        throw new TypeError(`Cannot import tensor "${name}": it is ${dtype}, expected f32 or bf16`);
      }
      const part = whole.view(shape, at);
      const source = this.#aligned(pointer, { elements: part.size, dtype });
      nc.cast(ctx, part.pointer, source, BigInt(part.size), dtypeCode("f32"), dtypeCode(dtype));
      at += part.size;
    }
    return { name, dtype: "f32", shape, pointer: whole.pointer, bytes: whole.bytes };
  }

  /** Copies elements that do not lie at a multiple of their size, as kernels expect. */
  #aligned(pointer: Deno.PointerObject, of: { elements: number; dtype: "f32" | "bf16" }): Deno.PointerObject {
    const size = dtypeBytes(of.dtype);
    if (Deno.UnsafePointer.value(pointer) % BigInt(size) === 0n) return pointer;
    const copy = this.#device.tensor([of.elements], of.dtype);
    this.#owned.push(copy);
    this.#device.nc.copy(this.#device.ctx, copy.pointer, pointer, BigInt(copy.bytes));
    return copy.pointer;
  }

  /** Makes a tensor of zeros. */
  zeros(shape: readonly number[]): ForeignTensor {
    const tensor = this.#device.tensor(shape, "f32");
    this.#owned.push(tensor);
    return tensor;
  }

  /** Copies elements, bits for bf16, to the device. */
  upload(bytes: Uint8Array<ArrayBuffer>, { dtype, shape }: Pick<ForeignTensor, "dtype" | "shape">): ForeignTensor {
    const size = dtype === "bf16" ? dtypeBytes("bf16") : dtypeBytes("f32");
    const tensor = this.#device.tensor([bytes.length / size], dtype === "bf16" ? "bf16" : "f32");
    this.#owned.push(tensor);
    this.#device.upload(tensor, bytes);
    return { dtype, shape, pointer: tensor.pointer };
  }

  /** Frees what was widened. */
  [Symbol.dispose](): void {
    for (const tensor of this.#owned.splice(0)) tensor[Symbol.dispose]();
  }
}

/**
 * Checks names and shapes of the weights of a model, and gives them in our order.
 *
 * @param refuse makes the error from what is wrong
 * @throws naming the first tensor that is missing, left over or of another shape.
 */
export function checkWeights<T extends { readonly shape: readonly number[] }>(
  tensors: ReadonlyMap<string, T>,
  { config, refuse }: { config: GPTConfig; refuse: (problem: string) => CheckpointError },
): [name: string, tensor: T][] {
  const specs = parameterSpecs(config);
  const known = new Set(specs.map(({ name }) => name));
  const left = [...tensors.keys()].find((name) => !known.has(name));
  if (left !== undefined) {
    throw refuse(
      `it has a tensor ${JSON.stringify(left.slice(0, 200))}, expected only the ${known.size} of this architecture`,
    );
  }
  return specs.map(({ name, shape }) => {
    const tensor = tensors.get(name);
    const is = tensor === undefined ? "missing" : `(${tensor.shape.join(", ")})`;
    if (tensor === undefined || is !== `(${shape.join(", ")})`) {
      throw refuse(`tensor "${name}" is ${is}, expected (${shape.join(", ")})`);
    }
    return [name, tensor];
  });
}

const MAX_JSON_BYTES = 1 << 24;

/**
 * Reads an object of JSON as Python writes it: with NaN and Infinity, which become null.
 *
 * @throws {CheckpointError} "missing" or "damaged".
 */
export function readJson(path: string): Record<string, unknown> {
  const bytes = readIfPresent(path);
  if (bytes === undefined) throw new CheckpointError("missing", `Cannot import "${path}": it is missing`);
  const refuse = (problem: string, cause?: unknown) =>
    new CheckpointError("damaged", `Cannot read "${path}": ${problem}`, { cause });
  if (bytes.length > MAX_JSON_BYTES) throw refuse(`it has ${bytes.length} bytes, expected at most ${MAX_JSON_BYTES}`);
  let value: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    const plain = text.replace(/"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b/g, (part) => part[0] === '"' ? part : "null");
    value = JSON.parse(plain);
  } catch (cause) {
    throw refuse(`not JSON, ${(cause as Error).message.replace(/\s+/g, " ")}`, cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw refuse("it is no object");
  return value as Record<string, unknown>;
}
