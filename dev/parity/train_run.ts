/** Golden train_run: forty steps of base training, loss by loss, with Newton-Schulz in fp32 and in bf16. */
import { baseLrMultiplier, muonMomentum } from "../../src/optim/schedule.ts";
import { TEST_BACKEND } from "../../src/tensor/backend_testing.ts";
import { Device } from "../../src/tensor/device.ts";
import type { ComputeType } from "../../src/tensor/dtype.ts";
import { type MicroBatch, Trainer } from "../../src/train/trainer.ts";
import { compareParameters, configOf, loadWeights } from "./model.ts";
import { type GoldenTensors, largest, type Parity } from "./parity.ts";

interface RunInfo {
  readonly micro_losses: number[][];
  readonly train_loss: number[];
  readonly grad_norm: number[];
}

/** Compares the run. */
export async function run(t: Parity): Promise<void> {
  const info = t.json("run.json");
  const batches = t.tensors("batches.safetensors");
  const init = t.tensors("weights_init.safetensors");
  const runs: Record<string, RunInfo> = info.runs;
  await follow(t, {
    info,
    batches,
    init,
    dtype: "f32",
    expected: runs.fp32,
    final: "weights_final_ns_fp32.safetensors",
  });
  await follow(t, { info, batches, init, dtype: "bf16", expected: runs.bf16, final: "weights_final.safetensors" });
}

interface Case {
  // deno-lint-ignore no-explicit-any
  readonly info: any;
  readonly batches: GoldenTensors;
  readonly init: GoldenTensors;
  readonly dtype: ComputeType;
  readonly expected: RunInfo;
  readonly final: string;
}

async function follow(t: Parity, { info, batches, init, dtype, expected, final }: Case): Promise<void> {
  const { num_iterations: N, grad_accum_steps: gradAccum, B, T, hyperparameters: h } = info;
  const label = dtype === "f32" ? "fp32" : "bf16";
  using device = Device.open(TEST_BACKEND);
  const optimizer = {
    unembeddingLr: h.unembedding_lr,
    embeddingLr: h.embedding_lr,
    matrixLr: h.matrix_lr,
    weightDecay: h.weight_decay,
    gradClip: h.grad_clip,
    muonDtype: dtype,
  };
  using trainer = new Trainer(device, { config: configOf(info.config), dtype: "f32", B, T, gradAccum, optimizer });
  loadWeights(device, trainer.model.parameters, init);
  const schedule = {
    numIterations: N,
    warmupRatio: h.warmup_ratio,
    warmdownRatio: h.warmdown_ratio,
    finalLrFrac: h.final_lr_frac,
  };
  const size = B * T;
  const batch = (i: number): MicroBatch => ({
    inputs: batches.get("inputs").data.slice(i * size, (i + 1) * size) as Int32Array<ArrayBuffer>,
    targets: batches.get("targets").data.slice(i * size, (i + 1) * size) as Int32Array<ArrayBuffer>,
  });
  const weights = (file: string, relL2: number) =>
    compareParameters(t, trainer.model, { file, of: "master", tolerance: () => ({ relL2 }) });
  const losses: number[][] = [], norms: number[] = [];
  for (let step = 0; step < N; step++) {
    for (let i = 0; i < gradAccum; i++) trainer.microStep(batch(step * gradAccum + i), i);
    if (step === 0 && dtype === "f32") await firstGradients(t, trainer, h.grad_clip);
    trainer.update({ lrMultiplier: baseLrMultiplier(step, schedule), momentum: muonMomentum(step) });
    const result = await trainer.results();
    losses.push([...result.losses]);
    norms.push(result.gradNorm);
    if (step === 4 && dtype === "f32") {
      await weights("weights_step5_ns_fp32.safetensors", 3e-4);
    }
  }
  const flat = (x: number[][], n: number) => x.slice(0, n).flat();
  const bounds: [number, number][] = dtype === "f32" ? [[N, 2e-5]] : [[1, 5e-6], [10, 5e-3], [N, 2e-2]];
  for (const [n, abs] of bounds) {
    t.close(`${label} losses of ${n} steps`, flat(losses, n), flat(expected.micro_losses, n), { abs });
    const last = losses.map((micro) => micro.at(-1)!);
    t.close(`${label} train loss of ${n} steps`, last.slice(0, n), expected.train_loss.slice(0, n), { abs });
  }
  t.close(`${label} gradient norms`, norms, expected.grad_norm, { rel: dtype === "f32" ? 2e-5 : 1e-2 });
  await weights(final, dtype === "f32" ? 3e-4 : 0.2);
}

async function firstGradients(t: Parity, trainer: Trainer, clip: number): Promise<void> {
  const file = "grads_step0_clipped.safetensors";
  if (!t.has(file)) return;
  const golden = t.tensors(file);
  const parameters = trainer.model.parameters.all();
  const actual = await Promise.all(parameters.map(({ gradient }) => trainer.device.readFloats(gradient)));
  const norm = Math.sqrt(actual.reduce((sum, g) => sum + g.reduce((s, x) => s + x * x, 0), 0));
  const scale = Math.min(1, clip / (norm + 1e-6));
  parameters.forEach(({ name }, i) => {
    const expected = golden.get(name).data;
    const top = largest(expected);
    t.close(`first clipped gradient ${name}`, actual[i].map((x) => x * scale), expected, {
      abs: Math.max(1e-5 * top, 1e-9),
    });
  });
}
