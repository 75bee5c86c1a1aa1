import { assert, assertEquals, assertRejects } from "@std/assert";
import { CheckpointError } from "../model/checkpoint.ts";
import { chooseModel } from "../model/models.ts";
import { chatRl } from "./chat_rl.ts";
import { CHAT_RL_DEFAULTS, type ChatRlFlags } from "./rl_flags.ts";
import { colourTask, StagePlace } from "./stage_testing.ts";

const FLAGS: ChatRlFlags = {
  ...CHAT_RL_DEFAULTS,
  dtype: "fp32",
  deviceBatchSize: 4,
  examplesPerStep: 2,
  numSamples: 6, // one whole group and a part of one
  maxNewTokens: 6,
  topK: 0,
  initLrFrac: 1,
  numIterations: 6,
  evalEvery: 3,
  evalExamples: 4,
  saveEvery: -1,
};

Deno.test("chatRl() raises the reward of its task, and measures pass@k", async () => {
  await using place = await StagePlace.make();
  const flags = { ...FLAGS, examplesPerStep: 4, numSamples: 8, numIterations: 15, evalEvery: 15, evalExamples: 12 };
  const result = await chatRl(flags, place.context());
  assertEquals([result.step, result.steps, result.stopped], [15, 15, false]);
  const { meta, tag } = chooseModel(place.folder, { source: "rl" });
  assertEquals([tag, meta.step], ["d2", 15]);
  const evals = place.events("rl", "d2").filter(({ kind }) => kind === "eval");
  assertEquals(evals.map(({ step }) => step), [0, 15]);
  const [before, after] = evals.map(({ values }) => values!.reward!);
  assert(after > before + 0.2, `reward ${before} to ${after}`);
  const { passAt, rewards, tooLong } = result.evaluation!;
  assertEquals([passAt.length, rewards.length, tooLong], [4, 12, 0]);
  assert(passAt.every((share, k) => k === 0 || share >= passAt[k - 1]));
  const steps = place.events("rl", "d2").filter(({ kind }) => kind === "step");
  assertEquals(steps.map(({ lr }) => lr), Array.from({ length: 15 }, (_, i) => 1 - i / 15));
});

Deno.test("chatRl() resumes to the bits of an uninterrupted run, with and without kl and clip", async () => {
  await using place = await StagePlace.make();
  for (const full of [{}, { kl: 0.1, clip: 0.2, updatesPerRollout: 2 }]) {
    const M = "kl" in full ? 2 : 1;
    const flags = { ...FLAGS, ...full };
    await chatRl({ ...flags, modelTag: `whole${M}` }, place.context());
    const stop = new AbortController();
    const onStep = ({ step }: { step: number }) => {
      if (step === 2 * M) stop.abort(); // with several updates the others of the rollout are still made
    };
    const cut = await chatRl({ ...flags, modelTag: `cut${M}` }, place.context({ onStep, stop: stop.signal }));
    assertEquals([cut.step, cut.stopped], [3 * M, true]);
    const explicit = new Set(["modelTag", "resume"]);
    await chatRl({ ...CHAT_RL_DEFAULTS, modelTag: `cut${M}`, resume: "latest" }, place.context({ explicit }));
    assertEquals(place.steps("rl", `cut${M}`), place.steps("rl", `whole${M}`));
    const values = (tag: string) => place.events("rl", tag).map((event) => event.values).filter((x) => x !== undefined);
    assertEquals(values(`cut${M}`), values(`whole${M}`));
  }
});

Deno.test("chatRl() stays nearer to its start with kl", async () => {
  await using place = await StagePlace.make();
  const rewards = [];
  for (const kl of [0, 20]) {
    const flags = { ...FLAGS, examplesPerStep: 4, numIterations: 12, evalEvery: -1, kl, modelTag: `kl${kl}` };
    await chatRl(flags, place.context());
    const steps = place.events("rl", flags.modelTag).filter(({ kind }) => kind === "step");
    rewards.push(steps.slice(-4).reduce((sum, { values }) => sum + values!.reward! / 4, 0));
  }
  assert(rewards[1] < rewards[0] - 0.1, rewards.join(" "));
});

Deno.test("chatRl() passes over prompts that leave no room and says how many; it refuses tasks without reward", async () => {
  await using place = await StagePlace.make();
  const short = colourTask(6);
  const long = {
    messages: [{ role: "user", content: "on and ".repeat(99) }, { role: "assistant", content: "" }],
  } as const;
  const train = { ...short, conversation: (i: number) => i % 2 === 0 ? long : short.conversation(i) };
  await chatRl({ ...FLAGS, numIterations: 1, evalEvery: 1 }, place.context({ train, validation: train }));
  assert(place.messages.some((message) => message.startsWith("2 prompts were passed over")), place.messages.join("\n"));
  assert(place.messages.some((message) => message.startsWith("2 held-out prompts count as wrong")));

  const hopeless = { ...short, conversation: () => long };
  const run = (changes: Partial<ChatRlFlags>, task = short) =>
    chatRl({ ...FLAGS, overwrite: true, evalEvery: -1, ...changes }, place.context({ train: task }));
  await assertRejects(() => run({}, hopeless), RangeError, "none of 6 prompts leaves room");
  await assertRejects(() => run({}, { ...short, reward: undefined }), TypeError, "rewards no answers");
  await assertRejects(() => run({}, { ...short, reward: () => NaN }), RangeError, "the task gives NaN");
  await assertRejects(() => run({ numIterations: -1, examplesPerStep: 7 }), RangeError, "give 0 steps");
});

Deno.test("chatRl() with kl refuses to go on from another start", async () => {
  await using place = await StagePlace.make();
  await chatRl({ ...FLAGS, kl: 0.1, numIterations: 1, evalEvery: -1 }, place.context());
  const { source } = place.context();
  const explicit = new Set(["resume", "numIterations"]);
  const again = { ...FLAGS, resume: "latest", numIterations: 2 } as const;
  await assertRejects(
    () => chatRl(again, place.context({ explicit, source: { ...source, step: 1 } })),
    CheckpointError,
    "give --step=3",
  );
});
