import { assert, assertEquals } from "@std/assert";
import { abi, type AbiName, type AbiRow } from "../native/abi.ts";
import type { Native } from "../native/call.ts";
import { Device } from "../tensor/device.ts";
import { selftest } from "./selftest.ts";

/** The CPU as a device whose functions `change` replaces. */
function changed(device: Device, change: (nc: Native) => Partial<Native>): Device {
  return new Device("cpu", { ...device.nc, ...change(device.nc) }, device.ctx);
}

Deno.test("selftest() passes on the CPU and calls every operation that both libraries have", async () => {
  using device = Device.open("cpu", { threads: 2 });
  const called = new Set<string>();
  const nc = new Proxy(device.nc, {
    get(target, name: keyof Native) {
      called.add(`nc_${name}`);
      return target[name];
    },
  });
  const rows = await selftest(new Device("cpu", nc, device.ctx));
  assertEquals(rows.filter(({ problem }) => problem !== null), []);
  assert(rows.filter(({ error }) => error !== null).length > rows.length / 2, "plain loops judge most operations");
  const names = Object.keys(abi) as AbiName[];
  const runtime = names.slice(0, names.indexOf("nc_cast"));
  const apart = /^nc_(comm_|all_|reduce_scatter|broadcast|barrier)/; // several ranks
  const wanted = names.filter((name) =>
    (abi[name] as AbiRow).lib !== "cpu" && !runtime.includes(name) && !apart.test(name)
  );
  assertEquals(wanted.filter((name) => !called.has(name)), []);
});

Deno.test("selftest() names an operation that is wrong, one that varies, and one that fails", async () => {
  using device = Device.open("cpu", { threads: 2 });
  let times = 0;
  const rows = await selftest(changed(device, (nc) => ({
    rmsnorm_fwd: (ctx, y, rstd, x, rows, C, eps, dtype) => {
      nc.rmsnorm_fwd(ctx, y, rstd, x, rows, C, eps, dtype);
      nc.fill(ctx, y, 1n, 0, dtype);
    },
    add: (ctx, y, a, b, n, dtype) => {
      nc.add(ctx, y, a, b, n, dtype);
      if (++times % 2 === 0) nc.fill(ctx, y, 1n, NaN, dtype);
    },
    gather_rows: () => {
      throw new Error("Cannot run: the device is lost");
    },
  })));
  const problems = rows.filter(({ problem }) => problem !== null).map(({ op, dtype, problem }) =>
    `${op} ${dtype}: ${problem}`
  );
  assertEquals(
    problems,
    [
      ["add", "the same inputs gave other bits the second time"],
      ["gather_rows", "Cannot run: the device is lost"],
      ["rmsnorm_fwd", "the results are wrong"],
    ].flatMap(([op, text]) => ["f32", "bf16"].map((dtype) => `${op} ${dtype}: ${text}`)),
  );
});
