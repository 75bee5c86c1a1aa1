/** Golden gpt_*: logits, losses, activations, gradients and rotary tables of a model with stored weights. */
import { TEST_BACKEND } from "../../src/tensor/backend_testing.ts";
import { Device } from "../../src/tensor/device.ts";
import * as ops from "../../src/tensor/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { meanWeights } from "../../src/train/trainer.ts";
import { configOf, GoldenModel } from "./model.ts";
import { largest, type Parity } from "./parity.ts";

/** Compares one gpt folder. */
export async function run(t: Parity): Promise<void> {
  const info = t.json("config.json");
  const config = configOf(info.config);
  using device = Device.open(TEST_BACKEND);
  using golden = new GoldenModel(device, { config, weights: t.tensors("weights.safetensors"), training: true });
  const { model, tape } = golden;
  const io = t.tensors("io.safetensors");
  const [idx, targets] = [io.get("idx"), io.get("targets")];
  const ids = device.from(idx.data as Int32Array<ArrayBuffer>, idx.shape, "i32");
  const goal = device.from(targets.data as Int32Array<ArrayBuffer>, targets.shape, "i32");

  t.equal("number of parameters", model.parameters.size, info.n_params);
  await activations(t, golden, ids);

  const logits = await device.readFloats(model.logits(tape, model.forward(tape, ids)));
  t.close("logits", logits, io.get("logits").data, { abs: 3e-5 });
  tape.clear();

  const weights = device.from(meanWeights(targets.data as Int32Array), targets.shape, "f32");
  const losses = model.loss(tape, ids, { targets: goal, weights });
  const none = await device.readFloats(losses);
  const sum = none.reduce((a, b) => a + b, 0);
  t.close("loss none", none, io.get("loss_none").data, { abs: 2e-5 });
  t.close("loss sum", [sum], io.get("loss_sum").data, { rel: 1e-6 });
  t.close("loss mean", [sum / info.n_active], io.get("loss_mean").data, { abs: 5e-6 });
  for (const name of ["logits", "loss_none", "loss_sum", "loss_mean"]) if (io.has(`${name}_f64`)) io.noise(name);

  tape.backward();
  await gradients(t, golden, info);
  tape.clear();
  await rotaryTables(t, golden);
  if (t.has("init_stats.json")) await initialisation(t, golden);
}

async function activations(t: Parity, { model, tape }: GoldenModel, ids: Tensor): Promise<void> {
  if (!t.has("activations.safetensors")) return;
  const golden = t.tensors("activations.safetensors");
  const seen = new Map<string, Tensor>();
  const x = model.forward(tape, ids, { observe: (name, value) => seen.set(name, value) });
  const read = (name: string) => model.device.readFloats(tape.value(seen.get(name)!));
  const compare = (name: string, actual: Float32Array) => t.close(name, actual, golden.get(name).data, { abs: 3e-5 });
  const minus = (a: Float32Array, b: Float32Array) => a.map((value, i) => value - b[i]);
  const head = ops.linear(tape, x, { w: model.parameters.get("lm_head.weight") });
  compare("lm_head_out_padded", await model.device.readFloats(head));
  let before = await read("h.in");
  for (let i = 0; i < model.config.nLayer; i++) {
    const [mid, out] = [await read(`h.${i}.mid`), await read(`h.${i}.out`)];
    compare(`h.${i}.attn_out`, minus(mid, before));
    compare(`h.${i}.mlp_out`, minus(out, mid));
    compare(`h.${i}.out`, out);
    before = out;
  }
  compare("wte_out", await read("wte"));
  tape.clear();
}

async function gradients(
  t: Parity,
  { model }: GoldenModel,
  info: { grad_norm_per_param: Record<string, number> },
): Promise<void> {
  const full = t.has("grads.safetensors");
  const every = full ? 1 : 7;
  const golden = t.tensors(full ? "grads.safetensors" : "grads_every7th.safetensors");
  for (const { name, gradient } of model.parameters.all()) {
    const actual = await model.device.readFloats(gradient);
    const expected = golden.get(name).data;
    const top = largest(expected);
    t.close(`gradient ${name}`, actual.filter((_, i) => i % every === 0), expected, {
      relL2: 1e-5,
      abs: 1e-5 * top,
    });
    t.close(`gradient norm ${name}`, [Math.sqrt(actual.reduce((sum, x) => sum + x * x, 0))], [
      info.grad_norm_per_param[name],
    ], { rel: 1e-5 });
  }
}

async function rotaryTables(t: Parity, { model }: GoldenModel): Promise<void> {
  if (!t.has("rotary.safetensors")) return;
  const golden = t.tensors("rotary.safetensors");
  for (const name of ["cos", "sin"] as const) {
    const actual = await model.device.readFloats(model.rotary[name]);
    // One unit in the last place of bfloat16: cos and sin of two mathematics libraries may round apart.
    t.close(`rotary ${name}`, actual, golden.get(name).data, { abs: 2 ** -8 });
  }
}

async function initialisation(t: Parity, { model }: GoldenModel): Promise<void> {
  model.initWeights(42);
  const golden = t.json("init_stats.json") as Record<string, { mean: number; std: number; zeros: boolean }>;
  for (const { name, master, size } of model.parameters.all()) {
    const values = await model.device.readFloats(master);
    const mean = values.reduce((a, b) => a + b, 0) / size;
    const std = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / size);
    const { std: expected, zeros } = golden[name];
    t.equal(`initial zeros ${name}`, values.every((x) => x === 0), zeros);
    // Five standard errors of a mean and of a deviation.
    t.close(`initial mean ${name}`, [mean], [0], { abs: 5 * expected / Math.sqrt(size) });
    t.close(`initial std ${name}`, [std], [expected], { abs: 10 * expected / Math.sqrt(2 * size) });
  }
}
