/** MMLU: multiple-choice questions of 57 subjects (arXiv:2009.03300). */
import { openTaskRows, type Row, type Rows, textOf, wrongValue } from "../src/data/task_data.ts";
import { multipleChoiceTask, type Question } from "./multiple_choice.ts";
import type { Task } from "./task.ts";

/** Which part of MMLU; `auxiliary_train` has the split `train` only, `all` the other three. */
export type MmluOptions =
  | { readonly subset: "all"; readonly split: "dev" | "validation" | "test" }
  | { readonly subset: "auxiliary_train"; readonly split: "train" };

const LETTERS = ["A", "B", "C", "D"];
const COLUMNS = ["question", "choices", "answer", "subject"];

/** Opens MMLU in a data folder. */
export async function loadMmlu(dataDir: string, { subset, split }: MmluOptions): Promise<Task> {
  const set = { repo: "cais/mmlu", subset, split };
  // The hub's auxiliary_train has every row inside one column "train".
  if (subset === "auxiliary_train") return mmluTask(unwrap(await openTaskRows(dataDir, set, ["train"]), "train"));
  return mmluTask(await openTaskRows(dataDir, set, COLUMNS));
}

/** Makes the task of rows {question, choices, answer, subject}: four choices, the answer is the index of the right one. */
export function mmluTask(rows: Rows): Task {
  return multipleChoiceTask(rows, readMmlu);
}

/** Takes rows out of the column that they are nested in. */
export function unwrap(rows: Rows, column: string): Rows {
  return {
    length: rows.length,
    row: (index) => {
      const row = rows.row(index)[column];
      if (typeof row !== "object" || row === null) throw wrongValue(rows, index, { column, expected: "a row" });
      return row as Row;
    },
    where: (index) => rows.where(index),
  };
}

function readMmlu(rows: Rows, index: number): Question {
  const { choices, answer } = rows.row(index);
  if (!Array.isArray(choices) || choices.length !== 4 || !choices.every((choice) => typeof choice === "string")) {
    throw wrongValue(rows, index, { column: "choices", expected: "four texts" });
  }
  const letter = LETTERS[answer as number];
  if (letter === undefined) throw wrongValue(rows, index, { column: "answer", expected: "0, 1, 2 or 3" });
  const subject = textOf(rows, index, "subject");
  return { question: textOf(rows, index, "question"), choices, letters: LETTERS, answer: letter, subject };
}
