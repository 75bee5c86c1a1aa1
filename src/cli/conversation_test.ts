import { assertEquals, assertRejects } from "@std/assert";
import { localPartner, openModel, said, ScriptedPartner, type Step } from "./chat_testing.ts";
import { ChatError, type ChatPartner } from "./chat_partner.ts";
import { Conversation } from "./conversation.ts";

async function answerOf(pieces: AsyncIterable<{ text: string }>): Promise<string> {
  return (await Array.fromAsync(pieces, ({ text }) => text)).join("");
}

function converse(...scripts: (readonly Step[])[]) {
  const partner = new ScriptedPartner(scripts);
  return { partner, conversation: new Conversation(partner, { temperature: 0.5, seed: 7 }) };
}

/** The same answers from a model of this machine and from a script. */
const PARTNERS: Readonly<Record<string, (answers: readonly string[]) => ChatPartner>> = {
  local: (answers) => localPartner(openModel("d1", { answers: answers.map(said) })),
  scripted: (answers) => new ScriptedPartner(answers.map((answer) => [answer])),
};

for (const [name, make] of Object.entries(PARTNERS)) {
  Deno.test(`Conversation keeps, retries, undoes and loads what was said with a ${name} partner`, async () => {
    const conversation = new Conversation(make(["one", "two", "TWO", "again"]), {});
    assertEquals(await answerOf(conversation.ask("first")), "one");
    assertEquals(await answerOf(conversation.ask("second")), "two");
    assertEquals(await answerOf(conversation.retry()), "TWO");
    const texts = () => conversation.messages.map(({ role, content }) => `${role}: ${content}`);
    assertEquals(texts(), ["user: first", "assistant: one", "user: second", "assistant: TWO"]);
    conversation.system = "Be brief.";
    const saved = conversation.messages;
    assertEquals(conversation.undo(), "second");
    assertEquals(texts(), ["system: Be brief.", "user: first", "assistant: one"]);
    assertEquals([conversation.questions, conversation.unanswered], [1, undefined]);
    assertEquals([conversation.undo(), conversation.undo()], ["first", undefined]);
    conversation.load(saved);
    assertEquals(conversation.messages, saved);
    assertEquals(await answerOf(conversation.ask("third")), "again");
    conversation.clear();
    assertEquals(texts(), ["system: Be brief."]);
    assertEquals(await answerOf(conversation.retry()), "");
  });
}

Deno.test("Conversation.ask() gives the partner everything said and its settings", async () => {
  const { partner, conversation } = converse(["Hi."], ["Yes."]);
  conversation.system = "Be brief.";
  await answerOf(conversation.ask("Hello"));
  conversation.settings = { ...conversation.settings, temperature: 0 };
  await answerOf(conversation.ask("Ok?"));
  const first = [{ role: "system", content: "Be brief." }, { role: "user", content: "Hello" }] as const;
  const second = [...first, { role: "assistant", content: "Hi." }, { role: "user", content: "Ok?" }] as const;
  assertEquals(partner.asked, [
    { temperature: 0.5, seed: 7, messages: [...first] },
    { temperature: 0, seed: 7, messages: [...second] },
  ]);
});

Deno.test("Conversation.load() takes the system message off, an empty one too", () => {
  const { conversation } = converse();
  for (const content of ["Be brief.", ""]) {
    conversation.load([{ role: "system", content }, { role: "user", content: "Hello" }]);
    assertEquals([conversation.system, conversation.unanswered, conversation.questions], [content, "Hello", 1]);
  }
});

Deno.test("Conversation keeps the question where the answer fails; retry asks it again, another takes its place", async () => {
  const failure = new ChatError("Cannot go on");
  const { partner, conversation } = converse(["half", failure], [failure], ["whole"], [failure], ["other"]);
  await assertRejects(() => answerOf(conversation.ask("Hello")), ChatError);
  assertEquals([conversation.messages, conversation.unanswered], [[{ role: "user", content: "Hello" }], "Hello"]);
  await assertRejects(() => answerOf(conversation.retry()), ChatError);
  assertEquals([await answerOf(conversation.retry()), conversation.unanswered], ["whole", undefined]);
  await assertRejects(() => answerOf(conversation.ask("More")), ChatError);
  await answerOf(conversation.ask("Else"));
  assertEquals(partner.asked.at(-1)!.messages.map(({ content }) => content), ["Hello", "whole", "Else"]);
});

Deno.test("Conversation.retry() keeps the old answer until the new one is there", async () => {
  const { conversation } = converse(["old"], ["ne", new ChatError("Cannot go on")], []);
  await answerOf(conversation.ask("Hello"));
  const before = conversation.messages.map((message) => message);
  await assertRejects(() => answerOf(conversation.retry()), ChatError);
  assertEquals(conversation.messages, before);
  const stop = new AbortController();
  stop.abort();
  assertEquals(await answerOf(conversation.retry(stop.signal)), "");
  assertEquals(conversation.messages, before, "stopped before its first word");
});

Deno.test("Conversation.ask() keeps what was answered until an abort, and the question alone before it", async () => {
  const { conversation } = converse(["a", "b", "c", "d"], ["e"]);
  const stop = new AbortController();
  let answer = "";
  for await (const { text } of conversation.ask("?", stop.signal)) {
    answer += text;
    if (answer.length === 3) stop.abort();
  }
  assertEquals([answer, conversation.messages.at(-1)], ["abc", { role: "assistant", content: "abc" }]);
  assertEquals(await answerOf(conversation.ask("!", stop.signal)), "");
  assertEquals(conversation.unanswered, "!");
});

Deno.test("Conversation keeps tool calls as parts and the last figures of an answer", async () => {
  const { conversation } = converse([
    { kind: "figures", figures: { promptTokens: 5, contextLen: 64 } },
    "It is ",
    { kind: "python", text: "6*" },
    { kind: "python", text: "7" },
    { kind: "python_output", text: "42" },
    ".",
    { kind: "figures", figures: { answerTokens: 9, isCut: false } },
  ]);
  await answerOf(conversation.ask("6 times 7?"));
  assertEquals(conversation.messages[1].content, [
    { type: "text", text: "It is " },
    { type: "python", text: "6*7" },
    { type: "python_output", text: "42" },
    { type: "text", text: "." },
  ]);
  const { firstMs: _, restMs: __, model, settings, ...figures } = conversation.last!;
  assertEquals([model, settings], ["first", conversation.settings]);
  assertEquals(figures, { promptTokens: 5, contextLen: 64, answerTokens: 9, isCut: false });
  conversation.undo();
  assertEquals(conversation.last, undefined);
});

Deno.test("Conversation.isRepeatable is true where the last answer was asked for in the same way and drawn the same", async () => {
  const { partner, conversation } = converse(["a"], ["b"]);
  assertEquals(conversation.isRepeatable, false);
  await answerOf(conversation.ask("?"));
  assertEquals(conversation.isRepeatable, true);
  partner.model = "second";
  assertEquals(conversation.isRepeatable, false);
  partner.model = "first";
  conversation.settings = { ...conversation.settings, seed: 8 };
  assertEquals(conversation.isRepeatable, false);
  await answerOf(conversation.retry());
  assertEquals(conversation.isRepeatable, true);
  conversation.system = "S";
  assertEquals(conversation.isRepeatable, false);
});
