import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";
import { readEvents } from "../report/events.ts";

const SMALL = ["--dtype=fp32", "--device-batch-size=2"];

/** A base folder with a base model of one layer and a file of conversations. */
async function withModel(use: (env: Record<string, string>, base: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const base = join(folder, "base");
    const env = { NANOCHAT_BASE_DIR: base };
    const words = ["ant", "bee", "cat", "dog"];
    const text = Array.from({ length: 2000 }, (_, j) => words[j * j % 4]).join(" ");
    for (const name of ["a.txt", "b.txt"]) await Deno.writeTextFile(join(folder, name), text);
    const run = async (args: string[]) => {
      const { code, output } = await nanochat(args, { env });
      assertEquals(code, 0, output);
    };
    await run(["data", "make", folder]);
    await run(["tokenizer", "train", "--vocab-size=300"]);
    const sizes = ["--depth=1", "--max-seq-len=64", "--total-batch-size=128", "--num-iterations=2"];
    await run(["train", ...SMALL, ...sizes, "--eval-every=-1", "--sample-every=-1"]);
    const lines = Array.from({ length: 60 }, (_, i) => {
      const messages = [{ role: "user", content: `which one is ${i % 9}?` }, {
        role: "assistant",
        content: words[i % 4],
      }];
      return JSON.stringify(messages);
    });
    await Deno.writeTextFile(join(base, "own.jsonl"), lines.join("\n"));
    await use(env, base);
  });
}

const OWN = ["--mixture=own.jsonl", "--validation-mixture=own.jsonl:20"];
const COUNTING = ["--mixture=world-counting:40, world-arithmetic:40", "--validation-mixture=world-counting:4"];
const STAGES: Readonly<Record<string, { args: readonly string[]; steps: number }>> = {
  mid: {
    args: [...OWN, "--max-seq-len=64", "--total-batch-size=128", "--eval-tokens=256", "--num-iterations=200"],
    steps: 200,
  },
  sft: { args: [...OWN, "--target-examples-per-step=2", "--num-iterations=201", "--eval-steps=2"], steps: 200 },
  rl: {
    args: [
      ...COUNTING,
      "--examples-per-step=1",
      "--num-samples=2",
      "--max-new-tokens=4",
      "--num-iterations=60",
      "--eval-examples=3",
    ],
    steps: 60,
  },
};

Deno.test("nanochat mid, sft and rl follow each other; each stops at SIGINT and goes on as if nothing had happened", () =>
  withModel(async (env, base) => {
    for (const [stage, { args, steps }] of Object.entries(STAGES)) {
      let sent = false;
      const stopped = await nanochat([stage, ...SMALL, ...args], {
        env,
        onOutput: (text, send) => {
          if (sent || !text.includes("Training")) return;
          sent = true;
          send("SIGINT");
        },
      });
      assertEquals(stopped.code, 75, stopped.output);
      assertStringIncludes(stopped.stderr, `nanochat ${stage} --model-tag=d1 --resume`);
      const refused = await nanochat([stage, ...SMALL, ...args], { env });
      assertEquals(refused.code, 3, refused.output);
      const data = args.filter((arg) => /mixture/.test(arg));
      const resumed = await nanochat([stage, "--model-tag=d1", "--resume", ...data, "--json"], { env });
      assertEquals(resumed.code, 0, resumed.output);
      const figures = JSON.parse(resumed.stdout.trim().split("\n").at(-1)!);
      assertEquals([figures.step, figures.steps, figures.stopped], [steps, steps, false]);
      const key = { mid: "chat_bpb", sft: "val_loss", rl: "pass@2" }[stage]!;
      assert(Number.isFinite(figures[key]), resumed.stdout);
      const events = readEvents(join(base, "checkpoints", stage, "d1", "events.jsonl"));
      const numbers = events.filter(({ kind }) => kind === "step").map(({ step }) => step);
      assertEquals(numbers, Array.from({ length: steps }, (_, i) => i));
      assert(events.some(({ kind }) => kind === "resume"), `${stage} was resumed`);
    }
    const listed = await nanochat(["models"], { env });
    for (const stage of Object.keys(STAGES)) assertStringIncludes(listed.stdout, `${stage}/d1`);
    const card = await nanochat(["report"], { env });
    assertEquals(card.code, 0, card.output);
    const text = await Deno.readTextFile(join(base, "report", "card.md"));
    for (const title of ["Midtraining", "Chat SFT", "Chat RL"]) assertStringIncludes(text, title);
    const answer = await nanochat(["chat", "--prompt=which one is 3?", "--max-tokens=4"], { env });
    assertEquals(answer.code, 0, answer.output);
  }));

Deno.test("nanochat mid, sft and rl say what is wrong with mixtures, data and models", () =>
  withModel(async (env, base) => {
    await Deno.writeTextFile(join(base, "bad.jsonl"), '[{"role":"user","content":"a"},{"role":"user","content":"b"}]');
    const cases: [string[], RegExp][] = [
      [["mid"], /run "nanochat data fetch/],
      [["mid", "--mixture=gsm9k"], /"gsm9k" is no item, expected NAME/],
      [["mid", "--mixture=bad.jsonl", ...OWN.slice(1)], /bad\.jsonl", line 1/],
      [["sft", ...OWN], /Cannot find a mid model/],
      [["sft", "--source=base", ...OWN, "--target-examples-per-step=3"], /expected a multiple of --device-batch-size/],
      [["sft", "--source=base", ...OWN, "--eval-metrics-every=5"], /run "nanochat data fetch tasks"/],
      [["rl", ...COUNTING], /Cannot find a sft model/],
      [["mid", "--model-tag=d9", ...OWN], /Cannot find a base model with tag "d9"/],
    ];
    for (const [args, message] of cases) {
      const { code, stderr, output } = await nanochat(args, { env });
      assert(code !== 0 && message.test(stderr), `${args.join(" ")}: exit ${code}\n${output}`);
    }
    const dry = await nanochat(["mid", ...SMALL, ...STAGES.mid.args, "--num-iterations=2", "--dry-run=1"], { env });
    assertEquals(dry.code, 0, dry.output);
    assertEquals((await nanochat(["models"], { env })).stdout.includes("mid/"), false);
    const sft = ["sft", "--source=base", ...SMALL, ...OWN, "--num-iterations=2", "--eval-every=-1"];
    const unmeasured = await nanochat(sft, { env });
    assertEquals(unmeasured.code, 0, unmeasured.output);
    assertStringIncludes(unmeasured.stderr, "MMLU and ARC-Easy are not measured");
    const rl = await nanochat(["rl", ...SMALL, ...OWN, "--num-iterations=1"], { env });
    assertEquals([rl.code, /rewards no answers, expected one with a reward/.test(rl.stderr)], [1, true], rl.output);
  }));
