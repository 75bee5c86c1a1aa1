/**
 * Times CORE of a fresh model over a bundle, before and after the PyTorch side (`peer_core.py`) on the same examples, cores and type:
 * `deno run -A dev/bench/core.ts BUNDLE TOKENIZER_FOLDER [PER_TASK] [DEPTH] [DTYPE] [THREADS]`. A JSON line each, then one with the
 * ratios. Reading, prompts and encoding are part of our time and not of the peer's.
 *
 * The peer runs in `.peers/`, which `deno task test:peers` makes; with `NANOCHAT_GOLDEN` it first shows on that set's core_eval that it
 * does the same work.
 */
import process from "node:process";
import { cpus } from "node:os";
import { join } from "@std/path";
import { SILENT } from "../../src/data/log.ts";
import { Tokenizer } from "../../src/data/tokenizer.ts";
import { type CoreBundle, readBundle, readItems } from "../../src/eval/core_bundle.ts";
import { evaluateCore } from "../../src/eval/core_eval.ts";
import { chooseItems, fewShotIndices, findSpans, renderPrompts } from "../../src/eval/core_prompts.ts";
import { configFromDepth, GPT } from "../../src/model/gpt.ts";
import { chooseComputeType, Device } from "../../src/tensor/device.ts";
import { runPython } from "../peers.ts";
import { processMemory, temporaryFolder } from "../testing.ts";

const HOURS = 3_600_000;
const [bundleFolder, tokenizerFolder, perTask = "100", depth = "4", dtype = "fp32", threads = "0"] = Deno.args;
if (tokenizerFolder === undefined) throw new Error("Cannot bench CORE: expected BUNDLE TOKENIZER_FOLDER");

const bundle = await readBundle(bundleFolder);
using tokenizer = await Tokenizer.load(tokenizerFolder);
const maxPerTask = Number(perTask);
using folder = temporaryFolder();
const file = join(folder.path, "examples.jsonl");
const examples = await writeExamples(bundle);

using device = Device.open("cpu", { threads: Number(threads) });
const config = configFromDepth(Number(depth), { sequenceLen: 2048, vocabSize: tokenizer.vocabSize });
using model = new GPT(device, config, { dtype: chooseComputeType(device, dtype), training: false });
model.initWeights(42);
model.packForInference();
await device.wait();
const sizes = { depth: Number(depth), vocab: tokenizer.vocabSize, dtype, threads: device.info().threads, examples };

const before = await ours();
const peer = JSON.parse(await peerLine());
console.log(JSON.stringify(peer));
const after = await ours();
const ratio = (key: "wallSec" | "cpuSec") => peer[key] / ((before[key] + after[key]) / 2);
console.log(JSON.stringify({
  ...{ bench: "core", cpu: cpus()[0].model, ...sizes, peer: `torch ${peer.version}` },
  ours_per_sec: [before, after].map(({ wallSec }) => examples / wallSec),
  ours_max_rss_bytes: after.maxRssBytes,
  peer_per_sec: examples / peer.wallSec,
  peer_max_rss_bytes: peer.maxRssBytes,
  ratio: ratio("wallSec"),
  cpu_ratio: ratio("cpuSec"),
}));

/** Evaluates once and prints its times. */
async function ours() {
  processMemory(true);
  const [wall, cpu] = [performance.now(), process.cpuUsage()];
  await evaluateCore({ model, tokenizer }, { bundle, maxPerTask, batchTokens: 4096, log: SILENT });
  const { user, system } = process.cpuUsage(cpu);
  const times = {
    wallSec: (performance.now() - wall) / 1e3,
    cpuSec: (user + system) / 1e6,
    maxRssBytes: processMemory().peak,
  };
  console.log(JSON.stringify({ ours: "core", ...times }));
  return times;
}

function peerLine(): Promise<string> {
  const args = [file, `--depth=${depth}`, `--vocab=${tokenizer.vocabSize}`, `--dtype=${dtype}`];
  args.push(`--threads=${sizes.threads}`);
  const golden = Deno.env.get("NANOCHAT_GOLDEN");
  if (golden !== undefined) args.push(`--check=${golden}`);
  return runPython("dev/bench/peer_core.py", { args, deadlineMs: 6 * HOURS });
}

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
