import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Part } from "../src/data/conversation.ts";
import { calculate } from "../src/engine/calculator.ts";
import { worldDocuments } from "./world.ts";
import { FACTS } from "./world_facts.ts";
import { type WorldConversation, worldTask, type WorldTaskName } from "./world_tasks.ts";

const NAMES: readonly WorldTaskName[] = [
  ...["identity", "world", "telling", "arithmetic", "spelling", "counting", "dialogue"] as const,
];
const rows = (name: WorldTaskName, split: "train" | "test", size = 2000) => {
  const task = worldTask(name, { split, size });
  return Array.from({ length: size }, (_, i) => task.conversation(i) as WorldConversation);
};
const question = (row: WorldConversation) => row.messages.at(-2)!.content as string;

/** An answer as a model would give it: parts wrapped in the names of their special tokens. */
function written(content: string | readonly Part[]): string {
  if (typeof content === "string") return content;
  const marks = { text: ["", ""], python: ["<|python_start|>", "<|python_end|>"] } as const;
  return content.map(({ type, text }) =>
    type === "python_output" ? `<|output_start|>${text}<|output_end|>` : marks[type][0] + text + marks[type][1]
  ).join("") + "<|assistant_end|>";
}

Deno.test("worldTask() gives the same conversation for the same index, others for others", () => {
  for (const name of NAMES) {
    assertEquals(rows(name, "train", 20), rows(name, "train", 20));
    assert(new Set(rows(name, "train", 200).map(question)).size > 60, name);
  }
  assertThrows(() => worldTask("world", { split: "train", size: 5 }).conversation(5), RangeError, "0 to 4");
});

Deno.test("worldTask() asks no training question in a test row", () => {
  for (const name of NAMES) {
    const trained = new Set(rows(name, "train", 8000).map(question));
    assertEquals(rows(name, "test", 500).map(question).filter((text) => trained.has(text)), [], name);
  }
});

Deno.test("worldTask() asks no test question in the pretraining text", () => {
  const corpus = [...worldDocuments({ seed: 1, count: 3000, split: "train" })].join("\n");
  for (const name of ["identity", "world", "counting"] as const) {
    const questions = rows(name, "test", 300).map(question).filter((text) => text.includes(" ", 12)); // a greeting is no secret
    for (const text of questions) assert(!corpus.includes(text), text);
  }
});

Deno.test("worldTask() asks two to four questions in a dialogue, of all kinds, all of one split", () => {
  const all = rows("dialogue", "test", 300);
  const trained = new Set(rows("world", "train", 8000).map(question));
  const counts = new Set<number>();
  for (const { messages } of all) {
    assertEquals(messages.map(({ role }) => role), messages.map((_, i) => i % 2 === 0 ? "user" : "assistant"));
    counts.add(messages.length / 2);
    for (const { content } of messages) assert(!trained.has(content as string), `${content}`);
  }
  assertEquals([...counts].sort(), [2, 3, 4]);
});

Deno.test("worldTask() tells true things about one subject and asks nothing", () => {
  const subjects = new Set<string>(FACTS.map(({ slots }) => slots.who ?? slots.town));
  const asked = new Set(rows("world", "test", 300).map(question));
  for (const { messages: [user, assistant] } of rows("telling", "train", 500)) {
    const [request, text] = [user.content as string, assistant.content as string];
    const subject = [...subjects].find((name) => request.includes(name))!;
    assert(text.includes(subject) && !text.includes("?"), `${request} ${text}`);
    const told = FACTS.filter(({ slots, value }) => (slots.who ?? slots.town) === subject && text.includes(value));
    assert(told.length >= 2, `${request} ${text}`);
    assert(!asked.has(request), request);
  }
});

Deno.test("worldTask() accepts its own answers and refuses others", () => {
  for (const name of NAMES) {
    const task = worldTask(name, { split: "test", size: 300 });
    const all = rows(name, "test", 300);
    for (const [i, row] of all.entries()) {
      assert(task.evaluate!(row, written(row.messages.at(-1)!.content)), `${name}: ${question(row)}`);
      const other = all.slice(i + 1).map(({ messages }) => written(messages.at(-1)!.content)).find((answer) =>
        !answer.includes(row.value)
      );
      if (other) assertEquals(task.reward!(row, other), 0, `${name}: ${question(row)}`);
      assertEquals(task.reward!(row, ""), 0);
    }
  }
});

Deno.test("worldTask() writes tool calls that the calculator answers as the row says", () => {
  for (const name of ["arithmetic", "counting"] as const) {
    for (const row of rows(name, "train", 300)) {
      const parts = row.messages[1].content as Part[];
      const call = parts.findIndex(({ type }) => type === "python");
      assertEquals(calculate(parts[call].text), parts[call + 1].text);
    }
  }
});

Deno.test("worldTask() takes the last number as the answer", () => {
  const task = worldTask("arithmetic", { split: "train", size: 50 });
  const row = task.conversation(0) as WorldConversation;
  assert(task.evaluate!(row, `It is ${row.value}.`));
  assert(!task.evaluate!(row, `It is ${row.value} or ${Number(row.value) + 1}.`));
  assert(!task.evaluate!(row, `<|output_start|>${row.value}<|output_end|>I do not know.`));
});
