import { assertEquals, assertRejects } from "@std/assert";
import { Engine } from "../engine/engine.ts";
import { bytes, byteTokenizer, ScriptedModel, special, SPECIALS } from "../engine/engine_testing.ts";
import { Conversation, type ConversationOptions } from "./conversation.ts";

const END = special("<|assistant_end|>");
const call = (expression: string) => [special("<|python_start|>"), ...bytes(expression), special("<|python_end|>")];

function converse(answers: number[][], options: Partial<ConversationOptions> & { contextLen?: number } = {}) {
  const model = new ScriptedModel(answers, { contextLen: options.contextLen ?? 200 });
  const settings = { maxTokens: 20, completes: false, ...options };
  return {
    prompts: model.prompts,
    conversation: new Conversation(new Engine(model, byteTokenizer), byteTokenizer, settings),
  };
}

async function answerOf(conversation: Conversation, text: string): Promise<string> {
  let answer = "";
  for await (const piece of conversation.ask(text)) {
    answer += `${piece.kind === "text" ? "" : `<${piece.kind}>`}${piece.text}`;
  }
  return answer;
}

Deno.test("Conversation.ask() keeps the turns before in the prompt", async () => {
  const { conversation, prompts } = converse([[...bytes("Hi."), END], [...bytes("Yes."), END]]);
  assertEquals(await answerOf(conversation, "Hello"), "Hi.");
  assertEquals(await answerOf(conversation, "Ok?"), "Yes.");
  const [bos, userStart, userEnd, assistantStart] = SPECIALS.map(special);
  const first = [userStart, ...bytes("Hello"), userEnd, assistantStart];
  assertEquals(prompts[0], [bos, ...first]);
  assertEquals(prompts[1], [bos, ...first, ...bytes("Hi."), END, userStart, ...bytes("Ok?"), userEnd, assistantStart]);
  assertEquals(conversation.messages.map(({ role, content }) => `${role}: ${content}`), [
    "user: Hello",
    "assistant: Hi.",
    "user: Ok?",
    "assistant: Yes.",
  ]);
  assertEquals(conversation.stats.turns, 2);
  conversation.clear();
  assertEquals(conversation.stats.contextTokens, 1);
});

Deno.test("Conversation.ask() streams whole characters and the rest at the end", async () => {
  const { conversation } = converse([[...bytes("é€😀").slice(0, -1), END]]);
  const pieces = [];
  for await (const { text } of conversation.ask("?")) pieces.push(text);
  assertEquals(pieces, ["é", "€", "\ufffd"]);
});

Deno.test("Conversation.ask() tells tool calls and results from text and keeps them in the history", async () => {
  const script = [...bytes("It is "), ...call("6*7"), 0, 0, 0, 0, ...bytes("."), END];
  const { conversation, prompts } = converse([script, [END]]);
  assertEquals(
    await answerOf(conversation, "6 times 7?"),
    "It is <python>6<python>*<python>7<python_output>4<python_output>2.",
  );
  assertEquals(conversation.messages[1].content, [
    { type: "text", text: "It is " },
    { type: "python", text: "6*7" },
    { type: "python_output", text: "42" },
    { type: "text", text: "." },
  ]);
  await answerOf(conversation, "Thanks");
  assertEquals(prompts[1].includes(special("<|output_start|>")), true);
});

Deno.test("Conversation.ask() drops the oldest turns when the context is full", async () => {
  const answers = Array.from({ length: 6 }, () => [...bytes("0123456789"), END]);
  const { conversation, prompts } = converse(answers, { contextLen: 64, maxTokens: 30 });
  for (let i = 0; i < 6; i++) await answerOf(conversation, `question ${i}`);
  assertEquals(prompts.every((prompt) => prompt.length + 30 <= 64), true);
  const text = byteTokenizer.decode(prompts[5].filter((id) => id < 256));
  assertEquals(text.includes("question 4") || text.endsWith("question 5"), true);
  assertEquals(text.includes("question 0"), false);
  assertEquals(conversation.stats.droppedTurns > 0, true);
  assertEquals(conversation.messages.length, 12);
  await assertRejects(() => answerOf(conversation, "x".repeat(70)), RangeError, "expected at most 62");
});

Deno.test("Conversation.ask() keeps what was answered until an abort", async () => {
  const { conversation } = converse([bytes("abcdefgh")]);
  const stop = new AbortController();
  let answer = "";
  for await (const { text } of conversation.ask("?", stop.signal)) {
    answer += text;
    if (answer.length === 3) stop.abort();
  }
  assertEquals(answer, "abc");
  assertEquals(conversation.messages[1].content, "abc");
});

Deno.test("Conversation.ask() completes a text without turns when the model is a base model", async () => {
  const { conversation, prompts } = converse([bytes("lo"), [special("<|bos|>")]], { completes: true, maxTokens: 2 });
  assertEquals(await answerOf(conversation, "hel"), "lo");
  assertEquals(await answerOf(conversation, "again"), "");
  assertEquals(prompts, [[special("<|bos|>"), ...bytes("hel")], [special("<|bos|>"), ...bytes("again")]]);
});
