/** Golden rl_run: advantages, log-probabilities, the objective of each pass, gradients, and the weights after one step. */
import { linearLrMultiplier } from "../../src/optim/schedule.ts";
import { LossEvaluator } from "../../src/eval/loss_eval.ts";
import { Device } from "../../src/tensor/device.ts";
import { longestRow } from "../../src/train/chat_batches.ts";
import { type PolicyPass, policyPasses, policyWeights } from "../../src/train/policy.ts";
import { advantagesOf } from "../../src/train/rollouts.ts";
import { Trainer } from "../../src/train/trainer.ts";
import {
  compareParameters,
  configOf,
  gradientTolerance,
  loadWeights,
  type ReferenceConfig,
  siblingTensors,
} from "./model.ts";
import type { GoldenTensors, Parity } from "./parity.ts";

interface Spec {
  readonly config: ReferenceConfig;
  readonly init_weights: string;
  readonly pad_token_id: number;
  readonly num_samples: number;
  readonly device_batch_size: number;
  readonly examples_per_rank: number;
  readonly init_lr_frac: number;
  readonly lrm: number;
  readonly examples: readonly { sequences: number[][]; masks: number[][]; rewards: number[] }[];
  readonly passes: readonly {
    example: number;
    pass_idx: number;
    num_valid: number;
    pg_sum: number;
    pg_obj: number;
    loss: number;
  }[];
}

/** The reference's learning rates, which the recording leaves at their defaults. */
const RATES = { unembeddingLr: 0.004, embeddingLr: 0.2, matrixLr: 0.02 };

/** Compares the step. */
export async function run(t: Parity): Promise<void> {
  const spec: Spec = t.json("run.json");
  const golden = t.tensors("rl.safetensors");
  const B = spec.device_batch_size, pad = spec.pad_token_id;
  using device = Device.open("cpu");
  const config = configOf(spec.config);
  const longest = Math.max(...spec.examples.flatMap(({ sequences }) => sequences.map((ids) => ids.length)));
  const T = longestRow(Math.max(config.sequenceLen, longest));
  const gradAccum = Math.ceil(spec.num_samples / B) * spec.examples_per_rank;
  const optimizer = { ...RATES, weightDecay: 0, gradClip: 0, muonDtype: "f32" as const, lrFraction: spec.init_lr_frac };
  using trainer = new Trainer(device, { config, dtype: "f32", B, T, gradAccum, optimizer });
  loadWeights(device, trainer.model.parameters, siblingTensors(t, spec.init_weights));
  using evaluator = new LossEvaluator(trainer.model, { B, T, arena: trainer.arena });
  const passes: PolicyPass[] = [];
  for (const [i, example] of spec.examples.entries()) {
    const advantages = advantagesOf(example.rewards);
    t.equal(`example ${i} rewards`, example.rewards, golden.get(`ex${i}.rewards`).data);
    t.close(`example ${i} advantages`, advantages, golden.get(`ex${i}.advantages`).data, { abs: 1e-7 });
    const rollout = { index: i, ...example, answers: [] };
    await compareExample(t, {
      golden,
      i,
      evaluator,
      exact: policyPasses(rollout, { advantages, B, pad, multiple: 1 }),
    });
    passes.push(...policyPasses(rollout, { advantages, B, pad }));
  }
  for (const [i, pass] of passes.entries()) trainer.microStep({ ...pass, weights: policyWeights(pass) }, i);
  await compareParameters(t, trainer.model, {
    file: "grads.safetensors",
    of: "gradient",
    tolerance: gradientTolerance,
  });
  trainer.update({ lrMultiplier: spec.lrm, momentum: 0.95 });
  const { losses } = await trainer.results();
  t.equal("active targets", passes.map(({ tokens }) => tokens), spec.passes.map(({ num_valid }) => num_valid));
  const objectives = losses.map((loss) => -loss / gradAccum); // the trainer reports each pass before the division
  t.close("objectives", objectives, spec.passes.map(({ pg_obj }) => pg_obj), { abs: 3e-7 });
  t.close("losses", losses.map((loss) => loss / gradAccum), spec.passes.map(({ loss }) => loss), { abs: 3e-7 });
  t.equal("rate of the first step", linearLrMultiplier(0, 9), spec.lrm);
  const file = "weights_after_ns_fp32.safetensors";
  await compareParameters(t, trainer.model, { file, of: "master", tolerance: () => ({ abs: 5e-5 }) });
}

async function compareExample(
  t: Parity,
  { golden, i, evaluator, exact }: {
    golden: GoldenTensors;
    i: number;
    evaluator: LossEvaluator;
    exact: readonly PolicyPass[];
  },
): Promise<void> {
  t.equal(`example ${i} inputs`, exact.flatMap(({ inputs }) => [...inputs]), golden.get(`ex${i}.inputs`).data);
  t.equal(`example ${i} targets`, exact.flatMap(({ targets }) => [...targets]), golden.get(`ex${i}.targets`).data);
  const logp: number[] = [];
  for (const pass of exact) logp.push(...(await evaluator.losses(pass)).map((loss) => 0 - loss));
  t.close(`example ${i} log-probabilities`, logp, golden.get(`ex${i}.logp`).data, { abs: 3e-5 });
}
