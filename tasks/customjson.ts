/** Conversations of one's own: JSON lines, each an array of messages {role, content}, alternating from the user on. In file order. */
import { basename } from "@std/path";
import type { Conversation } from "../src/data/conversation.ts";
import { readJsonLines } from "../src/data/text_file.ts";
import { checkMessages } from "./messages.ts";
import { checkIndex, type Task } from "./task.ts";

/** Name of the reference's identity conversations, which a command can fetch. */
export const IDENTITY_FILE = "identity_conversations.jsonl";

/**
 * Reads a file of conversations (.gz too); blank lines are passed over.
 *
 * @throws {SyntaxError} naming the first line that is no conversation; {Error} where the file is missing or has none.
 */
export async function loadCustomJson(path: string): Promise<Task> {
  let lines: Awaited<ReturnType<typeof readJsonLines>>;
  try {
    lines = await readJsonLines(path);
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    const repair = basename(path) === IDENTITY_FILE ? '; run "nanochat data fetch identity"' : "";
    throw new Error(`Cannot read "${path}": it is missing, expected JSON lines of conversations${repair}`, { cause });
  }
  const conversations = lines.map(({ line, value }): Conversation => ({
    messages: checkMessages(value, { where: `"${path}", line ${line}`, system: false }),
  }));
  if (conversations.length === 0) {
    throw new Error(`Cannot read "${path}": it has no conversation, expected at least one line`);
  }
  return {
    length: conversations.length,
    conversation: (index) => conversations[checkIndex(index, conversations.length)],
  };
}
