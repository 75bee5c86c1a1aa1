import { assert, assertAlmostEquals, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { processMemory, temporaryFolder } from "../../dev/testing.ts";
import { SILENT } from "../data/log.ts";
import { readBundle } from "./core_bundle.ts";
import { type CoreOptions, evaluateCore } from "./core_eval.ts";
import { coreCsv, coreJson, coreTable } from "./core_report.ts";
import { byteTokenizer, TEST_TASKS, TestModel, writeBundle } from "./eval_testing.ts";
import { LossEvaluator } from "./loss_eval.ts";
import { OptionScorer } from "./option_scorer.ts";

/** Losses of whole sequences without a cache: what the scorer is compared with. */
async function plainLosses({ model }: TestModel, tokens: Int32Array): Promise<Float32Array> {
  const T = tokens.length - 1;
  using evaluator = new LossEvaluator(model, { B: 1, T });
  return await evaluator.losses({
    inputs: Int32Array.from(tokens.slice(0, T)),
    targets: Int32Array.from(tokens.slice(1)),
  });
}

Deno.test("OptionScorer.score() equals the forward pass of each option alone, whatever the size of a pass", async () => {
  using test = new TestModel(300, 512);
  const sequence = (length: number, seed: number) =>
    Int32Array.from({ length }, (_, i) => (i * seed * 31 + seed) % 300);
  const shared = sequence(90, 3);
  const option = (tail: Int32Array) => {
    const tokens = Int32Array.from([...shared, ...tail]);
    return { tokens, start: 90, end: tokens.length };
  };
  const examples = [
    [option(sequence(3, 5)), option(sequence(11, 7)), option(sequence(1, 11))],
    [{ tokens: sequence(200, 13), start: 20, end: 190 }],
    [{ tokens: sequence(12, 17), start: 1, end: 12 }, { tokens: sequence(9, 19), start: 4, end: 9 }],
  ];
  for (const batchTokens of [64, 256, 1024]) {
    using scorer = new OptionScorer(test.model, { batchTokens });
    const scores = await scorer.score(examples);
    for (const [b, options] of examples.entries()) {
      for (const [j, { tokens, start, end }] of options.entries()) {
        const losses = (await plainLosses(test, tokens)).slice(start - 1, end - 1);
        assertEquals(scores[b][j].losses.length, end - start);
        losses.forEach((loss, i) => assertAlmostEquals(scores[b][j].losses[i], loss, 1e-5));
      }
    }
  }
});

Deno.test("OptionScorer.group() fills passes and never splits an example", () => {
  using test = new TestModel(300);
  using scorer = new OptionScorer(test.model, { batchTokens: 128 });
  assertEquals(scorer.group([8, 8, 60, 64, 65, 500], (length) => length), [[8, 8], [60, 64], [65], [500]]);
});

/** Runs an evaluation of the test bundle. */
async function evaluate(folder: string, options: Partial<CoreOptions> = {}) {
  using test = new TestModel(300);
  using tokenizer = await byteTokenizer(["cd"]);
  const bundle = await readBundle(folder);
  const base = { bundle, maxPerTask: -1, batchTokens: 256, log: SILENT };
  return { bundle, result: await evaluateCore({ model: test.model, tokenizer }, { ...base, ...options }) };
}

Deno.test("evaluateCore() gives the same scores whatever the size of a pass, and centres them", async () => {
  using folder = temporaryFolder();
  writeBundle(folder.path);
  const { bundle, result } = await evaluate(folder.path);
  assertEquals((await evaluate(folder.path, { batchTokens: 2048 })).result, result);
  const { tasks, core } = result!;
  assertEquals(tasks.map(({ label, total }) => [label, total]), [["choices", 9], ["contexts", 6], ["texts", 7]]);
  for (const { right, total, centered, interval: [low, high] } of tasks) {
    assertAlmostEquals(centered, 2 * right / total - 1);
    assertEquals(low <= centered && centered <= high, true);
  }
  assertAlmostEquals(core, tasks.reduce((sum, { centered }) => sum + centered, 0) / 3);
  assertEquals((await evaluate(folder.path, { maxPerTask: 4 })).result!.tasks.map(({ total }) => total), [4, 4, 4]);
  const csv = coreCsv(result!).split("\n");
  assertEquals(csv[0], "Task                               , Accuracy  , Centered  ");
  assertEquals(csv[4], `CORE                               ,           , ${core.toFixed(6).padEnd(10)}`);
  assertEquals(coreJson(result!).core, core);
  assertStringIncludes(coreTable(result!, bundle), "CORE ");
});

Deno.test("evaluateCore() goes on behind what a killed evaluation left, a torn line ignored", async () => {
  using folder = temporaryFolder();
  writeBundle(folder.path);
  const { result: expected } = await evaluate(folder.path);
  const resume = { path: join(folder.path, "results.jsonl"), head: { model: "m" } };
  const controller = new AbortController();
  let reports = 0;
  const log = { ...SILENT, progress: () => void (++reports === 3 && controller.abort()) };
  assertEquals((await evaluate(folder.path, { resume, log, stop: controller.signal })).result, undefined);
  const left = Deno.readTextFileSync(resume.path);
  assertEquals(left.split("\n").length > 2, true);
  Deno.writeTextFileSync(resume.path, `${left}{"task":"texts","ite`);
  const said: string[] = [];
  const listening = { ...SILENT, info: (message: string) => void said.push(message) };
  assertEquals((await evaluate(folder.path, { resume, log: listening })).result, expected);
  assertStringIncludes(said[0], "Going on behind");
  await assertRejects(() => Deno.stat(resume.path), Deno.errors.NotFound);

  Deno.writeTextFileSync(resume.path, left);
  said.length = 0;
  const other = { ...resume, head: { model: "another" } };
  assertEquals((await evaluate(folder.path, { resume: other, log: listening })).result, expected);
  assertEquals(said, [], "results of another model are not taken over");
});

Deno.test("evaluateCore() takes no more memory for more items", async () => {
  using test = new TestModel(300);
  using tokenizer = await byteTokenizer(["cd"]);
  const evaluateTimes = async (times: number) => {
    using folder = temporaryFolder();
    writeBundle(
      folder.path,
      TEST_TASKS.map((task) => ({ ...task, lines: Array.from({ length: times }, () => task.lines).flat() })),
    );
    const bundle = await readBundle(folder.path);
    const before = processMemory(true).now;
    await evaluateCore({ model: test.model, tokenizer }, { bundle, maxPerTask: -1, batchTokens: 256, log: SILENT });
    const { allocated, peak } = test.device.memory();
    return { native: { allocated, peak }, grownBytes: processMemory().peak - before };
  };
  const { allocated } = test.device.memory();
  const few = await evaluateTimes(4);
  const many = await evaluateTimes(60);
  assertEquals(few.native.allocated, allocated, "all is given back");
  assertEquals(many.native, few.native);
  // 700 passes: a table of losses, ids and logits left behind by each would be more.
  assert(many.grownBytes < 32 * 2 ** 20, `${many.grownBytes} bytes more`);
});

Deno.test("evaluateCore() says how many items it skipped and cut, and counts them on neither side", async () => {
  using folder = temporaryFolder();
  const lines = ["abc", "ab", "word".repeat(200)].map((context) => ({ context, continuation: "d" }));
  writeBundle(folder.path, [{ label: "texts", type: "language_modeling", delimiter: "", lines }]);
  const warnings: string[] = [];
  const log = { ...SILENT, warn: (message: string) => void warnings.push(message) };
  const { result } = await evaluate(folder.path, { log });
  const [{ total, skipped, cut }] = result!.tasks;
  assertEquals([total, skipped, cut, warnings.length], [2, 1, 1, 2]);
});
