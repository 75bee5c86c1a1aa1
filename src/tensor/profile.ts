/**
 * Where the time of a device goes, op by op (`NC_PROFILE=1`): what the native library measured beside what the op table says an op has to
 * do. The bound of an op is the time that its FLOPs take at the measured peak or its bytes at the measured bandwidth, whichever is longer.
 *
 * The native library counts its own functions; a row of the op table may call two of them (the two products of a backward pass share its
 * work equally), and several rows may call one. A value that backward computes again is counted with the work of the first time.
 */
import { zeroTerminated } from "../native/call.ts";
import type { Device } from "./device.ts";
import type { ComputeType } from "./dtype.ts";
import { measureBandwidth, measurePeakFlops } from "./peak.ts";
import type { Costs } from "./tape.ts";

/** Native functions that do the work of a row of the op table, where they are not `nc_<row>_fwd` or `nc_<row>`. */
const KERNELS: Readonly<Record<string, readonly string[]>> = {
  linear_bwd: ["nc_linear_bwd_w", "nc_linear_bwd_x"],
  linear_relu2: ["nc_linear_fwd"],
  linear_relu2_bwd: ["nc_linear_bwd_w", "nc_linear_bwd_x"],
  logits: ["nc_linear_fwd"],
};

/** Figures of one native function. */
export interface ProfileRow {
  /** Name without `nc_`. */
  readonly op: string;
  readonly calls: number;
  readonly ms: number;
  /** FLOP/s; absent where the op table has no formula. */
  readonly flopsPerSec?: number;
  /** Bytes per second, of those that must be moved at least. */
  readonly bytesPerSec?: number;
  /** Least possible time as a share of the time it took. */
  readonly bound?: number;
}

/** What a device can do at best. */
export interface Peaks {
  /** FLOP/s of products. */
  readonly flops: number;
  /** Bytes per second of main memory. */
  readonly bandwidth: number;
}

/** Times the ops of a device between `start` and `stop`, over as many stretches as there are. */
export class Profiler {
  /** Work by row of the op table; to be set as `costs` of the tapes that run in between. */
  readonly costs: Costs = new Map();
  readonly #device: Device;
  readonly #peaks: Peaks;
  readonly #times = new Map<string, { calls: number; ms: number }>();

  private constructor(device: Device, peaks: Peaks) {
    this.#device = device;
    this.#peaks = peaks;
  }

  /** Measures what the device can do and prepares the timing. */
  static async open(device: Device, dtype: ComputeType): Promise<Profiler> {
    const { read, copy } = await measureBandwidth(device);
    return new Profiler(device, { flops: await measurePeakFlops(device, dtype), bandwidth: Math.max(read, copy) });
  }

  /** Starts timing; the queue is to be empty. */
  start(): void {
    this.#device.nc.profile(this.#device.ctx, new Uint8Array(1), 1, 1);
  }

  /** Ends timing and adds the figures up; the queue is to be empty. */
  stop(): void {
    const text = new Uint8Array(1 << 16);
    this.#device.nc.profile(this.#device.ctx, text, text.length, 0);
    const rows: { op: string; calls: number; ms: number }[] = JSON.parse(zeroTerminated(text));
    for (const { op, calls, ms } of rows) {
      const sum = this.#times.get(op) ?? { calls: 0, ms: 0 };
      this.#times.set(op, { calls: sum.calls + calls, ms: sum.ms + ms });
    }
  }

  /** Gives the table so far as lines. */
  lines(): string[] {
    const rows = (peaks: Peaks) => profileRows(this.#times, { costs: this.costs, peaks });
    // Products faster than the measured peak show that it was measured on a busy machine.
    const flops = Math.max(this.#peaks.flops, ...rows(this.#peaks).map(({ flopsPerSec }) => flopsPerSec ?? 0));
    const peaks = { ...this.#peaks, flops };
    return profileLines(rows(peaks), peaks);
  }
}

/** Joins measured times with the work of the op table, longest first. */
export function profileRows(
  times: ReadonlyMap<string, { calls: number; ms: number }>,
  { costs, peaks }: { costs: Costs; peaks: Peaks },
): ProfileRow[] {
  const work = new Map<string, { calls: number; flops: number; bytes: number }>();
  for (const [name, cost] of costs) {
    const kernels = KERNELS[name] ?? [times.has(`nc_${name}`) ? `nc_${name}` : `nc_${name}_fwd`];
    for (const kernel of kernels) {
      const sum = work.get(kernel) ?? { calls: 0, flops: 0, bytes: 0 };
      work.set(kernel, {
        calls: sum.calls + cost.calls,
        flops: sum.flops + cost.flops / kernels.length,
        bytes: sum.bytes + cost.bytes / kernels.length,
      });
    }
  }
  const rows = [...times].filter(([_, { calls }]) => calls > 0).map(([kernel, { calls, ms }]): ProfileRow => {
    const op = kernel.replace(/^nc_/, "");
    const known = work.get(kernel);
    if (!known || known.calls === 0 || ms === 0) return { op, calls, ms };
    const repeats = calls / known.calls; // above 1 where backward computes a value again
    const [flops, bytes] = [known.flops * repeats, known.bytes * repeats];
    const leastMs = Math.max(flops / peaks.flops, bytes / peaks.bandwidth) * 1e3;
    return { op, calls, ms, flopsPerSec: flops / ms * 1e3, bytesPerSec: bytes / ms * 1e3, bound: leastMs / ms };
  });
  return rows.sort((a, b) => b.ms - a.ms);
}

/** Writes the rows as a table, with the sum of the times at its end. */
export function profileLines(rows: readonly ProfileRow[], { flops, bandwidth }: Peaks): string[] {
  const totalMs = rows.reduce((sum, { ms }) => sum + ms, 0);
  const giga = (x?: number) => x === undefined ? "-" : (x / 1e9).toFixed(x < 1e10 ? 1 : 0);
  const percent = (x?: number) => x === undefined ? "-" : `${(100 * x).toFixed(0)} %`;
  const line = (cells: string[]) => cells.map((cell, i) => i === 0 ? cell.padEnd(22) : cell.padStart(11)).join("");
  return [
    `Time by op; bound by ${giga(flops)} GFLOP/s and ${
      giga(bandwidth)
    } GB/s of main memory (above 100 %: from the caches)`,
    line(["op", "calls", "ms", "of time", "GFLOP/s", "GB/s", "of bound"]),
    ...rows.map(({ op, calls, ms, flopsPerSec, bytesPerSec, bound }) =>
      line([
        ...[op, String(calls), ms.toFixed(1), percent(ms / totalMs)],
        ...[giga(flopsPerSec), giga(bytesPerSec), percent(bound)],
      ])
    ),
    line(["sum", "", totalMs.toFixed(1), "", "", "", ""]).trimEnd(),
  ];
}
