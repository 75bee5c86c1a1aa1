/** `kv_cache`: cached decoding (kv_model.ts), the engine's greedy generation, its tool machine, and the distribution of sampling. */
import { join } from "@std/path";
import { Tokenizer } from "../../src/data/tokenizer.ts";
import { GptDecodeModel } from "../../src/engine/decode.ts";
import type { DecodeModel } from "../../src/engine/batch.ts";
import { Engine } from "../../src/engine/engine.ts";
import { ScriptedModel } from "../../src/engine/engine_testing.ts";
import { SamplingColumns } from "../../src/engine/sample.ts";
import { TEST_BACKEND } from "../../src/tensor/backend_testing.ts";
import { Device } from "../../src/tensor/device.ts";
import { runModel } from "./kv_model.ts";
import { configOf, GoldenModel } from "./model.ts";
import { Parity } from "./parity.ts";

/** Compares everything in the folder. */
export async function run(t: Parity): Promise<void> {
  await runModel(t);
  await greedy(t);
  await toolUse(t);
  await sampling(t);
}

async function openTokenizer(t: Parity, file: string): Promise<Tokenizer> {
  const { split_pattern, mergeable_ranks_base64, special_tokens } = JSON.parse(
    Deno.readTextFileSync(join(t.root, file)),
  );
  return await Tokenizer.fromParts({
    pattern: split_pattern,
    tokens: mergeable_ranks_base64.map((token: string) => Uint8Array.fromBase64(token)),
    specials: special_tokens,
  });
}

/** Greedy tokens of several prompts, as a stream and as a batch of three. */
async function greedy(t: Parity): Promise<void> {
  const info = t.json("kv.json");
  const [folder, file] = info.weights.split("/");
  using device = Device.open(TEST_BACKEND);
  using golden = new GoldenModel(device, {
    config: configOf(info.config),
    weights: new Parity(t.root, folder, () => {}).tensors(file),
    training: false,
  });
  golden.model.packForInference();
  using tokenizer = await openTokenizer(t, info.tokenizer);
  const inner = new GptDecodeModel(golden.model);
  // The reference generates beyond the trained context, as far as its rotary tables reach.
  const model: DecodeModel = {
    contextLen: 10 * inner.contextLen,
    vocabSize: inner.vocabSize,
    ...{ suggestedRows: 4, suggestedCacheRows: 0 },
    decoder: (options) => inner.decoder(options),
  };
  const engine = new Engine(model, tokenizer);
  for (const [i, expected] of info.engine_greedy.entries()) {
    const { prompt, engine_columns: columns } = expected;
    const options = { maxTokens: expected.naive_generate_tokens.length, temperature: 0 };
    const [ids, masks]: number[][] = [[], []];
    for await (const column of engine.generate(prompt, options)) {
      ids.push(column.ids[0]);
      masks.push(column.masks[0]);
    }
    t.equal(`engine greedy ${i}: ids`, ids, columns);
    t.equal(`engine greedy ${i}: masks`, masks, expected.engine_masks);
    const samples = expected.generate_batch_results.length;
    const batch = await engine.generateBatch(prompt, { ...options, samples });
    t.equal(`engine greedy ${i}: batch of ${samples}`, batch.sequences, expected.generate_batch_results);
    t.equal(`engine greedy ${i}: masks of the batch`, batch.masks, expected.generate_batch_masks);
  }
}

/** The tool machine, driven by scripts: at step s row r chooses script[r][s]. */
async function toolUse(t: Parity): Promise<void> {
  const { tokenizer: file, scripts } = t.json("engine_tool_use.json");
  using tokenizer = await openTokenizer(t, file);
  for (const [i, expected] of scripts.entries()) {
    const script: number[][] = expected.script_rows;
    const engine = new Engine(new ScriptedModel([...script, ...script], { contextLen: 4096 }), tokenizer);
    const options = { samples: script.length, maxTokens: expected.max_tokens };
    const [ids, masks]: number[][][] = [[], []];
    // The reference goes on with rows that have ended, to no effect.
    const ifLive = (live: Uint8Array, values: ArrayLike<number>) => [...live].map((yes, row) => yes ? values[row] : -1);
    const expectedOf: Record<"ids" | "masks", number[][]> = { ids: [], masks: [] };
    for await (const column of engine.generate(expected.prompt, options)) {
      ids.push(ifLive(column.live, column.ids));
      masks.push(ifLive(column.live, column.masks));
      expectedOf.ids.push(ifLive(column.live, expected.columns[expectedOf.ids.length]));
      expectedOf.masks.push(ifLive(column.live, expected.masks[expectedOf.masks.length]));
    }
    const name = `tool use ${i} (${expected.name})`;
    t.equal(`${name}: number of columns`, ids.length, expected.columns.length);
    t.equal(`${name}: columns`, ids, expectedOf.ids);
    t.equal(`${name}: masks`, masks, expectedOf.masks);
    const batch = await engine.generateBatch(expected.prompt, options);
    t.equal(`${name}: batch`, batch.sequences, expected.batch_results);
    t.equal(`${name}: masks of the batch`, batch.masks, expected.batch_masks);
    t.equal(`${name}: text`, batch.sequences.map((sequence) => tokenizer.decode(sequence)), expected.decoded);
  }
}

/** Rows of a call; fewer where a thread of the device is a loop of ours. */
const ROWS = TEST_BACKEND === "cuda_emu" ? 64 : 4096;
const DRAWS = 16 * ROWS;

/** Frequencies of many draws against the recorded probabilities; draws of torch's own generator are informative. */
async function sampling(t: Parity): Promise<void> {
  const { data: logits } = t.tensors("sampling_logits.safetensors").get("logits");
  const V = logits.length;
  const rows = ROWS;
  using device = Device.open(TEST_BACKEND);
  const all = new Float32Array(rows * V);
  for (let row = 0; row < rows; row++) all.set(logits as Float32Array, row * V);
  const repeated = device.from(all, [rows, V], "f32");
  const ids = device.tensor([rows], "i32");
  const columns = new SamplingColumns(rows);
  const settings = device.tensor([SamplingColumns.WORDS, rows], "i32");
  const [s, n, d, temp, k, p] = columns.offsets.map((offset) => settings.view([rows], offset).pointer);
  for (const { temperature, top_k, topk_indices, probs } of t.json("kv.json").sampling) {
    const counts = new Float64Array(V);
    for (let round = 0; round < DRAWS / rows; round++) {
      for (let row = 0; row < rows; row++) {
        columns.set(row, { temperature, topK: top_k ?? 0, topP: 1, seed: 42, sample: row, position: round });
      }
      device.upload(settings, columns.words);
      device.nc.sample(
        ...[
          device.ctx,
          ids.pointer,
          null,
          repeated.pointer,
          s,
          n,
          d,
          temp,
          k,
          p,
          null,
          null,
          null,
          rows,
          V,
          0,
        ] as const,
      );
      for (const id of await device.read(ids) as Int32Array) counts[id]++;
    }
    const expected = new Float64Array(V);
    probs.forEach((probability: number, i: number) => expected[topk_indices?.[i] ?? i] = probability);
    // Six standard deviations of a frequency, and none at all where the probability is 0.
    const excess = counts.map((count, id) => {
      const sigma = Math.sqrt(expected[id] * (1 - expected[id]) / DRAWS);
      return expected[id] === 0 ? count : Math.max(0, Math.abs(count / DRAWS - expected[id]) - 6 * sigma - 2 / DRAWS);
    });
    t.close(`frequencies at temperature ${temperature}, top-k ${top_k ?? "off"}`, excess, new Float64Array(V), {
      abs: 0,
    });
  }
}
