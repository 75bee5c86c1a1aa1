/** `nanochat bench`: figures of this machine, one JSON object a line with `--json`. */
import type { BenchOptions, Figures } from "../bench/bench.ts";
import * as bench from "../bench/bench.ts";
import { benchLoader, benchStart, benchTokenizer } from "../bench/text.ts";
import { chooseData, chooseTokenizer, resolveBaseDir } from "../data/base_dir.ts";
import { listShards, splitShards } from "../data/dataset.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { programFile } from "../native/installation.ts";
import { chooseComputeType, Device, type DeviceType } from "../tensor/device.ts";
import { COMPUTE_TYPES } from "../tensor/dtype.ts";
import { wantsProfile } from "./command.ts";
import type { Terminal } from "./progress.ts";

/** What a form of the command was given, flags in camel case. */
export type BenchValues = Readonly<Record<string, string | number | boolean | undefined>>;

/** The forms of the benchmarks of operations; their options are the flags of their rows. */
const FORMS: Readonly<Record<string, (options: never) => Promise<Figures>>> = {
  train: bench.benchTrain,
  infer: bench.benchInfer,
  gemm: bench.benchGemm,
  attention: bench.benchAttention,
  loss: bench.benchLoss,
  optimizer: bench.benchOptimizer,
};

function deviceOptions({ deviceType, threads, dtype, muonDtype }: BenchValues): BenchOptions {
  using device = Device.choose(deviceType as DeviceType, { threads: threads as number });
  const chosen = {
    deviceType: device.info().kind,
    threads: threads as number,
    dtype: chooseComputeType(device, dtype as string),
  };
  return Object.assign(chosen, { muonDtype: COMPUTE_TYPES[muonDtype as string] }) as BenchOptions;
}

async function loader(values: BenchValues): Promise<Figures> {
  const base = resolveBaseDir(values.baseDir as string | undefined);
  const { train } = splitShards(listShards(chooseData(base, values.dataDir as string | undefined).folder));
  using tokenizer = await Tokenizer.load(chooseTokenizer(base, values.tokenizerDir as string | undefined).folder);
  const [B, T] = [values.deviceBatchSize as number, values.maxSeqLen as number];
  return await benchLoader({ files: train, tokenizer, B, T, threads: values.threads as number, batches: 100 });
}

async function figures(
  form: string,
  values: BenchValues,
  onProfile: BenchOptions["onProfile"],
): Promise<Figures> {
  if (form === "start") return await benchStart([programFile(), "--version"]);
  if (form === "loader") return await loader(values);
  if (form === "tokenizer") {
    const text = await Deno.readTextFile(values.text as string);
    return await benchTokenizer({ text, vocabSize: values.vocabSize as number, threads: values.threads as number });
  }
  return await FORMS[form]({ ...values, ...deviceOptions(values), onProfile } as never);
}

/** Runs one form and shows its figures. */
export async function runBench(
  form: string,
  { values, terminal }: { values: BenchValues; terminal: Terminal },
): Promise<void> {
  const onProfile = wantsProfile()
    ? (lines: readonly string[]) => lines.forEach((line) => terminal.info(line))
    : undefined;
  const measured = await figures(form, values, onProfile);
  const shown = Object.entries(measured).map(([name, value]) => {
    const text = typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(5) : String(value);
    return `${name.padEnd(22)} ${text}`;
  });
  terminal.result(shown.join("\n"), measured);
}
