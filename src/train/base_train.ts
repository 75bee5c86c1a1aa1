/**
 * Base pretraining: from shards to a model (nanochat/base_train.py). `--depth` is the one dial; everything else follows from it.
 *
 * Steps count from 0. At step 0..N: save, evaluate and sample where due; then, below N, one update. Resuming continues bit for bit.
 */
import { DataLoader, type LoaderState, type ReferenceState } from "../data/dataloader.ts";
import { listShards, splitShards } from "../data/dataset.ts";
import { readPrompts } from "../data/prompts.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import type { CoreBundle } from "../eval/core_bundle.ts";
import { evaluateCore } from "../eval/core_eval.ts";
import { LossEvaluator } from "../eval/loss_eval.ts";
import type { JsonObject } from "../model/checkpoint.ts";
import { configFromDepth, type GPTConfig, parameterCount } from "../model/gpt.ts";
import { baseLrMultiplier, muonMomentum } from "../optim/schedule.ts";
import type { BaseTrainFlags } from "./base_flags.ts";
import { announceData } from "./data_horizon.ts";
import { type Horizon, planHorizon } from "./horizon.ts";
import { sampleTexts } from "./samples.ts";
import { count, startRun, type TrainContext, type TrainResult, TrainSession } from "./session.ts";
import type { MicroBatch } from "./trainer.ts";

/** What base training reads, beside the context of every stage. */
export interface BaseTrainContext extends TrainContext {
  /** Folder of the shards. */
  readonly dataDir: string;
  /** Folder of the tokenizer; the checkpoint keeps a copy. */
  readonly tokenizerDir: string;
  /** Tasks of the CORE metric; without them it is not measured. */
  readonly core?: CoreBundle;
}

/**
 * Trains a base model.
 *
 * @throws {CheckpointError} where the folder holds another run, {RangeError} for impossible sizes, {Error} for a loss that is not finite.
 */
export async function baseTrain(given: BaseTrainFlags, cx: BaseTrainContext): Promise<TrainResult> {
  const { tokenizerDir, log } = cx;
  using start = startRun(given, { stage: "base", tag: given.modelTag || `d${given.depth}`, tokenizerDir, cx });
  const { flags } = start;
  const { deviceBatchSize: B, maxSeqLen: T, gradClip, seed } = flags;
  const { train, val } = splitShards(listShards(cx.dataDir));
  const prompts = readPrompts(cx.dataDir)?.training;
  using tokenizer = await Tokenizer.load(tokenizerDir);
  // A model that was imported may have a shape that no depth gives.
  const config = start.resumed
    ? start.resumed.config as unknown as GPTConfig
    : configFromDepth(flags.depth, { sequenceLen: T, vocabSize: tokenizer.vocabSize });
  const horizon = planHorizon(config, flags);
  const { gradAccum, steps } = horizon;
  await using session = await TrainSession.open({
    start,
    cx,
    tokenizerDir,
    config,
    B,
    T,
    gradAccum,
    gradClip,
    init: (model) => model.initWeights(seed),
  });
  announceHorizon({ flags, horizon, parameters: parameterCount(config), cx });
  await announceData({ files: train, tokenizer, tokens: horizon.tokens, log });

  const { trainer: { model, arena } } = session;
  // Behind the last batch that was trained on; the Python nanochat keeps no more than the row group.
  let position = (session.resumedLoader ?? null) as unknown as LoaderState | ReferenceState | null;
  const resume = position && !("offset" in position) ? "reference" : "exact";
  await using loader = new DataLoader({ files: train, tokenizer, B, T, state: position ?? undefined, resume });
  using evaluator = new LossEvaluator(model, { B, T, arena });
  for (const first = session.step;;) {
    const { step } = session;
    const isLast = step >= steps;
    const due = (every: number) => every > 0 && (isLast || step % every === 0);
    const isCadence = step > 0 && flags.saveEvery > 0 && step % flags.saveEvery === 0;
    const isResumed = step === first && start.resumed !== null;
    const stopping = session.stopping;
    // Saved first, so that no evaluation can cost the run.
    if ((isLast || isCadence || stopping) && !isResumed) await session.save(position as unknown as JsonObject);
    if (due(flags.evalEvery) && (isLast || !stopping)) await evaluate();
    if (step > 0 && due(flags.coreMetricEvery) && !stopping && cx.core) await measureCore(cx.core);
    if (step > 0 && due(flags.sampleEvery) && !stopping) await sample();
    if (isLast || stopping) return session.finish(steps);
    await session.update(nextBatch, {
      steps,
      schedule: {
        lrMultiplier: baseLrMultiplier(step, { ...flags, numIterations: steps }),
        momentum: muonMomentum(step),
      },
    });
  }

  async function nextBatch() {
    const batch = await loader.next();
    position = batch.state;
    return batch;
  }

  async function evaluate(): Promise<void> {
    const batches = Math.max(1, Math.floor(flags.evalTokens / (B * T)));
    await using held = new DataLoader({ files: val, tokenizer, B, T });
    const { bpb } = await evaluator.bitsPerByte(take(held, batches), tokenizer.tokenBytes("bytes"));
    session.record({ steps, bpb });
    await session.amend();
    log.info(`Step ${session.step}: validation ${bpb.toFixed(4)} bits per byte`);
  }

  async function measureCore(bundle: CoreBundle): Promise<void> {
    const { coreMetricMaxPerTask: maxPerTask } = flags;
    const options = { bundle, maxPerTask, batchTokens: B * T, log, stop: cx.stop };
    const result = await evaluateCore({ model, tokenizer }, options);
    if (!result) return; // the user asked to stop
    const { core, interval: [low, high] } = result;
    session.record({ steps, values: { core } });
    log.info(`Step ${session.step}: CORE ${core.toFixed(4)} (95 % interval ${low.toFixed(4)} to ${high.toFixed(4)})`);
  }

  async function sample(): Promise<void> {
    for (const { prompt, text } of await sampleTexts(model, { tokenizer, prompts })) {
      log.info(`Step ${session.step}: ${`${prompt}${text}`.replaceAll("\n", " ")}`);
    }
  }
}

async function* take(loader: DataLoader, count: number): AsyncGenerator<MicroBatch> {
  for (let i = 0; i < count; i++) yield await loader.next();
}

function announceHorizon(
  { flags, horizon, parameters, cx: { log } }: {
    flags: BaseTrainFlags;
    horizon: Horizon;
    parameters: number;
    cx: TrainContext;
  },
): void {
  const { steps, gradAccum, tokens, why } = horizon;
  log.info(
    `Horizon: ${count(steps)} steps of ${
      count(flags.totalBatchSize)
    } tokens (${gradAccum} micro-batches) from ${why}; ` +
      `${count(tokens)} tokens, ${(tokens / parameters).toFixed(1)} per parameter`,
  );
}
