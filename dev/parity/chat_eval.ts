/** Golden chat_eval: prompts, letters, their logits, the letter that is chosen, and accuracies for several batch sizes. */
import { renderForCompletion } from "../../src/data/conversation.ts";
import { SILENT } from "../../src/data/log.ts";
import { rowsOf } from "../../src/data/task_data.ts";
import { GptDecodeModel } from "../../src/engine/decode.ts";
import { Engine } from "../../src/engine/engine.ts";
import { evaluateChatTask, letterId } from "../../src/eval/chat_eval.ts";
import { PromptLogits } from "../../src/eval/prompt_logits.ts";
import { Device } from "../../src/tensor/device.ts";
import { arcTask } from "../../tasks/arc.ts";
import { mmluTask } from "../../tasks/mmlu.ts";
import { lettersOf } from "../../tasks/multiple_choice.ts";
import { goldenTokenizer } from "./core_eval.ts";
import { configOf, GoldenModel } from "./model.ts";
import { Parity } from "./parity.ts";

/** What is recorded of one question. */
interface GoldenRow {
  readonly prompt_ids: number[];
  readonly letters: string[];
  readonly letter_ids: number[];
  readonly letter_logits: number[];
  readonly predicted: string;
  readonly correct: boolean;
}

/** Compares the categorical evaluation; without the weights, prompts and letters. */
export async function run(t: Parity): Promise<void> {
  const info = t.json("categorical.json");
  const rows = new Parity(t.root, "tasks", () => {}).json("tasks.json");
  using tokenizer = await goldenTokenizer(t.root, info.tokenizer);
  const tasks = [
    { name: "ARC-Easy", task: arcTask(rowsOf(rows.arc.raw_rows)) },
    { name: "MMLU", task: mmluTask(rowsOf(rows.mmlu.raw_rows)) },
  ];
  const recorded = (name: string) => info.tasks.find(({ task }: { task: string }) => task === name);
  for (const { name, task } of tasks) {
    for (const [i, expected] of (recorded(name).rows as GoldenRow[]).entries()) {
      const conversation = task.conversation(i);
      const letters = lettersOf(conversation);
      t.equal(`${name} ${i}: prompt`, renderForCompletion(tokenizer, conversation), expected.prompt_ids);
      t.equal(`${name} ${i}: letters`, letters, expected.letters);
      t.equal(`${name} ${i}: ids`, letters.map((letter) => letterId(tokenizer, letter)), expected.letter_ids);
    }
  }
  const [folder, file] = info.weights.split("/");
  const source = new Parity(t.root, folder, () => {});
  if (!source.has(file)) return t.skip("logits and accuracies", `this set has no ${info.weights}`);
  using device = Device.open("cpu");
  const config = configOf(source.json("config.json").config);
  using golden = new GoldenModel(device, { config, weights: source.tensors(file), training: false });
  using logits = new PromptLogits(golden.model);
  const chat = { model: golden.model, engine: new Engine(new GptDecodeModel(golden.model), tokenizer), tokenizer };
  for (const { name, task } of tasks) {
    const { rows: questions, accuracy_by_batch_size: accuracies } = recorded(name);
    const next = await logits.read(questions.map(({ prompt_ids }: GoldenRow) => prompt_ids));
    for (const [i, expected] of (questions as GoldenRow[]).entries()) {
      const scores = expected.letter_ids.map((id) => next[i][id]);
      t.close(`${name} ${i}: logits`, scores, expected.letter_logits, { abs: 3e-5 });
      const chosen = expected.letters[scores.indexOf(Math.max(...scores))];
      const verdict = [chosen, await task.evaluate!(task.conversation(i), chosen)];
      t.equal(`${name} ${i}: verdict`, verdict, [expected.predicted, expected.correct]);
    }
    for (const [sizes, accuracy] of Object.entries<number>(accuracies)) {
      const [batchSize, maxProblems] = /^(\d+)(?:_max_problems_(\d+))?$/.exec(sizes)!.slice(1);
      const result = await evaluateChatTask(chat, { name, task }, {
        ...{ batchSize: Number(batchSize), maxProblems: maxProblems === undefined ? -1 : Number(maxProblems) },
        ...{ samples: 1, maxNewTokens: 1, temperature: 0, topK: 0, log: SILENT },
      });
      t.equal(`${name}: accuracy in batches of ${sizes}`, result!.accuracy, accuracy);
    }
  }
}
