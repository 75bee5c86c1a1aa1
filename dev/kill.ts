/** Kills running programs with SIGKILL at random moments and compares what they left: the loops behind the `kill_*_test.ts` files. */
import { assert, assertEquals } from "@std/assert";
import { deadline } from "@std/async";
import { join } from "@std/path";
import { fileNames, findCheckpoint, listSteps, MappedCheckpoint } from "../src/model/checkpoint.ts";
import { bindNative, pointerFrom } from "../src/native/call.ts";
import { readMemory } from "../src/native/files.ts";
import { openLibrary } from "../src/native/load.ts";
import { readEvents } from "../src/report/events.ts";
import { nanochat } from "./cli.ts";
import { ROOT } from "./setup.ts";
import { TestRandom } from "./testing.ts";

/** Tells whether a checkpoint folder holds a save that was cut off: a temporary file, or model and optimizer without their meta. */
function hasUnfinishedSave(folder: string): boolean {
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name);
  const whole = new Set(names.filter((name) => name.startsWith("meta_")).map((name) => /\d+/.exec(name)![0]));
  return names.some((name) =>
    name.endsWith(".tmp") || (/^(model|optim)_/.test(name) && !whole.has(/\d+/.exec(name)![0]))
  );
}

/** How a training run is killed again and again. */
export interface TrainingKills {
  /** Empty folder for data, tokenizer and checkpoints. */
  readonly folder: string;
  /** A loop for each of them. */
  readonly seeds: readonly number[];
  /** Starts that are killed, for each seed. */
  readonly kills: number;
  /** Longest wait between the first step and the kill. */
  readonly withinMs: number;
  /** Steps of the whole run, which takes several times `withinMs`. */
  readonly steps: number;
}

/**
 * Kills `nanochat train` at random moments and resumes it, until the run is whole: losses, evaluations, gradient norms and batches
 * must be those of an uninterrupted run bit for bit. Gives the number of kills, and how many of them cut off a save.
 */
export async function killTraining(options: TrainingKills): Promise<{ killed: number; insideSave: number }> {
  const { folder, seeds, kills, withinMs, steps } = options;
  const base = join(folder, "base");
  const env = { NANOCHAT_BASE_DIR: base };
  const flags = ["--depth=1", "--max-seq-len=32", "--device-batch-size=2", "--total-batch-size=64", "--dtype=fp32"]
    .concat(["--eval-every=40", "--eval-tokens=128", "--sample-every=-1", "--save-every=3", "--keep=2"])
    .concat(`--num-iterations=${steps}`);
  const text = Array.from({ length: 3000 }, (_, j) => `word${(j * j) % 53}${j % 40 === 39 ? "\n" : ""}`).join(" ");
  for (let i = 0; i < 8; i++) await Deno.writeTextFile(join(folder, `${i}.txt`), text.slice(i * 100));
  const succeed = async (args: string[]) => {
    const { code, output } = await nanochat(args, { env, deadlineMs: 240_000 });
    assertEquals(code, 0, output);
  };
  await succeed(["data", "make", folder]);
  await succeed(["tokenizer", "train", "--vocab-size=300"]);
  await succeed(["train", ...flags, "--model-tag=whole"]);
  const rows = (tag: string) =>
    readEvents(join(base, "checkpoints", "base", tag, "events.jsonl"))
      .filter(({ kind }) => kind === "step" || kind === "eval")
      .map(({ kind, step, loss, bpb, gradNorm, batchHash }) => ({ kind, step, loss, bpb, gradNorm, batchHash }));

  let killed = 0, insideSave = 0;
  for (const seed of seeds) {
    const random = new TestRandom(seed);
    const tag = `cut${seed}`;
    const resume = ["train", ...flags, `--model-tag=${tag}`, "--resume=auto"];
    for (let start = 0; start < kills; start++) {
      const afterMs = random.below(withinMs);
      let armed = false;
      const { code, output } = await nanochat(resume, {
        env,
        deadlineMs: 240_000,
        onOutput: (text, send) => {
          if (armed || !/Checkpoints go to|Resuming step/.test(text)) return;
          armed = true;
          setTimeout(() => {
            try {
              send("SIGKILL");
            } catch {
              // it has ended before
            }
          }, afterMs);
        },
      });
      assert(armed && (code === 137 || code === 0), `seed ${seed}: ${output}`);
      killed += Number(code === 137);
      insideSave += Number(hasUnfinishedSave(join(base, "checkpoints", "base", tag)));
    }
    await succeed(resume);
    assertEquals(rows(tag).filter(({ kind }) => kind === "step").length, steps, `seed ${seed}`);
    assertEquals(rows(tag), rows("whole"), `seed ${seed}`);
    await Deno.remove(join(base, "checkpoints", "base", tag), { recursive: true });
  }
  return { killed, insideSave };
}

const DEADLINE_MS = 60_000;
const N = 200_000;

/** The child: goes on from the latest checkpoint, adds one to its tensors at each step, saves each step. */
const CHILD = `
import { bindNative, pointerFrom } from "./src/native/call.ts";
import { openLibrary } from "./src/native/load.ts";
import { FolderLock } from "./src/model/lock.ts";
import { findCheckpoint, loadTensors, MappedCheckpoint, saveCheckpoint } from "./src/model/checkpoint.ts";
const folder = Deno.args[0];
const log = { info() {}, warn() {}, progress() {} };
using _lock = FolderLock.acquire(folder, { purpose: "test", log });
const nc = bindNative(openLibrary("cpu"));
const out = new BigUint64Array(1);
nc.context_create(out, 0, 1);
const ctx = pointerFrom(out);
const bytes = 4 * ${N};
const tensors = ["a", "b"].map((name) => {
  nc.alloc(ctx, out, BigInt(bytes));
  return { name, dtype: "f32", shape: [${N}], pointer: pointerFrom(out), bytes };
});
let step = findCheckpoint(folder)?.step ?? 0;
if (step > 0) {
  using mapped = new MappedCheckpoint({ nc, ctx, folder, step, rank: 0 });
  await mapped.verify();
  loadTensors({ nc, ctx }, { from: mapped.tensors, into: [tensors[0]], what: "a" });
  loadTensors({ nc, ctx }, { from: mapped.optimizer, into: [tensors[1]], what: "b" });
}
const one = new Float32Array(1), data = new Float32Array(${N});
for (;;) {
  await nc.wait(ctx);
  step++;
  for (const tensor of tensors) {
    nc.host_read(ctx, one, tensor.pointer, 4n);
    nc.upload(ctx, tensor.pointer, data.fill(one[0] + 1), BigInt(bytes));
  }
  const state = { run: "r", stage: "base", valBpb: null, config: {}, flags: {}, loader: step, rng: null, loop: null };
  await saveCheckpoint({
    nc, ctx, folder, step, state, log, model: [tensors[0]], optimizer: [tensors[1]], keep: 2, tokenizerFolder: null,
  });
  console.log(step);
}`;

/** Starts the child, waits for its first save, kills it `afterMs` later; gives the last step that it reported as saved. */
async function runAndKill(folder: string, afterMs: number): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--ext=ts", "-", folder],
    cwd: ROOT,
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  try {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(CHILD));
    await writer.close();
    const reader = child.stdout.getReader();
    const first = await deadline(reader.read(), DEADLINE_MS);
    let text = new TextDecoder().decode(first.value);
    const killAt = setTimeout(() => child.kill("SIGKILL"), afterMs);
    for (let part; !(part = await deadline(reader.read(), DEADLINE_MS)).done;) {
      text += new TextDecoder().decode(part.value);
    }
    clearTimeout(killAt);
    return Math.max(...text.trim().split("\n").map(Number));
  } finally {
    await deadline(child.status, DEADLINE_MS);
  }
}

/** How a process that saves checkpoint after checkpoint is killed. */
export interface SavingKills {
  /** Seed of the moments. */
  readonly seed: number;
  /** Kills at least. */
  readonly rounds: number;
  /** Kills that must cut off a save; more rounds follow until there are as many. */
  readonly insideSave: number;
}

/**
 * Kills a process that does nothing but save, at random moments: each time a whole checkpoint must be left, at least as new as the
 * last one that the process reported. Gives the number of kills that cut off a save.
 */
export async function killSaving({ seed, rounds, insideSave }: SavingKills): Promise<number> {
  const random = new TestRandom(seed);
  const parent = Deno.makeTempDirSync();
  const folder = join(parent, "d1");
  const nc = bindNative(openLibrary("cpu"));
  const out = new BigUint64Array(1);
  nc.context_create(out, 0, 1);
  const ctx = pointerFrom(out);
  const most = 10 * rounds;
  let unfinished = 0;
  try {
    // Some kills have to hit a save, or the test would say nothing.
    for (let round = 0; round < rounds || (unfinished < insideSave && round < most); round++) {
      const reported = await runAndKill(folder, random.below(30));
      const last = fileNames(listSteps(folder).at(-1)! + 1);
      const names = [...Deno.readDirSync(folder)].map(({ name }) => name);
      unfinished += Number(hasUnfinishedSave(folder) || names.includes(last.model));
      const found = findCheckpoint(folder);
      assert(found !== undefined && found.step >= reported, `found ${found?.step}, reported ${reported}`);
      assertEquals(found.meta.loader, found.step);
      using mapped = new MappedCheckpoint({ nc, ctx, folder, rank: 0 });
      await mapped.verify();
      for (const tensor of [mapped.tensors.get("a")!, mapped.optimizer.get("b")!]) {
        const values = new Float32Array(readMemory({ nc, ctx }, tensor).buffer);
        assertEquals(values.findIndex((value) => value !== found.step), -1);
      }
    }
  } finally {
    nc.context_free(ctx);
    Deno.removeSync(parent, { recursive: true });
  }
  assert(unfinished >= insideSave, `only ${unfinished} of ${most} kills hit a save, expected ${insideSave}`);
  return unfinished;
}
