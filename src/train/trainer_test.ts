import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { NativeError } from "../native/call.ts";
import { pointerFrom } from "../native/call.ts";
import { Device } from "../tensor/device.ts";
import { fillNormal } from "../tensor/rng.ts";
import { Profiler } from "../tensor/profile.ts";
import type { ComputeType } from "../tensor/dtype.ts";
import { meanWeights, type MicroBatch, planTraining, Trainer, type TrainerOptions } from "./trainer.ts";

const CONFIG = { sequenceLen: 24, vocabSize: 61, nLayer: 2, nHead: 2, nKvHead: 1, nEmbd: 32 };

function options(changes: Partial<TrainerOptions> = {}): TrainerOptions {
  const optimizer = {
    unembeddingLr: 0.004,
    embeddingLr: 0.2,
    matrixLr: 0.02,
    weightDecay: 0,
    gradClip: 1,
    muonDtype: "f32" as ComputeType,
  };
  return { config: CONFIG, dtype: "f32", B: 2, T: 24, gradAccum: 1, optimizer, ...changes };
}

function batchOf(rows: number, { T = 24, seed = 1 } = {}): MicroBatch {
  let state = seed;
  const next = () => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) % 61;
  const inputs = Int32Array.from({ length: rows * T }, next);
  const targets = Int32Array.from({ length: rows * T }, (_, i) => i % 5 === 0 ? -1 : next());
  return { inputs, targets };
}

async function train(
  threads: number,
  changes: Partial<TrainerOptions>,
  steps: number,
): Promise<{ losses: number[]; weights: Float32Array }> {
  using device = Device.open("cpu", { threads });
  using trainer = new Trainer(device, options(changes));
  trainer.model.initWeights(7);
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    trainer.microStep(batchOf(2, { seed: step + 1 }), 0);
    trainer.update({ lrMultiplier: 1, momentum: 0.9 });
    losses.push(...(await trainer.results()).losses);
  }
  const weights = await device.readFloats(trainer.model.parameters.get("transformer.h.1.mlp.c_fc.weight").master);
  return { losses, weights };
}

for (const dtype of ["f32", "bf16"] as const) {
  Deno.test(`Trainer gives the same bits for any number of threads in ${dtype}`, async () => {
    const expected = await train(1, { dtype }, 3);
    for (const threads of [2, 3]) assertEquals(await train(threads, { dtype }, 3), expected);
  });

  Deno.test(`Trainer overfits one batch in ${dtype}`, async () => {
    using device = Device.open("cpu");
    using trainer = new Trainer(device, options({ dtype }));
    trainer.model.initWeights(3);
    const batch = batchOf(2);
    let first = 0, last = 0;
    for (let step = 0; step < 60; step++) {
      trainer.microStep(batch, 0);
      trainer.update({ lrMultiplier: 1, momentum: 0.9 });
      [last] = (await trainer.results()).losses;
      if (step === 0) first = last;
    }
    assertAlmostEquals(first, Math.log(CONFIG.vocabSize), 1e-2);
    assert(last < 0.2, `loss ${last} after 60 steps, expected below 0.2`);
  });
}

Deno.test("Trainer accumulates two micro-batches into the gradient of one batch of both", async () => {
  using device = Device.open("cpu");
  using whole = new Trainer(device, options({ B: 4 }));
  using split = new Trainer(device, options({ gradAccum: 2 }));
  const batch = batchOf(4);
  const half = batch.inputs.length / 2;
  for (const trainer of [whole, split]) {
    trainer.model.initWeights(5);
    // Random head and projections: from zero ones most gradients vanish.
    for (const { master, size } of trainer.model.parameters.all()) {
      fillNormal(device, master, { seed: 9n, offset: BigInt(size), std: 0.1 });
    }
  }
  whole.microStep(batch, 0);
  for (const i of [0, 1]) {
    split.microStep({
      inputs: batch.inputs.slice(i * half, (i + 1) * half),
      targets: batch.targets.slice(i * half, (i + 1) * half),
    }, i);
  }
  for (const { name, gradient } of whole.model.parameters.all()) {
    const a = await device.readFloats(gradient);
    const b = await device.readFloats(split.model.parameters.get(name).gradient);
    const top = a.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
    // Both halves have nearly the same number of active targets, so the mean of means is the mean up to that.
    a.forEach((x, i) => assert(Math.abs(x - b[i]) <= 0.05 * top, `${name}[${i}] is ${b[i]}, expected ${x}`));
  }
});

Deno.test("Trainer changes nothing when a gradient is not finite, and names it", async () => {
  using device = Device.open("cpu");
  using trainer = new Trainer(device, options());
  trainer.model.initWeights(3);
  const { master } = trainer.model.parameters.get("transformer.h.0.attn.c_v.weight");
  const poisoned = new Float32Array(master.size);
  poisoned[5] = NaN;
  device.upload(master, poisoned);
  const head = trainer.model.parameters.get("lm_head.weight").master;
  fillNormal(device, head, { seed: 1n, std: 1 });
  const proj = trainer.model.parameters.get("transformer.h.0.attn.c_proj.weight").master;
  fillNormal(device, proj, { seed: 2n, std: 1 });
  const before = await device.readFloats(head);
  trainer.microStep(batchOf(2), 0);
  trainer.update({ lrMultiplier: 1, momentum: 0.9 });
  const { finite, losses } = await trainer.results();
  assertEquals(finite, false);
  assert(Number.isNaN(losses[0]));
  assertEquals(await device.readFloats(head), before);
  assert(await trainer.firstNonFiniteGradient() !== null);
});

Deno.test("planTraining() predicts the arena exactly and its total from above", async () => {
  for (const dtype of ["f32", "bf16"] as const) {
    const sizes = options({ dtype, gradAccum: 3 });
    const plan = planTraining(sizes);
    using device = Device.open("cpu");
    using trainer = new Trainer(device, sizes);
    trainer.model.initWeights(1);
    for (let i = 0; i < 3; i++) trainer.microStep(batchOf(2), i);
    trainer.update({ lrMultiplier: 1, momentum: 0.9 });
    await device.wait();
    assertEquals(trainer.arena.peak, plan.arenaBytes);
    const allocated = device.memory().peak;
    assert(
      Math.abs(allocated - plan.totalBytes) < 0.02 * allocated + 16384,
      `${plan.totalBytes} planned, ${allocated} allocated`,
    );
    for (const name of ["linear", "linear_bwd", "attention", "lm_head_loss", "adamw", "newton_schulz", "sum_squares"]) {
      assert(plan.costs.get(name)!.flops > 0, name);
    }
  }
});

Deno.test("the profile of a step knows the work of every op of the optimizers, by as many calls as there were", async () => {
  using device = Device.open("cpu");
  using trainer = new Trainer(device, options());
  trainer.model.initWeights(3);
  const profiler = await Profiler.open(device, "f32");
  trainer.costs = profiler.costs;
  profiler.start();
  for (let step = 0; step < 2; step++) {
    trainer.microStep(batchOf(2), 0);
    trainer.update({ lrMultiplier: 1, momentum: 0.9 });
    await trainer.results();
  }
  profiler.stop();
  const rows = new Map(profiler.lines().map((line) => line.trim().split(/ {2,}/)).map((cells) => [cells[0], cells]));
  for (const op of ["adamw", "muon_momentum", "newton_schulz", "muon_update", "sum_squares"]) {
    const cells = rows.get(op)!;
    assertEquals(Number(cells[1]), profiler.costs.get(op)!.calls, op);
    assert(!cells.includes("-"), cells.join(" "));
  }
});

Deno.test("a recorded micro-step replays to the same bits", async () => {
  using device = Device.open("cpu");
  using trainer = new Trainer(device, options());
  trainer.model.initWeights(11);
  trainer.microStep(batchOf(2), 0);
  const { gradient } = trainer.model.parameters.get("lm_head.weight");
  const expected = await device.readFloats(gradient);
  const { nc, ctx } = device;
  nc.graph_begin(ctx);
  trainer.microStep(batchOf(2), 0);
  const out = new BigUint64Array(1);
  nc.graph_end(ctx, out);
  const graph = pointerFrom(out);
  for (let i = 0; i < 3; i++) {
    device.fill(gradient, 123);
    nc.graph_launch(ctx, graph);
    assertEquals(await device.readFloats(gradient), expected);
  }
  nc.graph_free(ctx, graph);
});

Deno.test("meanWeights() refuses a batch without an active target", () => {
  assertEquals(meanWeights(Int32Array.of(3, -1, 4)), Float32Array.of(0.5, 0, 0.5));
  assertThrows(() => meanWeights(Int32Array.of(-1, -1)), RangeError, "all 2 targets are ignored");
});

Deno.test("a token id outside the vocabulary fails the queue with its value", async () => {
  using device = Device.open("cpu");
  using trainer = new Trainer(device, options());
  const batch = batchOf(2);
  batch.inputs[3] = 1000;
  trainer.microStep(batch, 0);
  await assertRejects(() => device.wait(), NativeError, "1000");
});

Deno.test("Trainer takes shorter rows as a trainer made for them does, and refuses longer ones", async () => {
  using device = Device.open("cpu");
  const gradients = async (T: number) => {
    using trainer = new Trainer(device, options({ T }));
    trainer.model.initWeights(7);
    trainer.microStep(batchOf(2, { T: 8 }), 0);
    assertThrows(() => trainer.microStep(batchOf(2, { T: T + 1 }), 0), RangeError, "2 rows of 1 to");
    const gradient = trainer.model.parameters.get("lm_head.weight").gradient;
    return Array.from(await device.readFloats(gradient));
  };
  assertEquals(await gradients(24), await gradients(8));
});

Deno.test("Trainer skips a micro-batch as if its weights were 0, be it the first, a later one or all", async () => {
  using device = Device.open("cpu");
  const run = async (skipped: readonly number[], how: "skip" | "zero") => {
    using trainer = new Trainer(device, options({ gradAccum: 3 }));
    trainer.model.initWeights(7);
    const losses: number[] = [];
    for (let step = 0; step < 3; step++) {
      for (let i = 0; i < 3; i++) {
        const batch = batchOf(2, { seed: 10 * step + i });
        if (!(step > 0 && skipped.includes(i))) trainer.microStep(batch, i);
        else if (how === "skip") trainer.skip(i);
        else trainer.microStep({ ...batch, weights: new Float32Array(batch.inputs.length) }, i);
      }
      trainer.update({ lrMultiplier: 1, momentum: 0.9 });
      losses.push(...(await trainer.results()).losses);
    }
    return [losses, Array.from(await device.readFloats(trainer.model.parameters.get("lm_head.weight").master))];
  };
  for (const skipped of [[0], [1], [0, 2], [0, 1, 2]]) {
    assertEquals(await run(skipped, "skip"), await run(skipped, "zero"));
  }
});
