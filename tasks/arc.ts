/** ARC, the AI2 Reasoning Challenge: science questions of school tests, easy and hard (arXiv:1803.05457). */
import { openTaskRows, type Rows, textOf, wrongValue } from "../src/data/task_data.ts";
import { multipleChoiceTask, type Question } from "./multiple_choice.ts";
import type { Task } from "./task.ts";

/** Which part of ARC. */
export interface ArcOptions {
  /** Difficulty. */
  readonly subset: "ARC-Easy" | "ARC-Challenge";
  /** Split. */
  readonly split: "train" | "validation" | "test";
}

/** Opens ARC in a data folder. */
export async function loadArc(dataDir: string, { subset, split }: ArcOptions): Promise<Task> {
  const set = { repo: "allenai/ai2_arc", subset, split };
  return arcTask(await openTaskRows(dataDir, set, ["question", "choices", "answerKey"]));
}

/** Makes the task of rows {question, choices: {text, label}, answerKey}; there are 3 to 5 choices, sometimes labelled by numbers. */
export function arcTask(rows: Rows): Task {
  return multipleChoiceTask(rows, readArc);
}

function readArc(rows: Rows, index: number): Question {
  const { text, label } = (rows.row(index).choices ?? {}) as { text?: unknown; label?: unknown };
  if (!isTexts(text) || !isTexts(label) || text.length !== label.length || text.length === 0) {
    throw wrongValue(rows, index, { column: "choices", expected: "as many texts as labels, at least one" });
  }
  const answer = textOf(rows, index, "answerKey");
  if (!label.includes(answer)) {
    throw wrongValue(rows, index, { column: "answerKey", expected: `one of ${label.join(", ")}` });
  }
  return { question: textOf(rows, index, "question"), choices: text, letters: label, answer };
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}
