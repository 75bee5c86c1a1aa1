import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { TestRandom, testSeed } from "../../dev/testing.ts";
import { GPT, type GPTConfig } from "../model/gpt.ts";
import { TEST_BACKEND } from "../tensor/backend_testing.ts";
import { Device } from "../tensor/device.ts";
import { fillNormal } from "../tensor/rng.ts";
import { Batch } from "./batch.ts";
import { GptDecodeModel } from "./decode.ts";
import { Engine, type Generated } from "./engine.ts";
import { bytes, byteTokenizer, ScriptedModel, special } from "./engine_testing.ts";
import type { GenerateRequest, RowToken } from "./request.ts";

const [BOS, END, PYTHON, PYTHON_END, OUTPUT, OUTPUT_END] = [
  ..."bos assistant_end python_start python_end output_start output_end".split(" "),
].map((name) => special(`<|${name}|>`));
const CONFIG: GPTConfig = { sequenceLen: 48, vocabSize: 265, nLayer: 2, nHead: 2, nKvHead: 1, nEmbd: 32 };

/** A model with random weights that likes to end, and to call tools. */
function randomModel(device: Device): GPT {
  const model = new GPT(device, CONFIG, { dtype: "f32", training: false });
  for (const [i, { master }] of model.parameters.all().entries()) {
    fillNormal(device, master, { seed: BigInt(i), std: 0.3 });
  }
  model.parameters.refreshCopies();
  model.packForInference();
  return model;
}

async function collect<T>(values: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const value of values) all.push(value);
  return all;
}

/** Steps a batch to its end. */
async function finish(batch: Batch): Promise<RowToken[]> {
  const tokens: RowToken[] = [];
  while (!batch.isDone) tokens.push(...await batch.step());
  return tokens;
}

Deno.test("Engine.generateAll() gives each ragged prompt the bits that it has alone, in any number of rows", async () => {
  using device = Device.open(TEST_BACKEND, { threads: 2 });
  using model = randomModel(device);
  const engine = new Engine(new GptDecodeModel(model), byteTokenizer);
  const random = new TestRandom(testSeed());
  const shared = Array.from({ length: 9 }, () => random.below(256));
  const requests = Array.from({ length: 24 }, (_, i): GenerateRequest => ({
    prompt: [
      BOS,
      ...random.below(2) ? shared : [],
      ...Array.from({ length: random.below(20) }, () => random.below(265)),
      ...i % 4 ? [] : [PYTHON, ...bytes("6*7"), ...i % 8 ? [] : [PYTHON_END]],
    ],
    samples: 1 + random.below(4),
    temperature: random.pick([0, 0.7, 1.5]),
    topK: random.pick([0, 20]),
    topP: random.pick([1, 0.9]),
    seed: random.below(1000),
    maxTokens: random.pick([0, 1, 5, 12, 100]),
  }));
  requests.push(requests[0], { ...requests[1], prompt: requests[1].prompt.slice(0, -1) });
  const alone: Generated[] = [];
  for (const { prompt, ...options } of requests) alone.push(await engine.generateBatch(prompt, options));
  assert(new Set(alone.flatMap(({ sequences }) => sequences.map((ids) => ids.length))).size > 9, "lengths differ");
  for (const rows of [1, 3, 16, 80]) {
    assertEquals(await collect(engine.generateAll(requests, { rows })), alone, `${rows} rows`);
  }
});

Deno.test("Engine.generateAll() takes no more memory for more requests, and none when it is done", async () => {
  using device = Device.open(TEST_BACKEND, { threads: 1 });
  using model = randomModel(device);
  const engine = new Engine(new GptDecodeModel(model), byteTokenizer);
  await device.wait();
  const { allocated } = device.memory();
  const seen: number[] = [];
  const requests = Array.from({ length: 60 }, (_, i) => ({ prompt: [BOS, i], maxTokens: 1 + i % 5, seed: i }));
  for await (const _ of engine.generateAll(requests, { rows: 4 })) {
    await device.wait();
    seen.push(device.memory().allocated);
  }
  await device.wait();
  assert(seen[0] > allocated);
  assertEquals(Math.max(...seen.slice(5)), Math.max(...seen.slice(0, 5)));
  assertEquals(device.memory().allocated, allocated);
});

Deno.test("Batch gives an ended row to the next sample, and each prompt one prefill", async () => {
  const model = new ScriptedModel([[5, END], [6, 6, 6, END], [7, END], [8, END], [9, 9]]);
  using batch = new Batch({ model, tokenizer: byteTokenizer }, { rows: 2 });
  const first = { prompt: [BOS, 1, 2], samples: 3 };
  const second = { prompt: [BOS, 1, 2, 3, 4] };
  const third = { prompt: [BOS, 1], maxTokens: 2 };
  assert(batch.isDone && batch.hasRoom);
  for (const request of [first, second, third]) batch.add(request);
  assert(!batch.isDone && !batch.hasRoom);
  const tokens = await finish(batch);
  const of = (request: GenerateRequest, sample: number) =>
    tokens.filter((token) => token.request === request && token.sample === sample).map(({ id, end }) => [id, end]);
  assertEquals(of(first, 0), [[5, null], [END, "stop"]]);
  assertEquals(of(first, 1), [[6, null], [6, null], [6, null], [END, "stop"]]);
  assertEquals(of(first, 2), [[7, null], [END, "stop"]]);
  assertEquals(of(second, 0), [[8, null], [END, "stop"]]);
  assertEquals(of(third, 0), [[9, null], [9, "length"]]);
  assertEquals(model.calls, [
    ...["decoder 2 64", "prefill 3 behind 0", "start 0", "start 1"],
    ...["start 0", "prefill 2 behind 3", "start 0", "prefill 1 behind 1", "start 1"],
  ]);
  assertEquals(model.draws.map((draws) => draws.map(({ sample, position }) => `${sample}@${position}`)), [
    ["0@3", "1@3"],
    ["0@4", "1@4"],
    ["2@3", "1@5"],
    ["2@4", "1@6"],
    ["0@5", "0@2"],
    ["0@6", "0@3"],
  ]);
  assert(batch.isDone && batch.hasRoom);
});

Deno.test("Batch lets a row wait for its tool while the others go on, and tools run at once", async () => {
  const call = (text: string) => [PYTHON, ...bytes(text), PYTHON_END];
  const model = new ScriptedModel([[...call("a"), 0, 0, 0, END], [...call("b"), 0, 0, 0, END], [
    ...[9, 9, 9, 9, 9, 9, 9, END],
  ]]);
  using batch = new Batch({ model, tokenizer: byteTokenizer }, { rows: 3 });
  const calls = new Map<string, PromiseWithResolvers<string | null>>();
  const tool = (text: string) => {
    calls.set(text, Promise.withResolvers());
    return calls.get(text)!.promise;
  };
  for (let seed = 0; seed < 3; seed++) batch.add({ prompt: [BOS], seed, tool });
  const seen: number[][] = [[], [], []];
  const step = async () => {
    for (const { request, id } of await batch.step()) seen[request.seed as number].push(id);
  };
  for (let i = 0; i < 5; i++) await step();
  assertEquals([...calls.keys()], ["a", "b"]);
  assertEquals(seen.map((ids) => ids.length), [3, 3, 5]);
  assertEquals(model.fed.slice(2), [[-1, -1, 9], [-1, -1, 9], [-1, -1, 9]]);
  calls.get("b")!.resolve("!");
  while (seen[2].length < 8) await step();
  assert(seen[1].length > 3 && seen[0].length === 3);
  calls.get("a")!.resolve(null);
  while (!batch.isDone) await step();
  assertEquals(seen[0].slice(3), [0, 0, 0, END]);
  assertEquals(seen[1].slice(3), [OUTPUT, ...bytes("!"), OUTPUT_END, END]);
});

Deno.test("Batch waits where every row waits for a tool, and throws what a tool throws", async () => {
  const script = [PYTHON, ...bytes("x"), PYTHON_END, END];
  const model = new ScriptedModel([script, script]);
  const run = async (tool: GenerateRequest["tool"]) => {
    using batch = new Batch({ model: new ScriptedModel([script, script]), tokenizer: byteTokenizer }, { rows: 2 });
    batch.add({ prompt: [BOS], samples: 2, tool });
    return (await finish(batch)).length;
  };
  assertEquals(await run(() => new Promise((resolve) => setTimeout(() => resolve(null)))), 8);
  await assertRejects(() => run(() => Promise.reject(new Error("no sandbox"))), Error, "no sandbox");
  await assertRejects(
    () =>
      run(() => {
        throw new Error("no sandbox at all");
      }),
    Error,
    "no sandbox at all",
  );
  assertEquals(model.open, 0);
});

Deno.test("Batch.cancel() frees rows and waiting samples at the next step and reports no more of them", async () => {
  const model = new ScriptedModel([[5, 5, 5, END], [6, 6, 6, END], [7, 7, END], [8, END]]);
  using batch = new Batch({ model, tokenizer: byteTokenizer }, { rows: 2 });
  const [first, second, third, fourth] = [{ samples: 2 }, { samples: 5 }, {}, {}].map((request) => ({
    ...request,
    prompt: [BOS, 1],
  }));
  for (const request of [first, second, third]) batch.add(request);
  assertEquals((await batch.step()).map(({ request, id }) => [request, id]), [[first, 5], [first, 6]]);
  batch.cancel(second); // waits
  const running = batch.step();
  batch.cancel(first); // while its tokens are drawn
  assertEquals(await running, []);
  assert(batch.hasRoom && !batch.isDone);
  assertEquals((await batch.step()).map(({ request, id }) => [request, id]), [[third, 7]]);
  assertEquals(model.fed.at(-1), [7], "no row of a cancelled request is computed");
  batch.cancel(third);
  batch.cancel(third);
  assert(batch.isDone);
  assertEquals(await batch.step(), []);
  batch.add(fourth);
  assertEquals((await finish(batch)).map(({ request, id }) => [request, id]), [[fourth, 8], [fourth, END]]);
  batch.cancel(fourth);
  assert(batch.isDone);
});

Deno.test("Batch.cancel() of one sample leaves the others of its request", async () => {
  const model = new ScriptedModel([[5, 5, 5, END], [6, 6, 6, END], [7, END]]);
  using batch = new Batch({ model, tokenizer: byteTokenizer }, { rows: 2 });
  const request = { prompt: [BOS, 1], samples: 3 };
  batch.add(request);
  await batch.step();
  batch.cancel(request, 0);
  const rest = (await finish(batch)).map(({ sample, id }) => [sample, id]);
  assertEquals(rest, [[2, 7], [1, 6], [2, END], [1, 6], [1, END]]);
});

Deno.test("Batch.cancel() and add() end a step that waits for tools, whose results are then unheard", async () => {
  const script = [PYTHON, ...bytes("x"), PYTHON_END, 9, END];
  const model = new ScriptedModel([script, [4, END], script, script]);
  using batch = new Batch({ model, tokenizer: byteTokenizer }, { rows: 2 });
  const calls: PromiseWithResolvers<string | null>[] = [];
  const tool = () => {
    calls.push(Promise.withResolvers());
    return calls.at(-1)!.promise;
  };
  const [slow, quick, failing] = [{ prompt: [BOS], tool }, { prompt: [BOS] }, { prompt: [BOS, 1], tool }];
  batch.add(slow);
  while (calls.length < 1) await batch.step();
  const waiting = batch.step();
  batch.add(quick);
  assertEquals(await waiting, []);
  assertEquals((await batch.step()).map(({ id }) => id), [4]);
  assertEquals((await batch.step()).map(({ id }) => id), [END]);
  batch.add(failing);
  while (calls.length < 2) await batch.step();
  const both = batch.step();
  batch.cancel(failing);
  assertEquals(await both, []);
  calls[1].reject(new Error("nobody waits for it"));
  calls[0].resolve(null);
  assertEquals((await finish(batch)).map(({ request, id }) => [request, id]), [[slow, 9], [slow, END]]);
});

Deno.test("Batch counts each token of an answer, the forced ones too, before the next is drawn", async () => {
  const model = new ScriptedModel([[5, PYTHON, ...bytes("1"), PYTHON_END, 0, 0, 0, 5, 6, 6, END], [5, END]]);
  using batch = new Batch({ model, tokenizer: byteTokenizer }, { rows: 2 });
  const logitBias = new Map([[6, 3]]);
  batch.add({ prompt: [BOS, 5], frequencyPenalty: 1, presencePenalty: 0.5, logitBias, tool: () => "2" });
  batch.add({ prompt: [BOS, 5], topLogprobs: 3 });
  const seen = (await finish(batch)).filter(({ request }) => request.logitBias).map(({ id }) => id);
  assertEquals(seen, [5, PYTHON, ...bytes("1"), PYTHON_END, OUTPUT, ...bytes("2"), OUTPUT_END, 5, 6, 6, END]);
  model.draws.forEach(([{ changes, topLogprobs }, other], i) => {
    const expected = new Map([[6, 3]]);
    const before = seen.slice(0, i);
    for (const id of before) {
      const count = before.filter((other) => other === id).length;
      expected.set(id, (id === 6 ? 3 : 0) - count - 0.5);
    }
    assertEquals(changes, expected);
    assertEquals([topLogprobs, other?.changes, other?.topLogprobs], [undefined, undefined, other && 3]);
  });
});

Deno.test("Batch draws with penalties, biases and candidates as the formulas say", async () => {
  using device = Device.open(TEST_BACKEND, { threads: 2 });
  using model = randomModel(device);
  const engine = new Engine(new GptDecodeModel(model), byteTokenizer);
  const run = async (request: Omit<GenerateRequest, "prompt">) => {
    using batch = new Batch(engine, { rows: 1 });
    batch.add({ prompt: [BOS, 1, 2], temperature: 0, maxTokens: 30, ...request });
    return await finish(batch);
  };
  const plainly = await run({});
  assertEquals(plainly[0].top, undefined);
  const listed = await run({ topLogprobs: 4 });
  assertEquals(listed.map(({ id, logprob }) => [id, logprob]), plainly.map(({ id, logprob }) => [id, logprob]));
  for (const { id, logprob, top } of listed) assertEquals([top!.length, top![0]], [4, { id, logprob }]);
  // A bias of 100 forces a token whose log-probability stays what the model gave it.
  const [second] = listed[0].top!.slice(1);
  const [forced] = await run({ logitBias: new Map([[second.id, 100]]) });
  assertEquals([forced.id, forced.logprob], [second.id, second.logprob]);
  const banned = await run({ logitBias: new Map(plainly.map(({ id }) => [id, -100])) });
  assert(banned.every(({ id }) => plainly.every((other) => other.id !== id)));
  const repeats = (tokens: RowToken[]) => tokens.length - new Set(tokens.map(({ id }) => id)).size;
  const logitBias = new Map([END, BOS].map((id) => [id, -100]));
  const [loose, strict] = [await run({ logitBias, presencePenalty: -2 }), await run({ logitBias, presencePenalty: 2 })];
  assert(repeats(loose) > repeats(strict), `${repeats(loose)} repeats, with the penalty ${repeats(strict)}`);
});

Deno.test("Batch.add() refuses what does not fit its rows", () => {
  using batch = new Batch({ model: new ScriptedModel([[5]]), tokenizer: byteTokenizer }, { rows: 1, capacity: 10 });
  assertThrows(() => batch.add({ prompt: [BOS], maxTokens: 10 }), RangeError, "up to 11 tokens, expected at most 10");
  assertThrows(() => batch.add({ prompt: [] }), RangeError, "the prompt is empty");
  assertThrows(() => batch.add({ prompt: [BOS], maxTokens: 1, topP: 2 }), RangeError, "topP is 2");
  for (const topLogprobs of [-1, 21, 0.5]) {
    const message = `topLogprobs is ${topLogprobs}, expected an integer, 0 to 20`;
    assertThrows(() => batch.add({ prompt: [BOS], maxTokens: 1, topLogprobs }), RangeError, message);
  }
  const logitBias = new Map([[265, 1]]);
  assertThrows(() => batch.add({ prompt: [BOS], maxTokens: 1, logitBias }), RangeError, "names the token 265");
  batch.add({ prompt: [BOS], maxTokens: 9 });
  assert(!batch.hasRoom);
});

Deno.test("Engine.generateAll() takes requests as rows become free and frees its rows when it ends early", async () => {
  const model = new ScriptedModel(Array.from({ length: 20 }, (_, i) => i === 0 ? [1, 1, 1, END] : [2, END]));
  const engine = new Engine(model, byteTokenizer);
  let taken = 0;
  const requests = function* () {
    for (; taken < 20; taken++) yield { prompt: [BOS, taken] };
  };
  const ahead: number[] = [];
  for await (const { sequences: [ids] } of engine.generateAll(requests(), { rows: 3 })) {
    assertEquals(ids, ahead.length === 0 ? [BOS, 0, 1, 1, 1] : [BOS, ahead.length, 2]);
    ahead.push(taken - ahead.length);
    if (ahead.length === 10) break;
  }
  assert(Math.max(...ahead) <= 7, `${ahead} requests ahead: 4 steps of 3 rows bring 4 more answers`);
  assertEquals(model.open, 0);
  const stop = new AbortController();
  const seen = [];
  for await (const generated of engine.generateAll(requests(), { signal: stop.signal })) {
    seen.push(generated);
    stop.abort();
  }
  assertEquals([seen.length, model.open], [1, 0]);
  await assertRejects(() => collect(engine.generateAll([{ prompt: [] }])), RangeError, "the prompt is empty");
});
