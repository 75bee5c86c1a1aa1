import { assertEquals, assertThrows } from "@std/assert";
import { sliceTask, type Task, TaskMixture, TaskSequence } from "./task.ts";

/** A task whose conversations say where they come from. */
function numbered(name: number, length: number): Task {
  return { length, conversation: (row) => ({ messages: [{ role: "user", content: `${name},${row}` }] }) };
}

function contents(task: Task): string[] {
  return Array.from({ length: task.length }, (_, i) => String(task.conversation(i).messages[0].content));
}

Deno.test("TaskMixture shuffles as Python's Random(42), TaskSequence keeps the order", () => {
  const tasks = [3, 5, 2].map((length, i) => numbered(i, length));
  // golden tasks/tasks.json, mixtures[0]
  const expected = ["1,4", "1,0", "0,2", "2,0", "1,2", "1,3", "2,1", "1,1", "0,0", "0,1"];
  assertEquals(contents(new TaskMixture(tasks)), expected);
  assertEquals(contents(new TaskSequence(tasks)), [...expected].sort());
});

Deno.test("sliceTask() takes every step-th row and stops at the end", () => {
  const task = numbered(0, 10);
  assertEquals(contents(sliceTask(task, { start: 1, stop: 8, step: 3 })), ["0,1", "0,4", "0,7"]);
  assertEquals(sliceTask(task, { stop: 400 }).length, 10);
  assertThrows(() => sliceTask(task, { step: 0 }), RangeError, "step 0");
  assertThrows(() => sliceTask(task, { stop: 2 }).conversation(2), RangeError, "0 to 1");
});

Deno.test("TaskMixture refuses to be empty", () => {
  assertThrows(() => new TaskMixture([]), RangeError, "Cannot mix 0 tasks");
  assertThrows(() => new TaskMixture([numbered(0, 0)]), RangeError, "no conversation, expected at least one");
});

Deno.test("TaskMixture judges each conversation by its own task, where all of them can", async () => {
  const letter = (name: string): Task => ({
    length: 5,
    kind: "generative",
    conversation: (i) => ({
      messages: [{ role: "user", content: `${name}${i}` }, { role: "assistant", content: name }],
    }),
    reward: (_, answer) => answer.startsWith(name) ? 1 : 0,
    evaluate: (_, answer) => answer === name,
  });
  const mixed = new TaskMixture([letter("a"), letter("b")]);
  assertEquals([mixed.length, mixed.kind], [10, "generative"]);
  for (let i = 0; i < 10; i++) {
    const conversation = mixed.conversation(i);
    const own = String(conversation.messages[1].content), other = own === "a" ? "b" : "a";
    assertEquals([mixed.reward!(conversation, `${own}!`), mixed.reward!(conversation, other)], [1, 0]);
    assertEquals([await mixed.evaluate!(conversation, own), await mixed.evaluate!(conversation, other)], [true, false]);
  }
  assertThrows(() => mixed.reward!({ messages: [] }, "a"), TypeError, "none of this mixture");
  const { conversation } = letter("c");
  const half = new TaskMixture([letter("a"), { length: 1, conversation }]);
  assertEquals([half.kind, half.reward, half.evaluate], [undefined, undefined, undefined]);
});
