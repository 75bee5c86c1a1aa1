import { assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { type Conversation, renderConversation, renderForCompletion } from "./conversation.ts";
import { Tokenizer } from "./tokenizer.ts";

const golden = JSON.parse(
  Deno.readTextFileSync(join(import.meta.dirname!, "../../dev/golden/tokenizer/tok500.json")),
);
const tok500 = () =>
  Tokenizer.fromParts({
    pattern: golden.split_pattern,
    tokens: golden.mergeable_ranks_base64.map((token: string) => Uint8Array.fromBase64(token)),
    specials: golden.special_tokens,
  });

const TOOL: Conversation = {
  messages: [
    { role: "system", content: "Be brief." },
    { role: "user", content: "2+2?" },
    {
      role: "assistant",
      content: [
        { type: "text", text: "I count: " },
        { type: "python", text: "2+2" },
        { type: "python_output", text: "4" },
        { type: "text", text: "" },
        { type: "text", text: "Four" },
      ],
    },
  ],
};

Deno.test("renderConversation() trains on the assistant's words and calls, not on the tool's output", async () => {
  using tokenizer = await tok500();
  const { ids, mask } = renderConversation(tokenizer, TOOL);
  const text = (trained: number) => tokenizer.decode(ids.filter((_, i) => mask[i] === trained));
  assertEquals(
    tokenizer.decode(ids),
    "<|bos|><|user_start|>Be brief.\n\n2+2?<|user_end|><|assistant_start|>I count: <|python_start|>2+2<|python_end|>" +
      "<|output_start|>4<|output_end|>Four<|assistant_end|>",
  );
  assertEquals(text(1), "I count: <|python_start|>2+2<|python_end|>Four<|assistant_end|>");
});

Deno.test("renderConversation() cuts ids and mask on the right", async () => {
  using tokenizer = await tok500();
  const whole = renderConversation(tokenizer, TOOL);
  const { ids, mask } = renderConversation(tokenizer, TOOL, 7);
  assertEquals([ids, mask], [whole.ids.slice(0, 7), whole.mask.slice(0, 7)]);
});

Deno.test("renderForCompletion() ends where the assistant begins", async () => {
  using tokenizer = await tok500();
  assertEquals(
    tokenizer.decode(renderForCompletion(tokenizer, TOOL)),
    "<|bos|><|user_start|>Be brief.\n\n2+2?<|user_end|><|assistant_start|>",
  );
});

Deno.test("renderConversation() refuses what is no conversation, with the message's number", async () => {
  using tokenizer = await tok500();
  const user = { role: "user", content: "a" } as const;
  const refused: [Conversation, string][] = [
    [{ messages: [] }, "no message"],
    [{ messages: [{ role: "assistant", content: "a" }] }, 'message 0 is from "assistant", expected "user"'],
    [{ messages: [user, user] }, 'message 1 is from "user", expected "assistant"'],
    [{ messages: [{ role: "system", content: "a" }] }, 'comes "undefined", expected "user"'],
    [{ messages: [{ role: "user", content: [] }] }, "has parts"],
    // deno-lint-ignore no-explicit-any
    [{ messages: [user, { role: "assistant", content: [{ type: "image", text: "a" } as any] }] }, 'type "image"'],
    // deno-lint-ignore no-explicit-any
    [{ messages: [user, { role: "assistant", content: [{ type: "text" } as any] }] }, "part without text"],
  ];
  for (const [conversation, message] of refused) {
    assertThrows(() => renderConversation(tokenizer, conversation), SyntaxError, message);
  }
  assertThrows(() => renderForCompletion(tokenizer, { messages: [user] }), SyntaxError, "the last message");
});
