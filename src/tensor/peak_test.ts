import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { Device } from "./device.ts";
import { Device as RealDevice } from "./device.ts";
import { measureBandwidth, measurePeakFlops } from "./peak.ts";

/** A device that computes nothing: a product takes the time that `flopsPerMs` says, by a clock of its own. */
function fake(flopsPerMs: (K: number, call: number) => number) {
  let [clock, calls] = [0, 0];
  const tensor = () => ({ pointer: null, [Symbol.dispose]() {} });
  const nc = {
    linear_fwd(...args: number[]) {
      const [M, N, K] = args.slice(8, 11);
      clock += 2 * M * N * K / flopsPerMs(K, calls++);
    },
  };
  const device = { tensor, nc, ctx: null, wait: () => Promise.resolve() } as unknown as Device;
  return { device, now: () => clock, elapsedMs: () => clock, calls: () => calls };
}

Deno.test("measurePeakFlops() takes the best call of the best shape", async () => {
  const { device, now } = fake((K, call) => call % 7 === 5 ? 4e8 : K === 512 ? 3e8 : 2e8); // FLOP/ms; cold calls are slow
  assertEquals(Math.round(await measurePeakFlops(device, "f32", { now }) / 1e9), 400);
});

Deno.test("measurePeakFlops() takes about 0.2 s on a fast and on a slow device", async () => {
  for (const rate of [1e10, 5e8, 5e6, 5e5]) {
    const { device, now, elapsedMs, calls } = fake(() => rate);
    assertAlmostEquals(await measurePeakFlops(device, "f32", { now }) / rate, 1e3, 1e-6);
    assert(calls() >= 1);
    // A device so slow that one small product exceeds its share does no other: its warm-up and one more call.
    assert(elapsedMs() <= Math.max(300, 1.01 * 2 * 2 * 256 ** 3 / rate), `${elapsedMs()} ms at ${rate} FLOP/ms`);
  }
});

Deno.test("measureBandwidth() measures reading and copying", async () => {
  using device = RealDevice.open("cpu");
  const { read, copy } = await measureBandwidth(device);
  assert(read > 1e7 && Number.isFinite(read), `${read} bytes per second`);
  assert(copy > 1e7 && Number.isFinite(copy), `${copy} bytes per second`);
});
