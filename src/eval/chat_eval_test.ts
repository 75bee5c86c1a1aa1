import { assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import type { MultipleChoice } from "../../tasks/multiple_choice.ts";
import type { Task } from "../../tasks/task.ts";
import { renderForCompletion } from "../data/conversation.ts";
import { SILENT } from "../data/log.ts";
import { GptDecodeModel } from "../engine/decode.ts";
import { Engine } from "../engine/engine.ts";
import { chatCore, type ChatEvalOptions, type ChatLine, evaluateChatTask, passAtK } from "./chat_eval.ts";
import { chooseChatTasks } from "./chat_tasks.ts";
import { byteTokenizer, TestModel } from "./eval_testing.ts";
import { PromptLogits } from "./prompt_logits.ts";
import { ResultLog } from "./result_log.ts";

const OPTIONS: ChatEvalOptions = {
  ...{ batchSize: 3, maxProblems: -1, samples: 1, maxNewTokens: 6, temperature: 0, topK: 0, log: SILENT },
};

/** Questions whose prompts differ in length; the right letter is the second one. */
function letters(length: number): Task {
  return {
    kind: "categorical",
    length,
    conversation: (index): MultipleChoice => ({
      messages: [{ role: "user", content: `Which${"?".repeat(1 + 7 * index)}` }, { role: "assistant", content: "B" }],
      letters: ["A", "B", "C"],
    }),
    evaluate: (_, answer) => answer === "B",
  };
}

/** Prompts whose answers are right where their length is even. */
function written(length: number, heard: string[] = []): Task {
  return {
    kind: "generative",
    length,
    conversation: (index) => ({
      messages: [{ role: "user", content: `Write ${"x".repeat(index * 9)}` }, { role: "assistant", content: "" }],
    }),
    evaluate: (_, answer) => {
      heard.push(answer);
      return Promise.resolve(answer.length % 2 === 0);
    },
  };
}

/** A model with its tokenizer and engine. */
async function withModel(
  use: (chat: Parameters<typeof evaluateChatTask>[0]) => Promise<void>,
): Promise<void> {
  using test = new TestModel(265);
  using tokenizer = await byteTokenizer();
  await use({ model: test.model, engine: new Engine(new GptDecodeModel(test.model), tokenizer), tokenizer });
}

Deno.test("evaluateChatTask() chooses the letter with the largest logit, whatever the size of a batch", () =>
  withModel(async (chat) => {
    const task = letters(7);
    using logits = new PromptLogits(chat.model);
    let right = 0;
    for (let row = 0; row < 7; row++) {
      const [next] = await logits.read([renderForCompletion(chat.tokenizer, task.conversation(row))]);
      if (next[66] > next[65] && next[66] >= next[67]) right++;
    }
    for (const batchSize of [1, 3, 8]) {
      const result = await evaluateChatTask(chat, { name: "letters", task }, { ...OPTIONS, batchSize });
      assertEquals([result!.right, result!.total, result!.passAt], [right, 7, [right / 7]]);
    }
    const few = await evaluateChatTask(chat, { name: "letters", task }, { ...OPTIONS, maxProblems: 2 });
    assertEquals(few!.total, 2);
  }));

Deno.test("evaluateChatTask() judges every sample of a written answer and counts prompts that do not fit as wrong", () =>
  withModel(async (chat) => {
    const heard: string[] = [];
    const warnings: string[] = [];
    const options = {
      ...OPTIONS,
      samples: 3,
      temperature: 1,
      log: { ...SILENT, warn: (text: string) => void warnings.push(text) },
    };
    const result = await evaluateChatTask(chat, { name: "written", task: written(8, heard) }, options);
    const fitting = Array.from(
      { length: 8 },
      (_, row) => renderForCompletion(chat.tokenizer, written(8).conversation(row)),
    )
      .filter((prompt) => prompt.length < 64);
    assertEquals([heard.length, result!.tooLong, warnings.length], [3 * fitting.length, 8 - fitting.length, 1]);
    const sequences = await chat.engine.generateBatch(fitting[0], {
      samples: 3,
      maxTokens: 6,
      temperature: 1,
      seed: 42,
    });
    assertEquals(
      heard.slice(0, 3),
      sequences.sequences.map((ids) => chat.tokenizer.decode(ids.slice(fitting[0].length))),
    );
    const any = fitting.filter((_, i) => heard.slice(3 * i, 3 * i + 3).some((answer) => answer.length % 2 === 0));
    assertEquals([result!.right, result!.total], [any.length, 8]);
    assertAlmostEquals(result!.passAt[2], any.length / 8);
  }));

for (const [name, task, first] of [["letters", letters(7), 3], ["written", written(7), 1]] as const) {
  Deno.test(`evaluateChatTask() goes on behind the rows of a stopped evaluation of ${name}`, () =>
    withModel(async (chat) => {
      using folder = temporaryFolder();
      const path = join(folder.path, "results.jsonl");
      const run = async (stop?: AbortSignal, log = SILENT) => {
        using results = new ResultLog<ChatLine>(path, "head");
        return await evaluateChatTask(chat, { name, task }, { ...OPTIONS, results, log, stop });
      };
      const expected = await evaluateChatTask(chat, { name, task }, OPTIONS);
      const controller = new AbortController();
      let reports = 0;
      const counting = { ...SILENT, progress: () => void (++reports === 2 && controller.abort()) };
      assertEquals(await run(controller.signal, counting), undefined);
      const starts: number[] = [];
      const watching = { ...SILENT, progress: ({ done }: { done: number }) => void starts.push(done) };
      assertEquals(await run(undefined, watching), expected);
      assertEquals(starts[0], first);
    }));
}

Deno.test("evaluateChatTask() judges answers beside each other and reports them in order, with the share of right ones", () =>
  withModel(async (chat) => {
    let running = 0, most = 0;
    const task: Task = {
      ...written(12),
      conversation: (index) => ({
        messages: [{ role: "user", content: `${index}` }, { role: "assistant", content: "" }],
      }),
      evaluate: async ({ messages }) => {
        most = Math.max(most, ++running);
        const index = Number(messages[0].content);
        await new Promise((resolve) => setTimeout(resolve, index % 3));
        running--;
        return index % 4 === 0;
      },
    };
    const seen: (string | undefined)[] = [];
    const log = { ...SILENT, progress: ({ detail }: { detail?: string }) => void seen.push(detail) };
    using folder = temporaryFolder();
    using results = new ResultLog<ChatLine>(join(folder.path, "results.jsonl"), "head");
    const result = await evaluateChatTask(chat, { name: "slow", task }, { ...OPTIONS, rows: 6, results, log });
    assertEquals([result!.right, result!.total], [3, 12]);
    assertEquals(seen.slice(0, 5), [undefined, "100.0 % right", "50.0 % right", "33.3 % right", "25.0 % right"]);
    assertEquals(most > 1, true);
    using again = new ResultLog<ChatLine>(join(folder.path, "results.jsonl"), "head");
    assertEquals(again.found.map(({ rows: [row] }) => row), Array.from({ length: 12 }, (_, row) => row));
  }));

Deno.test("evaluateChatTask() refuses a task without a judge and a letter of several tokens", () =>
  withModel(async (chat) => {
    const { evaluate: _, ...silent } = letters(1);
    await assertRejects(
      () => evaluateChatTask(chat, { name: "x", task: silent }, OPTIONS),
      TypeError,
      "judges no answers",
    );
    const long: Task = {
      ...letters(1),
      conversation: () => ({ ...letters(1).conversation(0), letters: ["A", "BC"] }) as MultipleChoice,
    };
    await assertRejects(
      () => evaluateChatTask(chat, { name: "x", task: long }, OPTIONS),
      TypeError,
      '"BC": it has 2 tokens',
    );
  }));

Deno.test("passAtK() estimates the chance of a right one among k samples", () => {
  assertEquals(passAtK([[1, 0, 0, 0], [0, 0, 0, 0]]), [1 / 8, 1 / 4, 3 / 8, 1 / 2]);
  assertEquals(passAtK([[1, 1]]), [1, 1]);
});

Deno.test("chatCore() centres each task on its baseline", () => {
  assertAlmostEquals(chatCore([{ accuracy: 0.4, baseline: 0.25 }, { accuracy: 0.5, baseline: 0 }]), (0.2 + 0.5) / 2);
});

Deno.test("chooseChatTasks() takes names in any case, once each, and lists the tasks for an unknown one", () => {
  assertEquals(chooseChatTasks("arc-easy|MMLU|mmlu"), ["ARC-Easy", "MMLU"]);
  assertEquals(chooseChatTasks("").length, 6);
  assertThrows(() => chooseChatTasks("ARC"), RangeError, "expected some of ARC-Easy|ARC-Challenge|MMLU|GSM8K");
});
