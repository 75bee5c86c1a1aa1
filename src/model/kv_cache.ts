/**
 * The key/value cache: per layer (row, kv head, position, D), contiguous rows, allocated once for the longest sequence. Rows fill
 * independently: `positions` says how many tokens each row holds, `counts` how many the next forward pass adds.
 */
import type { Device, OwnedTensor } from "../tensor/device.ts";
import { type ComputeType, dtypeBytes } from "../tensor/dtype.ts";
import type { LayerCache } from "../tensor/ops.ts";
import type { GPTConfig } from "./gpt.ts";

/** Sizes of a cache. */
export interface KVCacheOptions {
  /** Sequences decoded together. */
  readonly rows: number;
  /** Tokens that fit in a row. */
  readonly capacity: number;
  /** Element type; the model's compute type. */
  readonly dtype: ComputeType;
}

/** Keys and values of every layer. */
export class KVCache implements Disposable {
  /** Number of rows. */
  readonly rows: number;
  /** Tokens that fit in a row. */
  readonly capacity: number;
  /** Tokens in each row. */
  readonly lengths: Int32Array<ArrayBuffer>;
  readonly #device: Device;
  readonly #layers: { k: OwnedTensor; v: OwnedTensor }[];
  readonly #positions: OwnedTensor;
  readonly #counts: OwnedTensor;
  readonly #nextCounts: Int32Array<ArrayBuffer>;

  /** Allocates empty rows for every layer of a model of this configuration. */
  constructor(device: Device, config: GPTConfig, options: KVCacheOptions) {
    const { rows, capacity, dtype } = options;
    const shape = [rows, config.nKvHead, capacity, config.nEmbd / config.nHead];
    this.rows = rows;
    this.capacity = capacity;
    this.lengths = new Int32Array(rows);
    this.#device = device;
    this.#layers = Array.from(
      { length: config.nLayer },
      () => ({ k: device.tensor(shape, dtype), v: device.tensor(shape, dtype) }),
    );
    this.#positions = device.tensor([rows], "i32");
    this.#counts = device.tensor([rows], "i32");
    this.#nextCounts = new Int32Array(rows);
  }

  /** Returns what attention of one layer reads and writes: views, valid as long as the cache. */
  layer(index: number): LayerCache {
    return { ...this.#layers[index], positions: this.#positions, counts: this.#counts };
  }

  /** (rows) i32: position of each row's next token. */
  get positions(): OwnedTensor {
    return this.#positions;
  }

  /**
   * Announces the next forward pass: `counts[b]` tokens join row b (0 = idle). It may be of the first rows only.
   *
   * @throws {RangeError} where a row would grow beyond the capacity.
   */
  begin(counts: ArrayLike<number>): void {
    for (let b = 0; b < this.rows; b++) {
      const count = counts[b] ?? 0;
      const size = this.lengths[b] + count;
      if (size > this.capacity) {
        throw new RangeError(
          `Cannot cache ${size} tokens in row ${b}: its capacity is ${this.capacity}, expected at most that`,
        );
      }
      this.#nextCounts[b] = count;
    }
    this.#device.upload(this.#positions, this.lengths);
    this.#device.upload(this.#counts, this.#nextCounts);
  }

  /** Counts the tokens of the pass that `begin` announced. */
  commit(): void {
    for (let b = 0; b < this.rows; b++) this.lengths[b] += this.#nextCounts[b];
  }

  /** Forgets the tokens of a row from `length` on. */
  truncate(row: number, length: number): void {
    this.lengths[row] = Math.min(this.lengths[row], length);
  }

  /** Copies row `from` of another cache (or this one), or its first tokens, into row `to`: one prefill serves many samples. */
  copyRow(to: number, source: KVCache, from: number, length = source.lengths[from]): void {
    const { nc, ctx } = this.#device;
    if (length > this.capacity) {
      throw new RangeError(
        `Cannot copy ${length} cached tokens: the capacity is ${this.capacity}, expected at least that`,
      );
    }
    this.#layers.forEach((layer, i) => {
      for (const part of ["k", "v"] as const) {
        const [, G, , D] = layer[part].shape;
        const bytes = (tokens: number) => tokens * D * dtypeBytes(layer[part].dtype);
        const y = layer[part].view([G, this.capacity, D], to * G * this.capacity * D);
        const x = source.#layers[i][part].view([G, source.capacity, D], from * G * source.capacity * D);
        const [piece, yStride, xStride] = [length, this.capacity, source.capacity].map((tokens) =>
          BigInt(bytes(tokens))
        );
        nc.copy_2d(ctx, y.pointer, x.pointer, BigInt(G), piece, yStride, xStride);
      }
    });
    this.lengths[to] = length;
  }

  /** Computes the memory of a cache, in bytes. */
  static bytes(config: GPTConfig, options: KVCacheOptions): number {
    const D = config.nEmbd / config.nHead;
    return 2 * config.nLayer * options.rows * config.nKvHead * options.capacity * D * dtypeBytes(options.dtype);
  }

  /** Frees the cache. */
  [Symbol.dispose](): void {
    for (const { k, v } of this.#layers) {
      k[Symbol.dispose]();
      v[Symbol.dispose]();
    }
    this.#positions[Symbol.dispose]();
    this.#counts[Symbol.dispose]();
  }
}
