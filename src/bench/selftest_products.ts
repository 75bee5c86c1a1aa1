/**
 * The operations of `nanochat selftest` that multiply or reduce over much: products, attention, the output layer, sampling. As in
 * selftest_checks.ts.
 */
import { EPILOGUE, LAYOUT, PACK } from "../native/abi.ts";
import { type ComputeType, dtypeBytes, dtypeCode } from "../tensor/dtype.ts";
import { lossChunk } from "../tensor/ops.ts";
import * as plain from "../tensor/plain.ts";
import type { Check, Input, Lab } from "./selftest.ts";

const BOTH: readonly ComputeType[] = ["f32", "bf16"];
const ONE: readonly ComputeType[] = ["f32"];

/** Sizes of products: rows of 16 bytes and more, and odd ones. */
const SIZES = [[33, 72, 80], [5, 7, 9]] as const;
const SOFTCAP = 15;

const transpose = (x: ArrayLike<number>, cols: number) => {
  const rows = x.length / cols;
  return Float64Array.from({ length: x.length }, (_, i) => x[(i % rows) * cols + Math.floor(i / rows)]);
};

const PRODUCTS: Check[] = [
  {
    op: "linear_fwd",
    types: BOTH,
    run(t) {
      for (const [M, N, K] of SIZES) {
        const x = t.normal([M, K]), w = t.normal([N, K], { scale: K ** -0.5 }), residual = t.normal([M, N]);
        const loop = () => plain.linear(x.values, w.values, K);
        for (const epilogue of [EPILOGUE.NONE, EPILOGUE.RELU2]) {
          const y = t.tensor([M, N]), h = t.tensor([M, N]), isPlain = epilogue === EPILOGUE.NONE;
          t.device.nc.linear_fwd(
            ...[t.device.ctx, y.pointer, isPlain ? null : h.pointer, x.pointer, w.pointer] as const,
            ...[isPlain ? residual.pointer : null, null, null, M, N, K, epilogue, LAYOUT.ROWS] as const,
            ...[t.code, t.code, t.code] as const,
          );
          if (isPlain) t.expect(y, { terms: K, plain: () => loop().map((v, i) => v + residual.values[i]) });
          else {
            t.expect(y, { terms: 2 * K, rounded: 3, plain: () => plain.relu2(loop()) });
            t.expect(h, { terms: K, plain: loop });
          }
        }
      }
    },
  },
  {
    op: "linear_bwd_x",
    types: BOTH,
    run(t) {
      for (const [M, N, K] of SIZES) {
        const dy = t.normal([M, N]), w = t.normal([N, K], { scale: N ** -0.5 }), dx = t.tensor([M, K]);
        t.device.nc.linear_bwd_x(
          ...[t.device.ctx, dx.pointer, dy.pointer, w.pointer, null, null, null] as const,
          ...[M, N, K, EPILOGUE.NONE, 0, LAYOUT.ROWS, t.code, t.code, t.code] as const,
        );
        t.expect(dx, { terms: N, plain: () => plain.linear(dy.values, transpose(w.values, K), N) });
      }
    },
  },
  {
    op: "linear_bwd_w",
    types: BOTH,
    run(t) {
      for (const [M, N, K] of SIZES) {
        const dy = t.normal([M, N]), x = t.normal([M, K]), dw = t.tensor([N, K], "f32");
        t.device.nc.linear_bwd_w(
          ...[t.device.ctx, dw.pointer, dy.pointer, x.pointer, null, null] as const,
          ...[M, N, K, EPILOGUE.NONE, 0, t.code, t.code] as const,
        );
        t.expect(dw, { terms: M, plain: () => plain.linear(transpose(dy.values, N), transpose(x.values, K), M) });
      }
    },
  },
  {
    op: "pack",
    types: BOTH,
    run(t) {
      for (const [M, N, K] of SIZES) {
        for (const packed of [t.dtype, "i8"] as const) {
          const x = t.normal([M, K]), w = t.normal([N, K], { scale: K ** -0.5 }), y = t.tensor([M, N]);
          const bytes = new BigInt64Array(1), code = dtypeCode(packed);
          t.device.nc.pack_bytes(t.device.ctx, bytes, N, K, PACK.FORWARD, code);
          let [pointer, layout]: [Deno.PointerObject, number] = [w.pointer, LAYOUT.ROWS];
          if (bytes[0] > 0n) {
            [pointer, layout] = [t.tensor([Number(bytes[0])], "i8").pointer, LAYOUT.PACKED];
            t.device.nc.pack(t.device.ctx, pointer, w.pointer, N, K, PACK.FORWARD, code, t.code);
          }
          t.device.nc.linear_fwd(
            ...[t.device.ctx, y.pointer, null, x.pointer, pointer, null, null, null] as const,
            ...[M, N, K, EPILOGUE.NONE, layout, t.code, t.code, code] as const,
          );
          const loop = packed === "i8" ? plain.linearInt8 : plain.linear;
          t.expect(y, { terms: K, plain: () => loop(x.values, w.values, K) });
        }
      }
    },
  },
  {
    op: "newton_schulz",
    types: BOTH,
    run(t) {
      for (const [rows, cols] of [[24, 40], [9, 64]]) {
        const batch = 2, x = t.normal([batch, rows, cols]), o = t.tensor([batch, rows, cols]);
        const scratch = t.tensor([batch * (rows * cols + 2 * rows * rows) * 4 + 4096], "i8");
        t.device.nc.newton_schulz(t.device.ctx, o.pointer, x.pointer, scratch.pointer, batch, rows, cols, 5, t.code);
        t.expect(o, { terms: 16 * cols, rounded: 64 }); // five steps, each of which multiplies small errors by up to 3.4
      }
    },
  },
];

const ATTENTIONS = [
  { B: 2, T: 70, H: 2, G: 1, D: 64, window: -1 },
  { B: 1, T: 40, H: 2, G: 2, D: 128, window: 16 },
  { B: 1, T: 9, H: 2, G: 1, D: 6, window: -1 },
];

interface AttentionInputs {
  readonly sizes: plain.AttentionSizes;
  readonly q: Input;
  readonly k: Input;
  readonly v: Input;
}

function* attentions(t: Lab): Generator<AttentionInputs> {
  for (const { B, T, H, G, D, window } of ATTENTIONS) {
    const [q, k, v] = [H, G, G].map((heads) => t.normal([B, T, heads, D]));
    yield { sizes: { B, T, H, G, D, window, lengths: Array(B).fill(T) }, q, k, v };
  }
}

const ATTENTION: Check[] = [
  {
    op: "attention_fwd",
    types: BOTH,
    run(t) {
      for (const { sizes, q, k, v } of attentions(t)) {
        const { B, T, H, G, D, window } = sizes;
        const o = t.tensor([B, T, H, D]), lse = t.tensor([B, H, T], "f32");
        t.device.nc.attention_fwd(
          ...[t.device.ctx, o.pointer, lse.pointer, q.pointer, k.pointer, v.pointer, null] as const,
          ...[B, T, H, G, D, window, D ** -0.5, t.code] as const,
        );
        t.expect(o, { terms: T + D, rounded: 4, plain: () => plain.attention(q.values, k.values, v.values, sizes) });
        t.expect(lse, { terms: T + D });
      }
    },
  },
  {
    op: "attention_bwd",
    types: BOTH,
    run(t) {
      for (const { sizes, q, k, v } of attentions(t)) {
        const { B, T, H, G, D, window } = sizes;
        const dy = t.normal([B, T, H, D]), o = t.tensor([B, T, H, D]);
        const [lse, delta] = [t.tensor([B, H, T], "f32"), t.tensor([B, H, T], "f32")];
        const [dq, dk, dv] = [H, G, G].map((heads) => t.tensor([B, T, heads, D]));
        t.device.nc.attention_fwd(
          ...[t.device.ctx, o.pointer, lse.pointer, q.pointer, k.pointer, v.pointer, null] as const,
          ...[B, T, H, G, D, window, D ** -0.5, t.code] as const,
        );
        t.device.nc.attention_bwd(
          ...[t.device.ctx, dq.pointer, dk.pointer, dv.pointer, delta.pointer, dy.pointer, q.pointer] as const,
          ...[k.pointer, v.pointer, o.pointer, lse.pointer, null, B, T, H, G, D, window, D ** -0.5, t.code] as const,
        );
        let kept: ReturnType<typeof plain.attentionGradients> | undefined;
        const loop = () => {
          return kept ??= plain.attentionGradients({ q: q.values, k: k.values, v: v.values, dy: dy.values }, sizes);
        };
        for (const [name, dx] of [["q", dq], ["k", dk], ["v", dv]] as const) {
          t.expect(dx, { terms: 4 * (T + D), rounded: 8, plain: () => loop()[name] });
        }
      }
    },
  },
  cached("kv_append"),
  cached("attention_cached_fwd"),
];

/** A whole sequence goes into an empty cache and attends to it. */
function cached(op: "kv_append" | "attention_cached_fwd"): Check {
  const run = (t: Lab) => {
    for (const { sizes, q, k, v } of attentions(t)) {
      const { B, T, H, G, D, window } = sizes, capacity = 130;
      const [kCache, vCache] = [t.tensor([B, G, capacity, D]), t.tensor([B, G, capacity, D])];
      const positions = t.integers(Array(B).fill(0)), counts = t.integers(Array(B).fill(T)), o = t.tensor([B, T, H, D]);
      t.device.nc.kv_append(
        ...[t.device.ctx, kCache.pointer, vCache.pointer, k.pointer, v.pointer, positions.pointer] as const,
        ...[counts.pointer, B, T, G, D, capacity, t.code] as const,
      );
      if (op === "kv_append") {
        t.expect(kCache);
        t.expect(vCache);
        continue;
      }
      const scratch = t.tensor([B * T * H * Math.ceil(capacity / 64) * (D + 2)], "f32");
      t.device.nc.attention_cached_fwd(
        ...[t.device.ctx, o.pointer, q.pointer, kCache.pointer, vCache.pointer, positions.pointer] as const,
        ...[counts.pointer, scratch.pointer, B, T, H, G, D, capacity, window, D ** -0.5, t.code] as const,
      );
      t.expect(o, { terms: T + D, rounded: 4, plain: () => plain.attention(q.values, k.values, v.values, sizes) });
    }
  };
  return { op, types: BOTH, run };
}

const HEAD = [{ rows: 33, C: 64, V: 150, Vp: 192 }, { rows: 5, C: 7, V: 13, Vp: 64 }];

const SCORES: Check[] = [
  {
    op: "lm_head_loss",
    types: BOTH,
    run(t) {
      for (const { rows, C, V, Vp } of HEAD) {
        const x = t.normal([rows, C]), w = t.normal([Vp, C], { scale: C ** -0.5 }), targets = t.ids(rows, V);
        const weights = t.normal([rows], { dtype: "f32" }), chunk = lossChunk(rows, Vp);
        const [losses, dx, dw] = [t.tensor([rows], "f32"), t.tensor([rows, C]), t.tensor([Vp, C], "f32")];
        const scratch = t.tensor([chunk * Vp * (4 + dtypeBytes(t.dtype)) + 65536], "i8");
        t.device.nc.lm_head_loss(
          ...[t.device.ctx, losses.pointer, dx.pointer, dw.pointer, x.pointer, w.pointer, targets.pointer] as const,
          ...[weights.pointer, scratch.pointer, rows, C, V, Vp, chunk, SOFTCAP, 0, t.code, t.code] as const,
        );
        const loop = () =>
          plain.crossEntropy(plain.logits(x.values, w.values, { C, V, softcap: SOFTCAP }), targets.values, V);
        t.expect(losses, { terms: C + V, rounded: 2, plain: loop });
        t.expect(dx, { terms: C + V, rounded: 8 });
        t.expect(dw, { terms: C + V + rows, rounded: 8 });
      }
    },
  },
  {
    op: "lm_head_score",
    types: BOTH,
    run(t) {
      for (const { rows, C, V, Vp } of HEAD) {
        const x = t.normal([rows, C]), w = t.normal([Vp, C], { scale: C ** -0.5 }), targets = t.ids(rows, V);
        const losses = t.tensor([rows], "f32"), chunk = lossChunk(rows, Vp), K = 3;
        const [argmax, ids] = [t.tensor([rows], "i32"), t.tensor([rows, K], "i32")];
        const logprobs = t.tensor([rows, K], "f32");
        const scratch = t.tensor([chunk * Vp * (4 + dtypeBytes(t.dtype)) + 65536], "i8");
        t.device.nc.lm_head_score(
          ...[t.device.ctx, losses.pointer, argmax.pointer, ids.pointer, logprobs.pointer, x.pointer] as const,
          ...[w.pointer, targets.pointer, scratch.pointer, rows, C, V, Vp, chunk, K, SOFTCAP, t.code, t.code] as const,
        );
        const loop = () =>
          plain.crossEntropy(plain.logits(x.values, w.values, { C, V, softcap: SOFTCAP }), targets.values, V);
        t.expect(losses, { terms: C + V, rounded: 2, plain: loop });
        t.expect(logprobs, { terms: C + V, rounded: 2 });
      }
    },
  },
  {
    op: "softcap_fwd",
    types: BOTH,
    run(t) {
      const [rows, V, stride] = [7, 70, 128];
      const x = t.normal([rows, stride], { scale: 20 }), y = t.tensor([rows, V], "f32");
      t.device.nc.softcap_fwd(t.device.ctx, y.pointer, x.pointer, rows, V, stride, SOFTCAP, t.code);
      const kept = () => x.values.filter((_, i) => i % stride < V);
      t.expect(y, { terms: 4, plain: () => kept().map((v) => SOFTCAP * Math.tanh(v / SOFTCAP)) });
    },
  },
  {
    op: "sample",
    types: ONE,
    run(t) {
      const [rows, V] = [5, 1000];
      const logits = t.normal([rows, V], { scale: 2 }),
        ids = t.tensor([rows], "i32"),
        logprobs = t.tensor([rows], "f32");
      const [seeds, samples, draws] = [t.ids(2 * rows, 1 << 30), t.ids(rows, 9), t.ids(rows, 9)];
      const temperatures = t.floats(Float32Array.of(0, 1, 0.7, 1, 1.3));
      const topK = t.integers([0, 0, 10, 0, 50]), topP = t.floats(Float32Array.of(1, 1, 1, 0.8, 0.9));
      t.device.nc.sample(
        ...[t.device.ctx, ids.pointer, logprobs.pointer, logits.pointer, seeds.pointer, samples.pointer] as const,
        ...[draws.pointer, temperatures.pointer, topK.pointer, topP.pointer, null, null, null, rows, V, 0] as const,
      );
      t.expect(ids);
      t.expect(logprobs, { terms: 32 });
    },
  },
  {
    op: "top_logprobs",
    types: ONE,
    run(t) {
      const [rows, V, K] = [3, 1000, 20];
      const logits = t.normal([rows, V]), counts = t.integers([20, 1, 7]);
      const ids = t.tensor([rows, K], "i32"), logprobs = t.tensor([rows, K], "f32");
      t.device.nc.top_logprobs(
        ...[t.device.ctx, ids.pointer, logprobs.pointer, logits.pointer, counts.pointer, rows, V, K] as const,
      );
      t.expect(ids);
      t.expect(logprobs, { terms: 32 });
    },
  },
  {
    op: "weighted_sum",
    types: ONE,
    run(t) {
      const x = t.normal([5003]), w = t.normal([5003]), y = t.tensor([1], "f32");
      t.device.nc.weighted_sum(t.device.ctx, y.pointer, x.pointer, w.pointer, 5003n, 0);
      t.expect(y, { terms: 32, plain: () => [x.values.reduce((sum, v, i) => sum + v * w.values[i], 0)] });
    },
  },
];

/** Products, attention, and what is done with scores. */
export const PRODUCT_CHECKS: readonly Check[] = [...PRODUCTS, ...ATTENTION, ...SCORES];
