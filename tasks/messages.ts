/** Messages of conversations that come as data: their roles and contents are checked before anything renders them. */
import type { Message } from "../src/data/conversation.ts";

/**
 * Checks a list of messages: at least two, user and assistant alternating from user on, contents that are texts.
 *
 * @param options.where place of the list, for the message
 * @param options.system whether a system message may come first
 * @throws {SyntaxError} naming the message that is wrong.
 */
export function checkMessages(value: unknown, { where, system }: { where: string; system: boolean }): Message[] {
  const refuse = (what: string) => new SyntaxError(`Cannot read ${where}: ${what}`);
  if (!Array.isArray(value)) throw refuse(`${shorten(value)}, expected a list of messages ${EXAMPLE}`);
  const messages: Message[] = value.map((message, i) => {
    const { role, content } = (message ?? {}) as Record<string, unknown>;
    for (const [name, part] of Object.entries({ role, content })) {
      if (part === undefined) {
        throw refuse(`message ${i} is ${shorten(message)} without "${name}", expected ${EXAMPLE}`);
      }
    }
    if (typeof content !== "string") throw refuse(`message ${i} has the content ${shorten(content)}, expected a text`);
    if (!content.isWellFormed()) throw refuse(`message ${i} has half a character (a lone surrogate), expected Unicode`);
    return { role: role as Message["role"], content };
  });
  const turns = system && messages[0]?.role === "system" ? messages.slice(1) : messages;
  if (turns.length < 2) throw refuse(`${turns.length} messages of user and assistant, expected at least two`);
  for (const [i, { role }] of turns.entries()) {
    const expected = i % 2 === 0 ? "user" : "assistant";
    if (role === expected) continue;
    const index = i + messages.length - turns.length;
    throw refuse(`message ${index} is from ${shorten(role)}, expected "${expected}"`);
  }
  return messages;
}

const EXAMPLE = '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]';

function shorten(value: unknown): string {
  const text = JSON.stringify(value) ?? "missing";
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}
