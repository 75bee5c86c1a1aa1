/**
 * Takes the chunks of a streamed answer apart: `chat.completion.chunk` of OpenAI's API, or a whole `chat.completion` of a server that does
 * not stream. Our own server also sends `nanochat`: the calls of tools, and what became of the context.
 */
import type { Part } from "../data/conversation.ts";
import { type AnswerFigures, ChatError, type Heard } from "./chat_partner.ts";
import { messageOf, parseJson, shorten } from "./server_connection.ts";

type Fields = Readonly<Record<string, unknown>>;

const TOOL_KINDS: readonly unknown[] = ["python", "python_output"] satisfies Part["type"][];

/** Reads the chunks of one answer. */
export class AnswerChunks {
  /** Half a character at the end of a chunk, which the next one completes. */
  #half = "";
  #isFinished = false;

  /** Takes the data of a chunk. @throws {ChatError} where it is none, or tells of an error. */
  *push(data: string): Generator<Heard, void, void> {
    if (data === "[DONE]") {
      this.#isFinished = true;
      return;
    }
    const chunk = parseJson(data);
    const { choices, usage, error, nanochat } = fieldsOf(chunk);
    if (error) {
      throw new ChatError(`Cannot go on: the server says ${JSON.stringify(shorten(messageOf(chunk) ?? data))}`);
    }
    if (!Array.isArray(choices) && !usage) {
      throw new ChatError(`Cannot read the answer: the server sent ${JSON.stringify(shorten(data))}, expected a chunk`);
    }
    const { delta, message, finish_reason } = fieldsOf(Array.isArray(choices) ? choices[0] : undefined);
    const { content, refusal } = fieldsOf(delta ?? message);
    const text = [content, refusal].filter((part) => typeof part === "string").join("");
    if (text !== "") yield* this.#text(text);
    else yield* toolPieces(nanochat);
    if (typeof finish_reason === "string") {
      this.#isFinished = true;
      yield { kind: "figures", figures: { isCut: finish_reason === "length" } };
    }
    yield { kind: "figures", figures: figuresOf(fieldsOf(usage), fieldsOf(nanochat)) };
  }

  /** Ends the answer. @throws {ChatError} where no chunk said that it has ended. */
  *end(): Generator<Heard, void, void> {
    if (this.#half !== "") yield { kind: "text", text: this.#half.toWellFormed() };
    if (!this.#isFinished) throw new ChatError("Cannot go on: the stream ended in the middle of the answer");
  }

  *#text(given: string): Generator<Heard, void, void> {
    const text = this.#half + given;
    const isHalf = /[\ud800-\udbff]$/.test(text);
    this.#half = isHalf ? text.slice(-1) : "";
    const whole = (isHalf ? text.slice(0, -1) : text).toWellFormed();
    if (whole !== "") yield { kind: "text", text: whole };
  }
}

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null ? value as Fields : {};
}

function* toolPieces(nanochat: unknown): Generator<Heard, void, void> {
  const { tool_events } = fieldsOf(nanochat);
  for (const event of Array.isArray(tool_events) ? tool_events : []) {
    const { type, text } = fieldsOf(event);
    if (TOOL_KINDS.includes(type) && typeof text === "string") {
      yield { kind: type as Part["type"], text: text.toWellFormed() };
    }
  }
}

function figuresOf(usage: Fields, nanochat: Fields): AnswerFigures {
  const figures: Record<keyof AnswerFigures & `${string}${"Tokens" | "Len" | "Messages"}`, unknown> = {
    promptTokens: usage.prompt_tokens,
    cachedTokens: fieldsOf(usage.prompt_tokens_details).cached_tokens,
    answerTokens: usage.completion_tokens,
    contextLen: nanochat.context_length,
    droppedMessages: nanochat.dropped_messages,
  };
  const isCount = ([_, value]: [string, unknown]) => Number.isSafeInteger(value) && (value as number) >= 0;
  return Object.fromEntries(Object.entries(figures).filter(isCount));
}
