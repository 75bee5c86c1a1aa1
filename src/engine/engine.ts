/**
 * Generation: takes the ids of a prompt, gives columns of ids, one id a row and step, until every row has ended, the columns asked for
 * are made, or the context is full. Several rows continue one prompt: it is run once and its cache copied.
 *
 * Each row is watched by a small state machine: the tokens between `<|python_start|>` and `<|python_end|>` are given to the calculator,
 * and its result replaces the next sampled tokens (mask 0), wrapped in `<|output_start|>` and `<|output_end|>`. `<|assistant_end|>` and
 * `<|bos|>` end a row (nanochat/engine.py). No forward pass is made after the last column.
 */
import { calculate } from "./calculator.ts";
import { checkSampling, type Draw, type Drawn, type Sampling } from "./sample.ts";

/** What generation needs of a model: rows with a cache that advance one token at a time. */
export interface DecodeModel {
  /** Tokens that a sequence may have. */
  readonly contextLen: number;
  /** Makes `rows` empty rows of `capacity` tokens. */
  decoder(options: { readonly rows: number; readonly capacity: number }): Decoder;
}

/** Rows that are being generated. Calls enqueue; only `sample` waits. */
export interface Decoder extends Disposable {
  /** Runs tokens behind those that a row holds; leaves the logits of the next token. */
  prefill(row: number, tokens: readonly number[]): void;
  /** Makes row `to` continue from all that row `from` holds. */
  copy(from: number, to: number): void;
  /** Feeds one token to each row that is live; the others keep what they hold. */
  step(ids: Int32Array, live: Uint8Array): void;
  /** Draws the next token of each row from its logits. */
  sample(draws: readonly Draw[]): Promise<Drawn>;
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

/** Options of one generation. */
export interface GenerateOptions extends Partial<Sampling> {
  /** Rows that continue the prompt; 1. */
  readonly samples?: number;
  /** Columns at most; without it until the context is full. */
  readonly maxTokens?: number;
  /** Stops before the next column. */
  readonly signal?: AbortSignal;
  /** What computes tool calls; the calculator. */
  readonly tool?: Tool;
}

/** One id of each row. */
export interface Column {
  /** The next id of each row. */
  readonly ids: Int32Array;
  /** 1 = sampled, 0 = forced by the tool. */
  readonly masks: Uint8Array;
  /** 1 where the row had not ended before this column; what stands in the others means nothing. */
  readonly live: Uint8Array;
  /** log p of each sampled token; also where a forced one took its place. */
  readonly logprobs: Float32Array;
}

/** Whole sequences of a batch, the prompt included, without the token that ended them. */
export interface Generated {
  /** Ids of each row, prompt first. */
  readonly sequences: number[][];
  /** 1 = sampled, 0 = prompt or forced. */
  readonly masks: number[][];
}

/** Ids that the state machine watches for. */
interface Marks {
  readonly pythonStart: number;
  readonly pythonEnd: number;
  readonly outputStart: number;
  readonly outputEnd: number;
  readonly assistantEnd: number;
  readonly bos: number;
}

/** State of one row. */
class Row {
  /** Tokens that take the place of the next sampled ones. */
  readonly forced: number[] = [];
  ended = false;
  #collecting = false;
  #expression: number[] = [];

  /** Takes the row's next token; returns the ids of a finished tool call. */
  accept(token: number, marks: Marks): number[] | null {
    if (token === marks.assistantEnd || token === marks.bos) this.ended = true;
    if (token === marks.pythonStart) {
      this.#collecting = true;
      this.#expression = [];
    } else if (token === marks.pythonEnd && this.#collecting) {
      this.#collecting = false;
      return this.#expression.length > 0 ? this.#expression : null;
    } else if (this.#collecting) this.#expression.push(token);
    return null;
  }
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
    this.#marks = {
      pythonStart: tokenizer.encodeSpecial("<|python_start|>"),
      pythonEnd: tokenizer.encodeSpecial("<|python_end|>"),
      outputStart: tokenizer.encodeSpecial("<|output_start|>"),
      outputEnd: tokenizer.encodeSpecial("<|output_end|>"),
      assistantEnd: tokenizer.encodeSpecial("<|assistant_end|>"),
      bos: tokenizer.encodeSpecial("<|bos|>"),
    };
  }

  /** Tells whether a token ends a row. */
  isEnd(token: number): boolean {
    return token === this.#marks.assistantEnd || token === this.#marks.bos;
  }

  /**
   * Continues a prompt, one column at a time.
   *
   * @throws {RangeError} where the prompt is empty or leaves no room in the context, or a setting is out of range.
   */
  async *generate(prompt: readonly number[], options: GenerateOptions = {}): AsyncGenerator<Column, void, void> {
    const { samples = 1, signal, tool = calculate } = options;
    const sampling = checkSampling(options);
    const limit = this.#columns(prompt, options);
    if (limit === 0) return;
    using decoder = this.model.decoder({ rows: samples, capacity: prompt.length + limit });
    decoder.prefill(0, prompt);
    for (let row = 1; row < samples; row++) decoder.copy(0, row);

    const rows = Array.from({ length: samples }, () => new Row());
    for (let made = 0; made < limit && !signal?.aborted; made++) {
      const live = Uint8Array.from(rows, (row) => row.ended ? 0 : 1);
      if (!live.includes(1)) break;
      const position = prompt.length + made;
      const { ids, logprobs } = await decoder.sample(rows.map((_, sample) => ({ ...sampling, sample, position })));
      const masks = new Uint8Array(samples).fill(1);
      for (const [i, row] of rows.entries()) {
        const forced = row.forced.shift();
        if (forced !== undefined) {
          ids[i] = forced;
          masks[i] = 0;
        }
        const expression = row.accept(ids[i], this.#marks);
        if (expression) row.forced.push(...await this.#call(tool, expression));
      }
      // The next step is enqueued before the column goes out, so that the model computes while the caller prints.
      const next = Uint8Array.from(rows, (row) => row.ended ? 0 : 1);
      if (made + 1 < limit && next.includes(1)) decoder.step(ids, next);
      yield { ids, masks, live, logprobs };
    }
  }

  /** Continues a prompt to the end of every row. @throws {RangeError} as `generate`. */
  async generateBatch(prompt: readonly number[], options: GenerateOptions = {}): Promise<Generated> {
    const samples = options.samples ?? 1;
    const sequences = Array.from({ length: samples }, () => [...prompt]);
    const masks = sequences.map(() => prompt.map(() => 0));
    for await (const column of this.generate(prompt, options)) {
      column.ids.forEach((id, row) => {
        if (column.live[row] === 0 || this.isEnd(id)) return;
        sequences[row].push(id);
        masks[row].push(column.masks[row]);
      });
    }
    return { sequences, masks };
  }

  /** Returns how many columns may be made. */
  #columns(prompt: readonly number[], { samples = 1, maxTokens }: GenerateOptions): number {
    const { contextLen } = this.model;
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
    return Math.min(maxTokens ?? Infinity, contextLen - prompt.length);
  }

  /** Runs a tool call; returns the tokens that show its result, none where it has none. */
  async #call(tool: Tool, expression: readonly number[]): Promise<number[]> {
    const result = await tool(this.tokenizer.decode(expression));
    if (result === null) return [];
    return [this.#marks.outputStart, ...Array.from(this.tokenizer.encode(result)), this.#marks.outputEnd];
  }
}
