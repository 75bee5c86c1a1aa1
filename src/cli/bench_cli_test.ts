import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";

const SIZES = ["--depth=1", "--vocab-size=300"];

/** Each form with small sizes, and keys that later figures are compared by. */
const FORMS: [string, string[], string[]][] = [
  [
    "train",
    [...SIZES, "--max-seq-len=32", "--device-batch-size=1", "--steps=1"],
    ["tok_per_sec", "step_ms", "optimizer_ms", "gflops", "mfu", "peak_bytes", "device", "threads"],
  ],
  [
    "infer",
    [...SIZES, "--prompt-tokens=8", "--new-tokens=4"],
    ["prefill_ms", "ttft_ms", "decode_ms", "tok_per_sec", "bytes_per_sec", "mbu", "quantize"],
  ],
  ["infer", [...SIZES, "--batch-size=3", "--prompt-tokens=8", "--new-tokens=1", "--quantize=int8"], ["tok_per_sec"]],
  ["attention", ["--T=32", "--heads=1", "--head-dim=32"], ["fwd_ms", "bwd_ms", "ms", "peak_bytes"]],
  ["loss", ["--tokens=8", "--width=32", "--vocab-size=300"], ["fwd_ms", "bwd_ms", "ms", "peak_bytes"]],
  ["optimizer", SIZES, ["ms", "peak_bytes"]],
  ["gemm", ["--m=32", "--n=32", "--k=32"], ["gflops", "share_of_peak"]],
  ["start", [], ["start_ms"]],
];

for (const [form, args, keys] of FORMS) {
  Deno.test(`nanochat bench ${form} ${args.at(-1) ?? ""} prints its figures as one JSON object`, async () => {
    const { code, stdout, output } = await nanochat(["bench", form, ...args, "--json"]);
    assertEquals(code, 0, output);
    const figures = JSON.parse(stdout);
    for (const key of keys) assert(key in figures, `${key} is missing in ${stdout}`);
  });
}

Deno.test("NC_PROFILE=1 nanochat bench infer prints the time by op to stderr", async () => {
  const args = ["bench", "infer", ...SIZES, "--prompt-tokens=8", "--new-tokens=4", "--json"];
  const { code, stdout, stderr } = await nanochat(args, { env: { NC_PROFILE: "1" } });
  assertEquals(code, 0, stderr);
  assertEquals(stdout.trim().split("\n").length, 1, stdout);
  const calls = (op: string) => Number(new RegExp(`"${op} +(\\d+) `).exec(stderr)?.[1]);
  assertEquals(calls("attention_cached_fwd"), 5, stderr); // one layer: the prompt, then four tokens
  assertEquals(calls("linear_fwd"), 5 * 7, stderr); // six maps of the layer and the head
});

Deno.test("nanochat bench tokenizer measures a text, and asks for one", () =>
  withFolder(async (folder) => {
    const file = join(folder, "text.txt");
    await Deno.writeTextFile(file, "the fox and the bear see the river. ".repeat(500));
    const { code, stdout, output } = await nanochat([
      "bench",
      "tokenizer",
      `--text=${file}`,
      "--vocab-size=300",
      "--json",
    ]);
    assertEquals(code, 0, output);
    const figures = JSON.parse(stdout);
    for (const key of ["train_sec", "train_mb_per_sec", "encode_mb_per_sec_1t", "encode_mb_per_sec"]) {
      assert(figures[key] > 0, stdout);
    }
    assert(figures.bytes_per_token > 1 && figures.decode_mb_per_sec > 0, stdout);
    const missing = await nanochat(["bench", "tokenizer"]);
    assertEquals(missing.code, 2);
    assertStringIncludes(missing.stderr, "--text=FILE");
  }));
