/** Flags of mid-training: names and defaults. */
import { STAGE_DEFAULTS, type StageFlags } from "./stage_flags.ts";

/** Flags of `nanochat mid`; names and defaults are those of the reference where it has them. */
export interface MidTrainFlags extends StageFlags {
  /** Checkpoint of the base model that it starts from; -1 = the latest. */
  readonly step: number;
  /** Updates; -1 = one pass over the mixture. */
  readonly numIterations: number;
  /** Context length T in tokens, also that of the model that comes out. */
  readonly maxSeqLen: number;
  /** Tokens of an update over all ranks and micro-batches. */
  readonly totalBatchSize: number;
  /** Factor of all learning rates. */
  readonly initLrFrac: number;
  /** Tokens of an evaluation; rounded down to whole batches, at least one. */
  readonly evalTokens: number;
  /** Trains and measures without leaving anything behind. */
  readonly dryRun: boolean;
}

/** Defaults: the reference's, where it has the flag. */
export const MID_TRAIN_DEFAULTS: MidTrainFlags = {
  ...STAGE_DEFAULTS,
  step: -1,
  numIterations: -1,
  maxSeqLen: 2048,
  deviceBatchSize: 32,
  totalBatchSize: 524288,
  initLrFrac: 1,
  evalEvery: 150,
  evalTokens: 20 * 524288,
  dryRun: false,
};
