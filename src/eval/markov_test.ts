import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { Markov2, markov2BitsPerByte } from "./markov.ts";

Deno.test("markov2BitsPerByte() needs 8 bits for each byte when nothing was seen", () => {
  assertAlmostEquals(markov2BitsPerByte([], ["any text"]), 8, 1e-12);
  assertThrows(() => markov2BitsPerByte(["text"], [""]), RangeError, "are empty");
});

Deno.test("markov2BitsPerByte() equals the formula by hand when the corpus is tiny", () => {
  // "ab": triples (0,0,a), (0,a,b). p(c) = (n + 2/256) / 4 for a and b. p(a | 0): after 0 come a once -> (1 + p(a)) / 2; p(a | 00) likewise.
  const pa = (1 + 2 / 256) / 4;
  const pa1 = (1 + pa) / 2;
  const pa2 = (1 + pa1) / 2;
  assertAlmostEquals(markov2BitsPerByte(["ab"], ["a"]), -Math.log2(pa2), 1e-12);
  // A context that was never seen falls to the order below: after "b" nothing was seen, so p(a | xb) = p(a).
  assertAlmostEquals(new Markov2().measure("a").bits, 8, 1e-12);
  const model = new Markov2();
  model.add("ab");
  const { bits, bytes } = model.measure("aba");
  assertEquals(bytes, 3);
  assertAlmostEquals(bits, -Math.log2(pa2) * 2 - Math.log2(pa), 1e-12);
});

Deno.test("Markov2.measure() uses probabilities that add up to 1", () => {
  const model = new Markov2();
  model.add("the cat sat on the mat; the dog did not");
  const start = model.measure("th").bits;
  let sum = 0;
  for (let c = 0; c < 128; c++) sum += 2 ** (start - model.measure("th" + String.fromCharCode(c)).bits);
  // The other half of the bytes cannot be written as one-byte text; each has the same unseen probability as byte 1.
  sum += 128 * 2 ** (start - model.measure("th\u0001").bits);
  assertAlmostEquals(sum, 1, 1e-9);
});

Deno.test("markov2BitsPerByte() learns text that two bytes determine", () => {
  const text = "0123456789".repeat(1000);
  assert(markov2BitsPerByte([text], [text]) < 0.01);
});
