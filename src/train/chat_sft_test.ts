import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Task } from "../../tasks/task.ts";
import type { Conversation } from "../data/conversation.ts";
import { chooseModel } from "../model/models.ts";
import { chatSft } from "./chat_sft.ts";
import { CHAT_SFT_DEFAULTS, type ChatSftFlags } from "./sft_flags.ts";
import { measureTasks } from "./task_metrics.ts";
import { colourTask, CONTEXT, StagePlace } from "./stage_testing.ts";

const FLAGS: ChatSftFlags = {
  ...CHAT_SFT_DEFAULTS,
  source: "base",
  dtype: "fp32",
  deviceBatchSize: 2,
  targetExamplesPerStep: 4,
  initLrFrac: 0.5,
  evalEvery: 5,
  evalSteps: 3,
  evalMetricsEvery: 4,
};

Deno.test("chatSft() makes one update less than steps, lowers rate and loss, and measures where due", async () => {
  await using place = await StagePlace.make();
  const asked: number[] = [];
  const metrics = (_: unknown, { maxProblems, B }: { maxProblems: number; B: number }) => {
    asked.push(maxProblems, B);
    return Promise.resolve({ arc_easy_acc: 0.25 });
  };
  const result = await chatSft(FLAGS, place.context({ metrics } as object));
  assertEquals([result.step, result.steps, result.stopped], [9, 9, false]);
  assertEquals(result.metrics, { arc_easy_acc: 0.25 });
  assertEquals(asked, Array(3).fill([1024, 4]).flat()); // steps 4, 8 and the last
  const { meta, tag } = chooseModel(place.folder, { source: "sft" });
  assertEquals([tag, meta.step], ["d2", 9]);
  const events = place.events("sft", "d2");
  const steps = events.filter(({ kind }) => kind === "step");
  assertEquals(steps.map(({ lr }) => lr), Array.from({ length: 9 }, (_, i) => 1 - i / 10));
  assert(steps.every(({ values }) => values!.num_tokens! > 0));
  const losses = events.filter(({ kind, values }) => kind === "eval" && "val_loss" in values!);
  assertEquals(losses.map(({ step }) => step), [0, 5, 9]);
  assert(losses[2].values!.val_loss! < losses[0].values!.val_loss!);
  assertEquals(result.valLoss, losses[2].values!.val_loss);
});

Deno.test("chatSft() resumes to the bits of an uninterrupted run", async () => {
  await using place = await StagePlace.make();
  await chatSft({ ...FLAGS, modelTag: "whole" }, place.context());
  const stop = new AbortController();
  const onStep = ({ step }: { step: number }) => {
    if (step === 6) stop.abort();
  };
  const cut = await chatSft({ ...FLAGS, modelTag: "cut" }, place.context({ onStep, stop: stop.signal }));
  assertEquals([cut.step, cut.stopped], [7, true]);
  const explicit = new Set(["modelTag", "resume"]);
  await chatSft({ ...CHAT_SFT_DEFAULTS, modelTag: "cut", resume: "latest" }, place.context({ explicit }));
  assertEquals(place.steps("sft", "cut"), place.steps("sft", "whole"));
  const evals = (tag: string) => place.events("sft", tag).filter(({ kind }) => kind === "eval").map((e) => e.values);
  assertEquals(evals("cut"), evals("whole"));
});

Deno.test("chatSft() cuts conversations beyond the context, leaves out those without a target, and says how many", async () => {
  await using place = await StagePlace.make();
  const short = colourTask(20);
  const long = "a question that goes on and on, ".repeat(CONTEXT / 8);
  const train = {
    length: 20,
    conversation(i: number) {
      const { messages: [user, assistant] } = short.conversation(i);
      if (i % 5 === 1) return { messages: [user, { ...assistant, content: "white ".repeat(CONTEXT) }] };
      if (i % 5 === 2) return { messages: [{ ...user, content: long }, assistant] };
      return { messages: [user, assistant] };
    },
  };
  const result = await chatSft({ ...FLAGS, evalEvery: -1 }, place.context({ train }));
  assertEquals(result.step, 4);
  const warning = place.messages.filter((message) => message.includes("conversations were cut")).at(-1);
  assertEquals(warning?.match(/\d+/g)?.slice(0, 3), ["4", "64", "4"], warning);
  for (const { loss } of place.events("sft", "d2").filter(({ kind }) => kind === "step")) assert(Number.isFinite(loss));

  const hopeless = { length: 8, conversation: () => ({ messages: [{ role: "user" as const, content: long }] }) };
  await assertRejects(
    () => chatSft({ ...FLAGS, modelTag: "none" }, place.context({ train: hopeless })),
    RangeError,
    "in none of 8 the assistant speaks within the first 65 tokens",
  );
});

Deno.test("chatSft() refuses a step that does not split and too few conversations", async () => {
  await using place = await StagePlace.make();
  const cases: [Partial<ChatSftFlags>, string][] = [
    [{ targetExamplesPerStep: 5 }, "expected a multiple of --device-batch-size"],
    [{ targetExamplesPerStep: 40 }, "give 1 steps, expected at least 2"],
  ];
  for (const [changes, message] of cases) {
    await assertRejects(() => chatSft({ ...FLAGS, ...changes }, place.context()), RangeError, message);
  }
});

Deno.test("chatSft() measures tasks with measureTasks(): questions by letter, others by what is written", async () => {
  await using place = await StagePlace.make();
  const letters = ["1", "2"];
  const choice: Task = {
    length: 6,
    kind: "categorical",
    conversation: (i) => ({
      messages: [{ role: "user", content: `say ${letters[i % 2]}` }, { role: "assistant", content: letters[i % 2] }],
      letters,
    } as Conversation),
    evaluate: (conversation, answer) => answer === conversation.messages[1].content,
  };
  const metrics = measureTasks({ choice, colour: colourTask(4) });
  const flags = { ...FLAGS, evalMetricsMaxProblems: 5, evalEvery: -1 };
  const result = await chatSft(flags, { ...place.context(), metrics });
  assertEquals(Object.keys(result.metrics), ["choice", "colour"]);
  for (const [name, total] of [["choice", 5], ["colour", 4]] as const) {
    const share = result.metrics[name] * total;
    assert(share >= 0 && share <= total && Number.isInteger(Math.round(share * 1e9) / 1e9), `${name}: ${share}`);
  }
  assertEquals(result.metrics, place.events("sft", "d2").findLast(({ kind }) => kind === "eval")!.values);
});
