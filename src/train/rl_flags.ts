/** Flags of reinforcement learning: names and defaults. */
import { STAGE_DEFAULTS, type StageFlags } from "./stage_flags.ts";

/** Flags of `nanochat rl`; names and defaults are those of the reference where it has them. */
export interface ChatRlFlags extends StageFlags {
  /** Stage of the model that it starts from. */
  readonly source: "mid" | "sft";
  /** Checkpoint that it starts from; -1 = the latest. */
  readonly step: number;
  /** Prompts of a step over all ranks. */
  readonly examplesPerStep: number;
  /** Answers to each prompt. */
  readonly numSamples: number;
  /** Tokens of an answer at most. */
  readonly maxNewTokens: number;
  /** Temperature of the answers. */
  readonly temperature: number;
  /** Tokens that an answer chooses among; 0 = all. */
  readonly topK: number;
  /** Factor of all learning rates. */
  readonly initLrFrac: number;
  /** Passes over the prompts. */
  readonly numEpochs: number;
  /** Prompts of an evaluation. */
  readonly evalExamples: number;
  /** Steps; -1 = as the passes say. */
  readonly numIterations: number;
  /** Coefficient of the distance from the model that it starts from; 0 = off. */
  readonly kl: number;
  /** Bound of a token's probability ratio; 0 = off. */
  readonly clip: number;
  /** Updates on the same answers. */
  readonly updatesPerRollout: number;
}

/** Defaults: the reference's, where it has the flag. */
export const CHAT_RL_DEFAULTS: ChatRlFlags = {
  ...STAGE_DEFAULTS,
  source: "sft",
  step: -1,
  deviceBatchSize: 8,
  examplesPerStep: 16,
  numSamples: 16,
  maxNewTokens: 256,
  temperature: 1,
  topK: 50,
  initLrFrac: 0.05,
  numEpochs: 1,
  saveEvery: 60,
  evalEvery: 60,
  evalExamples: 400,
  numIterations: -1,
  kl: 0,
  clip: 0,
  updatesPerRollout: 1,
};
