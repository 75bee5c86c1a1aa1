/**
 * Scores options: takes examples, each with one or several sequences of tokens of which a span counts, gives the loss of every token of
 * the span and the most probable token in its place.
 *
 * The options of one example usually begin alike (shots and question). That beginning runs once, into a key/value cache with a row for
 * each example; then the first option of every example runs on it, its tokens are forgotten, and so on. Only positions that predict a
 * token of a span reach the output layer. Memory depends on `batchTokens`, not on the number of examples.
 */
import { GPT } from "../model/gpt.ts";
import { KVCache } from "../model/kv_cache.ts";
import { Arena } from "../tensor/arena.ts";
import { PlanDevice } from "../tensor/plan.ts";
import { Tape } from "../tensor/tape.ts";
import { commonLength, type Option } from "./core_prompts.ts";

/** What a model says about the span of an option. */
export interface OptionScore {
  /** Loss of each token of the span, in nats. */
  readonly losses: Float32Array;
  /** The most probable token in place of each. */
  readonly predicted: Int32Array;
}

/** Tokens of one example that wait to run: `tokens[at..]` behind what its cache row holds. */
interface Pending {
  readonly option: Option;
  /** First position to run. */
  readonly from: number;
  /** The position behind the last one to run. */
  readonly to: number;
  /** Where scores go; null = nothing is scored. */
  readonly score: OptionScore | null;
}

const TIME_UNIT = 64; // rows are padded to a multiple of this, short ones to a multiple of an eighth: few shapes, little waste

/** Scores options with one model, which stays the caller's. */
export class OptionScorer implements Disposable {
  readonly #model: GPT;
  readonly #batchTokens: number;
  readonly #arena: Arena;
  readonly #tape: Tape;
  #cache: KVCache | null = null;

  /** Allocates memory for passes of `batchTokens` tokens, a multiple of 64. */
  constructor(model: GPT, { batchTokens }: { batchTokens: number }) {
    this.#model = model;
    this.#batchTokens = Math.ceil(batchTokens / TIME_UNIT) * TIME_UNIT;
    this.#arena = new Arena(model.device, planScores(model, this.#batchTokens));
    this.#tape = new Tape(model.device, this.#arena, { training: false });
  }

  /** Longest sequence of tokens that the model has positions for. */
  get maxTokens(): number {
    return this.#model.rotary.cos.shape[0];
  }

  /** Cuts examples, in their order, into groups that fit in one pass where their longest option is at most that long. */
  group<T>(examples: readonly T[], length: (example: T) => number): T[][] {
    const groups: T[][] = [];
    let longest = 0;
    for (const example of examples) {
      const padded = padTime(length(example));
      const group = groups.at(-1);
      longest = Math.max(longest, padded);
      if (group && (group.length + 1) * longest <= this.#batchTokens) group.push(example);
      else {
        groups.push([example]);
        longest = padded;
      }
    }
    return groups;
  }

  /** Scores all options of the examples together. */
  async score(examples: readonly (readonly Option[])[]): Promise<OptionScore[][]> {
    const scores = examples.map((options) =>
      options.map(({ start, end }) => ({
        losses: new Float32Array(end - start),
        predicted: new Int32Array(end - start),
      }))
    );
    const shared = examples.map(sharedLength);
    const cache = this.#rows(examples);
    if (shared.some((length) => length > 0)) {
      await this.#run(cache, examples.map(([option], b) => ({ option, from: 0, to: shared[b], score: null })));
    }
    const most = Math.max(...examples.map((options) => options.length));
    for (let j = 0; j < most; j++) {
      for (const [b, length] of shared.entries()) cache.truncate(b, length);
      await this.#run(
        cache,
        examples.map((options, b) =>
          j < options.length
            ? { option: options[j], from: shared[b], to: options[j].end - 1, score: scores[b][j] }
            : { option: options[0], from: shared[b], to: shared[b], score: null }
        ),
      );
    }
    return scores;
  }

  /** Runs what waits, one row an example, in passes of at most `batchTokens`. */
  async #run(cache: KVCache, rows: readonly Pending[]): Promise<void> {
    const longest = Math.max(...rows.map(({ from, to }) => to - from));
    const fitting = Math.floor(this.#batchTokens / rows.length);
    const step = Math.max(1, fitting >= TIME_UNIT ? Math.floor(fitting / TIME_UNIT) * TIME_UNIT : fitting);
    for (let done = 0; done < longest; done += step) {
      await this.#pass(cache, rows, { done, T: Math.min(step, padTime(longest - done)) });
    }
  }

  /** Runs T positions of every row, `done` behind its first one. */
  async #pass(
    cache: KVCache,
    rows: readonly Pending[],
    { done, T }: { done: number; T: number },
  ): Promise<void> {
    const { device } = this.#model;
    const ids = new Int32Array(rows.length * T);
    const index: number[] = [], targets: number[] = [];
    const goals: { score: OptionScore; at: number }[] = [];
    const counts = rows.map(({ option: { tokens, start, end }, from, to, score }, b) => {
      const first = from + done;
      const count = Math.max(0, Math.min(T, to - first));
      if (count > 0) ids.set(tokens.subarray(first, first + count), b * T);
      for (let p = Math.max(first, start - 1); score && p < Math.min(first + count, end - 1); p++) {
        index.push(b * T + p - first);
        targets.push(tokens[p + 1]);
        goals.push({ score, at: p + 1 - start });
      }
      return count;
    });
    using input = device.from(ids, [rows.length, T], "i32");
    const fresh = cache.lengths.every((length) => length === 0);
    cache.begin(counts);
    const x = this.#model.forward(this.#tape, input, { cache, fresh }); // (B, T, C)
    cache.commit();
    if (goals.length > 0) {
      using chosen = device.from(Int32Array.from(index), [index.length], "i32");
      using wanted = device.from(Int32Array.from(targets), [index.length], "i32");
      const scored = this.#model.score(this.#tape, x, { index: chosen, targets: wanted });
      const losses = await device.readFloats(scored.losses);
      const predicted = await device.read(scored.argmax);
      for (const [i, { score, at }] of goals.entries()) {
        score.losses[at] = losses[i];
        score.predicted[at] = predicted[i];
      }
    }
    this.#tape.clear();
  }

  /** Returns an empty cache with a row for each example, the last one where it has the size. */
  #rows(examples: readonly (readonly Option[])[]): KVCache {
    const { device, config, dtype } = this.#model;
    const rows = examples.length;
    const capacity = padTime(Math.max(...examples.flat().map(({ end }) => end)));
    if (this.#cache?.rows !== rows || this.#cache.capacity !== capacity) {
      this.#cache?.[Symbol.dispose]();
      this.#cache = new KVCache(device, config, { rows, capacity, dtype });
    }
    for (let b = 0; b < rows; b++) this.#cache.truncate(b, 0);
    return this.#cache;
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#cache?.[Symbol.dispose]();
    this.#arena[Symbol.dispose]();
  }
}

/** Counts the positions that all options of an example share and that predict nothing scored. */
function sharedLength(options: readonly Option[]): number {
  if (options.length === 1) return 0;
  return Math.min(
    commonLength(options.map(({ tokens }) => tokens), "left"),
    ...options.map(({ start }) => start - 1),
  );
}

function padTime(length: number): number {
  const unit = length > TIME_UNIT ? TIME_UNIT : TIME_UNIT / 8;
  return Math.max(unit, Math.ceil(length / unit) * unit);
}

/** Returns the bytes of a pass of `tokens` tokens all of which are scored, by running it with shapes only. */
function planScores(model: GPT, tokens: number): number {
  using device = new PlanDevice();
  using twin = new GPT(device, model.config, { dtype: model.dtype, training: false });
  using arena = new Arena(device, 2 ** 46);
  using ids = device.tensor([1, tokens], "i32");
  using places = device.tensor([tokens], "i32");
  using cache = new KVCache(device, model.config, { rows: 1, capacity: tokens, dtype: model.dtype });
  const tape = new Tape(device, arena, { training: false });
  twin.score(tape, twin.forward(tape, ids, { cache, fresh: true }), { index: places, targets: places });
  return arena.peak;
}
