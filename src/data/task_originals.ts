/**
 * The files in which the authors published the task sets, and how their rows become the hub's: GSM8K, HumanEval and ARC as JSON lines,
 * MMLU as one CSV file a subject.
 */
import { basename, join } from "@std/path";
import { entries } from "./base_dir.ts";
import type { TaskSet } from "./task_data.ts";
import { type Line, readCsv, readJsonLines } from "./text_file.ts";

/** Where the originals of a hub set are and how they are read. */
export interface Original {
  /** Folder below the data folder. */
  readonly folder: string;
  /** Finds the files of a split in that folder, in the order of their rows; none = absent. */
  files(folder: string, set: TaskSet): string[];
  /** Reads one file as rows with the hub's columns. */
  read(path: string): Promise<Line<unknown>[]>;
}

const ARC_SPLITS: Readonly<Record<string, string>> = { train: "Train", validation: "Dev", test: "Test" };
const MMLU_SPLITS: Readonly<Record<string, string>> = { dev: "dev", validation: "val", test: "test" };

/** Originals by hub repository. */
export const ORIGINALS: Readonly<Record<string, Original>> = {
  "openai/gsm8k": {
    folder: "gsm8k",
    files: (folder, { subset, split }) => jsonLines(folder, subset === "main" ? split : `${split}_${subset}`),
    read: readJsonLines,
  },
  "openai/openai_humaneval": {
    folder: "humaneval",
    files: (folder, { split }) => split === "test" ? jsonLines(folder, "HumanEval") : [],
    read: readJsonLines,
  },
  "allenai/ai2_arc": {
    folder: "arc",
    files: (folder, { subset, split }) => jsonLines(folder, `${subset}-${ARC_SPLITS[split]}`),
    read: readArc,
  },
  "cais/mmlu": {
    folder: "mmlu",
    files: (folder, { subset, split }) => subset === "all" ? csvFiles(join(folder, MMLU_SPLITS[split] ?? split)) : [],
    read: readSubject,
  },
};

/** Finds `<stem>.jsonl` or `<stem>.jsonl.gz`; a count behind the stem, as in test_socratic_200.jsonl, marks a part of the file. */
function jsonLines(folder: string, stem: string): string[] {
  const names = entries(folder).map(({ name }) => name);
  const found = names.filter((name) =>
    name.startsWith(stem) && /^(_\d+)?\.jsonl(\.gz)?$/.test(name.slice(stem.length))
  );
  return found.slice(0, 1).map((name) => join(folder, name));
}

function csvFiles(folder: string): string[] {
  const names = entries(folder).map(({ name }) => name).filter((name) => /\.csv(\.gz)?$/.test(name));
  return names.map((name) => join(folder, name));
}

/** Moves ARC's {id, question: {stem, choices: [{text, label}]}, answerKey} into the hub's columns; other rows stay as they are. */
async function readArc(path: string): Promise<Line<unknown>[]> {
  // deno-lint-ignore no-explicit-any -- the shape is checked by reaching through it
  return (await readJsonLines(path)).map(({ line, value }: Line<any>) => {
    const choices = value?.question?.choices;
    if (!Array.isArray(choices)) {
      throw new SyntaxError(
        `Cannot read "${path}", line ${line}: no question.choices, expected a list of text and label`,
      );
    }
    const { id, question: { stem }, answerKey } = value;
    const column = (name: string) => choices.map((choice) => choice?.[name]);
    return {
      line,
      value: { id, question: stem, choices: { text: column("text"), label: column("label") }, answerKey },
    };
  });
}

/** Reads the questions of one subject: question, four choices, letter; the subject is in the name. */
async function readSubject(path: string): Promise<Line<unknown>[]> {
  const subject = basename(path).replace(/_(dev|val|test)\.csv(\.gz)?$/, "");
  return (await readCsv(path, 6)).map(({ line, value: [question, ...rest] }) => {
    const answer = ["A", "B", "C", "D"].indexOf(rest[4]);
    if (answer < 0) throw new SyntaxError(`Cannot read "${path}", line ${line}: answer "${rest[4]}", expected A to D`);
    return { line, value: { question, subject, choices: rest.slice(0, 4), answer } };
  });
}
