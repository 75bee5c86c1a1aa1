/**
 * GSM8K: sums in words, with the calculator (arXiv:2110.14168).
 *
 * `<<3*4=12>>` in the recorded answers becomes a tool call `3*4` and its output `12`; the number behind `#### ` is the answer.
 */
import type { Conversation, Part } from "../src/data/conversation.ts";
import { openTaskRows, type Rows, textOf } from "../src/data/task_data.ts";
import { hubOrder, type Task } from "./task.ts";

/** Which part of GSM8K; `socratic` has a question in front of every step. */
export interface Gsm8kOptions {
  /** Form of the answers. */
  readonly subset: "main" | "socratic";
  /** Split. */
  readonly split: "train" | "test";
}

/** Opens GSM8K in a data folder. */
export async function loadGsm8k(dataDir: string, { subset, split }: Gsm8kOptions): Promise<Task> {
  const set = { repo: "openai/gsm8k", subset, split };
  return gsm8kTask(await openTaskRows(dataDir, set, ["question", "answer"]));
}

/** Makes the task of rows {question, answer}. */
export function gsm8kTask(rows: Rows): Task {
  const order = hubOrder(rows.length);
  return {
    kind: "generative",
    length: rows.length,
    conversation: (index) => {
      const content = splitToolCalls(textOf(rows, order(index), "answer"));
      return {
        messages: [{ role: "user", content: textOf(rows, order(index), "question") }, { role: "assistant", content }],
      };
    },
    evaluate: sameNumber,
    reward: (conversation, answer) => Number(sameNumber(conversation, answer)),
  };
}

/** Splits a recorded answer at its `<<expression=result>>`; texts in between are parts even where they are empty. */
export function splitToolCalls(answer: string): Part[] {
  return answer.split(/(<<[^>]+>>)/).flatMap((part): Part[] => {
    if (!/^<<[^>]+>>$/.test(part)) return [{ type: "text", text: part }];
    const inner = part.slice(2, -2);
    const cut = inner.includes("=") ? inner.lastIndexOf("=") : inner.length;
    return [{ type: "python", text: inner.slice(0, cut) }, { type: "python_output", text: inner.slice(cut + 1) }];
  });
}

/** Finds the number behind the first `#### `, without commas; undefined where there is none. */
export function extractAnswer(completion: string): string | undefined {
  return /#### (-?[0-9.,]+)/.exec(completion)?.[1].replaceAll(",", "");
}

/** Tells whether an answer ends in the number of the conversation's last part: equal as texts, and none equals none. */
export function sameNumber(conversation: Conversation, answer: string): boolean {
  const content = conversation.messages.at(-1)?.content;
  const last = typeof content === "string" ? undefined : content?.at(-1);
  if (last === undefined) throw new TypeError("Cannot judge the number: the last message has no parts, expected some");
  return extractAnswer(answer) === extractAnswer(last.text);
}
