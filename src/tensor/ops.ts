/**
 * The op table: forward and backward of every tensor operation side by side, with formulas for FLOPs and bytes.
 *
 * Each exported function applies one row. Shapes are in comments; `rows` is B*T. Kernels are described in src/native/abi.ts. The rows of
 * attention and of the output layer have files of their own.
 */
import { EPILOGUE, PACK } from "../native/abi.ts";
import { type DType, dtypeBytes, dtypeCode } from "./dtype.ts";
import type { Parameter } from "./parameter.ts";
import { elementwise, type Op, product, type Tape } from "./tape.ts";
import { rowsAndWidth, type Tensor } from "./tensor.ts";

export * from "./ops_attention.ts";
export * from "./ops_head.ts";

/** Machine epsilon of f32: what PyTorch's rms_norm adds when no epsilon is given. */
export const RMS_EPS = 2 ** -23;

const code = (x: Tensor) => dtypeCode(x.dtype);

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
    const { flops, bytes } = product(x, w);
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
