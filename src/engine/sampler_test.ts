import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { TestRandom, testSeed } from "../../dev/testing.ts";
import { TEST_BACKEND } from "../tensor/backend_testing.ts";
import { Device } from "../tensor/device.ts";
import { DEFAULT_SAMPLING, type Draw } from "./sample.ts";
import { Sampler } from "./sampler.ts";

const V = 50;
const GREEDY = { ...DEFAULT_SAMPLING, temperature: 0, sample: 0, position: 0 };

Deno.test("Sampler draws each row from its own changed logits and scores all by the plain ones", async () => {
  const random = new TestRandom(testSeed());
  using device = Device.open(TEST_BACKEND, { threads: 1 });
  using sampler = new Sampler(device, { rows: 4, vocabSize: V });
  const rows = Array.from({ length: 3 }, () => Float32Array.from({ length: V }, () => 8 * random.below(1000) / 1000));
  rows[2][7] = rows[2][3] = 9; // equal: the lower id comes first
  const flat = Float32Array.from(rows.flatMap((row) => [...row]));
  using logits = device.from(flat, [3, V], "f32");
  const logprob = (row: number, id: number) =>
    rows[row][id] - Math.log(rows[row].reduce((sum, logit) => sum + Math.exp(logit), 0));
  for (const size of [1, 3, 40]) { // the buffer of changes grows
    const changes = new Map(Array.from({ length: size }, (_, i) => [V - 1 - i, 100 - i]));
    const draws: Draw[] = [{ ...GREEDY, topLogprobs: 0 }, { ...GREEDY, changes, topLogprobs: 2 }, { ...GREEDY }];
    const { ids, logprobs, top } = await sampler.sample(logits, draws);
    const best = rows.map((row) => row.indexOf(Math.max(...row)));
    assertEquals([...ids], [best[0], V - 1, 3]);
    [0, 1, 2].forEach((row) => assertAlmostEquals(logprobs[row], logprob(row, ids[row]), 1e-5));
    assertEquals([top[0], top[1]!.length, top[2]], [[], 2, undefined]);
    assertEquals(top[1]![0].id, best[1]);
    for (const candidate of top[1]!) assertAlmostEquals(candidate.logprob, logprob(1, candidate.id), 1e-5);
  }
  const { ids, logprobs, top } = await sampler.sample(logits, [GREEDY, GREEDY, { ...GREEDY, topLogprobs: 20 }]);
  assertEquals(top[2]!.slice(0, 2).map(({ id }) => id), [3, 7]);
  assertEquals(top[2]![0].logprob, logprobs[2]);
  assertEquals(ids[1], rows[1].indexOf(Math.max(...rows[1])), "changes of an earlier draw are gone");
  assert(top[2]!.every(({ logprob }, i, all) => i === 0 || logprob <= all[i - 1].logprob));
  await device.wait();
});

Deno.test("Sampler refuses rows of which nothing can be drawn", async () => {
  for (const logit of [NaN, -Infinity]) {
    const device = Device.open(TEST_BACKEND, { threads: 1 });
    const sampler = new Sampler(device, { rows: 1, vocabSize: V });
    const logits = device.from(new Float32Array(V).fill(logit), [1, V], "f32");
    await assertRejects(() => sampler.sample(logits, [{ ...GREEDY, temperature: 1 }]), Error, "Cannot sample row 0");
    device[Symbol.dispose]();
  }
});
