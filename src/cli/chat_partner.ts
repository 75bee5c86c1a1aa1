/**
 * Who answers in a chat: a model of this machine (`local_partner.ts`) or one behind a server (`remote_partner.ts`). A partner keeps
 * nothing of what was said: each answer is asked for with the whole conversation.
 */
import type { Message } from "../data/conversation.ts";
import type { Piece } from "../engine/answer.ts";

/** How answers are drawn; what is absent is left to the partner. */
export interface AnswerSettings {
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  /** Tokens of an answer at most. */
  readonly maxTokens?: number;
  /** Same draws each time; without it every answer draws anew. */
  readonly seed?: number;
}

/** What a partner knows about an answer; a server may know less. */
export interface AnswerFigures {
  /** Tokens of the prompt, and how many of them were computed for an earlier answer. */
  readonly promptTokens?: number;
  readonly cachedTokens?: number;
  /** Tokens of the answer, also those that are not shown. */
  readonly answerTokens?: number;
  /** Tokens that prompt and answer may have together. */
  readonly contextLen?: number;
  /** Messages that were left out because the context is full, oldest first. */
  readonly droppedMessages?: number;
  /** True where the answer ended at its greatest length. */
  readonly isCut?: boolean;
}

/** What is heard of an answer: a piece of it, or figures, of which later ones win. */
export type Heard = Piece | { readonly kind: "figures"; readonly figures: AnswerFigures };

/** What an answer is asked for with. */
export interface AnswerOptions {
  readonly settings: AnswerSettings;
  /** Ends the answer where it is, without an error. */
  readonly signal?: AbortSignal;
}

/** Somebody who answers. */
export interface ChatPartner {
  /** Name of the model that answers now. */
  readonly model: string;
  /** True for a base model: it knows no turns and continues the last message. */
  readonly completes: boolean;
  /**
   * Answers the last message, which is the user's. A system message may come first.
   *
   * @throws {ChatError} where there is no answer; what was heard before is no answer then.
   */
  answer(messages: readonly Message[], options: AnswerOptions): AsyncIterable<Heard>;
  /** Lists the names that `use` takes. @throws {ChatError} */
  models(): Promise<readonly string[]>;
  /** Lets another model answer from now on. @throws {ChatError} where there is none of this name; the old one stays. */
  use(model: string): Promise<void>;
}

/** Something that the user asked for cannot be had; the conversation goes on. */
export class ChatError extends Error {
  override name = "ChatError";
}
