import { assert, assertEquals, assertThrows } from "@std/assert";
import { bytes, byteTokenizer, ScriptedModel, special, SPECIALS } from "../engine/engine_testing.ts";
import { Generations } from "./generations.ts";
import { type GenerationEvent, type GenerationRequest, ServiceError } from "./models.ts";
import type { PromptScorer } from "./prompt_scores.ts";
import type { FromWorker } from "./protocol.ts";
import { hear, requestOf } from "./toy_testing.ts";

const END = special("<|assistant_end|>");

/** Scores each token by its id, in pieces of two. */
const scorer: PromptScorer = {
  async *score(ids, top) {
    for (let i = 1; i < ids.length; i += 2) {
      yield await Promise.resolve(
        ids.slice(i, i + 2).map((id) => ({
          logprob: -id,
          top: [{ id: 65, logprob: -1 }].slice(0, top),
        })),
      );
    }
  },
};

/** Runs requests on a model that says scripts; gives the events of each, as `hear` reads them. */
class Rig implements AsyncDisposable {
  readonly model: ScriptedModel;
  readonly generations: Generations;
  readonly told: FromWorker[] = [];
  #wake = Promise.withResolvers<void>();

  constructor(scripts: readonly (readonly number[])[], { contextLen = 64, rows = 4 } = {}) {
    this.model = new ScriptedModel(scripts, { contextLen });
    const vocabSize = 256 + SPECIALS.length;
    const served = { model: this.model, tokenizer: byteTokenizer, vocabSize, scorer, completes: false };
    this.generations = new Generations(served, {
      ...{ rows, cacheRows: 0 },
      tell: (message) => {
        this.told.push(message);
        this.#wake.resolve();
        this.#wake = Promise.withResolvers();
      },
    });
  }

  /** Starts a request. */
  start(id: number, changes: Partial<GenerationRequest> = {}): void {
    this.generations.start(id, requestOf({ model: "m", prompt: { text: "ask" }, ...changes }));
  }

  /** Gives what is told of a request, up to the end of `choices` answers. */
  async *events(id: number, choices = 1): AsyncGenerator<GenerationEvent> {
    for (let next = 0;;) {
      for (; next < this.told.length; next++) {
        const told = this.told[next];
        if (told.type === "failed") throw new Error(told.message);
        for (const [of, events] of told.type === "step" ? told.events : []) {
          if (of === id) yield* events;
          if (of === id) choices -= events.filter(({ type }) => type === "end").length;
        }
      }
      if (choices === 0) return;
      await this.#wake.promise;
    }
  }

  async hear(changes: Partial<GenerationRequest> = {}) {
    this.start(1, changes);
    return await hear(this.events(1, changes.choices));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.generations[Symbol.asyncDispose]();
    assertEquals(this.model.open, 0);
  }
}

Deno.test("Generations tells words, tool calls and results, and counts the mark that ends", async () => {
  const call = [special("<|python_start|>"), ...bytes("6*7"), special("<|python_end|>")];
  await using rig = new Rig([[...bytes("so "), ...call, ...bytes("????"), ...bytes(" it is"), END]]);
  const { answers, reasons, completionTokens, events } = await rig.hear();
  assertEquals(answers, [["text:so ", "python:6*7", "python_output:42", "text: it is"]]);
  assertEquals([reasons, completionTokens], [["stop"], [3 + 5 + 4 + 6 + 1]]);
  assertEquals(events[0], {
    ...{ type: "start", promptTokens: 4, cachedTokens: 0, droppedMessages: 0, contextLen: 64 },
  });
});

Deno.test("Generations gives whole characters, and U+FFFD for one that the limit cuts", async () => {
  await using rig = new Rig([bytes("aé日😀"), bytes("aé日😀")]);
  const { answers, events } = await rig.hear({ maxTokens: 10 });
  assertEquals(answers, [["text:aé日😀"]]);
  const texts = events.flatMap((event) => event.type === "piece" ? [event.text] : []);
  assertEquals(texts, ["a", "é", "日", "😀"]);
  const cut = new Rig([bytes("a日")]);
  assertEquals((await cut.hear({ maxTokens: 3 })).answers, [["text:a�"]]);
  await cut[Symbol.asyncDispose]();
});

Deno.test("Generations ends an answer before a stop text, frees its row and lets the others go on", async () => {
  const long = bytes("one 日本 two and more");
  await using rig = new Rig([long, bytes("first.日"), bytes("z".repeat(12))], { rows: 2 });
  rig.start(1, { stop: ["本 t", "never"] });
  rig.start(2, { stop: ["日"] });
  rig.start(3, { maxTokens: 12 });
  const [first, second, third] = await Promise.all([1, 2, 3].map((id) => hear(rig.events(id))));
  assertEquals([first.answers, first.reasons], [[["text:one 日"]], ["stop"]]);
  assertEquals(first.completionTokens, [bytes("one 日本 t").length]);
  assertEquals([second.answers, second.reasons], [[["text:first."]], ["stop"]]);
  assertEquals([third.answers, third.reasons], [[["text:zzzzzzzzzzzz"]], ["length"]]);
  assert(rig.model.fed.length < 30, `${rig.model.fed.length} steps: a row ends at its stop text`);
});

Deno.test("Generations frees the row of a choice that ends at a stop text while the others go on", async () => {
  await using rig = new Rig([bytes("ab"), bytes("z".repeat(12)), bytes("y".repeat(12))], { rows: 2 });
  rig.start(1, { choices: 2, stop: ["b"], maxTokens: 12 });
  rig.start(2, { maxTokens: 12 });
  const [first, second] = await Promise.all([hear(rig.events(1, 2)), hear(rig.events(2))]);
  assertEquals(first.answers, [["text:a"], ["text:zzzzzzzzzzzz"]]);
  assertEquals(second.answers, [["text:yyyyyyyyyyyy"]]);
  assert(rig.model.fed.length < 16, `${rig.model.fed.length} steps: the second request takes over the row`);
});

Deno.test("Generations tells what it held back when no stop text came of it", async () => {
  const call = [special("<|python_start|>"), ...bytes("1"), special("<|python_end|>")];
  await using rig = new Rig([[...bytes("aST"), END], [...bytes("aS"), ...call, ...bytes("???TOP"), END]]);
  rig.start(1, { stop: ["STOP"] });
  rig.start(2, { stop: ["STOP"] });
  assertEquals((await hear(rig.events(1))).answers, [["text:aST"]]);
  const { answers } = await hear(rig.events(2));
  assertEquals(answers, [["text:aS", "python:1", "python_output:1", "text:TOP"]], "a call parts the words");
});

Deno.test("Generations reports each token once, with the piece that its text ends in, none behind the cut", async () => {
  await using rig = new Rig([bytes("a日b STOP"), [...bytes("xy"), END]]);
  const { events } = await rig.hear({ stop: ["STOP"], topLogprobs: 0 });
  const pieces = events.flatMap((event) => event.type === "piece" ? [event] : []);
  assertEquals(pieces.map(({ text }) => text).join(""), "a日b ");
  assertEquals(pieces.flatMap(({ tokens }) => tokens!.flatMap(({ bytes }) => bytes)), bytes("a日b "));
  for (const { text, tokens } of pieces) assertEquals(tokens!.flatMap(({ bytes }) => bytes), bytes(text));
  rig.start(2);
  const plain = await hear(rig.events(2));
  assert(plain.events.every((event) => !("tokens" in event)), "only where asked for");
});

Deno.test("Generations reports no token that a tool forced, and no mark", async () => {
  const call = [special("<|python_start|>"), ...bytes("6*7"), special("<|python_end|>")];
  await using rig = new Rig([[...bytes("a"), ...call, ...bytes("????"), ...bytes("b"), END]]);
  const { events } = await rig.hear({ topLogprobs: 0 });
  const pieces = events.flatMap((event) => event.type === "piece" ? [event] : []);
  const of = (kind: string) =>
    pieces.filter((piece) => piece.kind === kind).flatMap(({ tokens }) => tokens!.map(({ text }) => text));
  assertEquals([of("text"), of("python"), of("python_output")], [["a", "b"], ["6", "*", "7"], []]);
});

Deno.test("Generations tells the prompt first, with its log-probabilities where asked for", async () => {
  await using rig = new Rig([[...bytes("x"), END]]);
  const { events } = await rig.hear({ echo: true, topLogprobs: 1 });
  assertEquals(events.map(({ type }) => type), ["start", "prompt", "piece", "end"]);
  const prompt = events.find((event) => event.type === "prompt")!;
  assertEquals([prompt.text, prompt.tokens!.map(({ text, logprob }) => [text, logprob])], ["ask", [["a", null], [
    "s",
    -115,
  ], ["k", -107]]]);
  assertEquals(prompt.tokens!.map(({ top }) => top.length), [0, 1, 1]);
  const bos = special("<|bos|>");
  rig.start(2, { prompt: { tokens: [bos, 97, 98] }, echo: true, topLogprobs: 0, maxTokens: 0 });
  const scored = (await hear(rig.events(2))).events;
  assertEquals(scored.map(({ type }) => type), ["start", "prompt", "end"], "no answer is asked for");
  const given = scored.find((event) => event.type === "prompt")!;
  assertEquals(
    given.tokens!.map(({ logprob }) => logprob),
    [null, -97, -98],
    "<|bos|> is a token where the client gave it",
  );
  rig.start(3, { echo: true, maxTokens: 0 });
  assertEquals((await hear(rig.events(3))).events[1], { type: "prompt", text: "ask" });
});

Deno.test("Generations cancels a request while it waits, is scored or runs, and goes on with the others", async () => {
  await using rig = new Rig(Array.from({ length: 4 }, () => bytes("abcdefgh")), { rows: 1, contextLen: 2000 });
  rig.start(1);
  rig.start(2, { maxTokens: 5 });
  rig.start(3, { echo: true, topLogprobs: 1 });
  const running = rig.events(1);
  for (let i = 0; i < 4; i++) await running.next();
  rig.generations.cancel(3);
  rig.generations.cancel(1);
  rig.generations.cancel(99);
  assertEquals((await hear(rig.events(2))).answers, [["text:abcde"]]);
  rig.start(4, { maxTokens: 3 });
  assertEquals((await hear(rig.events(4))).answers, [["text:abc"]]);
  const told = rig.told.flatMap((told) => told.type === "step" ? told.events.map(([id]) => id) : []);
  assert(told.filter((id) => id === 1).length < 10, "nothing is told behind the cancellation");
  assertEquals(told.includes(3), false);
});

Deno.test("Generations refuses values out of range before anything runs", async () => {
  await using rig = new Rig([]);
  for (const changes of [{ choices: 0 }, { maxTokens: -1 }, { topLogprobs: 21 }, { maxTokens: 0, choices: -1 }]) {
    assertEquals(assertThrows(() => rig.start(1, changes), ServiceError).code, "invalid_value");
  }
  const sampling = { ...requestOf({ model: "m" }).sampling, topP: 2 };
  assertEquals(assertThrows(() => rig.start(1, { sampling }), ServiceError).code, "invalid_value");
  assertThrows(() => rig.start(1, { prompt: { text: "x".repeat(64) } }), ServiceError, "65 tokens");
  assertEquals([rig.told, rig.model.calls.length], [[], 1]);
});

Deno.test("Generations sends one message a step, whatever the number of answers", async () => {
  await using rig = new Rig(Array.from({ length: 8 }, () => bytes("abcdefgh")), { rows: 8 });
  for (let id = 0; id < 8; id++) rig.start(id, { maxTokens: 6 });
  await Promise.all(Array.from({ length: 8 }, (_, id) => hear(rig.events(id))));
  const tokens = rig.told.map((told) => told.type === "step" ? told.tokens : NaN);
  assertEquals(tokens.reduce((a, b) => a + b), 48);
  assert(tokens.length <= 8, `${tokens}`);
});

Deno.test("Generations says where the model cannot go on", async () => {
  const model = new ScriptedModel([bytes("a")]);
  const decoder = model.decoder.bind(model);
  model.decoder = (options) => ({
    ...decoder(options),
    sample: () => Promise.reject(new Error("Cannot compute: broken")),
  });
  const { promise, resolve } = Promise.withResolvers<FromWorker>();
  const served = { model, tokenizer: byteTokenizer, vocabSize: 265, scorer, completes: false };
  await using generations = new Generations(served, { rows: 1, cacheRows: 0, tell: resolve });
  generations.start(1, requestOf({ model: "m" }));
  assertEquals(await promise, { type: "failed", message: "Cannot compute: broken" });
});
