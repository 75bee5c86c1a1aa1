/**
 * What a client sees of an answer: its words are the content, the calls of tools and their results are events beside it. Where the server
 * shows tools they stand in the content too, between the model's own marks as the reference prints them.
 */
import type { Part } from "../data/conversation.ts";
import type { GenerationEvent, TokenLogprob } from "./models.ts";

/** A piece of an answer as the models give it. */
export type PieceEvent = Extract<GenerationEvent, { type: "piece" }>;

/** A piece of a call of the calculator, or of its result; pieces of one type at one offset belong together. */
export interface ToolEvent {
  readonly choice: number;
  readonly type: "python" | "python_output";
  readonly text: string;
  /** Characters of the content (Unicode code points) in front of it. */
  readonly content_offset: number;
}

/** What a piece adds. */
export interface Seen {
  readonly content: string;
  /** Tokens of the content. */
  readonly tokens: readonly TokenLogprob[];
  readonly toolEvent?: ToolEvent;
}

const MARKS: Readonly<Record<Part["type"], { opening: string; closing: string }>> = {
  text: { opening: "", closing: "" },
  python: { opening: "<|python_start|>", closing: "<|python_end|>" },
  python_output: { opening: "<|output_start|>", closing: "<|output_end|>" },
};

/** Follows the pieces of one choice. */
export class AnswerView {
  readonly #showTools: boolean;
  #kind: Part["type"] = "text";
  #length = 0;
  /** Length at which the kind began. */
  #begin = 0;

  constructor({ showTools }: { showTools: boolean }) {
    this.#showTools = showTools;
  }

  /** Takes the next piece. */
  take({ choice, kind, text, tokens = [] }: PieceEvent): Seen {
    const border = this.#turnTo(kind);
    const isContent = kind === "text" || this.#showTools;
    const toolEvent = kind === "text" ? undefined : { choice, type: kind, text, content_offset: this.#begin };
    const content = isContent ? border + text : border;
    this.#length += [...content].length;
    return { content, tokens: isContent ? tokens : [], toolEvent };
  }

  /** Returns what is left to show at the end. */
  end(): string {
    return this.#turnTo("text");
  }

  #turnTo(kind: Part["type"]): string {
    if (kind === this.#kind) return "";
    const border = MARKS[this.#kind].closing + MARKS[kind].opening;
    this.#kind = kind;
    this.#begin = this.#length;
    return this.#showTools ? border : "";
  }
}

/** Joins the events of one choice that belong together. */
export function joinToolEvents(events: readonly ToolEvent[]): ToolEvent[] {
  const joined: ToolEvent[] = [];
  for (const event of events) {
    const last = joined.findLastIndex(({ choice }) => choice === event.choice);
    const { type, content_offset, text } = joined[last] ?? {};
    if (type === event.type && content_offset === event.content_offset) {
      joined[last] = { ...event, text: text + event.text };
    } else joined.push(event);
  }
  return joined;
}
