/** The conversations of a golden run as a task, with the tokenizer that they were recorded with. */
import { join } from "@std/path";
import type { Conversation } from "../../src/data/conversation.ts";
import { Tokenizer } from "../../src/data/tokenizer.ts";
import type { Task } from "../../tasks/task.ts";

interface TokenizerJson {
  readonly split_pattern: string;
  readonly mergeable_ranks_base64: readonly string[];
  readonly special_tokens: Record<string, number>;
}

/** Loads a recorded tokenizer; the caller frees it. */
export async function goldenTokenizer(root: string, path: string): Promise<Tokenizer> {
  const json: TokenizerJson = JSON.parse(Deno.readTextFileSync(join(root, path)));
  return await Tokenizer.fromParts({
    pattern: json.split_pattern,
    tokens: json.mergeable_ranks_base64.map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))),
    specials: json.special_tokens,
  });
}

/** Makes a task of conversations at hand. */
export function listTask(conversations: readonly Conversation[]): Task {
  return { length: conversations.length, conversation: (index) => conversations[index] };
}
