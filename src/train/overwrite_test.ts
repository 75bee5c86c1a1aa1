import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import type { Task } from "../../tasks/task.ts";
import { foldersOf, type Stage, TOKENIZER_FILE } from "../data/base_dir.ts";
import { findCheckpoint, listSteps } from "../model/checkpoint.ts";
import { sha256Hex } from "../model/meta.ts";
import { BASE_TRAIN_DEFAULTS } from "./base_flags.ts";
import { baseTrain } from "./base_train.ts";
import { chatRl } from "./chat_rl.ts";
import { chatSft } from "./chat_sft.ts";
import type { ChatStageContext } from "./chat_stage.ts";
import { MID_TRAIN_DEFAULTS } from "./mid_flags.ts";
import { midTrain } from "./mid_train.ts";
import { CHAT_RL_DEFAULTS } from "./rl_flags.ts";
import { CHAT_SFT_DEFAULTS } from "./sft_flags.ts";
import { colourTask, CONTEXT, StagePlace } from "./stage_testing.ts";

/** Row 1 is no conversation, which is noticed when it is rendered. */
const BROKEN: Task = {
  ...colourTask(40),
  conversation: (i) => i === 1 ? { messages: [] } : colourTask(40).conversation(i),
};
const BASE = {
  ...{ ...BASE_TRAIN_DEFAULTS, depth: 2, dtype: "fp32", maxSeqLen: CONTEXT, deviceBatchSize: 2 },
  ...{ totalBatchSize: 2 * CONTEXT, numIterations: 2, evalEvery: 1, evalTokens: 128, sampleEvery: -1 },
};

type Changes = Partial<ChatStageContext>;

/** Runs of two updates that measure at step 0. */
const STAGES: Readonly<Record<Exclude<Stage, "base">, (cx: ChatStageContext, overwrite: boolean) => Promise<unknown>>> =
  {
    mid: (cx, overwrite) => {
      const sizes = { maxSeqLen: 32, deviceBatchSize: 2, totalBatchSize: 64, evalTokens: 64 };
      return midTrain({ ...MID_TRAIN_DEFAULTS, ...sizes, dtype: "fp32", numIterations: 2, overwrite }, cx);
    },
    sft: (cx, overwrite) => {
      const sizes = { deviceBatchSize: 2, targetExamplesPerStep: 2, evalSteps: 1 };
      return chatSft({ ...CHAT_SFT_DEFAULTS, ...sizes, dtype: "fp32", numIterations: 3, overwrite }, cx);
    },
    rl: (cx, overwrite) => {
      const sizes = { deviceBatchSize: 2, examplesPerStep: 2, numSamples: 2, maxNewTokens: 4, evalExamples: 2 };
      return chatRl({ ...CHAT_RL_DEFAULTS, ...sizes, dtype: "fp32", numIterations: 2, saveEvery: -1, overwrite }, cx);
    },
  };

/** Reads everything that a run keeps. */
function contents(folder: string): Record<string, string> {
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name !== "lock").sort();
  return Object.fromEntries(names.map((name) => [name, Deno.readTextFileSync(join(folder, name))]));
}

for (const stage of ["mid", "sft", "rl"] as const) {
  Deno.test(`${stage} --overwrite removes nothing before its first step, and everything then`, async () => {
    await using place = await StagePlace.make();
    const run = (changes: Changes, overwrite = true) => STAGES[stage](place.context(changes), overwrite);
    await run({}, false);
    const folder = join(foldersOf(place.folder).checkpoints, stage, "d2");
    const old = contents(folder);
    const [last] = listSteps(folder);
    const named = Deno.readTextFileSync(join(folder, `meta_00000${last}.json`));

    await assertRejects(() => run({ train: BROKEN }), SyntaxError, "conversation");
    assertEquals(contents(folder), old);

    await run({ stop: AbortSignal.abort() });
    assertEquals(contents(folder), old);
    assert(place.messages.some((text) => text.startsWith(`Stopped before the first step: step ${last} in`)));

    const onStep = () => {
      throw new Error("after the first step");
    };
    await assertRejects(() => run({ onStep }), Error, "after the first step");
    assertEquals(listSteps(folder), []);

    await run({});
    assertEquals(listSteps(folder), [last]);
    assert(Deno.readTextFileSync(join(folder, `meta_00000${last}.json`)) !== named);
    const kinds = place.events(stage, "d2").map(({ kind, step }) => `${kind} ${step}`);
    assertEquals(kinds.slice(0, 3), ["eval 0", "step 0", "step 1"]);
  });
}

Deno.test("train --overwrite goes on with the tokenizer of the run that it replaces", async () => {
  await using place = await StagePlace.make();
  const folders = foldersOf(place.folder);
  const folder = join(folders.checkpoints, "base", "d2");
  const { log, stop } = place.context();
  await baseTrain({ ...BASE, overwrite: true }, { folders, dataDir: folders.data, tokenizerDir: folder, log, stop });
  const { meta } = findCheckpoint(folder)!;
  const tokenizer = Deno.readFileSync(join(folders.tokenizer, TOKENIZER_FILE));
  assertEquals([meta.step, meta.tokenizer?.sha256], [2, sha256Hex(tokenizer)]);
});

Deno.test("train --overwrite removes nothing where validation cannot be read", async () => {
  await using place = await StagePlace.make();
  const folders = foldersOf(place.folder);
  const folder = join(folders.checkpoints, "base", "d2");
  const old = contents(folder);
  Deno.writeTextFileSync(join(folders.data, "shard_00001.parquet"), "PAR1 is not enough PAR1");
  const { log, stop } = place.context();
  const cx = { folders, dataDir: folders.data, tokenizerDir: folders.tokenizer, log, stop };
  await assertRejects(() => baseTrain({ ...BASE, overwrite: true }, cx), Error, "shard_00001.parquet");
  assertEquals(contents(folder), old);
});
