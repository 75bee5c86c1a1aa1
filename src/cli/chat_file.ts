/**
 * Conversations as files: one line of JSON, a list of messages as training data has it (`/save`, `/load`), or text to read (`/save` alone).
 * What is loaded was written by anybody: it is checked message by message.
 */
import type { Message, Part } from "../data/conversation.ts";
import { join } from "@std/path";
import { ChatError } from "./chat_partner.ts";
import { plainOsError } from "./os_error.ts";

const MAX_FILE_BYTES = 16 * 1024 * 1024;
const KINDS: readonly unknown[] = ["text", "python", "python_output"] satisfies Part["type"][];

/** Puts the home folder in the place of a "~" in front: there is no shell that does it. */
export function expandHome(path: string): string {
  const home = Deno.env.get("HOME");
  return home && /^~(\/|$)/.test(path) ? join(home, path.slice(1)) : path;
}

/** Writes a conversation as its file has it: text where the name ends in .txt or .md, else JSON. */
export function conversationFile(path: string, messages: readonly Message[]): string {
  if (!/\.(txt|md)$/i.test(path)) return `${JSON.stringify(messages)}\n`;
  return messages.map(({ role, content }) => {
    const text = typeof content === "string" ? content : content.map((part) => part.text).join("");
    return `${role === "user" ? "> " : role === "system" ? "# " : ""}${text}\n`;
  }).join("\n");
}

/** Reads a conversation that was saved as JSON. @throws {ChatError} where the file is missing or anything else. */
export function loadConversation(path: string): Message[] {
  const refuse = (what: string, cause?: unknown) => new ChatError(`Cannot load "${path}": ${what}`, { cause });
  let text: string;
  try {
    const { isFile, size } = Deno.statSync(path);
    if (!isFile) throw refuse("it is no file, expected one that /save wrote");
    if (size > MAX_FILE_BYTES) throw refuse(`it has ${size} bytes, expected at most ${MAX_FILE_BYTES}`);
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Deno.readFileSync(path));
  } catch (error) {
    if (error instanceof ChatError) throw error;
    if (error instanceof TypeError) throw refuse("it is no UTF-8, expected a file that /save wrote", error);
    throw new ChatError(plainOsError(`Cannot load "${path}": ${(error as Error).message}`), { cause: error });
  }
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  if (lines.length !== 1) throw refuse(`it has ${lines.length} lines, expected one conversation`);
  let value: unknown;
  try {
    value = JSON.parse(lines[0]);
  } catch (cause) {
    throw refuse("it is no JSON, expected a file that /save wrote", cause);
  }
  const problem = problemOf(value);
  if (problem !== undefined) throw refuse(problem);
  return (value as Message[]).map(({ role, content }) => ({ role, content }));
}

/** Says what keeps a value from being a conversation. */
function problemOf(value: unknown): string | undefined {
  if (!Array.isArray(value)) return "it is no list, expected a list of messages";
  const turns = value[0]?.role === "system" ? value.slice(1) : value;
  if (turns.length === 0) return "it has no question, expected at least one";
  for (const [i, message] of value.entries()) {
    const { role, content } = (message ?? {}) as Record<string, unknown>;
    const turn = i - (value.length - turns.length);
    const expected = turn < 0 ? "system" : turn % 2 === 0 ? "user" : "assistant";
    if (role !== expected) return `message ${i} is from ${JSON.stringify(role) ?? "nobody"}, expected "${expected}"`;
    const isText = typeof content === "string" && content.isWellFormed();
    const areParts = expected === "assistant" && Array.isArray(content) && content.every(isPart);
    if (!isText && !areParts) {
      return `the content of message ${i} is no text${expected === "assistant" ? " and no list of its parts" : ""}`;
    }
  }
}

function isPart(value: unknown): boolean {
  const { type, text } = (value ?? {}) as Record<string, unknown>;
  return KINDS.includes(type) && typeof text === "string" && text.isWellFormed();
}
