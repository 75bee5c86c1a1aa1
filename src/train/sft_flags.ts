/** Flags of supervised fine-tuning: names and defaults. */
import { STAGE_DEFAULTS, type StageFlags } from "./stage_flags.ts";

/** Flags of `nanochat sft`; names and defaults are those of the reference where it has them. */
export interface ChatSftFlags extends StageFlags {
  /** Stage of the model that it starts from. */
  readonly source: "base" | "mid";
  /** Checkpoint that it starts from; -1 = the latest. */
  readonly step: number;
  /** Passes over the conversations. */
  readonly numEpochs: number;
  /** Steps, of which the last one only evaluates; -1 = as the passes say. */
  readonly numIterations: number;
  /** Conversations of an update over all ranks and micro-batches. */
  readonly targetExamplesPerStep: number;
  /** Factor of all learning rates. */
  readonly initLrFrac: number;
  /** Batches of a validation. */
  readonly evalSteps: number;
  /** Steps between evaluations on tasks; -1 = none. */
  readonly evalMetricsEvery: number;
  /** Problems of a task in such an evaluation; -1 = all. */
  readonly evalMetricsMaxProblems: number;
}

/** Defaults: the reference's, where it has the flag. */
export const CHAT_SFT_DEFAULTS: ChatSftFlags = {
  ...STAGE_DEFAULTS,
  source: "mid",
  step: -1,
  numEpochs: 1,
  numIterations: -1,
  deviceBatchSize: 4,
  targetExamplesPerStep: 32,
  initLrFrac: 0.02,
  evalEvery: 100,
  evalSteps: 100,
  evalMetricsEvery: 200,
  evalMetricsMaxProblems: 1024,
};
