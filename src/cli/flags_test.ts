import { assertEquals, assertThrows } from "@std/assert";
import { atLeast, bool, convertFlag, duration, type Flag, float, int, oneOf, string, UsageError } from "./flags.ts";

const where = { where: "--x" };
const help = "";

const GOOD: [string, Flag, string, unknown][] = [
  ["a whole number", int(0, { help }), "20", 20],
  ["an exponent without loss", int(0, { help }), "1e3", 1000],
  ["a fraction that is whole", int(0, { help }), "20.0", 20],
  ["grouped digits", int(0, { help }), "524_288", 524288],
  ["a negative number", int(0, { help }), "-1", -1],
  ["a whole number for a float", float(0, { help }), "20", 20],
  ["a fraction", float(0, { help }), ".5", 0.5],
  ["a signed exponent", float(0, { help }), "1E-3", 0.001],
  ["plain seconds", duration(0, { help }), "90", 90],
  ["minutes", duration(0, { help }), "10m", 600],
  ["half an hour", duration(0, { help }), "0.5h", 1800],
  ["milliseconds", duration(0, { help }), "500ms", 0.5],
  ["true in any case", bool(false, { help }), "True", true],
  ["0 as false", bool(true, { help }), "0", false],
  ["a word", oneOf(["cpu", "cuda"], { help, default: "cpu" }), "cuda", "cuda"],
  ["a numeric tag as text", string("", { help }), "007", "007"],
];

for (const [name, flag, text, expected] of GOOD) {
  Deno.test(`convertFlag() reads ${name}`, () => assertEquals(convertFlag(flag, text, where), expected));
}

const BAD: [string, Flag, string, string][] = [
  ["a lossy whole number", int(0, { help }), "20.5", "a whole number"],
  ["a number beyond 2^53", int(0, { help }), "9007199254740993", "a whole number"],
  ["an empty number", int(0, { help }), "", "a whole number"],
  ["a word for a number", float(0, { help }), "fast", "a number"],
  ["infinity", float(0, { help }), "inf", "a number"],
  ["an overflow", float(0, { help }), "1e999", "a number"],
  ["hexadecimal digits", int(0, { help }), "0x10", "a whole number"],
  ["an unknown unit", duration(0, { help }), "3d", "a length of time"],
  ["a foreign word", oneOf(["cpu", "cuda"], { help, default: "cpu" }), "mps", '"cpu" or "cuda"'],
  ["a switch that is neither", bool(false, { help }), "maybe", "true or false"],
  ["a value that a check refuses", int(1, { help, check: atLeast(1) }), "0", "at least 1"],
];

for (const [name, flag, text, expected] of BAD) {
  Deno.test(`convertFlag() refuses ${name}`, () => {
    const error = assertThrows(() => convertFlag(flag, text, where), UsageError);
    assertEquals(error.message.startsWith(`Cannot read --x: ${JSON.stringify(text)}, expected ${expected}`), true);
  });
}
