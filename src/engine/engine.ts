/**
 * Generation: takes the ids of prompts, gives the ids that continue them, until every sample has ended, its limit is reached, or the
 * context is full. All of it runs through one loop, the steps of a `Batch`.
 */
import { Batch, type DecodeModel } from "./batch.ts";
import { checkRequest, type GenerateRequest } from "./request.ts";
import { type EngineTokenizer, findMarks, isEnd, type Marks } from "./row.ts";

/** Options of one generation. */
export interface GenerateOptions extends Omit<GenerateRequest, "prompt"> {
  /** Stops before the next column. */
  readonly signal?: AbortSignal;
}

/** One id of each sample. */
export interface Column {
  /** The next id of each sample. */
  readonly ids: Int32Array;
  /** 1 = sampled, 0 = forced by the tool. */
  readonly masks: Uint8Array;
  /** 1 where the sample got a token: it had not ended, and waited for no tool. What stands in the others means nothing. */
  readonly live: Uint8Array;
  /** log p of each sampled token; also where a forced one took its place. */
  readonly logprobs: Float32Array;
}

/** Whole sequences of a prompt, the prompt included, without the token that ended them. */
export interface Generated {
  /** Ids of each sample, prompt first. */
  readonly sequences: number[][];
  /** 1 = sampled, 0 = prompt or forced. */
  readonly masks: number[][];
}

/** A request that is being continued. */
interface Pending extends Generated {
  readonly request: GenerateRequest;
  /** Samples that have not ended. */
  left: number;
}

/** Generates with one model and its tokenizer. One generation runs at a time. */
export class Engine {
  /** What computes; the caller owns it. */
  readonly model: DecodeModel;
  /** What tool calls and their results are read and written with. */
  readonly tokenizer: EngineTokenizer;
  readonly #marks: Marks;

  /**
   * Joins a model and its tokenizer.
   *
   * @throws {RangeError} where the vocabulary lacks one of the chat's special tokens.
   */
  constructor(model: DecodeModel, tokenizer: EngineTokenizer) {
    this.model = model;
    this.tokenizer = tokenizer;
    this.#marks = findMarks(tokenizer);
  }

  /** Tells whether a token ends a sample. */
  isEnd(token: number): boolean {
    return isEnd(token, this.#marks);
  }

  /**
   * Continues a prompt, one token of each sample at a time.
   *
   * @throws {RangeError} where the prompt is empty or leaves no room in the context, or a setting is out of range.
   */
  async *generate(prompt: readonly number[], options: GenerateOptions = {}): AsyncGenerator<Column, void, void> {
    const { samples = 1, signal } = options;
    const request = { ...options, prompt };
    const { limit } = checkRequest(request, this.model);
    if (limit === 0) return;
    using batch = new Batch(this, { rows: samples, capacity: prompt.length + limit });
    batch.add(request);
    while (!batch.isDone && !signal?.aborted) {
      const tokens = await batch.step();
      if (tokens.length === 0) continue;
      const column = {
        ...{ ids: new Int32Array(samples), masks: new Uint8Array(samples), live: new Uint8Array(samples) },
        logprobs: new Float32Array(samples),
      };
      for (const { sample, id, sampled, logprob } of tokens) {
        column.ids[sample] = id;
        column.masks[sample] = Number(sampled);
        column.live[sample] = 1;
        column.logprobs[sample] = logprob;
      }
      yield column;
    }
  }

  /** Continues a prompt to the end of every sample. @throws {RangeError} as `generate`. */
  async generateBatch(prompt: readonly number[], options: GenerateOptions = {}): Promise<Generated> {
    const generated = startOf({ ...options, prompt });
    for await (const { ids, masks, live } of this.generate(prompt, options)) {
      ids.forEach((id, sample) => {
        if (live[sample] === 0 || this.isEnd(id)) return;
        generated.sequences[sample].push(id);
        generated.masks[sample].push(masks[sample]);
      });
    }
    return generated;
  }

  /**
   * Continues many prompts and gives what `generateBatch` would give for each alone, in the order of the requests, which are taken as
   * rows become free. `rows` samples run at once; 0 = as many as the model suggests.
   *
   * @throws {RangeError} as `generate`, at the first request that is impossible.
   */
  async *generateAll(
    requests: Iterable<GenerateRequest>,
    { rows = 0, signal }: { readonly rows?: number; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<Generated, void, void> {
    using batch = new Batch(this, { rows: rows || this.model.suggestedRows, chunk: Infinity });
    const source = requests[Symbol.iterator]();
    const open: Pending[] = []; // in the order of the requests
    const pending = new Map<GenerateRequest, Pending>();
    for (let isExhausted = false; !signal?.aborted;) {
      while (!isExhausted && batch.hasRoom) {
        const { value, done } = source.next();
        if (done) isExhausted = true;
        else {
          const request = { ...value }; // the key, also where an object is given twice
          batch.add(request);
          const { limit } = checkRequest(request, this.model);
          const left = limit > 0 ? request.samples ?? 1 : 0;
          open.push({ ...startOf(request), request, left });
          pending.set(request, open.at(-1)!);
        }
      }
      while (open[0]?.left === 0 && !signal?.aborted) {
        const { request, sequences, masks } = open.shift()!;
        pending.delete(request);
        yield { sequences, masks };
      }
      if (batch.isDone) {
        if (isExhausted) return;
        continue;
      }
      for (const { request, sample, id, sampled, end } of await batch.step()) {
        const of = pending.get(request)!;
        if (end !== null) of.left--;
        if (end === "stop") continue;
        of.sequences[sample].push(id);
        of.masks[sample].push(Number(sampled));
      }
    }
  }
}

/** Returns the sequences of a request before its first token. */
function startOf({ prompt, samples = 1 }: GenerateRequest): Generated {
  const each = <T>(row: () => T) => Array.from({ length: samples }, row);
  return { sequences: each(() => [...prompt]), masks: each(() => prompt.map(() => 0)) };
}
