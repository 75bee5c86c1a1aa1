/** Pickles of the real tiktoken and the real pickle module are read. */
import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { askPeer, peerTest } from "../../dev/peers.ts";
import { temporaryFolder } from "../../dev/testing.ts";
import { SPECIAL_TOKENS, SPLIT_PATTERN } from "../data/tokenizer.ts";
import { parsePickledEncoding } from "./tiktoken.ts";

const encoder = new TextEncoder();

peerTest("quick", "parsePickledEncoding() reads what tiktoken and pickle write, in each protocol", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "tokenizer.pkl");
  const long = encoder.encode("é".repeat(200)); // behind 255 bytes another instruction is used
  const tokens = [...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)), encoder.encode("ab"), long];
  const specials = Object.fromEntries(SPECIAL_TOKENS.map((name, i) => [name, 70_000 + i]));
  const parts = { pattern: SPLIT_PATTERN, specials };
  for (const protocol of [3, 4, 5]) { // protocol 2 has no bytes: it calls a function to make them
    const question = { path, protocol, ...parts, tokens: tokens.map((token) => token.toBase64()) };
    const size = await askPeer<number>("tiktoken_pickle.py", question);
    const bytes = Deno.readFileSync(path);
    assertEquals(bytes.length, size);
    assertEquals(parsePickledEncoding(bytes, path), { ...parts, tokens });
  }
});
