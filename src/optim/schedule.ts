/** Learning-rate and momentum schedules of every stage, as functions of the step or of the progress through the data. */

/** Rounds halves to even, as Python's round does. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Shape of the base schedule: linear warmup, constant, linear warmdown. Ratios are parts of all steps. */
export interface WarmdownOptions {
  readonly numIterations: number;
  readonly warmupRatio: number;
  readonly warmdownRatio: number;
  /** Multiplier that the warmdown approaches. */
  readonly finalLrFrac: number;
}

/** Returns the learning-rate multiplier of base training at `step` (nanochat/base_train.py). */
export function baseLrMultiplier(step: number, options: WarmdownOptions): number {
  const { numIterations, warmupRatio, warmdownRatio, finalLrFrac } = options;
  const warmup = roundHalfEven(warmupRatio * numIterations);
  const warmdown = roundHalfEven(warmdownRatio * numIterations);
  if (step < warmup) return (step + 1) / warmup;
  if (step <= numIterations - warmdown) return 1;
  const left = (numIterations - step) / warmdown;
  return left * 1 + (1 - left) * finalLrFrac;
}

/** Returns Muon's momentum in base and mid-training: 0.85 to 0.95 over the first 300 steps. */
export function muonMomentum(step: number): number {
  const fraction = Math.min(step / 300, 1);
  return (1 - fraction) * 0.85 + fraction * 0.95;
}

/** Returns the multiplier of mid-training at a progress of 0..1: constant for 80 %, then linear to zero. */
export function midLrMultiplier(progress: number): number {
  return progress < 0.8 ? 1 : Math.max(0, 1 - (progress - 0.8) / 0.2);
}

/** Returns the multiplier of SFT and RL: linear from 1 to zero. */
export function linearLrMultiplier(step: number, numIterations: number): number {
  return 1 - step / numIterations;
}

/** Returns the factor of the AdamW learning rates at width C: they were tuned at 768. */
export function widthLrScale(width: number): number {
  return (width / 768) ** -0.5;
}
