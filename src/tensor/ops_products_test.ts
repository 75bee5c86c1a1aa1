/**
 * The conformance suite for products of the sizes that kernels are cut for: whole tiles and pieces of them, aligned rows and odd ones,
 * few rows and many. The sizes are too large for finite differences; gradients are compared with their formulas.
 */
import { assert, assertEquals } from "@std/assert";
import { PACK } from "../native/abi.ts";
import { Bench, DTYPES, wide, withoutColumn, withoutRow } from "./conformance_testing.ts";
import { type DType, dtypeCode } from "./dtype.ts";
import * as ops from "./ops.ts";
import { abs, feedForwardSums, linearSums, transpose } from "./ops_testing.ts";
import * as plain from "./plain.ts";

/** One step of Newton-Schulz on x (rows, cols), rows <= cols, in f64 (Muon, nanochat/muon.py). */
function newtonSchulz(x: Float64Array, cols: number): Float64Array {
  const rows = x.length / cols, norm = Math.sqrt(x.reduce((sum, v) => sum + v * v, 0)) + 1e-7;
  const X = x.map((v) => v / norm), A = plain.linear(X, X, cols); // (rows, rows)
  const B = plain.linear(A, A, rows).map((v, i) => 2.0315 * v - 4.7750 * A[i]); // A is its own transpose
  return plain.linear(B, transpose(X, cols), rows).map((v, i) => v + 3.4445 * X[i]);
}

for (const dtype of DTYPES) {
  Deno.test(`nc_newton_schulz equals the loop for matrices larger than a tile in ${dtype}`, async () => {
    for (const [rows, cols] of [[136, 152], [152, 136], [133, 149], [70, 90]] as const) {
      using t = new Bench(dtype, { training: false });
      const batch = 2, n = rows * cols, m = Math.min(rows, cols);
      const values = t.inputs.normal(batch * n);
      const x = t.tensor(values, [batch, rows, cols]), o = t.device.tensor([batch, rows, cols], dtype);
      const scratch = t.device.tensor([batch * (n + 2 * m * m) * 4 + 4096], "i8");
      t.device.nc.newton_schulz(
        ...[t.device.ctx, o.pointer, x.pointer, scratch.pointer, batch, rows, cols, 1, dtypeCode(dtype)] as const,
      );
      const found = await t.device.readFloats(o);
      for (let i = 0; i < batch; i++) {
        const one = wide(values.slice(i * n, (i + 1) * n));
        const expected = rows <= cols
          ? newtonSchulz(one, cols)
          : transpose(newtonSchulz(transpose(one, cols), rows), rows);
        const largest = abs(expected).reduce((a, c) => Math.max(a, c), 0);
        const bound = largest * (dtype === "f32" ? 1e-5 : 2 ** -6); // bf16 rounds each of the five operations by 2^-9
        expected.forEach((v, j) => {
          assert(
            Math.abs(found[i * n + j] - v) <= bound,
            `element ${j} of ${i} is ${found[i * n + j]}, expected ${v} within ${bound}`,
          );
        });
      }
    }
  });

  Deno.test(`linear() and its gradients equal their formulas for whole and cut tiles in ${dtype}`, async () => {
    for (const [M, N, K] of [[130, 264, 40], [129, 257, 33], [70, 72, 304], [65, 71, 35], [3, 8, 520]] as const) {
      using t = new Bench(dtype);
      const [xs, ws] = [t.inputs.normal(M * K), t.inputs.normal(N * K)];
      const [rs, dy] = [t.inputs.normal(M * N), t.inputs.normal(M * N)];
      const x = t.tensor(xs, [M, K]), residual = t.tensor(rs, [M, N]), w = t.parameter(ws, [N, K]);
      const values = linearSums({ x: wide(xs), w: wide(ws), dy: wide(dy), K, N });
      const lacking = linearSums({ x: wide(withoutRow(xs, K)), w: wide(ws), dy: wide(withoutColumn(dy, N)), K, N });
      const sums = linearSums({ x: abs(xs), w: abs(ws), dy: abs(dy), K, N });
      const label = (name: string) => `${name} of ${M} x ${N} x ${K}`;
      for (const times of [1, 2]) { // the second time dw is added to
        t.tape.accumulate = times > 1;
        const y = ops.linear(t.tape, x, { w, residual });
        await t.close(label("y"), y, {
          expected: values.y.map((v, i) => v + rs[i]),
          sum: { terms: K + 1, magnitude: sums.y.map((v, i) => v + Math.abs(rs[i])) },
          wrong: plain.linear(wide(withoutColumn(xs, K)), wide(ws), K).map((v, i) => v + rs[i]),
        });
        t.backward(y, dy);
        await t.close(label("dx"), t.tape.gradient(x), {
          expected: values.dx,
          sum: { terms: N, magnitude: sums.dx },
          wrong: lacking.dx,
        });
        await t.close(label("dw"), w.gradient, {
          expected: values.dw.map((v) => times * v),
          sum: { terms: M * times, magnitude: sums.dw.map((v) => times * v) },
          wrong: lacking.dw.map((v) => times * v),
        });
        t.tape.clear();
      }
    }
  });

  Deno.test(`feedForward() and its gradients equal their formulas for whole and cut tiles in ${dtype}`, async () => {
    for (const [M, C, F] of [[130, 40, 264], [70, 33, 65]] as const) {
      using t = new Bench(dtype);
      const up = t.inputs.normal(F * C, C ** -0.5), down = t.inputs.normal(C * F, F ** -0.5);
      const [xs, rs, dy] = [t.inputs.normal(M * C), t.inputs.normal(M * C), t.inputs.normal(M * C)];
      const [x, residual] = [t.tensor(xs, [M, C]), t.tensor(rs, [M, C])];
      const [wUp, wDown] = [t.parameter(up, [F, C]), t.parameter(down, [C, F])];
      const y = ops.feedForward(t.tape, x, { up: wUp, down: wDown, residual });
      t.backward(y, dy);
      const h = plain.linear(wide(xs), wide(up), C), r = plain.relu2(h); // (M, F)
      const second = linearSums({ x: r, w: wide(down), dy: wide(dy), K: F, N: C });
      const dh = h.map((h, i) => 2 * Math.max(h, 0) * second.dx[i]);
      const first = linearSums({ x: wide(xs), w: wide(up), dy: dh, K: C, N: F });
      const sums = feedForwardSums({ x: wide(xs), up: wide(up), down: wide(down), dy: wide(dy), C, F });
      const terms = F + C + M, of = (name: string) => `${name} of ${M} x ${C} x ${F}`;
      await t.close(of("y"), y, {
        expected: second.y.map((v, i) => v + rs[i]),
        sum: { terms, ...sums.y, magnitude: sums.y.magnitude.map((v, i) => v + Math.abs(rs[i])) },
      });
      await t.close(of("dx"), t.tape.gradient(x), { expected: first.dx, sum: { terms, ...sums.dx } });
      await t.close(of("d up"), wUp.gradient, { expected: first.dw, sum: { terms, ...sums.dUp } });
      await t.close(of("d down"), wDown.gradient, {
        expected: second.dw,
        sum: { terms, ...sums.dDown },
        wrong: plain.linear(transpose(withoutRow(dy, C), C), transpose(r, F), M),
      });
    }
  });

  for (const weight of new Set<DType>([dtype, "i8"])) {
    Deno.test(`linear() gives a row the same bits among any number of rows in ${dtype} with weights of ${weight}`, async () => {
      for (const [N, K] of [[264, 80], [136, 1040], [64, 33], [7, 300]] as const) {
        using t = new Bench(dtype, { training: false });
        const w = t.parameter(t.inputs.normal(N * K), [N, K]);
        w.pack(t.device, PACK.FORWARD, weight);
        const most = 130, xs = t.inputs.normal(most * K);
        const all = await t.device.readFloats(ops.linear(t.tape, t.tensor(xs, [most, K]), { w }));
        const last = xs.slice((most - 1) * K); // stands behind rows of its own number
        for (const M of [1, 2, 16, 17, 33, 65, 129]) {
          const some = xs.slice(0, M * K);
          some.set(last, (M - 1) * K);
          const y = await t.device.readFloats(ops.linear(t.tape, t.tensor(some, [M, K]), { w }));
          assertEquals(y.slice(0, (M - 1) * N), all.slice(0, (M - 1) * N), `${M} rows, N = ${N}, K = ${K}`);
          assertEquals(y.slice((M - 1) * N), all.slice((most - 1) * N), `the last of ${M} rows, N = ${N}, K = ${K}`);
        }
      }
    });
  }
}
