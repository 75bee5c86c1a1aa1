/**
 * Speed of training and inference on random tokens, and of single operations: one figure row each, medians after a warm-up in one
 * process. The keys are stable, so that rows can be compared over time.
 */
import { GptDecodeModel } from "../engine/decode.ts";
import { DEFAULT_SAMPLING } from "../engine/sample.ts";
import { configFromDepth, flopsPerToken, GPT, parameterCount, type Quantization } from "../model/gpt.ts";
import { KVCache } from "../model/kv_cache.ts";
import { EPILOGUE, LAYOUT } from "../native/abi.ts";
import { Device } from "../tensor/device.ts";
import { type ComputeType, dtypeBytes, dtypeCode } from "../tensor/dtype.ts";
import { lossChunk } from "../tensor/ops.ts";
import { measureBandwidth, measurePeakFlops } from "../tensor/peak.ts";
import { Profiler } from "../tensor/profile.ts";
import { Trainer } from "../train/trainer.ts";

/** What all benchmarks take. */
export interface BenchOptions {
  readonly deviceType: "cpu" | "cuda";
  /** 0 = physical cores. */
  readonly threads: number;
  readonly dtype: ComputeType;
  /** Takes the lines of a table of the time by op; absent = no op is timed. `train` and `infer` have one. */
  readonly onProfile?: (lines: readonly string[]) => void;
}

/** Figures of one benchmark. */
export type Figures = Record<string, string | number>;

const WARMUP = 2;
const SEED = 42;

/** Returns the middle of the values. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function open(options: BenchOptions): { device: Device; about: Figures } {
  const device = Device.open(options.deviceType, { threads: options.threads });
  const { name, threads = 0, isa = "" } = device.info();
  return { device, about: { device: name, isa, threads, dtype: options.dtype } };
}

/** Times `work` after a warm-up: milliseconds of each run. */
async function time(device: Device, { runs, work }: { runs: number; work: () => void }): Promise<number[]> {
  const times: number[] = [];
  for (let i = -WARMUP; i < runs; i++) {
    const start = performance.now();
    work();
    await device.wait();
    if (i >= 0) times.push(performance.now() - start);
  }
  return times;
}

/** Sizes of a training benchmark. */
export interface TrainBenchOptions extends BenchOptions {
  readonly depth: number;
  readonly maxSeqLen: number;
  readonly deviceBatchSize: number;
  readonly gradAccum: number;
  readonly vocabSize: number;
  readonly steps: number;
  readonly muonDtype: ComputeType;
}

/** Times whole training steps on random tokens, both optimizers included. */
export async function benchTrain(options: TrainBenchOptions): Promise<Figures> {
  const { depth, maxSeqLen: T, deviceBatchSize: B, gradAccum, vocabSize, steps, dtype, muonDtype } = options;
  const { device, about } = open(options);
  using _device = device;
  const config = configFromDepth(depth, { sequenceLen: T, vocabSize });
  const optimizer = { unembeddingLr: 0.004, embeddingLr: 0.2, matrixLr: 0.02, weightDecay: 0, gradClip: 1, muonDtype };
  const peakFlops = await measurePeakFlops(device, dtype);
  using trainer = new Trainer(device, { config, dtype, B, T, gradAccum, optimizer });
  trainer.model.initWeights(SEED);
  const batch = { inputs: randomTokens(B * T, vocabSize), targets: randomTokens(B * T, vocabSize) };
  const profiler = options.onProfile ? await Profiler.open(device, dtype) : null;
  const stepTimes: number[] = [], optimizerTimes: number[] = [];
  for (let i = -WARMUP; i < steps; i++) {
    if (i === 0) trainer.costs = profiler?.costs ?? null;
    if (i === 0) profiler?.start();
    const start = performance.now();
    for (let g = 0; g < gradAccum; g++) trainer.microStep(batch, g);
    await device.wait();
    const middle = performance.now();
    trainer.update({ lrMultiplier: 1, momentum: 0.95 });
    await trainer.results();
    const end = performance.now();
    if (i < 0) continue;
    stepTimes.push(end - start);
    optimizerTimes.push(end - middle);
  }
  profiler?.stop();
  if (profiler) options.onProfile!(profiler.lines());
  const stepMs = median(stepTimes);
  const tokPerSec = B * T * gradAccum / stepMs * 1e3;
  const flops = flopsPerToken(config) * tokPerSec;
  return {
    ...{
      bench: "train",
      depth,
      max_seq_len: T,
      device_batch_size: B,
      grad_accum: gradAccum,
      vocab_size: vocabSize,
      ...about,
    },
    ...{ muon_dtype: muonDtype, params: parameterCount(config), tok_per_sec: tokPerSec, step_ms: stepMs },
    ...{
      optimizer_ms: median(optimizerTimes),
      gflops: flops / 1e9,
      mfu: flops / Math.max(peakFlops, flops), // the peak is at least what was reached
      peak_bytes: device.memory().peak,
    },
  };
}

function randomTokens(n: number, below: number): Int32Array<ArrayBuffer> {
  let state = SEED;
  return Int32Array.from({ length: n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator: speed needs no quality
    return Math.floor(state / 2 ** 32 * below);
  });
}

/** Sizes of an inference benchmark. */
export interface InferBenchOptions extends BenchOptions {
  readonly depth: number;
  readonly vocabSize: number;
  readonly batchSize: number;
  readonly promptTokens: number;
  readonly newTokens: number;
  readonly quantize: Quantization;
}

/** Times prompts and answers of random weights as the engine runs them: a prompt a row, then a step and a draw of all rows a token. */
export async function benchInfer(options: InferBenchOptions): Promise<Figures> {
  const { depth, vocabSize, batchSize: B, promptTokens, newTokens, dtype, quantize } = options;
  const { device, about } = open(options);
  using _device = device;
  const capacity = promptTokens + newTokens;
  const config = configFromDepth(depth, { sequenceLen: capacity, vocabSize });
  using model = new GPT(device, config, { dtype, training: false });
  for (const [i, { master, size }] of model.parameters.all().entries()) { // none zero, so that no logits are equal
    device.nc.normal(device.ctx, master.pointer, BigInt(size), BigInt(SEED), BigInt(i) << 32n, 0, 0.05);
  }
  model.parameters.refreshCopies();
  model.packForInference(quantize);
  using decoder = new GptDecodeModel(model).decoder({ rows: B, capacity });
  const ids = [...randomTokens(B * promptTokens, vocabSize)];
  const prompts = Array.from({ length: B }, (_, b) => ids.slice(b * promptTokens, (b + 1) * promptTokens));
  const rows = [...prompts.keys()], live = new Uint8Array(B).fill(1);
  const draw = (position: number) =>
    decoder.sample(rows.map((sample) => ({ ...DEFAULT_SAMPLING, topK: 50, temperature: 0.6, sample, position })));
  /** Runs prompts and answers of `tokens` tokens; gives milliseconds. */
  const answer = async (tokens: number) => {
    const start = performance.now();
    for (const row of rows) {
      decoder.prefill(prompts[row], 0);
      decoder.start(row);
    }
    await device.wait();
    const prefillMs = performance.now() - start;
    let { ids } = await draw(promptTokens);
    const ttftMs = performance.now() - start;
    const steps: number[] = [];
    for (let i = 0; i < tokens; i++) {
      const before = performance.now();
      decoder.step(ids, live);
      ({ ids } = await draw(promptTokens + i + 1));
      steps.push(performance.now() - before);
    }
    return { prefillMs, ttftMs, decodeMs: median(steps) };
  };
  await answer(Math.min(WARMUP, newTokens));
  const profiler = options.onProfile ? await Profiler.open(device, dtype) : null;
  decoder.costs = profiler?.costs ?? null;
  profiler?.start();
  const { prefillMs, ttftMs, decodeMs } = await answer(newTokens);
  profiler?.stop();
  if (profiler) options.onProfile!(profiler.lines());
  const products = model.parameters.all().slice(1); // all but the embedding
  const weights = products.reduce((sum, w) => sum + w.size * dtypeBytes(w.operandType), 0);
  const bytes = weights + KVCache.bytes(config, { rows: B, capacity: promptTokens + newTokens / 2, dtype });
  return {
    ...{
      bench: "infer",
      depth,
      vocab_size: vocabSize,
      batch_size: B,
      prompt_tokens: promptTokens,
      new_tokens: newTokens,
      quantize,
      ...about,
    },
    ...{ prefill_ms: prefillMs, ttft_ms: ttftMs, decode_ms: decodeMs, tok_per_sec: B / decodeMs * 1e3 },
    ...{ bytes_per_sec: bytes / decodeMs * 1e3, mbu: bytes / decodeMs * 1e3 / (await measureBandwidth(device)).read },
  };
}

/** Times one product y (M, N) = x (M, K) w (N, K)^T. */
export async function benchGemm(options: BenchOptions & { m: number; n: number; k: number }): Promise<Figures> {
  const { m, n, k, dtype } = options;
  const { device, about } = open(options);
  using _device = device;
  const [x, w, y] = [device.tensor([m, k], dtype), device.tensor([n, k], dtype), device.tensor([m, n], dtype)];
  const code = dtypeCode(dtype);
  const work = () => {
    device.nc.linear_fwd(
      ...[device.ctx, y.pointer, null, x.pointer, w.pointer, null, null, null] as const,
      ...[m, n, k, EPILOGUE.NONE, LAYOUT.ROWS, code, code, code] as const,
    );
  };
  const ms = median(await time(device, { runs: 15, work }));
  const flops = 2 * m * n * k / ms * 1e3;
  const peak = await measurePeakFlops(device, dtype);
  return { bench: "gemm", m, n, k, ...about, ms, gflops: flops / 1e9, share_of_peak: flops / peak };
}

/** Times attention forward and backward alone, batch 1. */
export async function benchAttention(
  options: BenchOptions & { T: number; heads: number; headDim: number },
): Promise<Figures> {
  const { T, heads: H, headDim: D, dtype } = options;
  const { device, about } = open(options);
  using _device = device;
  const [q, k, v, o, dq, dk, dv, dO] = Array.from({ length: 8 }, () => device.tensor([1, T, H * D], dtype));
  const [lse, delta] = [device.tensor([H, T], "f32"), device.tensor([H, T], "f32")];
  const { nc, ctx } = device;
  const sizes = [1, T, H, H, D, -1, 1 / Math.sqrt(D), dtypeCode(dtype)] as const;
  const forward = () => nc.attention_fwd(ctx, o.pointer, lse.pointer, q.pointer, k.pointer, v.pointer, null, ...sizes);
  const backward = () => {
    nc.attention_bwd(
      ...[ctx, dq.pointer, dk.pointer, dv.pointer, delta.pointer, dO.pointer, q.pointer, k.pointer, v.pointer] as const,
      ...[o.pointer, lse.pointer, null, ...sizes] as const,
    );
  };
  const fwdMs = median(await time(device, { runs: 9, work: forward }));
  const bwdMs = median(await time(device, { runs: 9, work: backward }));
  const flops = 2 * H * T * T * D; // causal
  return {
    ...{ bench: "attention", T, heads: H, head_dim: D, ...about, fwd_ms: fwdMs, bwd_ms: bwdMs, ms: fwdMs + bwdMs },
    ...{ fwd_gflops: flops / fwdMs / 1e6, bwd_gflops: 2.5 * flops / bwdMs / 1e6, peak_bytes: device.memory().peak },
  };
}

/** Times lm_head, softcap and cross entropy with their gradients. */
export async function benchLoss(
  options: BenchOptions & { tokens: number; width: number; vocabSize: number },
): Promise<Figures> {
  const { tokens, width: C, vocabSize: V, dtype } = options;
  const { device, about } = open(options);
  using _device = device;
  const chunk = lossChunk(tokens, V);
  const [x, dx, w] = [
    device.tensor([tokens, C], dtype),
    device.tensor([tokens, C], dtype),
    device.tensor([V, C], dtype),
  ];
  const [dw, losses] = [device.tensor([V, C], "f32"), device.tensor([tokens], "f32")];
  const targets = device.from(randomTokens(tokens, V), [tokens], "i32");
  const weights = device.from(new Float32Array(tokens).fill(1 / tokens), [tokens], "f32");
  const scratch = device.tensor([chunk * V * (4 + dtypeBytes(dtype)) + 65536], "i8");
  const { nc, ctx } = device;
  const run = (gradient: boolean) => () => {
    nc.lm_head_loss(
      ...[
        ctx,
        losses.pointer,
        gradient ? dx.pointer : null,
        gradient ? dw.pointer : null,
        x.pointer,
        w.pointer,
      ] as const,
      ...[targets.pointer, gradient ? weights.pointer : null, scratch.pointer, tokens, C, V, V, chunk, 15, 0] as const,
      ...[dtypeCode(dtype), dtypeCode(dtype)] as const,
    );
  };
  const fwdMs = median(await time(device, { runs: 7, work: run(false) }));
  const ms = median(await time(device, { runs: 7, work: run(true) }));
  const gflops = 6 * tokens * C * V / ms / 1e6;
  return {
    ...{ bench: "loss", tokens, width: C, vocab_size: V, ...about, fwd_ms: fwdMs, bwd_ms: ms - fwdMs, ms },
    ...{ gflops, peak_bytes: device.memory().peak },
  };
}

/** Times one update of both optimizers. */
export async function benchOptimizer(
  options: BenchOptions & { depth: number; vocabSize: number; muonDtype: ComputeType },
): Promise<Figures> {
  const train = { ...options, maxSeqLen: 64, deviceBatchSize: 1, gradAccum: 1, steps: 7 };
  const figures = await benchTrain(train);
  const { depth, vocab_size, device, isa, threads, dtype, muon_dtype, optimizer_ms, peak_bytes } = figures;
  return {
    bench: "optimizer",
    depth,
    vocab_size,
    device,
    isa,
    threads,
    dtype,
    muon_dtype,
    ms: optimizer_ms,
    peak_bytes,
  };
}
