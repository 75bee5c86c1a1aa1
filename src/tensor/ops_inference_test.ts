/** The conformance suite for the ops without a gradient: attention over a cache, chosen rows, and the scores of the output layer. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { PACK } from "../native/abi.ts";
import { Bench, DTYPES, wide, withoutColumn } from "./conformance_testing.ts";
import * as ops from "./ops.ts";
import { attentionSums, lossSums, tolerance } from "./ops_testing.ts";
import * as plain from "./plain.ts";
import type { Tensor } from "./tensor.ts";

/** Sequences that reach a cache in chunks: of each row `counts[chunk][b]` tokens, the chunk padded to the longest. */
interface CacheCase {
  readonly H: number;
  readonly G: number;
  readonly D: number;
  readonly window: number;
  readonly capacity: number;
  readonly counts: readonly (readonly number[])[];
}

const CACHES: readonly CacheCase[] = [
  { H: 2, G: 2, D: 8, window: -1, capacity: 5, counts: [[3], [1], [1]] },
  { H: 4, G: 2, D: 6, window: 3, capacity: 11, counts: [[4, 2, 0], [3, 0, 5], [1, 1, 1]] },
  { H: 3, G: 1, D: 10, window: -1, capacity: 150, counts: [[70, 3], [1, 1], [63, 64]] },
];

/** Runs every chunk of a case with `attend` and compares it with attention of the whole rows. */
async function checkCache(
  t: Bench,
  { H, G, D, window, capacity, counts }: CacheCase,
  attend: (qkv: { q: Tensor; k: Tensor; v: Tensor }, cache: ops.LayerCache) => Tensor,
): Promise<void> {
  const B = counts[0].length;
  const lengths = counts[0].map((_, b) => counts.reduce((sum, chunk) => sum + chunk[b], 0));
  const T = Math.max(...lengths);
  const whole = { B, T, H, G, D, window, lengths };
  const [qs, ks, vs] = [H, G, G].map((heads) => t.inputs.normal(B * T * heads * D));
  const expected = plain.attention(wide(qs), wide(ks), wide(vs), whole);
  const sums = attentionSums({ q: wide(qs), k: wide(ks), v: wide(vs), dy: new Float64Array(qs.length) }, whole).o;
  const shape = [B, G, capacity, D];
  const [k, v] = [t.device.tensor(shape, t.dtype), t.device.tensor(shape, t.dtype)];
  const starts = Array(B).fill(0);
  for (const chunk of counts) {
    const N = Math.max(...chunk);
    /** Takes the chunk's tokens of (B, T, width); 0 behind the end of a row. */
    const part = <A extends Float32Array | Float64Array>(x: A, width: number): A => {
      const y = x.slice(0, B * N * width).fill(0) as A;
      chunk.forEach((count, b) => {
        const from = (b * T + starts[b]) * width;
        y.set(x.subarray(from, from + count * width), b * N * width);
      });
      return y;
    };
    const tensor = (x: Float32Array<ArrayBuffer>, heads: number) =>
      t.tensor(part(x, heads * D) as Float32Array<ArrayBuffer>, [B, N, heads * D]);
    const cache = {
      ...{ k, v },
      positions: t.device.from(Int32Array.from(starts), [B], "i32"),
      counts: t.device.from(Int32Array.from(chunk), [B], "i32"),
    };
    const o = attend({ q: tensor(qs, H), k: tensor(ks, G), v: tensor(vs, G) }, cache);
    // The last query of the longest row does not see the first key.
    const last = Math.max(...chunk.map((count, b) => count === 0 ? 0 : starts[b] + count - 1));
    const lacking = window < 0 ? last - 1 : window - 1;
    const wrong = plain.attention(wide(qs), wide(ks), wide(vs), { ...whole, window: lacking });
    const of = (x: Float64Array) => part(x, H * D);
    await t.close(`o of [${starts}] + [${chunk}]`, o, {
      expected: of(expected),
      sum: { terms: T + D, magnitude: of(sums.magnitude), rounded: of(sums.rounded) },
      wrong: of(wrong),
    });
    chunk.forEach((count, b) => starts[b] += count);
    for (const [name, cached, values] of [["k", k, ks], ["v", v, vs]] as const) {
      const filled = new Float64Array(B * G * capacity * D); // (B, G, capacity, D); 0 where nothing was written
      for (let b = 0; b < B; b++) {
        for (let i = 0; i < starts[b] * G * D; i++) {
          const [token, g, d] = [Math.floor(i / (G * D)), Math.floor(i / D) % G, i % D];
          filled[((b * G + g) * capacity + token) * D + d] = values[(b * T + token) * G * D + g * D + d];
        }
      }
      await t.close(`cached ${name}`, cached, { expected: filled });
    }
  }
}

for (const dtype of DTYPES) {
  Deno.test(`cachedAttention() equals attention of the whole rows, however they are cut, in ${dtype}`, async () => {
    for (const of of CACHES) {
      using t = new Bench(dtype, { training: false });
      const { D, window } = of;
      await checkCache(t, of, (qkv, cache) => ops.cachedAttention(t.tape, qkv, { D, window, cache }));
    }
  });

  Deno.test(`firstAttention() fills the cache and attends to the chunk in ${dtype}`, async () => {
    for (const { counts: [first], ...sizes } of CACHES) {
      using t = new Bench(dtype, { training: false });
      const { D } = sizes;
      const of = { ...sizes, window: -1, counts: [first] };
      await checkCache(t, of, (qkv, cache) => ops.firstAttention(t.tape, qkv, { D, cache }));
    }
  });

  Deno.test(`cachedAttention() refuses a row beyond its capacity in ${dtype}`, async () => {
    using t = new Bench(dtype, { training: false });
    const of = { ...CACHES[0], capacity: 4 };
    const { D, window } = of;
    await assertRejects(
      () => checkCache(t, of, (qkv, cache) => ops.cachedAttention(t.tape, qkv, { D, window, cache })),
      Error,
      "expected at most 4 in all",
    );
  });

  Deno.test(`linear() with a weight of 8 bits equals the loop over its integers to the last bit in ${dtype}`, async () => {
    for (const [M, N, K] of [[5, 3, 7], [13, 33, 17], [1, 64, 130], [2, 1, 1]] as const) {
      using t = new Bench(dtype, { training: false });
      const xs = t.inputs.normal(M * K), ws = t.inputs.normal(N * K), rs = t.inputs.normal(M * N);
      const w = t.parameter(ws, [N, K]);
      w.pack(t.device, PACK.FORWARD, "i8");
      const x = t.tensor(xs, [M, K]);
      const f = (xs: Float32Array) => plain.linearInt8(wide(xs), wide(ws), K);
      const wrong = K > 1 ? f(withoutColumn(xs, K)) : undefined;
      await t.close("y", ops.linear(t.tape, x, { w }), { expected: f(xs), wrong });
      const residual = t.tensor(rs, [M, N]);
      const sum = f(xs).map((v, i) => Math.fround(v + rs[i]));
      await t.close("y + residual", ops.linear(t.tape, x, { w, residual }), { expected: sum });
    }
  });

  Deno.test(`gatherRows() copies the rows that are named in ${dtype}`, async () => {
    using t = new Bench(dtype, { training: false });
    const [B, T, C] = [2, 5, 7];
    const xs = t.inputs.normal(B * T * C), x = t.tensor(xs, [B, T, C]);
    const index = Int32Array.of(9, 0, 3, 3, 6);
    const expected = Float64Array.from(
      { length: index.length * C },
      (_, i) => xs[index[Math.floor(i / C)] * C + i % C],
    );
    await t.close("y", ops.gatherRows(t.tape, x, { index: t.device.from(index, [5], "i32") }), { expected });
    for (const row of [-1, B * T]) {
      using t = new Bench(dtype, { training: false });
      const index = t.device.from(Int32Array.of(0, row), [2], "i32");
      ops.gatherRows(t.tape, t.tensor(xs, [B, T, C]), { index });
      await assertRejects(() => t.device.wait(), Error, `${row} at position 1, expected 0 to 9`);
    }
  });

  Deno.test(`lmHeadScore() gives losses and the most probable ids in ${dtype}`, async () => {
    using t = new Bench(dtype, { training: false });
    const [rows, C, V, Vp, softcap] = [9, 6, 13, 64, 15];
    const xs = t.inputs.normal(rows * C), ws = t.inputs.normal(Vp * C);
    ws.forEach((w, i) => ws[i] = i < V * C ? w : 8 * w); // rows of the padding would win if they were asked
    const [low, high] = [4, 9]; // equal rows, which the first x points at: the lower id wins
    for (let c = 0; c < C; c++) xs[c] = 2 * (ws[high * C + c] = ws[low * C + c]);
    const targets = t.inputs.integers(rows, V);
    targets[2] = -1;
    const [x, w] = [t.tensor(xs, [rows, C]), t.parameter(ws, [Vp, C])];
    const scores = ops.lmHeadScore(t.tape, x, { w, V, targets: t.device.from(targets, [rows], "i32"), softcap });
    const f = (xs: Float32Array) => plain.crossEntropy(plain.logits(wide(xs), wide(ws), { C, V, softcap }), targets, V);
    const sums = lossSums({ x: wide(xs), w: wide(ws), targets, weights: new Float64Array(rows) }, { C, V, softcap });
    const sum = { terms: C + V, ...sums.losses };
    await t.close("losses", scores.losses, { expected: f(xs), sum, wrong: f(withoutColumn(xs, C)) });

    const best = await t.device.read(scores.argmax);
    const z = plain.logits(wide(xs), wide(ws), { C, V, softcap });
    assertEquals(best[0], low);
    for (let row = 0; row < rows; row++) {
      const of = z.subarray(row * V, (row + 1) * V);
      const largest = of.reduce((a, c) => Math.max(a, c));
      const bound = tolerance(dtype, {
        stored: dtype,
        value: largest,
        terms: C,
        magnitude: 2 * softcap,
        rounded: softcap,
      });
      assert(best[row] < V && of[best[row]] >= largest - bound, `${best[row]} of row ${row}: ${of}`);
    }
    const first = ops.lmHeadScore(t.tape, t.tensor(xs.slice(0, C), [1, C]), {
      ...{ w, V, softcap },
      targets: t.device.from(targets.slice(0, 1), [1], "i32"),
    });
    const [alone, among] = [await t.device.read(first.losses), await t.device.read(scores.losses)];
    assertEquals(alone[0], among[0], "the bits depend on the other rows");
  });
}
