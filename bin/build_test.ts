import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../dev/testing.ts";
import { isPacked, writePacked } from "./build.ts";

Deno.test("isPacked() takes the file that was written for the hash, and none that was damaged since", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "nanochat");
  const [hash, other] = [new Uint8Array(8).fill(7), new Uint8Array(8).fill(8)];
  const bytes = new Uint8Array(1000);
  bytes.set(hash, 1000 - 16);
  assertEquals(await isPacked(path, hash), false);
  await writePacked(path, bytes);
  assertEquals([await isPacked(path, hash), await isPacked(path, other)], [true, false]);
  assert((Deno.statSync(path).mode ?? 0) & 0o100, "it can be executed");
  for (const damaged of [bytes.with(500, 1), bytes.subarray(1)]) {
    Deno.writeFileSync(path, damaged);
    assertEquals(await isPacked(path, hash), false);
  }
  Deno.writeFileSync(path, bytes);
  Deno.removeSync(`${path}.sha256`);
  assertEquals(await isPacked(path, hash), false, "nothing says that it is whole");
});
