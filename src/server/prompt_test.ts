import { assert, assertEquals, assertThrows } from "@std/assert";
import { byteTokenizer, SPECIALS } from "../engine/engine_testing.ts";
import { renderConversation } from "../data/conversation.ts";
import { type ChatMessage, type Prompt, ServiceError } from "./models.ts";
import { type PromptLimits, renderPrompt } from "./prompt.ts";

const WIDE = { contextLen: 4096, vocabSize: 256 + SPECIALS.length, completes: false };

/** Ids as text, special tokens by name without bars. */
function show(ids: readonly number[]): string {
  return ids.map((id) => id < 256 ? String.fromCharCode(id) : SPECIALS[id - 256].replaceAll("|", "")).join("");
}

function render(prompt: Prompt, limits: Partial<PromptLimits> = {}) {
  const { ids, from, droppedMessages } = renderPrompt(byteTokenizer, prompt, { ...WIDE, ...limits });
  return { text: show(ids), length: ids.length, from, droppedMessages };
}

const user = (content: string): ChatMessage => ({ role: "user", content });
const assistant = (content: ChatMessage["content"]): ChatMessage => ({ role: "assistant", content });
const system = (content: string): ChatMessage => ({ role: "system", content });
const tool = (content: string): ChatMessage => ({ role: "tool", content });

Deno.test("renderPrompt() renders a conversation as training does, up to where the assistant answers", () => {
  const parts = [
    { type: "text", text: "I see " },
    { type: "python", text: "1+1" },
    { type: "python_output", text: "2" },
    { type: "text", text: " two" },
  ] as const;
  const messages = [system("Be kind"), user("Hi"), assistant(parts), user("And?")];
  const { ids } = renderPrompt(byteTokenizer, { messages }, WIDE);
  const trained = renderConversation(byteTokenizer, {
    messages: [...messages as never[], { role: "assistant", content: "" }],
  });
  assertEquals(ids, trained.ids.slice(0, -1));
  assertEquals(
    show(ids),
    "<bos><user_start>Be kind\n\nHi<user_end><assistant_start>I see <python_start>1+1<python_end>" +
      "<output_start>2<output_end> two<assistant_end><user_start>And?<user_end><assistant_start>",
  );
});

const CASES: [string, ChatMessage[], string][] = [
  [
    "two user messages stay two turns",
    [user("a"), user("b")],
    "<user_start>a<user_end><user_start>b<user_end><assistant_start>",
  ],
  [
    "several system messages stand in front of the next user message",
    [system("s"), { role: "developer", content: "d" }, user("a"), assistant("b"), system("t"), user("c")],
    "<user_start>s\n\nd\n\na<user_end><assistant_start>b<assistant_end><user_start>t\n\nc<user_end><assistant_start>",
  ],
  [
    "a system message in front of an assistant's waits for the user",
    [system("s"), assistant("b"), user("a")],
    "<assistant_start>b<assistant_end><user_start>s\n\na<user_end><assistant_start>",
  ],
  [
    "what the system says last is a turn of its own",
    [user("a"), system("s"), system("t")],
    "<user_start>a<user_end><user_start>s\n\nt<user_end><assistant_start>",
  ],
  [
    "behind a tool's message the assistant's turn goes on",
    [user("a"), assistant([{ type: "python", text: "1" }]), tool("2")],
    "<user_start>a<user_end><assistant_start><python_start>1<python_end><output_start>2<output_end>",
  ],
  [
    "a message of the assistant behind a tool's belongs to the same turn",
    [user("a"), assistant("b"), tool("1"), tool("2"), assistant("c"), user("d")],
    "<user_start>a<user_end><assistant_start>b<output_start>1<output_end><output_start>2<output_end>c<assistant_end>" +
    "<user_start>d<user_end><assistant_start>",
  ],
  [
    "a user's message behind a tool's ends the turn",
    [user("a"), assistant("b"), tool("1"), user("d")],
    "<user_start>a<user_end><assistant_start>b<output_start>1<output_end><assistant_end><user_start>d<user_end><assistant_start>",
  ],
  [
    "a tool's message behind a user's begins a turn",
    [user("a"), tool("1")],
    "<user_start>a<user_end><assistant_start><output_start>1<output_end>",
  ],
  [
    "messages of the assistant in a row stay turns, and it answers again",
    [user("a"), assistant("b"), assistant("c")],
    "<user_start>a<user_end><assistant_start>b<assistant_end><assistant_start>c<assistant_end><assistant_start>",
  ],
  ["names of special tokens are text", [user("<|user_end|>")], "<user_start><|user_end|><user_end><assistant_start>"],
];
for (const [name, messages, expected] of CASES) {
  Deno.test(`renderPrompt(): ${name}`, () => assertEquals(render({ messages }).text, `<bos>${expected}`));
}

Deno.test("renderPrompt() lets a base model continue the text of the last message", () => {
  assertEquals(render({ messages: [system("s"), user("a"), user("Once")] }, { completes: true }), {
    ...{ text: "<bos>Once", length: 5, from: 1, droppedMessages: 0 },
  });
});

Deno.test("renderPrompt() puts <|bos|> in front of texts and ids, once", () => {
  const bos = byteTokenizer.encodeSpecial("<|bos|>");
  assertEquals(render({ text: "<|bos|>a" }).text, "<bos><|bos|>a");
  assertEquals(render({ text: "" }).text, "<bos>");
  assertEquals([render({ tokens: [97] }), render({ tokens: [bos, 97] })].map(({ text, from }) => [text, from]), [
    ["<bos>a", 1],
    ["<bos>a", 0],
  ]);
  for (const id of [-1, 1.5, WIDE.vocabSize, NaN]) {
    const error = assertThrows(() => render({ tokens: [1, id] }), ServiceError);
    assertEquals([error.code, error.message.includes(String(id))], ["invalid_value", true]);
  }
  assertEquals(assertThrows(() => render({ messages: [] }), ServiceError).code, "invalid_value");
});

/** Ten exchanges of 14 tokens each, and a question of 6 with the mark of the answer. */
const LONG = [...Array.from({ length: 10 }, (_, i) => [user(`ask ${i}`), assistant(`say ${i}`)]).flat(), user("now")];

Deno.test("renderPrompt() leaves out the oldest exchanges until prompt and answer fit", () => {
  const whole = render({ messages: LONG });
  assertEquals([whole.length, whole.droppedMessages], [1 + 10 * 14 + 6, 0]);
  for (const contextLen of [20, 40, 63, 64, 100, 200, 250, 300]) {
    for (const maxTokens of [1, 10, 50, undefined]) {
      const { text, length, droppedMessages } = render({ messages: LONG }, { contextLen, maxTokens });
      const room = contextLen - Math.min(maxTokens ?? Infinity, Math.floor(contextLen / 2));
      assertEquals(text.slice(-38), whole.text.slice(-38), "the last message stays");
      assert(length <= room, `${length} tokens for ${room}`);
      assert(droppedMessages === 0 || length + 14 > room, "no more than needed");
      assertEquals([length, droppedMessages % 2], [whole.length - 7 * droppedMessages, 0]);
      assert(text.startsWith("<bos><user_start>"));
    }
  }
});

Deno.test("renderPrompt() keeps what the system said, whatever is left out", () => {
  const messages = [system("Rule"), ...LONG.slice(0, 4), system("New"), ...LONG.slice(4)];
  const limits = { contextLen: 80, maxTokens: 10 };
  const { text, length, droppedMessages } = render({ messages }, limits);
  assert(length <= 70 && droppedMessages > 4 && droppedMessages < 20, `${length}, ${droppedMessages}`);
  assert(text.startsWith(`<bos><user_start>Rule\n\nNew\n\nask ${droppedMessages / 2}<user_end>`), text);
});

Deno.test("renderPrompt() never leaves out the last user message, also where tools and the system follow it", () => {
  const tail = [user("the question"), assistant([{ type: "python", text: "1" }]), tool("2")];
  const { text, droppedMessages } = render({ messages: [...LONG, ...tail] }, { contextLen: 50 });
  assertEquals([text.includes("the question"), droppedMessages], [true, 21]);
  const last = render({ messages: [...LONG, user("the question"), system("s")] }, { contextLen: 40, maxTokens: 1 });
  assertEquals([last.text.includes("the question"), last.text.includes("<user_start>s<user_end>")], [true, true]);
});

Deno.test("renderPrompt() lets the answer have what the last message leaves, and refuses where that is nothing", () => {
  const ask = (length: number) => render({ messages: [...LONG, user("x".repeat(length))] }, { contextLen: 50 });
  assertEquals([ask(45).length, ask(45).droppedMessages], [49, 21]);
  const error = assertThrows(() => ask(46), ServiceError);
  assertEquals(error.code, "context_length_exceeded");
  assertEquals(error.message, "Cannot answer: the prompt has 50 tokens, expected fewer than the context of 50");
  assertEquals(assertThrows(() => render({ text: "x".repeat(50) }, { contextLen: 50 }), ServiceError).code, error.code);
  assertEquals(
    render({ text: "x".repeat(49) }, { contextLen: 50, maxTokens: 0 }).length,
    50,
    "no answer needs no room",
  );
});

Deno.test("renderPrompt() takes ten thousand messages in a moment", () => {
  const messages = Array.from({ length: 10_000 }, (_, i) => i % 2 === 0 ? system(`rule ${i}`) : user(`ask ${i}`));
  const start = performance.now();
  const error = assertThrows(() => render({ messages }, { contextLen: 2048 }), ServiceError);
  assertEquals(error.code, "context_length_exceeded", "what the system says stays, and is too long");
  assert(performance.now() - start < 5000);
});

Deno.test("renderPrompt() does not encode what cannot fit", () => {
  let encoded = 0;
  const counting = {
    ...byteTokenizer,
    encode: (text: string) => {
      encoded += text.length;
      return byteTokenizer.encode(text);
    },
  };
  const long = "x".repeat(1 << 20);
  const limits = { ...WIDE, contextLen: 100 };
  const { droppedMessages, ids } = renderPrompt(
    counting,
    { messages: [user(long), assistant(long), user("b")] },
    limits,
  );
  assertEquals([droppedMessages, show(ids)], [2, "<bos><user_start>b<user_end><assistant_start>"]);
  for (
    const prompt of [
      { text: long },
      { messages: [user("a"), assistant("b"), user(long)] },
      { messages: [system(long), user("a")] },
    ]
  ) {
    const error = assertThrows(() => renderPrompt(counting, prompt, limits), ServiceError, "at least 10485");
    assertEquals(error.code, "context_length_exceeded");
  }
  const many = Array.from({ length: 2000 }, (_, i) => i % 2 === 0 ? user("question") : assistant("answer"));
  assertEquals(renderPrompt(counting, { messages: [...many, user("b")] }, limits).droppedMessages, 1996);
  assert(encoded < 3000, `${encoded} characters were encoded`);
});
