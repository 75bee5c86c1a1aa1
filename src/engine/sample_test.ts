import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  checkPenalties,
  checkSampling,
  DEFAULT_SAMPLING,
  freshSeed,
  LogitChanges,
  type Penalties,
  type Sampling,
  SamplingColumns,
  writeChanges,
} from "./sample.ts";

Deno.test("checkSampling() fills in what is missing and refuses what is out of range", () => {
  assertEquals(checkSampling({}), { temperature: 1, topK: 0, topP: 1, seed: 42 }); // as the reference's engine
  assertEquals(checkSampling({ topK: 50, seed: undefined }), { ...DEFAULT_SAMPLING, topK: 50 });
  const refused = (change: Partial<Sampling>, message: string) =>
    assertThrows(() => checkSampling(change), RangeError, message);
  refused({ temperature: NaN }, "temperature is NaN, expected 0 or more");
  refused({ temperature: -0.1 }, "temperature is -0.1");
  refused({ temperature: Infinity }, "temperature is Infinity");
  refused({ topK: -1 }, "topK is -1, expected an integer");
  refused({ topK: 1.5 }, "topK is 1.5");
  refused({ topK: 2 ** 31 }, "topK is 2147483648");
  refused({ topP: 0 }, "topP is 0, expected more than 0 and at most 1");
  refused({ topP: 1.1 }, "topP is 1.1");
  refused({ seed: 0.5 }, "seed is 0.5, expected an integer");
  refused({ seed: 2 ** 53 }, "seed is 9007199254740992");
  for (
    const least of [{ temperature: 0, topK: 0, topP: 1e-9, seed: -1 }, {
      temperature: 9,
      topK: 2 ** 31 - 1,
      topP: 1,
      seed: 1n,
    }]
  ) assertEquals(checkSampling(least), least);
});

Deno.test("checkSampling() keeps settings that are too small for the device from reaching it", () => {
  for (const tiny of [Number.MIN_VALUE, 1e-300, 1e-45, 1e-40]) { // in float32 0, or with an infinite reciprocal
    const { temperature, topP } = checkSampling({ temperature: tiny, topP: tiny });
    assertEquals(temperature, 0, "as good as the most probable token");
    assert(Math.fround(topP) > 0, `${topP}`);
  }
  assertEquals(checkSampling({ temperature: 1e-37, topP: 1e-37 }).temperature, 1e-37);
});

Deno.test("SamplingColumns.set() keeps the low 64 bits of a seed and every setting of the row", () => {
  const columns = new SamplingColumns(2);
  columns.set(1, { temperature: 0.5, topK: 7, topP: 0.25, seed: -1, sample: 3, position: 9, topLogprobs: 5 });
  assertEquals([...columns.seeds], [0n, 0xffffffffffffffffn]);
  assertEquals([columns.samples[1], columns.draws[1], columns.topK[1]], [3, 9, 7]);
  assertEquals([columns.temperatures[1], columns.topP[1], columns.topLogprobs[1]], [0.5, 0.25, 5]);
});

Deno.test("checkPenalties() gives null where nothing changes and refuses what is out of range", () => {
  assertEquals(checkPenalties({}, 9), null);
  assertEquals(checkPenalties({ frequencyPenalty: 0, presencePenalty: -0, logitBias: new Map() }, 9), null);
  const all = { frequencyPenalty: -2, presencePenalty: 2, logitBias: new Map([[0, -100], [8, 100]]) };
  assertEquals(checkPenalties(all, 9), all);
  const refused = (change: Partial<Penalties>, message: string) =>
    assertThrows(() => checkPenalties(change, 9), RangeError, message);
  refused({ frequencyPenalty: 2.01 }, "frequencyPenalty is 2.01, expected -2 to 2");
  refused({ presencePenalty: NaN }, "presencePenalty is NaN");
  refused({ presencePenalty: -Infinity }, "presencePenalty is -Infinity");
  refused({ logitBias: new Map([[9, 1]]) }, "logitBias names the token 9, expected 0 to 8");
  refused({ logitBias: new Map([[-1, 1]]) }, "names the token -1");
  refused({ logitBias: new Map([[0.5, 1]]) }, "names the token 0.5");
  refused({ logitBias: new Map([[3, -101]]) }, "logitBias of 3 is -101, expected -100 to 100");
  refused({ logitBias: new Map([[3, NaN]]) }, "logitBias of 3 is NaN");
});

Deno.test("LogitChanges.count() adds up what OpenAI's formula takes from the tokens of an answer", () => {
  const changes = new LogitChanges({
    frequencyPenalty: 0.5,
    presencePenalty: 0.25,
    logitBias: new Map([[3, 10], [4, 1]]),
  });
  assertEquals([...changes.values], [[3, 10], [4, 1]]);
  for (const id of [3, 7, 3]) changes.count(id);
  assertEquals([...changes.values], [[3, 10 - 1 - 0.25], [4, 1], [7, -0.5 - 0.25]]);
  const biased = new LogitChanges({ frequencyPenalty: 0, presencePenalty: 0, logitBias: new Map([[3, 10]]) });
  biased.count(5);
  assertEquals([...biased.values], [[3, 10]]);
});

Deno.test("writeChanges() lays out the lists of all rows behind each other", () => {
  const draw = { ...DEFAULT_SAMPLING, sample: 0, position: 0 };
  assertEquals(writeChanges([draw, { ...draw, changes: new Map() }]), null);
  const { words, size } = writeChanges([
    { ...draw, changes: new Map([[5, 1.5]]) },
    draw,
    { ...draw, changes: new Map([[7, -2], [1, 0.25]]) },
  ])!;
  assertEquals([size, ...words.slice(0, 7)], [3, 0, 1, 1, 3, 5, 7, 1]);
  assertEquals([...new Float32Array(words.buffer, 28, 3)], [1.5, -2, 0.25]);
});

Deno.test("freshSeed() gives integers of 31 bits that differ", () => {
  const seeds = Array.from({ length: 64 }, freshSeed);
  assertEquals(seeds.every((seed) => Number.isInteger(seed) && seed >= 0 && seed <= 0x7fffffff), true);
  assertEquals(new Set(seeds).size > 1, true);
  assertEquals(seeds.some((seed) => seed >= 2 ** 30), true, "the highest bit is never set");
});
