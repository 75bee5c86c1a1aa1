/** Batches as a server uses them: requests that come, leave and share beginnings at any time, with a cache and prompts in chunks. */
import { assert, assertEquals } from "@std/assert";
import { TestRandom, testRuns, testSeed } from "../../dev/testing.ts";
import { GPT, type GPTConfig, type Quantization } from "../model/gpt.ts";
import { Device } from "../tensor/device.ts";
import { fillNormal } from "../tensor/rng.ts";
import type { ComputeType } from "../tensor/dtype.ts";
import { Batch } from "./batch.ts";
import { calculate } from "./calculator.ts";
import { GptDecodeModel } from "./decode.ts";
import { bytes, byteTokenizer, ScriptedModel, special } from "./engine_testing.ts";
import type { GenerateRequest, RowToken } from "./request.ts";

const [BOS, END, PYTHON, PYTHON_END] = [
  ..."bos assistant_end python_start python_end".split(" "),
].map((name) => special(`<|${name}|>`));
const CONFIG: GPTConfig = { sequenceLen: 64, vocabSize: 265, nLayer: 2, nHead: 2, nKvHead: 1, nEmbd: 32 };

function randomModel(device: Device, dtype: ComputeType, quantize: Quantization): GPT {
  const model = new GPT(device, CONFIG, { dtype, training: false });
  for (const [i, { master }] of model.parameters.all().entries()) {
    fillNormal(device, master, { seed: BigInt(i), std: 0.3 });
  }
  model.parameters.refreshCopies();
  model.packForInference(quantize);
  return model;
}

/** What a client hears: everything but how much of its prompt was cached. */
const heard = ({ sample, id, sampled, logprob, top, end }: RowToken) => ({ sample, id, sampled, logprob, top, end });

/** Requests like those of a server: shared system prompts, later turns of finished conversations, all kinds of settings. */
class Clients {
  readonly #random: TestRandom;
  readonly #systems: number[][];
  /** Sequences that later turns continue. */
  readonly histories: number[][] = [];

  constructor(random: TestRandom) {
    this.#random = random;
    this.#systems = [14, 9].map((length) => [BOS, ...this.#tokens(length)]);
  }

  #tokens(length: number): number[] {
    return Array.from({ length }, () => this.#random.below(256));
  }

  /** The next request. */
  next(): GenerateRequest {
    const random = this.#random;
    const history = random.below(2) && this.histories.length > 0 ? random.pick(this.histories) : null;
    const start = history && history.length < 48 ? history : random.pick([...this.#systems, [BOS]]);
    const call = random.below(4) ? [] : [PYTHON, ...bytes("6*7"), PYTHON_END];
    return {
      prompt: [...start, ...this.#tokens(1 + random.below(random.pick([3, 12]))), ...call].slice(0, 60),
      samples: random.pick([1, 1, 1, 3]),
      maxTokens: random.pick([1, 4, 9, undefined]),
      temperature: random.pick([0, 0.8, 1.4]),
      topK: random.pick([0, 20]),
      topP: random.pick([1, 0.9]),
      seed: random.below(1000),
      frequencyPenalty: random.pick([0, 0, 0.7]),
      presencePenalty: random.pick([0, 0, -0.4]),
      logitBias: random.pick([undefined, new Map([[random.below(265), random.pick([-100, 3])]])]),
      topLogprobs: random.pick([undefined, undefined, 0, 4]),
      tool: random.pick([undefined, async (text: string) => {
        for (let i = random.below(4); i > 0; i--) await new Promise((resolve) => setTimeout(resolve));
        return calculate(text);
      }]),
    };
  }
}

for (const [dtype, quantize] of [["f32", "none"], ["bf16", "none"], ["bf16", "int8"]] as const) {
  const type = quantize === "none" ? dtype : `${dtype} with ${quantize}`;
  Deno.test(`Batch gives each answer the bits that it has alone, whatever joins, leaves and is cached, in ${type}`, async () => {
    const random = new TestRandom(testSeed());
    using device = Device.open("cpu", { threads: 2 });
    using model = randomModel(device, dtype, quantize);
    const parts = { model: new GptDecodeModel(model), tokenizer: byteTokenizer };
    /** The answer to a request, computed by nobody else. */
    const alone = async (request: GenerateRequest) => {
      using batch = new Batch(parts, { rows: 1, chunk: Infinity });
      batch.add(request);
      const tokens: RowToken[] = [];
      while (!batch.isDone) tokens.push(...await batch.step());
      return tokens.map(heard);
    };
    let cached = 0;
    for (const [rows, cacheRows, chunk] of [[4, 3, 5], [3, 0, 1], [7, 8, 16]]) {
      const clients = new Clients(random);
      using batch = new Batch(parts, { rows, cacheRows, chunk });
      const open = new Map<GenerateRequest, RowToken[]>();
      let left = testRuns(40);
      const compare = async (request: GenerateRequest, isWhole: boolean) => {
        const expected = await alone(request);
        for (let sample = 0; sample < (request.samples ?? 1); sample++) {
          const of = (tokens: ReturnType<typeof heard>[]) => tokens.filter((token) => token.sample === sample);
          const mine = of(open.get(request)!.map(heard));
          assertEquals(mine, isWhole ? of(expected) : of(expected).slice(0, mine.length));
        }
        const ids = open.get(request)!.filter(({ sample, end }) => sample === 0 && end !== "stop").map(({ id }) => id);
        clients.histories.push([...request.prompt, ...ids]);
        open.delete(request);
      };
      while (left > 0 || !batch.isDone) {
        while (left > 0 && random.below(3) === 0) {
          const request = clients.next();
          open.set(request, []);
          batch.add(request);
          left--;
        }
        const running = batch.step();
        const leaving = open.size > 0 && random.below(12) === 0 ? random.pick([...open.keys()]) : null;
        if (leaving) batch.cancel(leaving); // while the step runs
        for (const token of await running) {
          assert(token.request !== leaving, "no token of a cancelled request is reported");
          assert(token.cachedTokens <= token.request.prompt.length);
          if (token.sample === 0 && token.cachedTokens > 1) cached++;
          open.get(token.request)!.push(token);
        }
        if (leaving) await compare(leaving, false);
        for (const [request, tokens] of open) {
          const ended = tokens.filter(({ end }) => end !== null).length;
          if (ended === (request.samples ?? 1)) await compare(request, true);
        }
      }
      assertEquals(open.size, 0);
    }
    assert(cached > 20, `${cached} tokens of answers whose prompts were cached in part`);
  });
}

/** Steps a batch to its end; gives the ids of each step. */
async function steps(batch: Batch): Promise<number[][]> {
  const all: number[][] = [];
  while (!batch.isDone) all.push((await batch.step()).map(({ id }) => id));
  return all;
}

Deno.test("Batch runs a long prompt in chunks while others generate, and draws its first token in the step of its last chunk", async () => {
  const model = new ScriptedModel([[1, 1, 1, 1, 1, 1, END], [2, END], [3, END]], { contextLen: 2000 });
  using batch = new Batch({ model, tokenizer: byteTokenizer }, { rows: 3, chunk: 10 });
  const [long, short] = [Array.from({ length: 25 }, (_, i) => i), [BOS, 7, 7]];
  batch.add({ prompt: [BOS] });
  assertEquals((await batch.step()).map(({ id }) => id), [1]);
  batch.add({ prompt: long });
  batch.add({ prompt: short });
  assertEquals(await steps(batch), [[1], [1], [1, 2, 3], [1, END, END], [1], [END]]);
  assertEquals(model.calls, [
    ...["decoder 3 2000", "prefill 1 behind 0", "start 0"],
    ...[
      "prefill 10 behind 0",
      "prefill 10 behind 10",
      "prefill 5 behind 20",
      "start 1",
      "prefill 3 behind 0",
      "start 2",
    ],
  ]);
});

Deno.test("Batch alone runs big chunks and can be left between two of them", async () => {
  const model = new ScriptedModel([[5, END]], { contextLen: 4000 });
  using batch = new Batch({ model, tokenizer: byteTokenizer }, { rows: 2, chunk: 10 });
  const long = Array.from({ length: 1200 }, (_, i) => i % 256);
  const [left, kept] = [{ prompt: long }, { prompt: [...long.slice(0, 1100), BOS] }];
  batch.add(left);
  assertEquals(await batch.step(), []);
  assertEquals(await batch.step(), []);
  batch.cancel(left);
  batch.add(kept);
  const [token] = await batch.step();
  assertEquals([token.id, token.cachedTokens], [5, 1024]);
  await steps(batch);
  assertEquals(model.calls.slice(1), [
    ...["prefill 512 behind 0", "prefill 512 behind 512", "prefill 77 behind 1024", "start 0"],
  ]);
});

Deno.test("Batch runs the prompts of others while every row waits for a tool", async () => {
  const model = new ScriptedModel([[PYTHON, 49, PYTHON_END, END], [5, END]], { contextLen: 4000 });
  using batch = new Batch({ model, tokenizer: byteTokenizer }, { rows: 2, chunk: 10 });
  const answer = Promise.withResolvers<string | null>();
  batch.add({ prompt: [BOS], tool: () => answer.promise });
  for (let i = 0; i < 3; i++) await batch.step();
  batch.add({ prompt: Array.from({ length: 1000 }, () => 7) });
  assertEquals([await batch.step(), (await batch.step()).map(({ id }) => id)], [[], [5]]);
  answer.resolve(null);
  await steps(batch);
});

Deno.test("Batch continues what ended rows, cancelled rows and running ones hold instead of computing it again", async () => {
  const model = new ScriptedModel([[5, 6, END], [8, 8, 8, 8, 8, END], [9, END], [9, END], [9, END], [9, 9], [9, END], [
    9,
    END,
  ]]);
  using batch = new Batch({ model, tokenizer: byteTokenizer }, { rows: 2, cacheRows: 2 });
  const cachedOf = async (prompt: number[]) => {
    const request = { prompt };
    batch.add(request);
    for (;;) {
      const token = (await batch.step()).find((token) => token.request === request);
      if (token) return token.cachedTokens;
    }
  };
  assertEquals(await cachedOf([BOS, 1, 2]), 0);
  await steps(batch);
  const running = [BOS, 3, 4];
  assertEquals(await cachedOf(running), 1);
  assertEquals(await cachedOf([BOS, 1, 2, 5, 6, END, 7]), 5, "of the ended row; its last token was never run");
  assertEquals(await cachedOf([BOS, 3, 4, 8, 8, 0]), 5, "of the row that runs");
  assertEquals(await cachedOf([BOS, 3, 4, 8, 8, 0]), 6, "all of it: the prompt is at hand");
  await steps(batch);
  assertEquals(model.calls.filter((call) => /save|recall/.test(call)), [
    ...["save 0 in 2", "recall 5 of 2", "save 1 in 2", "recall 5 of 0", "save 1 in 3", "save 0 in 2"],
  ]);
  const left = { prompt: [BOS, 200, 201] };
  batch.add(left);
  await batch.step();
  batch.cancel(left);
  assertEquals(await cachedOf([BOS, 0]), 1);
  assertEquals(await cachedOf([BOS, 200, 201, 9, 0]), 4, "of the cancelled row");
});

Deno.test("Batch takes no more memory after 10,000 requests than after a hundred", async () => {
  using device = Device.open("cpu", { threads: 1 });
  using model = new GPT(device, { ...CONFIG, nLayer: 1, nEmbd: 4, nHead: 2 }, { dtype: "f32", training: false });
  model.initWeights(1);
  model.packForInference();
  using batch = new Batch({ model: new GptDecodeModel(model), tokenizer: byteTokenizer }, {
    ...{ rows: 8, cacheRows: 4, chunk: 8 },
  });
  const random = new TestRandom(testSeed());
  const device100 = { allocated: 0, heap: 0 };
  const heap = () => Deno.memoryUsage().heapUsed;
  for (let added = 0; added < 10_000;) {
    while (batch.hasRoom) {
      const request = {
        prompt: [BOS, ...Array.from({ length: random.below(20) }, () => random.below(4))],
        ...{ maxTokens: 1 + random.below(3), seed: added, presencePenalty: added % 3 ? 0 : 1 },
        topLogprobs: added % 5 ? undefined : 5,
      };
      batch.add(request);
      if (random.below(9) === 0) batch.cancel(request);
      if (++added === 100) Object.assign(device100, { allocated: device.memory().allocated, heap: heap() });
    }
    await batch.step();
  }
  await steps(batch);
  await device.wait();
  assert(device.memory().allocated <= device100.allocated + 1024, "device memory"); // reads in flight at 100
  assert(heap() < device100.heap + 40e6, `${heap()} bytes of JavaScript, ${device100.heap} after 100 requests`);
});
