import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { readBundle, readItems } from "./core_bundle.ts";
import { TEST_TASKS, writeBundle } from "./eval_testing.ts";

Deno.test("readBundle() reads tasks, baselines behind quoted cells, and published scores in order", async () => {
  using folder = temporaryFolder();
  writeBundle(folder.path);
  const scores = (core: number) => `Task , Accuracy , Centered\nchoices , 0.5 , 0.25 \nCORE , , ${core}\n`;
  Deno.writeTextFileSync(join(folder.path, "openai-community-gpt2-xl.csv"), scores(0.3));
  Deno.writeTextFileSync(join(folder.path, "openai-community-gpt2.csv"), scores(0.1));
  const { tasks, published } = await readBundle(folder.path);
  assertEquals(tasks.map(({ label, type, shots, delimiter, baseline }) => [label, type, shots, delimiter, baseline]), [
    ["choices", "multiple_choice", 2, "\nAnswer: ", 0.5],
    ["contexts", "schema", 0, " ", 0.5],
    ["texts", "language_modeling", 1, " ", 0.5],
  ]);
  assertEquals(published.map(({ name }) => name), ["gpt2", "gpt2-xl"]);
  assertEquals([...published[0].centered], [["choices", 0.25], ["CORE", 0.1]]);
  assertEquals(await Promise.all(tasks.map(readItems)), TEST_TASKS.map(({ lines }) => lines) as never);
});

Deno.test("readBundle() names the file that is missing", async () => {
  for (const name of ["core.yaml", "eval_meta_data.csv", "eval_data/x/contexts.jsonl"]) {
    using folder = temporaryFolder();
    writeBundle(folder.path);
    Deno.removeSync(join(folder.path, name));
    await assertRejects(
      () => readBundle(folder.path),
      Error,
      `Cannot open "${join(folder.path, name)}": it is missing`,
    );
  }
});

Deno.test("readBundle() names the line of core.yaml that it cannot read", async () => {
  const cases: [from: string, to: string, expected: string][] = [
    ["icl_tasks:", "tasks:", 'line 1: it is "tasks:", expected "icl_tasks:"'],
    [
      "icl_task_type: schema",
      "icl_task_type: essay",
      'line 9: icl_task_type is "essay", expected one of multiple_choice',
    ],
    ["num_fewshot: [2]", "num_fewshot: 2", 'line 2: num_fewshot is "2", expected one count'],
    ["num_fewshot: [2]", "num_fewshot: [2", "line 5: it is"],
    ["  label: texts", "  name: texts", "line 15: the task has no label"],
    ["  label: texts", "  label: essays", 'line 15: "essays" has no line in eval_meta_data.csv'],
    ["  has_categories: true", "  has_categories", "line 8: it is"],
  ];
  for (const [from, to, expected] of cases) {
    using folder = temporaryFolder();
    writeBundle(folder.path);
    const path = join(folder.path, "core.yaml");
    Deno.writeTextFileSync(path, Deno.readTextFileSync(path).replace(from, to));
    await assertRejects(() => readBundle(folder.path), SyntaxError, expected);
  }
});

Deno.test("readBundle() names the line of eval_meta_data.csv that it cannot read", async () => {
  const cases = [
    ["Random baseline", "Baseline", 'line 1: it has no column "Random baseline"'],
    ["50.0", "half", 'line 2: task "choices" with baseline "half", expected a percentage below 100'],
    ['more",50.0', 'more"x,50.0', "line 2: a field begins"],
  ];
  for (const [from, to, expected] of cases) {
    using folder = temporaryFolder();
    writeBundle(folder.path);
    const path = join(folder.path, "eval_meta_data.csv");
    Deno.writeTextFileSync(path, Deno.readTextFileSync(path).replace(from, to));
    await assertRejects(() => readBundle(folder.path), SyntaxError, expected);
  }
});

Deno.test("readItems() names file, line and what was expected of a malformed line", async () => {
  const good = { query: "q", choices: ["a", "b"], gold: 0 };
  const cases: [type: string, line: unknown, expected: string][] = [
    ["multiple_choice", "{", "Expected property name"],
    ["multiple_choice", "[1]", "it is no object"],
    ["multiple_choice", { ...good, query: 3 }, "query is 3, expected a text"],
    ["multiple_choice", { ...good, choices: ["a"] }, 'choices is ["a"], expected a list of at least two texts'],
    ["multiple_choice", { ...good, gold: 2 }, "gold is 2, expected a number from 0 to 1"],
    ["schema", { context_options: ["a", "b"], gold: 1 }, "continuation is missing, expected a text"],
    ["language_modeling", { context: "a" }, "continuation is missing, expected a text"],
  ];
  for (const [type, line, expected] of cases) {
    using folder = temporaryFolder();
    const front = type === "multiple_choice"
      ? good
      : type === "schema"
      ? { context_options: ["a", "b"], continuation: "c", gold: 0 }
      : { context: "a", continuation: "b" };
    writeBundle(folder.path, [{ label: "bad", type, lines: [front, "", line] }]);
    const { tasks: [task] } = await readBundle(folder.path);
    await assertRejects(() => readItems(task), SyntaxError, `${join("x", "bad.jsonl")}", line 3: ${expected}`);
  }
});
