import { assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { numpyPermutation, pythonTupleHash31, Random } from "./random.ts";

interface Vectors {
  python_random_random: Record<string, number[]>;
  python_shuffle: { seed: number; n: number; result: number[] }[];
  python_sample: { seed: number; n: number; excluded: number; k: number; result: number[] }[];
  python_choice: { seed: number; n: number; values: number[] }[];
  python_randint: { seed: number; a: number; b: number; values: number[] }[];
  numpy_permutation: { seed: number; n: number; result: number[] }[];
}

// Recorded from CPython and NumPy; the excerpt on a bare clone, everything where NANOCHAT_DATA names the full set.
const folder = Deno.env.get("NANOCHAT_DATA") ?? join(import.meta.dirname!, "../../dev/golden");
const vectors: Vectors = JSON.parse(Deno.readTextFileSync(join(folder, "rng/rng_vectors.json")));

Deno.test("Random.random() equals Python for recorded seeds", () => {
  for (const [seed, expected] of Object.entries(vectors.python_random_random)) {
    const random = new Random(Number(seed));
    assertEquals(expected.map(() => random.random()), expected);
  }
});

Deno.test("Random.shuffle(), sample(), choice() and randInt() equal Python for recorded seeds", () => {
  for (const { seed, n, result } of vectors.python_shuffle) {
    const items = Array.from({ length: n }, (_, i) => i);
    new Random(seed).shuffle(items);
    assertEquals(items.slice(0, result.length), result);
  }
  for (const { seed, n, excluded, k, result } of vectors.python_sample) {
    const items = Array.from({ length: n }, (_, i) => i).filter((i) => i !== excluded);
    assertEquals(new Random(seed).sample(items, k), result);
  }
  for (const { seed, n, values } of vectors.python_choice) {
    const random = new Random(seed);
    const items = Array.from({ length: n }, (_, i) => i);
    assertEquals(values.map(() => random.choice(items)), values);
  }
  for (const { seed, a, b, values } of vectors.python_randint) {
    const random = new Random(seed);
    assertEquals(values.map(() => random.randInt(a, b)), values);
  }
});

Deno.test("Random() takes the absolute value and all words of a seed", () => {
  assertEquals(new Random(-42).random(), new Random(42).random());
  assertEquals(new Random(2n ** 40n + 7n).random(), 0.6137037779936511);
  assertThrows(() => new Random(1).below(0), RangeError, "Cannot draw below 0");
  assertThrows(() => new Random(1).sample([1], 2), RangeError, "the list has 1");
});

Deno.test("numpyPermutation() equals NumPy for recorded seeds", () => {
  for (const { seed, n, result } of vectors.numpy_permutation) {
    assertEquals(Array.from(numpyPermutation(seed, n).subarray(0, result.length)), result);
  }
});

Deno.test("pythonTupleHash31() equals CPython", () => {
  assertEquals(pythonTupleHash31([0, 0, 0]), 360982090);
  assertEquals(pythonTupleHash31([3, 5, 7]), 1573325281);
});
