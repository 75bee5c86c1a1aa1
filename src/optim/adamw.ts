/**
 * AdamW (arXiv:1711.05101) for the token embedding and the head.
 *
 *   p *= 1 - lr wd;   m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g^2
 *   p -= (lr / (1 - b1^t)) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
 */
import { ADAMW_HYPER } from "../native/abi.ts";
import type { Device, OwnedTensor } from "../tensor/device.ts";
import { dtypeBytes, dtypeCode } from "../tensor/dtype.ts";
import type { ParameterGroup } from "../tensor/parameter.ts";
import type { Slots, StepBlock } from "../tensor/step_block.ts";
import { type Costs, countWork } from "../tensor/tape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Constants of one group. */
export interface AdamWOptions {
  /** Learning rate before the schedule's multiplier. */
  readonly lr: number;
  /** Decay of the first moments. */
  readonly beta1: number;
  /** Decay of the second moments. */
  readonly beta2: number;
  /** Added to the root of the second moments. */
  readonly eps: number;
  /** Decoupled: weights shrink by lr times this in each update. */
  readonly weightDecay: number;
}

/** AdamW over one parameter group. */
export class AdamW implements Disposable {
  /** What it updates. */
  readonly group: ParameterGroup;
  /** Constants it was made with. */
  readonly options: AdamWOptions;
  /** First moments, f32, shaped like the group. */
  readonly m: OwnedTensor;
  /** Second moments. */
  readonly v: OwnedTensor;
  /** Updates done so far. */
  steps = 0;
  readonly #device: Device;
  readonly #hyper: Slots;

  /** Allocates zero moments; `block` carries the numbers that change from step to step. */
  constructor(device: Device, block: StepBlock, { group, ...options }: AdamWOptions & { group: ParameterGroup }) {
    this.group = group;
    this.options = options;
    this.m = device.tensor(group.master.shape, "f32");
    this.v = device.tensor(group.master.shape, "f32");
    this.#device = device;
    this.#hyper = block.slots(Object.keys(ADAMW_HYPER).length);
  }

  /** Writes this step's numbers into the step block. */
  prepare(lrMultiplier: number): void {
    const { lr, beta1, beta2, eps, weightDecay } = this.options;
    const { values } = this.#hyper;
    this.steps++;
    values[ADAMW_HYPER.lr] = lr * lrMultiplier;
    values[ADAMW_HYPER.beta1] = beta1;
    values[ADAMW_HYPER.beta2] = beta2;
    values[ADAMW_HYPER.eps] = eps;
    values[ADAMW_HYPER.weightDecay] = weightDecay;
    values[ADAMW_HYPER.biasCorrection1] = 1 - beta1 ** this.steps;
    values[ADAMW_HYPER.biasCorrection2] = 1 - beta2 ** this.steps;
  }

  /** Enqueues the update. `scale` f32[1] multiplies the gradients; a value that is not finite leaves everything as it is. */
  step(scale: Tensor | null): void {
    const { nc, ctx } = this.#device;
    const { master, gradient, copy } = this.group;
    nc.adamw(
      ...[ctx, master.pointer, this.m.pointer, this.v.pointer, copy?.pointer ?? null, gradient!.pointer] as const,
      ...[
        this.#hyper.tensor.pointer,
        scale?.pointer ?? null,
        BigInt(master.size),
        dtypeCode(copy?.dtype ?? "f32"),
      ] as const,
    );
  }

  /** Counts the work of one update: p, m, v and g are read, p, m, v and the copy written. */
  count(costs: Costs): void {
    const { master: { size }, copy } = this.group;
    countWork(costs, "adamw", { flops: 16 * size, bytes: size * (7 * 4 + (copy ? dtypeBytes(copy.dtype) : 0)) });
  }

  /** Frees the moments. */
  [Symbol.dispose](): void {
    this.m[Symbol.dispose]();
    this.v[Symbol.dispose]();
  }
}
