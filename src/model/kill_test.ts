/** Kills a process that saves checkpoints, at random moments inside and between saves: what it leaves must always be a whole checkpoint. */
import { assert, assertEquals } from "@std/assert";
import { deadline } from "@std/async";
import { join } from "@std/path";
import { bindNative, pointerFrom } from "../native/call.ts";
import { readMemory } from "../native/files.ts";
import { openLibrary } from "../native/load.ts";
import { fileNames, findCheckpoint, listSteps, MappedCheckpoint } from "./checkpoint.ts";

const DEADLINE_MS = 60_000;
const ROUNDS = 12;
const ROUNDS_MOST = 100;
const N = 200_000;

/** The child: goes on from the latest checkpoint, adds one to its tensors at each step, saves each step. */
const CHILD = `
import { bindNative, pointerFrom } from "../native/call.ts";
import { openLibrary } from "../native/load.ts";
import { FolderLock } from "./lock.ts";
import { findCheckpoint, loadTensors, MappedCheckpoint, saveCheckpoint } from "./checkpoint.ts";
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
    cwd: import.meta.dirname,
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

Deno.test("a process killed while it saves leaves a whole checkpoint, at least the last one it reported", async () => {
  const seed = Number(Deno.env.get("NANOCHAT_TEST_SEED") ?? Date.now() % 1e6);
  console.log(`NANOCHAT_TEST_SEED=${seed}`);
  let random = seed;
  const folder = join(Deno.makeTempDirSync(), "d1");
  const nc = bindNative(openLibrary("cpu"));
  const out = new BigUint64Array(1);
  nc.context_create(out, 0, 1);
  const ctx = pointerFrom(out);
  let unfinished = 0;
  try {
    // At least one kill has to hit a save, or the test would say nothing.
    for (let round = 0; round < ROUNDS || (unfinished === 0 && round < ROUNDS_MOST); round++) {
      random = (Math.imul(random, 1103515245) + 12345) >>> 0;
      const reported = await runAndKill(folder, (random / 2 ** 32) * 30);
      const names = [...Deno.readDirSync(folder)].map(({ name }) => name);
      const last = fileNames(listSteps(folder).at(-1)! + 1);
      unfinished += Number(names.some((name) => name.endsWith(".tmp") || name === last.model));
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
    Deno.removeSync(folder, { recursive: true });
  }
  assert(unfinished > 0, `none of ${ROUNDS_MOST} kills hit a save`);
});
