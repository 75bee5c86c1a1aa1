/** Draws the next tokens of rows of logits on the device: settings go up, the ids and what was asked for beside them come back. */
import type { Device, OwnedTensor } from "../tensor/device.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Candidate, type Draw, type Drawn, MOST_TOP_LOGPROBS, SamplingColumns, writeChanges } from "./sample.ts";

/** Buffers for the draws of up to `rows` rows of V logits. */
export class Sampler implements Disposable {
  readonly #device: Device;
  readonly #rows: number;
  readonly #V: number;
  /** Candidates that a row has room for. */
  readonly #most: number;
  readonly #columns: SamplingColumns;
  readonly #settings: OwnedTensor; // (WORDS, rows) i32
  /** Ids (rows) i32 and log-probabilities (rows) f32 of what was drawn, then of the best: (rows, most) each. */
  readonly #drawn: OwnedTensor;
  /** What is added to logits, as `writeChanges` lays it out; grows. */
  #changes: OwnedTensor;

  /** Allocates. */
  constructor(device: Device, { rows, vocabSize }: { readonly rows: number; readonly vocabSize: number }) {
    this.#device = device;
    this.#rows = rows;
    this.#V = vocabSize;
    this.#most = Math.min(vocabSize, MOST_TOP_LOGPROBS);
    this.#columns = new SamplingColumns(rows);
    this.#settings = device.tensor([SamplingColumns.WORDS, rows], "i32");
    this.#drawn = device.tensor([2 * rows * (1 + this.#most)], "i32");
    this.#changes = device.tensor([2 * rows], "i32");
  }

  /** Draws a token for each of the first rows of logits (rows, V) f32, and waits for the ids. */
  async sample(logits: Tensor, draws: readonly Draw[]): Promise<Drawn> {
    const { nc, ctx } = this.#device;
    const [rows, n, most] = [this.#rows, draws.length, this.#most];
    draws.forEach((draw, row) => this.#columns.set(row, draw));
    this.#device.upload(this.#settings, this.#columns.words);
    const settings = this.#columns.offsets.map((offset) => this.#settings.view([n], offset).pointer);
    const [seeds, samples, positions, temperatures, topK, topP, counts] = settings;
    const { starts, ids, values, size } = this.#uploadChanges(draws);
    const offsets = [0, rows, 2 * rows, (2 + most) * rows];
    const [drawnIds, logprobs, topIds, topLogprobs] = offsets.map((offset) => this.#drawn.view([n], offset).pointer);
    nc.sample(
      ...[ctx, drawnIds, logprobs, logits.pointer, seeds, samples, positions, temperatures, topK, topP] as const,
      ...[starts, ids, values, n, this.#V, size] as const,
    );
    const wantsTop = draws.some(({ topLogprobs = 0 }) => topLogprobs > 0);
    if (wantsTop) nc.top_logprobs(ctx, topIds, topLogprobs, logits.pointer, counts, n, this.#V, most);
    const words = await this.#device.read(wantsTop ? this.#drawn : this.#drawn.view([2 * rows])) as Int32Array;
    const floats = new Float32Array(words.buffer);
    return {
      ids: words.subarray(0, n),
      logprobs: floats.subarray(rows, rows + n),
      top: draws.map(({ topLogprobs }, row) => {
        const candidate = (_: unknown, i: number): Candidate => {
          const [id, logprob] = [offsets[2], offsets[3]].map((offset) => offset + row * most + i);
          return { id: words[id], logprob: floats[logprob] };
        };
        return topLogprobs === undefined ? undefined : Array.from({ length: topLogprobs }, candidate);
      }),
    };
  }

  #uploadChanges(draws: readonly Draw[]) {
    const changes = writeChanges(draws);
    if (changes === null) return { starts: null, ids: null, values: null, size: 0 };
    const { words, size } = changes;
    if (words.length > this.#changes.size) {
      this.#changes[Symbol.dispose]();
      this.#changes = this.#device.tensor([2 * words.length], "i32");
    }
    this.#device.upload(this.#changes.view([words.length]), words);
    const starts = draws.length + 1;
    const [ids, values] = [starts, starts + size].map((offset) => this.#changes.view([size], offset).pointer);
    return { starts: this.#changes.pointer, ids, values, size };
  }

  /** Frees the buffers behind the work that is queued. */
  [Symbol.dispose](): void {
    for (const part of [this.#settings, this.#drawn, this.#changes]) part[Symbol.dispose]();
  }
}
