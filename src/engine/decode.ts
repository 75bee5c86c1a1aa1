/**
 * A GPT as the engine sees it: rows of a key/value cache that advance one token at a time, and the logits of each row's next token.
 *
 * A prompt runs in chunks through a cache of its own row, which any number of rows then continue from; memory does not grow with the
 * prompt, and bits do not depend on how it is cut (DESIGN section 2). Logits stay on the device: only the drawn ids come back.
 */
import { GPT, type GPTConfig } from "../model/gpt.ts";
import { KVCache } from "../model/kv_cache.ts";
import { pointerFrom } from "../native/call.ts";
import { Arena } from "../tensor/arena.ts";
import type { Device, OwnedTensor } from "../tensor/device.ts";
import type { ComputeType } from "../tensor/dtype.ts";
import { PlanDevice } from "../tensor/plan.ts";
import { type Costs, countWork, Tape } from "../tensor/tape.ts";
import type { DecodeModel, Decoder } from "./batch.ts";
import type { Draw, Drawn } from "./sample.ts";
import { Sampler } from "./sampler.ts";

/** Prompt tokens of one forward pass. */
const PREFILL_CHUNK = 256;
/** Larger than any arena; the plan only counts. */
const UNBOUNDED = 2 ** 46;

/** Rows beyond which two cores decode no faster, LOG 2026-11-25. */
const MOST_ROWS = 32;
/** Share of the free memory that the cache of `suggestedRows` may take. */
const ROWS_SHARE = 0.25;
/** Saved sequences beyond which memory fills for conversations that hardly go on. */
const MOST_CACHE_ROWS = 32;
/** Share of the free memory that saved sequences may take. */
const CACHE_SHARE = 0.125;

/** Sizes of a decoder. */
export interface DecoderSizes {
  /** Sequences that advance together. */
  readonly rows: number;
  /** Tokens of each. */
  readonly capacity: number;
  /** Saved sequences behind the rows; 0. */
  readonly cacheRows?: number;
}

/** Makes rows of one model. */
export class GptDecodeModel implements DecodeModel {
  /** The model that computes; the caller frees it. */
  readonly model: GPT;
  /** Tokens that a sequence may have: the length the model was trained with. */
  readonly contextLen: number;
  /** Ids that it knows. */
  readonly vocabSize: number;

  /** Wraps a model; nothing is allocated before `decoder`. */
  constructor(model: GPT) {
    this.model = model;
    this.contextLen = model.config.sequenceLen;
    this.vocabSize = model.config.vocabSize;
  }

  /** Rows whose caches fill a quarter of the memory that is free now, 1 to 32. */
  get suggestedRows(): number {
    return Math.max(1, Math.min(MOST_ROWS, this.#rowsIn(ROWS_SHARE)));
  }

  /** Saved sequences that fill an eighth of the memory that is free now, 0 to 32. */
  get suggestedCacheRows(): number {
    return Math.min(MOST_CACHE_ROWS, this.#rowsIn(CACHE_SHARE));
  }

  #rowsIn(share: number): number {
    const { device, config, dtype } = this.model;
    const row = KVCache.bytes(config, { rows: 1, capacity: this.contextLen, dtype });
    return Math.floor(share * device.memory().free / row);
  }

  /** Allocates caches and buffers; the caller disposes of them. */
  decoder(sizes: DecoderSizes): GptDecoder {
    return new GptDecoder(this.model, sizes);
  }
}

/** Rows of one model in generation. Its weights may not change meanwhile; they are packed, and unpacked at the end if they were not. */
export class GptDecoder implements Decoder {
  readonly #model: GPT;
  readonly #device: Device;
  readonly #unpacks: boolean;
  readonly #arena: Arena;
  readonly #tape: Tape;
  readonly #cache: KVCache;
  /** The prompt at hand: one row. */
  readonly #prompt: KVCache;
  readonly #promptState: OwnedTensor; // (1, C): hidden state of its last token
  readonly #promptLogits: OwnedTensor; // (V) f32, of that state once a row starts
  #hasLogits = false;
  readonly #logits: OwnedTensor; // (rows, V) f32
  readonly #ids: OwnedTensor; // (rows, 1) i32
  readonly #sampler: Sampler;
  /** The recorded forward pass of the first n rows and its work, by n: replaying it saves 0.2 ms of JavaScript a step. */
  readonly #graphs = new Map<number, { readonly graph: Deno.PointerObject; readonly costs: Costs }>();
  /** Filled with the work of every forward pass when set. */
  costs: Costs | null = null;

  /** Allocates empty rows on the model's device. */
  constructor(model: GPT, { rows, capacity, cacheRows = 0 }: DecoderSizes) {
    const { device, config, dtype } = model;
    this.#model = model;
    this.#device = device;
    this.#unpacks = !model.isPacked;
    if (this.#unpacks) model.packForInference();
    this.#arena = new Arena(device, planArena(config, { rows, chunk: Math.min(capacity, PREFILL_CHUNK), dtype }));
    this.#tape = new Tape(device, this.#arena, { training: false });
    this.#cache = new KVCache(device, config, { rows: rows + cacheRows, capacity, dtype });
    this.#prompt = new KVCache(device, config, { rows: 1, capacity, dtype });
    this.#promptState = device.tensor([1, config.nEmbd], dtype);
    this.#promptLogits = device.tensor([config.vocabSize], "f32");
    this.#logits = device.tensor([rows, config.vocabSize], "f32");
    this.#ids = device.tensor([rows, 1], "i32");
    this.#sampler = new Sampler(device, { rows, vocabSize: config.vocabSize });
  }

  /** Enqueues tokens behind the first `kept` of the prompt at hand. */
  prefill(tokens: readonly number[], kept: number): void {
    this.#prompt.truncate(0, kept);
    this.#tape.costs = this.costs;
    for (let start = 0; start < tokens.length; start += PREFILL_CHUNK) {
      const chunk = Int32Array.from(tokens.slice(start, start + PREFILL_CHUNK));
      using ids = this.#device.from(chunk, [1, chunk.length], "i32");
      this.#prompt.begin([chunk.length]);
      const x = this.#model.forward(this.#tape, ids, { cache: this.#prompt }); // (1, T, C)
      this.#prompt.commit();
      const C = x.shape[2];
      this.#device.copy(this.#promptState, x.view([1, C], (chunk.length - 1) * C));
      this.#tape.clear();
    }
    this.#hasLogits = false;
  }

  /** Enqueues a copy of the first tokens of a row or saved sequence, which become the prompt at hand. */
  recall(place: number, length: number): void {
    this.#prompt.copyRow(0, this.#cache, place, length);
  }

  /** Enqueues a copy of what a row holds. */
  save(row: number, place: number): void {
    this.#cache.copyRow(place, this.#cache, row);
  }

  /** Enqueues a copy of the prompt at hand into a row, with the logits of its next token. */
  start(row: number): void {
    if (!this.#hasLogits) {
      this.#tape.costs = this.costs;
      this.#device.copy(this.#promptLogits, this.#model.logits(this.#tape, this.#promptState)); // (1, V)
      this.#tape.clear();
      this.#hasLogits = true;
    }
    this.#cache.copyRow(row, this.#prompt, 0);
    this.#device.copy(this.#rowLogits(row), this.#promptLogits);
  }

  /** Enqueues a copy of cache and logits of one row into another. */
  move(from: number, to: number): void {
    this.#cache.copyRow(to, this.#cache, from);
    this.#device.copy(this.#rowLogits(to), this.#rowLogits(from));
  }

  /** Enqueues one token for each live row among the first ones; only these are computed. */
  step(ids: ArrayLike<number>, live: Uint8Array): void {
    const { nc, ctx } = this.#device;
    this.#device.upload(this.#ids.view([ids.length, 1]), Int32Array.from(ids));
    this.#cache.begin(live);
    const { graph, costs } = this.#graphs.get(ids.length) ?? this.#record(ids.length);
    nc.graph_launch(ctx, graph);
    for (const [name, { calls, flops, bytes }] of costs) {
      countWork(this.costs, name, { calls, flops: flops / calls, bytes: bytes / calls });
    }
    this.#cache.commit();
  }

  /** Records the forward pass of the first n rows: ids, positions and counts are read from the device, so it serves every step. */
  #record(n: number): { graph: Deno.PointerObject; costs: Costs } {
    const { nc, ctx } = this.#device;
    const out = new BigUint64Array(1);
    const costs = this.#tape.costs = new Map();
    nc.graph_begin(ctx);
    try {
      const x = this.#model.forward(this.#tape, this.#ids.view([n, 1]), { cache: this.#cache }); // (n, 1, C)
      this.#device.copy(this.#rowLogits(0, n), this.#model.logits(this.#tape, x)); // (n, 1, V)
      this.#tape.clear();
    } finally {
      nc.graph_end(ctx, out); // whatever failed, the device goes on without recording
    }
    const recorded = { graph: pointerFrom(out), costs };
    this.#graphs.set(n, recorded);
    return recorded;
  }

  /** Draws the next token of the first rows, on the device, and waits for the ids. */
  sample(draws: readonly Draw[]): Promise<Drawn> {
    return this.#sampler.sample(this.#logits, draws);
  }

  /** Reads the logits (V) of a row's next token: what evaluations and tests compare. */
  readLogits(row: number): Promise<Float32Array> {
    return this.#device.readFloats(this.#rowLogits(row));
  }

  #rowLogits(row: number, rows = 1) {
    const V = this.#model.config.vocabSize;
    return this.#logits.view([rows, V], row * V);
  }

  /** Frees caches and buffers behind the work that is queued. */
  [Symbol.dispose](): void {
    const { nc, ctx, isOpen } = this.#device;
    for (const { graph } of isOpen ? this.#graphs.values() : []) nc.graph_free(ctx, graph);
    if (this.#unpacks) this.#model.unpack();
    const tensors = [this.#promptState, this.#promptLogits, this.#logits, this.#ids];
    for (const part of [this.#cache, this.#prompt, this.#arena, this.#sampler, ...tensors]) part[Symbol.dispose]();
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
