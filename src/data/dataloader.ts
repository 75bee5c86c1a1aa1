/**
 * Batches of pretraining tokens: documents of the shards, each behind a begin-of-sequence token, as one stream of ids per rank
 * (nanochat/dataloader.py, December 2025).
 *
 * A batch takes B*T + 1 ids off the stream: inputs are the first B*T, targets the same shifted by one; the last id is consumed and
 * never an input. Rank r of W reads the row groups r, r + W, r + 2W ... of every file, endlessly. The stream depends on nothing but
 * the files, the tokenizer, the rank and the world size, so a position in it (row group and ids taken from that group) is the whole
 * state, and resuming there gives the batches that an uninterrupted run would have seen.
 */
import { basename } from "@std/path";
import { openShard } from "./dataset.ts";
import type { ParquetFile } from "./parquet.ts";

/** What the loader asks of a tokenizer. */
export interface DocumentEncoder {
  /** Id of the token in front of every document. */
  readonly bosId: number;
  /** Native tokenizer: with it, texts go from the file into ids on the native side. */
  readonly handle?: Deno.PointerObject;
  /** Encodes documents, each with `prepend` in front. */
  encodeBatch(texts: readonly string[], options: { readonly prepend: number }): Promise<readonly ArrayLike<number>[]>;
}

/** The reference's state: the row group that the last id came from. */
export interface ReferenceState {
  /** Index of the file. */
  readonly pq_idx: number;
  /** Index of the row group in that file. */
  readonly rg_idx: number;
}

/** A position in the stream of one rank. */
export interface LoaderState extends ReferenceState {
  /** Whole passes over the files before this one. */
  readonly epoch: number;
  /** Ids of that row group that were taken. */
  readonly offset: number;
  /** Name of the file, to notice when the folder has changed. */
  readonly file: string;
  /** Rank that reads this stream. */
  readonly rank: number;
  /** Number of ranks that share the files. */
  readonly world: number;
}

/** Options of a loader. */
export interface LoaderOptions {
  /** Shards of one split, in order. */
  readonly files: readonly string[];
  /** What turns documents into ids; it must outlive the loader. */
  readonly tokenizer: DocumentEncoder;
  /** Rows of a batch. */
  readonly B: number;
  /** Ids of a row. */
  readonly T: number;
  /** Default 0 of 1. */
  readonly rank?: number;
  /** Number of ranks; default 1. */
  readonly world?: number;
  /** Where to go on; default: the beginning. */
  readonly state?: ReferenceState | LoaderState;
  /** `exact` goes on at the next id; `reference` skips to the row group after the stored one, as the reference does. */
  readonly resume?: "exact" | "reference";
  /** Threads that encode; 0 = physical cores. Default 4, as in the reference. */
  readonly threads?: number;
  /** Batches that are made ready while the caller computes; default 2. */
  readonly prefetch?: number;
}

/** One batch. */
export interface TokenBatch {
  /** (B, T), row-major. */
  readonly inputs: Int32Array<ArrayBuffer>;
  /** (B, T): the inputs shifted by one, over the same memory. */
  readonly targets: Int32Array<ArrayBuffer>;
  /** Position behind this batch. */
  readonly state: LoaderState;
  /** 16 hex digits that tell batches apart. */
  readonly hash: string;
}

interface Group {
  readonly epoch: number;
  readonly pq_idx: number;
  readonly rg_idx: number;
  readonly ids: Int32Array;
  used: number;
}

/** Makes batches, some ahead of the caller. */
export class DataLoader implements AsyncDisposable {
  readonly #options: Required<Omit<LoaderOptions, "state">>;
  readonly #groups: AsyncGenerator<Group, void>;
  readonly #needed: number;
  readonly #queue: Group[] = []; // the first one is being consumed
  #available = 0;
  #filling: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  #closed = false;

  /**
   * Checks the options; files are opened when the first batch is asked for.
   *
   * @throws {RangeError} for no files or impossible sizes; {Error} where the state does not belong to these files and this rank.
   */
  constructor(options: LoaderOptions) {
    const { rank = 0, world = 1, resume = "exact", threads = 4, prefetch = 2, state } = options;
    this.#options = { ...options, rank, world, resume, threads, prefetch };
    if (!(options.B >= 1 && options.T >= 1 && rank >= 0 && rank < world)) {
      throw new RangeError(
        `Cannot make batches of ${options.B} x ${options.T} for rank ${rank} of ${world}, expected sizes of at least 1 and a rank below the world size`,
      );
    }
    if (options.files.length === 0) {
      throw new RangeError("Cannot make batches: there are no shards, expected at least 1");
    }
    this.#needed = options.B * options.T + 1;
    this.#groups = this.#read(this.#start(state));
  }

  /**
   * Returns the next batch.
   *
   * @throws {Error} where a shard is damaged, empty, has no text column, or none has a row group for this rank.
   */
  async next(): Promise<TokenBatch> {
    while (this.#available < this.#needed) {
      if (this.#failure) throw this.#failure.error;
      if (this.#closed) throw new Error("Cannot make a batch: the loader is closed");
      await this.#fill();
    }
    const batch = this.#take();
    if (this.#options.prefetch > 0 && !this.#failure) this.#fill();
    return batch;
  }

  /** Ends the work ahead and closes the shard. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#filling;
    await this.#groups.return();
  }

  #start(
    state: ReferenceState | LoaderState | undefined,
  ): { epoch: number; pq_idx: number; rg_idx: number; offset: number } {
    const { rank, world, resume, files } = this.#options;
    if (state === undefined) return { epoch: 0, pq_idx: 0, rg_idx: rank, offset: 0 };
    const epoch = "epoch" in state ? state.epoch : 0;
    if (resume === "reference") {
      const rg_idx = (Math.floor(state.rg_idx / world) + 1) * world + rank;
      return { epoch, pq_idx: state.pq_idx, rg_idx, offset: 0 };
    }
    const refuse = (what: string) => new Error(`Cannot resume the data loader exactly: ${what}`);
    if (!("offset" in state)) {
      throw refuse(`its state has no token offset, expected the state of a batch of this program`);
    }
    if (state.rank !== rank || state.world !== world) {
      throw refuse(`its state is of rank ${state.rank} of ${state.world}, expected rank ${rank} of ${world}`);
    }
    const found = state.pq_idx < files.length ? basename(files[state.pq_idx]) : "missing";
    if (found !== state.file) throw refuse(`shard ${state.pq_idx} is "${found}", expected "${state.file}"`);
    return { epoch, pq_idx: state.pq_idx, rg_idx: state.rg_idx, offset: state.offset };
  }

  /** The row groups of this rank, encoded, without end. */
  async *#read(start: { epoch: number; pq_idx: number; rg_idx: number; offset: number }): AsyncGenerator<Group, void> {
    const { files, rank, world } = this.#options;
    let { epoch, pq_idx, rg_idx, offset } = start;
    for (;; epoch++, pq_idx = 0) {
      let found = pq_idx > 0 || rg_idx > rank; // a pass that began in the middle proves nothing
      for (; pq_idx < files.length; pq_idx++, rg_idx = rank) {
        using file = openShard(files[pq_idx]);
        for (; rg_idx < file.rowGroups; rg_idx += world) {
          const ids = await this.#encode(file, rg_idx);
          if (offset > ids.length) {
            throw new Error(
              `Cannot resume the data loader exactly: row group ${rg_idx} of "${file.path}" has ${ids.length} tokens, expected at least ${offset}; was the tokenizer or the shard replaced?`,
            );
          }
          found = true;
          yield { epoch, pq_idx, rg_idx, ids, used: offset };
          offset = 0;
        }
      }
      rg_idx = rank;
      if (!found) {
        throw new Error(
          `Cannot make batches for rank ${rank} of ${world}: none of the ${files.length} shards has a row group ${rank}, expected shards of at least ${world} row groups`,
        );
      }
    }
  }

  async #encode(file: ParquetFile, rowGroup: number): Promise<Int32Array> {
    const { tokenizer, threads } = this.#options;
    const prepend = tokenizer.bosId;
    if (tokenizer.handle) return file.encodeTexts(rowGroup, { tokenizer: tokenizer.handle, prepend, threads });
    const texts = await file.readTexts(rowGroup);
    const documents = await tokenizer.encodeBatch(texts, { prepend });
    const ids = new Int32Array(documents.reduce((sum, document) => sum + document.length, 0));
    let at = 0;
    for (const document of documents) {
      ids.set(document, at);
      at += document.length;
    }
    return ids;
  }

  /** Fills the queue up to the ids wanted ahead, one filling at a time. */
  #fill(): Promise<void> {
    this.#filling ??= this.#load().catch((error) => {
      this.#failure = { error };
    }).finally(() => this.#filling = undefined);
    return this.#filling;
  }

  async #load(): Promise<void> {
    while (!this.#closed && this.#wanting()) {
      const { value, done } = await this.#groups.next();
      if (done) return;
      this.#queue.push(value);
      this.#available += value.ids.length - value.used;
    }
  }

  #wanting(): boolean {
    const { prefetch } = this.#options;
    // Besides the batches ahead, one row group is kept in reserve: encoding one takes longer than a small batch lasts.
    return this.#available < this.#needed * (1 + prefetch) || (prefetch > 0 && this.#queue.length < 2);
  }

  #take(): TokenBatch {
    const ids = new Int32Array(this.#needed);
    let group = this.#queue[0];
    for (let at = 0; at < ids.length;) {
      while (group.used === group.ids.length) {
        this.#queue.shift();
        group = this.#queue[0];
      }
      const part = group.ids.subarray(group.used, group.used + ids.length - at);
      ids.set(part, at);
      at += part.length;
      group.used += part.length;
    }
    this.#available -= ids.length;
    const { files, rank, world } = this.#options;
    const { epoch, pq_idx, rg_idx, used: offset } = group;
    const state = { epoch, pq_idx, rg_idx, offset, file: basename(files[pq_idx]), rank, world };
    return { inputs: ids.subarray(0, -1), targets: ids.subarray(1), state, hash: hashIds(ids) };
  }
}

/** Hashes ids into 64 bits (two lanes of murmur-like mixing): 16 hex digits. */
export function hashIds(ids: Int32Array): string {
  let [a, b] = [0x9e3779b9, ids.length];
  for (const id of ids) {
    a = Math.imul(a ^ id, 0x85ebca6b);
    a ^= a >>> 15;
    b = Math.imul((b << 13 | b >>> 19) + id, 0xcc9e2d51);
  }
  const hex = (lane: number) => ((lane ^ lane >>> 16) >>> 0).toString(16).padStart(8, "0");
  return hex(a) + hex(b);
}
