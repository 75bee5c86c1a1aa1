/**
 * The GPT model: the only file that knows the architecture.
 *
 * A decoder-only transformer as in nanochat (nanochat/gpt.py, commit 10231df): rotary positions and no position embedding, queries
 * and keys normalised, untied embedding and head, ReLU squared in the feed-forward layer, a norm behind the token embedding, norms
 * without gain, no biases, grouped-query attention, logits softly capped at 15.
 *
 * Dimensions: B batch, T time, C model width, L layers, H query heads, G key/value heads, D head width, V vocabulary,
 * Vp vocabulary padded to a multiple of 64, F feed-forward width.
 */
import { PACK } from "../native/abi.ts";
import type { Device, OwnedTensor } from "../tensor/device.ts";
import { bf16FromF32, type ComputeType, f32FromBf16 } from "../tensor/dtype.ts";
import * as ops from "../tensor/ops.ts";
import { type Parameter, Parameters, type ParameterSpec } from "../tensor/parameter.ts";
import { fillNormal } from "../tensor/rng.ts";
import type { Tape } from "../tensor/tape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { KVCache } from "./kv_cache.ts";

/** Sizes of a model. */
export interface GPTConfig {
  /** Context length T that the model is trained with. */
  readonly sequenceLen: number;
  /** V, without padding. */
  readonly vocabSize: number;
  /** L */
  readonly nLayer: number;
  /** H */
  readonly nHead: number;
  /** G; divides H. */
  readonly nKvHead: number;
  /** C; H divides it. */
  readonly nEmbd: number;
}

/** Logits lie in -SOFTCAP..SOFTCAP (nanochat/gpt.py). */
export const SOFTCAP = 15;
/** Base of the rotary frequencies (arXiv:2104.09864). */
export const ROTARY_BASE = 10000;
const ROTARY_REACH = 10; // rotary tables cover this many context lengths
const VOCABULARY_MULTIPLE = 64;

/** Derives a model from the one dial: width 64 per layer, heads of 128, every head with keys and values of its own. */
export function configFromDepth(depth: number, options: { sequenceLen: number; vocabSize: number }): GPTConfig {
  const nEmbd = 64 * depth;
  const nHead = Math.max(1, Math.ceil(nEmbd / 128));
  return { ...options, nLayer: depth, nHead, nKvHead: nHead, nEmbd };
}

/** Checks a configuration. @throws {RangeError} naming the sizes that do not fit. */
export function checkConfig(config: GPTConfig): void {
  for (const [name, value] of Object.entries(config)) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(`Cannot build a model: ${name} is ${value}, expected a positive integer`);
    }
  }
  const { nHead, nKvHead, nEmbd, nLayer } = config;
  if (nEmbd % nHead !== 0 || (nEmbd / nHead) % 2 !== 0) {
    throw new RangeError(
      `Cannot build a model: width ${nEmbd} does not split into ${nHead} heads of even width; expected an even --depth (it is ${nLayer})`,
    );
  }
  if (nHead % nKvHead !== 0) {
    throw new RangeError(
      `Cannot build a model: ${nHead} query heads, expected a multiple of the ${nKvHead} key/value heads`,
    );
  }
}

/** Vp: the vocabulary rounded up, so that it splits evenly over ranks and tiles. */
export function paddedVocabulary(vocabSize: number): number {
  return Math.ceil(vocabSize / VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE;
}

/** Lists the parameters (out, in) by their names in checkpoints. Matrices of one shape form a group. */
export function parameterSpecs(config: GPTConfig): ParameterSpec[] {
  const { nLayer, nHead, nKvHead, nEmbd: C } = config;
  const Vp = paddedVocabulary(config.vocabSize);
  const D = C / nHead;
  const spec = (name: string, rows: number, cols: number, group = `matrices ${rows}x${cols}`): ParameterSpec => {
    return { name: `${name}.weight`, shape: [rows, cols], group };
  };
  return [
    spec("transformer.wte", Vp, C, "embedding"),
    ...Array.from({ length: nLayer }, (_, i) => [
      spec(`transformer.h.${i}.attn.c_q`, nHead * D, C),
      spec(`transformer.h.${i}.attn.c_k`, nKvHead * D, C),
      spec(`transformer.h.${i}.attn.c_v`, nKvHead * D, C),
      spec(`transformer.h.${i}.attn.c_proj`, C, C),
      spec(`transformer.h.${i}.mlp.c_fc`, 4 * C, C),
      spec(`transformer.h.${i}.mlp.c_proj`, C, 4 * C),
    ]).flat(),
    spec("lm_head", Vp, C, "unembedding"),
  ];
}

/** Counts the parameters, padding of the vocabulary included. */
export function parameterCount(config: GPTConfig): number {
  return parameterSpecs(config).reduce((sum, { shape: [rows, cols] }) => sum + rows * cols, 0);
}

/** Computes the FLOPs per trained token: 6 per matrix weight and the attention products (arXiv:2204.02311, appendix B). */
export function flopsPerToken(config: GPTConfig): number {
  const { nLayer, nEmbd, sequenceLen } = config;
  const matrices = parameterCount(config) - paddedVocabulary(config.vocabSize) * nEmbd;
  return 6 * matrices + 12 * nLayer * nEmbd * sequenceLen;
}

interface Layer {
  readonly attn: { readonly q: Parameter; readonly k: Parameter; readonly v: Parameter; readonly proj: Parameter };
  readonly mlp: { readonly fc: Parameter; readonly proj: Parameter };
}

/** Options of a model's memory. */
export interface GPTOptions {
  /** What the products compute in; master weights are always f32. */
  readonly dtype: ComputeType;
  /** Whether gradients are allocated. */
  readonly training: boolean;
  /** Round the rotary tables to bfloat16 as the reference does (default); off compares with programs that do not. */
  readonly roundRotary?: boolean;
}

/** What a forward pass may be given. */
export interface ForwardOptions {
  /** Keys and values of the tokens before these. */
  readonly cache?: KVCache;
  /** The cache's rows are empty and bits need not be those of decoding: a faster kernel, see `ops.firstAttention`. */
  readonly fresh?: boolean;
  /** Sees the residual stream: "wte" before its norm, "h.in", then "h.i.mid" behind attention and "h.i.out" behind each layer. */
  readonly observe?: (name: string, x: Tensor) => void;
}

/** What products of an answering model read: weights as they are, or rounded to 8 bits with a scale for each row. */
export type Quantization = "none" | "int8";

/** A GPT on one device: parameters and the forward pass. */
export class GPT implements Disposable {
  /** Sizes it was made with. */
  readonly config: GPTConfig;
  /** What its products compute in. */
  readonly dtype: ComputeType;
  /** Weights and gradients, under PyTorch's names. */
  readonly parameters: Parameters;
  /** Where it lives; it must outlive the model. */
  readonly device: Device;
  readonly #wte: Parameter;
  readonly #head: Parameter;
  readonly #layers: readonly Layer[];
  /** cos and sin of every position and frequency, f32 (10 T, D/2). */
  readonly rotary: { readonly cos: OwnedTensor; readonly sin: OwnedTensor };

  /** Allocates a model with zero weights; `initWeights` or a checkpoint fills them. */
  constructor(device: Device, config: GPTConfig, options: GPTOptions) {
    checkConfig(config);
    this.config = config;
    this.dtype = options.dtype;
    this.device = device;
    this.parameters = new Parameters(device, parameterSpecs(config), options);
    const w = (name: string) => this.parameters.get(`${name}.weight`);
    this.#wte = w("transformer.wte");
    this.#head = w("lm_head");
    this.#layers = Array.from({ length: config.nLayer }, (_, i) => {
      const h = (name: string) => w(`transformer.h.${i}.${name}`);
      return {
        attn: { q: h("attn.c_q"), k: h("attn.c_k"), v: h("attn.c_v"), proj: h("attn.c_proj") },
        mlp: { fc: h("mlp.c_fc"), proj: h("mlp.c_proj") },
      };
    });
    this.rotary = rotaryTables(device, config, options.roundRotary ?? true);
  }

  /**
   * Draws initial weights (arXiv:2310.17813): embedding normal(0, 1); linear normal with std min(1, sqrt(out/in)) / sqrt(in); the head
   * and every projection back into the residual stream zero, so that the first loss is ln V. Same seed, same bits on every device.
   */
  initWeights(seed: number): void {
    let offset = 0n;
    for (const { name, shape: [out, inputs], master, size } of this.parameters.all()) {
      const isZero = name === "lm_head.weight" || name.endsWith("c_proj.weight");
      const std = name === "transformer.wte.weight" ? 1 : Math.min(1, Math.sqrt(out / inputs)) / Math.sqrt(inputs);
      if (isZero) this.device.fill(master, 0);
      else fillNormal(this.device, master, { seed: BigInt(seed), offset, std });
      offset += BigInt(size);
    }
    this.parameters.refreshCopies();
  }

  /**
   * Prepares all weights for decoding: the packed form streams at memory speed, to the same bits. To be repeated once they change.
   * "int8": products read a quarter of the bytes of fp32 and give other numbers; scores and losses follow, gradients are refused.
   */
  packForInference(quantize: Quantization = "none"): void {
    for (const parameter of this.parameters.all()) {
      if (parameter === this.#wte) continue;
      parameter.pack(this.device, PACK.FORWARD, quantize === "int8" ? "i8" : this.dtype);
    }
  }

  /** Whether the weights are prepared for decoding. */
  get isPacked(): boolean {
    return this.#head.isPacked(PACK.FORWARD);
  }

  /** Frees what `packForInference` made. */
  unpack(): void {
    for (const parameter of this.parameters.all()) parameter.unpack(PACK.FORWARD);
  }

  /** Computes the final hidden states (B, T, C) of token ids (B, T) i32; with a cache, of the next tokens of its rows. */
  forward(t: Tape, ids: Tensor, { cache, fresh = false, observe = () => {} }: ForwardOptions = {}): Tensor {
    let x = t.segment(() => this.#embed(t, ids, observe)); // (B, T, C)
    for (const [i, layer] of this.#layers.entries()) {
      x = t.segment(() => {
        const y = this.#attention(t, x, { layer, index: i, cache, fresh });
        observe(`h.${i}.mid`, y);
        return ops.feedForward(t, ops.rmsnorm(t, y), { up: layer.mlp.fc, down: layer.mlp.proj, residual: y }); // (B, T, C)
      });
      observe(`h.${i}.out`, x);
    }
    return ops.rmsnorm(t, x);
  }

  /** Computes the loss of each target (B, T) i32, -1 = ignored: (B, T) f32. `weights` (B, T) f32 asks for gradients, see `lmHeadLoss`. */
  loss(t: Tape, ids: Tensor, options: { targets: Tensor; weights?: Tensor }): Tensor {
    const x = this.forward(t, ids);
    return ops.lmHeadLoss(t, x, { ...options, w: this.#head, V: this.config.vocabSize, softcap: SOFTCAP });
  }

  /** Scores targets (n) i32 at the hidden states `index` (n) i32 of x (..., C): losses and most probable ids. No gradient. */
  score(t: Tape, x: Tensor, { index, targets }: { index: Tensor; targets: Tensor }): ops.TokenScores {
    const chosen = ops.gatherRows(t, x, { index }); // (n, C)
    return ops.lmHeadScore(t, chosen, { targets, w: this.#head, V: this.config.vocabSize, softcap: SOFTCAP });
  }

  /** Computes the logits (..., V) f32 of hidden states (..., C). */
  logits(t: Tape, x: Tensor): Tensor {
    return ops.logits(t, x, { w: this.#head, V: this.config.vocabSize, softcap: SOFTCAP });
  }

  /** Computes the logits (n, V) f32 of the hidden states `index` (n) i32 of x (..., C). */
  logitsAt(t: Tape, x: Tensor, { index }: { index: Tensor }): Tensor {
    return this.logits(t, ops.gatherRows(t, x, { index }));
  }

  #embed(t: Tape, ids: Tensor, observe: NonNullable<ForwardOptions["observe"]>): Tensor {
    const x = ops.embedding(t, this.#wte, { ids, dtype: this.dtype }); // (B, T, C)
    observe("wte", x);
    const y = ops.rmsnorm(t, x, { keep: true });
    observe("h.in", y);
    return y;
  }

  #attention(
    t: Tape,
    x: Tensor,
    { layer: { attn }, index, cache, fresh }: { layer: Layer; index: number; cache?: KVCache; fresh: boolean },
  ): Tensor {
    const D = this.config.nEmbd / this.config.nHead;
    const xn = ops.rmsnorm(t, x); // (B, T, C)
    const rope = { rotary: this.rotary, positions: cache?.positions };
    const q = ops.ropeNorm(t, ops.linear(t, xn, { w: attn.q, keep: false }), rope); // (B, T, H*D)
    const k = ops.ropeNorm(t, ops.linear(t, xn, { w: attn.k, keep: false }), rope); // (B, T, G*D)
    const v = ops.linear(t, xn, { w: attn.v }); // (B, T, G*D)
    const attend = fresh ? ops.firstAttention : ops.cachedAttention;
    const o = cache // (B, T, H*D)
      ? attend(t, { q, k, v }, { D, cache: cache.layer(index) })
      : ops.attention(t, { q, k, v }, { D });
    return ops.linear(t, o, { w: attn.proj, residual: x }); // (B, T, C)
  }

  /** Frees parameters and tables. */
  [Symbol.dispose](): void {
    this.parameters[Symbol.dispose]();
    this.rotary.cos[Symbol.dispose]();
    this.rotary.sin[Symbol.dispose]();
  }
}

/** Builds cos and sin of t * base^(-2j/D), f32 (ROTARY_REACH * T, D/2), rounded to bfloat16 as the reference stores them. */
function rotaryTables(device: Device, config: GPTConfig, round: boolean): { cos: OwnedTensor; sin: OwnedTensor } {
  const half = config.nEmbd / config.nHead / 2;
  const length = ROTARY_REACH * config.sequenceLen;
  if (device.kind === "plan") { // counts memory; the values would cost more than all the rest of a plan
    return { cos: device.tensor([length, half], "f32"), sin: device.tensor([length, half], "f32") };
  }
  // Every step in f32 as in the reference: the angle of position 20,000 is only as good as its f32 product.
  const frequencies = Float32Array.from({ length: half }, (_, j) => {
    const exponent = Math.fround(Math.fround(2 * j) / Math.fround(2 * half));
    return Math.fround(1 / Math.fround(ROTARY_BASE ** exponent));
  });
  const [cos, sin] = [Math.cos, Math.sin].map((wave) => {
    const table = new Float32Array(length * half);
    for (let p = 0; p < length; p++) {
      for (let j = 0; j < half; j++) table[p * half + j] = wave(Math.fround(p * frequencies[j]));
    }
    const values = round ? f32FromBf16(bf16FromF32(table)) : table;
    return device.from(values, [length, half], "f32");
  });
  return { cos, sin };
}
