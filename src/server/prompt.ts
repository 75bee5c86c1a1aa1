/**
 * Takes the prompt of a request, gives its ids, so that prompt and answer fit the context.
 *
 *   <|bos|> (<|user_start|> text <|user_end|> | <|assistant_start|> parts <|assistant_end|>)... <|assistant_start|>
 *
 * as the reference's chat_web renders a conversation. What clients may send beyond what models are trained on is put in their terms:
 *
 * - texts of `system` and `developer` messages stand in front of the next user message, with a blank line behind each (as in training);
 *   behind the last user message they are a user turn of their own;
 * - a `tool` message is the output of a tool at the end of the assistant's turn before it, which goes on: with the assistant message
 *   that follows, or, where the tool message is the last one, with the answer. One that follows no assistant message begins a turn;
 * - messages of one role in a row stay turns of their own.
 *
 * What cannot fit is not encoded, however long it is: a text has at least as many tokens as its length in the longest token. So a client
 * that sends a megabyte holds nobody up.
 *
 * Where the context is too small the oldest exchanges (a user's turn and what answers it) are left out, never what the system says, nor
 * the last user message. Names of special tokens in a text are text.
 */
import { encodePart, type Part, type TextEncoding } from "../data/conversation.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { type ChatMessage, type Prompt, ServiceError } from "./models.ts";

/** What rendering needs of a tokenizer. */
export type PromptTokenizer = TextEncoding & Pick<Tokenizer, "token">;

/** What a prompt must fit. */
export interface PromptLimits {
  readonly contextLen: number;
  readonly vocabSize: number;
  /** Tokens of the answer at most; without it until the context is full. */
  readonly maxTokens?: number;
  /** A base model: the text of the last message is continued. */
  readonly completes: boolean;
}

/** A prompt as the model is given it. */
export interface RenderedPrompt {
  readonly ids: number[];
  /** Where what the client wrote begins: behind a `<|bos|>` that was put in front. */
  readonly from: number;
  /** Messages that were left out. */
  readonly droppedMessages: number;
}

/**
 * Renders a prompt.
 *
 * @throws {ServiceError} "context_length_exceeded" where even its last message leaves no room for an answer, "invalid_value" where it
 * has no message or an id that is not in the vocabulary.
 */
export function renderPrompt(tokenizer: PromptTokenizer, prompt: Prompt, limits: PromptLimits): RenderedPrompt {
  const bos = tokenizer.encodeSpecial("<|bos|>");
  if ("tokens" in prompt) {
    const wrong = prompt.tokens.find((id) => !Number.isInteger(id) || id < 0 || id >= limits.vocabSize);
    if (wrong !== undefined) {
      throw new ServiceError(
        "invalid_value",
        `Cannot use token id ${wrong}, expected an integer of 0 to ${limits.vocabSize - 1}`,
      );
    }
    const from = prompt.tokens[0] === bos ? 0 : 1;
    return checkLength(
      { ids: from === 0 ? [...prompt.tokens] : [bos, ...prompt.tokens], from, droppedMessages: 0 },
      limits,
    );
  }
  if ("messages" in prompt && !limits.completes) return renderMessages(tokenizer, prompt.messages, limits);
  const text = "text" in prompt ? prompt.text : textOf(lastOf(prompt.messages));
  checkLeast(leastTokens(tokenizer, text, limits), limits);
  return checkLength({ ids: [bos, ...tokenizer.encode(text)], from: 1, droppedMessages: 0 }, limits);
}

/** Bytes of the longest token of each tokenizer. */
const LONGEST = new WeakMap<PromptTokenizer, number>();

/** Gives a number of tokens that a text has at least. */
function leastTokens(tokenizer: PromptTokenizer, text: string, { vocabSize }: PromptLimits): number {
  let longest = LONGEST.get(tokenizer);
  if (longest === undefined) {
    longest = 1;
    for (let id = 0; id < vocabSize; id++) longest = Math.max(longest, tokenizer.token(id).length);
    LONGEST.set(tokenizer, longest);
  }
  return text.length / longest; // UTF-8 has no fewer bytes than UTF-16 has units
}

/** Refuses what has more tokens than the context, counted from below. */
function checkLeast(tokens: number, { contextLen }: PromptLimits): void {
  if (tokens <= contextLen) return;
  throw new ServiceError(
    "context_length_exceeded",
    `Cannot answer: the prompt has at least ${
      Math.ceil(tokens)
    } tokens, expected fewer than the context of ${contextLen}`,
  );
}

function checkLength(rendered: RenderedPrompt, { contextLen, maxTokens }: PromptLimits): RenderedPrompt {
  const { length } = rendered.ids;
  if (length + (maxTokens === 0 ? 0 : 1) <= contextLen) return rendered;
  throw new ServiceError(
    "context_length_exceeded",
    `Cannot answer: the prompt has ${length} tokens, expected fewer than the context of ${contextLen}`,
  );
}

function lastOf(messages: readonly ChatMessage[]): ChatMessage {
  const last = messages.at(-1);
  if (last === undefined) throw new ServiceError("invalid_value", "Cannot answer: there is no message, expected one");
  return last;
}

function textOf({ content }: ChatMessage): string {
  return typeof content === "string" ? content : content.map(({ text }) => text).join("");
}

/** What stands between two marks of a speaker. */
interface Turn {
  readonly role: "user" | "assistant";
  /** What the system says in front of a user. */
  readonly system: readonly string[];
  readonly parts: Part[];
  /** Messages in it, those of the system not counted. */
  messages: number;
}

/** Joins messages to turns; the last one goes on where its last message is a tool's. */
function turnsOf(messages: readonly ChatMessage[]): { readonly turns: Turn[]; readonly goesOn: boolean } {
  const turns: Turn[] = [];
  let system: string[] = [];
  let before: ChatMessage["role"] | undefined;
  for (const message of messages) {
    const { role, content } = message;
    if (role === "system" || role === "developer") {
      system.push(textOf(message));
      continue;
    }
    const isAnswer = role !== "user";
    const continues = turns.at(-1)?.role === "assistant" && (role === "tool" || (isAnswer && before === "tool"));
    if (!continues) {
      turns.push({ role: isAnswer ? "assistant" : "user", system: isAnswer ? [] : system, parts: [], messages: 0 });
      if (!isAnswer) system = [];
    }
    const isParts = role === "assistant" && typeof content !== "string";
    const type = role === "tool" ? "python_output" : "text";
    turns.at(-1)!.parts.push(...isParts ? content : [{ type, text: textOf(message) } as const]);
    turns.at(-1)!.messages++;
    before = role;
  }
  const isLeft = system.length > 0;
  if (isLeft) turns.push({ role: "user", system, parts: [], messages: 0 });
  return { turns, goesOn: before === "tool" && !isLeft };
}

function encodeTurn(tokenizer: PromptTokenizer, { role, system, parts }: Turn): number[] {
  const ids = role === "user"
    ? tokenizer.encode([...system, ...parts.map(({ text }) => text)].join("\n\n"))
    : parts.flatMap((part) => encodePart(tokenizer, part));
  return [tokenizer.encodeSpecial(`<|${role}_start|>`), ...ids, tokenizer.encodeSpecial(`<|${role}_end|>`)];
}

function renderMessages(
  tokenizer: PromptTokenizer,
  messages: readonly ChatMessage[],
  limits: PromptLimits,
): RenderedPrompt {
  lastOf(messages);
  const { turns, goesOn } = turnsOf(messages);
  const beginnings = possibleBeginnings(tokenizer, turns, limits);
  const encoded = turns.map((turn, i) => i < beginnings[0] ? [] : encodeTurn(tokenizer, turn));
  /** Ids without the turns before `first`, which is a user's; what the system said there is said to that user. */
  const render = (first: number) => {
    const system = turns.slice(0, first + 1).flatMap((turn) => turn.system);
    const kept = first === 0 ? encoded[0] : encodeTurn(tokenizer, { ...turns[first], system });
    const ids = [tokenizer.encodeSpecial("<|bos|>"), ...kept, ...encoded.slice(first + 1).flat()];
    if (goesOn) ids.pop(); // the mark that ends the assistant's turn
    else ids.push(tokenizer.encodeSpecial("<|assistant_start|>"));
    return ids;
  };
  const { contextLen, maxTokens = Infinity } = limits;
  const room = contextLen - Math.min(maxTokens, Math.floor(contextLen / 2));
  const first = firstThat((first) => render(first).length <= room, beginnings);
  const droppedMessages = turns.slice(0, first).reduce((sum, { messages }) => sum + messages, 0);
  return checkLength({ ids: render(first), from: 1, droppedMessages }, limits);
}

/**
 * Lists the turns with which the conversation may begin and perhaps fit, counted from below, from the longest one on.
 *
 * @throws {ServiceError} where even the shortest one does not.
 */
function possibleBeginnings(tokenizer: PromptTokenizer, turns: readonly Turn[], limits: PromptLimits): number[] {
  const least = (texts: readonly string[]) =>
    texts.reduce((sum, text) => sum + leastTokens(tokenizer, text, limits), 0);
  const all = exchanges(turns);
  let tokens = least(turns.flatMap(({ system }) => system)); // said in any case, what follows the beginning in its place
  let next = turns.length;
  const possible = all.toReversed().filter((first, i) => {
    for (; next > first; next--) tokens += least(turns[next - 1].parts.map(({ text }) => text));
    if (i === 0) checkLeast(tokens, limits);
    return tokens <= limits.contextLen;
  });
  return possible.reverse();
}

/** Lists the turns with which a shorter conversation may begin, from the first on. */
function exchanges(turns: readonly Turn[]): number[] {
  const users = turns.flatMap(({ role }, i) => role === "user" ? [i] : []);
  const last = turns.findLastIndex(({ role, messages }) => role === "user" && messages > 0);
  return [0, ...users.filter((i) => i > 0 && (last < 0 || i <= last))];
}

/** Finds the first of a list that passes a test which all behind it pass too, else the last one. */
function firstThat(passes: (item: number) => boolean, list: readonly number[]): number {
  let [low, high] = [0, list.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (passes(list[middle])) high = middle;
    else low = middle + 1;
  }
  return list[low];
}
