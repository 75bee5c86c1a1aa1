import { assertEquals, assertThrows } from "@std/assert";
import { checkSampling, DEFAULT_SAMPLING, freshSeed, type Sampling, SamplingColumns } from "./sample.ts";

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

Deno.test("SamplingColumns.set() keeps the low 64 bits of a seed and every setting of the row", () => {
  const columns = new SamplingColumns(2);
  columns.set(1, { temperature: 0.5, topK: 7, topP: 0.25, seed: -1, sample: 3, position: 9 });
  assertEquals([...columns.seeds], [0n, 0xffffffffffffffffn]);
  assertEquals([columns.samples[1], columns.draws[1], columns.topK[1]], [3, 9, 7]);
  assertEquals([columns.temperatures[1], columns.topP[1]], [0.5, 0.25]);
});

Deno.test("freshSeed() gives integers of 31 bits that differ", () => {
  const seeds = Array.from({ length: 64 }, freshSeed);
  assertEquals(seeds.every((seed) => Number.isInteger(seed) && seed >= 0 && seed <= 0x7fffffff), true);
  assertEquals(new Set(seeds).size > 1, true);
  assertEquals(seeds.some((seed) => seed >= 2 ** 30), true, "the highest bit is never set");
});
