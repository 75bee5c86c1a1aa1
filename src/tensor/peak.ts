/**
 * What a device can do at best, measured: FLOP/s of products and bytes per second of main memory, the reference points of MFU and of
 * the roofline.
 */
import { EPILOGUE, LAYOUT } from "../native/abi.ts";
import type { Device } from "./device.ts";
import { type ComputeType, dtypeCode } from "./dtype.ts";

/**
 * M, N and K of the products that are tried, small to large: which one is fastest depends on the caches, and on a busy machine the short
 * ones are less often interrupted.
 */
const SHAPES = [[256, 256, 256], [512, 512, 512], [512, 512, 1024], [1024, 1024, 1024], [2048, 1024, 1024]] as const;
const SHARE_MS = 40; // of each shape: 0.2 s for all

/**
 * Measures the FLOP/s of products in the given type: the best call of several shapes, each after a warm-up, as disturbances only slow
 * down. A shape that would take longer than its share of the 0.2 s is left out.
 */
export async function measurePeakFlops(
  device: Device,
  dtype: ComputeType,
  { now = () => performance.now() }: { now?: () => number } = {},
): Promise<number> {
  const [M, N, K] = [0, 1, 2].map((axis) => Math.max(...SHAPES.map((shape) => shape[axis])));
  using x = device.tensor([M, K], dtype);
  using w = device.tensor([N, K], dtype);
  using y = device.tensor([M, N], dtype);
  const code = dtypeCode(dtype);
  const time = async ([M, N, K]: readonly [number, number, number]) => {
    const start = now();
    device.nc.linear_fwd(
      ...[device.ctx, y.pointer, null, x.pointer, w.pointer, null, null, null] as const,
      ...[M, N, K, EPILOGUE.NONE, LAYOUT.ROWS, code, code, code] as const,
    );
    await device.wait();
    return Math.max(now() - start, 1e-3); // a clock may be coarser than the call
  };
  let best = 0; // FLOP/ms
  for (const shape of SHAPES) {
    const flops = 2 * shape[0] * shape[1] * shape[2];
    if (best > 0 && flops / best > SHARE_MS) continue;
    const end = now() + SHARE_MS;
    const warmUpMs = await time(shape);
    best = Math.max(best, flops / warmUpMs);
    while (now() < end) best = Math.max(best, flops / await time(shape));
  }
  return best * 1e3;
}

const COPY_BYTES = 128 << 20; // of one buffer: larger than the last cache of most machines

/**
 * Measures main memory in bytes per second: the best of reading one buffer and of copying it to another (read and written), five runs
 * each after a warm-up. About 0.3 s.
 */
export async function measureBandwidth(device: Device): Promise<{ read: number; copy: number }> {
  using x = device.tensor([COPY_BYTES / 4], "f32");
  using y = device.tensor([COPY_BYTES / 4], "f32");
  using sum = device.tensor([2], "f32");
  const best = async (bytes: number, work: () => void) => {
    let ms = Infinity;
    for (let i = 0; i < 6; i++) {
      const start = performance.now();
      work();
      await device.wait();
      if (i > 0) ms = Math.min(ms, performance.now() - start);
    }
    return bytes / ms * 1e3;
  };
  device.fill(x, 1); // pages that nobody wrote are one shared page of zeros, which lies in the cache
  const read = await best(COPY_BYTES, () => {
    device.nc.sum_squares(device.ctx, sum.pointer, x.pointer, BigInt(x.size), 0);
  });
  const copy = await best(2 * COPY_BYTES, () => device.copy(y, x));
  return { read, copy };
}
