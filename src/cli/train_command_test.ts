import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { SILENT } from "../data/log.ts";
import { BASE_TRAIN_DEFAULTS } from "../train/base_flags.ts";
import { TRAIN } from "./flag_sets.ts";
import { camelCase } from "./flags.ts";
import { LOG_FILE, RunLog } from "./run_log.ts";
import { explicitFlags, trainFlags } from "./train_command.ts";

Deno.test("nanochat train takes every training flag, with the default of the training loop", () => {
  const defaults = Object.fromEntries(Object.entries(TRAIN).map(([name, flag]) => [camelCase(name), flag.default]));
  assertEquals(defaults, { ...BASE_TRAIN_DEFAULTS });
  assertEquals(trainFlags({ ...defaults, json: true }), BASE_TRAIN_DEFAULTS);
});

Deno.test("explicitFlags() names what was set, wherever it was set", () => {
  const settings = new Map([
    ["depth", { value: 4, origin: "default" }],
    ["max-seq-len", { value: 64, origin: "run.conf:1" }],
    ["run", { value: "x", origin: "WANDB_RUN" }],
  ]);
  assertEquals([...explicitFlags(settings)], ["maxSeqLen", "run"]);
});

Deno.test("RunLog writes flags, messages and warnings with the first progress, and nothing before", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const settings = new Map([["depth", { value: 4, origin: "--depth" }]]);
    const log = new RunLog(SILENT, { folder, head: { command: "nanochat train", settings } });
    log.warn("fewer shards\u001b[2J");
    assertEquals([...Deno.readDirSync(folder)], []);
    log.progress({ label: "Training", done: 1, total: 2 });
    log.info("saved");
    const lines = (await Deno.readTextFile(join(folder, LOG_FILE))).trim().split("\n");
    assertEquals(lines.map((line) => line.replace(/^\S+ /, "").replace(/^nanochat \d.*\)/, "VERSION")), [
      "VERSION: nanochat train",
      "  depth = 4 (--depth)",
      "Warning: fewer shards␛[2J",
      "saved",
    ]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
