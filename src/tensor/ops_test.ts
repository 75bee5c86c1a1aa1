/**
 * The conformance suite: every op on every backend present, value against the plain loop, gradient against finite differences of the
 * plain loop, odd sizes, both compute types. Tolerances come from one function of type and reduction length (ops_testing.ts); for each
 * result the suite also plants a small mistake, one term left out, and demands that the tolerance refuses it.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { Arena } from "./arena.ts";
import { Bench, differences, DTYPES, wide, withoutColumn, withoutRow } from "./conformance_testing.ts";
import { TEST_BACKEND } from "./backend_testing.ts";
import { Device } from "./device.ts";
import * as ops from "./ops.ts";
import { abs, attentionSums, feedForwardSums, linearSums, lossSums, rmsnormSums, ropeNormSums } from "./ops_testing.ts";
import * as plain from "./plain.ts";

for (const dtype of DTYPES) {
  Deno.test(`embedding() looks rows up and sums their gradients in ${dtype}`, async () => {
    using t = new Bench(dtype);
    const [V, C, B, T] = [11, 7, 2, 5];
    const table = t.inputs.normal(V * C), ids = t.inputs.integers(B * T, V);
    const w = t.parameter(table, [V, C]);
    const y = ops.embedding(t.tape, w, { ids: t.device.from(ids, [B, T], "i32"), dtype });
    const looked = Float64Array.from({ length: B * T * C }, (_, i) => table[ids[Math.floor(i / C)] * C + i % C]);
    await t.close("y", y, { expected: looked });
    const dy = t.inputs.normal(B * T * C);
    t.backward(y, dy);
    const scatter = (dy: Float32Array) => {
      const dw = new Float64Array(V * C);
      for (let i = 0; i < dy.length; i++) dw[ids[Math.floor(i / C)] * C + i % C] += dy[i];
      return dw;
    };
    const sum = { terms: B * T, magnitude: scatter(dy.map(Math.abs)) };
    await t.close("dw", w.gradient, { expected: scatter(dy), sum, wrong: scatter(withoutRow(dy, C)) });
  });

  Deno.test(`rmsnorm() matches the loop in ${dtype}`, async () => {
    for (const [rows, C] of [[3, 5], [7, 64], [1, 129]]) {
      using t = new Bench(dtype);
      const values = t.inputs.normal(rows * C), dy = t.inputs.normal(rows * C);
      const f = (x: Float64Array) => plain.rmsnorm(x, { C, eps: ops.RMS_EPS });
      const x = t.tensor(values, [rows, C]);
      const y = ops.rmsnorm(t.tape, x, { keep: true });
      const expected = f(wide(values));
      const largest = Array.from(
        { length: rows },
        (_, r) => abs(values.subarray(r * C, (r + 1) * C)).reduce((a, c) => Math.max(a, c)),
      );
      const lacking = (x: Float64Array) => { // the mean of squares lacks its largest term
        const shorter = plain.rmsnorm(x.map((v, i) => Math.abs(v) === largest[Math.floor(i / C)] ? 0 : v), {
          C,
          eps: ops.RMS_EPS,
        });
        return shorter.map((v, i) => v === 0 ? expected[i] : v);
      };
      await t.close("y", y, { expected, sum: { terms: C, magnitude: abs(expected) }, wrong: lacking(wide(values)) });
      t.backward(y, dy);
      const magnitude = rmsnormSums(wide(values), wide(dy), { C, eps: ops.RMS_EPS });
      const dx = differences(values, dy, f);
      const factor = expected.map((v, i) => v / values[i]); // without the mean of dy x
      await t.close("dx", t.tape.gradient(x), {
        expected: dx,
        sum: { terms: C, magnitude },
        wrong: factor.map((s, i) => s * dy[i]),
      });
    }
  });

  Deno.test(`linear() adds its residual and splits its gradient in ${dtype}`, async () => {
    for (const [M, N, K] of [[5, 3, 7], [13, 33, 17], [4, 64, 32]]) {
      using t = new Bench(dtype);
      const xs = t.inputs.normal(M * K),
        ws = t.inputs.normal(N * K, K ** -0.5),
        rs = t.inputs.normal(M * N),
        dy = t.inputs.normal(M * N);
      const x = t.tensor(xs, [M, K]), residual = t.tensor(rs, [M, N]), w = t.parameter(ws, [N, K]);
      const y = ops.linear(t.tape, x, { w, residual });
      const f = (x: Float32Array) => plain.linear(wide(x), wide(ws), K).map((v, i) => v + rs[i]);
      const sums = linearSums({ x: abs(xs), w: abs(ws), dy: abs(dy), K, N });
      const magnitude = sums.y.map((v, i) => v + Math.abs(rs[i]));
      await t.close("y", y, { expected: f(xs), sum: { terms: K + 1, magnitude }, wrong: f(withoutColumn(xs, K)) });
      t.backward(y, dy);
      const dx = (dy: Float32Array) => differences(xs, dy, (v) => plain.linear(v, wide(ws), K));
      const dw = (xs: Float32Array) => differences(ws, dy, (v) => plain.linear(wide(xs), v, K));
      await t.close("dx", t.tape.gradient(x), {
        expected: dx(dy),
        sum: { terms: N, magnitude: sums.dx },
        wrong: dx(withoutColumn(dy, N)),
      });
      await t.close("dw", w.gradient, {
        expected: dw(xs),
        sum: { terms: M, magnitude: sums.dw },
        wrong: dw(withoutRow(xs, K)),
      });
      await t.close("d residual", t.tape.gradient(residual), { expected: wide(dy) });
    }
  });

  Deno.test(`feedForward() matches the loop in ${dtype}`, async () => {
    using t = new Bench(dtype);
    const [M, C, F] = [6, 5, 9];
    const xs = t.inputs.normal(M * C), up = t.inputs.normal(F * C, C ** -0.5), down = t.inputs.normal(C * F, F ** -0.5);
    const rs = t.inputs.normal(M * C), dy = t.inputs.normal(M * C);
    const f = (x: Float64Array, u: Float64Array, d: Float64Array) => {
      return plain.linear(plain.relu2(plain.linear(x, u, C)), d, F).map((v, i) => v + rs[i]);
    };
    const [x, residual] = [t.tensor(xs, [M, C]), t.tensor(rs, [M, C])];
    const [wUp, wDown] = [t.parameter(up, [F, C]), t.parameter(down, [C, F])];
    const y = ops.feedForward(t.tape, x, { up: wUp, down: wDown, residual });
    const sums = feedForwardSums({ x: wide(xs), up: wide(up), down: wide(down), dy: wide(dy), C, F });
    const y0 = (down: Float32Array) => f(wide(xs), wide(up), wide(down));
    sums.y.magnitude = sums.y.magnitude.map((v, i) => v + Math.abs(rs[i]));
    await t.close("y", y, { expected: y0(down), sum: { terms: F + C, ...sums.y }, wrong: y0(withoutColumn(down, F)) });
    t.backward(y, dy);
    const dx = (down: Float32Array) => differences(xs, dy, (v) => f(v, wide(up), wide(down)));
    const dUp = (dy: Float32Array) => differences(up, dy, (v) => f(wide(xs), v, wide(down)));
    const dDown = (dy: Float32Array) => differences(down, dy, (v) => f(wide(xs), wide(up), v));
    const [without, terms] = [withoutRow(dy, C), F + C + M];
    await t.close("dx", t.tape.gradient(x), {
      expected: dx(down),
      sum: { terms, ...sums.dx },
      wrong: dx(withoutColumn(down, F)),
    });
    await t.close("d up", wUp.gradient, { expected: dUp(dy), sum: { terms, ...sums.dUp }, wrong: dUp(without) });
    await t.close("d down", wDown.gradient, {
      expected: dDown(dy),
      sum: { terms, ...sums.dDown },
      wrong: dDown(without),
    });
  });

  Deno.test(`ropeNorm() rotates by position and normalises in ${dtype}`, async () => {
    using t = new Bench(dtype);
    const [B, T, heads, D, length] = [2, 3, 3, 10, 16];
    const angles = Float32Array.from({ length: length * D / 2 }, () => 6 * t.inputs.uniform());
    const cos = angles.map(Math.cos), sin = angles.map(Math.sin);
    const rotary = { cos: t.device.from(cos, [length, D / 2], "f32"), sin: t.device.from(sin, [length, D / 2], "f32") };
    for (const start of [null, Int32Array.of(5, 13)]) {
      const xs = t.inputs.normal(B * T * heads * D), dy = t.inputs.normal(xs.length);
      const sizes = { B, T, heads, D, cos, sin, start: start ?? [0, 0], eps: ops.RMS_EPS };
      const f = (x: Float64Array) => plain.ropeNorm(x, sizes);
      // The first pair of each head is not turned.
      const still = (table: Float32Array, value: number) => table.map((v, i) => i % (D / 2) === 0 ? value : v);
      const g = (x: Float64Array) => plain.ropeNorm(x, { ...sizes, cos: still(cos, 1), sin: still(sin, 0) });
      const x = t.tensor(xs, [B, T, heads * D]);
      const y = ops.ropeNorm(t.tape, x, { rotary, positions: start && t.device.from(start, [B], "i32") });
      const sums = ropeNormSums(wide(xs), wide(dy), sizes);
      await t.close("y", y, { expected: f(wide(xs)), sum: { terms: D, magnitude: sums.y }, wrong: g(wide(xs)) });
      t.backward(y, dy);
      await t.close("dx", t.tape.gradient(x), {
        expected: differences(xs, dy, f),
        sum: { terms: D, magnitude: sums.dx, rounded: sums.dxRounded },
        wrong: differences(xs, dy, g),
      });
      t.tape.clear();
    }
  });

  Deno.test(`attention() matches the loop with groups, windows and lengths in ${dtype}`, async () => {
    const cases = [
      { B: 1, T: 5, H: 2, G: 2, D: 8, window: -1, lengths: null },
      { B: 2, T: 9, H: 4, G: 2, D: 6, window: 3, lengths: [9, 4] },
      { B: 1, T: 70, H: 3, G: 1, D: 4, window: -1, lengths: null },
    ];
    for (const { B, T, H, G, D, window, lengths } of cases) {
      using t = new Bench(dtype);
      const qs = t.inputs.normal(B * T * H * D),
        ks = t.inputs.normal(B * T * G * D),
        vs = t.inputs.normal(B * T * G * D);
      const dy = t.inputs.normal(qs.length);
      const valid = lengths ?? Array(B).fill(T);
      // Padding takes no part: its incoming gradient is irrelevant and left out of the expectation.
      const size = { B, T, H, G, D, window, lengths: valid };
      const [q, k, v] = [t.tensor(qs, [B, T, H * D]), t.tensor(ks, [B, T, G * D]), t.tensor(vs, [B, T, G * D])];
      const o = ops.attention(t.tape, { q, k, v }, {
        D,
        window,
        lengths: lengths && t.device.from(Int32Array.from(lengths), [B], "i32"),
      });
      const sums = attentionSums({ q: wide(qs), k: wide(ks), v: wide(vs), dy: wide(dy) }, size);
      // The oldest key of each query with a full window is not seen.
      const shorter = { ...size, window: window < 0 ? T - 2 : window - 1 };
      const f = (s: typeof size, { q = wide(qs), k = wide(ks), v = wide(vs) }) => plain.attention(q, k, v, s);
      const terms = T + D;
      await t.close("o", o, { expected: f(size, {}), sum: { terms, ...sums.o }, wrong: f(shorter, {}) });
      t.backward(o, dy);
      for (const [name, x, at] of [["q", q, qs], ["k", k, ks], ["v", v, vs]] as const) {
        const gradient = (s: typeof size) => differences(at, dy, (value) => f(s, { [name]: value }));
        const sum = { terms: terms * H / G, ...sums[`d${name}`] };
        // Differences cost a forward pass an element: the long case plants its mistake in the value alone.
        const wrong = T > 32 ? undefined : gradient(shorter);
        await t.close(`d${name}`, t.tape.gradient(x), { expected: gradient(size), sum, wrong });
      }
    }
  });

  Deno.test(`lmHeadLoss() gives losses and weighted gradients in ${dtype}`, async () => {
    using t = new Bench(dtype);
    const [rows, C, V, Vp, softcap] = [9, 6, 13, 64, 15];
    const xs = t.inputs.normal(rows * C), ws = t.inputs.normal(Vp * C);
    const targets = t.inputs.integers(rows, V);
    targets[2] = -1;
    const weights = Float32Array.from(t.inputs.normal(rows), (w, i) => targets[i] < 0 ? 0 : w);
    const f = (x: Float64Array, w: Float64Array) =>
      plain.crossEntropy(plain.logits(x, w, { C, V, softcap }), targets, V);
    const x = t.tensor(xs, [rows, C]), w = t.parameter(ws, [Vp, C]);
    const options = { w, V, targets: t.device.from(targets, [rows], "i32"), softcap };
    const losses = ops.lmHeadLoss(t.tape, x, { ...options, weights: t.device.from(weights, [rows], "f32") });
    const sums = lossSums({ x: wide(xs), w: wide(ws), targets, weights }, { C, V, softcap });
    const padded = (x: Float64Array) => Float64Array.from({ length: Vp * C }, (_, i) => x[i] ?? 0);
    const terms = C + V;
    const value = {
      expected: f(wide(xs), wide(ws)),
      sum: { terms, ...sums.losses },
      wrong: f(wide(withoutColumn(xs, C)), wide(ws)),
    };
    await t.close("losses", losses, value);
    const dx = (ws: Float32Array) => differences(xs, weights, (v) => f(v, wide(ws)));
    const dw = (weights: Float32Array) => differences(ws, weights, (v) => f(wide(xs), v));
    await t.close("dx", t.tape.gradient(x), {
      expected: dx(ws),
      sum: { terms, ...sums.dx },
      wrong: dx(withoutColumn(ws, C)),
    });
    await t.close("dw", w.gradient, {
      expected: dw(weights),
      sum: { terms: terms + rows, magnitude: padded(sums.dw.magnitude), rounded: padded(sums.dw.rounded) },
      wrong: dw(withoutRow(weights, 1)),
    });
    await t.close("losses without gradient", ops.lmHeadLoss(t.tape, x, options), value);
  });

  Deno.test(`logits() drops the padding and caps in ${dtype}`, async () => {
    using t = new Bench(dtype);
    const [rows, C, V, Vp] = [3, 8, 70, 128];
    const xs = t.inputs.normal(rows * C, 4), ws = t.inputs.normal(Vp * C, 4);
    const z = ops.logits(t.tape, t.tensor(xs, [rows, C]), { w: t.parameter(ws, [Vp, C]), V, softcap: 15 });
    const f = (xs: Float32Array) => plain.logits(wide(xs), wide(ws), { C, V, softcap: 15 });
    const expected = f(xs), slope = expected.map((l) => 1 - (l / 15) ** 2);
    const sums = plain.linear(abs(xs), abs(ws.subarray(0, V * C)), C);
    const h = plain.linear(wide(xs), wide(ws.subarray(0, V * C)), C); // the product is rounded, then capped
    const sum = {
      terms: C,
      magnitude: sums.map((s, i) => s * slope[i] + Math.abs(expected[i])),
      rounded: h.map((h, i) => Math.abs(h) * slope[i]),
    };
    await t.close("logits", z, { expected, sum, wrong: f(withoutColumn(xs, C)) });
  });
}

Deno.test("Tape adds up the gradients of a value with two consumers", async () => {
  using t = new Bench("f32");
  const [M, K] = [3, 4];
  const xs = t.inputs.normal(M * K),
    w1 = t.inputs.normal(K * K),
    w2 = t.inputs.normal(K * K),
    dy = t.inputs.normal(M * K);
  const x = t.tensor(xs, [M, K]);
  const first = ops.linear(t.tape, x, { w: t.parameter(w1, [K, K]) });
  const y = ops.linear(t.tape, x, { w: t.parameter(w2, [K, K]), residual: first });
  t.backward(y, dy);
  const f = (v: Float64Array) => plain.linear(v, wide(w1), K).map((a, i) => a + plain.linear(v, wide(w2), K)[i]);
  // The path over w1 ends in the same gradient as the one over w2: the second is added to the first.
  const [overW1, overW2] = [w1, w2].map((w) => linearSums({ x: abs(xs), w: abs(w), dy: abs(dy), K, N: K }).dx);
  await t.close("dx", t.tape.gradient(x), {
    expected: differences(xs, dy, f),
    sum: { terms: 2 * K, magnitude: overW1.map((v, i) => v + overW2[i]) },
    wrong: differences(xs, dy, (v) => plain.linear(v, wide(w2), K)),
  });
});

Deno.test("Tape overwrites parameter gradients in the first micro-step and adds in later ones", async () => {
  using t = new Bench("f32");
  const [M, K] = [3, 4];
  const xs = t.inputs.normal(M * K), ws = t.inputs.normal(K * K), dy = t.inputs.normal(M * K);
  const w = t.parameter(ws, [K, K]);
  const once = differences(ws, dy, (v) => plain.linear(wide(xs), v, K));
  t.device.fill(w.gradient, 1000);
  for (const times of [1, 2, 3]) {
    t.tape.accumulate = times > 1;
    const y = ops.linear(t.tape, t.tensor(xs, [M, K]), { w });
    t.backward(y, dy);
    const { dw } = linearSums({ x: abs(xs), w: abs(ws), dy: abs(dy), K, N: K });
    const sum = { terms: M * times, magnitude: dw.map((v) => times * v) };
    await t.close(`dw after ${times}`, w.gradient, {
      expected: once.map((x) => times * x),
      sum,
      wrong: once.map((x) => (times - 1) * x),
    });
    t.tape.clear();
  }
});

Deno.test("Arena repeats its addresses after a reset and refuses what does not fit", () => {
  using device = Device.open(TEST_BACKEND);
  using arena = new Arena(device, 4096);
  const addresses = () => {
    const tensors = [arena.saved([100], "f32"), arena.scratch([7], "bf16"), arena.saved([3], "i32")];
    const found = tensors.map((x) => Deno.UnsafePointer.value(x.pointer));
    arena.reset();
    assertThrows(() => tensors[0].pointer, Error, "released");
    return found;
  };
  assertEquals(addresses(), addresses());
  assertThrows(() => arena.saved([2000], "f32"), RangeError, "the arena has 4096 bytes");
});
