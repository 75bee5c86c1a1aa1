/**
 * HumanEval: write the body of a Python function; right is what passes its tests (arXiv:2107.03374).
 *
 * What runs the program is given from outside: this file only builds it.
 */
import type { Conversation } from "../src/data/conversation.ts";
import { pythonStrip } from "../src/data/python_text.ts";
import { openTaskRows, type Rows, textOf } from "../src/data/task_data.ts";
import { hubOrder, type Task } from "./task.ts";

/** Runs a Python program; true = it ended without an exception. */
export type ProgramRunner = (program: string) => boolean | Promise<boolean>;

/** A programming problem with its tests. */
export interface Problem extends Conversation {
  /** Name of the function to write. */
  readonly entry_point: string;
  /** Python that defines `check(candidate)`. */
  readonly test: string;
}

/** Opens HumanEval in a data folder. */
export async function loadHumanEval(dataDir: string, { run }: { readonly run: ProgramRunner }): Promise<Task> {
  const set = { repo: "openai/openai_humaneval", subset: "openai_humaneval", split: "test" };
  const columns = ["prompt", "canonical_solution", "entry_point", "test"];
  return humanEvalTask(await openTaskRows(dataDir, set, columns), run);
}

/** Makes the task of rows {prompt, canonical_solution, entry_point, test}. */
export function humanEvalTask(rows: Rows, run: ProgramRunner): Task {
  const order = hubOrder(rows.length);
  return {
    kind: "generative",
    length: rows.length,
    conversation: (index): Problem => {
      const text = (column: string) => textOf(rows, order(index), column);
      const messages = [
        { role: "user", content: text("prompt") },
        { role: "assistant", content: `${text("prompt")}\n${text("canonical_solution")}` },
      ] as const;
      return { messages, entry_point: text("entry_point"), test: text("test") };
    },
    evaluate: (conversation, answer) => run(programOf(conversation, answer)),
  };
}

/** Builds the program that tests an answer: the prompt's imports, the answer's code, the tests and their call. */
export function programOf(conversation: Conversation, answer: string): string {
  const { messages, entry_point, test } = conversation as Problem;
  if (entry_point === undefined || test === undefined) {
    throw new TypeError("Cannot build the program: the conversation has no entry_point and test, expected both");
  }
  const imports = extractImports(messages[0].content as string);
  return `${imports}\n\n${extractCode(answer)}\n\n${test}\ncheck(${entry_point})`;
}

/** Takes the import lines that a prompt begins with, past blank lines and comments, up to the first other line. */
export function extractImports(prompt: string): string {
  const imports: string[] = [];
  for (const line of prompt.split("\n").map(pythonStrip)) {
    if (line.startsWith("import ") || line.startsWith("from ")) imports.push(line);
    else if (line !== "" && !line.startsWith("#")) break;
  }
  return imports.join("\n");
}

/** Takes the first fenced block of a completion (```` ``` ```` or ```` ```python ````), else all of it. */
export function extractCode(completion: string): string {
  return pythonStrip(/```(?:python)?\s*\n(.*?)\n```/s.exec(completion)?.[1] ?? completion);
}
