/**
 * One sample in a row of a batch: a small state machine that watches its tokens for ends and tool calls.
 *
 * The tokens between `<|python_start|>` and `<|python_end|>` are given to the tool, and its result replaces the next sampled tokens,
 * wrapped in `<|output_start|>` and `<|output_end|>`. `<|assistant_end|>` and `<|bos|>` end a row (nanochat/engine.py).
 */
import type { CheckedRequest, GenerateRequest, RowToken } from "./request.ts";
import { type Draw, LogitChanges } from "./sample.ts";

/** What generation needs of a tokenizer. */
export interface EngineTokenizer {
  /** Encodes plain text; names of special tokens in it are text. */
  encode(text: string): ArrayLike<number>;
  /** Decodes ids to text. */
  decode(ids: ArrayLike<number>): string;
  /** Finds the id of a special token by its name. */
  encodeSpecial(name: string): number;
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

/** One sample of a request. */
export class Row {
  readonly request: GenerateRequest;
  /** Token that the model has not seen yet; null = the next one can be drawn. */
  next: number | null = null;
  /** A tool computes: the row waits. */
  call: Promise<void> | null = null;
  /** Nobody wants its tokens any more. */
  isCancelled = false;
  /** Tokens that take the place of the next sampled ones. */
  readonly forced: number[] = [];
  readonly draw: Draw & { position: number };
  #end: RowToken["end"] = null;
  readonly #tokens: number[]; // of prompt and answer
  readonly #cachedTokens: number;
  readonly #limit: number;
  readonly #changes: LogitChanges | null;
  #expression: number[] | null = null;

  /** Starts a sample behind the prompt of a request. */
  constructor(
    { request, sampling, penalties, limit }: CheckedRequest,
    { sample, cachedTokens }: { readonly sample: number; readonly cachedTokens: number },
  ) {
    this.request = request;
    this.#cachedTokens = cachedTokens;
    this.#tokens = [...request.prompt];
    this.#changes = penalties && new LogitChanges(penalties);
    this.draw = {
      ...{ ...sampling, sample, position: request.prompt.length },
      ...{ changes: this.#changes?.values, topLogprobs: request.topLogprobs },
    };
    this.#limit = request.prompt.length + limit;
  }

  /** Whether it has ended, or was cancelled. */
  get isOver(): boolean {
    return this.#end !== null || this.isCancelled;
  }

  /** Whether the model can be fed its next token. */
  get isLive(): boolean {
    return this.next !== null && this.call === null && !this.isOver;
  }

  /** Gives the tokens that the model has seen. */
  held(): readonly number[] {
    return this.next === null ? this.#tokens : this.#tokens.slice(0, -1);
  }

  /** Takes the row's next token; returns the ids of a finished tool call. */
  accept(token: number, marks: Marks): number[] | null {
    this.next = token;
    this.#tokens.push(token);
    this.draw.position++;
    this.#changes?.count(token);
    if (isEnd(token, marks)) this.#end = "stop";
    else if (this.draw.position === this.#limit) this.#end = "length";
    const expression = this.#expression;
    if (token === marks.pythonStart) this.#expression = [];
    else if (token === marks.pythonEnd) this.#expression = null;
    else expression?.push(token);
    return token === marks.pythonEnd && expression?.length ? expression : null;
  }

  /** Says what became of the token that was accepted last. */
  report(token: Pick<RowToken, "id" | "sampled" | "logprob" | "top">): RowToken {
    const { request, draw: { sample } } = this;
    return { request, sample, ...token, cachedTokens: this.#cachedTokens, end: this.#end };
  }
}
