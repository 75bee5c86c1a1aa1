/**
 * Chat conversations as token ids with a training mask (1 = the model learns to say it).
 *
 * bos, then per message: user_start text user_end (mask 0); assistant_start (0), content, assistant_end (1). A system message in
 * front is joined to the first user message with a blank line. Assistant content is text (1) or parts: text (1), python between
 * python_start and python_end (1), what the tool printed between output_start and output_end (0).
 */

/** What rendering needs of a tokenizer. */
export interface TextEncoding {
  /** Encodes plain text; names of special tokens in it are text. */
  encode(text: string): number[];
  /** Finds the id of a special token by its name. */
  encodeSpecial(name: string): number;
}

/** One part of an assistant's answer: its own words, a tool call, or the tool's output. */
export interface Part {
  /** `python` is code for the tool; `python_output` is what it printed, never trained on. */
  readonly type: "text" | "python" | "python_output";
  /** Content without the special tokens around it. */
  readonly text: string;
}

/** One turn. Only an assistant's content may be parts. */
export interface Message {
  /** Speaker; "system" only in the first message. */
  readonly role: "system" | "user" | "assistant";
  /** Text, or an assistant's parts in order. */
  readonly content: string | readonly Part[];
}

/** A conversation: user and assistant alternate, from user on; a system message may come first. */
export interface Conversation {
  /** Turns in order, at least one. */
  readonly messages: readonly Message[];
}

/** Ids and, for each, whether it is trained on. */
export interface Rendered {
  /** Token ids, from `<|bos|>` on. */
  readonly ids: number[];
  /** 1 = trained on, 0 = context; as long as `ids`. */
  readonly mask: number[];
}

/** Ids that a conversation is cut to, whatever the model's context is. */
export const MAX_CONVERSATION_TOKENS = 2048;

/**
 * Renders a conversation for training, cut on the right to `maxTokens`.
 *
 * @throws {SyntaxError} where roles or contents are not those of a conversation.
 */
export function renderConversation(
  tokenizer: TextEncoding,
  conversation: Conversation,
  maxTokens: number = MAX_CONVERSATION_TOKENS,
): Rendered {
  const ids: number[] = [];
  const mask: number[] = [];
  const add = (trained: number, tokens: number[]) => {
    for (const id of tokens) {
      ids.push(id);
      mask.push(trained);
    }
  };
  const special = (name: string) => [tokenizer.encodeSpecial(`<|${name}|>`)];
  add(0, special("bos"));
  for (const [i, { role, content }] of joinSystem(conversation.messages).entries()) {
    const expected = i % 2 === 0 ? "user" : "assistant";
    if (role !== expected) throw refuse(`message ${i} is from "${role}", expected "${expected}"`);
    if (role === "user") {
      if (typeof content !== "string") throw refuse(`user message ${i} has parts, expected text`);
      add(0, [...special("user_start"), ...tokenizer.encode(content), ...special("user_end")]);
      continue;
    }
    add(0, special("assistant_start"));
    for (const part of typeof content === "string" ? [{ type: "text", text: content } as const] : content) {
      if (typeof part.text !== "string") throw refuse(`message ${i} has a part without text, expected text`);
      if (!PART_TYPES.has(part.type)) {
        throw refuse(`message ${i} has a part of type "${part.type}", expected ${[...PART_TYPES].join(", ")}`);
      }
      add(part.type === "python_output" ? 0 : 1, encodePart(tokenizer, part));
    }
    add(1, special("assistant_end"));
  }
  return { ids: ids.slice(0, maxTokens), mask: mask.slice(0, maxTokens) };
}

/**
 * Renders a conversation up to where the assistant has to answer: its last message, which must be the assistant's, is left out.
 * Up to {@link MAX_CONVERSATION_TOKENS} ids and the start token behind the cut.
 *
 * @throws {SyntaxError} where the last message is not the assistant's, or as {@link renderConversation}.
 */
export function renderForCompletion(tokenizer: TextEncoding, conversation: Conversation): number[] {
  const { messages } = conversation;
  const last = messages.at(-1)?.role;
  if (last !== "assistant") throw refuse(`the last message is from "${last}", expected "assistant"`);
  const { ids } = renderConversation(tokenizer, { messages: messages.slice(0, -1) });
  ids.push(tokenizer.encodeSpecial("<|assistant_start|>"));
  return ids;
}

/** The special tokens around parts. */
const PART_MARKS = { text: null, python: "python", python_output: "output" } as const satisfies Record<
  Part["type"],
  unknown
>;
const PART_TYPES: ReadonlySet<string> = new Set(Object.keys(PART_MARKS));

/** Encodes a part of an answer, always on its own: neighbouring texts do not merge across the border. */
export function encodePart(tokenizer: TextEncoding, { type, text }: Part): number[] {
  const ids = tokenizer.encode(text);
  const mark = PART_MARKS[type];
  if (mark === null) return ids;
  return [tokenizer.encodeSpecial(`<|${mark}_start|>`), ...ids, tokenizer.encodeSpecial(`<|${mark}_end|>`)];
}

/** Puts a leading system message in front of the user message that must follow it. */
function joinSystem(messages: readonly Message[]): readonly Message[] {
  if (messages.length === 0) throw refuse("it has no message, expected at least one");
  const [system, user, ...rest] = messages;
  if (system.role !== "system") return messages;
  if (user?.role !== "user") throw refuse(`behind "system" comes "${user?.role}", expected "user"`);
  if (typeof system.content !== "string" || typeof user.content !== "string") {
    throw refuse("its system or first user message has parts, expected text");
  }
  return [{ role: "user", content: `${system.content}\n\n${user.content}` }, ...rest];
}

function refuse(what: string): SyntaxError {
  return new SyntaxError(`Cannot render the conversation: ${what}`);
}
