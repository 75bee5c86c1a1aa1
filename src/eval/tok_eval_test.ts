import { assertAlmostEquals, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { Tokenizer } from "../data/tokenizer.ts";
import { compareTokenizers, compressionTable, ratioTable } from "./tok_eval.ts";

const bytes = () => Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
const pattern = String.raw`\s+|\S+`;
const plain = () => Tokenizer.fromParts({ pattern, tokens: bytes(), specials: {} });
const pairs = () =>
  Tokenizer.fromParts({ pattern, tokens: [...bytes(), new TextEncoder().encode("ab")], specials: {} });

Deno.test("compareTokenizers() counts the tokens of both and what ours saves", async () => {
  using ours = await pairs();
  using theirs = await plain();
  const [row] = await compareTokenizers({ ours, theirs }, [{ name: "x", text: "ab ab é" }]);
  assertEquals([row.bytes, row.theirs, row.ours], [8, 8, 6]);
  assertAlmostEquals(row.ourRatio, 8 / 6);
  assertAlmostEquals(row.savedPercent, 25);
  assertStringIncludes(compressionTable("GPT-2", [row]), "| x | 8 | 8 | 1.00 | 6 | 1.33 | +25.0% |");
  assertStringIncludes(ratioTable([row]), "| x | 8 | 6 | 1.33 |");
});

Deno.test("compareTokenizers() has texts of its own", async () => {
  using ours = await pairs();
  const rows = await compareTokenizers({ ours, theirs: ours });
  assertEquals(rows.map((row) => [row.name, row.savedPercent]), [
    ["news", 0],
    ["korean", 0],
    ["code", 0],
    ["math", 0],
    ["science", 0],
  ]);
});

Deno.test("compareTokenizers() refuses a pattern that leaves text out", async () => {
  using ours = await Tokenizer.fromParts({ pattern: "[a-z]+", tokens: bytes(), specials: {} });
  await assertRejects(() => compareTokenizers({ ours, theirs: ours }), Error, "skips byte 0");
});
