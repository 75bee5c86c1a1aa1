/** The tasks that chat models are measured on, under the reference's names, with what guessing reaches. A new task is one row here. */
import { loadArc } from "../../tasks/arc.ts";
import { loadGsm8k } from "../../tasks/gsm8k.ts";
import { loadHumanEval, type ProgramRunner } from "../../tasks/humaneval.ts";
import { loadMmlu } from "../../tasks/mmlu.ts";
import { readWords, spellingBee } from "../../tasks/spellingbee.ts";
import type { Task } from "../../tasks/task.ts";
import { worldTask, type WorldTaskName } from "../../tasks/world_tasks.ts";
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
  /** Whether it belongs to ChatCORE, and to what is asked where no task is named. */
  readonly isCore?: true;
  /** Whether answers are programs that are run. */
  readonly runsPrograms?: boolean;
  /** Opens the task. */
  load(source: ChatTaskSource): Promise<Task>;
}

const world = (name: WorldTaskName): ChatTaskRow => ({
  baseline: 0,
  load: () => Promise.resolve(worldTask(name, { split: "test", size: 1000 })),
});

/** All tasks, those of the reference first and in its order. */
export const CHAT_TASKS: Readonly<Record<string, ChatTaskRow>> = {
  "ARC-Easy": {
    baseline: 0.25,
    isCore: true,
    load: ({ folder }) => loadArc(folder, { subset: "ARC-Easy", split: "test" }),
  },
  "ARC-Challenge": {
    baseline: 0.25,
    isCore: true,
    load: ({ folder }) => loadArc(folder, { subset: "ARC-Challenge", split: "test" }),
  },
  MMLU: { baseline: 0.25, isCore: true, load: ({ folder }) => loadMmlu(folder, { subset: "all", split: "test" }) },
  GSM8K: { baseline: 0, isCore: true, load: ({ folder }) => loadGsm8k(folder, { subset: "main", split: "test" }) },
  HumanEval: {
    baseline: 0,
    isCore: true,
    runsPrograms: true,
    load: ({ folder, run }) => loadHumanEval(folder, { run }),
  },
  SpellingBee: {
    baseline: 0,
    isCore: true,
    load: async ({ folder }) => spellingBee(await readWords(findAsset(folder, "words")), { size: 256, split: "test" }),
  },
  // The small world of `run tiny`, held-out rows.
  Identity: world("identity"),
  World: world("world"),
  Arithmetic: world("arithmetic"),
  Spelling: world("spelling"),
  Counting: world("counting"),
  Dialogue: world("dialogue"),
};

/** Names of the tasks that make ChatCORE. */
export const CORE_TASKS: readonly string[] = Object.keys(CHAT_TASKS).filter((name) => CHAT_TASKS[name].isCore);

/**
 * Reads a choice of tasks: names with `|` between them, "" = those of ChatCORE.
 *
 * @throws {RangeError} for a name that is none, listing those that are.
 */
export function chooseChatTasks(names: string): string[] {
  const known = Object.keys(CHAT_TASKS);
  if (names === "") return [...CORE_TASKS];
  const chosen = names.split("|").map((name) => {
    const match = known.find((each) => each.toLowerCase() === name.trim().toLowerCase());
    if (match) return match;
    throw new RangeError(`Cannot evaluate ${JSON.stringify(name)}: no such task, expected some of ${known.join("|")}`);
  });
  return [...new Set(chosen)];
}
