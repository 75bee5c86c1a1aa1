/** Golden upstream_checkpoint: checkpoints that the reference wrote are imported, give its logits and its loss, and training goes on. */
import { dirname, join } from "@std/path";
import { foldersOf } from "../../src/data/base_dir.ts";
import { SILENT } from "../../src/data/log.ts";
import { Tokenizer } from "../../src/data/tokenizer.ts";
import { LoadedModel } from "../../src/engine/load.ts";
import { LossEvaluator } from "../../src/eval/loss_eval.ts";
import { openReference } from "../../src/interop/reference.ts";
import type { CheckpointMeta } from "../../src/model/checkpoint.ts";
import type { GPTConfig } from "../../src/model/gpt.ts";
import { muonMomentum } from "../../src/optim/schedule.ts";
import { Arena } from "../../src/tensor/arena.ts";
import { Device } from "../../src/tensor/device.ts";
import { Tape } from "../../src/tensor/tape.ts";
import { importModel } from "../../src/train/import_model.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { restoreTrainer } from "../../src/train/trainer_state.ts";
import { temporaryFolder } from "../testing.ts";
import { siblingTensors } from "./model.ts";
import type { GoldenTensor, GoldenTensors, Parity } from "./parity.ts";

/** Imports and compares. */
export async function run(t: Parity): Promise<void> {
  using base = temporaryFolder();
  using device = Device.open("cpu");
  const logits = t.tensors("expected_logits.safetensors");
  const index = t.json("index.json");
  const models = t.files().filter((file) => /model_\d+\.pt$/.test(file));
  for (const file of models) {
    const folder = dirname(file);
    using foreign = await openReference(device, { folder: join(t.folder, folder) });
    for (const read of foreign.files) t.bytes(read.slice(t.folder.length + 1));
    const { meta, folder: ours, stage } = await importModel(device, {
      foreign,
      ...{ folders: foldersOf(base.path), log: SILENT },
    });
    t.equal(`${folder}: step`, meta.step, t.json(`${folder}/meta_${file.slice(-9, -3)}.json`).step);
    await compareLogits(t, { base: base.path, stage, logits });
    if (foreign.optimizer.length === 0) continue;
    t.equal(`${folder}: validation in bits per byte`, meta.valBpb, index.val_bpb);
    await resume(t, { device, folder: ours, meta, index });
    await measureLoss(t, { base: base.path, index });
  }
  t.equal("both checkpoints", models.length, 2);
}

async function compareLogits(
  t: Parity,
  { base, stage, logits }: { base: string; stage: "base" | "mid" | "sft" | "rl"; logits: GoldenTensors },
): Promise<void> {
  using loaded = await LoadedModel.open(base, { source: stage, dtype: "fp32" });
  await loaded.verified;
  const { device, model } = loaded;
  model.unpack();
  using arena = new Arena(device, 64 << 20);
  const tape = new Tape(device, arena, { training: false });
  const idx = logits.get("idx");
  using ids = device.from(idx.data as Int32Array<ArrayBuffer>, idx.shape, "i32");
  const found = await device.readFloats(model.logits(tape, model.forward(tape, ids)));
  t.close(`${stage} logits`, found, logits.get(`${stage}_logits`).data, { abs: 3e-5 });
}

/** The validation loss that the reference has stored in its meta file, on the batches that it names. */
async function measureLoss(t: Parity, { base, index }: { base: string; index: { val_bpb: number } }): Promise<void> {
  using loaded = await LoadedModel.open(base, { source: "base", dtype: "fp32" });
  const batches = batchesOf(t);
  const { B, T } = batches;
  using evaluator = new LossEvaluator(loaded.model, { B, T });
  const { bpb } = await evaluator.bitsPerByte([0, 1, 2, 3].map(batches.get), loaded.tokenizer.tokenBytes("reference"));
  t.close("bits per byte of the imported model", [bpb], [index.val_bpb], { rel: 2e-6 });
}

function batchesOf(t: Parity) {
  const tensors = siblingTensors(t, "train_run/batches.safetensors");
  const [B, T] = tensors.get("inputs").shape.slice(-2);
  const part = ({ data }: GoldenTensor, i: number) => data.slice(i * B * T, (i + 1) * B * T) as Int32Array<ArrayBuffer>;
  const count = tensors.get("inputs").data.length / (B * T);
  const get = (i: number) => ({ inputs: part(tensors.get("inputs"), i), targets: part(tensors.get("targets"), i) });
  return { B, T, count, get };
}

interface Index {
  readonly optim_state_summary: Record<string, { shape: number[]; norm: number; sum: number; first8: number[] }>;
}

/** Compares the optimizers' states with the recorded ones, and goes on with the run. */
async function resume(
  t: Parity,
  { device, folder, meta, index }: { device: Device; folder: string; meta: CheckpointMeta; index: Index },
): Promise<void> {
  const flags = meta.flags as Record<string, number>;
  const batches = batchesOf(t);
  const { B, T } = batches;
  const gradAccum = flags.total_batch_size / (B * T);
  const optimizer = {
    unembeddingLr: flags.unembedding_lr,
    embeddingLr: flags.embedding_lr,
    matrixLr: flags.matrix_lr,
    weightDecay: flags.weight_decay,
    gradClip: flags.grad_clip,
    muonDtype: "bf16" as const,
  };
  const config = meta.config as unknown as GPTConfig;
  using trainer = new Trainer(device, { config, dtype: "f32", B, T, gradAccum, optimizer });
  await restoreTrainer(trainer, { folder, step: meta.step });
  using tokenizer = await Tokenizer.load(folder);
  t.equal("tokens of the imported tokenizer", tokenizer.vocabSize, config.vocabSize);

  const states = new Map(trainer.optimizers.state().map(({ name, tensor }) => [name, tensor]));
  for (const [key, expected] of Object.entries(index.optim_state_summary)) {
    const [_, name, kind] = /^\d\.(.+)\.(\w+)$/.exec(key)!;
    if (kind === "step") {
      t.equal(`${name}: updates`, trainer.optimizers.steps, expected.sum);
      continue;
    }
    const state = states.get(`${kind}.${name}`)!;
    states.delete(`${kind}.${name}`);
    const values = await device.readFloats(state);
    const norm = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));
    t.equal(`${key}: shape`, state.shape, expected.shape);
    t.close(`${key}: norm`, [norm], [expected.norm], { rel: 1e-5 });
    t.close(`${key}: first values`, values.subarray(0, expected.first8.length), expected.first8, { rel: 1e-6 });
    t.close(`${key}: sum`, [values.reduce((sum, x) => sum + x, 0)], [expected.sum], {
      abs: 1e-5 * norm * Math.sqrt(values.length),
    });
  }
  t.equal("states without a record", [...states.keys()], []);

  // At a tenth of the rate the model learns these batches further, from where the reference left it.
  const losses: number[] = [];
  const steps = Math.floor(batches.count / gradAccum);
  for (let i = 0; i < 2 * steps; i++) {
    for (let j = 0; j < gradAccum; j++) trainer.microStep(batches.get((i % steps) * gradAccum + j), j);
    trainer.update({ lrMultiplier: 0.1, momentum: muonMomentum(meta.step + i) });
    losses.push(...(await trainer.results()).losses);
  }
  const mean = (list: number[]) => list.reduce((sum, x) => sum + x, 0) / list.length;
  const [first, second] = [losses.slice(0, losses.length / 2), losses.slice(losses.length / 2)].map(mean);
  const { smoothLoss, updates } = meta.loop as { smoothLoss: number; updates: number };
  const before = smoothLoss / (1 - 0.9 ** updates);
  const label = `training goes on: loss ${before.toFixed(3)}, ${first.toFixed(3)}, then ${second.toFixed(3)}`;
  t.equal(label, second < first && first < before, true);
}
