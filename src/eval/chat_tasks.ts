/** The tasks that chat models are measured on, under the reference's names, with what guessing reaches. A new task is one row here. */
import { loadArc } from "../../tasks/arc.ts";
import { loadGsm8k } from "../../tasks/gsm8k.ts";
import { loadHumanEval, type ProgramRunner } from "../../tasks/humaneval.ts";
import { loadMmlu } from "../../tasks/mmlu.ts";
import { readWords, spellingBee } from "../../tasks/spellingbee.ts";
import type { Task } from "../../tasks/task.ts";
import { findAsset } from "../data/assets.ts";

/** What a task is loaded from. */
export interface ChatTaskSource {
  /** Folder of task sets and of the word list. */
  readonly folder: string;
  /** Runs the programs that a model writes. */
  readonly run: ProgramRunner;
}

/** A row of the table. */
export interface ChatTaskRow {
  /** Accuracy of guessing. */
  readonly baseline: number;
  /** Whether answers are programs that are run. */
  readonly runsPrograms?: boolean;
  /** Opens the task. */
  load(source: ChatTaskSource): Promise<Task>;
}

/** All tasks, in the order of the reference. */
export const CHAT_TASKS: Readonly<Record<string, ChatTaskRow>> = {
  "ARC-Easy": {
    baseline: 0.25,
    load: ({ folder }) => loadArc(folder, { subset: "ARC-Easy", split: "test" }),
  },
  "ARC-Challenge": {
    baseline: 0.25,
    load: ({ folder }) => loadArc(folder, { subset: "ARC-Challenge", split: "test" }),
  },
  MMLU: { baseline: 0.25, load: ({ folder }) => loadMmlu(folder, { subset: "all", split: "test" }) },
  GSM8K: { baseline: 0, load: ({ folder }) => loadGsm8k(folder, { subset: "main", split: "test" }) },
  HumanEval: { baseline: 0, runsPrograms: true, load: ({ folder, run }) => loadHumanEval(folder, { run }) },
  SpellingBee: {
    baseline: 0,
    load: async ({ folder }) => spellingBee(await readWords(findAsset(folder, "words")), { size: 256, split: "test" }),
  },
};

/**
 * Reads a choice of tasks: names with `|` between them, "" = all.
 *
 * @throws {RangeError} for a name that is none, listing those that are.
 */
export function chooseChatTasks(names: string): string[] {
  const known = Object.keys(CHAT_TASKS);
  if (names === "") return known;
  const chosen = names.split("|").map((name) => {
    const match = known.find((each) => each.toLowerCase() === name.trim().toLowerCase());
    if (match) return match;
    throw new RangeError(`Cannot evaluate ${JSON.stringify(name)}: no such task, expected some of ${known.join("|")}`);
  });
  return [...new Set(chosen)];
}
