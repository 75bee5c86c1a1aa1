import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Task } from "../../tasks/task.ts";
import { renderForCompletion } from "../data/conversation.ts";
import { GptDecodeModel } from "../engine/decode.ts";
import { Engine } from "../engine/engine.ts";
import { answerRows, mapAhead } from "./answers.ts";
import { byteTokenizer, TestModel } from "./eval_testing.ts";

/** Prompts that grow and shrink; every fifth is longer than the context. */
const TASK: Task = {
  kind: "generative",
  length: 20,
  conversation: (index) => ({
    messages: [{ role: "user", content: "ab ".repeat(index % 5 === 0 ? 30 : index % 7) }, {
      role: "assistant",
      content: "",
    }],
  }),
};
const SAMPLING = { samples: 3, maxTokens: 8, temperature: 1, topK: 0, seed: 5 };

async function* arriving<T>(values: readonly T[]): AsyncGenerator<T> {
  for (const value of values) yield await Promise.resolve(value);
}

Deno.test("answerRows() answers in the order of the rows, each as alone, and names what does not fit", async () => {
  using test = new TestModel(265);
  using tokenizer = await byteTokenizer();
  const engine = new Engine(new GptDecodeModel(test.model), tokenizer);
  const alone = [];
  for (let index = 0; index < TASK.length; index++) {
    const conversation = TASK.conversation(index);
    const prompt = renderForCompletion(tokenizer, conversation);
    const generated = prompt.length < 64 ? await engine.generateBatch(prompt, SAMPLING) : null;
    const texts = generated && generated.sequences.map((ids) => tokenizer.decode(ids.slice(prompt.length)));
    alone.push({ index, conversation, texts });
  }
  assertEquals(alone.filter(({ texts }) => texts === null).map(({ index }) => index), [0, 5, 10, 15]);
  for (const rows of [1, 4, 32]) {
    const answered = [];
    const asked = { task: TASK, indices: alone.keys(), sampling: SAMPLING, rows };
    for await (const answer of answerRows({ engine, tokenizer }, asked)) answered.push(answer);
    assertEquals(answered, alone, `${rows} rows`);
  }
  const some = answerRows({ engine, tokenizer }, { task: TASK, indices: [0, 7, 5], sampling: SAMPLING });
  const indices = [];
  for await (const { index } of some) indices.push(index);
  assertEquals(indices, [0, 7, 5]);
});

Deno.test("answerRows() ends early where the signal says so", async () => {
  using test = new TestModel(265);
  using tokenizer = await byteTokenizer();
  const engine = new Engine(new GptDecodeModel(test.model), tokenizer);
  const stop = new AbortController();
  const asked = { task: TASK, indices: [1, 2, 3, 4, 5], sampling: SAMPLING, rows: 3, signal: stop.signal };
  let answers = 0;
  for await (const _ of answerRows({ engine, tokenizer }, asked)) if (++answers === 2) stop.abort();
  assertEquals(answers, 2);
});

Deno.test("mapAhead() works on several values at a time and gives the results in order", async () => {
  const gates = Array.from({ length: 6 }, () => Promise.withResolvers<void>());
  const begun: number[] = [];
  const results = mapAhead(arriving([0, 1, 2, 3, 4, 5]), {
    ahead: 3,
    map: async (i) => {
      begun.push(i);
      await gates[i].promise;
      return 10 * i;
    },
  });
  gates[1].resolve();
  const first = results.next();
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals(begun, [0, 1, 2]);
  gates[0].resolve();
  assertEquals((await first).value, 0);
  assertEquals((await results.next()).value, 10);
  for (const { resolve } of gates) resolve();
  const rest = [];
  for await (const value of results) rest.push(value);
  assertEquals(rest, [20, 30, 40, 50]);
});

Deno.test("mapAhead() gives what is settled without waiting for more than the next value, and throws in turn", async () => {
  const seen: number[] = [];
  const values = async function* () {
    for (let i = 0; i < 4; i++) {
      await new Promise((resolve) => setTimeout(resolve));
      assert(i < 2 || seen.length >= i - 1, `${seen} given before value ${i}`);
      yield i;
    }
  };
  const map = (i: number) => i === 3 ? Promise.reject(new Error("third")) : Promise.resolve(i);
  await assertRejects(
    async () => {
      for await (const value of mapAhead(values(), { ahead: 100, map })) seen.push(value);
    },
    Error,
    "third",
  );
  assertEquals(seen, [0, 1, 2]);
});
