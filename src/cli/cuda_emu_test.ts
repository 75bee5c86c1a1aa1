/** The commands on the CUDA library, emulated: a device like another one. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";
import { readEvents } from "../report/events.ts";

const FLAGS = [
  ...["--depth=1", "--max-seq-len=32", "--device-batch-size=1", "--total-batch-size=64", "--eval-every=-1"],
  ...["--sample-every=-1", "--dtype=fp32", "--muon-dtype=fp32", "--num-iterations=8"],
];
const EMULATED = { NC_CUDA_EMU: "1" };

Deno.test("nanochat train, resumed, eval and chat compute on a CUDA device what they compute on the CPU", () =>
  withFolder(async (folder) => {
    const env = { NANOCHAT_BASE_DIR: join(folder, "base") };
    const text = Array.from({ length: 3000 }, (_, j) => `word${(j * j) % 50}`).join(" ");
    for (let i = 0; i < 8; i++) await Deno.writeTextFile(join(folder, `${i}.txt`), text.slice(500 * i));
    const run = async (args: string[], more: Record<string, string> = {}) => {
      const ended = await nanochat(args, { env: { ...env, ...more } });
      assertEquals(ended.code, 0, ended.output);
      return ended;
    };
    await run(["data", "make", folder]);
    await run(["tokenizer", "train", "--vocab-size=280"]);
    await run(["train", ...FLAGS, "--device-type=cpu", "--model-tag=cpu"]);
    const trained = await run(["train", ...FLAGS, "--model-tag=cuda"], EMULATED);
    assertStringIncludes(trained.output, "emulated CUDA device");
    const losses = (tag: string) =>
      readEvents(join(env.NANOCHAT_BASE_DIR, "checkpoints", "base", tag, "events.jsonl"))
        .flatMap((event) => event.kind === "step" ? [event.loss as number] : []);
    assertEquals(losses("cuda").length, 8);
    losses("cuda").forEach((loss, i) => {
      assert(Math.abs(loss - losses("cpu")[i]) < 1e-3, `step ${i}: ${loss}, on the CPU ${losses("cpu")[i]}`);
    });

    const half = FLAGS.map((flag) => flag.replace("iterations=8", "iterations=4"));
    await run(["train", ...half, "--warmdown-ratio=0", "--model-tag=half"], EMULATED);
    await run(["train", "--model-tag=half", "--resume", "--num-iterations=8"], EMULATED);
    await run(["train", ...FLAGS, "--warmdown-ratio=0", "--model-tag=whole"], EMULATED);
    assertEquals(losses("half"), losses("whole"), "a resumed run equals an uninterrupted one, bit for bit");

    const bpb = async (more: Record<string, string>) => {
      const args = ["eval", "bpb", "--model-tag=cuda", "--split-tokens=64", "--device-batch-size=1", "--json"];
      const line = (await run(args, more)).stdout.split("\n").find((line) => line.includes('"val_bpb"'))!;
      return JSON.parse(line).val_bpb as number;
    };
    assert(Math.abs(await bpb(EMULATED) - await bpb({ NC_CUDA_EMU: "" })) < 1e-3);
    const said = await run(["chat", "--model-tag=cuda", "-p", "word1", "--temperature=0", "--max-tokens=8"], EMULATED);
    const plain = await run(["chat", "--model-tag=cuda", "-p", "word1", "--temperature=0", "--max-tokens=8"]);
    assertEquals(said.stdout, plain.stdout);
  }));

Deno.test("nanochat doctor names the CUDA device and uses it", async () => {
  const { code, stdout, output } = await nanochat(["doctor", "--json"], { env: EMULATED });
  assertEquals(code, 0, output);
  const { cuda, uses } = JSON.parse(stdout);
  assertEquals([cuda.name, uses.device, uses.dtype], ["emulated CUDA device", "cuda", "bf16"]);
  assert(cuda.features.includes("a twin of cublasLt"), cuda.features.join());
});

Deno.test("nanochat selftest compares the CUDA device with the CPU", async () => {
  const { code, stdout, output } = await nanochat(["selftest", "--json"], { env: EMULATED, deadlineMs: 120_000 });
  assertEquals(code, 0, output);
  const { device, reference, rows } = JSON.parse(stdout) as {
    device: string;
    reference: string;
    rows: { op: string; error: number; ok: boolean }[];
  };
  assertEquals([device, reference], ["emulated CUDA device", "the CPU library"]);
  assertEquals(rows.filter(({ error, ok }) => !ok || !(error <= 1)), []);
  assert(rows.some(({ error }) => error > 0), "two libraries round differently somewhere");
});
