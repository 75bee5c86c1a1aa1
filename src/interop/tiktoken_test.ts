import { assertEquals, assertThrows } from "@std/assert";
import { Tokenizer } from "../data/tokenizer.ts";
import { formatRanks, parseRanks } from "./tiktoken.ts";

Deno.test("parseRanks() reads what formatRanks() writes", async () => {
  const tokens = [...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)), new TextEncoder().encode("ab")];
  using tokenizer = await Tokenizer.fromParts({ pattern: String.raw`\s+|\S+`, tokens, specials: { "<|end|>": 257 } });
  assertEquals(parseRanks(formatRanks(tokenizer)), tokens);
});

Deno.test("parseRanks() refuses other lines and ranks out of order", () => {
  assertThrows(() => parseRanks("AA== 0\nAQ== 2\n"), SyntaxError, "line 2");
  assertThrows(() => parseRanks("AA== 0\n\nAQ=="), SyntaxError, "line 3");
});
