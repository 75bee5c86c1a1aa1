/**
 * One training step on one device: micro-batches forward and backward, then both optimizers. Every stage (base, mid, SFT, RL) drives
 * this; what differs between them is where batches come from and how targets are weighted.
 *
 * A step enqueues everything and allocates nothing; `results` waits for it. The arena's size comes from running the same code on the
 * plan device first.
 */
import { GPT, type GPTConfig } from "../model/gpt.ts";
import { type OptimizerOptions, Optimizers, type StepSchedule } from "../optim/groups.ts";
import { Arena } from "../tensor/arena.ts";
import type { Device, OwnedTensor } from "../tensor/device.ts";
import type { ComputeType } from "../tensor/dtype.ts";
import { PlanDevice } from "../tensor/plan.ts";
import { type Costs, Tape } from "../tensor/tape.ts";

/** Token ids of one micro-batch, (B, t) each with t <= T; a target of -1 is ignored. */
export interface MicroBatch {
  /** Ids that the model reads. */
  readonly inputs: Int32Array<ArrayBuffer>;
  /** Id that each position is to predict; -1 = ignored. */
  readonly targets: Int32Array<ArrayBuffer>;
  /** Weight of each target in the objective; default: 1 / active targets, the mean. */
  readonly weights?: Float32Array<ArrayBuffer>;
}

/** Sizes of a trainer. */
export interface TrainerOptions {
  /** Sizes of the model. */
  readonly config: GPTConfig;
  /** What the model computes in. */
  readonly dtype: ComputeType;
  /** Rows of a micro-batch. */
  readonly B: number;
  /** Tokens of a row at most; shorter rows use less of the same memory. */
  readonly T: number;
  /** Micro-batches of a step. */
  readonly gradAccum: number;
  /** Learning rates and the like. */
  readonly optimizer: OptimizerOptions;
}

/** What a step did. */
export interface StepResult {
  /** Objective of each micro-batch: with default weights the mean loss in nats. */
  readonly losses: readonly number[];
  /** Global gradient norm before clipping. */
  readonly gradNorm: number;
  /** False: a loss or gradient was not finite and nothing was updated. */
  readonly finite: boolean;
}

/** Memory and work of one step, without running it. */
export interface TrainingPlan {
  /** Bytes of the arena: activations and scratch. */
  readonly arenaBytes: number;
  /** Bytes of everything: parameters, gradients, optimizer state, arena. */
  readonly totalBytes: number;
  /** Work by op, of two micro-batches at most and one update. */
  readonly costs: Costs;
}

const UNBOUNDED = 2 ** 46; // bytes; larger than any arena

/** Computes memory and work of a step by running it with shapes only. */
export function planTraining(options: TrainerOptions): TrainingPlan {
  using device = new PlanDevice();
  using trainer = new Trainer(device, { ...options, arenaBytes: UNBOUNDED });
  const costs: Costs = new Map();
  trainer.costs = costs;
  const size = options.B * options.T;
  const batch = { inputs: new Int32Array(size), targets: new Int32Array(size) };
  for (let i = 0; i < Math.min(2, options.gradAccum); i++) trainer.microStep(batch, i);
  trainer.update({ lrMultiplier: 1, momentum: 0.95 });
  const arenaBytes = trainer.arena.peak;
  return { arenaBytes, totalBytes: device.peakBytes - UNBOUNDED + arenaBytes, costs };
}

/** Model, optimizers and buffers of a training run. */
export class Trainer implements Disposable {
  /** Where everything lives; it must outlive the trainer. */
  readonly device: Device;
  /** Sizes it was made with. */
  readonly options: TrainerOptions;
  /** Model in training, zero until `initWeights` or a checkpoint fills it; freed with the trainer. */
  readonly model: GPT;
  /** Its optimizers; freed with the trainer. */
  readonly optimizers: Optimizers;
  /** Memory of activations, idle between steps. */
  readonly arena: Arena;
  /** Recording that `microStep` uses and clears. */
  readonly tape: Tape;
  readonly #inputs: OwnedTensor;
  readonly #targets: OwnedTensor;
  readonly #weights: OwnedTensor;
  readonly #losses: OwnedTensor;
  #hasGradients = false; // of the step at work

  /** Allocates everything that a step needs; `arenaBytes` saves planning where the size is known. */
  constructor(device: Device, options: TrainerOptions & { arenaBytes?: number }) {
    const { B, T, config, dtype, gradAccum } = options;
    this.device = device;
    this.options = options;
    this.model = new GPT(device, config, { dtype, training: true });
    this.optimizers = new Optimizers(this.model, options.optimizer);
    this.arena = new Arena(device, options.arenaBytes ?? planTraining(options).arenaBytes);
    this.tape = new Tape(device, this.arena, { training: true });
    this.#inputs = device.tensor([B, T], "i32");
    this.#targets = device.tensor([B, T], "i32");
    this.#weights = device.tensor([B, T], "f32");
    this.#losses = device.tensor([gradAccum], "f32");
  }

  /** Filled with the work of every op when set. */
  set costs(costs: Costs | null) {
    this.tape.costs = costs;
    this.optimizers.costs = costs;
  }

  /** Enqueues forward and backward of micro-batch `index` of a step; the first one overwrites the gradients, later ones add to them. */
  microStep(batch: MicroBatch, index: number): void {
    const { device, tape, options: { B, T, gradAccum } } = this;
    const columns = batch.inputs.length / B;
    if (!Number.isInteger(columns) || columns < 1 || columns > T || batch.targets.length !== batch.inputs.length) {
      throw new RangeError(
        `Cannot train on a batch of ${batch.inputs.length} inputs and ${batch.targets.length} targets: expected ${B} rows of 1 to ${T}`,
      );
    }
    const [inputs, targets, weights] = [this.#inputs, this.#targets, this.#weights].map((x) => x.view([B, columns]));
    device.upload(inputs, batch.inputs);
    device.upload(targets, batch.targets);
    device.upload(weights, (batch.weights ?? meanWeights(batch.targets)).map((w) => w / gradAccum));
    tape.accumulate = index > 0 && this.#hasGradients;
    this.#hasGradients = true;
    const losses = this.model.loss(tape, inputs, { targets, weights });
    const slot = this.#losses.view([1], index).pointer;
    tape.nc.weighted_sum(tape.ctx, slot, losses.pointer, weights.pointer, BigInt(losses.size), 0);
    tape.backward();
    tape.clear();
  }

  /** Counts micro-batch `index` with loss and gradient 0, without computing: one whose weights are all 0. */
  skip(index: number): void {
    if (index === 0) this.#hasGradients = false;
    this.device.fill(this.#losses.view([1], index), 0);
  }

  /** Enqueues the update of all parameters from the accumulated gradients. */
  update(schedule: StepSchedule): void {
    if (!this.#hasGradients) {
      for (const { gradient } of this.model.parameters.groups) this.device.fill(gradient!, 0);
    }
    this.optimizers.step(this.arena, schedule);
  }

  /** Waits for the step and reports it. */
  async results(): Promise<StepResult> {
    const [scale, gradNorm] = await this.device.readFloats(this.optimizers.clip);
    const losses = Array.from(await this.device.readFloats(this.#losses), (loss) => loss * this.options.gradAccum);
    return { losses, gradNorm, finite: Number.isFinite(scale) && losses.every(Number.isFinite) };
  }

  /** Names the first gradient that holds a NaN or infinity, or null. */
  async firstNonFiniteGradient(): Promise<string | null> {
    const { nc, ctx } = this.device;
    using index = this.device.tensor([2], "i32"); // i64[1]
    for (const { name, gradient } of this.model.parameters.all()) {
      nc.first_non_finite(ctx, index.pointer, gradient.pointer, BigInt(gradient.size), 0);
      const [low, high] = await this.device.read(index);
      if (!(low === -1 && high === -1)) return name;
    }
    return null;
  }

  /** Frees everything. */
  [Symbol.dispose](): void {
    for (const part of [this.#inputs, this.#targets, this.#weights, this.#losses]) part[Symbol.dispose]();
    this.optimizers[Symbol.dispose]();
    this.model[Symbol.dispose]();
    this.arena[Symbol.dispose]();
  }
}

/**
 * Weighs every active target 1 / their number.
 *
 * @throws {RangeError} where no target is active: the mean would be 0 / 0.
 */
export function meanWeights(targets: Int32Array): Float32Array<ArrayBuffer> {
  let active = 0;
  for (const target of targets) if (target >= 0) active++;
  if (active === 0) {
    throw new RangeError(`Cannot train on a batch: all ${targets.length} targets are ignored, expected at least one`);
  }
  return Float32Array.from(targets, (target) => target >= 0 ? 1 / active : 0);
}
