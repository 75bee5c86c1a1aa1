import { assertEquals, assertThrows } from "@std/assert";
import { checkSampling, DEFAULT_SAMPLING, freshSeed, SamplingColumns } from "./sample.ts";

Deno.test("checkSampling() fills in what is missing and refuses what is out of range", () => {
  assertEquals(checkSampling({}), DEFAULT_SAMPLING);
  assertEquals(checkSampling({ topK: 50, seed: undefined }), { ...DEFAULT_SAMPLING, topK: 50 });
  assertThrows(() => checkSampling({ temperature: NaN }), RangeError, "temperature is NaN");
  assertThrows(() => checkSampling({ topK: -1 }), RangeError, "topK is -1");
  assertThrows(() => checkSampling({ topP: 1.1 }), RangeError, "topP is 1.1");
  assertThrows(() => checkSampling({ seed: 0.5 }), RangeError, "seed is 0.5");
});

Deno.test("SamplingColumns.set() keeps the low 64 bits of a seed and every setting of the row", () => {
  const columns = new SamplingColumns(2);
  columns.set(1, { temperature: 0.5, topK: 7, topP: 0.25, seed: -1, sample: 3, position: 9 });
  assertEquals([...columns.seeds], [0n, 0xffffffffffffffffn]);
  assertEquals([columns.samples[1], columns.draws[1], columns.topK[1]], [3, 9, 7]);
  assertEquals([columns.temperatures[1], columns.topP[1]], [0.5, 0.25]);
});

Deno.test("freshSeed() gives integers of 31 bits that differ", () => {
  const seeds = Array.from({ length: 20 }, freshSeed);
  assertEquals(seeds.every((seed) => Number.isInteger(seed) && seed >= 0 && seed <= 0x7fffffff), true);
  assertEquals(new Set(seeds).size > 1, true);
});
