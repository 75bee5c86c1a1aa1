import { assert, assertEquals } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "@std/path";
import { openTaskRows, type Rows } from "../src/data/task_data.ts";
import { readJsonLines } from "../src/data/text_file.ts";
import { loadArc } from "./arc.ts";
import { loadCustomJson } from "./customjson.ts";
import { loadGsm8k } from "./gsm8k.ts";
import { loadHumanEval } from "./humaneval.ts";
import { loadMmlu } from "./mmlu.ts";
import { loadSmolTalk } from "./smoltalk.ts";
import { readWords, simpleSpelling, spellingBee } from "./spellingbee.ts";
import type { Task } from "./task.ts";

const DATA = Deno.env.get("NANOCHAT_DATA") ?? "";
const ignore = DATA === "" || !existsSync(join(DATA, "task_data")) || !existsSync(join(DATA, "tasks"));
if (ignore) console.log("skipped: task_data or tasks is absent; set NANOCHAT_DATA");

/** Sets that are there in both layouts. */
const SETS: readonly (readonly [repo: string, subset: string, splits: string[], columns: string[]])[] = [
  ["allenai/ai2_arc", "ARC-Easy", ["train", "validation", "test"], ["question", "choices", "answerKey"]],
  ["allenai/ai2_arc", "ARC-Challenge", ["train", "validation", "test"], ["question", "choices", "answerKey"]],
  ["cais/mmlu", "all", ["dev", "test"], ["question", "choices", "answer", "subject"]],
  ["openai/gsm8k", "main", ["train", "test"], ["question", "answer"]],
  ["openai/openai_humaneval", "openai_humaneval", ["test"], ["prompt", "canonical_solution", "entry_point", "test"]],
];

Deno.test({
  name: "openTaskRows() gives equal rows from Parquet and from the originals",
  ignore,
  fn: async () => {
    for (const [repo, subset, splits, columns] of SETS) {
      for (const split of splits) {
        const set = { repo, subset, split };
        const parquet = await openTaskRows(join(DATA, "task_data"), set, columns);
        const originals = await openTaskRows(join(DATA, "tasks"), set, columns);
        assertEquals(parquet.length, originals.length, `${repo} ${subset} ${split}`);
        const pick = (rows: Rows, i: number) => columns.map((name) => rows.row(i)[name]);
        for (let i = 0; i < parquet.length; i++) {
          assertEquals(pick(parquet, i), pick(originals, i), `${parquet.where(i)} and ${originals.where(i)}`);
        }
      }
    }
  },
});

Deno.test({
  name: "every task renders every row of the data, and judges its own answer right",
  ignore,
  fn: async () => {
    const run = () => true;
    const tasks: [string, Task, rows: number][] = [
      ["mmlu auxiliary_train", await loadMmlu(DATA, { subset: "auxiliary_train", split: "train" }), 285],
      ["mmlu test", await loadMmlu(DATA, { subset: "all", split: "test" }), 4560],
      ["arc", await loadArc(DATA, { subset: "ARC-Challenge", split: "train" }), 1119],
      ["gsm8k", await loadGsm8k(DATA, { subset: "main", split: "train" }), 6973],
      ["gsm8k socratic", await loadGsm8k(DATA, { subset: "socratic", split: "test" }), 200],
      ["humaneval", await loadHumanEval(DATA, { run }), 131],
      ["smoltalk", await loadSmolTalk(DATA, { split: "train" }), 988],
      ["identity", await loadCustomJson(join(DATA, "chat", "identity_conversations.jsonl.gz")), 800],
    ];
    for (const [name, task, rows] of tasks) {
      assertEquals(task.length, rows, name);
      for (let i = 0; i < rows; i++) {
        const conversation = task.conversation(i);
        const { content } = conversation.messages.at(-1)!;
        const answer = typeof content === "string" ? content : content.map(({ text }) => text).join("");
        assert(await task.evaluate?.(conversation, answer) ?? true, `${name} ${i}`);
      }
    }
  },
});

Deno.test({
  name: "spelling tasks equal the reference's examples with the full word list",
  ignore,
  fn: async () => {
    const words = await readWords(join(DATA, "words", "words_alpha.txt.gz"));
    for (const [file, make] of [["spellingbee", spellingBee], ["simplespelling", simpleSpelling]] as const) {
      const tasks = { train: make(words, { split: "train" }), test: make(words, { split: "test" }) };
      const lines = await readJsonLines(join(DATA, "words", `${file}_examples.jsonl.gz`));
      assertEquals(lines.length, 400);
      for (const { value } of lines) {
        const { split, index, conversation } = value as {
          split: "train" | "test";
          index: number;
          conversation: unknown;
        };
        assertEquals(tasks[split].conversation(index), conversation, `${file} ${split} ${index}`);
      }
    }
  },
});
