/**
 * The rows of the op table for the output layer: loss with its gradient, and for inference chosen rows, their scores and logits.
 */
import { EPILOGUE, PACK } from "../native/abi.ts";
import { type DType, dtypeBytes, dtypeCode } from "./dtype.ts";
import type { Parameter } from "./parameter.ts";
import { type Op, product, type Tape } from "./tape.ts";
import { rowsAndWidth, type Tensor } from "./tensor.ts";

const code = (x: Tensor) => dtypeCode(x.dtype);

// ---- lm_head + softcap + cross entropy -----------------------------------------------------------------------------------------------

interface LossArgs {
  readonly x: Tensor; // (..., C)
  readonly w: Parameter; // (Vp, C)
  readonly V: number;
  readonly targets: Tensor; // (...) i32, -1 = ignored
  readonly weights: Tensor | null; // (...) f32; null = no gradient
  readonly softcap: number;
}

/** Rows of logits that exist at once. */
export function lossChunk(rows: number, Vp: number): number {
  const fitting = Math.floor(2 ** 23 / Vp); // 8 Mi logits: 32 MiB, what a large L3 cache holds
  // At least 256 rows: every chunk reads w twice and dw once (V = 65,536, C = 256, f32: 443 ms of CPU time; 752 with 64 rows).
  return Math.max(1, Math.min(rows, Math.max(256, fitting)));
}

function lossScratch(t: Tape, rows: number, Vp: number, dtype: DType): { scratch: Tensor; chunk: number } {
  const chunk = lossChunk(rows, Vp);
  return { chunk, scratch: t.scratch([chunk * Vp * (4 + dtypeBytes(dtype)) + 65536], "i8") };
}

const lossOp: Op<LossArgs, { losses: Tensor }> = {
  // The gradient is computed in the same pass, so that no logits are kept: forward writes dx and dw, there is no backward half.
  forward(t, { x, w, V, targets, weights, softcap }) {
    const { rows, C } = rowsAndWidth(x);
    const [Vp] = w.shape;
    const losses = t.saved(targets.shape, "f32");
    const dx = weights ? t.gradientTarget(x) : null;
    const dw = weights ? t.parameterTarget(w) : null;
    const W = w.headOperand();
    const { scratch, chunk } = lossScratch(t, rows, Vp, x.dtype);
    t.nc.lm_head_loss(
      ...[
        t.ctx,
        losses.pointer,
        dx?.pointer ?? null,
        dw?.pointer ?? null,
        x.pointer,
        W.pointer,
        targets.pointer,
      ] as const,
      ...[weights?.pointer ?? null, scratch.pointer, rows, C, V, Vp, chunk, softcap] as const,
      ...[dw?.accumulate ?? 0, code(x), W.dtype] as const,
    );
    return { losses };
  },
  cost({ x, w, weights }) {
    const { flops, bytes } = product(x, w);
    return weights ? { flops: 3 * flops, bytes: 3 * bytes } : { flops, bytes };
  },
};

/**
 * Scores targets: cross entropy of softcap * tanh(x W^T / softcap) over the unpadded vocabulary, one loss per token, 0 where ignored.
 * With `weights` (one factor per token: 1/valid for a mean, an advantage for RL) the gradient of sum_t weights[t] * losses[t] is
 * computed in the same pass.
 */
export function lmHeadLoss(
  t: Tape,
  x: Tensor,
  options: { w: Parameter; V: number; targets: Tensor; weights?: Tensor | null; softcap: number },
): Tensor {
  return t.apply("lm_head_loss", lossOp, { x, weights: null, ...options }).losses;
}

// ---- chosen rows and their scores (inference) ----------------------------------------------------------------------------------------

interface GatherArgs {
  readonly x: Tensor; // (..., C)
  readonly index: Tensor; // (n) i32
}

const gatherOp: Op<GatherArgs, { y: Tensor }> = {
  forward(t, { x, index }) {
    const { rows, C } = rowsAndWidth(x);
    const y = t.saved([index.size, C], x.dtype);
    t.nc.gather_rows(t.ctx, y.pointer, x.pointer, index.pointer, index.size, C, rows, code(x));
    return { y };
  },
  cost: ({ x, index }) => ({ flops: 0, bytes: 2 * index.size * rowsAndWidth(x).C * dtypeBytes(x.dtype) }),
};

/** Copies the rows `index` (n) i32 of x (..., C), seen as (rows, C): (n, C). No gradient. */
export function gatherRows(t: Tape, x: Tensor, options: { index: Tensor }): Tensor {
  return t.apply("gather_rows", gatherOp, { x, ...options }).y;
}

interface ScoreArgs {
  readonly x: Tensor; // (n, C)
  readonly w: Parameter; // (Vp, C)
  readonly V: number;
  readonly targets: Tensor; // (n) i32
  readonly softcap: number;
}

/** What the head says about targets: the loss of each, (n) f32, and the most probable id in its place, (n) i32. */
export interface TokenScores {
  /** -log p of each target, in nats. */
  readonly losses: Tensor;
  /** The most probable id, the lowest among equals. */
  readonly argmax: Tensor;
}

const scoreOp: Op<ScoreArgs, TokenScores> = {
  forward(t, { x, w, V, targets, softcap }) {
    const { rows, C } = rowsAndWidth(x);
    const [Vp] = w.shape;
    const losses = t.saved(targets.shape, "f32");
    const argmax = t.saved(targets.shape, "i32");
    const { scratch, chunk } = lossScratch(t, rows, Vp, x.dtype);
    const W = w.headOperand();
    t.nc.lm_head_score(
      ...[t.ctx, losses.pointer, argmax.pointer, null, null, x.pointer, W.pointer, targets.pointer] as const,
      ...[scratch.pointer, rows, C, V, Vp, chunk, 0, softcap, code(x), W.dtype] as const,
    );
    return { losses, argmax };
  },
  cost: ({ x, w }) => product(x, w),
};

/** Scores targets (n) i32 at hidden states (n, C) as `lmHeadLoss` does, without gradients; the same bits whatever the other rows. */
export function lmHeadScore(
  t: Tape,
  x: Tensor,
  options: { w: Parameter; V: number; targets: Tensor; softcap: number },
): TokenScores {
  return t.apply("lm_head_score", scoreOp, { x, ...options });
}

// ---- logits (inference) --------------------------------------------------------------------------------------------------------------

interface LogitsArgs {
  readonly x: Tensor;
  readonly w: Parameter;
  readonly V: number;
  readonly softcap: number;
}

const logitsOp: Op<LogitsArgs, { logits: Tensor }> = {
  forward(t, { x, w, V, softcap }) {
    const { rows, C } = rowsAndWidth(x);
    const [Vp] = w.shape;
    const logits = t.saved([...x.shape.slice(0, -1), V], "f32");
    const raw = t.scratch([rows, Vp], x.dtype); // bf16: logits are rounded once, as in training
    const W = w.operand(PACK.FORWARD);
    t.nc.linear_fwd(
      ...[t.ctx, raw.pointer, null, x.pointer, W.pointer, null, null, null] as const,
      ...[rows, Vp, C, EPILOGUE.NONE, W.layout, code(raw), code(x), W.dtype] as const,
    );
    t.nc.softcap_fwd(t.ctx, logits.pointer, raw.pointer, rows, V, Vp, softcap, code(raw));
    return { logits };
  },
  cost: ({ x, w }) => product(x, w),
};

/** Computes logits (..., V), f32, softcapped. */
export function logits(t: Tape, x: Tensor, options: { w: Parameter; V: number; softcap: number }): Tensor {
  return t.apply("logits", logitsOp, { x, ...options }).logits;
}
