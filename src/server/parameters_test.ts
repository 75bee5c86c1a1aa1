import { assertEquals } from "@std/assert";
import type OpenAI from "openai";
import {
  CHAT_PARAMETERS,
  COMPLETION_PARAMETERS,
  type Parameter,
  type Parameters,
  readParameters,
} from "./parameters.ts";

type ChatName = keyof OpenAI.ChatCompletionCreateParams;
type CompletionName = keyof OpenAI.CompletionCreateParams;

// These do not type-check where a parameter of OpenAI's own types is missing.
const CHAT: Readonly<Record<ChatName, Parameter>> = CHAT_PARAMETERS;
const COMPLETION: Readonly<Record<CompletionName, Parameter>> = COMPLETION_PARAMETERS;
// These neither where the tables have one that OpenAI's types do not.
const CHAT_OWN: Record<Exclude<keyof typeof CHAT_PARAMETERS, ChatName>, true> = { top_k: true };
const COMPLETION_OWN: Record<Exclude<keyof typeof COMPLETION_PARAMETERS, CompletionName>, true> = { top_k: true };

Deno.test("the tables have every parameter of OpenAI's, and mark their own", () => {
  for (const [table, own] of [[CHAT, CHAT_OWN], [COMPLETION, COMPLETION_OWN]]) {
    const marked = Object.entries(table as Parameters).filter(([_, { isExtension }]) => isExtension);
    assertEquals(marked.map(([name]) => name), Object.keys(own));
  }
});

Deno.test("a refused parameter is accepted where it asks for nothing", () => {
  const messages = [{ role: "user", content: "Hi" }];
  const nothing = {
    ...{ tools: [], functions: [], tool_choice: "none", function_call: "auto", modalities: ["text"] },
    ...{ response_format: { type: "text" }, audio: null, web_search_options: null, moderation: null },
  };
  const { body, ignored } = readParameters({ messages, ...nothing }, CHAT_PARAMETERS);
  assertEquals([body, ignored], [{ messages }, []]);
  assertEquals(readParameters({ prompt: "", suffix: "", best_of: 1 }, COMPLETION_PARAMETERS).body, { prompt: "" });
});

Deno.test("every refused parameter has a sentence that says why", () => {
  for (const [name, { support, note }] of Object.entries<Parameter>({ ...CHAT, ...COMPLETION })) {
    assertEquals(/^[A-Z`0].*\.$/.test(note), true, `${name} (${support}): ${note}`);
  }
});
