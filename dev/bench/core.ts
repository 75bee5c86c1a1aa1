/**
 * Times CORE of a fresh model over a bundle, and writes the same examples as tokens for the PyTorch side (`peer_core.py`):
 * `deno run -A dev/bench/core.ts BUNDLE TOKENIZER_FOLDER EXAMPLES_FILE [PER_TASK] [DEPTH] [DTYPE] [THREADS]`. One JSON line;
 * reading, prompts and encoding are part of our time and not of the peer's.
 */
import process from "node:process";
import { SILENT } from "../../src/data/log.ts";
import { Tokenizer } from "../../src/data/tokenizer.ts";
import { type CoreBundle, readBundle, readItems } from "../../src/eval/core_bundle.ts";
import { evaluateCore } from "../../src/eval/core_eval.ts";
import { chooseItems, fewShotIndices, findSpans, renderPrompts } from "../../src/eval/core_prompts.ts";
import { configFromDepth, GPT } from "../../src/model/gpt.ts";
import { chooseComputeType, Device } from "../../src/tensor/device.ts";

const [bundleFolder, tokenizerFolder, file, perTask = "100", depth = "4", dtype = "fp32", threads = "0"] = Deno.args;
if (file === undefined) throw new Error("Cannot bench CORE: expected BUNDLE TOKENIZER_FOLDER EXAMPLES_FILE");

const bundle = await readBundle(bundleFolder);
using tokenizer = await Tokenizer.load(tokenizerFolder);
const maxPerTask = Number(perTask);
const examples = await writeExamples(bundle);

using device = Device.open("cpu", { threads: Number(threads) });
const config = configFromDepth(Number(depth), { sequenceLen: 2048, vocabSize: tokenizer.vocabSize });
using model = new GPT(device, config, { dtype: chooseComputeType(device, dtype), training: false });
model.initWeights(42);
model.packForInference();
await device.wait();
const [wall, cpu] = [performance.now(), process.cpuUsage()];
await evaluateCore({ model, tokenizer }, { bundle, maxPerTask, batchTokens: 4096, log: SILENT });
const { user, system } = process.cpuUsage(cpu);
const [wallSec, cpuSec] = [(performance.now() - wall) / 1e3, (user + system) / 1e6];
const sizes = { depth: Number(depth), vocab: tokenizer.vocabSize, dtype, threads: device.info().threads };
console.log(
  JSON.stringify({ bench: "core", ...sizes, examples, wallSec, cpuSec, examplesPerCpuSec: examples / cpuSec }),
);

/** Writes each example as one JSON line {options, starts, ends}; returns how many. */
async function writeExamples({ tasks }: CoreBundle): Promise<number> {
  const lines: string[] = [];
  for (const task of tasks) {
    const items = chooseItems(await readItems(task), maxPerTask);
    for (const [index, item] of items.entries()) {
      const shots = fewShotIndices(index, { count: items.length, shots: task.shots }).map((shot) => items[shot]);
      const prompts = renderPrompts(task, item, shots);
      const options = findSpans(task, await tokenizer.encodeBatch(prompts, { prepend: tokenizer.bosId }));
      if (options === null) continue;
      lines.push(JSON.stringify({
        options: options.map(({ tokens }) => Array.from(tokens)),
        starts: options.map(({ start }) => start),
        ends: options.map(({ end }) => end),
      }));
    }
  }
  await Deno.writeTextFile(file, `${lines.join("\n")}\n`);
  return lines.length;
}
