/**
 * Random values on a device. The CPU library draws them on every backend (Philox), so the same seed gives the same bits everywhere; what
 * is meant for another device is drawn in pieces on the host and uploaded.
 */
import { STATUS } from "../native/abi.ts";
import { NativeError, pointerFrom } from "../native/call.ts";
import { Device } from "./device.ts";
import type { Tensor } from "./tensor.ts";

/** Elements that are on the host at once: 16 MiB. */
const PIECE = 1 << 22;

/** Which numbers of the stream of a seed, and their spread. */
export interface NormalOptions {
  readonly seed: bigint;
  /** Number of the first element in the stream; 0. */
  readonly offset?: bigint;
  readonly std: number;
}

/** Fills a tensor (f32) with normal numbers of mean 0. */
export function fillNormal(device: Device, y: Tensor, { seed, offset = 0n, std }: NormalOptions): void {
  if (device.kind === "cpu" || device.kind === "plan") {
    return device.nc.normal(device.ctx, y.pointer, BigInt(y.size), seed, offset, 0, std);
  }
  using host = Device.open("cpu");
  using drawn = host.tensor([Math.min(PIECE, y.size)], "f32");
  const event = new BigUint64Array(1);
  host.nc.event_create(host.ctx, event);
  const done = pointerFrom(event);
  const flat = y.view([y.size]);
  for (let start = 0; start < y.size; start += PIECE) {
    const n = Math.min(PIECE, y.size - start);
    host.nc.normal(host.ctx, drawn.pointer, BigInt(n), seed, offset + BigInt(start), 0, std);
    host.nc.event_record(host.ctx, done);
    waitHere(host, done);
    const data = new Float32Array(n);
    host.nc.host_read(host.ctx, data, drawn.pointer, BigInt(data.byteLength));
    device.upload(flat.view([n], start), data);
  }
  host.nc.event_free(host.ctx, done);
}

/** Waits on this thread until an event has happened: some milliseconds, for which nobody who fills weights should be asynchronous. */
function waitHere({ nc, ctx }: Device, event: Deno.PointerObject): void {
  const sleeping = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    try {
      return nc.event_query(ctx, event);
    } catch (error) {
      if (!(error instanceof NativeError) || error.status !== STATUS.NOT_READY) throw error;
      Atomics.wait(sleeping, 0, 0, 1);
    }
  }
}
