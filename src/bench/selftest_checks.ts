/**
 * The operations of `nanochat selftest`: each draws its inputs, calls one kernel at sizes that take its fast and its general path, and
 * says what the results may be off by. Plain loops stand beside the operations that have one.
 */
import { ADAMW_HYPER, MUON_HYPER } from "../native/abi.ts";
import { type ComputeType, dtypeBytes, dtypeCode } from "../tensor/dtype.ts";
import { RMS_EPS } from "../tensor/ops.ts";
import * as plain from "../tensor/plain.ts";
import type { Check, Input, Lab } from "./selftest.ts";
import { PRODUCT_CHECKS } from "./selftest_products.ts";

const BOTH: readonly ComputeType[] = ["f32", "bf16"];
const ONE: readonly ComputeType[] = ["f32"];

const ELEMENTWISE: Check[] = [
  {
    op: "fill",
    types: BOTH,
    run(t) {
      const y = t.tensor([1003]);
      t.device.fill(y, 1.5);
      t.expect(y, { plain: () => Array(1003).fill(1.5) });
    },
  },
  {
    op: "copy",
    types: BOTH,
    run(t) {
      const x = t.normal([1003]), y = t.tensor([1003]);
      t.device.copy(y, x.tensor);
      t.expect(y, { plain: () => x.values });
    },
  },
  {
    op: "copy_2d",
    types: BOTH,
    run(t) {
      const [rows, width, stride] = [9, 5, 12];
      const x = t.normal([rows, stride]), y = t.tensor([rows, width]), bytes = dtypeBytes(t.dtype);
      const [row, to, from] = [width, width, stride].map((n) => BigInt(n * bytes));
      t.device.nc.copy_2d(t.device.ctx, y.pointer, x.pointer, BigInt(rows), row, to, from);
      t.expect(y, { plain: () => x.values.filter((_, i) => i % stride < width) });
    },
  },
  {
    op: "cast",
    types: BOTH,
    run(t) {
      const to = t.dtype === "f32" ? "bf16" : "f32";
      const x = t.normal([1003]), y = t.tensor([1003], to);
      t.device.nc.cast(t.device.ctx, y.pointer, x.pointer, 1003n, dtypeCode(to), t.code);
      t.expect(y, { plain: () => x.values });
    },
  },
  {
    op: "add",
    types: BOTH,
    run(t) {
      const a = t.normal([1003]), b = t.normal([1003]), y = t.tensor([1003]);
      t.device.nc.add(t.device.ctx, y.pointer, a.pointer, b.pointer, 1003n, t.code);
      t.expect(y, { plain: () => a.values.map((v, i) => v + b.values[i]) });
    },
  },
  {
    op: "relu2_fwd",
    types: BOTH,
    run(t) {
      const h = t.normal([1003]), y = t.tensor([1003]);
      t.device.nc.relu2_fwd(t.device.ctx, y.pointer, h.pointer, 1003n, t.code);
      t.expect(y, { plain: () => plain.relu2(h.values) });
    },
  },
  {
    op: "relu2_bwd",
    types: BOTH,
    run(t) {
      const h = t.normal([1003]), dy = t.normal([1003]), dh = t.tensor([1003]);
      t.device.nc.relu2_bwd(t.device.ctx, dh.pointer, dy.pointer, h.pointer, 1003n, 0, t.code);
      t.expect(dh, { terms: 2, plain: () => h.values.map((v, i) => 2 * Math.max(v, 0) * dy.values[i]) });
    },
  },
];

const ROWS: Check[] = [
  {
    op: "embedding_fwd",
    types: BOTH,
    run(t) {
      for (const C of [64, 7]) {
        const [V, n] = [50, 37];
        const w = t.normal([V, C]), ids = t.ids(n, V), y = t.tensor([n, C]);
        t.device.nc.embedding_fwd(t.device.ctx, y.pointer, w.pointer, ids.pointer, n, C, V, t.code, t.code);
        t.expect(y, {
          plain: () =>
            Float64Array.from({ length: n * C }, (_, i) => w.values[ids.values[Math.floor(i / C)] * C + i % C]),
        });
      }
    },
  },
  {
    op: "embedding_bwd",
    types: BOTH,
    run(t) {
      for (const C of [64, 7]) {
        const [V, n] = [11, 37];
        const dy = t.normal([n, C]), ids = t.ids(n, V), dw = t.tensor([V, C], "f32");
        t.device.nc.embedding_bwd(t.device.ctx, dw.pointer, dy.pointer, ids.pointer, n, C, V, 0, t.code);
        const loop = () => {
          const sums = new Float64Array(V * C);
          dy.values.forEach((v, i) => sums[ids.values[Math.floor(i / C)] * C + i % C] += v);
          return sums;
        };
        t.expect(dw, { terms: n, plain: loop });
      }
    },
  },
  {
    op: "gather_rows",
    types: BOTH,
    run(t) {
      for (const C of [64, 7]) {
        const [rows, n] = [20, 13];
        const x = t.normal([rows, C]), index = t.ids(n, rows), y = t.tensor([n, C]);
        t.device.nc.gather_rows(t.device.ctx, y.pointer, x.pointer, index.pointer, n, C, rows, t.code);
        t.expect(y, {
          plain: () =>
            Float64Array.from({ length: n * C }, (_, i) => x.values[index.values[Math.floor(i / C)] * C + i % C]),
        });
      }
    },
  },
  {
    op: "rmsnorm_fwd",
    types: BOTH,
    run(t) {
      for (const [rows, C] of [[9, 256], [3, 77]]) {
        const x = t.normal([rows, C]), y = t.tensor([rows, C]), rstd = t.tensor([rows], "f32");
        t.device.nc.rmsnorm_fwd(t.device.ctx, y.pointer, rstd.pointer, x.pointer, rows, C, RMS_EPS, t.code);
        t.expect(y, { terms: 4, plain: () => plain.rmsnorm(x.values, { C, eps: RMS_EPS }) });
        t.expect(rstd, { terms: 4 });
      }
    },
  },
  {
    op: "rmsnorm_bwd",
    types: BOTH,
    run(t) {
      for (const [rows, C] of [[9, 256], [3, 77]]) {
        const x = t.normal([rows, C]), dy = t.normal([rows, C]);
        const [y, dx] = [t.tensor([rows, C]), t.tensor([rows, C])], rstd = t.tensor([rows], "f32");
        t.device.nc.rmsnorm_fwd(t.device.ctx, y.pointer, rstd.pointer, x.pointer, rows, C, RMS_EPS, t.code);
        t.device.nc.rmsnorm_bwd(t.device.ctx, dx.pointer, dy.pointer, x.pointer, rstd.pointer, rows, C, 0, t.code);
        const loop = () => {
          const out = new Float64Array(rows * C);
          for (let r = 0; r < rows * C; r += C) {
            let squares = 0, dots = 0;
            for (let i = r; i < r + C; i++) {
              [squares, dots] = [squares + x.values[i] ** 2, dots + x.values[i] * dy.values[i]];
            }
            const s = (squares / C + RMS_EPS) ** -0.5;
            for (let i = r; i < r + C; i++) out[i] = s * dy.values[i] - s ** 3 * x.values[i] * dots / C;
          }
          return out;
        };
        t.expect(dx, { terms: 16, plain: loop });
      }
    },
  },
  ropeNorm("qk_rope_norm_fwd"),
  ropeNorm("qk_rope_norm_bwd"),
];

function ropeNorm(op: "qk_rope_norm_fwd" | "qk_rope_norm_bwd"): Check {
  const run = (t: Lab) => {
    for (const D of [64, 10]) {
      const [B, T, H, length] = [2, 5, 3, 16];
      const angles = Float32Array.from({ length: length * D / 2 }, () => 6 * t.uniform());
      const cos = t.floats(angles.map(Math.cos)), sin = t.floats(angles.map(Math.sin));
      const x = t.normal([B, T, H, D]), dy = t.normal([B, T, H, D]), positions = t.integers([4, 9]);
      const [y, dx] = [t.tensor([B, T, H, D]), t.tensor([B, T, H, D])], rstd = t.tensor([B, T, H], "f32");
      const tables = [cos.pointer, sin.pointer, positions.pointer, B, T, H, D, length] as const;
      t.device.nc.qk_rope_norm_fwd(t.device.ctx, y.pointer, rstd.pointer, x.pointer, ...tables, RMS_EPS, 1, t.code);
      if (op === "qk_rope_norm_fwd") {
        const sizes = { B, T, heads: H, D, cos: cos.values, sin: sin.values, start: positions.values, eps: RMS_EPS };
        t.expect(y, { terms: 8, plain: () => plain.ropeNorm(x.values, sizes) });
        t.expect(rstd, { terms: 8 });
      } else {
        t.device.nc.qk_rope_norm_bwd(
          ...[t.device.ctx, dx.pointer, dy.pointer, y.pointer, rstd.pointer, ...tables, 1, 0, t.code] as const,
        );
        t.expect(dx, { terms: 16, rounded: 4 });
      }
    }
  };
  return { op, types: BOTH, run };
}

/** An f32 block with a value in each slot. */
function hyper<K extends string>(t: Lab, slots: Record<K, number>, values: Record<K, number>): Input {
  const block = new Float32Array(Object.keys(slots).length);
  for (const name of Object.keys(slots) as K[]) block[slots[name]] = values[name];
  return t.floats(block);
}

const N = 1003;

const OPTIMIZER: Check[] = [
  {
    op: "adamw",
    types: BOTH,
    run(t) {
      const [p, m, g] = [0, 1, 2].map(() => t.normal([N], { dtype: "f32" }));
      const v = t.floats(Float32Array.from(m.values, (x) => x * x + 0.01)), copy = t.tensor([N]);
      const numbers = { lr: 0.1, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1 };
      const block = hyper(t, ADAMW_HYPER, { ...numbers, biasCorrection1: 0.5, biasCorrection2: 0.4 });
      t.device.nc.adamw(
        ...[t.device.ctx, p.pointer, m.pointer, v.pointer, copy.pointer, g.pointer, block.pointer, null] as const,
        ...[BigInt(N), t.code] as const,
      );
      const loop = () =>
        p.values.map((p, i) => {
          const momentum = 0.9 * m.values[i] + 0.1 * g.values[i], square = 0.95 * v.values[i] + 0.05 * g.values[i] ** 2;
          return 0.99 * p - 0.2 * momentum / (Math.sqrt(square) / Math.sqrt(0.4) + 1e-8);
        });
      t.expect(p.tensor, { terms: 8, plain: loop });
      t.expect(copy, { terms: 8, plain: loop });
      for (const x of [m, v]) t.expect(x.tensor, { terms: 4 });
    },
  },
  {
    op: "muon_momentum",
    types: BOTH,
    run(t) {
      const m = t.normal([N], { dtype: "f32" }), g = t.normal([N], { dtype: "f32" }), u = t.tensor([N]);
      const block = hyper(t, MUON_HYPER, { lr: 0.1, momentum: 0.9, weightDecay: 0.1 });
      t.device.nc.muon_momentum(
        ...[t.device.ctx, u.pointer, m.pointer, g.pointer, block.pointer, null, BigInt(N), t.code] as const,
      );
      const next = () => m.values.map((m, i) => 0.9 * m + 0.1 * g.values[i]);
      t.expect(u, { terms: 8, plain: () => next().map((m, i) => 0.1 * g.values[i] + 0.9 * m) });
      t.expect(m.tensor, { terms: 8, plain: next });
    },
  },
  {
    op: "muon_update",
    types: BOTH,
    run(t) {
      const p = t.normal([N], { dtype: "f32" }), o = t.normal([N]), copy = t.tensor([N]);
      const block = hyper(t, MUON_HYPER, { lr: 0.1, momentum: 0.9, weightDecay: 0.1 });
      t.device.nc.muon_update(
        ...[
          t.device.ctx,
          p.pointer,
          copy.pointer,
          o.pointer,
          block.pointer,
          null,
          BigInt(N),
          2,
          t.code,
          t.code,
        ] as const,
      );
      const loop = () => p.values.map((p, i) => 0.99 * p - 0.2 * o.values[i]);
      for (const y of [p.tensor, copy]) t.expect(y, { terms: 8, plain: loop });
    },
  },
  {
    op: "sum_squares",
    types: ONE,
    run(t) {
      const x = t.normal([5003]), y = t.tensor([2], "i32");
      t.device.nc.sum_squares(t.device.ctx, y.pointer, x.pointer, 5003n, 0);
      t.expect(y, { as: "f64", plain: () => [x.values.reduce((sum, v) => sum + v * v, 0)] });
    },
  },
  {
    op: "clip_scale",
    types: ONE,
    run(t) {
      const x = t.normal([100]),
        sum = t.tensor([2], "i32"),
        y = t.tensor([2], "f32"),
        most = t.floats(Float32Array.of(3));
      t.device.nc.sum_squares(t.device.ctx, sum.pointer, x.pointer, 100n, 0);
      t.device.nc.clip_scale(t.device.ctx, y.pointer, sum.pointer, most.pointer);
      const loop = () => {
        const norm = Math.sqrt(x.values.reduce((sum, v) => sum + v * v, 0));
        return [Math.min(1, 3 / (norm + 1e-6)), norm];
      };
      t.expect(y, { terms: 4, plain: loop });
    },
  },
  {
    op: "first_non_finite",
    types: BOTH,
    run(t) {
      for (const at of [-1, 700]) {
        const x = t.normal([N]), y = t.tensor([2], "i32");
        if (at >= 0) t.device.fill(x.tensor.view([1], at), Infinity);
        t.device.nc.first_non_finite(t.device.ctx, y.pointer, x.pointer, BigInt(N), t.code);
        t.expect(y, { as: "i64", plain: () => [at] });
      }
    },
  },
];

/** Every operation that both libraries have. */
export const CHECKS: readonly Check[] = [...ELEMENTWISE, ...ROWS, ...PRODUCT_CHECKS, ...OPTIMIZER];
