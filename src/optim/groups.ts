/**
 * Which parameter goes where: AdamW for the embedding and the head, Muon for every matrix of the layers (nanochat/gpt.py,
 * setup_optimizers), behind one global clip of the gradient norm.
 */
import type { GPT } from "../model/gpt.ts";
import type { Arena } from "../tensor/arena.ts";
import type { Device, OwnedTensor } from "../tensor/device.ts";
import type { ComputeType } from "../tensor/dtype.ts";
import { type Slots, StepBlock } from "../tensor/step_block.ts";
import { type Costs, countWork } from "../tensor/tape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { AdamW } from "./adamw.ts";
import { Muon } from "./muon.ts";
import { widthLrScale } from "./schedule.ts";

const ADAMW = { beta1: 0.8, beta2: 0.95, eps: 1e-10 };

/** Learning rates and the like of a run. */
export interface OptimizerOptions {
  /** Learning rate of the head at width 768; scaled by (C / 768)^-0.5. */
  readonly unembeddingLr: number;
  /** Learning rate of the token embedding at width 768; scaled alike. */
  readonly embeddingLr: number;
  /** Learning rate of the matrices of the layers (Muon). */
  readonly matrixLr: number;
  /** Of the AdamW groups. */
  readonly weightDecay: number;
  /** Largest global gradient norm; 0 = no clipping. */
  readonly gradClip: number;
  /** What Newton-Schulz computes in. */
  readonly muonDtype: ComputeType;
  /** Factor of all learning rates (SFT and RL start low). */
  readonly lrFraction?: number;
}

/** What one step needs from the schedules. */
export interface StepSchedule {
  /** Factor of every learning rate in this step. */
  readonly lrMultiplier: number;
  /** Momentum of Muon in this step. */
  readonly momentum: number;
}

/** A named piece of optimizer state, for checkpoints. */
export interface NamedState {
  /** Kind of state and parameter: "exp_avg.lm_head.weight". */
  readonly name: string;
  /** View of the optimizer's memory, f32, shaped like the parameter. */
  readonly tensor: Tensor;
}

/** Both optimizers of a model. */
export class Optimizers implements Disposable {
  /** Optimizers of head and token embedding, one a group. */
  readonly adamw: readonly AdamW[];
  /** Optimizers of the matrices of the layers, one a shape. */
  readonly muon: readonly Muon[];
  /** f32[2] on the device: the factor applied to the gradients of the last step, and their norm before it. */
  readonly clip: OwnedTensor;
  /** Filled with the work of every update when set. */
  costs: Costs | null = null;
  readonly #device: Device;
  readonly #block: StepBlock;
  readonly #sum: OwnedTensor; // f64[1]
  readonly #maxNorm: Slots;

  /** Allocates zero state for a model that was made for training. */
  constructor(model: GPT, options: OptimizerOptions) {
    const { device, config } = model;
    const fraction = options.lrFraction ?? 1;
    const adamLr: Record<string, number> = {
      unembedding: options.unembeddingLr * widthLrScale(config.nEmbd) * fraction,
      embedding: options.embeddingLr * widthLrScale(config.nEmbd) * fraction,
    };
    this.#device = device;
    this.#block = new StepBlock(device);
    this.#sum = device.tensor([2], "f32");
    this.#maxNorm = this.#block.slots(1);
    this.#maxNorm.values[0] = options.gradClip;
    this.clip = device.tensor([2], "f32");
    const adamw: AdamW[] = [];
    const muon: Muon[] = [];
    for (const group of model.parameters.groups) {
      const lr = adamLr[group.name];
      if (lr !== undefined) {
        adamw.push(new AdamW(device, this.#block, { ...ADAMW, lr, weightDecay: options.weightDecay, group }));
      } else {muon.push(
          new Muon(device, this.#block, {
            lr: options.matrixLr * fraction,
            weightDecay: 0,
            dtype: options.muonDtype,
            group,
          }),
        );}
    }
    this.adamw = adamw;
    this.muon = muon;
  }

  /**
   * Enqueues one update from the gradients: global norm, clip, AdamW, Muon. Where the norm is not finite nothing is changed, and
   * `clip` says so: the caller reads it and stops.
   */
  step(arena: Arena, schedule: StepSchedule): void {
    const { nc, ctx } = this.#device;
    for (const optimizer of this.adamw) optimizer.prepare(schedule.lrMultiplier);
    for (const optimizer of this.muon) optimizer.prepare(schedule.lrMultiplier, schedule.momentum);
    this.#block.upload();
    [...this.adamw, ...this.muon].forEach(({ group: { gradient } }, i) => {
      nc.sum_squares(ctx, this.#sum.pointer, gradient!.pointer, BigInt(gradient!.size), i === 0 ? 0 : 1);
    });
    nc.clip_scale(ctx, this.clip.pointer, this.#sum.pointer, this.#maxNorm.tensor.pointer);
    for (const optimizer of this.adamw) optimizer.step(this.clip);
    for (const optimizer of this.muon) optimizer.step(arena, this.clip);
    if (this.costs) this.#count(this.costs);
  }

  #count(costs: Costs): void {
    for (const optimizer of [...this.adamw, ...this.muon]) {
      const { size } = optimizer.group.master;
      countWork(costs, "sum_squares", { flops: 2 * size, bytes: 4 * size });
      optimizer.count(costs);
    }
  }

  /** Number of updates done so far; set when a run is resumed. */
  get steps(): number {
    return this.adamw[0].steps;
  }
  set steps(steps: number) {
    for (const optimizer of this.adamw) optimizer.steps = steps;
  }

  /** Lists moments and momentum per parameter, under PyTorch's names. */
  state(): NamedState[] {
    const parts = (prefix: string, whole: Tensor, group: AdamW["group"]) =>
      group.parameters.map((parameter, i) => ({
        name: `${prefix}.${parameter.name}`,
        tensor: whole.view(parameter.shape, i * parameter.size),
      }));
    return [
      ...this.adamw.flatMap(({ m, v, group }) => [...parts("exp_avg", m, group), ...parts("exp_avg_sq", v, group)]),
      ...this.muon.flatMap(({ momentum, group }) => parts("momentum_buffer", momentum, group)),
    ];
  }

  /** Frees all state. */
  [Symbol.dispose](): void {
    for (const optimizer of [...this.adamw, ...this.muon]) optimizer[Symbol.dispose]();
    this.clip[Symbol.dispose]();
    this.#sum[Symbol.dispose]();
    this.#block[Symbol.dispose]();
  }
}
