/**
 * Base pretraining: from shards to a model (nanochat/base_train.py). `--depth` is the one dial; everything else follows from it.
 *
 * Steps count from 0. At step 0..N: evaluate, sample and save where due; then, below N, one update. Resuming continues bit for bit.
 */
import { join } from "@std/path";
import { checkpointFolder, type Folders } from "../data/base_dir.ts";
import { DataLoader, type LoaderState } from "../data/dataloader.ts";
import { listShards, splitShards } from "../data/dataset.ts";
import type { Log } from "../data/log.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { masterTensors } from "../engine/load.ts";
import { LossEvaluator } from "../eval/loss_eval.ts";
import {
  type CheckpointMeta,
  checkSpace,
  type JsonObject,
  listSteps,
  loadTensors,
  MappedCheckpoint,
  type NamedTensor,
  nativeIo,
  saveCheckpoint,
} from "../model/checkpoint.ts";
import { configFromDepth, flopsPerToken, parameterCount } from "../model/gpt.ts";
import { FolderLock } from "../model/lock.ts";
import { planStart } from "../model/resume.ts";
import { baseLrMultiplier, muonMomentum } from "../optim/schedule.ts";
import { EventLog } from "../report/events.ts";
import { chooseComputeType, Device } from "../tensor/device.ts";
import type { ComputeType } from "../tensor/dtype.ts";
import { measurePeakFlops } from "../tensor/peak.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type BaseTrainFlags, mergeFlags, storedFlags } from "./base_flags.ts";
import { announceData } from "./data_horizon.ts";
import { type Horizon, planHorizon } from "./horizon.ts";
import { type Sample, sampleTexts } from "./samples.ts";
import { type MicroBatch, Trainer } from "./trainer.ts";

/** Where training reads and writes, and whom it tells. */
export interface TrainContext {
  /** Folders of the base folder or of a run. */
  readonly folders: Folders;
  /** Folder of the shards. */
  readonly dataDir: string;
  /** Folder of the tokenizer; the checkpoint keeps a copy. */
  readonly tokenizerDir: string;
  /** Hears what the run does. */
  readonly log: Log;
  /** Aborted when the user asks to stop: the step is finished and saved. */
  readonly stop: AbortSignal;
  /** Names of flags (camelCase) that the user gave. */
  readonly explicit?: ReadonlySet<string>;
  /** Prompts that samples continue; default: the reference's seven. */
  readonly prompts?: readonly string[];
  /** Shows samples; default: the log. */
  readonly onSamples?: (samples: readonly Sample[], step: number) => void;
  /** Called after each update. */
  readonly onStep?: (step: StepReport) => void;
}

/** Figures of one update. */
export interface StepReport {
  /** Number of this update, from 0 on. */
  readonly step: number;
  /** Updates of the whole run. */
  readonly steps: number;
  /** Loss of the last micro-batch, in nats. */
  readonly loss: number;
  /** Exponential average of the loss. */
  readonly smoothLoss: number;
  /** Tokens trained on per second, all ranks together. */
  readonly tokPerSec: number;
  /** Model FLOPs utilisation, 0 to 1. */
  readonly mfu: number;
}

/** What a run leaves behind. */
export interface TrainResult {
  /** Folder of the checkpoints. */
  readonly folder: string;
  /** Updates that the model has had. */
  readonly step: number;
  /** Updates that were planned. */
  readonly steps: number;
  /** True where the user stopped it. */
  readonly stopped: boolean;
  /** Last validation in bits per byte; null where none was made. */
  readonly valBpb: number | null;
  /** Best validation in bits per byte; null where none was made. */
  readonly minValBpb: number | null;
  /** Time of all updates, those before a resume included; evaluation and saving do not count. */
  readonly totalTimeMs: number;
}

/** Loop state that a checkpoint carries. */
interface LoopState {
  minValBpb: number | null;
  smoothLoss: number;
  updates: number;
  totalTimeMs: number;
}

/**
 * Trains a base model.
 *
 * @throws {CheckpointError} where the folder holds another run, {RangeError} for impossible sizes, {Error} for a loss that is not finite.
 */
export async function baseTrain(given: BaseTrainFlags, cx: TrainContext): Promise<TrainResult> {
  const folder = checkpointFolder(cx.folders, { stage: "base", tag: given.modelTag || `d${given.depth}` });
  using _lock = FolderLock.acquire(folder, { purpose: "nanochat train", log: cx.log });
  const { log } = cx;
  const start = planStart({
    folder,
    resume: given.resume === "" ? false : given.resume === "auto" ? "auto" : true,
    resumeFromStep: given.resumeFromStep >= 0 ? given.resumeFromStep : undefined,
    overwrite: given.overwrite,
    tokenizerFolder: cx.tokenizerDir,
    log,
  });
  const resumed = start?.meta ?? null;
  const flags = resumed ? mergeFlags(given, { saved: resumed.flags, explicit: cx.explicit ?? new Set() }) : given;
  const run = await BaseRun.open(flags, { ...cx, folder, resumed });
  try {
    return await run.loop();
  } finally {
    await run[Symbol.asyncDispose]();
  }
}

type RunContext = TrainContext & { readonly folder: string; readonly resumed: CheckpointMeta | null };

/** One run: everything that is open while it lasts. */
class BaseRun implements AsyncDisposable {
  readonly #flags: BaseTrainFlags;
  readonly #cx: RunContext;
  readonly #device: Device;
  readonly #trainer: Trainer;
  readonly #tokenizer: Tokenizer;
  readonly #loader: DataLoader;
  readonly #validation: readonly string[];
  readonly #evaluator: LossEvaluator;
  readonly #events: EventLog;
  readonly #horizon: Horizon;
  readonly #peakFlops: number;
  readonly #loop: LoopState;
  #position: LoaderState | null; // behind the last batch that was trained on
  #step: number;
  #valBpb: number | null = null;

  private constructor(flags: BaseTrainFlags, cx: RunContext, parts: Parts) {
    this.#flags = flags;
    this.#cx = cx;
    this.#device = parts.device;
    this.#trainer = parts.trainer;
    this.#tokenizer = parts.tokenizer;
    this.#loader = parts.loader;
    this.#validation = parts.validation;
    this.#evaluator = parts.evaluator;
    this.#events = parts.events;
    this.#horizon = parts.horizon;
    this.#peakFlops = parts.peakFlops;
    this.#step = cx.resumed?.step ?? 0;
    this.#position = cx.resumed ? cx.resumed.loader as unknown as LoaderState : null;
    this.#loop = cx.resumed
      ? { ...cx.resumed.loop as unknown as LoopState }
      : { minValBpb: null, smoothLoss: 0, updates: 0, totalTimeMs: 0 };
  }

  /** Opens data, tokenizer, device and model; loads the checkpoint of a resumed run. */
  static async open(flags: BaseTrainFlags, cx: RunContext): Promise<BaseRun> {
    const { log, resumed, folder } = cx;
    const { train, val } = splitShards(listShards(cx.dataDir));
    const tokenizer = await Tokenizer.load(cx.tokenizerDir);
    const device = Device.open(flags.deviceType === "cuda" ? "cuda" : "cpu", { threads: flags.threads });
    const dtype = chooseComputeType(device, flags.dtype);
    const config = configFromDepth(flags.depth, { sequenceLen: flags.maxSeqLen, vocabSize: tokenizer.vocabSize });
    const horizon = planHorizon(config, flags);
    const { deviceBatchSize: B, maxSeqLen: T } = flags;
    const optimizer = {
      unembeddingLr: flags.unembeddingLr,
      embeddingLr: flags.embeddingLr,
      matrixLr: flags.matrixLr,
      weightDecay: flags.weightDecay,
      gradClip: flags.gradClip,
      muonDtype: chooseComputeType(device, flags.muonDtype),
    };
    const trainer = new Trainer(device, { config, dtype, B, T, gradAccum: horizon.gradAccum, optimizer });
    const position = resumed ? resumed.loader as unknown as LoaderState : undefined;
    const loader = new DataLoader({ files: train, tokenizer, B, T, state: position });
    const evaluator = new LossEvaluator(trainer.model, { B, T, arena: trainer.arena });
    if (resumed) await restore(trainer, { folder, step: resumed.step });
    else trainer.model.initWeights(flags.seed);
    checkSpace({ folder, model: masterTensors(trainer.model), optimizer: stateTensors(trainer), io: nativeIo(device) });
    const peakFlops = await measurePeakFlops(device, dtype);
    const events = resumed
      ? EventLog.resume(folder, { run: flags.run, step: resumed.step, log })
      : EventLog.create(folder, log);
    announce({ flags, cx, horizon, trainer, dtype, peakFlops });
    await announceData({ files: train, tokenizer, tokens: horizon.tokens, log });
    return new BaseRun(flags, cx, {
      device,
      trainer,
      tokenizer,
      loader,
      validation: val,
      evaluator,
      events,
      horizon,
      peakFlops,
    });
  }

  /** Runs to the horizon, or until the user stops it. */
  async loop(): Promise<TrainResult> {
    const { steps } = this.#horizon;
    const first = this.#step;
    for (;; this.#step++) {
      const step = this.#step;
      const isLast = step >= steps;
      const due = (every: number) => every > 0 && (isLast || step % every === 0);
      if (due(this.#flags.evalEvery)) await this.#evaluate();
      if (step > 0 && due(this.#flags.sampleEvery)) await this.#sample();
      const stopped = this.#cx.stop.aborted;
      const onCadence = this.#flags.saveEvery > 0 && step % this.#flags.saveEvery === 0 && step > 0;
      if ((isLast || onCadence || stopped) && !(step === first && this.#cx.resumed)) await this.#save();
      if (isLast || stopped) {
        this.#events.append({ kind: "end", run: this.#flags.run, step, steps });
        return this.#result(stopped && !isLast);
      }
      await this.#update();
    }
  }

  async #update(): Promise<void> {
    const trainer = this.#trainer, flags = this.#flags, horizon = this.#horizon;
    const start = performance.now();
    const hashes: string[] = [];
    for (let i = 0; i < horizon.gradAccum; i++) {
      const batch = await this.#loader.next();
      hashes.push(batch.hash);
      this.#position = batch.state;
      trainer.microStep(batch, i);
    }
    const schedule = { ...flags, numIterations: horizon.steps };
    const lrMultiplier = baseLrMultiplier(this.#step, schedule);
    trainer.update({ lrMultiplier, momentum: muonMomentum(this.#step) });
    const result = await trainer.results();
    if (!result.finite) throw await this.#notFinite(result.losses);

    const timeMs = performance.now() - start;
    const loss = result.losses.at(-1)!;
    const loop = this.#loop;
    loop.updates++;
    loop.smoothLoss = 0.9 * loop.smoothLoss + 0.1 * loss;
    loop.totalTimeMs += timeMs;
    const smoothLoss = loop.smoothLoss / (1 - 0.9 ** loop.updates);
    const tokPerSec = flags.totalBatchSize / timeMs * 1e3;
    const mfu = flopsPerToken(trainer.model.config) * tokPerSec / this.#peakFlops;
    const report = { step: this.#step, steps: horizon.steps, loss, smoothLoss, tokPerSec, mfu };
    this.#events.append({
      kind: "step",
      run: flags.run,
      step: this.#step,
      steps: horizon.steps,
      loss,
      lr: lrMultiplier,
      gradNorm: result.gradNorm,
      tokPerSec,
      mfu,
      memory: this.#device.memory().peak,
      batchHash: hashes.length === 1 ? hashes[0] : hashes.join(","),
      timeMs,
      totalTimeMs: loop.totalTimeMs,
    });
    this.#progress(report, { gradNorm: result.gradNorm, timeMs });
    this.#cx.onStep?.(report);
  }

  #progress(report: StepReport, { gradNorm, timeMs }: { gradNorm: number; timeMs: number }): void {
    const { loss, smoothLoss, tokPerSec, mfu, step, steps } = report;
    const detail =
      `loss ${smoothLoss.toFixed(4)} (${loss.toFixed(4)}) | norm ${gradNorm.toFixed(3)} | ${timeMs.toFixed(0)} ms | ` +
      `${Math.round(tokPerSec).toLocaleString("en-US")} tok/s | mfu ${(100 * mfu).toFixed(1)} %`;
    this.#cx.log.progress({ label: "Training", done: step + 1, total: steps, detail });
  }

  async #evaluate(): Promise<void> {
    const { deviceBatchSize: B, maxSeqLen: T, evalTokens } = this.#flags;
    const count = Math.max(1, Math.floor(evalTokens / (B * T)));
    await using loader = new DataLoader({ files: this.#validation, tokenizer: this.#tokenizer, B, T });
    const { bpb } = await this.#evaluator.bitsPerByte(take(loader, count), this.#tokenizer.tokenBytes("bytes"));
    this.#valBpb = bpb;
    this.#loop.minValBpb = Math.min(this.#loop.minValBpb ?? Infinity, bpb);
    this.#events.append({ kind: "eval", run: this.#flags.run, step: this.#step, steps: this.#horizon.steps, bpb });
    this.#cx.log.info(`Step ${this.#step}: validation ${bpb.toFixed(4)} bits per byte`);
  }

  async #sample(): Promise<void> {
    const { prompts, onSamples, log } = this.#cx;
    const samples = await sampleTexts(this.#trainer.model, { tokenizer: this.#tokenizer, prompts });
    if (onSamples) onSamples(samples, this.#step);
    else for (const { prompt, text } of samples) log.info(`Step ${this.#step}: ${prompt}${text}`);
  }

  async #save(): Promise<void> {
    const { nc, ctx } = this.#device;
    const { config } = this.#trainer.model;
    await saveCheckpoint({
      nc,
      ctx,
      folder: this.#cx.folder,
      step: this.#step,
      model: masterTensors(this.#trainer.model),
      optimizer: stateTensors(this.#trainer),
      state: {
        run: this.#flags.run,
        stage: "base",
        valBpb: this.#valBpb,
        config: { ...config },
        flags: storedFlags(this.#flags),
        loader: this.#position as unknown as JsonObject,
        rng: { seed: this.#flags.seed },
        loop: { ...this.#loop },
      },
      keep: this.#flags.keep,
      tokenizerFolder: this.#cx.tokenizerDir,
      log: this.#cx.log,
    });
    this.#cx.log.info(`Saved step ${this.#step} to "${this.#cx.folder}"`);
  }

  async #notFinite(losses: readonly number[]): Promise<Error> {
    const micro = losses.findIndex((loss) => !Number.isFinite(loss));
    const gradient = await this.#trainer.firstNonFiniteGradient();
    const where = micro >= 0 ? `the loss of micro-batch ${micro} is ${losses[micro]}` : `the losses are finite`;
    const tensor = gradient ? `the first gradient that is not finite is "${gradient}"` : "all gradients are finite";
    const last = listSteps(this.#cx.folder).at(-1);
    const kept = last === undefined ? "there is no checkpoint yet" : `the last good checkpoint is step ${last}`;
    return new Error(
      `Cannot go on at step ${this.#step}: ${where} and ${tensor}, expected finite numbers; nothing was updated and ${kept}; ` +
        "try a lower --matrix-lr or --embedding-lr",
    );
  }

  #result(stopped: boolean): TrainResult {
    return {
      folder: this.#cx.folder,
      step: this.#step,
      steps: this.#horizon.steps,
      stopped,
      valBpb: this.#valBpb,
      minValBpb: this.#loop.minValBpb,
      totalTimeMs: this.#loop.totalTimeMs,
    };
  }

  /** Closes files and frees the device. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#events[Symbol.dispose]();
    await this.#loader[Symbol.asyncDispose]();
    this.#evaluator[Symbol.dispose]();
    this.#trainer[Symbol.dispose]();
    this.#device[Symbol.dispose]();
    this.#tokenizer[Symbol.dispose]();
  }
}

interface Parts {
  readonly device: Device;
  readonly trainer: Trainer;
  readonly tokenizer: Tokenizer;
  readonly loader: DataLoader;
  readonly validation: readonly string[];
  readonly evaluator: LossEvaluator;
  readonly events: EventLog;
  readonly horizon: Horizon;
  readonly peakFlops: number;
}

async function* take(loader: DataLoader, count: number): AsyncGenerator<MicroBatch> {
  for (let i = 0; i < count; i++) yield await loader.next();
}

function named(name: string, { dtype, shape, pointer, bytes }: Tensor): NamedTensor {
  return { name, dtype: dtype as NamedTensor["dtype"], shape, pointer, bytes };
}

/** Lists a trainer's optimizer state for a checkpoint. */
export function stateTensors(trainer: Trainer): NamedTensor[] {
  return trainer.optimizers.state().map(({ name, tensor }) => named(name, tensor));
}

async function restore(trainer: Trainer, { folder, step }: { folder: string; step: number }): Promise<void> {
  const { nc, ctx } = trainer.device;
  using mapped = new MappedCheckpoint({ nc, ctx, folder, step, rank: 0 });
  await mapped.verify();
  const path = join(folder, `step ${step}`);
  loadTensors({ nc, ctx }, { from: mapped.tensors, into: masterTensors(trainer.model), what: `the model of ${path}` });
  loadTensors({ nc, ctx }, {
    from: mapped.optimizer,
    into: stateTensors(trainer),
    what: `the optimizer state of ${path}`,
  });
  trainer.model.parameters.refreshCopies();
  trainer.optimizers.steps = step;
  await trainer.device.wait();
}

interface Announcement {
  readonly flags: BaseTrainFlags;
  readonly cx: RunContext;
  readonly horizon: Horizon;
  readonly trainer: Trainer;
  readonly dtype: ComputeType;
  readonly peakFlops: number;
}

function announce({ flags, cx: { log, folder, resumed }, horizon, trainer, dtype, peakFlops }: Announcement): void {
  const { config } = trainer.model;
  const count = (n: number) => Math.round(n).toLocaleString("en-US");
  const parameters = parameterCount(config);
  const { name, threads } = trainer.device.info();
  log.info(
    `Model: depth ${config.nLayer}, width ${config.nEmbd}, ${config.nHead} heads, vocabulary ${
      count(config.vocabSize)
    }: ` +
      `${count(parameters)} parameters, ${flopsPerToken(config).toExponential(3)} FLOPs per token`,
  );
  log.info(
    `Device: ${name}, ${threads} threads, ${dtype}, ${(peakFlops / 1e9).toFixed(0)} GFLOP/s measured; ` +
      `memory ${(trainer.device.memory().allocated / 2 ** 20).toFixed(0)} MiB`,
  );
  log.info(
    `Horizon: ${count(horizon.steps)} steps of ${
      count(flags.totalBatchSize)
    } tokens (${horizon.gradAccum} micro-batches) from ` +
      `${horizon.why}; ${count(horizon.tokens)} tokens, ${(horizon.tokens / parameters).toFixed(1)} per parameter`,
  );
  log.info(resumed ? `Resuming step ${resumed.step} in "${folder}"` : `Checkpoints go to "${folder}"`);
}
