/** The conformance suite for recorded graphs: forward and backward of a layer and the loss, replayed, equal the same calls to the last bit. */
import { assert, assertEquals } from "@std/assert";
import { pointerFrom } from "../native/call.ts";
import { TEST_BACKEND } from "./backend_testing.ts";
import { Bench, DTYPES } from "./conformance_testing.ts";
import * as ops from "./ops.ts";
import type { Tensor } from "./tensor.ts";

const REPLAYS = TEST_BACKEND === "cuda" ? 200 : 1; // the others are slow

for (const dtype of DTYPES) {
  Deno.test(`a recorded chain of operations replays to the same bits on two streams in ${dtype}`, async () => {
    using t = new Bench(dtype);
    const [B, T, C, D, V, Vp] = [2, 10, 32, 16, 50, 64];
    const { nc, ctx } = t.device;
    const weight = (rows: number, cols: number) =>
      t.parameter(t.inputs.normal(rows * cols, cols ** -0.5), [rows, cols]);
    const x = t.tensor(t.inputs.normal(B * T * C), [B, T, C]);
    const [wq, wk, wv, wo, head] = [weight(C, C), weight(C, C), weight(C, C), weight(C, C), weight(Vp, C)];
    const [up, down] = [weight(4 * C, C), weight(C, 4 * C)];
    const targets = t.device.from(t.inputs.integers(B * T, V), [B * T], "i32");
    const weights = t.device.from(new Float32Array(B * T).fill(1 / (B * T)), [B * T], "f32");
    using losses = t.device.tensor([B * T], "f32");
    const enqueue = () => {
      const n = ops.rmsnorm(t.tape, x);
      const [q, k, v] = [wq, wk, wv].map((w) => ops.linear(t.tape, n, { w }));
      const o = ops.attention(t.tape, { q, k, v }, { D });
      const y = ops.linear(t.tape, o, { w: wo, residual: x });
      const z = ops.feedForward(t.tape, ops.rmsnorm(t.tape, y), { up, down, residual: y });
      t.device.copy(losses, ops.lmHeadLoss(t.tape, z, { w: head, V, targets, weights, softcap: 15 }));
      t.tape.backward();
      t.tape.clear();
    };
    const results: readonly Tensor[] = [losses, ...[wq, wk, wv, wo, up, down, head].map((w) => w.gradient)];
    const read = () => Promise.all(results.map((each) => t.device.readFloats(each)));
    enqueue();
    const expected = await read();
    assert(expected.every((values) => values.some((value) => value !== 0)));

    const out = new BigUint64Array(1);
    nc.graph_begin(ctx);
    enqueue();
    nc.graph_end(ctx, out);
    const graph = pointerFrom(out);
    nc.stream_create(ctx, out);
    const stream = pointerFrom(out);
    for (const use of [null, stream]) {
      for (let i = 0; i < REPLAYS; i++) {
        await t.device.wait(); // of the other stream, too
        nc.stream_use(ctx, use);
        for (const each of results) t.device.fill(each, NaN);
        nc.graph_launch(ctx, graph);
        assertEquals(await read(), expected, `replay ${i} on the ${use ? "second" : "first"} stream`);
      }
    }
    nc.stream_use(ctx, null);
    nc.stream_free(ctx, stream);
    nc.graph_free(ctx, graph);
  });
}
