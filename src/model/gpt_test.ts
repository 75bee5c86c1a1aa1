import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { LAYOUT } from "../native/abi.ts";
import { Arena } from "../tensor/arena.ts";
import { TEST_BACKEND } from "../tensor/backend_testing.ts";
import { Device } from "../tensor/device.ts";
import { fillNormal } from "../tensor/rng.ts";
import { bf16FromF32, f32FromBf16 } from "../tensor/dtype.ts";
import { Tape } from "../tensor/tape.ts";
import {
  checkConfig,
  configFromDepth,
  flopsPerToken,
  GPT,
  type GPTConfig,
  paddedVocabulary,
  parameterCount,
  parameterSpecs,
} from "./gpt.ts";

const CONFIG: GPTConfig = { sequenceLen: 12, vocabSize: 70, nLayer: 2, nHead: 4, nKvHead: 2, nEmbd: 64 };

Deno.test("configFromDepth() makes the model 64 wider with each layer, in heads of at most 128", () => {
  const sizes = (depth: number) => {
    const { nLayer, nEmbd, nHead, nKvHead } = configFromDepth(depth, { sequenceLen: 8, vocabSize: 9 });
    return [nLayer, nEmbd, nHead, nKvHead];
  };
  assertEquals([1, 2, 3, 4, 20, 300].map(sizes), [
    [1, 64, 1, 1],
    [2, 128, 1, 1],
    [3, 192, 2, 2],
    [4, 256, 2, 2],
    [20, 1280, 10, 10],
    [300, 19200, 150, 150],
  ]);
});

Deno.test("checkConfig() accepts the smallest model and names the size that does not fit", () => {
  checkConfig({ sequenceLen: 1, vocabSize: 1, nLayer: 1, nHead: 1, nKvHead: 1, nEmbd: 2 });
  checkConfig(CONFIG);
  const refused = (change: Partial<GPTConfig>, message: string) =>
    assertThrows(() => checkConfig({ ...CONFIG, ...change }), RangeError, message);
  refused({ vocabSize: 0 }, "vocabSize is 0, expected a positive integer");
  refused({ nLayer: 1.5 }, "nLayer is 1.5, expected a positive integer");
  refused({ nEmbd: 66 }, "width 66 does not split into 4 heads of even width");
  refused({ nEmbd: 60 }, "width 60 does not split into 4 heads of even width"); // heads of 15
  refused({ nKvHead: 3 }, "4 query heads, expected a multiple of the 3 key/value heads");
  using device = Device.open(TEST_BACKEND);
  assertThrows(() => new GPT(device, { ...CONFIG, nKvHead: 3 }, { dtype: "f32", training: false }), RangeError);
});

Deno.test("parameterSpecs(), parameterCount() and flopsPerToken() agree with a count by hand", () => {
  assertEquals([1, 64, 65, 50257].map(paddedVocabulary), [64, 64, 128, 50304]);
  const specs = parameterSpecs(CONFIG);
  assertEquals(specs.length, 2 + 2 * 6);
  assertEquals(specs.slice(0, 7).map(({ name, shape }) => `${name} ${shape}`), [
    "transformer.wte.weight 128,64",
    "transformer.h.0.attn.c_q.weight 64,64",
    "transformer.h.0.attn.c_k.weight 32,64",
    "transformer.h.0.attn.c_v.weight 32,64",
    "transformer.h.0.attn.c_proj.weight 64,64",
    "transformer.h.0.mlp.c_fc.weight 256,64",
    "transformer.h.0.mlp.c_proj.weight 64,256",
  ]);
  const embedding = 128 * 64;
  const layer = 2 * 64 * 64 + 2 * 32 * 64 + 2 * 4 * 64 * 64;
  assertEquals(parameterCount(CONFIG), 2 * embedding + 2 * layer);
  assertEquals(flopsPerToken(CONFIG), 6 * (embedding + 2 * layer) + 12 * 2 * 64 * 12);
});

Deno.test("GPT.initWeights() draws each matrix with its own spread and numbers, and leaves the way back at zero", async () => {
  using device = Device.open(TEST_BACKEND, { threads: 2 });
  using model = new GPT(device, CONFIG, { dtype: "bf16", training: false });
  model.initWeights(3);
  const seen = new Set<number>();
  for (const { name, shape: [rows, cols], master, copy } of model.parameters.all()) {
    const values = await device.readFloats(master);
    assertEquals(await device.readFloats(copy), f32FromBf16(bf16FromF32(values as Float32Array<ArrayBuffer>)), name);
    if (name === "lm_head.weight" || name.endsWith("c_proj.weight")) {
      assertEquals(values.every((x) => x === 0), true, name);
      continue;
    }
    const expected = name === "transformer.wte.weight" ? 1 : Math.sqrt(Math.min(1, rows / cols) / cols);
    const std = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
    // The spread of n draws is known to 1/sqrt(2n); five times that never happens.
    assert(Math.abs(std / expected - 1) < 5 / Math.sqrt(2 * values.length), `${name}: ${std}, expected ${expected}`);
    seen.add(Math.round(1e3 * values[0] / expected));
  }
  assertEquals(seen.size, 1 + 2 * 4, "two matrices begin with the same number");
});

Deno.test("GPT.initWeights() gives the same weights for the same seed and others for another", async () => {
  using device = Device.open(TEST_BACKEND, { threads: 2 });
  using model = new GPT(device, CONFIG, { dtype: "f32", training: false });
  const draw = async (seed: number) => {
    model.initWeights(seed);
    return await device.readFloats(model.parameters.get("transformer.h.1.mlp.c_fc.weight").master);
  };
  const first = await draw(1);
  assertEquals(await draw(1), first);
  assertNotEquals(await draw(2), first);
});

Deno.test("GPT tabulates cos and sin for ten context lengths, rounded to bfloat16 unless told not to", async () => {
  using device = Device.open(TEST_BACKEND);
  const half = CONFIG.nEmbd / CONFIG.nHead / 2;
  for (const roundRotary of [undefined, true, false]) {
    using model = new GPT(device, CONFIG, { dtype: "f32", training: false, roundRotary });
    for (const [name, wave] of [["cos", Math.cos], ["sin", Math.sin]] as const) {
      const table = model.rotary[name];
      assertEquals(table.shape, [10 * CONFIG.sequenceLen, half]);
      const values = await device.readFloats(table);
      const exact = Float32Array.from(values, (_, i) => wave(Math.floor(i / half) * 10000 ** (-(i % half) / half)));
      const expected = roundRotary === false ? exact : f32FromBf16(bf16FromF32(exact));
      // A value beside the middle of two bfloat16 may fall to either side.
      const tolerance = roundRotary === false ? 1e-5 : 2 ** -8;
      values.forEach((value, i) => assertAlmostEquals(value, expected[i], tolerance, `${name} ${i}`));
      const isRounded = values.every((value) => f32FromBf16(bf16FromF32(Float32Array.of(value)))[0] === value);
      assertEquals(isRounded, roundRotary !== false);
    }
  }
});

Deno.test("GPT.forward() shows the residual stream from the embedding to the last layer", () => {
  using device = Device.open(TEST_BACKEND, { threads: 2 });
  using model = new GPT(device, CONFIG, { dtype: "f32", training: false });
  using arena = new Arena(device, 1 << 22);
  using ids = device.from(Int32Array.of(1, 2, 3, 4, 5, 6), [2, 3], "i32");
  const seen: string[] = [];
  const observe = (name: string, x: { shape: readonly number[] }) => void seen.push(`${name} ${x.shape}`);
  const x = model.forward(new Tape(device, arena, { training: false }), ids, { observe });
  const at = "2,3,64";
  assertEquals(seen, ["wte", "h.in", "h.0.mid", "h.0.out", "h.1.mid", "h.1.out"].map((name) => `${name} ${at}`));
  assertEquals(x.shape, [2, 3, 64]);
});

Deno.test("GPT.packForInference('int8') answers, scores and measures with the same rounded weights, and gives no gradients", async () => {
  using device = Device.open(TEST_BACKEND, { threads: 2 });
  using model = new GPT(device, CONFIG, { dtype: "f32", training: true });
  for (const [i, { master }] of model.parameters.all().entries()) {
    fillNormal(device, master, { seed: 5n, offset: BigInt(i) << 32n, std: 0.15 });
  }
  using arena = new Arena(device, 1 << 24);
  const tape = new Tape(device, arena, { training: false });
  using ids = device.from(Int32Array.of(1, 2, 3, 4, 5, 6), [1, 6], "i32");
  using targets = device.from(Int32Array.of(2, 3, 4, 5, 6, 7), [6], "i32");
  using index = device.from(Int32Array.of(0, 1, 2, 3, 4, 5), [6], "i32");
  /** Losses of the targets: by the logits, the score and the loss. */
  const measure = async () => {
    const x = model.forward(tape, ids); // (1, 6, C)
    const logits = await device.readFloats(model.logits(tape, x)), V = CONFIG.vocabSize;
    const byLogits = Float64Array.from({ length: 6 }, (_, t) => {
      const row = logits.subarray(t * V, (t + 1) * V);
      return Math.log(row.reduce((sum, l) => sum + Math.exp(l), 0)) - row[t + 2];
    });
    const scores = await device.readFloats(model.score(tape, x, { index, targets }).losses);
    const losses = await device.readFloats(model.loss(tape, ids, { targets: targets.view([1, 6]) }));
    tape.clear();
    for (const  of of[scores, losses]) of.forEach((loss, t) => assertAlmostEquals(loss, byLogits[t], 1e-5));
    return [...losses];
  };
  const ofRows = await measure();
  model.packForInference();
  const exact = await measure();
  // Products of a GPU's library take another order.
  if (TEST_BACKEND === "cpu") assertEquals(exact, ofRows);
  model.packForInference("int8");
  const rounded = await measure();
  const most = Math.max(...rounded.map((loss, t) => Math.abs(loss - exact[t])));
  assert(most > 1e-4 && most < 0.5, `losses moved by ${most}`);
  assertEquals(model.parameters.get("transformer.wte.weight").operandType, "f32");
  const training = new Tape(device, arena, { training: true });
  using weights = device.from(new Float32Array(6).fill(1), [1, 6], "f32");
  assertThrows(() => model.loss(training, ids, { targets: targets.view([1, 6]), weights }), Error, "w is i8");
  model.packForInference();
  assertEquals(await measure(), exact, "packed again as they are");
});

Deno.test("GPT.packForInference() packs every product's weight and not the embedding; disposing frees all memory", () => {
  using device = Device.open(TEST_BACKEND);
  const { allocated } = device.memory();
  for (const dtype of ["f32", "bf16"] as const) {
    {
      using model = new GPT(device, CONFIG, { dtype, training: true });
      model.packForInference();
      model.unpack();
      assert(!model.isPacked);
      for (const parameter of model.parameters.all()) assertEquals(parameter.operand().layout, LAYOUT.ROWS);
      model.packForInference();
      assert(model.isPacked);
      for (const parameter of model.parameters.all()) {
        const expected = parameter.name === "transformer.wte.weight" ? LAYOUT.ROWS : LAYOUT.PACKED;
        assertEquals(parameter.operand().layout, expected, parameter.name);
      }
    }
    assertEquals(device.memory().allocated, allocated, dtype);
  }
});
