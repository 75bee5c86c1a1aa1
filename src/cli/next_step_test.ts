import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { foldersOf, TOKENIZER_FILE } from "../data/base_dir.ts";
import { RECIPES } from "../train/recipes.ts";
import { writeRecords } from "../train/run_record.ts";
import { adviceFor, look } from "./next_step.ts";

Deno.test("look() finds what a base folder holds, step by step", async () => {
  const base = await Deno.makeTempDir();
  const put = (...path: string[]) => {
    Deno.mkdirSync(join(base, ...path.slice(0, -1)), { recursive: true });
    Deno.writeTextFileSync(join(base, ...path), "");
  };
  const advice = () => adviceFor({ ...look(base), library: true });
  try {
    assertStringIncludes(advice(), '"nanochat run tiny"');
    put("data", "shard_00000.parquet");
    assertStringIncludes(advice(), '"nanochat tokenizer train"');
    put("tokenizer", TOKENIZER_FILE);
    assertStringIncludes(advice(), '"nanochat train ');
    put("runs", "tiny", "tokenizer", TOKENIZER_FILE);
    assertStringIncludes(advice(), '"nanochat run tiny"');
    put("runs", "tiny", "checkpoints", "base", "d4", "meta_000010.json");
    assertMatch(advice(), /^The run "tiny" is not finished; continue it with "nanochat run tiny"; .*"nanochat chat"$/);
    const records = RECIPES.tiny.stages.map(({ name }) => [name, { key: "k", finished: "today", sec: 1, figures: {} }]);
    const write = (some: typeof records) => writeRecords(foldersOf(base, "tiny"), Object.fromEntries(some));
    write(records.slice(0, -1));
    assertStringIncludes(advice(), 'continue it with "nanochat run tiny"');
    write(records);
    assertEquals(advice(), 'A model is here; talk to it with "nanochat chat", or on a web page with "nanochat serve"');
  } finally {
    await Deno.remove(base, { recursive: true });
  }
});

Deno.test("adviceFor() names the set-up where the library is missing", () => {
  const found = { library: false, model: true, tokenizer: true, data: true };
  assertStringIncludes(adviceFor(found), '"deno task setup"');
  assertEquals(adviceFor({ ...found, library: true }).includes("setup"), false);
});
