/**
 * Continuous batching: takes requests, each a prompt that one or several samples continue, and advances all of them together, a token a
 * step. A row that has ended is taken over by the next sample that waits, so requests join and leave between two steps.
 *
 *   step: fill free rows -> draw the next token of each row -> watch for ends and tool calls -> enqueue the forward pass of all rows
 *
 * Position, sampling, seed, limit and tool belong to the row, and the model is batch-invariant (DESIGN section 2): an answer is the same
 * alone, beside others, whenever it joined, however its prompt was cut and whatever of it was found in the cache. While a tool computes,
 * its row waits and the others go on. No forward pass is made behind the last token of a row.
 *
 * Prompts run one at a time, in the order of the requests, and while rows generate only a chunk of them a step, so that a long one does
 * not hold up the others. What the prompt at hand, a row or a saved row (prefix_cache.ts) begins like it is copied instead.
 */
import { calculate } from "./calculator.ts";
import { type CheckedRequest, checkRequest, type GenerateRequest, type RowToken } from "./request.ts";
import { commonPrefix, PrefixCache } from "./prefix_cache.ts";
import { type EngineTokenizer, findMarks, type Marks, Row } from "./row.ts";
import type { Draw, Drawn } from "./sample.ts";

export type { GenerateRequest, RowToken, Tool } from "./request.ts";
export type { EngineTokenizer } from "./row.ts";

/** What generation needs of a model: rows with a cache that advance one token at a time. */
export interface DecodeModel {
  /** Tokens that a sequence may have. */
  readonly contextLen: number;
  /** Ids that it knows: 0 to this less 1. */
  readonly vocabSize: number;
  /** Sequences that should run at once where nobody says: what memory holds and gains from. */
  readonly suggestedRows: number;
  /** Sequences that a server should keep beside those that run. */
  readonly suggestedCacheRows: number;
  /** Makes room for `rows` sequences of up to `capacity` tokens, and for as many saved ones behind them as `cacheRows` says. */
  decoder(options: { readonly rows: number; readonly capacity: number; readonly cacheRows: number }): Decoder;
}

/**
 * A prompt at hand, the rows that continue it or earlier ones, and behind the rows, counted on, the saved sequences. Calls enqueue; only
 * `sample` waits.
 */
export interface Decoder extends Disposable {
  /** Runs tokens behind the first `kept` of the prompt at hand, which thereby becomes another one. */
  prefill(tokens: readonly number[], kept: number): void;
  /** Makes the first `length` tokens of a row or saved sequence the prompt at hand; `prefill` runs one more at least. */
  recall(place: number, length: number): void;
  /** Saves what a row holds. */
  save(row: number, place: number): void;
  /** Makes a row continue the prompt at hand. */
  start(row: number): void;
  /** Makes row `to` continue what row `from` holds. */
  move(from: number, to: number): void;
  /** Draws the next token of the first rows, one for each draw, and waits for what was enqueued. */
  sample(draws: readonly Draw[]): Promise<Drawn>;
  /** Feeds the first rows one token each; a row that is not live keeps its tokens but loses its next draw. */
  step(ids: ArrayLike<number>, live: Uint8Array): void;
}

/** Prompt tokens of a step beside rows that generate: with 16 of them it takes three times as long, LOG 2026-11-25. */
const CHUNK = 64;
/** Prompt tokens of a step without such rows: a request can be added or cancelled between two of them. */
const LONE_CHUNK = 512;

/** Sizes of a batch. */
export interface BatchOptions {
  /** Sequences that run at once. */
  readonly rows: number;
  /** Tokens of prompt and answer together; the model's context. */
  readonly capacity?: number;
  /** Sequences that are kept when they have ended, for prompts that begin alike; 0. */
  readonly cacheRows?: number;
  /** Prompt tokens that a step runs at most while rows generate; 64. */
  readonly chunk?: number;
}

/** A request with samples that no row has taken yet. */
interface Waiting extends CheckedRequest {
  started: number;
  /** Tokens of the prompt that were at hand; undefined before it runs. */
  cachedTokens?: number;
}

/** Rows in generation. One caller steps it; disposing of it ends all rows. */
export class Batch implements Disposable {
  readonly #model: DecodeModel;
  readonly #tokenizer: EngineTokenizer;
  readonly #marks: Marks;
  readonly #capacity: number;
  readonly #size: number;
  readonly #chunk: number;
  readonly #decoder: Decoder;
  readonly #saved: PrefixCache;
  /** Rows of the decoder from the first on, those that have ended included until the next step. */
  readonly #rows: Row[] = [];
  #waiting: Waiting[] = [];
  #prompt: readonly number[] = []; // at hand in the decoder, perhaps the beginning of one
  #share = 0; // prompt tokens that this step may still run
  /** Ends a step that waits for tools. */
  #wake = Promise.withResolvers<void>();
  #failure: { readonly error: unknown } | null = null;

  /** Allocates all that it will ever need. */
  constructor(
    { model, tokenizer }: { readonly model: DecodeModel; readonly tokenizer: EngineTokenizer },
    { rows, capacity = model.contextLen, cacheRows = 0, chunk = CHUNK }: BatchOptions,
  ) {
    this.#model = model;
    this.#tokenizer = tokenizer;
    this.#marks = findMarks(tokenizer);
    this.#capacity = capacity;
    this.#size = rows;
    this.#chunk = chunk;
    this.#saved = new PrefixCache({ first: rows, size: cacheRows });
    this.#decoder = model.decoder({ rows, capacity, cacheRows });
  }

  /** Whether a row would be free for one more request. */
  get hasRoom(): boolean {
    const waiting = this.#waiting.reduce((sum, { request, started }) => sum + (request.samples ?? 1) - started, 0);
    return this.#rows.filter(({ isOver }) => !isOver).length + waiting < this.#size;
  }

  /** Whether every sample of every request has ended. */
  get isDone(): boolean {
    return this.#waiting.length === 0 && this.#rows.every(({ isOver }) => isOver);
  }

  /**
   * Adds a request; its samples start in order as rows become free, from the next step on. With a limit of no tokens it has ended.
   *
   * @throws {RangeError} where the prompt is empty or leaves no room, or a setting is out of range.
   */
  add(request: GenerateRequest): void {
    const checked = checkRequest(request, this.#model);
    const { limit } = checked;
    if (request.prompt.length + limit > this.#capacity) {
      throw new RangeError(
        `Cannot generate: prompt and answer have up to ${request.prompt.length + limit} tokens, ` +
          `expected at most ${this.#capacity}, the capacity of a row`,
      );
    }
    if (limit > 0) this.#waiting.push({ ...checked, started: 0 });
    this.#wake.resolve();
  }

  /**
   * Ends every sample of a request, or one of those that have started, by the object that was added: no more of its tokens are reported,
   * the next step frees its rows.
   */
  cancel(request: GenerateRequest, sample?: number): void {
    if (sample === undefined) this.#waiting = this.#waiting.filter((waiting) => waiting.request !== request);
    for (const row of this.#rows) {
      if (row.request === request && (sample ?? row.draw.sample) === row.draw.sample) row.isCancelled = true;
    }
    this.#wake.resolve();
  }

  /**
   * Draws one token of each row whose turn it is and enqueues the next forward pass, so that the model computes while the caller works.
   * Gives no tokens where only a part of a prompt ran, and where all rows wait for tools, after the first result, `add` or `cancel`.
   *
   * @throws what a tool threw.
   */
  async step(): Promise<RowToken[]> {
    this.#fill();
    const isPreparing = this.#waiting.length > 0 && this.#rows.length < this.#size;
    const calls = this.#rows.flatMap(({ call }) => call ?? []);
    if (calls.length > 0 && calls.length === this.#rows.length && !isPreparing) {
      this.#wake = Promise.withResolvers();
      await Promise.race([...calls, this.#wake.promise]);
    }
    if (this.#failure) throw this.#failure.error;
    const draws = this.#rows.some(({ next }) => next === null);
    if (isPreparing && !draws) await this.#decoder.sample([]); // so that no more than a chunk is ever enqueued
    const tokens = draws ? await this.#draw() : [];
    if (this.#rows.some(({ isLive }) => isLive)) {
      const live = Uint8Array.from(this.#rows, ({ isLive }) => Number(isLive));
      this.#decoder.step(this.#rows.map(({ next }) => next ?? 0), live);
      live.forEach((fed, i) => {
        if (fed) this.#rows[i].next = null;
      });
    }
    return tokens;
  }

  /** Gives the places of ended rows to samples that wait, or to the last rows, so that a step computes live rows only. */
  #fill(): void {
    this.#rows.forEach((row, i) => {
      if (row.isOver) this.#save(row, i);
    });
    const isAlone = this.#rows.every(({ isOver, call }) => isOver || call !== null);
    this.#share = isAlone ? Math.max(this.#chunk, LONE_CHUNK) : this.#chunk;
    for (let i = 0; i < this.#size; i++) {
      if (i < this.#rows.length && !this.#rows[i].isOver) continue;
      if (this.#waiting.length > 0 && this.#prepare(this.#waiting[0])) this.#rows[i] = this.#start(i);
      else {
        while (this.#rows.at(-1)?.isOver) this.#rows.pop();
        if (i >= this.#rows.length) return;
        this.#decoder.move(this.#rows.length - 1, i);
        this.#rows[i] = this.#rows.pop()!;
      }
    }
  }

  /** Keeps what an ended row holds. */
  #save(row: Row, i: number): void {
    const tokens = row.held();
    const place = this.#saved.isOn ? this.#saved.add(tokens) : null;
    if (place !== null) this.#decoder.save(i, place);
  }

  /** Runs a prompt as far as the step's share of tokens goes; tells whether it is at hand as a whole. */
  #prepare(waiting: Waiting): boolean {
    const { prompt } = waiting.request;
    let kept = commonPrefix(this.#prompt, prompt);
    if (kept === prompt.length && kept === this.#prompt.length) {
      waiting.cachedTokens ??= kept;
      return true;
    }
    if (this.#share === 0) return false;
    if (waiting.cachedTokens === undefined) kept = this.#recall(prompt, kept);
    kept = Math.min(kept, prompt.length - 1); // the last token is run for its logits
    waiting.cachedTokens ??= kept;
    const end = Math.min(prompt.length, kept + this.#share);
    this.#decoder.prefill(prompt.slice(kept, end), kept);
    this.#prompt = prompt.slice(0, end);
    this.#share -= end - kept;
    return end === prompt.length;
  }

  /** Copies the longest beginning of a prompt that a row or a saved sequence holds, if longer than the `kept` tokens that are at hand. */
  #recall(prompt: readonly number[], kept: number): number {
    if (!this.#saved.isOn) return kept;
    let best = this.#saved.find(prompt);
    this.#rows.forEach((row, place) => {
      const length = commonPrefix(row.held(), prompt);
      if (length > best.length) best = { place, length };
    });
    if (best.length <= kept) return kept;
    this.#decoder.recall(best.place, best.length);
    return best.length;
  }

  /** Starts the next sample that waits: its prompt is at hand. */
  #start(i: number): Row {
    const waiting = this.#waiting[0];
    this.#decoder.start(i);
    const row = new Row(waiting, { sample: waiting.started, cachedTokens: waiting.cachedTokens ?? 0 });
    if (++waiting.started === (waiting.request.samples ?? 1)) this.#waiting.shift();
    return row;
  }

  async #draw(): Promise<RowToken[]> {
    const { ids, logprobs, top } = await this.#decoder.sample(this.#rows.map(({ draw }) => draw));
    return this.#rows.flatMap((row, i) => {
      if (row.next !== null || row.isOver) return []; // waits for its tool, or was cancelled meanwhile
      const forced = row.forced.shift();
      const id = forced ?? ids[i];
      const expression = row.accept(id, this.#marks);
      if (expression && !row.isOver) this.#call(row, expression);
      return row.report({ id, sampled: forced === undefined, logprob: logprobs[i], top: top[i] });
    });
  }

  /** Runs a tool call; its result is forced upon the row. */
  #call(row: Row, expression: readonly number[]): void {
    const finish = (result: string | null) => {
      if (result === null) return;
      const ids = Array.from(this.#tokenizer.encode(result));
      row.forced.push(this.#marks.outputStart, ...ids, this.#marks.outputEnd);
    };
    const result = (row.request.tool ?? calculate)(this.#tokenizer.decode(expression));
    if (!(result instanceof Promise)) return finish(result);
    row.call = result.then(finish).catch((error) => {
      if (!row.isOver) this.#failure ??= { error };
    }).finally(() => row.call = null);
  }

  /** Frees the rows behind the work that is queued. */
  [Symbol.dispose](): void {
    this.#decoder[Symbol.dispose]();
  }
}
