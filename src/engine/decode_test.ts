import { assertEquals } from "@std/assert";
import { GPT, type GPTConfig, type Quantization } from "../model/gpt.ts";
import { KVCache } from "../model/kv_cache.ts";
import { Arena } from "../tensor/arena.ts";
import { TEST_BACKEND } from "../tensor/backend_testing.ts";
import { Device } from "../tensor/device.ts";
import { fillNormal } from "../tensor/rng.ts";
import type { ComputeType } from "../tensor/dtype.ts";
import { Tape } from "../tensor/tape.ts";
import { GptDecodeModel } from "./decode.ts";
import { Engine } from "./engine.ts";
import { DEFAULT_SAMPLING } from "./sample.ts";

const CONFIG: GPTConfig = { sequenceLen: 40, vocabSize: 130, nLayer: 2, nHead: 4, nKvHead: 2, nEmbd: 64 };
const PROMPT = [7, 3, 120, 64, 1, 9, 9, 31, 77, 5, 2, 18, 110];
const GREEDY = { ...DEFAULT_SAMPLING, temperature: 0, sample: 0 };

/** A model with random weights, none of them zero. */
function randomModel(device: Device, dtype: ComputeType, quantize: Quantization = "none"): GPT {
  const model = new GPT(device, CONFIG, { dtype, training: false });
  let offset = 0n;
  for (const { master, size } of model.parameters.all()) {
    fillNormal(device, master, { seed: 5n, offset, std: 0.15 });
    offset += BigInt(size);
  }
  model.parameters.refreshCopies();
  model.packForInference(quantize);
  return model;
}

/** Logits (V) of the token behind a sequence, by a forward pass without cache. */
async function plainLogits(model: GPT, tokens: readonly number[]): Promise<Float32Array> {
  const { device } = model;
  using arena = new Arena(device, 1 << 24);
  const tape = new Tape(device, arena, { training: false });
  using ids = device.from(Int32Array.from(tokens), [1, tokens.length], "i32");
  const x = model.forward(tape, ids);
  return await device.readFloats(model.logits(tape, x.view([1, CONFIG.nEmbd], (tokens.length - 1) * CONFIG.nEmbd)));
}

const argmax = (logits: Float32Array) => logits.indexOf(Math.max(...logits));
const tokenizer = {
  encode: () => [],
  decode: () => "",
  encodeSpecial: () => -1, // no token of this vocabulary is special
};

Deno.test("GptDecoder gives the logits of the plain forward pass", async () => {
  using device = Device.open(TEST_BACKEND, { threads: 2 });
  using model = randomModel(device, "f32");
  using decoder = new GptDecodeModel(model).decoder({ rows: 1, capacity: 20 });
  const tokens = [...PROMPT];
  decoder.prefill(tokens, 0);
  decoder.start(0);
  for (let i = 0; i < 6; i++) {
    const logits = await decoder.readLogits(0);
    const expected = await plainLogits(model, tokens);
    const worst = logits.reduce((most, x, v) => Math.max(most, Math.abs(x - expected[v])), 0);
    assertEquals(worst < 3e-5, true, `position ${tokens.length}: ${worst}`);
    const { ids } = await decoder.sample([{ ...GREEDY, position: tokens.length }]);
    assertEquals(ids[0], argmax(logits));
    decoder.step(ids, Uint8Array.of(1));
    tokens.push(ids[0]);
  }
});

for (const [dtype, quantize] of [["f32", "none"], ["bf16", "none"], ["f32", "int8"], ["bf16", "int8"]] as const) {
  const type = quantize === "none" ? dtype : `${dtype} with ${quantize}`;
  Deno.test(`GptDecoder gives the same bits in ${type} for any number of rows and any cut of the prompt`, async () => {
    using device = Device.open(TEST_BACKEND, { threads: 2 });
    using model = randomModel(device, dtype, quantize);
    /** Logits after the prompt and after three more tokens, of the last row. */
    const run = async (rows: number, cuts: number[]) => {
      using decoder = new GptDecodeModel(model).decoder({ rows, capacity: 24 });
      for (let row = 0; row < rows; row++) {
        // Other rows hold other prompts, of other lengths.
        const prompt = row === rows - 1 ? PROMPT : PROMPT.map((id) => (id + row) % 130).slice(row % 5);
        let start = 0;
        for (const end of [...cuts, prompt.length]) {
          if (end > start) decoder.prefill(prompt.slice(start, Math.min(end, prompt.length)), start);
          start = Math.max(start, Math.min(end, prompt.length));
        }
        decoder.start(row);
      }
      const seen = [await decoder.readLogits(rows - 1)];
      for (const id of [4, 99, 13]) decoder.step(new Array<number>(rows).fill(id), new Uint8Array(rows).fill(1));
      seen.push(await decoder.readLogits(rows - 1));
      return seen;
    };
    const expected = await run(1, []);
    for (const [rows, cuts] of [[1, [1]], [1, [5, 6]], [3, []], [3, [12]], [16, []], [16, [2, 7]]] as const) {
      assertEquals(await run(rows, [...cuts]), expected, `${rows} rows, prompt cut at ${cuts}`);
    }
  });
}

Deno.test("GptDecoder keeps the tokens of rows that are not live, moves rows and leaves out the last ones", async () => {
  using device = Device.open(TEST_BACKEND, { threads: 2 });
  using model = randomModel(device, "f32");
  using decoder = new GptDecodeModel(model).decoder({ rows: 3, capacity: 16 });
  decoder.prefill(PROMPT, 0);
  for (const row of [0, 1, 2]) decoder.start(row);
  assertEquals(await decoder.readLogits(2), await decoder.readLogits(0));
  for (const id of [4, 5]) decoder.step([id, 6, 7], Uint8Array.of(1, 0, 0));
  decoder.step([8, 6], Uint8Array.of(0, 1));
  decoder.move(1, 0);
  decoder.step([9], Uint8Array.of(1));
  const after = await decoder.readLogits(0);
  using alone = new GptDecodeModel(model).decoder({ rows: 1, capacity: 16 });
  alone.prefill([...PROMPT, 6, 9], 0);
  alone.start(0);
  assertEquals(after, await alone.readLogits(0));
  // A prompt that shares its beginning with the one at hand runs the rest alone.
  alone.prefill([77, 6], PROMPT.length - 2);
  alone.start(0);
  decoder.prefill([...PROMPT.slice(0, -2), 77, 6], 0);
  decoder.start(2);
  assertEquals(await alone.readLogits(0), await decoder.readLogits(2));
});

Deno.test("GptDecoder packs weights that change between its uses, to the bits of weights packed before", async () => {
  using device = Device.open(TEST_BACKEND, { threads: 2 });
  using model = randomModel(device, "f32");
  const engine = new Engine(new GptDecodeModel(model), tokenizer);
  const run = async () => (await engine.generateBatch(PROMPT, { samples: 3, maxTokens: 9, seed: 1 })).sequences;
  const expected = await run();
  assertEquals(model.isPacked, true);
  model.unpack();
  const { master } = model.parameters.get("lm_head.weight");
  const weights = await device.readFloats(master) as Float32Array<ArrayBuffer>;
  device.upload(master, weights.map((x) => -x));
  model.parameters.refreshCopies();
  const changed = await run();
  device.upload(master, weights);
  model.parameters.refreshCopies();
  assertEquals(await run(), expected);
  assertEquals([model.isPacked, changed.join() === expected.join()], [false, false]);
});

Deno.test("GptDecodeModel.suggestedRows and suggestedCacheRows follow from the memory of a row", () => {
  using device = Device.open(TEST_BACKEND, { threads: 1 });
  using model = randomModel(device, "f32");
  const suggested = ({ suggestedRows, suggestedCacheRows }: GptDecodeModel) => [suggestedRows, suggestedCacheRows];
  assertEquals(suggested(new GptDecodeModel(model)), [32, 32]);
  const free = (bytes: number) => {
    const memory = { ...device.memory(), free: bytes };
    const narrow = Object.assign(Object.create(model), { device: { memory: () => memory } });
    return suggested(new GptDecodeModel(narrow));
  };
  const row = KVCache.bytes(CONFIG, { rows: 1, capacity: CONFIG.sequenceLen, dtype: "f32" });
  assertEquals([free(8 * 5 * row), free(8 * 5 * row - 1), free(4 * row), free(0)], [[10, 5], [9, 4], [1, 0], [1, 0]]);
});

Deno.test("Engine.generate() with a GPT draws each sample on its own and the same again for the same seed", async () => {
  using device = Device.open(TEST_BACKEND, { threads: 2 });
  using model = randomModel(device, "f32");
  const engine = new Engine(new GptDecodeModel(model), tokenizer);
  const options = { samples: 16, maxTokens: 8, temperature: 1, seed: 3 };
  const { sequences } = await engine.generateBatch(PROMPT, options);
  assertEquals((await engine.generateBatch(PROMPT, options)).sequences, sequences);
  assertEquals(new Set(sequences.map((sequence) => sequence[PROMPT.length])).size > 4, true, "first tokens differ");
  // A row is the same whatever runs beside it.
  const alone = await engine.generateBatch(PROMPT, { ...options, samples: 1 });
  assertEquals(alone.sequences[0], sequences[0]);
  const greedy = await engine.generateBatch(PROMPT, { samples: 3, maxTokens: 60, temperature: 0 });
  assertEquals(greedy.sequences[2], greedy.sequences[0]);
  assertEquals(greedy.sequences[0].length, CONFIG.sequenceLen, "generation ends where the context is full");
  const topOne = await engine.generateBatch(PROMPT, { samples: 1, temperature: 1, topK: 1, seed: 9 });
  assertEquals(topOne.sequences[0], greedy.sequences[0]);
});
