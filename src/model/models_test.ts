import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { TOKENIZER_FILE } from "../data/base_dir.ts";
import type { Stage } from "../data/base_dir.ts";
import { SILENT } from "../data/log.ts";
import { fakeCheckpoint } from "./checkpoint_testing.ts";
import { FolderLock } from "./lock.ts";
import { CheckpointError, fileNames } from "./meta.ts";
import { checkTokenizerUnused, chooseModel, findModel, inspectModel, listModels, removeModel } from "./models.ts";

const TOKENIZER = new TextEncoder().encode("{}");

/** Writes a checkpoint without tensors at `place/checkpoints/stage/tag`, dated `minute` minutes after a fixed time. */
function put(base: string, at: { run?: string; stage: Stage; tag: string; step: number; minute?: number }): void {
  const { run, stage, tag, step, minute = 0 } = at;
  const folder = join(base, ...(run === undefined ? [] : ["runs", run]), "checkpoints", stage, tag);
  const time = new Date(Date.UTC(2025, 0, 1, 0, minute));
  for (const path of fakeCheckpoint(folder, { run: run ?? "dummy", stage, step })) Deno.utimeSync(path, time, time);
}

function inBase(test: (base: string) => void): void {
  const base = Deno.makeTempDirSync();
  try {
    test(base);
  } finally {
    Deno.removeSync(base, { recursive: true });
  }
}

Deno.test("listModels() lists every stage and tag of the base folder and the runs", () => {
  inBase((base) => {
    assertEquals(listModels(base), []);
    put(base, { stage: "base", tag: "d20", step: 5 });
    put(base, { stage: "base", tag: "d4", step: 10 });
    put(base, { stage: "base", tag: "d4", step: 9 });
    put(base, { run: "tiny", stage: "sft", tag: "mine", step: 1 });
    Deno.mkdirSync(join(base, "checkpoints/mid/empty"), { recursive: true });
    const models = listModels(base);
    assertEquals(models.map(({ name, steps }) => [name, steps]), [
      ["base/d4", [9, 10]],
      ["base/d20", [5]],
      ["tiny/sft/mine", [1]],
    ]);
    assertEquals(models[0].bytes > 200, true);
    assertEquals(models[2].run, "tiny");
  });
});

Deno.test("findModel() takes any unambiguous ending of the name", () => {
  inBase((base) => {
    put(base, { stage: "base", tag: "d4", step: 1 });
    put(base, { run: "tiny", stage: "base", tag: "d4", step: 1 });
    put(base, { run: "tiny", stage: "sft", tag: "d4", step: 1 });
    assertEquals(findModel(base, "base/d4").run, undefined);
    assertEquals(findModel(base, "tiny/base/d4").run, "tiny");
    assertEquals(findModel(base, "sft/d4").stage, "sft");
    assertThrows(() => findModel(base, "d4"), CheckpointError, "base/d4, tiny/base/d4, tiny/sft/d4 have this name");
    assertThrows(() => findModel(base, "d5"), CheckpointError, "none of base/d4");
    assertThrows(() => findModel(join(base, "none"), "d5"), CheckpointError, "none of the 0 models there");
  });
});

Deno.test("chooseModel() takes the furthest stage of what was trained last, and says so", () => {
  inBase((base) => {
    put(base, { stage: "rl", tag: "d4", step: 1, minute: 1 });
    put(base, { run: "tiny", stage: "base", tag: "d4", step: 7, minute: 3 });
    put(base, { run: "tiny", stage: "sft", tag: "d4", step: 3, minute: 2 });
    put(base, { run: "old", stage: "rl", tag: "d4", step: 3, minute: 0 });
    const chosen = chooseModel(base);
    assertEquals([chosen.name, chosen.step, chosen.source, chosen.run], ["tiny/sft/d4", 3, "sft", "tiny"]);
    assertStringIncludes(chosen.why, 'sft/d4 at step 3 from run "tiny", the furthest stage of what was trained last');
    put(base, { stage: "base", tag: "d4", step: 2, minute: 9 });
    assertEquals(chooseModel(base).name, "rl/d4");
  });
});

Deno.test("chooseModel() with a source looks in the base folder first; tag by depth, then by age; step as a number", () => {
  inBase((base) => {
    put(base, { run: "tiny", stage: "base", tag: "d99", step: 1, minute: 9 });
    assertEquals(chooseModel(base, { source: "base" }).name, "tiny/base/d99");
    put(base, { stage: "base", tag: "d4", step: 999_999 });
    put(base, { stage: "base", tag: "d4", step: 1_000_000 });
    put(base, { stage: "base", tag: "d12", step: 5 });
    put(base, { stage: "base", tag: "older", step: 5, minute: 1 });
    put(base, { stage: "sft", tag: "a", step: 5, minute: 2 });
    put(base, { stage: "sft", tag: "b", step: 5, minute: 1 });
    put(base, { stage: "mid", tag: "a", step: 5, minute: 1 });
    put(base, { stage: "mid", tag: "b", step: 5, minute: 2 });
    assertEquals(chooseModel(base, { source: "mid" }).tag, "b");
    assertStringIncludes(chooseModel(base, { source: "mid" }).why, "the mid model found first");
    assertEquals(chooseModel(base, { source: "base" }).name, "base/d12");
    assertEquals(chooseModel(base, { source: "base", tag: "d4" }).step, 1_000_000);
    assertEquals(chooseModel(base, { source: "base", step: 999_999 }).name, "base/d4");
    assertEquals(chooseModel(base, { source: "sft" }).tag, "a");
    assertEquals(chooseModel(base, { tag: "d99" }).run, "tiny");
    Deno.removeSync(join(base, "checkpoints/base/d12", fileNames(5).model));
    const warnings: string[] = [];
    const log = { ...SILENT, warn: (message: string) => void warnings.push(message) };
    assertEquals(chooseModel(base, { source: "base", log }).name, "base/d4");
    assertStringIncludes(warnings[0], "is missing");
  });
});

Deno.test("chooseModel() says what is there instead", () => {
  inBase((base) => {
    assertThrows(() => chooseModel(base), CheckpointError, 'run "nanochat run tiny"');
    const python = join(base, "chatsft_checkpoints/d20");
    Deno.mkdirSync(python, { recursive: true });
    Deno.writeTextFileSync(join(python, "model_000001.pt"), "");
    assertThrows(() => chooseModel(base), CheckpointError, `run "nanochat import ${python}"`);
    put(base, { stage: "base", tag: "d4", step: 3 });
    assertThrows(() => chooseModel(base, { source: "sft" }), CheckpointError, "it holds base/d4 (step 3); found model");
    Deno.removeSync(join(base, "chatsft_checkpoints"), { recursive: true });
    const sentence = 'it holds base/d4 (step 3); run "nanochat sft" first, or choose another with --source';
    assertThrows(() => chooseModel(base, { source: "sft", tag: "x" }), CheckpointError, sentence);
    const other = assertThrows(
      () => chooseModel(base, { source: "base", tag: "x" }),
      CheckpointError,
      "it holds base/d4",
    );
    assert(!other.message.includes("nanochat train"), other.message);
    assertThrows(() => chooseModel(base, { step: 4 }), CheckpointError, "a model at step 4");
  });
});

Deno.test("inspectModel() describes a damaged step beside the others", () => {
  inBase((base) => {
    for (const step of [1, 2]) put(base, { stage: "base", tag: "d4", step });
    Deno.removeSync(join(base, "checkpoints/base/d4", fileNames(1).model));
    const [first, second] = inspectModel(findModel(base, "d4"));
    assertStringIncludes(first.problem!, "is missing");
    assertEquals([second.step, second.bytes, second.checkpoint?.meta.run], [2, 1, "dummy"]);
  });
});

Deno.test("removeModel() removes a step or everything, and not while another writes", () => {
  inBase((base) => {
    for (const step of [1, 2]) put(base, { stage: "base", tag: "d4", step });
    put(base, { stage: "base", tag: "d5", step: 1 });
    const model = findModel(base, "d4");
    {
      using _lock = FolderLock.acquire(model.folder, { purpose: "nanochat train", log: SILENT });
      assertThrows(() => removeModel(model, { log: SILENT }), CheckpointError, "nanochat train");
    }
    assertThrows(() => removeModel(model, { step: 9, log: SILENT }), CheckpointError, "steps 1 and 2");
    const bytes = Deno.statSync(join(model.folder, fileNames(1).meta)).size + 1;
    assertEquals(removeModel(model, { step: 1, log: SILENT }), bytes);
    assertEquals(findModel(base, "d4").steps, [2]);
    removeModel(findModel(base, "d4"), { log: SILENT });
    assertEquals(listModels(base).map(({ name }) => name), ["base/d5"]);
  });
});

Deno.test("checkTokenizerUnused() names the models that a tokenizer belongs to", () => {
  inBase((base) => {
    const folder = join(base, "tokenizer");
    checkTokenizerUnused(base, folder);
    Deno.mkdirSync(folder);
    Deno.writeFileSync(join(folder, TOKENIZER_FILE), TOKENIZER);
    checkTokenizerUnused(base, folder);
    put(base, { stage: "base", tag: "d4", step: 1 });
    const error = assertThrows(() => checkTokenizerUnused(base, folder), CheckpointError, "in use by base/d4");
    assertEquals((error as CheckpointError).problem, "exists");
    Deno.writeTextFileSync(join(folder, TOKENIZER_FILE), "{ }");
    checkTokenizerUnused(base, folder);
  });
});
