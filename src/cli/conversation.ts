/**
 * A conversation with a partner: what was said so far, and what comes of the next question.
 *
 * User and assistant alternate. A question without an answer may stand at the end (the answer failed, or was stopped before its first
 * word): `retry` asks it again, another question takes its place.
 */
import type { Message } from "../data/conversation.ts";
import { joinPieces, type Piece } from "../engine/answer.ts";
import type { AnswerFigures, AnswerSettings, ChatPartner } from "./chat_partner.ts";

/** The last answer in figures, and what it was asked for with. */
export interface LastAnswer extends AnswerFigures {
  readonly model: string;
  readonly settings: AnswerSettings;
  /** Time to its first piece, and from there to its end. */
  readonly firstMs: number;
  readonly restMs: number;
}

/** A conversation in progress. */
export class Conversation {
  /** Who answers. */
  readonly partner: ChatPartner;
  /** How the next answer is drawn. */
  settings: AnswerSettings;
  #system = "";
  #turns: Message[] = [];
  #last: LastAnswer | undefined;

  constructor(partner: ChatPartner, settings: AnswerSettings) {
    this.partner = partner;
    this.settings = settings;
  }

  /** Text that the conversation begins with; "" = none. */
  get system(): string {
    return this.#system;
  }

  set system(text: string) {
    this.#system = text;
    this.#last = undefined;
  }

  /** Whether asking again would give the same answer: it was drawn with the same seed, or without one at temperature 0. */
  get isRepeatable(): boolean {
    const { seed, temperature } = this.settings;
    const isSame = this.#last?.settings === this.settings && this.#last.model === this.partner.model;
    return isSame && this.unanswered === undefined && (seed !== undefined || temperature === 0);
  }

  /** What was said, the system message first: a conversation as training data has it. */
  get messages(): readonly Message[] {
    return this.system === "" ? this.#turns : [{ role: "system", content: this.system }, ...this.#turns];
  }

  /** Questions so far. */
  get questions(): number {
    return Math.ceil(this.#turns.length / 2);
  }

  /** The question that has no answer. */
  get unanswered(): string | undefined {
    return this.#turns.length % 2 === 1 ? this.#turns.at(-1)!.content as string : undefined;
  }

  /** Figures of the last answer, while what was said stands as it was then. */
  get last(): LastAnswer | undefined {
    return this.#last;
  }

  /** Forgets what was said; the system message stays. */
  clear(): void {
    this.#replace([]);
  }

  /** Goes on from messages that alternate, the user's first; a system message may stand in front. */
  load(messages: readonly Message[]): void {
    const hasSystem = messages[0]?.role === "system";
    this.system = hasSystem ? messages[0].content as string : "";
    this.#replace(messages.slice(hasSystem ? 1 : 0));
  }

  /** Forgets the last question with its answer; returns the question, undefined where nothing was said. */
  undo(): string | undefined {
    const kept = Math.max(0, 2 * this.questions - 2);
    const question = this.#turns[kept]?.content as string | undefined;
    this.#replace(this.#turns.slice(0, kept));
    return question;
  }

  /**
   * Asks and streams the answer. What was answered until an abort is kept.
   *
   * @throws {ChatError} where there is no answer; the question stays.
   */
  async *ask(text: string, signal?: AbortSignal): AsyncGenerator<Piece, void, void> {
    if (this.unanswered !== undefined) this.#turns.pop();
    this.#turns.push({ role: "user", content: text });
    yield* this.#answer(signal);
  }

  /**
   * Asks the last question again; the new answer takes the place of the old one. Without any question nothing comes.
   *
   * @throws {ChatError} where there is no answer; the old one stays.
   */
  async *retry(signal?: AbortSignal): AsyncGenerator<Piece, void, void> {
    if (this.#turns.length === 0) return;
    const old = this.unanswered === undefined ? this.#turns.pop() : undefined;
    try {
      yield* this.#answer(signal);
    } finally {
      if (old !== undefined && this.unanswered !== undefined) this.#turns.push(old);
    }
  }

  async *#answer(signal?: AbortSignal): AsyncGenerator<Piece, void, void> {
    const pieces: Piece[] = [];
    const { settings, partner } = this;
    const { model } = partner;
    const started = performance.now();
    let firstMs = 0;
    let figures: AnswerFigures = {};
    let hasFailed = true;
    try {
      for await (const heard of partner.answer(this.messages, { settings, signal })) {
        if (heard.kind === "figures") {
          figures = { ...figures, ...heard.figures };
          continue;
        }
        if (pieces.length === 0) firstMs = performance.now() - started;
        pieces.push(heard);
        yield heard;
      }
      hasFailed = false;
    } finally {
      this.#last = { ...figures, model, settings, firstMs, restMs: performance.now() - started - firstMs };
      const isStoppedAtOnce = signal?.aborted && pieces.length === 0;
      if (!hasFailed && !isStoppedAtOnce) this.#turns.push({ role: "assistant", content: joinPieces(pieces) });
    }
  }

  #replace(turns: Message[]): void {
    this.#turns = turns;
    this.#last = undefined;
  }
}
