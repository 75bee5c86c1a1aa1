import { assertEquals, assertThrows } from "@std/assert";
import { Tokenizer } from "../../data/tokenizer.ts";
import { byteAlphabet, byteLevelVocabulary } from "./hf_tokenizer.ts";

const BYTES = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
const text = (value: string) => new TextEncoder().encode(value);

Deno.test("byteAlphabet() has a visible character of its own for each byte", () => {
  const alphabet = byteAlphabet();
  assertEquals(new Set(alphabet).size, 256);
  assertEquals([alphabet[0x41], alphabet[0x20], alphabet[0x0a], alphabet[0xad]], ["A", "Ġ", "Ċ", "Ń"]);
});

Deno.test("byteLevelVocabulary() spells merges and refuses tokens that no merge makes", async () => {
  const pattern = String.raw`\s+|\S+`;
  using whole = await Tokenizer.fromParts({ pattern, tokens: [...BYTES, text("ab"), text("abc")], specials: {} });
  assertEquals(byteLevelVocabulary(whole).merges, [["a", "b"], ["ab", "c"]]);
  using torn = await Tokenizer.fromParts({ pattern, tokens: [...BYTES, text("abc")], specials: {} });
  assertThrows(() => byteLevelVocabulary(torn), Error, 'make token 256 ("abc")');
});
