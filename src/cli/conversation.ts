/**
 * A conversation with a model: keeps the turns as tokens, drops the oldest when the context is full, streams the answer as text.
 *
 * A turn is `<|user_start|> text <|user_end|> <|assistant_start|> answer <|assistant_end|>`; tool calls and their results stay in it
 * (nanochat/chat_cli.py). A base model has no turns: each text is completed on its own.
 */
import type { Part } from "../data/conversation.ts";
import { AnswerReader, type AnswerTokenizer, joinPieces, type Piece } from "../engine/answer.ts";
import type { Engine, GenerateOptions } from "../engine/engine.ts";
import { freshSeed } from "../engine/sample.ts";

/** Settings of a conversation. */
export interface ConversationOptions extends Pick<GenerateOptions, "temperature" | "topK" | "topP" | "tool"> {
  /** Tokens of an answer at most. */
  readonly maxTokens: number;
  /** Same draws each time; without it every turn draws anew. */
  readonly seed?: number;
  /** Base model: no turns, the text is completed. */
  readonly completes: boolean;
}

/** A message as training data has it. */
export interface Message {
  readonly role: "user" | "assistant";
  readonly content: string | readonly Part[];
}

/** Figures of a conversation. */
export interface ConversationStats {
  readonly turns: number;
  /** Tokens that the next prompt begins with, and how many fit. */
  readonly contextTokens: number;
  readonly contextLen: number;
  /** Turns that were dropped because the context was full. */
  readonly droppedTurns: number;
  readonly answerTokens: number;
  readonly lastTokens: number;
  /** Time to the first token of the last answer, and speed of the others. */
  readonly lastFirstMs: number;
  readonly lastTokPerSec: number;
}

interface Turn {
  readonly tokens: readonly number[];
}

/** A conversation in progress. */
export class Conversation {
  readonly #engine: Engine;
  readonly #tokenizer: AnswerTokenizer;
  readonly #options: ConversationOptions;
  #turns: Turn[] = [];
  #messages: Message[] = [];
  #droppedTurns = 0;
  #answerTokens = 0;
  #last = { tokens: 0, firstMs: 0, tokPerSec: 0 };

  constructor(engine: Engine, tokenizer: AnswerTokenizer, options: ConversationOptions) {
    this.#engine = engine;
    this.#tokenizer = tokenizer;
    this.#options = options;
  }

  /** Messages so far, also of dropped turns. */
  get messages(): readonly Message[] {
    return this.#messages;
  }

  /** Figures for `/stats`. */
  get stats(): ConversationStats {
    return {
      turns: this.#messages.length / 2,
      contextTokens: 1 + tokenCount(this.#turns),
      contextLen: this.#engine.model.contextLen,
      droppedTurns: this.#droppedTurns,
      answerTokens: this.#answerTokens,
      lastTokens: this.#last.tokens,
      lastFirstMs: this.#last.firstMs,
      lastTokPerSec: this.#last.tokPerSec,
    };
  }

  /** Forgets everything that was said. */
  clear(): void {
    this.#turns = [];
    this.#messages = [];
    this.#droppedTurns = 0;
  }

  /**
   * Asks and streams the answer. What was answered until an abort is kept.
   *
   * @throws {RangeError} where the text alone does not fit the context.
   */
  async *ask(text: string, signal?: AbortSignal): AsyncGenerator<Piece, void, void> {
    const question = this.#question(text);
    this.#makeRoom(question.length);
    const prompt = [this.#special("bos"), ...this.#turns.flatMap((turn) => turn.tokens), ...question];
    const { temperature, topK, topP, tool, maxTokens, seed = freshSeed() } = this.#options;
    const answer: number[] = [];
    const pieces: Piece[] = [];
    const reader = new AnswerReader(this.#tokenizer);
    const started = performance.now();
    let firstMs = 0;
    try {
      for await (
        const { ids: [id] } of this.#engine.generate(prompt, { temperature, topK, topP, tool, maxTokens, seed, signal })
      ) {
        if (answer.length === 0) firstMs = performance.now() - started;
        if (this.#engine.isEnd(id)) break;
        answer.push(id);
        for (const piece of reader.push(id)) {
          pieces.push(piece);
          yield piece;
        }
      }
      for (const piece of reader.end()) {
        pieces.push(piece);
        yield piece;
      }
    } finally {
      const restMs = performance.now() - started - firstMs;
      this.#last = { tokens: answer.length, firstMs, tokPerSec: restMs > 0 ? 1000 * (answer.length - 1) / restMs : 0 };
      this.#answerTokens += answer.length;
      if (!this.#options.completes) {
        this.#turns.push({ tokens: [...question, ...answer, this.#special("assistant_end")] });
      }
      this.#messages.push({ role: "user", content: text }, { role: "assistant", content: joinPieces(pieces) });
    }
  }

  #question(text: string): number[] {
    const ids = Array.from(this.#tokenizer.encode(text));
    if (this.#options.completes) return ids;
    return [this.#special("user_start"), ...ids, this.#special("user_end"), this.#special("assistant_start")];
  }

  /** Drops the oldest turns until the question and an answer fit; an answer is given at most half of the context. */
  #makeRoom(questionLen: number): void {
    const { contextLen } = this.#engine.model;
    const answerLen = Math.min(this.#options.maxTokens, Math.floor(contextLen / 2));
    if (1 + questionLen >= contextLen) {
      throw new RangeError(`Cannot answer: the text has ${questionLen} tokens, expected at most ${contextLen - 2}`);
    }
    while (this.#turns.length > 0 && 1 + tokenCount(this.#turns) + questionLen + answerLen > contextLen) {
      this.#turns.shift();
      this.#droppedTurns++;
    }
  }

  #special(name: string): number {
    return this.#tokenizer.encodeSpecial(`<|${name}|>`);
  }
}

function tokenCount(turns: readonly Turn[]): number {
  return turns.reduce((sum, turn) => sum + turn.tokens.length, 0);
}
