/**
 * Continuous batching: takes requests, each a prompt that one or several samples continue, and advances all of them together, a token a
 * step. A row that has ended is taken over by the next sample that waits, so requests join and leave between two steps.
 *
 *   step: fill free rows -> draw the next token of each row -> watch for ends and tool calls -> enqueue the forward pass of all rows
 *
 * Position, sampling, seed, limit and tool belong to the row, and the model is batch-invariant (DESIGN section 2): an answer is the same
 * alone, beside others, and whenever it joined. The samples of a prompt share one prefill, as do requests in a row that begin alike.
 * While a tool computes, its row waits and the others go on.
 *
 * Each row is watched by a small state machine: the tokens between `<|python_start|>` and `<|python_end|>` are given to the tool, and
 * its result replaces the next sampled tokens, wrapped in `<|output_start|>` and `<|output_end|>`. `<|assistant_end|>` and `<|bos|>`
 * end a row (nanochat/engine.py). No forward pass is made behind the last token of a row.
 */
import { calculate } from "./calculator.ts";
import { checkSampling, type Draw, type Drawn, type Sampling } from "./sample.ts";

/** What generation needs of a model: rows with a cache that advance one token at a time. */
export interface DecodeModel {
  /** Tokens that a sequence may have. */
  readonly contextLen: number;
  /** Sequences that should run at once where nobody says: what memory holds and gains from. */
  readonly suggestedRows: number;
  /** Makes room for `rows` sequences of up to `capacity` tokens. */
  decoder(options: { readonly rows: number; readonly capacity: number }): Decoder;
}

/** A prompt at hand and the rows that continue it or earlier ones. Calls enqueue; only `sample` waits. */
export interface Decoder extends Disposable {
  /** Runs tokens behind the first `kept` of the prompt at hand, which thereby becomes another one. */
  prefill(tokens: readonly number[], kept: number): void;
  /** Makes a row continue the prompt at hand. */
  start(row: number): void;
  /** Makes row `to` continue what row `from` holds. */
  move(from: number, to: number): void;
  /** Draws the next token of the first rows, one for each draw. */
  sample(draws: readonly Draw[]): Promise<Drawn>;
  /** Feeds the first rows one token each; a row that is not live keeps its tokens but loses its next draw. */
  step(ids: ArrayLike<number>, live: Uint8Array): void;
}

/** What generation needs of a tokenizer. */
export interface EngineTokenizer {
  /** Encodes plain text; names of special tokens in it are text. */
  encode(text: string): ArrayLike<number>;
  /** Decodes ids to text. */
  decode(ids: ArrayLike<number>): string;
  /** Finds the id of a special token by its name. */
  encodeSpecial(name: string): number;
}

/** Computes the text of a tool call; null = no output. */
export type Tool = (text: string) => string | null | Promise<string | null>;

/** A prompt and how it is to be continued. */
export interface GenerateRequest extends Partial<Sampling> {
  /** Ids, `<|bos|>` first. */
  readonly prompt: readonly number[];
  /** How often it is continued; 1. */
  readonly samples?: number;
  /** Tokens of each sample at most; without it until the context is full. */
  readonly maxTokens?: number;
  /** What computes tool calls; the calculator. */
  readonly tool?: Tool;
}

/** One token of one sample. */
export interface RowToken {
  /** The request that was added. */
  readonly request: GenerateRequest;
  /** Which of its samples. */
  readonly sample: number;
  /** What it is. */
  readonly id: number;
  /** False where the tool forced it. */
  readonly sampled: boolean;
  /** log p of what was sampled; also where a forced token took its place. */
  readonly logprob: number;
  /** Why the sample ends with this token: at a mark (which is no part of the answer), or at its limit. */
  readonly end: "stop" | "length" | null;
}

/** Ids that the state machine watches for. */
export interface Marks {
  readonly pythonStart: number;
  readonly pythonEnd: number;
  readonly outputStart: number;
  readonly outputEnd: number;
  readonly assistantEnd: number;
  readonly bos: number;
}

/** Finds the marks. @throws {RangeError} where the vocabulary lacks one. */
export function findMarks(tokenizer: EngineTokenizer): Marks {
  const find = (name: string) => tokenizer.encodeSpecial(`<|${name}|>`);
  return {
    ...{ pythonStart: find("python_start"), pythonEnd: find("python_end"), outputStart: find("output_start") },
    ...{ outputEnd: find("output_end"), assistantEnd: find("assistant_end"), bos: find("bos") },
  };
}

/** Tells whether a token ends a row. */
export function isEnd(token: number, marks: Marks): boolean {
  return token === marks.assistantEnd || token === marks.bos;
}

/**
 * Checks a request; returns how its tokens are drawn and how many each sample may have.
 *
 * @throws {RangeError} where the prompt is empty or leaves no room in the context, or a setting is out of range.
 */
export function checkRequest(
  request: GenerateRequest,
  contextLen: number,
): { readonly sampling: Sampling; readonly limit: number } {
  const { prompt, samples = 1, maxTokens } = request;
  if (!Number.isInteger(samples) || samples < 1) {
    throw new RangeError(`Cannot generate: samples is ${samples}, expected a positive integer`);
  }
  if (maxTokens !== undefined && (!Number.isInteger(maxTokens) || maxTokens < 0)) {
    throw new RangeError(`Cannot generate: maxTokens is ${maxTokens}, expected an integer, 0 or more`);
  }
  if (prompt.length === 0) throw new RangeError("Cannot generate: the prompt is empty, expected at least <|bos|>");
  if (prompt.length >= contextLen) {
    throw new RangeError(
      `Cannot generate: the prompt has ${prompt.length} tokens, expected fewer than the context of ${contextLen}`,
    );
  }
  return { sampling: checkSampling(request), limit: Math.min(maxTokens ?? Infinity, contextLen - prompt.length) };
}

/** A request with samples that no row has taken yet. */
interface Waiting {
  readonly request: GenerateRequest;
  readonly sampling: Sampling;
  readonly limit: number;
  started: number;
}

/** One sample in a row of the decoder. */
class Row {
  /** Token that the model has not seen yet; null = the next one can be drawn. */
  next: number | null = null;
  /** A tool computes: the row waits. */
  call: Promise<void> | null = null;
  end: RowToken["end"] = null;
  /** Tokens that take the place of the next sampled ones. */
  readonly forced: number[] = [];
  readonly draw: Draw & { position: number };
  readonly #limit: number;
  #expression: number[] | null = null;

  constructor(readonly request: GenerateRequest, { sampling, limit, started }: Waiting) {
    this.draw = { ...sampling, sample: started, position: request.prompt.length };
    this.#limit = request.prompt.length + limit;
  }

  /** Takes the row's next token; returns the ids of a finished tool call. */
  accept(token: number, marks: Marks): number[] | null {
    this.next = token;
    this.draw.position++;
    if (isEnd(token, marks)) this.end = "stop";
    else if (this.draw.position === this.#limit) this.end = "length";
    const expression = this.#expression;
    if (token === marks.pythonStart) this.#expression = [];
    else if (token === marks.pythonEnd) this.#expression = null;
    else expression?.push(token);
    return token === marks.pythonEnd && expression?.length ? expression : null;
  }
}

/** Rows in generation. One caller steps it; disposing of it ends all rows. */
export class Batch implements Disposable {
  readonly #model: DecodeModel;
  readonly #tokenizer: EngineTokenizer;
  readonly #marks: Marks;
  readonly #capacity: number;
  readonly #size: number;
  readonly #decoder: Decoder;
  /** Rows of the decoder from the first on, those that have ended included until the next step. */
  readonly #rows: Row[] = [];
  readonly #waiting: Waiting[] = [];
  #prompt: readonly number[] = []; // at hand in the decoder
  #failure: { readonly error: unknown } | null = null;

  /** Allocates `rows` rows of `capacity` tokens; without it, of the model's context. */
  constructor(
    { model, tokenizer }: { readonly model: DecodeModel; readonly tokenizer: EngineTokenizer },
    { rows, capacity = model.contextLen }: { readonly rows: number; readonly capacity?: number },
  ) {
    this.#model = model;
    this.#tokenizer = tokenizer;
    this.#marks = findMarks(tokenizer);
    this.#capacity = capacity;
    this.#size = rows;
    this.#decoder = model.decoder({ rows, capacity });
  }

  /** Whether a row would be free for one more request. */
  get hasRoom(): boolean {
    const waiting = this.#waiting.reduce((sum, { request, started }) => sum + (request.samples ?? 1) - started, 0);
    return this.#rows.filter(({ end }) => end === null).length + waiting < this.#size;
  }

  /** Whether every sample of every request has ended. */
  get isDone(): boolean {
    return this.#waiting.length === 0 && this.#rows.every(({ end }) => end !== null);
  }

  /**
   * Adds a request; its samples start in order as rows become free, from the next step on. With a limit of no tokens it has ended.
   *
   * @throws {RangeError} where the prompt is empty or leaves no room, or a setting is out of range.
   */
  add(request: GenerateRequest): void {
    const { sampling, limit } = checkRequest(request, this.#model.contextLen);
    if (request.prompt.length + limit > this.#capacity) {
      throw new RangeError(
        `Cannot generate: prompt and answer have up to ${request.prompt.length + limit} tokens, ` +
          `expected at most ${this.#capacity}, the capacity of a row`,
      );
    }
    if (limit > 0) this.#waiting.push({ request, sampling, limit, started: 0 });
  }

  /**
   * Draws one token of each row whose turn it is (none where all of them wait for tools) and enqueues the next forward pass, so that the
   * model computes while the caller works.
   *
   * @throws what a tool threw.
   */
  async step(): Promise<RowToken[]> {
    this.#fill();
    const calls = this.#rows.flatMap(({ call }) => call ?? []);
    if (calls.length > 0 && calls.length === this.#rows.length) await Promise.race(calls);
    if (this.#failure) throw this.#failure.error;
    const tokens = this.#rows.some(({ next }) => next === null) ? await this.#draw() : [];
    const isLive = ({ next, call, end }: Row) => next !== null && call === null && end === null;
    if (this.#rows.some(isLive)) {
      const live = Uint8Array.from(this.#rows, (row) => Number(isLive(row)));
      this.#decoder.step(this.#rows.map(({ next }) => next ?? 0), live);
      live.forEach((fed, i) => {
        if (fed) this.#rows[i].next = null;
      });
    }
    return tokens;
  }

  /** Gives the places of ended rows to samples that wait, or to the last rows, so that a step computes live rows only. */
  #fill(): void {
    for (let i = 0; i < this.#size; i++) {
      if (i < this.#rows.length && this.#rows[i].end === null) continue;
      if (this.#waiting.length > 0) this.#rows[i] = this.#start(i);
      else {
        while (this.#rows.at(-1)?.end) this.#rows.pop();
        if (i >= this.#rows.length) return;
        this.#decoder.move(this.#rows.length - 1, i);
        this.#rows[i] = this.#rows.pop()!;
      }
    }
  }

  /** Starts the next sample that waits. */
  #start(i: number): Row {
    const waiting = this.#waiting[0];
    const { request } = waiting;
    const { prompt } = request;
    const shared = commonPrefix(this.#prompt, prompt);
    if (shared < Math.max(prompt.length, this.#prompt.length)) {
      const kept = Math.min(shared, prompt.length - 1); // the last token is run for its logits
      this.#decoder.prefill(prompt.slice(kept), kept);
      this.#prompt = prompt;
    }
    this.#decoder.start(i);
    const row = new Row(request, waiting);
    if (++waiting.started === (request.samples ?? 1)) this.#waiting.shift();
    return row;
  }

  async #draw(): Promise<RowToken[]> {
    const { ids, logprobs } = await this.#decoder.sample(this.#rows.map(({ draw }) => draw));
    return this.#rows.flatMap((row, i) => {
      if (row.next !== null) return [];
      const forced = row.forced.shift();
      const id = forced ?? ids[i];
      const expression = row.accept(id, this.#marks);
      if (expression && row.end === null) this.#call(row, expression);
      const { request, draw: { sample }, end } = row;
      return { request, sample, id, sampled: forced === undefined, logprob: logprobs[i], end };
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
      this.#failure ??= { error };
    }).finally(() => row.call = null);
  }

  /** Frees the rows behind the work that is queued. */
  [Symbol.dispose](): void {
    this.#decoder[Symbol.dispose]();
  }
}

/** Counts the tokens that two prompts begin with alike. */
function commonPrefix(a: readonly number[], b: readonly number[]): number {
  const end = Math.min(a.length, b.length);
  for (let i = 0; i < end; i++) if (a[i] !== b[i]) return i;
  return end;
}
