import { assertEquals, assertRejects } from "@std/assert";
import { Engine, type GenerateOptions } from "./engine.ts";
import { bytes, byteTokenizer as tokenizer, ScriptedModel, special } from "./engine_testing.ts";

const [BOS, END, PYTHON, PYTHON_END, OUTPUT, OUTPUT_END] = [
  ..."bos assistant_end python_start python_end output_start output_end".split(" "),
].map((name) => special(`<|${name}|>`));
const PROMPT = [BOS, 1, 2];

async function run(script: number[][], options: GenerateOptions & { contextLen?: number } = {}) {
  const model = new ScriptedModel(script, options);
  const engine = new Engine(model, tokenizer);
  const columns = [];
  for await (const { ids, masks, live } of engine.generate(PROMPT, { samples: script.length, ...options })) {
    columns.push({ ids: [...ids], masks: [...masks], live: [...live] });
  }
  return { model, columns };
}

Deno.test("Engine.generate() runs the prompt once for all samples", async () => {
  const { model, columns } = await run([[5, END], [6, END]], { maxTokens: 9, seed: 7, temperature: 0.5, topK: 3 });
  assertEquals(model.calls, ["decoder 2 12", "prefill 3 behind 0", "start 0", "start 1"]);
  assertEquals(columns.map((column) => column.ids), [[5, 6], [END, END]]);
  assertEquals(model.open, 0);
  // Each row draws on its own, at the position of its token.
  assertEquals(model.draws[1].map(({ sample, position, seed, topK }) => [sample, position, seed, topK]), [
    [0, 4, 7, 3],
    [1, 4, 7, 3],
  ]);
});

Deno.test("Engine.generate() makes no step after the last column", async () => {
  assertEquals((await run([[5]], { maxTokens: 3 })).model.fed.length, 2);
  assertEquals((await run([[5, 6, END]])).model.fed, [[5], [6]]);
  assertEquals((await run([[5]], { maxTokens: 0 })).model.calls, []);
  await assertRejects(() => run([[5]], { maxTokens: 0, topP: 2 }), RangeError, "topP is 2");
});

Deno.test("Engine.generate() stops where the context is full", async () => {
  const { columns } = await run([[5]], { contextLen: 6 });
  assertEquals(columns.length, 3);
  await assertRejects(() => run([[5]], { contextLen: 3 }), RangeError, "expected fewer than the context of 3");
  await assertRejects(() => run([[5]], { maxTokens: -1 }), RangeError, "maxTokens is -1");
  await assertRejects(() => run([[5]], { samples: 0 }), RangeError, "samples is 0");
  await assertRejects(() => run([[5]], { topP: 0 }), RangeError, "topP is 0");
  await assertRejects(() => run([[5]], { temperature: -1 }), RangeError, "temperature is -1");
  await assertRejects(() => run([[5]], { topK: 1.5 }), RangeError, "topK is 1.5");
  const engine = new Engine(new ScriptedModel([[5]]), tokenizer);
  await assertRejects(async () => void await engine.generate([]).next(), RangeError, "the prompt is empty");
});

Deno.test("Engine.generate() forces the calculator's result in place of sampled tokens", async () => {
  const call = [PYTHON, ...bytes("6*7"), PYTHON_END];
  const { columns, model } = await run([[...call, END, END, END, END, 9, END]]);
  const expected = [...call, OUTPUT, ...bytes("42"), OUTPUT_END, 9, END];
  assertEquals(columns.map((column) => column.ids[0]), expected);
  assertEquals(columns.map((column) => column.masks[0]), [1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1]);
  assertEquals(model.fed.map(([id]) => id), expected.slice(0, -1), "the model is fed what was forced");
});

Deno.test("Engine.generate() goes on without output when the calculator has no answer", async () => {
  for (const text of ["2**3", "", "1/0"]) {
    const script = [PYTHON, ...bytes(text), PYTHON_END, 9, END];
    assertEquals((await run([script])).columns.map((column) => column.ids[0]), script);
  }
  const unopened = [PYTHON_END, 9, END];
  assertEquals((await run([unopened])).columns.length, 3);
});

Deno.test("Engine.generate() starts an expression anew at each start token and calls the given tool", async () => {
  const asked: string[] = [];
  const tool = (text: string) => {
    asked.push(text);
    return Promise.resolve("!");
  };
  const script = [PYTHON, ...bytes("ab"), PYTHON, ...bytes("cd"), PYTHON_END, 0, 0, 0, END];
  const { columns } = await run([script], { tool });
  assertEquals(asked, ["cd"]);
  assertEquals(columns.slice(7, 10).map((column) => column.ids[0]), [OUTPUT, ...bytes("!"), OUTPUT_END]);
});

Deno.test("Engine.generate() computes no ended rows while others go on", async () => {
  const { columns, model } = await run([[5, BOS], [6, 7, 7, END], [8, 8, END]]);
  assertEquals(columns.map((column) => column.live), [[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 0]]);
  assertEquals(columns.map(({ ids, live }) => ids.filter((_, i) => live[i])), [[5, 6, 8], [BOS, 7, 8], [7, END], [
    END,
  ]]);
  // The place of an ended row is idle for the one step that follows it.
  assertEquals(model.fed, [[5, 6, 8], [-1, 7, 8], [-1, 7]]);
  assertEquals(model.calls.slice(-2), ["move 2 to 0", "move 1 to 0"]);
});

Deno.test("Engine.generate() frees its rows when the caller stops early or aborts", async () => {
  const model = new ScriptedModel([[5], [5]]);
  const engine = new Engine(model, tokenizer);
  for await (const _ of engine.generate(PROMPT)) break;
  assertEquals(model.open, 0);
  const stop = new AbortController();
  let made = 0;
  for await (const _ of engine.generate(PROMPT, { signal: stop.signal })) if (++made === 2) stop.abort();
  assertEquals(made, 2);
  assertEquals(model.open, 0);
});

Deno.test("Engine.generateBatch() gives sequences without their end tokens", async () => {
  const call = [PYTHON, ...bytes("1+1"), PYTHON_END];
  const engine = new Engine(new ScriptedModel([[...call, 0, 0, 0, 9, END], [5, END, 6, 6]]), tokenizer);
  const { sequences, masks } = await engine.generateBatch(PROMPT, { samples: 2 });
  assertEquals(sequences, [[...PROMPT, ...call, OUTPUT, ...bytes("2"), OUTPUT_END, 9], [...PROMPT, 5]]);
  assertEquals(masks, [[0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 1], [0, 0, 0, 1]]);
});
