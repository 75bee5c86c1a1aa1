import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";
import { readEvents } from "../report/events.ts";

const FLAGS = [
  ...["--depth=1", "--max-seq-len=64", "--device-batch-size=1", "--total-batch-size=64", "--eval-every=-1"],
  ...["--sample-every=-1", "--dtype=fp32"],
];

/** A base folder with shards and a tokenizer. */
async function withData(use: (env: Record<string, string>, base: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const env = { NANOCHAT_BASE_DIR: join(folder, "base") };
    for (let i = 0; i < 8; i++) {
      const text = Array.from({ length: 400 }, (_, j) => `word${(i * 7 + j * j) % 50}`).join(" ");
      await Deno.writeTextFile(join(folder, `${i}.txt`), text);
    }
    assertEquals((await nanochat(["data", "make", folder], { env })).code, 0);
    assertEquals((await nanochat(["tokenizer", "train", "--vocab-size=300"], { env })).code, 0);
    await use(env, env.NANOCHAT_BASE_DIR);
  });
}

Deno.test("nanochat train stops at SIGINT with a checkpoint, exit 75, and --resume goes on as if nothing had happened", () =>
  withData(async (env, base) => {
    const steps = ["--num-iterations=400"];
    let sent = false;
    const stopped = await nanochat(["train", ...FLAGS, ...steps, "--model-tag=a"], {
      env,
      onOutput: (text, send) => {
        if (sent || !text.includes("Training")) return;
        sent = true;
        send("SIGINT");
      },
    });
    assertEquals(stopped.code, 75, stopped.output);
    assertStringIncludes(stopped.stderr, "nanochat train --model-tag=a --resume");
    const refused = await nanochat(["train", ...FLAGS, ...steps, "--model-tag=a"], { env });
    assertEquals(refused.code, 3, refused.output);
    assertStringIncludes(refused.stderr, "--overwrite");
    const resumed = await nanochat(["train", "--model-tag=a", "--resume"], { env });
    assertEquals(resumed.code, 0, resumed.output);
    const priced = ["train", ...FLAGS, ...steps, "--model-tag=b", "--price-per-hour=3", "--json"];
    const whole = await nanochat(priced, { env: { ...env, NC_PROFILE: "1" } });
    const { steps: count, total_time_ms, cost } = JSON.parse(whole.stdout);
    assertEquals(count, 400);
    assert(cost >= 3 * total_time_ms / 3.6e6 && cost < 3, `cost ${cost} after ${total_time_ms} ms of updates`);
    assert(/"level":"progress".* MiB \| \$[\d.]+ of about \$[\d.]+"/.test(whole.stderr), whole.stderr);
    assert(/"message":"linear_bwd_w +1?\d+ /.test(whole.stderr), whole.stderr); // the table of NC_PROFILE
    const losses = (tag: string) =>
      readEvents(join(base, "checkpoints", "base", tag, "events.jsonl")).filter(({ kind }) => kind === "step")
        .map(({ step, loss }) => [step, loss]);
    assertEquals(losses("a").length, 400);
    assertEquals(losses("a"), losses("b"));
    const log = await Deno.readTextFile(join(base, "checkpoints", "base", "a", "log.txt"));
    assertStringIncludes(log, "max-seq-len = 64 (--max-seq-len)");
    assert(log.split("nanochat train").length > 2, "both starts are in the log");

    const args = ["eval", "bpb", "--model-tag=b", "--split-tokens=1024", "--device-batch-size=2", "--json"];
    const measured = await nanochat(args, { env });
    assertEquals(measured.code, 0, measured.output);
    const objects = measured.stdout.trim().split("\n").map((line) => JSON.parse(line));
    const { train_bpb, val_bpb } = objects.at(-1);
    assert(train_bpb > 0 && train_bpb < 4 && val_bpb > 0 && val_bpb < 4, measured.stdout);
    assertEquals(objects.filter((object) => "sample" in object).length, 7);

    const report = await nanochat(["report", "--price-per-hour=3"], { env });
    assertEquals(report.code, 0, report.output);
    const card = await Deno.readTextFile(join(base, "report", "card.md"));
    for (const title of ["Tokenizer training", "Base model training", "Base model loss"]) {
      assertStringIncludes(card, `## ${title}`);
    }
    assertStringIncludes(card, `| val_bpb | ${val_bpb.toFixed(4)} |`);
    assertEquals((await nanochat(["report", "reset"], { env })).code, 0);
    assertStringIncludes((await nanochat(["report", "generate"], { env })).stderr, "no stage has left a section");

    const listed = await nanochat(["models"], { env });
    assertStringIncludes(listed.stdout, "base/a");
    const inspected = await nanochat(["models", "inspect", "base/b", "--json"], { env });
    assertEquals(JSON.parse(inspected.stdout).flags.max_seq_len, 64);
    const drawn = await nanochat(["report", "--watch", "a"], { env });
    assertEquals(drawn.code, 0, drawn.output);
    assert(/[\u2801-\u28ff]/.test(drawn.stdout), "a curve is drawn");
    assertEquals((await nanochat(["models", "remove", "base/a"], { env })).code, 3);
    assertEquals((await nanochat(["models", "remove", "base/a", "--yes"], { env })).code, 0);
    assertEquals((await nanochat(["models"], { env })).stdout.includes("base/a"), false);
  }));

Deno.test("nanochat train stops at once at the second signal, without waiting for the step", () =>
  withData(async (env) => {
    let sent = 0;
    const { code, output } = await nanochat(["train", ...FLAGS, "--total-batch-size=1048576", "--num-iterations=9"], {
      env,
      onOutput: (text, send) => {
        const [first, second] = ["Checkpoints go to", "Stopping after this step"].map((word) => text.includes(word));
        if ((sent === 0 && first) || (sent === 1 && second)) {
          sent++;
          send("SIGTERM");
        }
      },
    });
    assertEquals(code, 130, output);
  }));
