/** Builds models from golden folders. */
import { GPT, type GPTConfig } from "../../src/model/gpt.ts";
import type { Device } from "../../src/tensor/device.ts";
import { Arena } from "../../src/tensor/arena.ts";
import { Tape } from "../../src/tensor/tape.ts";
import type { Parameter, Parameters } from "../../src/tensor/parameter.ts";
import { join } from "@std/path";
import { GoldenTensors, largest, type Parity, readSafetensors, type Tolerance } from "./parity.ts";

/** Sizes as the reference writes them. */
export interface ReferenceConfig {
  readonly sequence_len: number;
  readonly vocab_size: number;
  readonly n_layer: number;
  readonly n_head: number;
  readonly n_kv_head: number;
  readonly n_embd: number;
}

/** Translates a reference configuration. */
export function configOf(config: ReferenceConfig): GPTConfig {
  return {
    sequenceLen: config.sequence_len,
    vocabSize: config.vocab_size,
    nLayer: config.n_layer,
    nHead: config.n_head,
    nKvHead: config.n_kv_head,
    nEmbd: config.n_embd,
  };
}

/** Opens a file of another folder of the golden set, which is that folder's to compare. */
export function siblingTensors(t: Parity, path: string): GoldenTensors {
  return new GoldenTensors(path, readSafetensors(Deno.readFileSync(join(t.root, path))), new Set());
}

/** Uploads stored weights into a model. */
export function loadWeights(device: Device, parameters: Parameters, weights: GoldenTensors): void {
  for (const { name, master } of parameters.all()) {
    device.upload(master, weights.get(name).data as Float32Array<ArrayBuffer>);
  }
  parameters.refreshCopies();
}

/** Tolerance of a stored gradient by its values. */
export const gradientTolerance = (expected: ArrayLike<number>): Tolerance => ({
  relL2: 1e-5,
  abs: 1e-5 * largest(expected),
});

/** Compares weights or gradients with a file that holds a tensor for each parameter; a file that the folder lacks has no cases. */
export async function compareParameters(
  t: Parity,
  { device, parameters }: { readonly device: Device; readonly parameters: Parameters },
  { file, of, tolerance }: {
    readonly file: string;
    readonly of: keyof Pick<Parameter, "master" | "gradient">;
    readonly tolerance: (expected: ArrayLike<number>) => Tolerance;
  },
): Promise<void> {
  if (!t.has(file)) return;
  const golden = t.tensors(file);
  for (const parameter of parameters.all()) {
    const expected = golden.get(parameter.name).data;
    t.close(`${file} ${parameter.name}`, await device.readFloats(parameter[of]), expected, tolerance(expected));
  }
}

/** A model with stored weights and a tape over an arena that is large enough. */
export class GoldenModel implements Disposable {
  readonly model: GPT;
  readonly arena: Arena;
  readonly tape: Tape;

  constructor(device: Device, options: { config: GPTConfig; weights: GoldenTensors; training: boolean }) {
    this.model = new GPT(device, options.config, { dtype: "f32", training: options.training });
    loadWeights(device, this.model.parameters, options.weights);
    this.arena = new Arena(device, 256 << 20);
    this.tape = new Tape(device, this.arena, { training: options.training });
  }

  [Symbol.dispose](): void {
    this.model[Symbol.dispose]();
    this.arena[Symbol.dispose]();
  }
}
