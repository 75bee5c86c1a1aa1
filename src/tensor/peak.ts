/** How many FLOP/s a device can do at best: measured on a CPU, the reference point of MFU. */
import { EPILOGUE, LAYOUT } from "../native/abi.ts";
import type { Device } from "./device.ts";
import { type ComputeType, dtypeCode } from "./dtype.ts";

const SIZE = 1024; // M, N and K: large enough to run at full speed, 2.1 GFLOP

/** Measures the FLOP/s of a large product in the given type: the best of several, as disturbances only slow down. */
export async function measurePeakFlops(device: Device, dtype: ComputeType): Promise<number> {
  using x = device.tensor([SIZE, SIZE], dtype);
  using w = device.tensor([SIZE, SIZE], dtype);
  using y = device.tensor([SIZE, SIZE], dtype);
  const code = dtypeCode(dtype);
  let best = 0;
  for (let i = 0; i < 12; i++) {
    const start = performance.now();
    device.nc.linear_fwd(
      ...[device.ctx, y.pointer, null, x.pointer, w.pointer, null, null, null] as const,
      ...[SIZE, SIZE, SIZE, EPILOGUE.NONE, LAYOUT.ROWS, code, code, code] as const,
    );
    await device.wait();
    best = Math.max(best, 2 * SIZE ** 3 / (performance.now() - start) * 1e3);
  }
  return best;
}
