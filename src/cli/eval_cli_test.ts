import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";
import { readSections } from "../report/sections.ts";
import { TEST_TASKS, writeBundle } from "../eval/eval_testing.ts";

/** A base folder with a model of one layer that was trained for two steps. */
async function withModel(use: (env: Record<string, string>, base: string) => Promise<void>): Promise<void> {
  await withFolder(async (base) => {
    const env = { NANOCHAT_BASE_DIR: base };
    const sizes = ["--depth=1", "--max-seq-len=256", "--device-batch-size=1", "--total-batch-size=256"];
    for (
      const args of [
        ["data", "world", "--train-documents=200", "--val-documents=40"],
        ["tokenizer", "train", "--vocab-size=320"],
        ["train", ...sizes, "--num-iterations=2", "--eval-every=-1", "--sample-every=-1"],
      ]
    ) {
      const { code, output } = await nanochat(args, { env });
      assertEquals(code, 0, output);
    }
    await use(env, base);
  });
}

Deno.test("nanochat eval core measures, writes the reference's table and a section of the report, and names a missing file", () =>
  withModel(async (env, base) => {
    const absent = await nanochat(["eval", "core"], { env });
    assertEquals(absent.code, 1, absent.output);
    assertStringIncludes(absent.stderr, join(base, "eval_bundle", "core.yaml"));
    assertStringIncludes(absent.stderr, 'run "nanochat data fetch eval-bundle"');

    const train = ["train", "--depth=1", "--core-metric-every=1"];
    const refused = await nanochat(train, { env });
    assertEquals(refused.code, 1, refused.output);
    assertStringIncludes(refused.stderr, 'run "nanochat data fetch eval-bundle"');

    writeBundle(join(base, "eval_bundle"));
    const measured = await nanochat(["eval", "core", "--max-per-task=5", "--json"], { env });
    assertEquals(measured.code, 0, measured.output);
    const { core, core_ci95: [low, high], tasks, max_per_task } = JSON.parse(measured.stdout);
    assert(low <= core && core <= high, measured.stdout);
    assertEquals([max_per_task, tasks.map(({ total }: { total: number }) => total)], [5, [5, 5, 5]]);
    const csv = await Deno.readTextFile(join(base, "eval", "core_base_d1_000002.csv"));
    assertEquals(csv.split("\n").map((line) => line.split(",")[0].trim()), [
      ...["Task", "choices", "contexts", "texts", "CORE", ""],
    ]);
    const files = [...Deno.readDirSync(join(base, "eval"))].map(({ name }) => name).sort();
    assertEquals(files, ["core_base_d1_000002.csv", "core_base_d1_000002.json"], "no partial results are left");
    const section = JSON.parse(await Deno.readTextFile(join(base, "report", "base-model-evaluation.json")));
    assertEquals(section.scores, { CORE: core });

    const rounded = await nanochat(["eval", "core", "--max-per-task=5", "--json", "--quantize=int8"], { env });
    assertEquals(rounded.code, 0, rounded.output);
    const [exact, int8] = readSections(join(base, "report")).slice(-2);
    assertEquals([exact.title, exact.scores], [section.title, section.scores], "the exact model keeps its section");
    assertEquals(int8.title, "Base model evaluation, int8");
    assertEquals(int8.scores, { CORE_int8: JSON.parse(rounded.stdout).core });
  }));

Deno.test("nanochat eval bpb --quantize=int8 shows the samples of the exact model", () =>
  withModel(async (env) => {
    const samplesOf = async (...flags: string[]) => {
      const args = ["eval", "bpb", "--device-batch-size=1", "--split-tokens=2048", "--json", ...flags];
      const { code, stdout, output } = await nanochat(args, { env });
      assertEquals(code, 0, output);
      return stdout.split("\n").filter((line) => line.includes('"sample"'));
    };
    const samples = await samplesOf();
    assertEquals(samples.length, 5);
    assertEquals(await samplesOf("--quantize=int8"), samples);
  }));

Deno.test("nanochat eval core killed with SIGKILL goes on, scores no item twice and writes the files of an undisturbed run", () =>
  withModel(async (env, base) => {
    const many = TEST_TASKS.map((task) => ({ ...task, lines: Array.from({ length: 60 }, () => task.lines).flat() }));
    writeBundle(join(base, "eval_bundle"), many);
    const files = ["csv", "json"].map((kind) => join(base, "eval", `core_base_d1_000002.${kind}`));
    const partial = join(base, "eval", "core_base_d1_000002.partial.jsonl");
    const evaluate = (dieAt?: string) =>
      nanochat(["eval", "core", "--threads=1"], {
        env,
        onOutput: (text, send) => dieAt !== undefined && text.includes(dieAt) && send("SIGKILL"),
      });
    let kept = "";
    for (const [kill, dieAt] of ["CORE 2 of 3", "CORE 3 of 3"].entries()) {
      const killed = await evaluate(dieAt);
      assertEquals(killed.code, 137, killed.output);
      assertEquals(killed.stderr.includes("Going on behind"), kill > 0);
      const text = await Deno.readTextFile(partial);
      assert(text.startsWith(kept) && text.length > kept.length, "what was scored before is kept");
      kept = text.slice(0, text.lastIndexOf("\n") + 1); // a torn last line is written over
    }
    const lines = kept.trim().split("\n").slice(1).map((line) => JSON.parse(line) as { task: string; items: number[] });
    const scored = lines.flatMap(({ task, items }) => items.map((item) => `${task} ${item}`));
    assertEquals(new Set(scored).size, scored.length, "no item is scored twice");
    const ended = await evaluate();
    assertEquals(ended.code, 0, ended.output);
    assertStringIncludes(ended.stderr, `Going on behind ${scored.length} items`);
    const resumed = files.map((file) => Deno.readTextFileSync(file));
    for (const file of files) Deno.removeSync(file);
    const whole = await evaluate();
    assertEquals(whole.code, 0, whole.output);
    assertEquals(files.map((file) => Deno.readTextFileSync(file)), resumed);
    assertEquals(whole.stdout, ended.stdout);
  }));

Deno.test("nanochat eval chat measures the chosen tasks, writes them down, and names unknown tasks and missing data", () =>
  withModel(async (env, base) => {
    const unknown = await nanochat(["eval", "chat", "-a", "GSM9K"], { env });
    assertEquals(unknown.code, 2, unknown.output);
    assertStringIncludes(unknown.stderr, "expected some of ARC-Easy|ARC-Challenge|MMLU|GSM8K|HumanEval|SpellingBee");
    const absent = await nanochat(["eval", "chat", "-a", "SpellingBee"], { env });
    assertEquals(absent.code, 1, absent.output);
    assertStringIncludes(absent.stderr, 'run "nanochat data fetch words"');

    await Deno.writeTextFile(join(base, "words_alpha.txt"), "apple\npear\nplum\n");
    await Deno.mkdir(join(base, "arc"));
    const choices = ["a lamp", "a stone", "a book", "a mirror"].map((text, i) => ({ text, label: "ABCD"[i] }));
    const question = { id: "1", question: { stem: "What gives light?", choices }, answerKey: "A" };
    await Deno.writeTextFile(join(base, "arc", "ARC-Easy-Test.jsonl"), `${JSON.stringify(question)}\n`);
    await Deno.mkdir(join(base, "humaneval"));
    const program = { task_id: "X/0", prompt: "def f():\n", canonical_solution: "    return 1\n", entry_point: "f" };
    const test = "def check(candidate):\n    assert candidate() == 1\n";
    await Deno.writeTextFile(join(base, "humaneval", "HumanEval.jsonl"), `${JSON.stringify({ ...program, test })}\n`);
    const args = [
      "eval",
      "chat",
      "-a",
      "ARC-Easy|HumanEval|SpellingBee",
      "-x",
      "4",
      "-m",
      "5",
      "-n",
      "2",
      "-t",
      "1",
      "--json",
    ];
    const measured = await nanochat(args, { env });
    assertEquals(measured.code, 0, measured.output);
    const lines = measured.stdout.trim().split("\n").map((line) => JSON.parse(line));
    const { file, ...figures } = lines.pop();
    assertEquals([file.endsWith("chat_base_d1_000002.json"), Object.keys(figures)], [true, [
      "arc_easy_acc",
      "humaneval_acc",
      "spellingbee_acc",
    ]]);
    assertEquals(lines.map(({ task, total, pass_at }) => [task, total, pass_at.length]), [
      ["ARC-Easy", 1, 1],
      ["HumanEval", 1, 2],
      ["SpellingBee", 4, 2],
    ]);
    const written = JSON.parse(await Deno.readTextFile(join(base, "eval", "chat_base_d1_000002.json")));
    assertEquals(
      Object.keys(written.scores),
      ["ARC-Easy", "HumanEval", "SpellingBee"],
      "no ChatCORE unless all tasks are asked",
    );
    const section = JSON.parse(await Deno.readTextFile(join(base, "report", "chat-evaluation-base.json")));
    assertEquals(section.scores, written.scores);
    assertEquals([...Deno.readDirSync(join(base, "eval"))].length, 1, "no partial results are left");

    const rounded = await nanochat(["eval", "chat", "-a", "ARC-Easy", "--quantize=int8"], { env });
    assertEquals(rounded.code, 0, rounded.output);
    const [exact, int8] = readSections(join(base, "report")).slice(-2);
    assertEquals([exact.title, exact.scores], [section.title, section.scores], "the exact model keeps its section");
    assertEquals([int8.title, Object.keys(int8.scores!)], ["Chat evaluation base, int8", ["ARC-Easy_int8"]]);
  }));
