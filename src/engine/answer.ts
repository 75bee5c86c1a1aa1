/** Takes the tokens of an answer apart: its words, tool calls, and the results of tools. */
import type { Part } from "../data/conversation.ts";
import { StreamDecoder, type Tokenizer } from "../data/tokenizer.ts";
import type { EngineTokenizer } from "./row.ts";

/** What reading an answer needs of a tokenizer. */
export type AnswerTokenizer = EngineTokenizer & Pick<Tokenizer, "token">;

/** A piece of an answer. */
export interface Piece {
  /** Text, the expression of a tool call, or its result. */
  readonly kind: Part["type"];
  readonly text: string;
}

/** Splits the tokens of an answer into text, tool calls and results; only whole characters come out. */
export class AnswerReader {
  readonly #kinds: ReadonlyMap<number, Part["type"]>;
  readonly #tokenizer: AnswerTokenizer;
  #kind: Part["type"] = "text";
  #stream: StreamDecoder;

  constructor(tokenizer: AnswerTokenizer) {
    this.#tokenizer = tokenizer;
    this.#stream = new StreamDecoder(tokenizer);
    this.#kinds = new Map([
      [tokenizer.encodeSpecial("<|python_start|>"), "python"],
      [tokenizer.encodeSpecial("<|python_end|>"), "text"],
      [tokenizer.encodeSpecial("<|output_start|>"), "python_output"],
      [tokenizer.encodeSpecial("<|output_end|>"), "text"],
    ]);
  }

  /** Tells whether a token marks the border of a tool call or a result: it has no text. */
  isMark(id: number): boolean {
    return this.#kinds.has(id);
  }

  /** Takes the next token; gives the pieces that are complete with it. */
  *push(id: number): Generator<Piece> {
    const next = this.#kinds.get(id);
    if (next === undefined) return yield* this.#piece(this.#stream.push(id));
    yield* this.end();
    this.#kind = next;
    this.#stream = new StreamDecoder(this.#tokenizer);
  }

  /** Gives what is left, a character that never became whole as U+FFFD. */
  *end(): Generator<Piece> {
    yield* this.#piece(this.#stream.flush());
  }

  *#piece(text: string): Generator<Piece> {
    if (text !== "") yield { kind: this.#kind, text };
  }
}

/** Returns the content of a message: a plain text, or its parts where tools were used. */
export function joinPieces(pieces: readonly Piece[]): string | readonly Part[] {
  const parts: { type: Part["type"]; text: string }[] = [];
  for (const { kind, text } of pieces) {
    const last = parts.at(-1);
    if (last?.type === kind) last.text += text;
    else parts.push({ type: kind, text });
  }
  return parts.every(({ type }) => type === "text") ? parts.map(({ text }) => text).join("") : parts;
}
