/**
 * The objective of reinforcement, as weights of the trainer's losses. With A the advantage of a sample, lp the log-probability of a
 * token now, old and ref the same when it was sampled and at the start of the run, the gradient with respect to lp is that of
 *
 *   A lp                                            REINFORCE, the default
 *   min(r A, clip(r, 1 - e, 1 + e) A), r = exp(lp - old)     `--clip=e` and several updates a rollout (arXiv:1707.06347)
 *   - kl (exp(ref - lp) - (ref - lp) - 1)           `--kl`, added to either (arXiv:2402.03300, equation 4)
 *
 * summed over the sampled tokens of a pass and divided by their number, by the passes and by the prompts. The loss is minus the
 * objective and a token's loss is -lp, so a weight is the derivative of the objective with respect to lp.
 */
import { hashIds } from "../data/dataloader.ts";
import { collate } from "./chat_batches.ts";
import type { Rollout } from "./rollouts.ts";
import type { HashedBatch } from "./session.ts";

/** Samples of one prompt that are trained on in one pass. */
export interface PolicyPass extends HashedBatch {
  /** Advantage of each row. */
  readonly advantages: readonly number[];
  /** Sampled tokens. */
  readonly tokens: number;
}

/** Cuts a rollout into passes of B rows, the last one filled up with empty rows. */
export function policyPasses(
  { sequences, masks }: Rollout,
  { advantages, B, pad, multiple }: {
    readonly advantages: readonly number[];
    readonly B: number;
    readonly pad: number;
    readonly multiple?: number;
  },
): PolicyPass[] {
  const rows = sequences.map((ids, i) => ({ ids: [...ids], mask: [...masks[i]] }));
  while (rows.length % B !== 0) rows.push({ ids: [], mask: [] });
  const { inputs, targets, columns } = collate(rows, { pad, multiple, keepLast: true });
  return Array.from({ length: rows.length / B }, (_, i) => {
    const part = (ids: Int32Array<ArrayBuffer>) => ids.slice(i * B * columns, (i + 1) * B * columns);
    const [x, y] = [part(inputs), part(targets)];
    const rowAdvantages = Array.from({ length: B }, (_, row) => advantages[i * B + row] ?? 0);
    const tokens = y.reduce((sum, target) => sum + (target >= 0 ? 1 : 0), 0);
    return { inputs: x, targets: y, advantages: rowAdvantages, tokens, hash: hashIds(x) };
  });
}

/** Log-probabilities of the targets of a pass, and the coefficients that use them. */
export interface PolicyTerms {
  /** Now. */
  readonly now: Float32Array;
  /** When the rollout was made. */
  readonly old: Float32Array;
  /** Of the model that the run started from; only with `kl`. */
  readonly reference?: Float32Array;
  /** Bound of the ratio; 0 = none. */
  readonly clip: number;
  /** Coefficient of the distance from the reference; 0 = none. */
  readonly kl: number;
}

/** Weighs each target of a pass; the trainer divides by passes and prompts. Without `terms`, the plain policy gradient. */
export function policyWeights(
  { targets, advantages, tokens }: PolicyPass,
  terms?: PolicyTerms,
): Float32Array<ArrayBuffer> {
  const columns = targets.length / advantages.length;
  return Float32Array.from(targets, (target, i) => {
    if (target < 0) return 0;
    const advantage = advantages[Math.floor(i / columns)];
    return (terms ? derivative(advantage, i, terms) : advantage) / Math.max(1, tokens);
  });
}

function derivative(advantage: number, i: number, { now, old, reference, clip, kl }: PolicyTerms): number {
  const ratio = Math.exp(now[i] - old[i]);
  const isClipped = clip > 0 && (advantage > 0 ? ratio > 1 + clip : ratio < 1 - clip);
  const pull = reference && kl > 0 ? kl * (Math.exp(reference[i] - now[i]) - 1) : 0;
  return (isClipped ? 0 : advantage * ratio) + pull;
}
