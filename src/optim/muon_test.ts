import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { Arena } from "../tensor/arena.ts";
import { TEST_BACKEND } from "../tensor/backend_testing.ts";
import { Device } from "../tensor/device.ts";
import { fillNormal } from "../tensor/rng.ts";
import { ParameterGroup } from "../tensor/parameter.ts";
import { StepBlock } from "../tensor/step_block.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Costs } from "../tensor/tape.ts";
import { AdamW } from "./adamw.ts";
import { Muon } from "./muon.ts";

/** Matrices of one shape, their optimizer and scratch; gone with the scope. */
class Rig implements Disposable {
  readonly block: StepBlock;
  readonly group: ParameterGroup;
  readonly muon: Muon;
  readonly arena: Arena;

  constructor(readonly device: Device, shape: readonly [number, number], options: { n: number; arenaBytes: number }) {
    const specs = Array.from({ length: options.n }, (_, i) => ({ name: `m.${i}`, shape, group: "m" }));
    this.block = new StepBlock(device);
    this.group = new ParameterGroup(device, specs, { dtype: "f32", training: true });
    this.muon = new Muon(device, this.block, { group: this.group, lr: 0.5, weightDecay: 0.1, dtype: "f32" });
    this.arena = new Arena(device, options.arenaBytes);
  }

  step(lrMultiplier: number, momentum: number): void {
    this.muon.prepare(lrMultiplier, momentum);
    this.block.upload();
    this.muon.step(this.arena, null);
  }

  [Symbol.dispose](): void {
    for (const part of [this.muon, this.group, this.block, this.arena]) part[Symbol.dispose]();
  }
}

// A slice has at most 2^23 elements; matrices of one row keep the work small. The arena counts in 256 bytes, and these widths make
// the scratch of Newton-Schulz a whole number of them: one byte more would not fit.
for (const { cols, n, slice } of [{ cols: 2_799_998, n: 3, slice: 2 }, { cols: 4_199_998, n: 2, slice: 1 }]) {
  Deno.test(`Muon.step() takes ${n} large matrices ${slice} at a time, each like a group of its own`, async () => {
    using device = Device.open(TEST_BACKEND, { threads: 2 });
    const arenaBytes = 2 * Math.ceil(slice * cols * 4 / 256) * 256 + slice * (cols + 2) * 4 + 4096;
    using whole = new Rig(device, [1, cols], { n, arenaBytes });
    const { master, gradient } = whole.group;
    fillNormal(device, master, { seed: 1n, std: 1 });
    fillNormal(device, gradient!, { seed: 2n, std: 1 });
    using before = device.tensor([n, 1, cols], "f32");
    device.copy(before, master);
    whole.step(1, 0.9);
    assertEquals(whole.arena.peak, arenaBytes);
    assertEquals(whole.arena.mark(), { front: 0, back: 0 });
    using alone = new Rig(device, [1, cols], { n: 1, arenaBytes });
    for (let i = 0; i < n; i++) {
      const part = (x: Tensor) => x.view([1, 1, cols], i * cols);
      device.copy(alone.group.master, part(before));
      device.copy(alone.group.gradient!, part(gradient!));
      device.fill(alone.muon.momentum, 0);
      alone.step(1, 0.9);
      const expected = await device.readFloats(alone.group.master);
      const found = await device.readFloats(part(master));
      const start = await device.readFloats(part(before));
      assert(found.every((x, j) => x === expected[j]), `matrix ${i} differs from the same one alone`);
      assert(found.some((x, j) => x !== start[j]), `matrix ${i} is as it was`);
    }
  });
}

Deno.test("Muon.step() without a gradient only decays, by lr times its multiplier times the weight decay", async () => {
  using device = Device.open(TEST_BACKEND, { threads: 2 });
  using rig = new Rig(device, [8, 6], { n: 2, arenaBytes: 1 << 16 });
  device.fill(rig.group.master, 2);
  for (
    const [multiplier, expected] of [[1, 2 * (1 - 0.05)], [0.5, 2 * (1 - 0.05) * (1 - 0.025)], [0, 2 * 0.95 * 0.975]]
  ) {
    rig.step(multiplier, 0.9);
    for (const weight of await device.readFloats(rig.group.master)) assertAlmostEquals(weight, expected, 1e-6);
  }
});

Deno.test("Muon frees its momentum", () => {
  using device = Device.open(TEST_BACKEND);
  const { allocated } = device.memory();
  new Rig(device, [8, 6], { n: 2, arenaBytes: 1 << 12 })[Symbol.dispose]();
  assertEquals(device.memory().allocated, allocated);
});

Deno.test("Muon.count() and AdamW.count() give the work of an update by the formulas", () => {
  using device = Device.open(TEST_BACKEND);
  using rig = new Rig(device, [4, 6], { n: 3, arenaBytes: 4096 });
  using adamw = new AdamW(device, rig.block, {
    ...{ group: rig.group, lr: 1, beta1: 0.9, beta2: 0.9, eps: 1e-8, weightDecay: 0 },
  });
  const costs: Costs = new Map();
  for (let update = 0; update < 2; update++) {
    rig.muon.count(costs);
    adamw.count(costs);
  }
  const elements = 2 * 3 * 4 * 6; // of two updates
  assertEquals(Object.fromEntries(costs), {
    muon_momentum: { calls: 2, flops: 7 * elements, bytes: 16 * elements }, // m, g read; m, u written
    newton_schulz: { calls: 2, flops: 2 * 5 * 3 * (3 * 4 * 4 * 6 + 4 * 4 * 4), bytes: 8 * elements },
    muon_update: { calls: 2, flops: 3 * elements, bytes: 12 * elements },
    adamw: { calls: 2, flops: 16 * elements, bytes: 28 * elements },
  });
});

Deno.test("Muon.count() gives long bf16 matrices two products with X and the triangles of the rest", () => {
  using device = Device.open(TEST_BACKEND);
  for (const [shape, flops] of [[[4, 16], 3 * 4 * 4 * 16 + 17 * 64], [[4, 15], 5 * (3 * 4 * 4 * 15 + 64)]] as const) {
    using block = new StepBlock(device);
    using group = new ParameterGroup(device, [{ name: "m", shape, group: "m" }], { dtype: "f32", training: true });
    using muon = new Muon(device, block, { group, lr: 1, weightDecay: 0, dtype: "bf16" });
    const costs: Costs = new Map();
    muon.count(costs);
    assertEquals(costs.get("newton_schulz")?.flops, flops);
  }
});
