import { assertEquals } from "@std/assert";
import type { CoreTask, CoreTaskType } from "./core_bundle.ts";
import { cropOption, fewShotIndices, findSpans, renderPrompts } from "./core_prompts.ts";

function task(type: CoreTaskType, delimiter = " "): CoreTask {
  return { label: "t", type, shots: 1, delimiter, file: "", baseline: 0 };
}

const ids = (...tokens: number[]) => Int32Array.from(tokens);
const spans = (type: CoreTaskType, encoded: Int32Array[]) =>
  findSpans(task(type), encoded)?.map(({ start, end }) => [start, end]) ?? null;

Deno.test("renderPrompts() puts solved items in front, each followed by a blank line", () => {
  const choice = { query: "Q", choices: ["a", "b"], gold: 1 };
  const schema = { context_options: ["A", "B"], continuation: "c", gold: 0 };
  const text = { context: " A\n", continuation: "b " };
  assertEquals(renderPrompts(task("multiple_choice", "="), choice, [choice]), ["Q=b\n\nQ=a", "Q=b\n\nQ=b"]);
  assertEquals(renderPrompts(task("schema"), schema, [schema]), ["A c\n\nA c", "A c\n\nB c"]);
  assertEquals(renderPrompts(task("language_modeling"), text, [text]), ["A b \n\nA", "A b \n\nA b "]);
});

Deno.test("fewShotIndices() never shows the item itself and takes all others where there are too few", () => {
  for (let index = 0; index < 8; index++) {
    const chosen = fewShotIndices(index, { count: 8, shots: 5 });
    assertEquals([chosen.length, new Set(chosen).size, chosen.includes(index)], [5, 5, false]);
  }
  assertEquals(fewShotIndices(1, { count: 3, shots: 5 }).sort(), [0, 2]);
  assertEquals(fewShotIndices(0, { count: 1, shots: 5 }), []);
});

Deno.test("findSpans() begins where choices part, and one token earlier where a choice begins another", () => {
  assertEquals(spans("multiple_choice", [ids(9, 1, 2), ids(9, 1, 3, 4)]), [[2, 3], [2, 4]]);
  assertEquals(spans("multiple_choice", [ids(9, 1, 2), ids(9, 1, 2, 4)]), [[2, 3], [2, 4]]);
  assertEquals(spans("multiple_choice", [ids(9, 1, 2), ids(9, 1, 2)]), [[2, 3], [2, 3]]);
});

Deno.test("findSpans() takes the end that contexts share, never the first token", () => {
  assertEquals(spans("schema", [ids(9, 1, 5, 6), ids(9, 2, 3, 5, 6)]), [[2, 4], [3, 5]]);
  assertEquals(spans("schema", [ids(9, 1), ids(9, 1)]), [[1, 2], [1, 2]]);
});

Deno.test("findSpans() gives nothing where a continuation merges with its prompt or is empty", () => {
  assertEquals(spans("language_modeling", [ids(9, 1), ids(9, 1, 2, 3)]), [[2, 4]]);
  assertEquals(spans("language_modeling", [ids(9, 1), ids(9, 7, 2)]), null);
  assertEquals(spans("language_modeling", [ids(9, 1), ids(9, 1)]), null);
});

Deno.test("cropOption() keeps the last tokens and moves the span", () => {
  const option = { tokens: ids(1, 2, 3, 4, 5), start: 3, end: 5 };
  assertEquals(cropOption(option, 5), option);
  assertEquals(cropOption(option, 3), { tokens: ids(3, 4, 5), start: 1, end: 3 });
  assertEquals(cropOption(option, 2), { tokens: ids(4, 5), start: 1, end: 2 });
});
