/**
 * `deno task test:parity`: compares every folder of a golden set (`NANOCHAT_GOLDEN`, else `dev/golden`) with what this program
 * computes. One line a case, a count per folder, and `N passed, N failed, N skipped` last.
 */
import { join } from "@std/path";
import { Parity } from "./parity.ts";

/** Folders of this layout, in order; null = of a later issue. */
const FOLDERS: Record<string, (() => Promise<{ run(t: Parity): Promise<void> }>) | null> = {
  bpb: () => import("./bpb.ts"),
  chat_eval: () => import("./chat_eval.ts"),
  core_eval: () => import("./core_eval.ts"),
  dataloader: () => import("./dataloader.ts"),
  gpt_mqa: () => import("./gpt.ts"),
  gpt_small: () => import("./gpt.ts"),
  gpt_tiny: () => import("./gpt.ts"),
  kv_cache: () => import("./kv_cache.ts"),
  optim: () => import("./optim.ts"),
  mid_train: () => import("./mid_train.ts"),
  rl_run: () => import("./rl_run.ts"),
  sft_run: () => import("./sft_run.ts"),
  tasks: () => import("./tasks.ts"),
  tokenizer: () => import("./tokenizer.ts"),
  train_run: () => import("./train_run.ts"),
  upstream_checkpoint: () => import("./upstream_checkpoint.ts"),

  newest: null,
};

const ROOT = Deno.env.get("NANOCHAT_GOLDEN") ?? join(import.meta.dirname!, "..", "golden");
const only = Deno.args;
let passed = 0, failed = 0, skipped = 0;

const present = [...Deno.readDirSync(ROOT)].filter((entry) => entry.isDirectory).map((entry) => entry.name).sort();
for (const name of present) {
  if (only.length > 0 && !only.includes(name)) continue;
  if (!(name in FOLDERS)) {
    console.log(`unknown folder: ${name}`);
    continue;
  }
  const load = FOLDERS[name];
  if (load === null) {
    console.log(`not yet: ${name}`);
    skipped++;
    continue;
  }
  console.log(`# ${name}`);
  const t = new Parity(ROOT, name, (line) => console.log(line));
  try {
    await (await load()).run(t);
  } catch (error) {
    t.failed++;
    console.log(`FAIL ${name}: ${(error as Error).stack ?? error}`);
  }
  for (const missing of t.unread()) {
    t.failed++;
    console.log(`FAIL ${name}: nothing reads ${missing}`);
  }
  if (t.passed + t.failed === 0) {
    t.failed++;
    console.log(`FAIL ${name}: no case, expected at least one`);
  }
  console.log(`${name}: ${t.passed} passed, ${t.failed} failed`);
  passed += t.passed;
  failed += t.failed;
  skipped += t.skipped;
}
if (passed + failed === 0) {
  console.log(`FAIL ${ROOT}: no known folder, expected the layout of dev/golden`);
  failed++;
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
Deno.exit(failed === 0 ? 0 : 1);
