import { assert, assertEquals } from "@std/assert";
import { GptDecodeModel } from "../engine/decode.ts";
import { Engine } from "../engine/engine.ts";
import { byteTokenizer, TestModel } from "../eval/eval_testing.ts";
import { rollOut } from "./rollouts.ts";

Deno.test("rollOut() gives each prompt the samples that its groups have alone", async () => {
  using test = new TestModel(265);
  using tokenizer = await byteTokenizer();
  const engine = new Engine(new GptDecodeModel(test.model), tokenizer);
  const prompts = [5, 2, 9].map((index) => ({
    index,
    prompt: [tokenizer.bosId, ...tokenizer.encode("ab ".repeat(index))],
  }));
  const sampling = { temperature: 1, topK: 20, maxNewTokens: 9 };
  const seedOf = (index: number, group: number) => 100 * index + group;
  const made = [];
  for await (const rollout of rollOut({ engine, tokenizer }, prompts, { samples: 7, group: 3, sampling, seedOf })) {
    made.push(rollout);
  }
  for (const [i, { index, prompt }] of prompts.entries()) {
    const groups = [];
    for (const [group, samples] of [3, 3, 1].entries()) {
      const options = { samples, maxTokens: 9, temperature: 1, topK: 20, seed: seedOf(index, group) };
      groups.push(await engine.generateBatch(prompt, options));
    }
    const sequences = groups.flatMap((group) => group.sequences);
    assertEquals(made[i], {
      index,
      sequences,
      masks: groups.flatMap((group) => group.masks),
      answers: sequences.map((ids) => tokenizer.decode(ids.slice(prompt.length))),
    });
  }
  assertEquals(made.length, 3);
  const stop = new AbortController();
  let rollouts = 0;
  const options = { samples: 2, group: 2, sampling, seedOf, signal: stop.signal };
  for await (const _ of rollOut({ engine, tokenizer }, prompts, options)) {
    rollouts++;
    stop.abort();
  }
  assert(rollouts === 1);
});
