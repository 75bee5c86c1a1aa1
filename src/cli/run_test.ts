import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { formatProblem, FORMATS } from "../data/formats.ts";
import { foldersOf } from "../data/base_dir.ts";
import { type Log, SILENT } from "../data/log.ts";
import { listSteps } from "../model/checkpoint_folder.ts";
import { type Recipe, RECIPES, type Stage } from "../train/recipes.ts";
import { placesOf, type RunContext, runRecipe } from "../train/run.ts";
import { readRecords } from "../train/run_record.ts";
import { allFlags } from "./command.ts";
import { COMMANDS } from "./commands.ts";
import { parse } from "./parse.ts";
import { commandLine, findStageCommand, stageArgs, stageExecutor } from "./stage.ts";

const execute = stageExecutor(COMMANDS, { result: () => {} });

const TRAIN = {
  name: "base",
  command: "train",
  flags: {
    depth: 2,
    "max-seq-len": 32,
    "device-batch-size": 2,
    "total-batch-size": 64,
    "num-iterations": 4,
    "eval-every": 4,
    "eval-tokens": 64,
    "sample-every": 2,
    "save-every": 2,
    threads: 1,
  },
} satisfies Stage;

/** A recipe that is done in a second. */
const SMALL: Recipe = {
  about: "is small",
  data: "own",
  stages: [
    { name: "data", command: "data world", flags: { seed: 1, "train-documents": 60, "val-documents": 20 } },
    { name: "tokenizer", command: "tokenizer train", flags: { "vocab-size": 400, "max-chars": 100_000 } },
    TRAIN,
    { name: "base-eval", command: "eval bpb", flags: { "device-batch-size": 2, "split-tokens": 128, markov: true } },
  ],
  next: "nanochat chat",
};

/** Runs SMALL, or a changed one, in a folder; returns what was said. */
async function run(
  base: string,
  { recipe = SMALL, stop, until }: { recipe?: Recipe; stop?: AbortSignal; until?: string } = {},
) {
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
    execute: stageExecutor(COMMANDS, { result: (text, object) => void results.push({ text, object }) }),
    recipes: { small: recipe },
    until,
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

function jsonFiles(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    const path = join(folder, name);
    return isDirectory ? jsonFiles(path) : /\.jsonl?$/.test(name) ? [path] : [];
  });
}

Deno.test("runRecipe() goes through all stages and leaves a model and its figures", () =>
  inFolder(async (base) => {
    const { summary, results, said } = await run(base);
    assertEquals(summary.stopped, false);
    const { val_bpb, markov2_bpb, train_bpb, total_sec, vocabSize } = summary.figures;
    assert(val_bpb > 0 && train_bpb > 0 && markov2_bpb > 0 && total_sec > 0);
    assertEquals(vocabSize, 400);
    assertStringIncludes(said, "is small");
    assertStringIncludes(said, "One sunny morning");
    assert(said.endsWith("nanochat chat"), said);
    assert(results.some(({ text }) => text.startsWith("A heron is")));
    assertEquals(results.at(-1)?.object, summary.figures);
    assertEquals(listSteps(join(foldersOf(base, "small").checkpoints, "base", "d2")).at(-1), 4);

    const known = Object.values(FORMATS);
    for (const path of jsonFiles(base)) {
      const text = Deno.readTextFileSync(path);
      const head = JSON.parse(path.endsWith(".jsonl") ? text.split("\n")[0] : text);
      assert(known.some((expected) => formatProblem(head, { expected }) === undefined), `${path} names no format`);
    }

    // Again: nothing is repeated, the figures are the same.
    const again = await run(base);
    assertEquals(again.said.match(/done before/g)?.length, 4);
    assertEquals(again.summary, summary);
  }));

Deno.test("runRecipe() repeats a stage whose flags changed, and those behind it", () =>
  inFolder(async (base) => {
    await run(base);
    const stages = SMALL.stages.map((stage) =>
      stage.command === "train" ? { ...stage, flags: { ...stage.flags, "num-iterations": 2, "eval-every": 2 } } : stage
    );
    const { said, summary } = await run(base, { recipe: { ...SMALL, stages } });
    assertEquals(said.match(/done before/g)?.length, 2);
    assertEquals(summary.figures.steps, 2);
    assertEquals(listSteps(join(foldersOf(base, "small").checkpoints, "base", "d2")).at(-1), 2);
  }));

Deno.test("runRecipe() ends after the stage of --until, and does the others when it is called again", () =>
  inFolder(async (base) => {
    const first = await run(base, { until: "base" });
    assertEquals(first.summary.stopped, false);
    assertEquals(first.summary.figures.steps, 4);
    assertEquals(first.summary.figures.train_bpb, undefined);
    assert(!first.said.includes("base-eval"), first.said);
    const { said, summary } = await run(base);
    assertEquals(said.match(/done before/g)?.length, 3);
    assert(summary.figures.train_bpb > 0);
    await assertRejects(() => run(base, { until: "bas" }), RangeError, 'stop after stage "bas"');
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
    const cx = { base, log, stop: stop.signal, result: () => {}, execute, recipes: { small: SMALL } };
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
      execute,
      recipes: { small: SMALL },
      now: () => ms,
    };
    await assertRejects(() => runRecipe("small", cx), Error, "killed");
    const sec = () => readRecords(foldersOf(base, "small")).base.sec;
    assertEquals(sec(), 20); // what was known before the last step
    await runRecipe("small", { ...cx, log: SILENT });
    assertEquals(sec(), 20);
  }));

Deno.test("every stage of every recipe is a command with flags that it takes, and batches that fit", () => {
  const readsShards = ["data download", "tokenizer train", "tokenizer eval", "train", "eval bpb"];
  for (const [name, { stages, data }] of Object.entries(RECIPES)) {
    const call = { ...placesOf(RECIPES[name], { name, base: "/base" }), isResumed: false };
    for (const stage of stages) {
      const row = COMMANDS.find((each) => each.name === stage.command);
      assert(row, `${name}: ${stage.command}`);
      const args = stageArgs(row, { stage, call, common: { flags: { threads: 1 }, baseUrl: "http://x" } });
      const takesPositional = row.positional !== undefined;
      const { settings } = parse({ flags: allFlags(row), args, env: {}, takesPositional, readFile: () => "" });
      assertEquals(settings.get("base-dir")?.value, "/base/runs/" + name);
      for (const needed of stage.needs ?? []) {
        assert(stages.find((each) => each.name === needed)?.background, `${name}: ${needed}`);
      }
      if (settings.has("bundle")) {
        assertEquals(settings.get("bundle")!.value, data === "own" ? undefined : "/base/eval_bundle", stage.command);
      }
      const folder = data === "own" ? undefined : readsShards.includes(stage.command) ? "/base/data" : "/base";
      if (settings.has("data-dir")) assertEquals(settings.get("data-dir")!.value, folder, stage.command);
      const value = (flag: string) => settings.get(flag)?.value as number;
      if (stage.command === "train") {
        assertEquals(value("total-batch-size") % (value("device-batch-size") * value("max-seq-len")), 0);
      }
    }
    assertEquals(new Set(stages.map((stage) => stage.name)).size, stages.length, "names are unique");
  }
});

Deno.test("commandLine() writes a stage as it could be typed, with the folders of its recipe", () => {
  const line = (name: string, base: string, index: number) => {
    const stage = RECIPES[name].stages[index];
    const call = { ...placesOf(RECIPES[name], { name, base }), isResumed: false };
    return commandLine(findStageCommand(COMMANDS, stage), { stage, call });
  };
  assertEquals(
    line("tiny", "/it's here", 1),
    "nanochat tokenizer train --vocab-size=4096 --max-chars=20000000 --overwrite '--base-dir=/it'\\''s here/runs/tiny'",
  );
  assertEquals(line("cpu", "/base", 1), "nanochat data fetch all --data-dir=/base --base-dir=/base/runs/cpu");
  const train = line("cpu", "/base", 4);
  assertStringIncludes(train, "--data-dir=/base/data --bundle=/base/eval_bundle --run=cpu --overwrite");
});
