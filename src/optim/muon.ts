/**
 * Muon (Keller Jordan, 2024) for the matrices of the layers: momentum whose update is replaced by the nearest orthogonal matrix.
 *
 *   m += (1 - mu)(g - m);   u = g + mu (m - g)   (Nesterov);   o = NewtonSchulz5(u);   p -= lr sqrt(max(1, rows/cols)) o
 *
 * All matrices of one shape are one batch. Source: nanochat/muon.py, commit 10231df.
 */
import { MUON_HYPER } from "../native/abi.ts";
import type { Arena } from "../tensor/arena.ts";
import type { Device, OwnedTensor } from "../tensor/device.ts";
import { type ComputeType, dtypeBytes, dtypeCode } from "../tensor/dtype.ts";
import type { ParameterGroup } from "../tensor/parameter.ts";
import type { Slots, StepBlock } from "../tensor/step_block.ts";
import { type Costs, countWork } from "../tensor/tape.ts";
import type { Tensor } from "../tensor/tensor.ts";

const NEWTON_SCHULZ_STEPS = 5;
const SLICE_ELEMENTS = 1 << 23; // matrices orthogonalised at once: enough to fill the machine, little scratch

/** Constants of one group. */
export interface MuonOptions {
  /** Learning rate before the schedule's multiplier. */
  readonly lr: number;
  /** Decoupled: weights shrink by lr times this in each update. */
  readonly weightDecay: number;
  /** What Newton-Schulz computes in. */
  readonly dtype: ComputeType;
}

/** Muon over one parameter group. */
export class Muon implements Disposable {
  /** What it updates. */
  readonly group: ParameterGroup;
  /** Constants it was made with. */
  readonly options: MuonOptions;
  /** Momentum, f32, shaped like the group. */
  readonly momentum: OwnedTensor;
  readonly #device: Device;
  readonly #hyper: Slots;

  /** Allocates zero momentum; `block` carries the numbers that change from step to step. */
  constructor(device: Device, block: StepBlock, { group, ...options }: MuonOptions & { group: ParameterGroup }) {
    this.group = group;
    this.options = options;
    this.momentum = device.tensor(group.master.shape, "f32");
    this.#device = device;
    this.#hyper = block.slots(Object.keys(MUON_HYPER).length);
  }

  /** Writes this step's numbers into the step block. */
  prepare(lrMultiplier: number, momentum: number): void {
    const { values } = this.#hyper;
    values[MUON_HYPER.lr] = this.options.lr * lrMultiplier;
    values[MUON_HYPER.momentum] = momentum;
    values[MUON_HYPER.weightDecay] = this.options.weightDecay;
  }

  /** Enqueues the update; scratch comes from the arena. `scale` f32[1] as in AdamW. */
  step(arena: Arena, scale: Tensor | null): void {
    const { nc, ctx } = this.#device;
    const { master, gradient, copy, shape: [rows, cols] } = this.group;
    const dtype = dtypeCode(this.options.dtype);
    const factor = Math.sqrt(Math.max(1, rows / cols));
    const size = rows * cols;
    const short = Math.min(rows, cols);
    const slice = this.#slice;
    const n = master.shape[0];
    for (let first = 0; first < n; first += slice) {
      const batch = Math.min(slice, n - first);
      const count = BigInt(batch * size);
      const part = (x: Tensor) => x.view([batch, rows, cols], first * size).pointer;
      const mark = arena.mark();
      const u = arena.scratch([batch, rows, cols], this.options.dtype);
      const o = arena.scratch([batch, rows, cols], this.options.dtype);
      const scratch = arena.scratch([batch * (size + 2 * short * short) * 4 + 4096], "i8");
      const hyper = this.#hyper.tensor.pointer;
      const s = scale?.pointer ?? null;
      nc.muon_momentum(ctx, u.pointer, part(this.momentum), part(gradient!), hyper, s, count, dtype);
      nc.newton_schulz(ctx, o.pointer, u.pointer, scratch.pointer, batch, rows, cols, NEWTON_SCHULZ_STEPS, dtype);
      const low = copy ? part(copy) : null;
      nc.muon_update(
        ctx,
        part(master),
        low,
        o.pointer,
        hyper,
        s,
        count,
        factor,
        dtype,
        dtypeCode(copy?.dtype ?? "f32"),
      );
      arena.releaseScratch(mark);
    }
  }

  /**
   * Counts the work of one update. A step of Newton-Schulz on a matrix (m, n), m <= n, takes m^2 n FLOPs for one triangle of X X^T, m^3
   * for one of A A and 2 m^2 n for B X; its least traffic is X read and O written once. Long bf16 matrices meet X in two products of the
   * whole, beside triangles of four products (m, m) a step: two in the last, three in the first one (`nc_newton_schulz`).
   */
  count(costs: Costs): void {
    const { master, copy, shape: [rows, cols] } = this.group;
    const [m, n] = [Math.min(rows, cols), Math.max(rows, cols)];
    const calls = Math.ceil(master.shape[0] / this.#slice);
    const [matrices, size] = [master.shape[0] / calls, master.size / calls]; // of a call, on average
    const low = dtypeBytes(this.options.dtype);
    countWork(costs, "muon_momentum", { calls, flops: 7 * size, bytes: size * (3 * 4 + low) });
    const steps = NEWTON_SCHULZ_STEPS;
    const long = this.options.dtype === "bf16" && n >= 4 * m;
    const flops = long ? 3 * m * m * n + (4 * steps - 3) * m ** 3 : steps * (3 * m * m * n + m ** 3);
    countWork(costs, "newton_schulz", { calls, flops: matrices * flops, bytes: 2 * size * low });
    const written = 4 + (copy ? dtypeBytes(copy.dtype) : 0);
    countWork(costs, "muon_update", { calls, flops: 3 * size, bytes: size * (4 + low + written) });
  }

  /** Matrices that are orthogonalised at once. */
  get #slice(): number {
    const [rows, cols] = this.group.shape;
    return Math.max(1, Math.floor(SLICE_ELEMENTS / (rows * cols)));
  }

  /** Frees the momentum. */
  [Symbol.dispose](): void {
    this.momentum[Symbol.dispose]();
  }
}
