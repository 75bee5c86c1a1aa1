/** Golden optim: Newton-Schulz, Muon and AdamW step by step, schedules. */
import { configFromDepth } from "../../src/model/gpt.ts";
import { AdamW } from "../../src/optim/adamw.ts";
import { Muon } from "../../src/optim/muon.ts";
import {
  baseLrMultiplier,
  linearLrMultiplier,
  midLrMultiplier,
  muonMomentum,
  widthLrScale,
} from "../../src/optim/schedule.ts";
import { Arena } from "../../src/tensor/arena.ts";
import { TEST_BACKEND } from "../../src/tensor/backend_testing.ts";
import { Device } from "../../src/tensor/device.ts";
import { bf16FromF32, type ComputeType, dtypeCode } from "../../src/tensor/dtype.ts";
import { ParameterGroup } from "../../src/tensor/parameter.ts";
import { StepBlock } from "../../src/tensor/step_block.ts";
import type { GoldenTensor, Parity } from "./parity.ts";

/** Compares the optimizers. */
export async function run(t: Parity): Promise<void> {
  using device = Device.open(TEST_BACKEND);
  const info = t.json("optim.json");
  t.note(/dist/, "sharded optimizers belong to the issue of many devices");
  await newtonSchulz(t, device);
  await muon(t, device, info.muon);
  await adamw(t, device, info.adamw);
  schedules(t);
}

async function newtonSchulz(t: Parity, device: Device): Promise<void> {
  const golden = t.tensors("newton_schulz.safetensors");
  for (const name of golden.names().filter((n) => n.startsWith("in.")).map((n) => n.slice(3))) {
    const input = golden.get(`in.${name}`);
    const single = await orthogonalise(device, input, "f32");
    const lowrank = name.includes("lowrank");
    t.close(`newton_schulz fp32 ${name}`, single, golden.get(`fp32.${name}`).data, { relL2: lowrank ? 3e-4 : 1e-5 });
    const exact = golden.get(`f64.${name}`).data;
    const low = await orthogonalise(device, input, "bf16");
    golden.get(`bf16.${name}`); // the reference's own bf16 values: noise of the same size as ours, compared through f64
    if (!lowrank) t.close(`newton_schulz bf16 ${name}`, low, exact, { relL2: 8e-2, abs: 8e-2 });
  }
}

async function orthogonalise(device: Device, { data, shape }: GoldenTensor, dtype: ComputeType): Promise<Float32Array> {
  const [rows, cols] = shape.slice(-2);
  const batch = shape.length === 3 ? shape[0] : 1;
  const short = Math.min(rows, cols);
  const values = data as Float32Array<ArrayBuffer>;
  using x = device.from(dtype === "bf16" ? bf16FromF32(values) : values, [batch, rows, cols], dtype);
  using o = device.tensor([batch, rows, cols], dtype);
  using scratch = device.tensor([batch * (rows * cols + 2 * short * short) * 4 + 4096], "i8");
  device.nc.newton_schulz(device.ctx, o.pointer, x.pointer, scratch.pointer, batch, rows, cols, 5, dtypeCode(dtype));
  return await device.readFloats(o);
}

interface MuonInfo {
  readonly shapes: Record<string, [number, number]>;
  readonly constant: { lr: number[]; momentum: number[] };
  readonly scheduled: { lr: number[]; momentum: number[] };
}

async function muon(t: Parity, device: Device, info: MuonInfo): Promise<void> {
  if (!t.has("muon.safetensors")) return;
  const golden = t.tensors("muon.safetensors");
  t.note(/grad_after/, "the reference overwrites its gradients with the Nesterov blend; ours stay as they are");
  using arena = new Arena(device, 1 << 20);
  for (const run of ["constant", "scheduled"] as const) {
    for (const dtype of ["f32", "bf16"] as const) {
      const kind = dtype === "f32" ? "fp32" : "bf16";
      for (const [name, shape] of Object.entries(info.shapes)) {
        using block = new StepBlock(device);
        using group = new ParameterGroup(device, [{ name, shape, group: name }], { dtype: "f32", training: true });
        using optimizer = new Muon(device, block, { group, lr: 1, weightDecay: 0, dtype });
        device.upload(group.parameters[0].master, golden.get(`init.${name}`).data as Float32Array<ArrayBuffer>);
        for (let step = 1; step <= info[run].lr.length; step++) {
          device.upload(
            group.parameters[0].gradient,
            golden.get(`step${step}.grad.${name}`).data as Float32Array<ArrayBuffer>,
          );
          optimizer.prepare(info[run].lr[step - 1], info[run].momentum[step - 1]);
          block.upload();
          optimizer.step(arena, null);
          const param = golden.get(`${run}.${kind}.step${step}.param.${name}`).data;
          const tolerance = { abs: dtype === "f32" ? 1e-6 : 8e-3 };
          t.close(`muon ${run} ${kind} ${name} step ${step}`, await device.readFloats(group.master), param, tolerance);
          const buffer = `${run}.${kind}.step${step}.momentum_buffer.${name}`;
          if (golden.has(buffer)) {
            t.close(`${buffer}`, await device.readFloats(optimizer.momentum), golden.get(buffer).data, { abs: 1e-7 });
          }
        }
        golden.get(`${run}.f64.step5.param.${name}`);
      }
    }
  }
}

interface AdamWInfo {
  readonly betas: [number, number];
  readonly eps: number;
  readonly lr: Record<string, number>;
  readonly runs: Record<string, { weight_decay: number; lr_mult: number[] }>;
}

async function adamw(t: Parity, device: Device, info: AdamWInfo): Promise<void> {
  const golden = t.tensors("adamw.safetensors");
  for (const [run, { weight_decay: weightDecay, lr_mult }] of Object.entries(info.runs)) {
    for (const [name, lr] of Object.entries(info.lr)) {
      const init = golden.get(`init.${name}`);
      using block = new StepBlock(device);
      const spec = { name, shape: init.shape as [number, number], group: name };
      using group = new ParameterGroup(device, [spec], { dtype: "f32", training: true });
      const [beta1, beta2] = info.betas;
      using optimizer = new AdamW(device, block, { group, lr, beta1, beta2, eps: info.eps, weightDecay });
      device.upload(group.parameters[0].master, init.data as Float32Array<ArrayBuffer>);
      for (const [i, multiplier] of lr_mult.entries()) {
        const step = `step${i + 1}`;
        device.upload(
          group.parameters[0].gradient,
          golden.get(`${step}.grad.${name}`).data as Float32Array<ArrayBuffer>,
        );
        optimizer.prepare(multiplier);
        block.upload();
        optimizer.step(null);
        const expected = (what: string) => golden.get(`${run}.${step}.${what}.${name}`).data;
        t.close(`adamw ${run} ${name} ${step} param`, await device.readFloats(group.master), expected("param"), {
          abs: 3e-6,
        });
        t.close(`adamw ${run} ${name} ${step} m`, await device.readFloats(optimizer.m), expected("exp_avg"), {
          relL2: 1e-6,
        });
        t.close(`adamw ${run} ${name} ${step} v`, await device.readFloats(optimizer.v), expected("exp_avg_sq"), {
          relL2: 1e-6,
        });
      }
      golden.get(`${run}.f64.step5.param.${name}`);
    }
  }
}

function schedules(t: Parity): void {
  const golden = t.json("schedules.json");
  const exact = { abs: 1e-15 };
  for (const run of golden.base_train) {
    const options = {
      numIterations: run.num_iterations,
      warmupRatio: run.warmup_ratio,
      warmdownRatio: run.warmdown_ratio,
      finalLrFrac: run.final_lr_frac,
    };
    const label = `base schedule of ${run.num_iterations} steps, warmup ${run.warmup_ratio}`;
    t.close(
      label,
      run.lr_multiplier.map((_: number, i: number) => baseLrMultiplier(i, options)),
      run.lr_multiplier,
      exact,
    );
    if (run.muon_momentum) {
      t.close(
        "muon momentum",
        run.muon_momentum.map((_: number, i: number) => muonMomentum(i)),
        run.muon_momentum,
        exact,
      );
    }
  }
  if (golden.muon_momentum) {
    const rows: [string, number][] = Array.isArray(golden.muon_momentum)
      ? golden.muon_momentum.map((m: number, i: number) => [String(i), m])
      : Object.entries(golden.muon_momentum);
    t.close("muon momentum", rows.map(([step]) => muonMomentum(Number(step))), rows.map(([_, m]) => m), exact);
  }
  for (const [kind, steps] of [["chat_sft", "num_iterations"], ["chat_rl", "num_steps"]] as const) {
    const { lr_multiplier, [steps]: n } = golden[kind];
    t.close(
      `${kind} schedule`,
      lr_multiplier.map((_: number, i: number) => linearLrMultiplier(i, n)),
      lr_multiplier,
      exact,
    );
  }
  t.close("mid schedule", golden.mid_train.progress.map(midLrMultiplier), golden.mid_train.lr_multiplier, exact);
  const widths = Object.entries<number>(golden.adamw_dmodel_lr_scale);
  t.close(
    "learning-rate scale by width",
    widths.map(([width]) => widthLrScale(Number(width))),
    widths.map(([_, scale]) => scale),
    exact,
  );
  for (const [depth, expected] of Object.entries(golden.model_shape_from_depth)) {
    const { nLayer, nEmbd, nHead, nKvHead } = configFromDepth(Number(depth), { sequenceLen: 2048, vocabSize: 65536 });
    t.equal(
      `model shape of depth ${depth}`,
      { n_layer: nLayer, n_embd: nEmbd, n_head: nHead, n_kv_head: nKvHead },
      expected,
    );
  }
}
