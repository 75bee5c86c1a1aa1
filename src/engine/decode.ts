/**
 * A GPT as the engine sees it: rows of a key/value cache that advance one token at a time, and the logits of each row's next token.
 *
 * Prompts run in chunks through a cache of one row, so that memory does not grow with the prompt and the other rows stay as they are;
 * bits do not depend on how a prompt is cut (DESIGN section 2). Logits stay on the device: only the drawn ids come back.
 */
import { GPT, type GPTConfig } from "../model/gpt.ts";
import { KVCache } from "../model/kv_cache.ts";
import { Arena } from "../tensor/arena.ts";
import type { Device, OwnedTensor } from "../tensor/device.ts";
import type { ComputeType } from "../tensor/dtype.ts";
import { PlanDevice } from "../tensor/plan.ts";
import { Tape } from "../tensor/tape.ts";
import type { DecodeModel, Decoder } from "./engine.ts";
import { type Draw, type Drawn, SamplingColumns } from "./sample.ts";

/** Prompt tokens of one forward pass. */
const PREFILL_CHUNK = 256;
/** Larger than any arena; the plan only counts. */
const UNBOUNDED = 2 ** 46;

/** Makes rows of one model. Its weights should be packed (`packForInference`) unless it is in training. */
export class GptDecodeModel implements DecodeModel {
  /** The model that computes; the caller frees it. */
  readonly model: GPT;
  /** Tokens that a sequence may have: the length the model was trained with. */
  readonly contextLen: number;

  /** Wraps a model; nothing is allocated before `decoder`. */
  constructor(model: GPT) {
    this.model = model;
    this.contextLen = model.config.sequenceLen;
  }

  /** Allocates cache and buffers for `rows` sequences of up to `capacity` tokens; the caller disposes of them. */
  decoder(options: { readonly rows: number; readonly capacity: number }): GptDecoder {
    return new GptDecoder(this.model, options);
  }
}

/** Rows of one model in generation. */
export class GptDecoder implements Decoder {
  readonly #model: GPT;
  readonly #device: Device;
  readonly #rows: number;
  readonly #arena: Arena;
  readonly #tape: Tape;
  readonly #cache: KVCache;
  /** One row that prompts run in; the cache itself where it has one row. */
  readonly #prompts: KVCache;
  readonly #logits: OwnedTensor; // (rows, V) f32
  readonly #ids: OwnedTensor; // (rows, 1) i32
  readonly #columns: SamplingColumns;
  readonly #settings: { readonly tensor: OwnedTensor; readonly host: ArrayBufferView<ArrayBuffer> }[];
  readonly #drawn: OwnedTensor; // (rows) i32
  readonly #logprobs: OwnedTensor; // (rows) f32

  /** Allocates empty rows on the model's device. */
  constructor(model: GPT, { rows, capacity }: { readonly rows: number; readonly capacity: number }) {
    const { device, config, dtype } = model;
    this.#model = model;
    this.#device = device;
    this.#rows = rows;
    this.#arena = new Arena(device, planArena(config, { rows, chunk: Math.min(capacity, PREFILL_CHUNK), dtype }));
    this.#tape = new Tape(device, this.#arena, { training: false });
    this.#cache = new KVCache(device, config, { rows, capacity, dtype });
    this.#prompts = rows === 1 ? this.#cache : new KVCache(device, config, { rows: 1, capacity, dtype });
    this.#logits = device.tensor([rows, config.vocabSize], "f32");
    this.#ids = device.tensor([rows, 1], "i32");
    const columns = new SamplingColumns(rows);
    this.#columns = columns;
    // In the order of nc_sample's arguments; u64 seeds travel as pairs of i32.
    this.#settings = [
      { tensor: device.tensor([rows, 2], "i32"), host: columns.seeds },
      { tensor: device.tensor([rows], "i32"), host: columns.samples },
      { tensor: device.tensor([rows], "i32"), host: columns.draws },
      { tensor: device.tensor([rows], "f32"), host: columns.temperatures },
      { tensor: device.tensor([rows], "i32"), host: columns.topK },
      { tensor: device.tensor([rows], "f32"), host: columns.topP },
    ];
    this.#drawn = device.tensor([rows], "i32");
    this.#logprobs = device.tensor([rows], "f32");
  }

  /** Enqueues the tokens behind those that the row holds; leaves the logits of its next token. */
  prefill(row: number, tokens: readonly number[]): void {
    if (this.#prompts !== this.#cache) this.#prompts.copyRow(0, this.#cache, row);
    for (let start = 0; start < tokens.length; start += PREFILL_CHUNK) {
      const chunk = Int32Array.from(tokens.slice(start, start + PREFILL_CHUNK));
      using ids = this.#device.from(chunk, [1, chunk.length], "i32");
      this.#prompts.begin([chunk.length]);
      const x = this.#model.forward(this.#tape, ids, { cache: this.#prompts }); // (1, T, C)
      this.#prompts.commit();
      if (start + chunk.length === tokens.length) {
        const C = x.shape[2];
        const logits = this.#model.logits(this.#tape, x.view([1, C], (chunk.length - 1) * C)); // (1, V)
        this.#device.copy(this.#rowLogits(row), logits);
      }
      this.#tape.clear();
    }
    if (this.#prompts !== this.#cache) this.#cache.copyRow(row, this.#prompts, 0);
  }

  /** Enqueues a copy of cache and logits of one row into another. */
  copy(from: number, to: number): void {
    this.#cache.copyRow(to, this.#cache, from);
    this.#device.copy(this.#rowLogits(to), this.#rowLogits(from));
  }

  /** Enqueues one token for each live row; the others keep their cache. */
  step(ids: Int32Array, live: Uint8Array): void {
    this.#device.upload(this.#ids, Int32Array.from(ids));
    this.#cache.begin(live);
    const x = this.#model.forward(this.#tape, this.#ids, { cache: this.#cache }); // (rows, 1, C)
    this.#cache.commit();
    this.#device.copy(this.#logits, this.#model.logits(this.#tape, x)); // (rows, 1, V)
    this.#tape.clear();
  }

  /** Draws the next token of each row, on the device, and waits for the ids. */
  async sample(draws: readonly Draw[]): Promise<Drawn> {
    draws.forEach((draw, row) => this.#columns.set(row, draw));
    const { nc, ctx } = this.#device;
    for (const { tensor, host } of this.#settings) this.#device.upload(tensor, host);
    const [seeds, samples, positions, temperatures, topK, topP] = this.#settings.map(({ tensor }) => tensor.pointer);
    nc.sample(
      ...[ctx, this.#drawn.pointer, this.#logprobs.pointer, this.#logits.pointer] as const,
      ...[seeds, samples, positions, temperatures, topK, topP, this.#rows, this.#model.config.vocabSize] as const,
    );
    const ids = await this.#device.read(this.#drawn) as Int32Array;
    return { ids, logprobs: await this.#device.readFloats(this.#logprobs) };
  }

  /** Reads the logits (V) of a row's next token: what evaluations and tests compare. */
  async readLogits(row: number): Promise<Float32Array> {
    const V = this.#model.config.vocabSize;
    return (await this.#device.readFloats(this.#logits)).slice(row * V, (row + 1) * V);
  }

  #rowLogits(row: number) {
    const V = this.#model.config.vocabSize;
    return this.#logits.view([V], row * V);
  }

  /** Frees cache and buffers behind the work that is queued. */
  [Symbol.dispose](): void {
    if (this.#prompts !== this.#cache) this.#prompts[Symbol.dispose]();
    const settings = this.#settings.map(({ tensor }) => tensor);
    const owned = [this.#cache, this.#arena, this.#logits, this.#ids, ...settings, this.#drawn, this.#logprobs];
    for (const part of owned) part[Symbol.dispose]();
  }
}

/** Returns the bytes that a prompt chunk or a step of all rows needs, by running both with shapes only. */
function planArena(config: GPTConfig, sizes: { rows: number; chunk: number; dtype: ComputeType }): number {
  const { rows, chunk, dtype } = sizes;
  using device = new PlanDevice();
  using model = new GPT(device, config, { dtype, training: false });
  using arena = new Arena(device, UNBOUNDED);
  const tape = new Tape(device, arena, { training: false });
  for (const [B, T] of [[1, chunk], [rows, 1]]) {
    const cache = new KVCache(device, config, { rows: B, capacity: T, dtype });
    const x = model.forward(tape, device.tensor([B, T], "i32"), { cache });
    model.logits(tape, x.view([B, config.nEmbd]));
    tape.clear();
  }
  return arena.peak;
}
