/**
 * What base training, mid-training, fine-tuning and reinforcement have in common: a run starts or resumes, holds the lock on its folder,
 * updates, stops before a number that is not finite, saves, and tells events and progress. What a step trains on, and when it is
 * evaluated, is in the file of each stage.
 */
import { checkpointFolder, type Folders, type Stage } from "../data/base_dir.ts";
import type { Log } from "../data/log.ts";
import { masterTensors } from "../engine/load.ts";
import {
  amendMeta,
  type CheckpointMeta,
  checkSpace,
  clearCheckpoints,
  describeSteps,
  type Json,
  listSteps,
  nativeIo,
  saveCheckpoint,
  stepBytes,
} from "../model/checkpoint.ts";
import { flopsPerToken, type GPT, type GPTConfig, parameterCount } from "../model/gpt.ts";
import { FolderLock } from "../model/lock.ts";
import { planStart } from "../model/resume.ts";
import type { StepSchedule } from "../optim/groups.ts";
import { EventLog } from "../report/events.ts";
import { chooseComputeType, Device } from "../tensor/device.ts";
import type { ComputeType } from "../tensor/dtype.ts";
import { measurePeakFlops } from "../tensor/peak.ts";
import { Profiler } from "../tensor/profile.ts";
import { RunClock } from "./run_clock.ts";
import { mergeFlags, type StageFlags, storedFlags } from "./stage_flags.ts";
import { type MicroBatch, Trainer } from "./trainer.ts";
import { restoreTrainer, stateTensors } from "./trainer_state.ts";

/** Where training writes, and whom it tells. */
export interface TrainContext {
  /** Folders of the base folder or of a run. */
  readonly folders: Folders;
  /** Hears what the run does. */
  readonly log: Log;
  /** Aborted when the user asks to stop: the step is finished and saved. */
  readonly stop: AbortSignal;
  /** Names of flags (camelCase) that the user gave. */
  readonly explicit?: ReadonlySet<string>;
  /** Times every op of the updates and shows a table at the end. */
  readonly profile?: boolean;
  /** Price of an hour of the machine: progress tells the cost. */
  readonly pricePerHour?: number;
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
  /** Time that the machine was held, evaluation and saving included. */
  readonly wallTimeMs: number;
  /** What that costs; undefined without a price. */
  readonly cost?: number;
}

/** A micro-batch whose tokens can be told apart from others'. */
export interface HashedBatch extends MicroBatch {
  /** Equal hashes, equal batches. */
  readonly hash?: string;
  /** Tokens that count for the speed; default: all inputs. */
  readonly tokens?: number;
}

/** A run that may begin: its folder is locked until disposal. */
export interface RunStart<F extends StageFlags> extends Disposable {
  /** Stage of training. */
  readonly stage: Stage;
  /** Where its checkpoints go. */
  readonly folder: string;
  /** Flags as given, or, resumed, as in the checkpoint. */
  readonly flags: F;
  /** Checkpoint that is resumed; null = a fresh start. */
  readonly resumed: CheckpointMeta | null;
  /** Steps of an earlier run (`--overwrite`): they are removed when this one has taken its first step. */
  readonly replaced: readonly number[];
}

/**
 * Locks the folder of a run and decides whether it starts or resumes.
 *
 * @throws {CheckpointError} where the folder holds another run, another process writes there, or flags differ from the checkpoint's.
 */
export function startRun<F extends StageFlags>(
  given: F,
  { stage, tag, tokenizerDir, cx }: { stage: Stage; tag: string; tokenizerDir: string; cx: TrainContext },
): RunStart<F> {
  const folder = checkpointFolder(cx.folders, { stage, tag });
  const lock = FolderLock.acquire(folder, { purpose: `nanochat ${stage === "base" ? "train" : stage}`, log: cx.log });
  try {
    const start = planStart({
      folder,
      resume: given.resume === "" ? false : given.resume === "auto" ? "auto" : true,
      resumeFromStep: given.resumeFromStep >= 0 ? given.resumeFromStep : undefined,
      overwrite: given.overwrite,
      tokenizerFolder: tokenizerDir,
      log: cx.log,
    });
    const resumed = start?.meta ?? null;
    const flags = resumed ? mergeFlags(given, { saved: resumed.flags, explicit: cx.explicit ?? new Set() }) : given;
    const replaced = resumed ? [] : listSteps(folder);
    return { stage, folder, flags, resumed, replaced, [Symbol.dispose]: () => lock[Symbol.dispose]() };
  } catch (error) {
    lock[Symbol.dispose]();
    throw error;
  }
}

/** Sizes and optimizers of a session, and where its weights come from. */
export interface SessionOptions {
  /** What `startRun` decided. */
  readonly start: RunStart<StageFlags>;
  readonly cx: TrainContext;
  /** Tokenizer's folder; each checkpoint keeps a copy. */
  readonly tokenizerDir: string;
  readonly config: GPTConfig;
  /** Rows of a micro-batch at most. */
  readonly B: number;
  /** Tokens of a row at most. */
  readonly T: number;
  /** Micro-batches of an update. */
  readonly gradAccum: number;
  /** Largest global gradient norm; default 0 = no clipping. */
  readonly gradClip?: number;
  /** Factor of all learning rates; default 1. */
  readonly lrFraction?: number;
  /** Fills the weights of a fresh start. */
  init(model: GPT): void | Promise<void>;
}

/** Loop state that a checkpoint carries. */
interface LoopState {
  minValBpb: number | null;
  smoothLoss: number;
  updates: number;
  totalTimeMs: number;
  wallTimeMs?: number; // absent in checkpoints of earlier versions
}

/** Everything that is open while a run trains. */
export class TrainSession implements AsyncDisposable {
  /** Device of the model; freed with the session. */
  readonly device: Device;
  /** Model and optimizers; freed with the session. */
  readonly trainer: Trainer;
  /** Updates that the model has had. */
  step: number;
  /** Last validation in bits per byte. */
  valBpb: number | null = null;
  readonly #options: SessionOptions;
  readonly #events: EventLog;
  #peakFlops: number;
  readonly #loop: LoopState;
  readonly #clock: RunClock;
  readonly #profiler: Profiler | null;
  #updates = 0; // of this attempt
  #saved: CheckpointMeta | undefined; // the checkpoint that was saved or resumed last
  #replaced: readonly number[]; // steps of an earlier run that are still there

  private constructor(
    options: SessionOptions,
    { trainer, events, peakFlops, profiler }: {
      trainer: Trainer;
      events: EventLog;
      peakFlops: number;
      profiler: Profiler | null;
    },
  ) {
    const { resumed, replaced } = options.start;
    this.#options = options;
    this.device = trainer.device;
    this.trainer = trainer;
    this.#events = events;
    this.#peakFlops = peakFlops;
    this.#profiler = profiler;
    trainer.costs = profiler?.costs ?? null;
    this.step = resumed?.step ?? 0;
    this.#saved = resumed ?? undefined;
    this.#replaced = replaced;
    this.#loop = resumed
      ? { ...resumed.loop as unknown as LoopState }
      : { minValBpb: null, smoothLoss: 0, updates: 0, totalTimeMs: 0 };
    this.#clock = new RunClock({ beforeMs: this.#loop.wallTimeMs, pricePerHour: options.cx.pricePerHour });
  }

  /** Opens device and model, fills or loads the weights, and checks that the next checkpoint will fit. */
  static async open(options: SessionOptions): Promise<TrainSession> {
    const { start: { folder, flags, resumed, replaced }, cx: { log }, config, B, T, gradAccum } = options;
    const device = Device.choose(flags.deviceType, { threads: flags.threads });
    const dtype = chooseComputeType(device, flags.dtype || resumed?.dtype); // a resumed run stays what it was elsewhere too
    const optimizer = {
      unembeddingLr: flags.unembeddingLr,
      embeddingLr: flags.embeddingLr,
      matrixLr: flags.matrixLr,
      weightDecay: flags.weightDecay,
      gradClip: options.gradClip ?? 0,
      muonDtype: chooseComputeType(device, flags.muonDtype),
      lrFraction: options.lrFraction ?? 1,
    };
    const trainer = new Trainer(device, { config, dtype, B, T, gradAccum, optimizer });
    if (resumed) await restoreTrainer(trainer, { folder, step: resumed.step });
    else await options.init(trainer.model);
    checkSpace({
      folder,
      model: masterTensors(trainer.model),
      optimizer: stateTensors(trainer),
      io: nativeIo(device.context),
      reclaimed: replaced.reduce((sum, step) => sum + stepBytes(folder, step), 0),
    });
    const peakFlops = await measurePeakFlops(device, dtype);
    const profiler = options.cx.profile ? await Profiler.open(device, dtype) : null;
    const events = resumed
      ? EventLog.resume(folder, { run: flags.run, step: resumed.step, log })
      : replaced.length > 0
      ? EventLog.hold(folder, log)
      : EventLog.create(folder, log);
    announce({ log, trainer, dtype, peakFlops });
    log.info(resumed ? `Resuming step ${resumed.step} in "${folder}"` : `Checkpoints go to "${folder}"`);
    return new TrainSession(options, { trainer, events, peakFlops, profiler });
  }

  /** Position in the data behind the checkpoint that was resumed; undefined at a fresh start. */
  get resumedLoader(): Json | undefined {
    return this.#options.start.resumed?.loader;
  }

  /** Whether the user asked to stop. */
  get stopping(): boolean {
    return this.#options.cx.stop.aborted;
  }

  /**
   * Trains one step on the micro-batches that `next` gives, null = one that has no weight, and counts it.
   *
   * @param options.values further figures for the event of this step
   * @param options.spentMs time that this step has taken before: making its data
   * @throws {Error} for a loss or gradient that is not finite, naming it; nothing is updated then.
   */
  async update(
    next: () => HashedBatch | null | Promise<HashedBatch | null>,
    { steps, schedule, values, spentMs = 0 }: {
      steps: number;
      schedule: StepSchedule;
      values?: Readonly<Record<string, number>>;
      spentMs?: number;
    },
  ): Promise<StepReport> {
    const { trainer, step } = this;
    const { flags } = this.#options.start;
    const start = performance.now() - spentMs;
    const hashes: string[] = [];
    let tokens = 0;
    this.#profiler?.start();
    for (let i = 0; i < trainer.options.gradAccum; i++) {
      const batch = await next();
      if (batch === null) {
        trainer.skip(i);
        continue;
      }
      if (batch.hash !== undefined) hashes.push(batch.hash);
      tokens += batch.tokens ?? batch.inputs.length;
      trainer.microStep(batch, i);
    }
    trainer.update(schedule);
    const result = await trainer.results();
    this.#profiler?.stop();
    if (!result.finite) throw await this.#notFinite(result.losses);
    this.#replace();

    const timeMs = performance.now() - start;
    const loss = result.losses.at(-1)!;
    const loop = this.#loop;
    loop.updates++;
    this.#updates++;
    loop.smoothLoss = 0.9 * loop.smoothLoss + 0.1 * loss;
    loop.totalTimeMs += timeMs;
    const smoothLoss = loop.smoothLoss / (1 - 0.9 ** loop.updates);
    const tokPerSec = tokens / timeMs * 1e3;
    const flops = flopsPerToken(trainer.model.config) * tokPerSec;
    this.#peakFlops = Math.max(this.#peakFlops, flops); // measured on a busy machine it may have come out too low
    const mfu = flops / this.#peakFlops;
    const report = { step, steps, loss, smoothLoss, tokPerSec, mfu };
    this.#events.append({
      kind: "step",
      run: flags.run,
      step,
      steps,
      loss,
      lr: schedule.lrMultiplier,
      gradNorm: result.gradNorm,
      tokPerSec,
      mfu,
      memory: this.device.memory().peak,
      batchHash: hashes.length > 0 ? hashes.join(",") : undefined,
      timeMs,
      totalTimeMs: loop.totalTimeMs,
      values,
    });
    this.#progress(report, { gradNorm: result.gradNorm, timeMs });
    this.#options.cx.onStep?.(report);
    this.step++;
    return report;
  }

  /** Records a measurement of the model as it is now. */
  record(figures: { steps: number; bpb?: number; values?: Readonly<Record<string, number>> }): void {
    const { run } = this.#options.start.flags;
    if (figures.bpb !== undefined) {
      this.valBpb = figures.bpb;
      this.#loop.minValBpb = Math.min(this.#loop.minValBpb ?? Infinity, figures.bpb);
    }
    this.#events.append({ kind: "eval", run, step: this.step, ...figures });
  }

  /** Removes the run that this one replaces, which by now has taken a step. */
  #replace(): void {
    if (this.#replaced.length === 0) return;
    const { start: { folder }, cx: { log } } = this.#options;
    log.warn(`Removing ${describeSteps(this.#replaced)} from "${folder}" (--overwrite)`);
    clearCheckpoints(folder);
    this.#events.release();
    this.#replaced = [];
  }

  /** Saves the model with the position behind the last batch that it was trained on. */
  async save(loader: Json): Promise<void> {
    const { start: { stage, folder, flags }, tokenizerDir, cx: { log } } = this.#options;
    if (this.#replaced.length > 0) {
      return log.info(`Stopped before the first step: ${describeSteps(this.#replaced)} in "${folder}" stay`);
    }
    this.#saved = await saveCheckpoint({
      ...this.device.context,
      folder,
      step: this.step,
      model: masterTensors(this.trainer.model),
      optimizer: stateTensors(this.trainer),
      state: {
        run: flags.run,
        stage,
        valBpb: this.valBpb,
        config: { ...this.trainer.model.config },
        flags: storedFlags(flags),
        loader,
        dtype: this.trainer.options.dtype,
        rng: { seed: flags.seed },
        loop: { ...this.#loop, wallTimeMs: this.#clock.wallMs },
      },
      keep: flags.keep,
      tokenizerFolder: tokenizerDir,
      log,
    });
    log.info(`Saved step ${this.step} to "${folder}"`);
  }

  /** Adds the last measurement to the checkpoint of this step, where one was saved before it was measured. */
  async amend(): Promise<void> {
    const { start: { folder } } = this.#options;
    if (this.#saved?.step !== this.step) return;
    this.#saved = { ...this.#saved, valBpb: this.valBpb, loop: { ...this.#loop, wallTimeMs: this.#clock.wallMs } };
    await amendMeta(nativeIo(this.device.context), { folder, meta: this.#saved });
  }

  /** Ends the events and sums up. */
  finish(steps: number): TrainResult {
    const { start: { folder, flags } } = this.#options;
    this.#events.append({ kind: "end", run: flags.run, step: this.step, steps });
    for (const line of this.#profiler?.lines() ?? []) this.#options.cx.log.info(line);
    const { minValBpb, totalTimeMs } = this.#loop;
    const stopped = this.stopping && this.step < steps;
    const { wallMs: wallTimeMs, cost } = this.#clock;
    return { folder, step: this.step, steps, stopped, valBpb: this.valBpb, minValBpb, totalTimeMs, wallTimeMs, cost };
  }

  #progress(report: StepReport, { gradNorm, timeMs }: { gradNorm: number; timeMs: number }): void {
    const { loss, smoothLoss, tokPerSec, mfu, step, steps } = report;
    const memory = this.device.memory().peak / 2 ** 20;
    const cost = this.#clock.costText({ done: this.#updates, left: steps - step - 1 });
    const detail =
      `loss ${smoothLoss.toFixed(4)} (${loss.toFixed(4)}) | norm ${gradNorm.toFixed(3)} | ${timeMs.toFixed(0)} ms | ` +
      `${Math.round(tokPerSec).toLocaleString("en-US")} tok/s | mfu ${(100 * mfu).toFixed(1)} % | ` +
      `${count(memory)} MiB${cost === undefined ? "" : ` | ${cost}`}`;
    this.#options.cx.log.progress({ label: "Training", done: step + 1, total: steps, detail });
  }

  async #notFinite(losses: readonly number[]): Promise<Error> {
    const micro = losses.findIndex((loss) => !Number.isFinite(loss));
    const gradient = await this.trainer.firstNonFiniteGradient();
    const where = micro >= 0 ? `the loss of micro-batch ${micro} is ${losses[micro]}` : `the losses are finite`;
    const tensor = gradient ? `the first gradient that is not finite is "${gradient}"` : "all gradients are finite";
    const last = listSteps(this.#options.start.folder).at(-1);
    const kept = this.#replaced.length > 0
      ? `${describeSteps(this.#replaced)} of the earlier run stay`
      : last === undefined
      ? "there is no checkpoint yet"
      : `the last good checkpoint is step ${last}`;
    return new Error(
      `Cannot go on at step ${this.step}: ${where} and ${tensor}, expected finite numbers; nothing was updated and ${kept}; ` +
        "try a lower --matrix-lr or --embedding-lr",
    );
  }

  /** Closes the events and frees the device. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#events[Symbol.dispose]();
    this.trainer[Symbol.dispose]();
    this.device[Symbol.dispose]();
    return Promise.resolve();
  }
}

interface Announcement {
  readonly log: Log;
  readonly trainer: Trainer;
  readonly dtype: ComputeType;
  readonly peakFlops: number;
}

/** Writes a whole number with its thousands apart. */
export function count(n: number): string {
  return Math.round(n).toLocaleString("en-US");
}

function announce({ log, trainer, dtype, peakFlops }: Announcement): void {
  const { config } = trainer.model;
  const { name, threads } = trainer.device.info();
  log.info(
    `Model: depth ${config.nLayer}, width ${config.nEmbd}, ${config.nHead} heads, vocabulary ${
      count(config.vocabSize)
    }: ` +
      `${count(parameterCount(config))} parameters, ${flopsPerToken(config).toExponential(3)} FLOPs per token`,
  );
  log.info(
    `Device: ${name}, ${threads === undefined ? "" : `${threads} threads, `}${dtype}, ${
      (peakFlops / 1e9).toFixed(0)
    } GFLOP/s measured; ` +
      `memory ${(trainer.device.memory().allocated / 2 ** 20).toFixed(0)} MiB`,
  );
}
