import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import { Arena } from "./arena.ts";
import { Device } from "./device.ts";
import * as ops from "./ops.ts";
import { ParameterGroup } from "./parameter.ts";
import { profileLines, Profiler, profileRows } from "./profile.ts";
import { Tape } from "./tape.ts";

const PEAKS = { flops: 100e9, bandwidth: 10e9 };

Deno.test("profileRows() gives rates and shares of the bound, and knows which functions do a row's work", () => {
  const times = new Map([
    ["nc_linear_fwd", { calls: 2, ms: 4 }],
    ["nc_linear_bwd_w", { calls: 2, ms: 3 }],
    ["nc_linear_bwd_x", { calls: 2, ms: 6 }],
    ["nc_rmsnorm_fwd", { calls: 4, ms: 1 }],
    ["nc_adamw", { calls: 1, ms: 2 }],
  ]);
  const costs = new Map([
    ["linear", { calls: 1, flops: 100e6, bytes: 1e6 }],
    ["linear_relu2", { calls: 1, flops: 100e6, bytes: 1e6 }],
    ["linear_bwd", { calls: 1, flops: 200e6, bytes: 2e6 }],
    ["linear_relu2_bwd", { calls: 1, flops: 200e6, bytes: 2e6 }],
    ["rmsnorm", { calls: 2, flops: 1e3, bytes: 1e6 }],
  ]);
  const rows = new Map(profileRows(times, { costs, peaks: PEAKS }).map((row) => [row.op, row]));
  assertEquals([...rows.keys()], ["linear_bwd_x", "linear_fwd", "linear_bwd_w", "adamw", "rmsnorm_fwd"]);
  assertAlmostEquals(rows.get("linear_fwd")!.flopsPerSec!, 50e9);
  assertAlmostEquals(rows.get("linear_fwd")!.bound!, 0.5); // 200 MFLOP take 2 ms at best
  assertAlmostEquals(rows.get("linear_bwd_w")!.bound!, 2 / 3);
  assertAlmostEquals(rows.get("linear_bwd_x")!.bound!, 1 / 3);
  assertAlmostEquals(rows.get("rmsnorm_fwd")!.bytesPerSec!, 2e9); // computed twice
  assertAlmostEquals(rows.get("rmsnorm_fwd")!.bound!, 0.2);
  assertEquals(rows.get("adamw"), { op: "adamw", calls: 1, ms: 2 });
  const lines = profileLines([...rows.values()], PEAKS);
  assertMatch(lines[2], /^linear_bwd_x +2 +6\.0 +38 % +33 +0\.3 +33 %$/);
  assertMatch(lines[5], /^adamw +1 +2\.0 +13 % +- +- +-$/);
  assertMatch(lines.at(-1)!, /^sum +16\.0$/);
});

Deno.test("Profiler adds up what ran between start and stop, and nothing else", async () => {
  using device = Device.open("cpu");
  using arena = new Arena(device, 1 << 20);
  const tape = new Tape(device, arena, { training: false });
  const profiler = await Profiler.open(device, "f32");
  tape.costs = profiler.costs;
  const group = new ParameterGroup(device, [{ name: "w", shape: [48, 32], group: "w" }], {
    dtype: "f32",
    training: false,
  });
  using x = device.tensor([16, 32], "f32");
  for (const isTimed of [true, false, true]) {
    tape.costs = isTimed ? profiler.costs : null;
    if (isTimed) profiler.start();
    ops.linear(tape, x, { w: group.parameters[0] });
    await device.wait();
    if (isTimed) profiler.stop();
    tape.clear();
  }
  const line = profiler.lines().find((line) => line.startsWith("linear_fwd"));
  const [, calls, ms, , , , , bound] = line!.split(/ +/);
  assertEquals(calls, "2");
  assert(Number(ms) >= 0 && Number(bound) > 0, line);
});
