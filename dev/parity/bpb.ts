/** Golden bpb: bits per byte of stored batches, also with ignored and special targets, also where no byte is counted. */
import { LossEvaluator } from "../../src/eval/loss_eval.ts";
import { TEST_BACKEND } from "../../src/tensor/backend_testing.ts";
import { Device } from "../../src/tensor/device.ts";
import { configOf, GoldenModel } from "./model.ts";
import { Parity } from "./parity.ts";

/** Compares bits per byte. */
export async function run(t: Parity): Promise<void> {
  const info = t.json("bpb.json");
  const [folder, file] = info.weights.split("/");
  const weights = new Parity(t.root, folder, () => {}).tensors(file);
  const [vocabulary, rule] = info.token_bytes_from.split(" ");
  const [tokenizerFolder, tokenizerFile] = vocabulary.split("/");
  const tokenizer = new Parity(t.root, tokenizerFolder, () => {}).json(tokenizerFile);
  using device = Device.open(TEST_BACKEND);
  using golden = new GoldenModel(device, { config: configOf(info.config), weights, training: false });
  const tensors = t.tensors("bpb.safetensors");
  const [B, T] = tensors.get("b0.x").shape;
  using evaluator = new LossEvaluator(golden.model, { B, T });
  const bytes = tensors.get("token_bytes").data as Int32Array;
  t.equal(`token bytes are ${rule}`, Array.from(bytes), tokenizer[rule]);
  for (const run of info.runs) {
    const batches = run.batches.map((i: number) => ({
      inputs: tensors.get(`b${i}.x`).data,
      targets: tensors.get(`b${i}.y`).data,
    }));
    const result = await evaluator.bitsPerByte(batches, bytes);
    t.equal(`${run.name}: bytes`, result.bytes, run.total_bytes);
    compare(t, `${run.name}: bits per byte`, result.bpb, run.bpb);
    const newest = await evaluator.bitsPerByte(batches, Int32Array.from(tokenizer.token_bytes_newest));
    compare(t, `${run.name}: bits per byte, raw token bytes`, newest.bpb, run.bpb_with_newest_token_bytes);
  }
}

function compare(t: Parity, label: string, actual: number, expected: number | "inf"): void {
  if (expected === "inf") t.equal(label, actual === Infinity, true);
  else t.close(label, [actual], [expected], { rel: 2e-6 });
}
