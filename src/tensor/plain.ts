/**
 * The specification of every op as plain loops in float64: what the conformance suite and `nanochat selftest` compare kernels with.
 * Slow and readable on purpose. Arrays are row-major; shapes are given by the sizes.
 */

/** y = x / sqrt(mean(x^2) + eps) per row of C. */
export function rmsnorm(x: Float64Array, { C, eps }: { C: number; eps: number }): Float64Array {
  const y = new Float64Array(x.length);
  for (let r = 0; r < x.length; r += C) {
    let sum = 0;
    for (let i = 0; i < C; i++) sum += x[r + i] ** 2;
    const rstd = 1 / Math.sqrt(sum / C + eps);
    for (let i = 0; i < C; i++) y[r + i] = x[r + i] * rstd;
  }
  return y;
}

/** y (M, N) = x (M, K) w (N, K)^T. */
export function linear(x: Float64Array, w: Float64Array, K: number): Float64Array {
  const M = x.length / K, N = w.length / K;
  const y = new Float64Array(M * N);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += x[m * K + k] * w[n * K + k];
      y[m * N + n] = sum;
    }
  }
  return y;
}

/** Rounds rows of K numbers to 8 bits, every step in f32: q = round(x (127 / max |x|)), ties to even, and the scale max |x| / 127 of a row. */
export function quantise(x: Float64Array, K: number): { q: Float64Array; scales: Float64Array } {
  const q = new Float64Array(x.length), scales = new Float64Array(x.length / K);
  for (let r = 0; r < scales.length; r++) {
    const row = x.subarray(r * K, (r + 1) * K);
    const largest = row.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const inverse = largest === 0 ? 0 : Math.fround(127 / largest);
    row.forEach((x, k) => {
      const scaled = Math.fround(x * inverse), low = Math.floor(scaled);
      const up = scaled - low > 0.5 || (scaled - low === 0.5 && low % 2 !== 0);
      q[r * K + k] = up ? low + 1 : low;
    });
    scales[r] = Math.fround(largest / 127);
  }
  return { q, scales };
}

/** y (M, N) = x (M, K) w (N, K)^T of both rounded to 8 bits: the sum of integers times the scale of x's row, then of w's, in f32. */
export function linearInt8(x: Float64Array, w: Float64Array, K: number): Float64Array {
  const a = quantise(x, K), b = quantise(w, K), N = b.scales.length;
  return linear(a.q, b.q, K).map((sum, i) =>
    Math.fround(Math.fround(Math.fround(sum) * a.scales[Math.floor(i / N)]) * b.scales[i % N])
  );
}

/** y = max(h, 0)^2. */
export function relu2(h: Float64Array): Float64Array {
  return h.map((x) => Math.max(x, 0) ** 2);
}

/** Rotates the halves of each head by minus the angle of its position, then normalises: x (B, T, heads, D), tables (length, D/2). */
export function ropeNorm(
  x: Float64Array,
  s: {
    B: number;
    T: number;
    heads: number;
    D: number;
    cos: ArrayLike<number>;
    sin: ArrayLike<number>;
    start: ArrayLike<number>;
    eps: number;
  },
): Float64Array {
  const half = s.D / 2;
  const y = new Float64Array(x.length);
  for (let b = 0; b < s.B; b++) {
    for (let t = 0; t < s.T; t++) {
      for (let h = 0; h < s.heads; h++) {
        const base = ((b * s.T + t) * s.heads + h) * s.D;
        for (let j = 0; j < half; j++) {
          const p = (s.start[b] + t) * half + j;
          y[base + j] = x[base + j] * s.cos[p] + x[base + half + j] * s.sin[p];
          y[base + half + j] = -x[base + j] * s.sin[p] + x[base + half + j] * s.cos[p];
        }
      }
    }
  }
  return rmsnorm(y, { C: s.D, eps: s.eps });
}

/** Sizes of an attention. */
export interface AttentionSizes {
  readonly B: number;
  readonly T: number;
  readonly H: number;
  readonly G: number;
  readonly D: number;
  /** Keys before the query that it sees; -1 = all. */
  readonly window: number;
  /** Valid tokens of each row. */
  readonly lengths: ArrayLike<number>;
}

/** Causal softmax(q k^T / sqrt(D)) v: q (B, T, H, D), k and v (B, T, G, D). */
export function attention(q: Float64Array, k: Float64Array, v: Float64Array, s: AttentionSizes): Float64Array {
  const { B, T, H, G, D } = s;
  const o = new Float64Array(q.length);
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      const g = Math.floor(h * G / H);
      for (let i = 0; i < s.lengths[b]; i++) {
        const first = s.window < 0 ? 0 : Math.max(0, i - s.window);
        const scores: number[] = [];
        for (let j = first; j <= i; j++) {
          let dot = 0;
          for (let d = 0; d < D; d++) dot += q[((b * T + i) * H + h) * D + d] * k[((b * T + j) * G + g) * D + d];
          scores.push(dot / Math.sqrt(D));
        }
        const max = Math.max(...scores);
        const weights = scores.map((x) => Math.exp(x - max));
        const sum = weights.reduce((a, c) => a + c, 0);
        for (let j = first; j <= i; j++) {
          for (let d = 0; d < D; d++) {
            o[((b * T + i) * H + h) * D + d] += weights[j - first] / sum * v[((b * T + j) * G + g) * D + d];
          }
        }
      }
    }
  }
  return o;
}

/** Gradients of `attention` for a gradient dy of its result. */
export function attentionGradients(
  { q, k, v, dy }: Record<"q" | "k" | "v" | "dy", Float64Array>,
  s: AttentionSizes,
): Record<"q" | "k" | "v", Float64Array> {
  const { B, T, H, G, D } = s;
  const scale = 1 / Math.sqrt(D);
  const gradients = { q: new Float64Array(q.length), k: new Float64Array(k.length), v: new Float64Array(v.length) };
  const dot = (a: Float64Array, i: number, b: Float64Array, j: number) => {
    let sum = 0;
    for (let d = 0; d < D; d++) sum += a[i + d] * b[j + d];
    return sum;
  };
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      for (let i = 0; i < s.lengths[b]; i++) {
        const query = ((b * T + i) * H + h) * D, first = s.window < 0 ? 0 : Math.max(0, i - s.window);
        const keys = Array.from(
          { length: i + 1 - first },
          (_, n) => ((b * T + first + n) * G + Math.floor(h * G / H)) * D,
        );
        const scores = keys.map((key) => scale * dot(q, query, k, key));
        const max = Math.max(...scores);
        const total = scores.reduce((sum, x) => sum + Math.exp(x - max), 0);
        const p = scores.map((x) => Math.exp(x - max) / total);
        const dp = keys.map((key) => dot(dy, query, v, key));
        const delta = dp.reduce((sum, x, n) => sum + p[n] * x, 0);
        keys.forEach((key, n) => {
          const ds = scale * p[n] * (dp[n] - delta);
          for (let d = 0; d < D; d++) {
            gradients.q[query + d] += ds * k[key + d];
            gradients.k[key + d] += ds * q[query + d];
            gradients.v[key + d] += p[n] * dy[query + d];
          }
        });
      }
    }
  }
  return gradients;
}

/** softcap * tanh(x W^T / softcap) over the first V rows of w. */
export function logits(
  x: Float64Array,
  w: Float64Array,
  { C, V, softcap }: { C: number; V: number; softcap: number },
): Float64Array {
  return linear(x, w.subarray(0, V * C), C).map((z) => softcap * Math.tanh(z / softcap));
}

/** -log softmax(logits)[target] per row, 0 where the target is -1. */
export function crossEntropy(z: Float64Array, targets: ArrayLike<number>, V: number): Float64Array {
  return Float64Array.from(targets, (target, row) => {
    if (target < 0) return 0;
    const part = z.subarray(row * V, (row + 1) * V);
    const max = part.reduce((a, c) => Math.max(a, c), -Infinity);
    const sum = part.reduce((a, c) => a + Math.exp(c - max), 0);
    return max + Math.log(sum) - part[target];
  });
}
