/**
 * What the conformance suite allows: how far the result of an op may lie from the plain loop, as one function of type, reduction length
 * and the sizes of what is added up. Every allowance has a reason; anything larger is a wrong result.
 *
 * Inputs are exactly representable. An element of value v that adds up n terms of absolute sum S ("magnitude") may be off by
 *
 *   4 sqrt(n) 2^-24 S     fp32 accumulation in any order, and elementary functions of some units in the last place
 * + u R                   where an op rounds intermediates to its compute type, u = 2^-24 or 2^-8: their absolute contributions R to
 *                         the element ("rounded"); 0 for an op without such intermediates
 * + half the spacing of the stored type at v: the one rounding of the output, 2^-9 to 2^-8 of v in bf16.
 *
 * The functions below work out S and R by the formulas of the gradients with absolute values in place of signs.
 */
import type { DType } from "./dtype.ts";
import * as plain from "./plain.ts";

/** What an element adds up. */
export interface Sum {
  /** Terms of the longest chain of additions. */
  readonly terms: number;
  /** Absolute values of the terms added up, per element. */
  readonly magnitude: Float64Array;
  /** Contributions of intermediates that are rounded to the compute type, per element; absent = none. */
  readonly rounded?: Float64Array;
}

const BITS: Partial<Record<DType, number>> = { f32: 24, bf16: 8 }; // of the significand, the hidden one included

/** Half the distance between neighbours at |v| in a type. */
export function halfSpacing(dtype: DType, v: number): number {
  const exponent = v === 0 ? -126 : Math.max(-126, Math.floor(Math.log2(Math.abs(v))));
  return 2 ** (exponent - BITS[dtype]!);
}

/** Absolute error that an element of value `value` may have, computed in `dtype` and stored in `stored`. */
export function tolerance(
  dtype: DType,
  { stored, value, terms, magnitude, rounded }: {
    stored: DType;
    value: number;
    terms: number;
    magnitude: number;
    rounded: number;
  },
): number {
  const error = 4 * Math.sqrt(terms) * 2 ** -24 * magnitude + 2 ** -BITS[dtype]! * rounded;
  return error + halfSpacing(stored, Math.abs(value) + error);
}

/** |x| element by element. */
export const abs = (x: ArrayLike<number>): Float64Array => Float64Array.from(x, Math.abs);

/** x (rows, cols) transposed, for sums over rows: linear(transpose(dy), transpose(x)) = dy^T x. */
export function transpose(x: ArrayLike<number>, cols: number): Float64Array {
  const rows = x.length / cols;
  return Float64Array.from({ length: x.length }, (_, i) => x[(i % rows) * cols + Math.floor(i / rows)]);
}

/** The sums of y = x W^T + residual and of its gradients; |x|, |W| and |dy| may be given as the absolute sums of a chain. */
export function linearSums(
  { x, w, dy, K, N }: { x: Float64Array; w: Float64Array; dy: Float64Array; K: number; N: number },
): Record<"y" | "dx" | "dw", Float64Array> {
  return {
    y: plain.linear(x, w, K), // x (M, K), w (N, K)
    dx: plain.linear(dy, transpose(w, K), N), // dy (M, N), w^T (K, N)
    dw: plain.linear(transpose(dy, N), transpose(x, K), x.length / K), // dy^T (N, M), x^T (K, M)
  };
}

/** The sums of the gradient of rmsnorm: dx = s dy - s^3 x mean(dy x). */
export function rmsnormSums(x: Float64Array, dy: Float64Array, { C, eps }: { C: number; eps: number }): Float64Array {
  const magnitude = new Float64Array(x.length);
  for (let r = 0; r < x.length; r += C) {
    let squares = 0, dots = 0;
    for (let i = r; i < r + C; i++) squares += x[i] ** 2;
    for (let i = r; i < r + C; i++) dots += Math.abs(x[i] * dy[i]);
    const s = (squares / C + eps) ** -0.5;
    for (let i = r; i < r + C; i++) magnitude[i] = s * Math.abs(dy[i]) + s ** 3 * Math.abs(x[i]) * dots / C;
  }
  return magnitude;
}

/**
 * The sums of ropeNorm and its gradient. `table` turns |x| into the absolute sums of the rotation. Backward reads y as it was stored, so
 * y is a rounded intermediate there, and it enters twice: as a factor and in mean(dy y).
 */
export function ropeNormSums(
  x: Float64Array,
  dy: Float64Array,
  s: Parameters<typeof plain.ropeNorm>[1],
): { y: Float64Array; dx: Float64Array; dxRounded: Float64Array } {
  const { B, T, heads, D, eps } = s, half = D / 2;
  const result = {
    y: new Float64Array(x.length),
    dx: new Float64Array(x.length),
    dxRounded: new Float64Array(x.length),
  };
  const y = plain.ropeNorm(x, s);
  for (let head = 0; head < B * T * heads; head++) {
    const base = head * D, token = Math.floor(head / heads);
    const at = (s.start[Math.floor(token / T)] + token % T) * half;
    // |r1| <= |x1 cos| + |x2 sin|, and the same for the other half and for the way back.
    const turn = (from: (i: number) => number) =>
      Float64Array.from({ length: D }, (_, i) => {
        const j = i % half;
        return from(i) * Math.abs(s.cos[at + j]) + from((i + half) % D) * Math.abs(s.sin[at + j]);
      });
    const sums = turn((i) => Math.abs(x[base + i]));
    let norm = 0;
    for (let i = 0; i < D; i++) norm += x[base + i] ** 2; // a rotation keeps it
    const rstd = (norm / D + eps) ** -0.5;
    // Relative error of rstd in units of the accumulation: sum |r| S / sum r^2.
    let spread = 0, dots = 0;
    for (let i = 0; i < D; i++) spread += Math.abs(y[base + i]) / rstd * sums[i] / norm;
    for (let i = 0; i < D; i++) dots += Math.abs(dy[base + i] * y[base + i]) / D;
    const dx = turn((i) => (1 + spread) * rstd * (Math.abs(dy[base + i]) + Math.abs(y[base + i]) * dots));
    const rounded = turn((i) => 2 * rstd * Math.abs(y[base + i]) * dots);
    for (let i = 0; i < D; i++) result.y[base + i] = sums[i] * rstd + Math.abs(y[base + i]) * spread;
    result.dx.set(dx, base);
    result.dxRounded.set(rounded, base);
  }
  return result;
}

/**
 * The sums of the feed-forward layer y = residual + W2 r, r = max(h, 0)^2, h = W1 x, and of its gradients. h, r and dh are stored, so
 * they are rounded: r by three units (twice through h), dh by two (its own rounding, and h as its factor).
 */
export function feedForwardSums(
  { x, up, down, dy, C, F }: Record<"x" | "up" | "down" | "dy", Float64Array> & { C: number; F: number },
): Record<"y" | "dx" | "dUp" | "dDown", { magnitude: Float64Array; rounded: Float64Array }> {
  const h = plain.linear(x, up, C); // (M, F)
  const sums = plain.linear(abs(x), abs(up), C);
  const r = h.map((h, i) => 2 * Math.abs(h) * sums[i]); // what an error of h makes of r, and at least r
  const rRounded = plain.relu2(h).map((r) => 3 * r);
  const dr = plain.linear(dy, transpose(down, F), C); // (M, F)
  const drSums = plain.linear(abs(dy), abs(transpose(down, F)), C);
  const dh = h.map((h, i) => 2 * (Math.max(h, 0) * drSums[i] + Math.abs(dr[i]) * sums[i]));
  const dhRounded = h.map((h, i) => 2 * Math.abs(2 * Math.max(h, 0) * dr[i]));
  const first = (dy: Float64Array) => linearSums({ x: abs(x), w: abs(up), dy, K: C, N: F });
  const second = (x: Float64Array) => linearSums({ x, w: abs(down), dy: abs(dy), K: F, N: C });
  const [all, own] = [first(dh), first(dhRounded)], [allDown, ownDown] = [second(r), second(rRounded)];
  return {
    y: { magnitude: allDown.y, rounded: ownDown.y },
    dx: { magnitude: all.dx, rounded: own.dx },
    dUp: { magnitude: all.dw, rounded: own.dw },
    dDown: { magnitude: allDown.dw, rounded: ownDown.dw },
  };
}

/** Values and sums that one query and one key of attention add to. */
type AttentionSums = Record<"o" | "dq" | "dk" | "dv", { magnitude: Float64Array; rounded: Float64Array }>;

/**
 * The sums of attention and of its gradients. Rounded are the weights p and ds where they become operands of a product, and the stored
 * o, which backward reads in delta = do . o.
 */
export function attentionSums(
  { q, k, v, dy }: Record<"q" | "k" | "v" | "dy", Float64Array>,
  { B, T, H, G, D, window, lengths }: plain.AttentionSizes,
): AttentionSums {
  const scale = D ** -0.5;
  const zeros = (x: Float64Array) => ({ magnitude: new Float64Array(x.length), rounded: new Float64Array(x.length) });
  const sums: AttentionSums = { o: zeros(q), dq: zeros(q), dk: zeros(k), dv: zeros(v) };
  const dots = (a: Float64Array, i: number, b: Float64Array, j: number) => {
    let dot = 0, size = 0;
    for (let d = 0; d < D; d++) dot += a[i + d] * b[j + d];
    for (let d = 0; d < D; d++) size += Math.abs(a[i + d] * b[j + d]);
    return { dot, size };
  };
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      for (let i = 0; i < lengths[b]; i++) {
        const atQ = ((b * T + i) * H + h) * D, first = window < 0 ? 0 : Math.max(0, i - window);
        const keys = Array.from(
          { length: i + 1 - first },
          (_, n) => ((b * T + first + n) * G + Math.floor(h * G / H)) * D,
        );
        const scores = keys.map((at) => dots(q, atQ, k, at));
        const largest = Math.max(...scores.map(({ dot }) => dot * scale));
        const total = scores.reduce((sum, { dot }) => sum + Math.exp(dot * scale - largest), 0);
        const p = scores.map(({ dot }) => Math.exp(dot * scale - largest) / total);
        const mean = scores.reduce((sum, { size }, n) => sum + p[n] * size * scale, 0);
        const dp = keys.map((at) => dots(dy, atQ, v, at));
        const delta = dp.reduce((sum, { dot }, n) => sum + p[n] * dot, 0);
        const deltaSize = dp.reduce((sum, { size }, n) => sum + p[n] * size, 0); // at least sum_d |do_d o_d|
        keys.forEach((at, n) => {
          const loose = 1 + scores[n].size * scale + mean; // relative error of p in units of the accumulation
          const ds = scale * p[n] * Math.abs(dp[n].dot - delta);
          const dsSum = scale * p[n] * (dp[n].size + deltaSize) + ds * loose;
          const dsRounded = ds + scale * p[n] * deltaSize;
          for (let d = 0; d < D; d++) {
            const value = p[n] * Math.abs(v[at + d]), dv = p[n] * Math.abs(dy[atQ + d]);
            sums.o.magnitude[atQ + d] += value * loose;
            sums.o.rounded[atQ + d] += value;
            sums.dq.magnitude[atQ + d] += dsSum * Math.abs(k[at + d]);
            sums.dq.rounded[atQ + d] += dsRounded * Math.abs(k[at + d]);
            sums.dk.magnitude[at + d] += dsSum * Math.abs(q[atQ + d]);
            sums.dk.rounded[at + d] += dsRounded * Math.abs(q[atQ + d]);
            sums.dv.magnitude[at + d] += dv * loose;
            sums.dv.rounded[at + d] += dv;
          }
        });
      }
    }
  }
  return sums;
}

/**
 * The sums of the losses and their gradients: h = x W^T is rounded once, dh once. An error of h_j changes the capped logit by its slope,
 * a weight p_j by itself times that and times the mean of all, and the slope by 2 l / cap^2.
 */
export function lossSums(
  { x, w, targets, weights }: {
    x: Float64Array;
    w: Float64Array;
    targets: ArrayLike<number>;
    weights: ArrayLike<number>;
  },
  { C, V, softcap }: { C: number; V: number; softcap: number },
): Record<"losses" | "dx" | "dw", { magnitude: Float64Array; rounded: Float64Array }> {
  const rows = x.length / C;
  const h = plain.linear(x, w.subarray(0, V * C), C), hSums = plain.linear(abs(x), abs(w.subarray(0, V * C)), C);
  const losses = { magnitude: new Float64Array(rows), rounded: new Float64Array(rows) };
  const dh = { magnitude: new Float64Array(rows * V), rounded: new Float64Array(rows * V) };
  for (let row = 0; row < rows; row++) {
    if (targets[row] < 0) continue;
    const at = (j: number) => row * V + j;
    const l = Array.from({ length: V }, (_, j) => softcap * Math.tanh(h[at(j)] / softcap));
    const slope = l.map((l) => 1 - (l / softcap) ** 2);
    const largest = Math.max(...l), total = l.reduce((sum, l) => sum + Math.exp(l - largest), 0);
    const p = l.map((l) => Math.exp(l - largest) / total);
    const sizes = {
      magnitude: (j: number) => hSums[at(j)] * slope[j] + Math.abs(l[j]),
      rounded: (j: number) => Math.abs(h[at(j)]) * slope[j],
    };
    for (const kind of ["magnitude", "rounded"] as const) {
      const size = sizes[kind];
      const mean = p.reduce((sum, p, j) => sum + p * size(j), 0);
      losses[kind][row] = size(targets[row]) + mean + (kind === "magnitude" ? 1 : 0); // 1: the logarithm
      for (let j = 0; j < V; j++) {
        const off = j === targets[row] ? 1 - p[j] : p[j];
        const changed = p[j] * (size(j) + mean) * slope[j] + off * 2 * Math.abs(l[j]) / softcap ** 2 * size(j);
        const own = kind === "rounded" ? off * slope[j] : (p[j] + (j === targets[row] ? 1 : 0)) * slope[j];
        dh[kind][at(j)] = Math.abs(weights[row]) * (changed + own);
      }
    }
  }
  const [all, own] = [dh.magnitude, dh.rounded].map((dy) =>
    linearSums({ x: abs(x), w: abs(w.subarray(0, V * C)), dy, K: C, N: V })
  );
  return { losses, dx: { magnitude: all.dx, rounded: own.dx }, dw: { magnitude: all.dw, rounded: own.dw } };
}
