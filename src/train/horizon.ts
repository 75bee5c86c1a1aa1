/** How long to train: iterations, FLOPs or tokens per parameter, and how a step's tokens split into micro-batches. */
import { flopsPerToken, type GPTConfig, parameterCount } from "../model/gpt.ts";

/** Flags that decide the horizon. */
export interface HorizonFlags {
  /** Explicit number of steps; -1 = derive. */
  readonly numIterations: number;
  /** Training FLOPs; -1 = derive from the next one. */
  readonly targetFlops: number;
  /** Training tokens per parameter (arXiv:2203.15556 found 20). */
  readonly targetParamDataRatio: number;
  /** Tokens of a step over all ranks. */
  readonly totalBatchSize: number;
  /** Rows of a micro-batch. */
  readonly deviceBatchSize: number;
  readonly maxSeqLen: number;
}

/** What follows from them. */
export interface Horizon {
  /** Optimizer steps. */
  readonly steps: number;
  /** Micro-batches of a step on each rank. */
  readonly gradAccum: number;
  /** Tokens of the whole run. */
  readonly tokens: number;
  /** The flag that decided, in words. */
  readonly why: string;
}

/** Derives the horizon. @throws {RangeError} where the batch does not split or nothing gives a length. */
export function planHorizon(config: GPTConfig, flags: HorizonFlags, worldSize = 1): Horizon {
  const { numIterations, targetFlops, targetParamDataRatio, totalBatchSize } = flags;
  const gradAccum = splitStep(flags, worldSize);
  const { steps, why } = decide();
  if (!(steps >= 1)) throw new RangeError(`Cannot train: ${why} gives ${steps} steps, expected at least 1`);
  return { steps, gradAccum, tokens: steps * totalBatchSize, why };

  function decide(): { steps: number; why: string } {
    if (numIterations > 0) return { steps: numIterations, why: "--num-iterations" };
    if (targetFlops > 0) {
      return {
        steps: Math.round(targetFlops / (flopsPerToken(config) * totalBatchSize)),
        why: `--target-flops ${targetFlops}`,
      };
    }
    if (targetParamDataRatio > 0) {
      const steps = Math.floor(targetParamDataRatio * parameterCount(config) / totalBatchSize);
      return { steps, why: `--target-param-data-ratio ${targetParamDataRatio}` };
    }
    throw new RangeError(
      "Cannot train: no horizon is given, expected a positive --num-iterations, --target-flops or --target-param-data-ratio",
    );
  }
}

/** Splits a step's tokens into micro-batches and gives their number on each rank. @throws {RangeError} where it does not come out even. */
export function splitStep(
  flags: Pick<HorizonFlags, "totalBatchSize" | "deviceBatchSize" | "maxSeqLen">,
  worldSize = 1,
): number {
  const { totalBatchSize, deviceBatchSize, maxSeqLen } = flags;
  const microTokens = deviceBatchSize * maxSeqLen * worldSize;
  if (totalBatchSize % microTokens !== 0 || totalBatchSize <= 0) {
    const nearest = Math.max(1, Math.round(totalBatchSize / microTokens)) * microTokens;
    throw new RangeError(
      `Cannot split a step: --total-batch-size is ${totalBatchSize}, expected a multiple of --device-batch-size x --max-seq-len x ranks ` +
        `= ${microTokens}; the nearest is ${nearest}`,
    );
  }
  return totalBatchSize / microTokens;
}
