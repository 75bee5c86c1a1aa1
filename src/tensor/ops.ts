/**
 * The op table: forward and backward of every tensor operation side by side, with formulas for FLOPs and bytes.
 *
 * Each exported function applies one row. Shapes are in comments; `rows` is B*T. Kernels are described in src/native/abi.ts.
 */
import { EPILOGUE, PACK } from "../native/abi.ts";
import { type DType, dtypeBytes, dtypeCode } from "./dtype.ts";
import type { Parameter } from "./parameter.ts";
import type { Cost, Op, Tape } from "./tape.ts";
import { rowsAndWidth, type Tensor } from "./tensor.ts";

/** Machine epsilon of f32: what PyTorch's rms_norm adds when no epsilon is given. */
export const RMS_EPS = 2 ** -23;

const code = (x: Tensor) => dtypeCode(x.dtype);
/** Work of an op that touches memory `passes` times over x and computes little. */
const elementwise = (x: Tensor, passes: number, flops: number): Cost => ({
  flops: flops * x.size,
  bytes: passes * x.bytes,
});
/** Work of a product (M, K) x (K, N). */
function product(M: number, N: number, K: number, dtype: DType): Cost {
  return { flops: 2 * M * N * K, bytes: (M * K + N * K + M * N) * dtypeBytes(dtype) };
}

// ---- embedding: y = w[ids] -----------------------------------------------------------------------------------------------------------

interface EmbeddingArgs {
  readonly w: Parameter;
  readonly ids: Tensor;
  readonly dtype: DType;
}

const embeddingOp: Op<EmbeddingArgs, { y: Tensor }> = {
  forward(t, { w, ids, dtype }) {
    const [V, C] = w.shape;
    const y = t.recomputable([...ids.shape, C], dtype, (y) => {
      t.nc.embedding_fwd(t.ctx, y.pointer, w.master.pointer, ids.pointer, ids.size, C, V, code(y), code(w.master));
    });
    return { y };
  },
  backward(t, { w, ids }, { y }) {
    const [V, C] = w.shape;
    const dw = t.parameterTarget(w);
    t.nc.embedding_bwd(t.ctx, dw.pointer, t.gradient(y).pointer, ids.pointer, ids.size, C, V, dw.accumulate, code(y));
  },
  cost: ({ w, ids, dtype }, half) => {
    const moved = ids.size * w.shape[1];
    return half === "forward"
      ? { flops: 0, bytes: moved * (4 + dtypeBytes(dtype)) }
      : { flops: moved, bytes: moved * (8 + dtypeBytes(dtype)) + 4 * w.size };
  },
};

/** Looks token ids (...) up in a table (V, C): (..., C). The master weights are read, so no copy of the table is kept. */
export function embedding(t: Tape, w: Parameter, options: { ids: Tensor; dtype: DType }): Tensor {
  return t.apply("embedding", embeddingOp, { w, ...options }).y;
}

// ---- rmsnorm: y = x / sqrt(mean(x^2) + eps) ------------------------------------------------------------------------------------------

interface NormArgs {
  readonly x: Tensor;
  readonly keep: boolean;
}

const rmsnormOp: Op<NormArgs, { y: Tensor; rstd: Tensor }> = {
  forward(t, { x, keep }) {
    const { rows, C } = rowsAndWidth(x);
    const rstd = t.saved([rows], "f32");
    const compute = (y: Tensor) => {
      t.nc.rmsnorm_fwd(t.ctx, y.pointer, rstd.pointer, t.value(x).pointer, rows, C, RMS_EPS, code(x));
    };
    if (!keep) return { y: t.recomputable(x.shape, x.dtype, compute), rstd };
    const y = t.saved(x.shape, x.dtype);
    compute(y);
    return { y, rstd };
  },
  backward(t, { x }, { y, rstd }) {
    const { rows, C } = rowsAndWidth(x);
    const dx = t.gradientTarget(x);
    const dy = t.gradient(y).pointer;
    t.nc.rmsnorm_bwd(t.ctx, dx.pointer, dy, t.value(x).pointer, rstd.pointer, rows, C, dx.accumulate, code(x));
  },
  cost: ({ x }, half) => half === "forward" ? elementwise(x, 2, 3) : elementwise(x, 4, 8),
};

/** Normalises the last axis by its root mean square (arXiv:1910.07467, without gain). `keep`: save the result instead of recomputing it. */
export function rmsnorm(t: Tape, x: Tensor, options: { keep?: boolean } = {}): Tensor {
  return t.apply("rmsnorm", rmsnormOp, { x, keep: options.keep ?? false }).y;
}

// ---- linear: y = x W^T (+ residual) --------------------------------------------------------------------------------------------------

interface LinearArgs {
  readonly x: Tensor;
  readonly w: Parameter;
  readonly residual: Tensor | null;
  readonly relu2Of: Tensor | null; // x = relu2(relu2Of): backward reads relu2Of, and x need not be kept
  readonly keep: boolean; // false: the output is only read by the next op, whose backward does not need it
}

const linearOp: Op<LinearArgs, { y: Tensor }> = {
  forward(t, { x, w, residual, keep }) {
    const { rows: M } = rowsAndWidth(x);
    const [N, K] = w.shape;
    const shape = [...x.shape.slice(0, -1), N];
    // Without gradients the residual stream is updated in place.
    const y = residual && !t.training ? residual : keep ? t.saved(shape, x.dtype) : t.scratch(shape, x.dtype);
    const W = w.operand(PACK.FORWARD);
    const add = residual?.pointer ?? null;
    t.nc.linear_fwd(
      ...[t.ctx, y.pointer, null, x.pointer, W.pointer, add, null, null] as const,
      ...[M, N, K, EPILOGUE.NONE, W.layout, code(y), code(x), W.dtype] as const,
    );
    return { y };
  },
  backward(t, { x, w, residual, relu2Of }, { y }) {
    const { rows: M } = rowsAndWidth(x);
    const [N, K] = w.shape;
    const dy = t.gradient(y);
    const h = relu2Of ?? t.value(x);
    const epilogue = relu2Of ? EPILOGUE.RELU2 : EPILOGUE.NONE;
    const dw = t.parameterTarget(w);
    t.nc.linear_bwd_w(
      t.ctx,
      dw.pointer,
      dy.pointer,
      h.pointer,
      null,
      null,
      M,
      N,
      K,
      epilogue,
      dw.accumulate,
      code(dy),
      code(h),
    );
    const W = w.operand(PACK.BACKWARD);
    const dx = t.gradientTarget(relu2Of ?? x);
    const aux = relu2Of?.pointer ?? null;
    t.nc.linear_bwd_x(
      ...[t.ctx, dx.pointer, dy.pointer, W.pointer, aux, null, null] as const,
      ...[M, N, K, epilogue, dx.accumulate, W.layout, code(x), code(dy), W.dtype] as const,
    );
    if (residual) t.passGradient(residual, y);
  },
  cost({ x, w }, half) {
    const { flops, bytes } = product(rowsAndWidth(x).rows, ...w.shape, x.dtype);
    return half === "forward" ? { flops, bytes } : { flops: 2 * flops, bytes: 2 * bytes };
  },
};

/** Applies a linear map (N, K) to (..., K): (..., N), plus `residual` (..., N) where given. `keep: false` drops it after the next op. */
export function linear(t: Tape, x: Tensor, options: { w: Parameter; residual?: Tensor; keep?: boolean }): Tensor {
  const { w, residual = null, keep = true } = options;
  return t.apply("linear", linearOp, { x, w, residual, keep, relu2Of: null }).y;
}

interface Relu2Args {
  readonly x: Tensor;
  readonly w: Parameter;
}

const linearRelu2Op: Op<Relu2Args, { h: Tensor; y: Tensor }> = {
  forward(t, { x, w }) {
    const { rows: M } = rowsAndWidth(x);
    const [N, K] = w.shape;
    const shape = [...x.shape.slice(0, -1), N];
    const h = t.training ? t.saved(shape, x.dtype) : null;
    const y = t.scratch(shape, x.dtype);
    const W = w.operand(PACK.FORWARD);
    t.nc.linear_fwd(
      ...[t.ctx, y.pointer, h?.pointer ?? null, x.pointer, W.pointer, null, null, null] as const,
      ...[M, N, K, EPILOGUE.RELU2, W.layout, code(y), code(x), W.dtype] as const,
    );
    return { h: h ?? y, y };
  },
  backward(t, { x, w }, { h }) {
    const { rows: M } = rowsAndWidth(x);
    const [N, K] = w.shape;
    const dh = t.gradient(h);
    const input = t.value(x);
    const dw = t.parameterTarget(w);
    t.nc.linear_bwd_w(
      ...[t.ctx, dw.pointer, dh.pointer, input.pointer, null, null] as const,
      ...[M, N, K, EPILOGUE.NONE, dw.accumulate, code(dh), code(input)] as const,
    );
    const W = w.operand(PACK.BACKWARD);
    const dx = t.gradientTarget(x);
    t.nc.linear_bwd_x(
      ...[t.ctx, dx.pointer, dh.pointer, W.pointer, null, null, null] as const,
      ...[M, N, K, EPILOGUE.NONE, dx.accumulate, W.layout, code(x), code(dh), W.dtype] as const,
    );
  },
  cost: (args, half) => linearOp.cost({ ...args, residual: null, relu2Of: null, keep: false }, half),
};

/**
 * Applies the two maps of the feed-forward layer: residual + W2 max(W1 x, 0)^2 (arXiv:2109.08668). Only h = W1 x is saved; its
 * squared rectifier is computed again inside the products of backward.
 */
export function feedForward(t: Tape, x: Tensor, options: { up: Parameter; down: Parameter; residual: Tensor }): Tensor {
  const { h, y } = t.apply("linear_relu2", linearRelu2Op, { x, w: options.up }); // (..., F) both
  return t.apply("linear", linearOp, { x: y, w: options.down, residual: options.residual, relu2Of: h, keep: true }).y;
}

// ---- rotary embedding and query/key norm ---------------------------------------------------------------------------------------------

/** Rotary tables, f32 (length, D/2) each. */
export interface Rotary {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

interface RopeArgs {
  readonly x: Tensor; // (B, T, heads*D)
  readonly rotary: Rotary;
  readonly positions: Tensor | null; // (B) i32: position of each row's first token; null = 0
}

function ropeSizes({ x, rotary }: RopeArgs): { B: number; T: number; heads: number; D: number; length: number } {
  const [B, T, width] = x.shape;
  const [length, half] = rotary.cos.shape;
  return { B, T, heads: width / (2 * half), D: 2 * half, length };
}

const ropeOp: Op<RopeArgs, { y: Tensor; rstd: Tensor }> = {
  forward(t, args) {
    const { B, T, heads, D, length } = ropeSizes(args);
    const { x, rotary: { cos, sin }, positions } = args;
    const y = t.saved(x.shape, x.dtype);
    const rstd = t.saved([B, T, heads], "f32");
    t.nc.qk_rope_norm_fwd(
      ...[t.ctx, y.pointer, rstd.pointer, x.pointer, cos.pointer, sin.pointer, positions?.pointer ?? null] as const,
      ...[B, T, heads, D, length, RMS_EPS, 1, code(x)] as const,
    );
    return { y, rstd };
  },
  backward(t, args, { y, rstd }) {
    const { B, T, heads, D, length } = ropeSizes(args);
    const { x, rotary: { cos, sin }, positions } = args;
    const dx = t.gradientTarget(x);
    t.nc.qk_rope_norm_bwd(
      ...[t.ctx, dx.pointer, t.gradient(y).pointer, y.pointer, rstd.pointer, cos.pointer, sin.pointer] as const,
      ...[positions?.pointer ?? null, B, T, heads, D, length, 1, dx.accumulate, code(x)] as const,
    );
  },
  cost: ({ x }, half) => half === "forward" ? elementwise(x, 2, 6) : elementwise(x, 4, 12),
};

/**
 * Rotates queries or keys (B, T, heads*D) by their position (arXiv:2104.09864, halves, minus theta), then normalises each head
 * (arXiv:2010.04245): the same shape. The input is not kept.
 */
export function ropeNorm(t: Tape, x: Tensor, options: { rotary: Rotary; positions?: Tensor | null }): Tensor {
  return t.apply("qk_rope_norm", ropeOp, { x, rotary: options.rotary, positions: options.positions ?? null }).y;
}

// ---- attention -----------------------------------------------------------------------------------------------------------------------

interface AttentionArgs {
  readonly q: Tensor; // (B, T, H*D)
  readonly k: Tensor; // (B, T, G*D)
  readonly v: Tensor; // (B, T, G*D)
  readonly D: number;
  readonly lengths: Tensor | null; // (B) i32: valid tokens of each row
  readonly window: number; // query i sees keys i-window..i; -1 = all before it
}

function attentionSizes({ q, k, D }: AttentionArgs): { B: number; T: number; H: number; G: number } {
  const [B, T, width] = q.shape;
  return { B, T, H: width / D, G: k.shape[2] / D };
}

const attentionOp: Op<AttentionArgs, { o: Tensor; lse: Tensor }> = {
  forward(t, args) {
    const { B, T, H, G } = attentionSizes(args);
    const { q, k, v, D, lengths, window } = args;
    const o = t.saved(q.shape, q.dtype);
    const lse = t.saved([B, H, T], "f32");
    t.nc.attention_fwd(
      ...[t.ctx, o.pointer, lse.pointer, q.pointer, k.pointer, v.pointer, lengths?.pointer ?? null] as const,
      ...[B, T, H, G, D, window, 1 / Math.sqrt(D), code(q)] as const,
    );
    return { o, lse };
  },
  backward(t, args, { o, lse }) {
    const { B, T, H, G } = attentionSizes(args);
    const { q, k, v, D, lengths, window } = args;
    const delta = t.scratch([B, H, T], "f32");
    const targets = [q, k, v].map((x) => t.gradientTarget(x));
    if (targets.some(({ accumulate }) => accumulate)) {
      throw new Error("Cannot run attention backward: q, k or v has another consumer, expected attention alone");
    }
    const [dq, dk, dv] = targets;
    t.nc.attention_bwd(
      ...[t.ctx, dq.pointer, dk.pointer, dv.pointer, delta.pointer, t.gradient(o).pointer] as const,
      ...[q.pointer, k.pointer, v.pointer, o.pointer, lse.pointer, lengths?.pointer ?? null] as const,
      ...[B, T, H, G, D, window, 1 / Math.sqrt(D), code(q)] as const,
    );
  },
  cost(args, half) {
    const { B, T, H } = attentionSizes(args);
    const flops = 2 * B * H * T * T * args.D; // causal: half of the 4 B H T^2 D of full attention
    const bytes = 2 * (args.q.bytes + args.k.bytes);
    return half === "forward" ? { flops, bytes } : { flops: 2.5 * flops, bytes: 2.5 * bytes };
  },
};

/** Attends causally: softmax(q k^T / sqrt(D)) v per head, query head h with key/value head floor(h*G/H): (B, T, H*D). */
export function attention(
  t: Tape,
  qkv: { q: Tensor; k: Tensor; v: Tensor },
  options: { D: number; lengths?: Tensor | null; window?: number },
): Tensor {
  const { D, lengths = null, window = -1 } = options;
  return t.apply("attention", attentionOp, { ...qkv, D, lengths, window }).o;
}

// ---- attention over a cache (inference) ----------------------------------------------------------------------------------------------

/** Keys and values of one layer, (B, G, capacity, D) each, and how full each row is. */
export interface LayerCache {
  /** Keys, normalised and rotated. */
  readonly k: Tensor;
  /** Values. */
  readonly v: Tensor;
  /** (B) i32: tokens cached before this chunk. */
  readonly positions: Tensor;
  /** (B) i32: valid new tokens of this chunk; 0 = idle row. */
  readonly counts: Tensor;
}

function appendToCache(
  t: Tape,
  { k, v }: { k: Tensor; v: Tensor },
  { D, cache }: { D: number; cache: LayerCache },
): void {
  const [B, T, width] = k.shape;
  t.nc.kv_append(
    ...[t.ctx, cache.k.pointer, cache.v.pointer, k.pointer, v.pointer] as const,
    ...[cache.positions.pointer, cache.counts.pointer, B, T, width / D, D, cache.k.shape[2], code(k)] as const,
  );
}

interface CachedArgs extends AttentionArgs {
  readonly cache: LayerCache;
}

const cachedAttentionOp: Op<CachedArgs, { o: Tensor }> = {
  forward(t, args) {
    const { B, T, H, G } = attentionSizes(args);
    const { q, k, v, D, window, cache } = args;
    const capacity = cache.k.shape[2];
    const o = t.saved(q.shape, q.dtype);
    appendToCache(t, { k, v }, { D, cache });
    t.nc.attention_cached_fwd(
      ...[
        t.ctx,
        o.pointer,
        q.pointer,
        cache.k.pointer,
        cache.v.pointer,
        cache.positions.pointer,
        cache.counts.pointer,
      ] as const,
      ...[B, T, H, G, D, capacity, window, 1 / Math.sqrt(D), code(q)] as const,
    );
    return { o };
  },
  cost: ({ q, cache }) => ({ flops: 4 * q.size * cache.k.shape[2], bytes: 2 * cache.k.bytes }),
};

/** Appends a chunk to the cache and attends to everything cached: (B, T, H*D). Batch-invariant; no gradient. */
export function cachedAttention(
  t: Tape,
  qkv: { q: Tensor; k: Tensor; v: Tensor },
  options: { D: number; cache: LayerCache; window?: number },
): Tensor {
  const { D, cache, window = -1 } = options;
  return t.apply("attention_cached", cachedAttentionOp, { ...qkv, D, cache, lengths: null, window }).o;
}

/**
 * Fills empty cache rows with a chunk and attends to the chunk alone, with the kernel of training: twice as fast as `cachedAttention`
 * on long chunks, but the bits depend on where a prompt is cut. No gradient.
 */
export function firstAttention(
  t: Tape,
  qkv: { q: Tensor; k: Tensor; v: Tensor },
  { D, cache }: { D: number; cache: LayerCache },
): Tensor {
  appendToCache(t, qkv, { D, cache });
  return attention(t, qkv, { D, lengths: cache.counts });
}

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
  const fitting = Math.floor(2 ** 22 / Vp); // 4 Mi logits: 16 MiB, half of a large L3 cache
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
    const { scratch, chunk } = lossScratch(t, rows, Vp, x.dtype);
    t.nc.lm_head_loss(
      ...[
        t.ctx,
        losses.pointer,
        dx?.pointer ?? null,
        dw?.pointer ?? null,
        x.pointer,
        w.copy.pointer,
        targets.pointer,
      ] as const,
      ...[weights?.pointer ?? null, scratch.pointer, rows, C, V, Vp, chunk, softcap] as const,
      ...[dw?.accumulate ?? 0, code(x), code(w.copy)] as const,
    );
    return { losses };
  },
  cost({ x, w, weights }) {
    const { flops, bytes } = product(rowsAndWidth(x).rows, ...w.shape, x.dtype);
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
    t.nc.lm_head_score(
      ...[t.ctx, losses.pointer, argmax.pointer, null, null, x.pointer, w.copy.pointer, targets.pointer] as const,
      ...[scratch.pointer, rows, C, V, Vp, chunk, 0, softcap, code(x), code(w.copy)] as const,
    );
    return { losses, argmax };
  },
  cost: ({ x, w }) => product(rowsAndWidth(x).rows, ...w.shape, x.dtype),
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
  cost: ({ x, w }) => product(rowsAndWidth(x).rows, ...w.shape, x.dtype),
};

/** Computes logits (..., V), f32, softcapped. */
export function logits(t: Tape, x: Tensor, options: { w: Parameter; V: number; softcap: number }): Tensor {
  return t.apply("logits", logitsOp, { x, ...options }).logits;
}
