/** What fine-tuning is measured on beside its loss: MMLU and ARC-Easy, answered by letter (nanochat/chat_sft.py). */
import type { Task } from "../../tasks/task.ts";
import { SILENT } from "../data/log.ts";
import { GptDecodeModel } from "../engine/decode.ts";
import { Engine } from "../engine/engine.ts";
import { evaluateChatTask } from "../eval/chat_eval.ts";
import { CHAT_TASKS } from "../eval/chat_tasks.ts";
import type { TaskMetrics } from "./chat_sft.ts";

/** Names of the figures, and of the tasks that they are measured on. */
const MEASURED = { mmlu_acc: "MMLU", arc_easy_acc: "ARC-Easy" } as const;

/** Opens the tasks in a data folder. @throws {Error} where their data is missing, with the command that fetches it. */
export async function loadTaskMetrics(folder: string): Promise<TaskMetrics> {
  const tasks: Record<string, Task> = {};
  for (const [figure, name] of Object.entries(MEASURED)) {
    tasks[figure] = await CHAT_TASKS[name].load({ folder, run: () => false }); // neither runs programs
  }
  return measureTasks(tasks);
}

/** Measures the share of right answers on each task, under the names given. */
export function measureTasks(tasks: Readonly<Record<string, Task>>): TaskMetrics {
  return async (model, { tokenizer, B, maxProblems }) => {
    const chat = { model, tokenizer, engine: new Engine(new GptDecodeModel(model), tokenizer) };
    const figures: Record<string, number> = {};
    for (const [name, task] of Object.entries(tasks)) {
      const options = {
        batchSize: B,
        maxProblems,
        samples: 1,
        maxNewTokens: 256,
        temperature: 0,
        topK: 0,
        log: SILENT,
      };
      const result = await evaluateChatTask(chat, { name, task }, options);
      figures[name] = result!.accuracy; // defined, as nothing stops it
    }
    return figures;
  };
}
