/**
 * What the chat stages train on and are validated with: the reference's mixtures (nanochat scripts/mid_train.py, chat_sft.py,
 * chat_rl.py), read from the base folder or from a folder of one's own.
 */
import { findAsset } from "../src/data/assets.ts";
import type { Log } from "../src/data/log.ts";
import { loadArc } from "./arc.ts";
import { loadCustomJson } from "./customjson.ts";
import { loadGsm8k } from "./gsm8k.ts";
import { loadMmlu } from "./mmlu.ts";
import { loadSmolTalk } from "./smoltalk.ts";
import { readWords, simpleSpelling, spellingBee } from "./spellingbee.ts";
import { sliceTask, type Task, TaskMixture } from "./task.ts";

/** Conversations of a stage. */
export interface StageTasks {
  /** Trained on. */
  readonly train: Task;
  /** Held out. */
  readonly validation: Task;
}

/** Opens the mixtures of mid-training: talk, questions, sums, identity twice, spelling. */
export async function loadMidTasks(folder: string, { log }: { readonly log: Log }): Promise<StageTasks> {
  const identity = await loadCustomJson(findAsset(folder, "identity"));
  const words = await readWords(findAsset(folder, "words"));
  const mmlu = await loadMmlu(folder, { subset: "all", split: "test" });
  const gsm8k = await loadGsm8k(folder, { subset: "main", split: "test" });
  return {
    train: new TaskMixture([
      await loadSmolTalk(folder, { split: "train" }),
      await loadMmlu(folder, { subset: "auxiliary_train", split: "train" }),
      await loadGsm8k(folder, { subset: "main", split: "train" }),
      identity,
      identity,
      simpleSpelling(words, { size: 200_000, split: "train" }),
      spellingBee(words, { size: 80_000, split: "train" }),
    ]),
    validation: new TaskMixture([
      await loadSmolTalk(folder, { split: "test" }),
      first(mmlu, 5_200, { name: "MMLU test", log }),
      first(gsm8k, 420, { name: "GSM8K test", log }),
    ]),
  };
}

/** Opens the mixtures of supervised fine-tuning: school questions, sums, some talk, identity, a little spelling. */
export async function loadSftTasks(folder: string, { log }: { readonly log: Log }): Promise<StageTasks> {
  const words = await readWords(findAsset(folder, "words"));
  const smolTalk = await loadSmolTalk(folder, { split: "train" });
  return {
    train: new TaskMixture([
      await loadArc(folder, { subset: "ARC-Easy", split: "train" }),
      await loadArc(folder, { subset: "ARC-Challenge", split: "train" }),
      await loadGsm8k(folder, { subset: "main", split: "train" }),
      first(smolTalk, 10_000, { name: "SmolTalk train", log }),
      await loadCustomJson(findAsset(folder, "identity")),
      simpleSpelling(words, { size: 300, split: "train" }),
      spellingBee(words, { size: 300, split: "train" }),
    ]),
    validation: await loadSmolTalk(folder, { split: "test" }),
  };
}

/** Opens the task of reinforcement learning. */
export async function loadRlTasks(folder: string): Promise<StageTasks> {
  return {
    train: await loadGsm8k(folder, { subset: "main", split: "train" }),
    validation: await loadGsm8k(folder, { subset: "main", split: "test" }),
  };
}

/** Takes the first rows of a task; says where it has fewer. */
function first(task: Task, rows: number, { name, log }: { readonly name: string; readonly log: Log }): Task {
  if (task.length < rows) log.warn(`${name} has ${task.length} rows, ${rows} were wanted; all are taken`);
  return sliceTask(task, { stop: rows });
}
