/**
 * What a model thinks of the tokens of a prompt: takes ids, gives the log-probability of each behind the first one, and the most probable
 * tokens at its place.
 *
 * The prompt runs in pieces through a cache of its own, so that other requests make steps between two of them.
 */
import type { Candidate } from "../engine/sample.ts";
import { GPT } from "../model/gpt.ts";
import { KVCache } from "../model/kv_cache.ts";
import { Arena } from "../tensor/arena.ts";
import { PlanDevice } from "../tensor/plan.ts";
import { Tape } from "../tensor/tape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Tokens of a piece: its logits take 16 MiB at a vocabulary of 65,536. */
const PIECE = 64;

/** A token of a prompt. */
export interface PromptScore {
  /** log p at temperature 1. */
  readonly logprob: number;
  readonly top: readonly Candidate[];
}

/** Scores prompts. */
export interface PromptScorer {
  /** Gives the scores of the tokens from the second on, piece by piece; `top` candidates beside each. One prompt at a time. */
  score(ids: readonly number[], top: number): AsyncIterableIterator<readonly PromptScore[]>;
}

/** Scores prompts with a model, which stays the caller's and may be used between two pieces. */
export class GptPromptScorer implements PromptScorer, Disposable {
  readonly #model: GPT;
  #memory: { readonly arena: Arena; readonly tape: Tape; readonly cache: KVCache } | null = null;

  /** Allocates nothing before the first prompt. */
  constructor(model: GPT) {
    this.#model = model;
  }

  async *score(ids: readonly number[], top: number): AsyncGenerator<readonly PromptScore[]> {
    const { device } = this.#model;
    const { tape, cache } = this.#memory ??= this.#allocate();
    cache.truncate(0, 0);
    for (let start = 0; start < ids.length - 1; start += PIECE) {
      const end = Math.min(start + PIECE, ids.length - 1);
      const T = end - start;
      using input = device.from(Int32Array.from(ids.slice(start, end)), [1, T], "i32");
      using index = device.from(Int32Array.from({ length: T }, (_, i) => i), [T], "i32");
      using targets = device.from(Int32Array.from(ids.slice(start + 1, end + 1)), [T], "i32");
      cache.begin([T]);
      const x = this.#model.forward(tape, input, { cache }); // (1, T, C)
      cache.commit();
      const { losses } = this.#model.score(tape, x, { index, targets }); // (T)
      const logits = top > 0 ? this.#model.logitsAt(tape, x, { index }) : null; // (T, V)
      const candidates = logits ? await this.#candidates(logits, top) : [];
      const nats = await device.readFloats(losses);
      tape.clear();
      yield Array.from(nats, (loss, i) => ({ logprob: -loss, top: candidates[i] ?? [] }));
    }
  }

  /** Reads the best ids of each row of logits (T, V). */
  async #candidates(logits: Tensor, top: number): Promise<Candidate[][]> {
    const { device, device: { nc, ctx } } = this.#model;
    const [T, V] = logits.shape;
    using counts = device.from(new Int32Array(T).fill(top), [T], "i32");
    using best = device.tensor([2, T, top], "i32"); // ids i32, log-probabilities f32
    const logprobs = best.view([T, top], T * top);
    nc.top_logprobs(ctx, best.pointer, logprobs.pointer, logits.pointer, counts.pointer, T, V, top);
    const { buffer } = await device.read(best);
    const ids = new Int32Array(buffer, 0, T * top);
    const values = new Float32Array(buffer, 4 * T * top, T * top);
    return Array.from(
      { length: T },
      (_, i) => Array.from({ length: top }, (_, k) => ({ id: ids[i * top + k], logprob: values[i * top + k] })),
    );
  }

  #allocate() {
    const { device, config, dtype } = this.#model;
    const arena = new Arena(device, planPiece(this.#model));
    const tape = new Tape(device, arena, { training: false });
    return { arena, tape, cache: new KVCache(device, config, { rows: 1, capacity: config.sequenceLen, dtype }) };
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#memory?.cache[Symbol.dispose]();
    this.#memory?.arena[Symbol.dispose]();
  }
}

/** Returns the bytes of a piece, by running one with shapes only. */
function planPiece({ config, dtype }: GPT): number {
  using device = new PlanDevice();
  using twin = new GPT(device, config, { dtype, training: false });
  using arena = new Arena(device, 2 ** 46);
  using ids = device.tensor([1, PIECE], "i32");
  using index = device.tensor([PIECE], "i32");
  using cache = new KVCache(device, config, { rows: 1, capacity: PIECE, dtype });
  const tape = new Tape(device, arena, { training: false });
  const x = twin.forward(tape, ids, { cache });
  twin.score(tape, x, { index, targets: index });
  twin.logitsAt(tape, x, { index });
  return arena.peak;
}
