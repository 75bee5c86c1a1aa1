/**
 * One answer on its way to the client: takes the tokens of a row, gives pieces of text, up to a mark, a stop text or the limit.
 *
 * Stop texts are looked for in the answer's own words; a tool call between two words parts them.
 */
import { AnswerReader, type AnswerTokenizer, type Piece } from "../engine/answer.ts";
import type { RowToken } from "../engine/batch.ts";
import type { GenerationEvent, TokenLogprob, TokenText } from "./models.ts";
import type { StopTexts } from "./stop_texts.ts";

type AnswerEvent = Extract<GenerationEvent, { type: "piece" | "end" }>;

/** Shows a token as text. */
export function tokenText(tokenizer: Pick<AnswerTokenizer, "token">, id: number): TokenText {
  const bytes = tokenizer.token(id);
  return { text: new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes), bytes: Array.from(bytes) };
}

/** Shows a token with its log-probability and the candidates at its place. */
export function tokenLogprob(
  tokenizer: Pick<AnswerTokenizer, "token">,
  { id, logprob, top = [] }: Pick<RowToken, "id" | "logprob" | "top">,
): TokenLogprob {
  const candidates = top.map((candidate) => ({ ...tokenText(tokenizer, candidate.id), logprob: candidate.logprob }));
  return { ...tokenText(tokenizer, id), logprob, top: candidates };
}

/** A token and where its text ends in the answer; it is not known as long as no character is whole. */
interface Placed {
  readonly token: TokenLogprob;
  end: number;
}

/** Reads one answer. */
export class Choice {
  readonly #tokenizer: AnswerTokenizer;
  readonly #choice: number;
  readonly #reader: AnswerReader;
  readonly #stops: StopTexts;
  /** Tokens that no piece has reported; null where nobody asks for them. */
  readonly #tokens: Placed[] | null;
  /** Characters that were read, and those that went out. */
  #read = 0;
  #sent = 0;
  #count = 0;
  #isDone = false;

  /** Begins answer number `choice`. */
  constructor(
    tokenizer: AnswerTokenizer,
    { choice, stops, withTokens }: { choice: number; stops: StopTexts; withTokens: boolean },
  ) {
    this.#tokenizer = tokenizer;
    this.#choice = choice;
    this.#reader = new AnswerReader(tokenizer);
    this.#stops = stops;
    this.#tokens = withTokens ? [] : null;
  }

  /** Whether it has ended: at a stop text the row goes on, and has to be cancelled. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** Takes the next token of the row; gives what can be told with it. */
  *push(token: RowToken): Generator<AnswerEvent> {
    this.#count++;
    if (token.end !== "stop") yield* this.#tell(this.#pieces(token));
    if (token.end !== null && !this.#stops.isFound) {
      yield* this.#tell(this.#place([...this.#reader.end()]));
      yield* this.#piece("text", this.#stops.end());
    }
    if (token.end === null && !this.#stops.isFound) return;
    this.#isDone = true;
    const reason = this.#stops.isFound ? "stop" : token.end!;
    yield { type: "end", choice: this.#choice, reason, completionTokens: this.#count };
  }

  /** Reads a token that belongs to the answer. */
  #pieces(token: RowToken): Piece[] {
    const pieces = [...this.#reader.push(token.id)];
    // A mark has no text, and what a tool forced was not the model's choice.
    if (token.sampled && !this.#reader.isMark(token.id)) {
      this.#tokens?.push({ token: tokenLogprob(this.#tokenizer, token), end: Infinity });
    }
    return this.#place(pieces);
  }

  /** Notes where the tokens read so far end, once characters are whole. */
  #place(pieces: Piece[]): Piece[] {
    const length = pieces.reduce((sum, { text }) => sum + text.length, 0);
    this.#read += length;
    if (length > 0) {
      for (const placed of this.#tokens ?? []) placed.end = Math.min(placed.end, this.#read);
    }
    return pieces;
  }

  *#tell(pieces: readonly Piece[]): Generator<AnswerEvent> {
    for (const { kind, text } of pieces) {
      if (this.#stops.isFound) return;
      if (kind === "text") yield* this.#piece(kind, this.#stops.push(text));
      else {
        yield* this.#piece("text", this.#stops.end());
        yield* this.#piece(kind, text);
      }
    }
  }

  *#piece(kind: Piece["kind"], text: string): Generator<AnswerEvent> {
    if (text === "") return;
    this.#sent += text.length;
    const piece = { type: "piece", choice: this.#choice, kind, text } as const;
    if (this.#tokens === null) return yield piece;
    const open = this.#tokens.findIndex(({ end }) => end > this.#sent);
    const told = this.#tokens.splice(0, open < 0 ? this.#tokens.length : open);
    yield { ...piece, tokens: told.map(({ token }) => token) };
  }
}
