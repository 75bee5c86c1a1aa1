/** Flags of base training: names and defaults. */
import { STAGE_DEFAULTS, type StageFlags } from "./stage_flags.ts";

/** Flags of `nanochat train`; names and defaults are those of the reference where it has them. */
export interface BaseTrainFlags extends StageFlags {
  /** Layers; width and heads follow from it. */
  readonly depth: number;
  /** Context length T in tokens. */
  readonly maxSeqLen: number;
  /** Updates; -1 = as the next two say, the first positive one. */
  readonly numIterations: number;
  /** Training FLOPs; -1 = as the next one says. */
  readonly targetFlops: number;
  /** Training tokens per parameter; -1 = none. */
  readonly targetParamDataRatio: number;
  /** Tokens of an update over all ranks and micro-batches. */
  readonly totalBatchSize: number;
  /** Largest global gradient norm; 0 = no clipping. */
  readonly gradClip: number;
  /** Share of the updates in which learning rates rise, 0 to 1. */
  readonly warmupRatio: number;
  /** Share of the updates in which learning rates fall, 0 to 1. */
  readonly warmdownRatio: number;
  /** Multiplier of the learning rates that the fall ends at. */
  readonly finalLrFrac: number;
  /** Tokens of an evaluation; rounded down to whole batches, at least one. */
  readonly evalTokens: number;
  /** Steps between samples; -1 = none. */
  readonly sampleEvery: number;
  /** Steps between CORE evaluations, where the context has a bundle; -1 = none. */
  readonly coreMetricEvery: number;
  /** Items of a CORE task; -1 = all. */
  readonly coreMetricMaxPerTask: number;
}

/** Defaults: the reference's, where it has the flag. */
export const BASE_TRAIN_DEFAULTS: BaseTrainFlags = {
  ...STAGE_DEFAULTS,
  depth: 20,
  maxSeqLen: 2048,
  numIterations: -1,
  targetFlops: -1,
  targetParamDataRatio: 20,
  deviceBatchSize: 32,
  totalBatchSize: 524288,
  gradClip: 1,
  warmupRatio: 0,
  warmdownRatio: 0.2,
  finalLrFrac: 0,
  evalEvery: 250,
  evalTokens: 20 * 524288,
  sampleEvery: 2000,
  coreMetricEvery: 2000,
  coreMetricMaxPerTask: 500,
};
