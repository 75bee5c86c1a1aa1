import { assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { PROMPTS_FILE, readPrompts, writePrompts } from "./prompts.ts";

Deno.test("readPrompts() gives what was written, nothing without a file, and names a damaged one", async () => {
  const folder = await Deno.makeTempDir();
  try {
    assertEquals(readPrompts(folder), undefined);
    const prompts = { training: ["Once"], final: ["Question: Who?\nAnswer:", "A heron is"] };
    writePrompts(folder, prompts);
    assertEquals(readPrompts(folder), prompts);
    for (
      const text of ["", "[]", '{"training": ["a"]}', '{"training": [""], "final": []}', '{"training": 1, "final": []}']
    ) {
      await Deno.writeTextFile(join(folder, PROMPTS_FILE), text);
      assertThrows(() => readPrompts(folder), SyntaxError, PROMPTS_FILE);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
