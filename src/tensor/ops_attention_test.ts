/**
 * The conformance suite for attention where kernels have ways of their own: head sizes that are tuned or padded, wide heads, rows that are
 * not aligned, several tiles of queries and keys, padding that is NaN, and the bits of attention over a cache.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { TEST_BACKEND } from "./backend_testing.ts";
import { Bench, differences, DTYPES, wide } from "./conformance_testing.ts";
import * as ops from "./ops.ts";
import { attentionSums } from "./ops_testing.ts";
import * as plain from "./plain.ts";
import type { Tensor } from "./tensor.ts";

interface Case extends Omit<plain.AttentionSizes, "lengths"> {
  readonly lengths?: readonly number[];
  /** Elements by which q, k, v and the gradient miss an aligned address. */
  readonly shift?: number;
}

const CASES: readonly Case[] = [
  { B: 1, T: 1, H: 2, G: 2, D: 64, window: -1 },
  { B: 1, T: 131, H: 2, G: 1, D: 64, window: -1 },
  { B: 2, T: 67, H: 1, G: 1, D: 128, window: -1, lengths: [67, 33] },
  { B: 1, T: 200, H: 1, G: 1, D: 128, window: 40, lengths: [197] },
  { B: 2, T: 70, H: 4, G: 2, D: 16, window: 64, lengths: [0, 65] },
  { B: 1, T: 33, H: 3, G: 1, D: 32, window: 0 },
  { B: 1, T: 66, H: 2, G: 1, D: 96, window: -1 },
  { B: 1, T: 40, H: 2, G: 2, D: 48, window: 7 },
  { B: 1, T: 37, H: 1, G: 1, D: 126, window: -1 },
  { B: 1, T: 65, H: 2, G: 2, D: 64, window: -1, shift: 1 },
  { B: 1, T: 34, H: 1, G: 1, D: 128, window: -1, shift: 3 },
  { B: 1, T: 35, H: 2, G: 1, D: 160, window: 20, lengths: [34] },
  { B: 1, T: 18, H: 1, G: 1, D: 256, window: -1 },
];

const name = ({ B, T, H, G, D, window, lengths, shift }: Case) =>
  `B ${B}, T ${T}, H ${H}, G ${G}, D ${D}, window ${window}, lengths ${lengths}, shift ${shift ?? 0}`;

/** A tensor whose first element lies `shift` elements behind an aligned address. */
function shifted(t: Bench, values: Float32Array<ArrayBuffer>, shape: number[], shift: number): Tensor {
  const whole = new Float32Array(values.length + shift);
  whole.set(values, shift);
  return t.tensor(whole, [whole.length]).view(shape, shift);
}

for (const dtype of DTYPES) {
  Deno.test(`attention() matches the loop for each head size in ${dtype}`, async () => {
    for (const of of CASES) {
      const { B, T, H, G, D, window, lengths = Array(B).fill(T), shift = 0 } = of;
      using t = new Bench(dtype);
      const size = { B, T, H, G, D, window, lengths };
      const [qs, ks, vs, dy] = [H, G, G, H].map((heads) => t.inputs.normal(B * T * heads * D));
      const values = { q: wide(qs), k: wide(ks), v: wide(vs), dy: wide(dy) };
      /** As the kernels get it: what padding holds must not matter. */
      const padded = (x: Float32Array<ArrayBuffer>, heads: number) => {
        const width = heads * D;
        const isValid = (i: number) => Math.floor(i / width) % T < lengths[Math.floor(i / (T * width))];
        return shifted(t, x.map((value, i) => isValid(i) ? value : NaN), [B, T, width], shift);
      };
      const [q, k, v] = [padded(qs, H), padded(ks, G), padded(vs, G)];
      const o = ops.attention(t.tape, { q, k, v }, {
        D,
        window,
        lengths: of.lengths ? t.device.from(Int32Array.from(lengths), [B], "i32") : null,
      });
      const sums = attentionSums(values, size), terms = T + D;
      await t.close(`o of ${name(of)}`, o, {
        expected: plain.attention(values.q, values.k, values.v, size),
        sum: { terms, ...sums.o },
      });
      t.tape.setGradient(o, padded(dy, H));
      t.tape.backward();
      const gradients = plain.attentionGradients(values, size);
      for (const [name_, x] of [["q", q], ["k", k], ["v", v]] as const) {
        await t.close(`d${name_} of ${name(of)}`, t.tape.gradient(x), {
          expected: gradients[name_],
          sum: { terms: terms * H / G, ...sums[`d${name_}`] },
        });
      }
    }
  });

  Deno.test(`attention() gives the same bits again in ${dtype}`, async () => {
    const [B, T, H, G, D] = [1, 130, 2, 1, 64];
    const run = async () => {
      using t = new Bench(dtype);
      const [q, k, v] = [H, G, G].map((heads) => t.tensor(t.inputs.normal(B * T * heads * D), [B, T, heads * D]));
      const o = ops.attention(t.tape, { q, k, v }, { D });
      t.backward(o, t.inputs.normal(B * T * H * D));
      return await Promise.all([o, q, k, v].map((x) => t.device.read(x === o ? o : t.tape.gradient(x))));
    };
    assertEquals(await run(), await run());
  });

  Deno.test(`cachedAttention() gives a query the same bits in every company in ${dtype}`, async () => {
    const heads64 = { H: 2, G: 2, D: 64, window: -1 };
    const others = [
      { H: 8, G: 1, D: 30, window: -1 },
      { H: 2, G: 1, D: 128, window: 70 },
      { H: 1, G: 1, D: 160, window: -1 },
      { H: 24, G: 24, D: 32, window: -1 }, // more heads than blocks: a block takes several tiles
    ];
    for (const { H, G, D, window } of dtype === "bf16" ? [heads64, ...others] : [heads64]) {
      const length = 137;
      const seed = new Bench(dtype, { training: false });
      const [qs, ks, vs] = [H, G, G].map((heads) => seed.inputs.normal(length * heads * D));
      seed[Symbol.dispose]();
      /** o (length, H, D) of the sequence as row `row` of B, in chunks. */
      const run = async (B: number, row: number, capacity: number, chunks: readonly number[]) => {
        using t = new Bench(dtype, { training: false });
        const shape = [B, G, capacity, D];
        // What lies behind the cached tokens must not matter.
        const [k, v] = [0, 0].map(() => t.tensor(new Float32Array(B * G * capacity * D).fill(NaN), shape));
        const o: number[] = [];
        let position = 0;
        for (const T of chunks) {
          const place = (x: Float32Array<ArrayBuffer>, heads: number) => {
            const y = t.inputs.normal(B * T * heads * D);
            y.set(x.subarray(position * heads * D, (position + T) * heads * D), row * T * heads * D);
            return t.tensor(y, [B, T, heads * D]);
          };
          const rows = Array.from({ length: B }, (_, b) => b);
          const cache = {
            ...{ k, v },
            positions: t.device.from(Int32Array.from(rows, (b) => b === row ? position : b % 3), [B], "i32"),
            counts: t.device.from(Int32Array.from(rows, (b) => b === row ? T : Math.min(T, b % 2)), [B], "i32"),
          };
          const y = ops.cachedAttention(t.tape, { q: place(qs, H), k: place(ks, G), v: place(vs, G) }, {
            D,
            window,
            cache,
          });
          const values = await t.device.readFloats(y);
          o.push(...values.subarray(row * T * H * D, (row + 1) * T * H * D));
          position += T;
        }
        return o;
      };
      const alone = await run(1, 0, length, [length]);
      const [last, tail] = [(length - 1) * H * D, length - 9];
      assert(alone.slice(last).some((x) => x !== 0));
      for (
        const [B, row, capacity, chunks] of [
          [1, 0, 300, [length - 1, 1]],
          [3, 1, 256, [63, 1, length - 64]],
          [2, 0, length, [tail, ...Array(9).fill(1)]],
          [1, 0, length, [...Array(5).fill(1), 70, length - 75]],
        ] as const
      ) {
        const o = await run(B, row, capacity, chunks);
        const differing = o.findIndex((x, i) => !Object.is(x, alone[i]));
        assertEquals(
          differing,
          -1,
          `D ${D}, H ${H}, G ${G}: B ${B}, chunks ${chunks}, at token ${Math.floor(differing / (H * D))}`,
        );
      }
    }
  });
}

Deno.test("attentionGradients() are the differences of attention", () => {
  const size = { B: 1, T: 4, H: 2, G: 1, D: 4, window: 2, lengths: [3] };
  using t = new Bench("f32");
  const [q, k, v, dy] = [2, 1, 1, 2].map((heads) => t.inputs.normal(4 * heads * 4));
  const values = { q: wide(q), k: wide(k), v: wide(v), dy: wide(dy) };
  const gradients = plain.attentionGradients(values, size);
  for (const [name, x] of [["q", q], ["k", k], ["v", v]] as const) {
    const expected = differences(x, dy, (at) => {
      const of = (own: string, fixed: Float64Array) => own === name ? at : fixed;
      return plain.attention(of("q", values.q), of("k", values.k), of("v", values.v), size);
    });
    expected.forEach((d, i) =>
      assert(Math.abs(d - gradients[name][i]) < 1e-8, `d${name}[${i}]: ${gradients[name][i]}, expected ${d}`)
    );
  }
});

Deno.test("attention() refuses head sizes that it has no kernel for", () => {
  using t = new Bench("bf16");
  const attend = (D: number) => {
    const [q, k, v] = [0, 0, 0].map(() => t.tensor(t.inputs.normal(D), [1, 1, D]));
    ops.attention(t.tape, { q, k, v }, { D });
  };
  assertThrows(() => attend(258), Error, "head size 258");
  if (TEST_BACKEND !== "cpu") assertThrows(() => attend(7), Error, "head size 7, expected an even one up to 256");
});
