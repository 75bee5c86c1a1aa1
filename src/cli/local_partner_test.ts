import { assertEquals, assertRejects } from "@std/assert";
import { deadline } from "@std/async";
import type { Message } from "../data/conversation.ts";
import { bytes, byteTokenizer, special, SPECIALS } from "../engine/engine_testing.ts";
import { END, localPartner, openModel, said } from "./chat_testing.ts";
import { type AnswerFigures, type AnswerOptions, ChatError } from "./chat_partner.ts";
import { LocalPartner } from "./local_partner.ts";

const [BOS, USER, USER_END, ASSISTANT] = SPECIALS.map(special);

async function answerOf(partner: LocalPartner, messages: readonly Message[], options: Partial<AnswerOptions> = {}) {
  let answer = "";
  let figures: AnswerFigures = {};
  const pieces: string[] = [];
  for await (const heard of partner.answer(messages, { settings: { maxTokens: 20 }, ...options })) {
    if (heard.kind === "figures") figures = { ...figures, ...heard.figures };
    else {
      pieces.push(heard.text);
      answer += `${heard.kind === "text" ? "" : `<${heard.kind}>`}${heard.text}`;
    }
  }
  return { answer, figures, pieces };
}

const user = (content: string): Message => ({ role: "user", content });
const assistant = (content: string): Message => ({ role: "assistant", content });

Deno.test("LocalPartner.answer() renders the conversation as training does", async () => {
  const model = openModel("d1", { answers: [said("Yes.")] });
  using partner = localPartner(model);
  const { answer, figures } = await answerOf(partner, [
    { role: "system", content: "Be brief." },
    user("Hello"),
    assistant("Hi."),
    user("Ok?"),
  ]);
  const first = [USER, ...bytes("Be brief.\n\nHello"), USER_END, ASSISTANT, ...bytes("Hi."), END];
  const prompt = [BOS, ...first, USER, ...bytes("Ok?"), USER_END, ASSISTANT];
  assertEquals(model.prompts, [prompt]);
  assertEquals(answer, "Yes.");
  const { length } = prompt;
  assertEquals(figures, {
    promptTokens: length,
    contextLen: 200,
    droppedMessages: 0,
    answerTokens: 5,
    cachedTokens: 0,
    isCut: false,
  });
});

Deno.test("LocalPartner.answer() does not compute again what an answer before held", async () => {
  using partner = localPartner(openModel("d1", { answers: [said("Hi."), said("Yes."), said("No.")] }));
  const first = await answerOf(partner, [user("Hello")]);
  const second = await answerOf(partner, [user("Hello"), assistant("Hi."), user("Ok?")]);
  const held = first.figures.promptTokens! + "Hi.".length;
  assertEquals([first.figures.cachedTokens, second.figures.cachedTokens! >= held], [0, true]);
  const again = await answerOf(partner, [user("Hello"), assistant("Hi."), user("Ok?")]);
  assertEquals([again.answer, again.figures.cachedTokens! >= held], ["No.", true]);
});

Deno.test("LocalPartner.answer() goes on behind a tool that failed and an answer that was stopped", async () => {
  const call = [special("<|python_start|>"), ...bytes("1"), special("<|python_end|>"), ...bytes("xx"), END];
  const model = openModel("d1", { answers: [call, bytes("abcdefgh"), said("ok")] });
  using partner = new LocalPartner(model, {
    tool: () => Promise.reject(new Error("Cannot run Python: it is gone")),
    names: () => [],
    open: () => Promise.reject(new Error("none")),
  });
  await assertRejects(() => answerOf(partner, [user("?")]), ChatError, "Cannot run Python");
  for await (const heard of partner.answer([user("?")], { settings: {} })) if (heard.kind === "text") break;
  assertEquals((await answerOf(partner, [user("?")])).answer, "ok");
});

Deno.test("LocalPartner.answer() streams whole characters and the rest at the end", async () => {
  using partner = localPartner(openModel("d1", { answers: [[...bytes("é漢😀").slice(0, -1), END]] }));
  assertEquals((await answerOf(partner, [user("?")])).pieces, ["é", "漢", "\ufffd"]);
});

Deno.test("LocalPartner.answer() tells tool calls and results from text", async () => {
  const call = [special("<|python_start|>"), ...bytes("6*7"), special("<|python_end|>")];
  using partner = localPartner(openModel("d1", { answers: [[...bytes("It is "), ...call, 0, 0, 0, 0, ...said(".")]] }));
  const { answer } = await answerOf(partner, [user("6 times 7?")]);
  assertEquals(answer, "It is <python>6<python>*<python>7<python_output>4<python_output>2.");
});

Deno.test("LocalPartner.answer() leaves out the oldest exchanges when the context is full, never the system message", async () => {
  const model = openModel("d1", { answers: [said("ok"), said("ok")], contextLen: 64 });
  using partner = localPartner(model);
  const exchange = (i: number) => [user(`question ${i}`), assistant("0123456789")];
  const messages = [...exchange(0), ...exchange(1), ...exchange(2), user("question 3")];
  const { figures } = await answerOf(partner, messages);
  assertEquals([figures.droppedMessages, figures.promptTokens! + 20 <= 64], [4, true]);
  await answerOf(partner, [{ role: "system", content: "S" }, ...messages], { settings: { maxTokens: 2 } });
  const texts = model.prompts.map((prompt) => byteTokenizer.decode(prompt.filter((id) => id < 256)));
  assertEquals(texts, ["question 20123456789question 3", "S\n\nquestion 20123456789question 3"]);
  await assertRejects(
    () => answerOf(partner, [user("x".repeat(70))]),
    ChatError,
    "expected fewer than the context of 64",
  );
});

Deno.test("LocalPartner.answer() says where it was cut, and stops at an abort without an error", async () => {
  using partner = localPartner(openModel("d1", { answers: [bytes("abcdefgh"), bytes("abcdefgh")] }));
  assertEquals((await answerOf(partner, [user("?")], { settings: { maxTokens: 3 } })).figures.isCut, true);
  const signal = AbortSignal.abort();
  const { answer, figures } = await answerOf(partner, [user("?")], { signal });
  assertEquals([answer, figures.isCut], ["", false]);
});

Deno.test("LocalPartner.answer() stops at an abort while a tool computes", async () => {
  const call = [special("<|python_start|>"), ...bytes("1"), special("<|python_end|>")];
  const stop = new AbortController();
  using partner = new LocalPartner(openModel("d1", { answers: [call, said("ok")] }), {
    tool: () => {
      queueMicrotask(() => stop.abort());
      return new Promise(() => {}); // never
    },
    names: () => [],
    open: () => Promise.reject(new Error("none")),
  });
  const { answer } = await deadline(answerOf(partner, [user("?")], { signal: stop.signal }), 10_000);
  assertEquals(answer, "<python>1");
  assertEquals((await answerOf(partner, [user("?")])).answer, "ok");
});

Deno.test("LocalPartner.answer() continues the last text alone with a base model", async () => {
  const model = openModel("base", { answers: [bytes("lo"), [BOS]], completes: true });
  using partner = localPartner(model);
  assertEquals((await answerOf(partner, [user("hel")], { settings: { maxTokens: 2 } })).answer, "lo");
  assertEquals((await answerOf(partner, [user("hel"), assistant("lo"), user("again")])).answer, "");
  assertEquals(model.prompts, [[BOS, ...bytes("hel")], [BOS, ...bytes("again")]]);
});

Deno.test("LocalPartner.use() opens another model, and keeps the old one where that fails", async () => {
  const first = openModel("one", { answers: [said("1")] });
  const second = openModel("two", { answers: [said("2")], completes: true });
  const partner = localPartner(first, { two: second });
  assertEquals(await partner.models(), ["one", "two"]);
  await assertRejects(() => partner.use("three"), ChatError, 'Cannot find model "three"');
  assertEquals([partner.model, partner.completes, first.isOpen], ["one", false, true]);
  await partner.use("two");
  assertEquals([partner.model, partner.completes, first.isOpen, second.isOpen], ["two", true, false, true]);
  partner[Symbol.dispose]();
  assertEquals(second.isOpen, false);
});

Deno.test("LocalPartner tells of a damaged file of the model that is open, and of no other", async () => {
  const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  using partner = localPartner(openModel("one", { verified: first.promise }), {
    two: openModel("two", { verified: second.promise }),
  });
  const switched = partner.use("two");
  first.reject(new Error("one is damaged"));
  await switched;
  second.reject(new Error("two is damaged"));
  await assertRejects(() => partner.damaged, Error, "two is damaged");
});
