import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../dev/testing.ts";
import { loadMixture, parseMixture, REFERENCE_MIXTURES } from "./mixtures.ts";
import { worldTask } from "./world_tasks.ts";

Deno.test("parseMixture() reads rows and times, and says what an item may be", () => {
  assertEquals(parseMixture("gsm8k, identity*2,world-counting:20*3,my data.jsonl:5"), [
    { name: "gsm8k", rows: undefined, times: 1 },
    { name: "identity", rows: undefined, times: 2 },
    { name: "world-counting", rows: 20, times: 3 },
    { name: "my data.jsonl", rows: 5, times: 1 },
  ]);
  for (const text of ["gsm9k", "gsm8k:0", "gsm8k*0", "gsm8k:x", "data.json"]) {
    assertThrows(() => parseMixture(text), SyntaxError, "is no item, expected NAME");
  }
  for (const text of ["", "  "]) assertThrows(() => parseMixture(text), SyntaxError, "it is empty, expected NAME");
  for (const text of ["gsm8k,", "gsm8k,,arc-easy"]) {
    assertThrows(() => parseMixture(text), SyntaxError, "item 2 is empty, expected NAME");
  }
  for (const { train, validation } of Object.values(REFERENCE_MIXTURES)) {
    parseMixture(train);
    parseMixture(validation);
  }
});

Deno.test("loadMixture() takes the first rows of files, generates tasks of a size and repeats", async () => {
  using folder = temporaryFolder();
  const lines = ["a", "b", "c"].map((text) =>
    JSON.stringify([{ role: "user", content: text }, { role: "assistant", content: text }])
  );
  await Deno.writeTextFile(join(folder.path, "own.jsonl"), lines.join("\n"));
  const source = { dataDir: folder.path, split: "train" } as const;
  const alone = await loadMixture("own.jsonl:2", source);
  assertEquals(Array.from({ length: alone.length }, (_, i) => alone.conversation(i).messages[0].content), ["a", "b"]);
  const mixed = await loadMixture("own.jsonl*2, world-counting:4", source);
  assertEquals([mixed.length, mixed.reward], [10, undefined]);
  const contents = Array.from({ length: 10 }, (_, i) => mixed.conversation(i).messages[0].content);
  assertEquals(contents.filter((text) => text === "b").length, 2);
  const test = await loadMixture("world-counting:4", { ...source, split: "test" });
  assertEquals(test.conversation(1), worldTask("counting", { split: "test", size: 4 }).conversation(1));
  await assertRejects(
    () => loadMixture("own.jsonl, mine.jsonl", source),
    Error,
    '"mine.jsonl": it is neither here nor in',
  );
  await assertRejects(() => loadMixture("identity", source), Error, 'run "nanochat data fetch identity"');
  await assertRejects(() => loadMixture("gsm8k", source), Error, 'run "nanochat data fetch tasks"');
});

Deno.test("loadMixture() names the command that fetches what is missing", async () => {
  using folder = temporaryFolder();
  for (const { train } of Object.values(REFERENCE_MIXTURES)) {
    for (const { name } of parseMixture(train)) {
      const asset = /spelling/.test(name) ? "words" : name === "identity" ? "identity" : "tasks";
      const load = () => loadMixture(name, { dataDir: folder.path, split: "train" });
      await assertRejects(load, Error, `run "nanochat data fetch ${asset}"`);
    }
  }
});
