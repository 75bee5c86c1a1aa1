import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { existsSync as exists } from "node:fs";
import { chooseModel } from "../model/models.ts";
import { MID_TRAIN_DEFAULTS, type MidTrainFlags } from "./mid_flags.ts";
import { midTrain } from "./mid_train.ts";
import { colourTask, StagePlace } from "./stage_testing.ts";

const FLAGS: MidTrainFlags = {
  ...MID_TRAIN_DEFAULTS,
  dtype: "fp32",
  maxSeqLen: 32,
  deviceBatchSize: 2,
  totalBatchSize: 128,
  evalEvery: 2,
  evalTokens: 128,
};

Deno.test("midTrain() makes one pass, lowers the rate by progress and keeps the model with its bits per byte", async () => {
  await using place = await StagePlace.make();
  const result = await midTrain(FLAGS, place.context());
  const { meta, tag } = chooseModel(place.folder, { source: "mid" });
  assertEquals([tag, meta.step, meta.config.sequenceLen], ["d2", result.step, 32]);
  assertEquals([result.step, result.stopped], [result.steps, false]);
  assert(result.step >= 3, `${result.step} steps`);
  assertEquals(meta.valBpb, result.valBpb);
  const rates = place.events("mid", "d2").filter(({ kind }) => kind === "step").map(({ lr }) => lr!);
  assertEquals(rates[0], 1);
  assert(rates.every((rate) => rate >= 0 && rate <= 1) && rates.at(-1)! < 1, rates.join(" "));
  const evals = place.events("mid", "d2").filter(({ kind }) => kind === "eval").map(({ bpb }) => bpb!);
  assert(evals.at(-1)! < evals[0], evals.join(" "));
});

Deno.test("midTrain() resumes to the bits of an uninterrupted run, stopped or saved on the way", async () => {
  await using place = await StagePlace.make();
  await midTrain({ ...FLAGS, modelTag: "whole" }, place.context());
  const stop = new AbortController();
  const onStep = ({ step }: { step: number }) => {
    if (step === 1) stop.abort();
  };
  const cut = await midTrain({ ...FLAGS, modelTag: "cut" }, place.context({ onStep, stop: stop.signal }));
  assertEquals([cut.step, cut.stopped], [2, true]);
  const explicit = new Set(["modelTag", "resume"]);
  await midTrain({ ...MID_TRAIN_DEFAULTS, modelTag: "cut", resume: "latest" }, place.context({ explicit }));
  assertEquals(place.steps("mid", "cut"), place.steps("mid", "whole"));
  const bpb = (tag: string) => place.events("mid", tag).filter(({ kind }) => kind === "eval").map((event) => event.bpb);
  assertEquals(bpb("cut"), bpb("whole"));
});

Deno.test("midTrain() counts updates where their number is given, repeats the mixture, and never turns the rate negative", async () => {
  await using place = await StagePlace.make();
  const train = colourTask(9);
  const result = await midTrain({ ...FLAGS, numIterations: 10, evalEvery: -1 }, place.context({ train }));
  assertEquals([result.step, result.valBpb], [10, null]);
  const rates = place.events("mid", "d2").filter(({ kind }) => kind === "step").map(({ lr }) => lr!);
  assertEquals(rates.slice(0, 8), Array(8).fill(1));
  assertAlmostEquals(rates[9], 0.5, 1e-9);
});

Deno.test("midTrain() leaves nothing behind in a dry run", async () => {
  await using place = await StagePlace.make();
  const result = await midTrain({ ...FLAGS, dryRun: true, evalEvery: -1 }, place.context());
  assert(result.step > 0 && !exists(result.folder));
  assertEquals(exists(`${place.folder}/checkpoints/mid`), false);
});

Deno.test("midTrain() refuses a mixture that fills no step and names a row that is no conversation", async () => {
  await using place = await StagePlace.make();
  await assertRejects(
    () => midTrain(FLAGS, place.context({ train: colourTask(2) })),
    RangeError,
    "2 conversations fill no",
  );
  await assertRejects(() => midTrain(FLAGS, place.context({ train: colourTask(0) })), RangeError, "there are 0");
  const broken = { length: 3, conversation: (i: number) => i === 1 ? { messages: [] } : colourTask(3).conversation(i) };
  await assertRejects(
    () => midTrain(FLAGS, place.context({ train: broken })),
    SyntaxError,
    "Cannot train on conversation 1 of 3",
  );
});

Deno.test("midTrain() has saved its last step before an evaluation that fails; a resumed run makes up for it", async () => {
  await using place = await StagePlace.make();
  const held = colourTask(12);
  let fails = false;
  const conversation = (index: number) => {
    if (fails) throw new Error("the disk is gone");
    return held.conversation(index);
  };
  const onStep = () => void (fails = true);
  const flags = { ...FLAGS, numIterations: 3, evalEvery: 100 };
  const validation = { ...held, conversation };
  await assertRejects(() => midTrain(flags, place.context({ validation, onStep })), Error, "the disk is gone");
  assertEquals(chooseModel(place.folder, { source: "mid" }).step, 3);
  const explicit = new Set(["resume"]);
  const result = await midTrain({ ...MID_TRAIN_DEFAULTS, resume: "latest" }, place.context({ explicit }));
  assert(result.step === 3 && result.valBpb! > 0);
  assertEquals(chooseModel(place.folder, { source: "mid" }).meta.valBpb, result.valBpb);
});
