import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { TestRandom, testSeed } from "../../dev/testing.ts";
import { AnswerReader, joinPieces, type Piece } from "../engine/answer.ts";
import { LoadedModel } from "../engine/load.ts";
import type { ChosenModel } from "../model/models.ts";
import { type GenerationRequest, ServiceError } from "./models.ts";
import { ModelPool, type PoolOptions } from "./pool.ts";
import { renderPrompt } from "./prompt.ts";
import { hear, requestOf, TOY_CONTEXT, ToyPlace } from "./toy_testing.ts";

const never = () => new AbortController().signal;
const DEADLINE_MS = 60_000;
/** Context of a model whose answers outlast what a test does meanwhile. */
const LONG = 2000;
/** Draws "a" for ever. */
const ENDLESS = { ...requestOf({ model: "" }).sampling, logitBias: new Map([[97, 100]]) };

/** A test that fails where it does not end. */
function poolTest(name: string, fn: () => Promise<void>): void {
  Deno.test(name, async () => {
    const { promise, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(new Error(`"${name}" hangs`)), DEADLINE_MS);
    try {
      await Promise.race([fn(), promise]);
    } finally {
      clearTimeout(timer);
    }
  });
}

/** A pool that is closed at the end of the scope. */
function open(models: readonly ChosenModel[], options: PoolOptions = {}): ModelPool & AsyncDisposable {
  const pool = new ModelPool(models, { rows: 4, threads: 1, ...options });
  return Object.assign(pool, { [Symbol.asyncDispose]: () => pool.close(0) });
}

/** Gives what the engine says to a request, alone. */
async function alone(loaded: LoadedModel, request: GenerationRequest): Promise<string[]> {
  const { engine, tokenizer, chosen } = loaded;
  const { ids } = renderPrompt(tokenizer, request.prompt, {
    ...{ contextLen: engine.model.contextLen, vocabSize: tokenizer.vocabSize, maxTokens: request.maxTokens },
    completes: chosen.source === "base",
  });
  const { choices: samples, maxTokens, sampling } = request;
  const { sequences } = await engine.generateBatch(ids, { ...sampling, samples, maxTokens });
  return sequences.map((sequence) => {
    const reader = new AnswerReader(tokenizer);
    const pieces: Piece[] = sequence.slice(ids.length).flatMap((id) => [...reader.push(id)]);
    return JSON.stringify(joinPieces([...pieces, ...reader.end()]));
  });
}

/** Puts what was heard into the same form. */
function contents(answers: readonly (readonly string[])[]): string[] {
  return answers.map((answer) =>
    JSON.stringify(joinPieces(answer.map((piece) => {
      const [kind, ...rest] = piece.split(":");
      return { kind: kind as Piece["kind"], text: rest.join(":") };
    })))
  );
}

poolTest(
  "ModelPool gives fifty clients at once what each would hear alone, aborts and slow readers among them",
  async () => {
    using place = new ToyPlace();
    const model = await place.add({ stage: "sft", tag: "d2" });
    using loaded = await LoadedModel.load(model, { threads: 1 });
    await using pool = open([model], { maxQueued: 200, cacheRows: 3 });
    const random = new TestRandom(testSeed());
    const client = async (i: number) => {
      const content = random.pick(["Hello", "the thing on a", "é😀", "x".repeat(30)]) + random.below(5);
      const sampling = { ...requestOf({ model: "d2" }).sampling, seed: i, temperature: random.pick([0.5, 1, 1.5]) };
      const prompt = { messages: [{ role: "system", content: "Rule" }, { role: "user", content }] } as const;
      const request = requestOf({
        model: "d2",
        prompt,
        sampling,
        choices: 1 + random.below(2),
        maxTokens: 1 + random.below(40),
      });
      const leaves = random.below(3) === 0 ? random.below(8) : Infinity;
      const isSlow = random.below(3) === 0;
      const abort = new AbortController();
      async function* reading() {
        let events = 0;
        for await (const event of pool.generate(request, abort.signal)) {
          yield event;
          if (isSlow) await new Promise((resolve) => setTimeout(resolve, 1));
          if (++events > leaves && random.below(2) === 0) return;
          if (events > leaves) abort.abort();
        }
      }
      const heard = await hear(reading());
      const expected = await alone(loaded, request);
      if (leaves === Infinity) assertEquals(contents(heard.answers), expected, `client ${i}`);
    };
    await Promise.all(Array.from({ length: 50 }, (_, i) => client(i)));
    const { queued, activeRows, rows, finished, cancelled, refused, ...counts } = pool.stats();
    assertEquals({ queued, activeRows, rows, refused }, { queued: 0, activeRows: 0, rows: 4, refused: 0 });
    assert(finished > 20 && cancelled > 5 && finished + cancelled === 50, `${finished} and ${cancelled}`);
    assert(counts.cachedTokens > 0 && counts.cachedTokens < counts.promptTokens, JSON.stringify(counts));
    assert(counts.generatedTokens > counts.steps, JSON.stringify(counts));
  },
);

poolTest(
  "ModelPool continues texts with a base model and scores prompts, of any length, as generation does",
  async () => {
    using place = new ToyPlace();
    const model = await place.add({ stage: "base", tag: "d2", sequenceLen: LONG });
    await using pool = open([model]);
    // Bytes alone, whose ids are their values; so many that a prompt of them is scored in several pieces.
    const logitBias = new Map(Array.from({ length: pool.list()[0].vocabSize - 256 }, (_, i) => [256 + i, -100]));
    const sampling = { ...ENDLESS, logitBias };
    const ask = { model: "d2", topLogprobs: 3 };
    const request = requestOf({ ...ask, prompt: { text: "on a" }, maxTokens: 200, sampling });
    const { events } = await hear(pool.generate(request, never()));
    const said = events.flatMap((event) => event.type === "piece" ? event.tokens! : []);
    assertEquals(said.length, 200);
    const prompt = { tokens: [...await pool.tokenize("d2", "on a"), ...said.flatMap(({ bytes }) => bytes)] };
    const echo = requestOf({ ...ask, prompt, echo: true, maxTokens: 0 });
    const echoed = await hear(pool.generate(echo, never()));
    const tokens = echoed.events.flatMap((event) => event.type === "prompt" ? event.tokens! : []).slice(-said.length);
    const close = (a: number, b: number) => Math.abs(a - b) < 1e-4;
    for (const [i, token] of said.entries()) {
      assert(close(token.logprob!, tokens[i].logprob!), `${i}: ${token.logprob} and ${tokens[i].logprob}`);
      assertEquals(tokens[i].top.map(({ bytes }) => bytes), token.top.map(({ bytes }) => bytes));
      assert(token.top.every(({ logprob }, k) => close(logprob, tokens[i].top[k].logprob)));
    }
  },
);

poolTest("ModelPool lists models under short names and knows no others", async () => {
  using place = new ToyPlace();
  const models = [
    await place.add({ stage: "sft", tag: "d2" }),
    await place.add({ stage: "base", tag: "d2" }),
    await place.add({ stage: "sft", tag: "d3" }),
  ];
  await using pool = open(models);
  const shown = pool.list().map(({ id, completes, isLoaded, contextLen }) => ({ id, completes, isLoaded, contextLen }));
  const common = { isLoaded: false, contextLen: TOY_CONTEXT };
  assertEquals(shown, [
    { id: "sft/d2", completes: false, ...common },
    { id: "base/d2", completes: true, ...common },
    { id: "d3", completes: false, ...common },
  ]);
  assert(Math.abs(pool.list()[0].created - Date.now() / 1000) < 600);
  for (
    const call of [
      () => hear(pool.generate(requestOf({ model: "d2" }), never())),
      () => pool.tokenize("gpt-4", "x"),
      () => pool.load("d4"),
    ]
  ) {
    const error = await assertRejects(call, ServiceError, "expected one of sft/d2, base/d2, d3");
    assertEquals(error.code, "model_not_found");
  }
  assertEquals(await pool.tokenize("d3", "on a<|bos|>"), await pool.tokenize("base/d2", "on a<|bos|>"));
  assertEquals(await pool.detokenize("d3", await pool.tokenize("d3", "é😀")), "é😀");
  assertEquals((await assertRejects(() => pool.detokenize("d3", [1e9]), ServiceError)).code, "invalid_value");
  await assertRejects(async () => await open([models[0], models[0]]), RangeError, "twice");
  await assertRejects(async () => await open([]), RangeError, "there is none");
});

poolTest("ModelPool keeps the models in memory that were used last, and waits where none is idle", async () => {
  using place = new ToyPlace();
  const models = [];
  for (const [seed, tag] of ["a", "b", "c"].entries()) {
    models.push(await place.add({ stage: "sft", tag, seed, sequenceLen: LONG }));
  }
  await using pool = open(models, { maxLoaded: 2 });
  const loaded = () => pool.list().filter(({ isLoaded }) => isLoaded).map(({ id }) => id).join("");
  await pool.load("a");
  await pool.load("b");
  assertEquals(loaded(), "ab");
  await pool.load("a");
  await pool.load("c");
  assertEquals([loaded(), pool.stats().loadedModels], ["ac", 2]);

  // Both models answer; the third is loaded once one of them has ended, and nobody overtakes it.
  const held = ["a", "c"].map((model) =>
    pool.generate(requestOf({ model, sampling: ENDLESS }), never())[Symbol.asyncIterator]()
  );
  for (const stream of held) assertEquals((await stream.next()).value?.type, "start");
  const order: string[] = [];
  const later = ["b", "a"].map((model) =>
    hear(pool.generate(requestOf({ model, maxTokens: 1 }), never())).then(() => order.push(model))
  );
  await held[0].return!();
  await Promise.all(later);
  assertEquals([order, loaded()], [["b", "a"], "ac"]);
  await held[1].return!();
});

poolTest("ModelPool refuses with a time to come again when the queue is full", async () => {
  using place = new ToyPlace();
  const model = await place.add({ stage: "sft", tag: "d2", sequenceLen: LONG });
  await using pool = open([model], { rows: 1, maxQueued: 2 });
  await pool.load("d2");
  const abort = new AbortController();
  const streams = Array.from(
    { length: 3 },
    () => pool.generate(requestOf({ model: "d2", sampling: ENDLESS }), abort.signal)[Symbol.asyncIterator](),
  );
  const first = streams.map((stream) => stream.next());
  await first[0];
  assertEquals([pool.stats().queued, pool.stats().activeRows], [2, 1]);
  const error = await assertRejects(
    () => hear(pool.generate(requestOf({ model: "d2" }), never())),
    ServiceError,
    "2 answers wait",
  );
  assertEquals(error.code, "busy");
  assert(error.retryAfterSec! >= 1 && error.retryAfterSec! <= 60, `${error.retryAfterSec}`);
  assertEquals(pool.stats().refused, 1);
  abort.abort();
  assertEquals(
    (await Promise.all(first)).slice(1).map(({ done }) => done),
    [true, true],
    "an abort ends those that wait",
  );
  assertEquals((await hear(pool.generate(requestOf({ model: "d2", maxTokens: 2 }), never()))).completionTokens, [2]);
});

poolTest("ModelPool ends a request at its deadline, while it waits and while it runs", async () => {
  using place = new ToyPlace();
  const model = await place.add({ stage: "sft", tag: "d2", sequenceLen: LONG });
  await using pool = open([model], { rows: 1, cacheRows: 0 });
  await pool.load("d2");
  const ends = await Promise.allSettled(
    [50, 20].map((deadlineMs) =>
      hear(pool.generate(requestOf({ model: "d2", sampling: ENDLESS, deadlineMs }), never()))
    ),
  );
  for (const end of ends) {
    assertEquals(end.status === "rejected" && end.reason.code, "deadline");
  }
  assertEquals([pool.stats().activeRows, pool.stats().queued], [0, 0]);
  await assertRejects(
    () => hear(pool.generate(requestOf({ model: "d2", deadlineMs: 0 }), never())),
    ServiceError,
    "within 0 ms",
  );
});

poolTest("ModelPool.close() lets running answers end, refuses new ones, and ends the rest after a while", async () => {
  using place = new ToyPlace();
  const model = await place.add({ stage: "sft", tag: "d2", sequenceLen: LONG });
  for (const [maxTokens, graceMs] of [[30, DEADLINE_MS], [undefined, 1]] as const) {
    await using pool = open([model], { cacheRows: 0 });
    const stream = pool.generate(requestOf({ model: "d2", sampling: ENDLESS, maxTokens }), never())
      [Symbol.asyncIterator]();
    await stream.next();
    const closed = pool.close(graceMs);
    const refusal = await assertRejects(() => hear(pool.generate(requestOf({ model: "d2" }), never())), ServiceError);
    assertEquals(refusal.code, "closing");
    const rest = hear({ [Symbol.asyncIterator]: () => stream });
    if (maxTokens) assertEquals((await rest).answers, [[`text:${"a".repeat(maxTokens)}`]]);
    else assertEquals((await assertRejects(() => rest, ServiceError)).code, "closing");
    await closed;
  }
});

poolTest("ModelPool says what is wrong with a damaged checkpoint, each time", async () => {
  using place = new ToyPlace();
  const model = await place.add({ stage: "sft", tag: "d2" });
  const path = join(model.folder, "model_000007.safetensors");
  const bytes = await Deno.readFile(path);
  bytes[bytes.length - 1] ^= 1;
  await Deno.writeFile(path, bytes);
  await using pool = open([model], { cacheRows: 0 });
  for (let i = 0; i < 2; i++) {
    const stream = async () => {
      for (;;) await hear(pool.generate(requestOf({ model: "d2", sampling: ENDLESS }), never()));
    };
    const error = await assertRejects(stream, ServiceError, "differs from what was saved");
    assertEquals(error.code, "failed");
  }
  await Deno.remove(path);
  await assertRejects(() => pool.load("d2"), ServiceError, "Cannot");
});

/** Program of a thread that answers nothing to "wait", crashes at "crash" and ends every other request at once. */
const CRASHING = `self.onmessage = ({ data }) => {
  const tell = (told) => self.postMessage(told);
  if (data.type === "open") return tell({ type: "opened", rows: 2 });
  if (data.type === "close") return tell({ type: "closed" });
  if (data.type !== "generate" || data.request.prompt.text === "wait") return;
  if (data.request.prompt.text === "crash") throw new Error("out of luck");
  const end = { type: "end", choice: 0, reason: "stop", completionTokens: 1 };
  tell({ type: "step", tokens: 1, events: [[data.id, [end]]] });
};`;

poolTest("ModelPool fails the requests of a worker that crashes, and starts it anew for the next one", async () => {
  using place = new ToyPlace();
  const model = await place.add({ stage: "sft", tag: "d2" });
  let threads = 0;
  const start = () => {
    threads++;
    return new Worker(`data:text/javascript,${encodeURIComponent(CRASHING)}`, { type: "module" });
  };
  await using pool = open([model], { start });
  const ask = (text: string) => hear(pool.generate(requestOf({ model: "d2", prompt: { text } }), never()));
  for (let crashes = 1; crashes <= 2; crashes++) {
    const ends = await Promise.allSettled(["wait", "wait", "crash"].map(ask));
    for (const end of ends) {
      assertEquals(end.status === "rejected" && [end.reason.code, end.reason.message.includes("out of luck")], [
        "failed",
        true,
      ]);
    }
    assertEquals(pool.list()[0].isLoaded, false);
    assertEquals((await ask("fine")).reasons, ["stop"]);
    assertEquals(threads, 1 + crashes);
  }
});

/** Program of a thread with one row, which answers with the number of its device, when it is told to. */
const NUMBERED = `let index;
self.onmessage = ({ data }) => {
  const tell = (told) => self.postMessage(told);
  if (data.type === "open") {
    index = data.options.index;
    return tell({ type: "opened", rows: 1 });
  }
  if (data.type === "close") return tell({ type: "closed" });
  if (data.type === "tokenize") return tell({ type: "result", id: data.id, value: [index] });
  if (data.type !== "generate") return;
  const piece = { type: "piece", choice: 0, kind: "text", text: String(index) };
  tell({ type: "step", tokens: 1, events: [[data.id, [piece]]] });
  const end = { type: "end", choice: 0, reason: "stop", completionTokens: 1 };
  if (data.request.prompt.text !== "wait") tell({ type: "step", tokens: 0, events: [[data.id, [end]]] });
};`;

poolTest(
  "ModelPool opens a model on the next device when its rows are taken, and sends requests to the least busy one",
  async () => {
    using place = new ToyPlace();
    const model = await place.add({ stage: "sft", tag: "d2" });
    const start = () => new Worker(`data:text/javascript,${encodeURIComponent(NUMBERED)}`, { type: "module" });
    await using pool = open([model], { start, devices: 3 });
    await pool.tokenize("d2", "");
    assertEquals(pool.stats().loadedModels, 1);
    const client = new AbortController();
    const takers: AsyncIterator<unknown>[] = [];
    const devices: string[] = [];
    for (let i = 0; i < 3; i++) {
      const request = requestOf({ model: "d2", prompt: { text: "wait" } });
      const stream = pool.generate(request, client.signal)[Symbol.asyncIterator]();
      takers.push(stream);
      devices.push(((await stream.next()).value as { text: string }).text);
    }
    assertEquals(devices, ["0", "1", "2"]);
    assertEquals([pool.stats().loadedModels, pool.stats().rows, pool.stats().activeRows], [3, 3, 3]);
    await takers[1].return?.(); // device 1 is the least busy one now
    const { answers } = await hear(pool.generate(requestOf({ model: "d2" }), never()));
    assertEquals(answers, [["text:1"]]);
    client.abort();
    const opened: number[] = [];
    const counting = () => {
      const thread = start();
      const post = thread.postMessage.bind(thread);
      thread.postMessage = (message: { type: string; options?: { index: number } }) => {
        if (message.type === "open") opened.push(message.options!.index);
        post(message);
      };
      return thread;
    };
    await using loaded = open([model], { start: counting, devices: 2 });
    await loaded.load("d2");
    assertEquals(opened, [0, 1], "load() opens it everywhere");
  },
);

poolTest("ModelPool fails the requests of a thread whose program is missing", async () => {
  using place = new ToyPlace();
  const model = await place.add({ stage: "sft", tag: "d2" });
  const start = () => new Worker(`file://${place.folder}/none.js`, { type: "module" });
  await using pool = open([model], { start });
  assertEquals((await assertRejects(() => pool.load("d2"), ServiceError, "crashed")).code, "failed");
});
