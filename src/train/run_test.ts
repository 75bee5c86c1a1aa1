import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { foldersOf } from "../data/base_dir.ts";
import { type Log, SILENT } from "../data/log.ts";
import { listSteps } from "../model/checkpoint_folder.ts";
import { commandLine, type Recipe, RECIPES, type Stage } from "./recipes.ts";
import { type RunContext, runRecipe } from "./run.ts";
import { readRecords } from "./run_record.ts";

const TRAIN = {
  name: "base",
  command: "train",
  flags: {
    depth: 2,
    maxSeqLen: 32,
    deviceBatchSize: 2,
    totalBatchSize: 64,
    numIterations: 4,
    evalEvery: 4,
    evalTokens: 64,
    sampleEvery: 2,
    saveEvery: 2,
    threads: 1,
  },
} satisfies Stage;

/** A recipe that is done in a second. */
const SMALL: Recipe = {
  about: "is small",
  stages: [
    { name: "data", command: "data world", flags: { seed: 1, trainDocuments: 60, valDocuments: 20 } },
    { name: "tokenizer", command: "tokenizer train", flags: { vocabSize: 400, maxChars: 100_000 } },
    TRAIN,
    { name: "base-eval", command: "eval bpb", flags: { deviceBatchSize: 2, splitTokens: 128, markov: true } },
  ],
  samplePrompt: "One sunny morning",
  finalPrompts: ["A heron is"],
  next: "nanochat chat",
};

/** Runs SMALL, or a changed one, in a folder; returns what was said. */
async function run(base: string, { recipe = SMALL, stop }: { recipe?: Recipe; stop?: AbortSignal } = {}) {
  const said: string[] = [];
  const results: { text: string; object: unknown }[] = [];
  const log: Log = {
    ...SILENT,
    info: (message) => void said.push(message),
    warn: (message) => void said.push(message),
  };
  const cx: RunContext = {
    base,
    log,
    stop: stop ?? new AbortController().signal,
    result: (text, object) => void results.push({ text, object }),
    recipes: { small: recipe },
  };
  const summary = await runRecipe("small", cx);
  return { summary, results, said: said.join("\n") };
}

async function inFolder(test: (base: string) => Promise<void>): Promise<void> {
  const base = await Deno.makeTempDir();
  try {
    await test(base);
  } finally {
    await Deno.remove(base, { recursive: true });
  }
}

Deno.test("runRecipe() goes through all stages and leaves a model and its figures", () =>
  inFolder(async (base) => {
    const { summary, results, said } = await run(base);
    assertEquals(summary.stopped, false);
    const { val_bpb, markov2_bpb, train_bpb, total_sec, vocab_size } = summary.figures;
    assert(val_bpb > 0 && train_bpb > 0 && markov2_bpb > 0 && total_sec > 0);
    assertEquals(vocab_size, 400);
    assertStringIncludes(said, "is small");
    assertStringIncludes(said, "One sunny morning");
    assert(said.endsWith("nanochat chat"), said);
    assertStringIncludes(results[0].text, "A heron is");
    assertEquals(results.at(-1)?.object, summary.figures);
    assertEquals(listSteps(join(foldersOf(base, "small").checkpoints, "base", "d2")).at(-1), 4);

    // Again: nothing is repeated, the figures are the same.
    const again = await run(base);
    assertEquals(again.said.match(/done before/g)?.length, 4);
    assertEquals(again.summary, summary);
  }));

Deno.test("runRecipe() repeats a stage whose flags changed, and those behind it", () =>
  inFolder(async (base) => {
    await run(base);
    const stages = SMALL.stages.map((stage) =>
      stage.command === "train" ? { ...stage, flags: { ...stage.flags, numIterations: 2, evalEvery: 2 } } : stage
    );
    const { said, summary } = await run(base, { recipe: { ...SMALL, stages } });
    assertEquals(said.match(/done before/g)?.length, 2);
    assertEquals(summary.figures.steps, 2);
    assertEquals(listSteps(join(foldersOf(base, "small").checkpoints, "base", "d2")).at(-1), 2);
  }));

Deno.test("runRecipe() goes on where it was stopped", () =>
  inFolder(async (base) => {
    const stop = new AbortController();
    const log: Log = {
      ...SILENT,
      progress: ({ label, done }) => {
        if (label === "Training" && done === 3) stop.abort();
      },
    };
    const cx = { base, log, stop: stop.signal, result: () => {}, recipes: { small: SMALL } };
    assertEquals((await runRecipe("small", cx)).stopped, true);
    const { said, summary } = await run(base);
    assertEquals(said.match(/done before/g)?.length, 2);
    assertEquals(summary.stopped, false);
    assertEquals(summary.figures.steps, 4);

    // The same model as without the stop.
    const other = join(base, "other");
    const whole = await run(other);
    assertEquals(whole.summary.figures.val_bpb, summary.figures.val_bpb);
  }));

Deno.test("runRecipe() keeps the time of an attempt that ends in the middle of a stage without a word", () =>
  inFolder(async (base) => {
    let ms = 0;
    const log: Log = {
      ...SILENT,
      progress: ({ label, done }) => {
        if (label !== "Training") return;
        ms += 10_000; // a step takes ten seconds
        if (done === 3) throw new Error("killed");
      },
    };
    const cx = {
      base,
      log,
      stop: new AbortController().signal,
      result: () => {},
      recipes: { small: SMALL },
      now: () => ms,
    };
    await assertRejects(() => runRecipe("small", cx), Error, "killed");
    const sec = () => readRecords(foldersOf(base, "small")).base.sec;
    assertEquals(sec(), 20); // what was known before the last step
    await runRecipe("small", { ...cx, log: SILENT });
    assertEquals(sec(), 20);
  }));

Deno.test("runRecipe() names the recipes when it is given another name", async () => {
  const cx = { base: "/nowhere", log: SILENT, stop: new AbortController().signal, result: () => {} };
  const error = await assertRejects(() => runRecipe("d4", cx), RangeError, '"tiny"');
  assertStringIncludes(error.message, "nanochat train --depth=4");
});

Deno.test("RECIPES.tiny has stages that can be typed as commands and batches that fit", () => {
  const lines = RECIPES.tiny.stages.map((stage) => commandLine(stage, "/base/runs/tiny"));
  assertEquals(
    lines[1],
    'nanochat tokenizer train --vocab-size=4096 --max-chars=20000000 --base-dir="/base/runs/tiny"',
  );
  assertStringIncludes(lines[3], "--markov ");
  for (const { command, flags } of RECIPES.tiny.stages) {
    if (command === "train") {
      assertEquals(flags.totalBatchSize! % (flags.deviceBatchSize! * flags.maxSeqLen!), 0);
    }
  }
});
