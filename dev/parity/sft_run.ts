/** Golden sft_run: batches of every rank, losses, token counts and rates of each step, first gradients, final weights. */
import type { Conversation } from "../../src/data/conversation.ts";
import { linearLrMultiplier } from "../../src/optim/schedule.ts";
import { Device } from "../../src/tensor/device.ts";
import type { ComputeType } from "../../src/tensor/dtype.ts";
import { type ChatBatch, ChatBatches, longestRow } from "../../src/train/chat_batches.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { goldenTokenizer, listTask } from "./conversations.ts";
import {
  compareParameters,
  configOf,
  gradientTolerance,
  loadWeights,
  type ReferenceConfig,
  siblingTensors,
} from "./model.ts";
import type { Parity } from "./parity.ts";

interface Step {
  readonly micro_losses: number[];
  readonly num_tokens: number;
  readonly lrm: number;
  readonly grad_norm_unclipped: number;
  readonly muon_momentum: number;
}

interface Spec {
  readonly config: ReferenceConfig;
  readonly init_weights: string;
  readonly tokenizer: string;
  readonly conversations: readonly Conversation[];
  readonly device_batch_size: number;
  readonly grad_accum_steps: number;
  readonly num_iterations: number;
  readonly optimizer_steps: number;
  readonly init_lr_frac: number;
  readonly lrs: { unembedding_lr: number; embedding_lr: number; matrix_lr: number };
  readonly runs: { readonly bf16: readonly Step[]; readonly fp32: readonly Step[] };
}

/** Compares the run. */
export async function run(t: Parity): Promise<void> {
  const spec: Spec = t.json("run.json");
  await compareBatches(t, spec);
  await follow(t, { spec, dtype: "f32", expected: spec.runs.fp32 });
  await follow(t, { spec, dtype: "bf16", expected: spec.runs.bf16 });
}

async function compareBatches(t: Parity, spec: Spec): Promise<void> {
  using tokenizer = await goldenTokenizer(t.root, spec.tokenizer);
  const golden = t.tensors("batches.safetensors");
  const streams = new Map<string, number[]>();
  for (const name of golden.names()) {
    const [_, prefix, index] = /^(rank\d+of\d+\.)?micro(\d+)\.inputs$/.exec(name) ?? [];
    if (index !== undefined) streams.set(prefix ?? "", [...streams.get(prefix ?? "") ?? [], Number(index)]);
  }
  for (const [prefix, indices] of streams) {
    const [rank, world] = prefix ? prefix.match(/\d+/g)!.map(Number) : [0, 1];
    const task = listTask(spec.conversations);
    const options = { task, tokenizer, B: spec.device_batch_size, T: 2047, rank, world };
    const exact = new ChatBatches({ ...options, multiple: 1 });
    const batches: ChatBatch[] = indices.map(() => exact.next());
    for (const i of indices.sort((a, b) => a - b)) {
      for (const what of ["inputs", "targets"] as const) {
        const { data, shape } = golden.get(`${prefix}micro${i}.${what}`);
        t.equal(`${prefix}micro${i}.${what}`, [Array.from(batches[i][what]), batches[i][what].length], [
          Array.from(data),
          shape[0] * shape[1],
        ]);
      }
      if (i === 0) continue;
      const resumed = new ChatBatches({ ...options, multiple: 1, state: batches[i - 1].state });
      t.equal(`${prefix}micro${i} resumed`, resumed.next(), batches[i]);
    }
  }
}

async function follow(
  t: Parity,
  { spec, dtype, expected }: { spec: Spec; dtype: ComputeType; expected: readonly Step[] },
): Promise<void> {
  const label = dtype === "f32" ? "fp32" : "bf16";
  using device = Device.open("cpu");
  using tokenizer = await goldenTokenizer(t.root, spec.tokenizer);
  const config = configOf(spec.config);
  const T = Math.max(longestRow(config.sequenceLen), longestRow(2047));
  const B = spec.device_batch_size, gradAccum = spec.grad_accum_steps;
  const optimizer = {
    unembeddingLr: spec.lrs.unembedding_lr,
    embeddingLr: spec.lrs.embedding_lr,
    matrixLr: spec.lrs.matrix_lr,
    weightDecay: 0,
    gradClip: 0,
    muonDtype: dtype,
    lrFraction: spec.init_lr_frac,
  };
  const rows = new ChatBatches({ task: listTask(spec.conversations), tokenizer, B, T: 2047 });
  using trainer = new Trainer(device, { config, dtype: "f32", B, T, gradAccum, optimizer });
  loadWeights(device, trainer.model.parameters, siblingTensors(t, spec.init_weights));
  const losses: number[] = [], norms: number[] = [], tokens: number[] = [], rates: number[] = [];
  for (let step = 0; step < spec.optimizer_steps; step++) {
    const lrMultiplier = linearLrMultiplier(step, spec.num_iterations);
    let active = 0;
    for (let i = 0; i < gradAccum; i++) {
      const batch = rows.next();
      active += batch.tokens;
      trainer.microStep(batch, i);
    }
    if (step === 0 && dtype === "f32") {
      const file = "grads_step0.safetensors";
      await compareParameters(t, trainer.model, { file, of: "gradient", tolerance: gradientTolerance });
    }
    trainer.update({ lrMultiplier, momentum: expected[step].muon_momentum });
    const result = await trainer.results();
    losses.push(...result.losses);
    norms.push(result.gradNorm);
    tokens.push(active);
    rates.push(lrMultiplier);
  }
  const abs = dtype === "f32" ? 1e-5 : 1e-3;
  t.close(`${label} losses`, losses, expected.flatMap((step) => step.micro_losses), { abs });
  t.close(`${label} gradient norms`, norms, expected.map((step) => step.grad_norm_unclipped), {
    rel: dtype === "f32" ? 2e-5 : 1e-2,
  });
  t.equal(`${label} active targets`, tokens, expected.map((step) => step.num_tokens));
  t.close(`${label} rates`, rates, expected.map((step) => step.lrm), { abs: 1e-15 });
  if (dtype !== "f32") return;
  const file = "weights_final_ns_fp32.safetensors";
  await compareParameters(t, trainer.model, { file, of: "master", tolerance: () => ({ abs: 2e-5 }) });
}
