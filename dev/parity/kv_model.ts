/** Golden kv_cache, the numeric part: prefill, decoding, chunks on a cached prefix, several rows from one prefill, stored keys and values. */
import { KVCache } from "../../src/model/kv_cache.ts";
import { TEST_BACKEND } from "../../src/tensor/backend_testing.ts";
import { Device } from "../../src/tensor/device.ts";
import { configOf, GoldenModel } from "./model.ts";
import { type GoldenTensors, Parity } from "./parity.ts";

/** Compares cached decoding with the recorded logits. */
export async function runModel(t: Parity): Promise<void> {
  const info = t.json("kv.json");
  const [folder, file] = info.weights.split("/");
  const weights = new Parity(t.root, folder, () => {}).tensors(file);
  using device = Device.open(TEST_BACKEND);
  using golden = new GoldenModel(device, { config: configOf(info.config), weights, training: false });
  const decoder = new Decoder(golden);
  const kv = t.tensors("kv.safetensors");
  const prompt = Array.from(kv.get("prompt").data);
  const V = info.config.vocab_size;
  const close = (label: string, actual: Float32Array, expected: ArrayLike<number>) =>
    t.close(label, actual, expected, { abs: 3e-5 });

  using cache = decoder.cache(1, 64);
  close("prefill logits", await decoder.feed(cache, [prompt]), kv.get("prefill_logits").data);
  const tokens = kv.get("greedy_tokens").data, expected = kv.get("decode_logits").data;
  const greedy: number[] = [];
  let last: ArrayLike<number> = kv.get("prefill_logits").data.slice(-V);
  for (let i = 0; i < tokens.length; i++) {
    greedy.push(argmax(last));
    const actual = await decoder.feed(cache, [[tokens[i]]]);
    last = actual;
    close(`decode logits ${i}`, actual, expected.slice(i * V, (i + 1) * V));
  }
  t.equal("greedy tokens", greedy, Array.from(tokens));
  await storedCache(t, { golden, cache, kv });

  using prefix = decoder.cache(1, 64);
  await decoder.feed(prefix, [prompt]);
  const chunk = Array.from(kv.get("chunk").data);
  close("chunk logits", await decoder.feed(prefix, [chunk]), kv.get("chunk_logits").data);
  close("logits after the chunk", await decoder.feed(prefix, [[chunk[0]]]), kv.get("after_chunk_logits").data);

  const { data: batchTokens, shape: [rows, steps] } = kv.get("batch_tokens");
  using source = decoder.cache(1, prompt.length);
  await decoder.feed(source, [prompt]);
  using batch = decoder.cache(rows, prompt.length + steps);
  for (let b = 0; b < rows; b++) batch.copyRow(b, source, 0);
  const batchLogits = kv.get("batch_decode_logits").data;
  for (let i = 0; i < steps; i++) {
    const actual = await decoder.feed(batch, Array.from({ length: rows }, (_, b) => [batchTokens[b * steps + i]]));
    for (let b = 0; b < rows; b++) {
      const start = (b * steps + i) * V;
      close(`row ${b} step ${i} of the batch`, actual.slice(b * V, (b + 1) * V), batchLogits.slice(start, start + V));
    }
  }
}

/** Feeds tokens through a model with a cache. */
class Decoder {
  readonly #golden: GoldenModel;
  constructor(golden: GoldenModel) {
    this.#golden = golden;
  }

  cache(rows: number, capacity: number): KVCache {
    const { device, config, dtype } = this.#golden.model;
    return new KVCache(device, config, { rows, capacity, dtype });
  }

  /** Logits (rows, T, V) of the next T tokens of each row. */
  async feed(cache: KVCache, rows: number[][]): Promise<Float32Array> {
    const { model, tape } = this.#golden;
    const T = rows[0].length;
    using ids = model.device.from(Int32Array.from(rows.flat()), [rows.length, T], "i32");
    cache.begin(rows.map((row) => row.length));
    const logits = await model.device.readFloats(model.logits(tape, model.forward(tape, ids, { cache })));
    cache.commit();
    tape.clear();
    return logits;
  }
}

async function storedCache(
  t: Parity,
  { golden, cache, kv }: { golden: GoldenModel; cache: KVCache; kv: GoldenTensors },
): Promise<void> {
  for (const part of ["k", "v"] as const) {
    const { data, shape: [layers, heads, positions, D] } = kv.get(`${part}_cache`);
    const actual: number[] = [];
    for (let i = 0; i < layers; i++) {
      const whole = await golden.model.device.readFloats(cache.layer(i)[part]);
      for (let h = 0; h < heads; h++) {
        actual.push(...whole.slice(h * cache.capacity * D, (h * cache.capacity + positions) * D));
      }
    }
    t.close(`${part} cache`, actual, data, { abs: 3e-5 });
  }
}

function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}
