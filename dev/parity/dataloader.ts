/** Golden dataloader: batches and states of every rank, both splits, and runs resumed by the reference's rule. */
import { join } from "@std/path";
import { DataLoader, type ReferenceState } from "../../src/data/dataloader.ts";
import { listShards, type SplitName, splitShards } from "../../src/data/dataset.ts";
import { ParquetFile } from "../../src/data/parquet.ts";
import { Tokenizer } from "../../src/data/tokenizer.ts";
import type { Parity } from "./parity.ts";

interface Case {
  readonly name: string;
  readonly rank: number;
  readonly world_size: number;
  readonly split: SplitName;
  readonly n_batches: number;
  readonly resume_state_dict: ReferenceState | null;
  readonly states: readonly ReferenceState[];
}

interface TokenizerJson {
  readonly split_pattern: string;
  readonly mergeable_ranks_base64: readonly string[];
  readonly special_tokens: Record<string, number>;
}

/** Compares batches and states, id by id. */
export async function run(t: Parity): Promise<void> {
  const spec: { B: number; T: number; tokenizer: string; cases: Case[] } = t.json("batches.json");
  const json: TokenizerJson = JSON.parse(Deno.readTextFileSync(join(t.root, spec.tokenizer)));
  using tokenizer = await Tokenizer.fromParts({
    pattern: json.split_pattern,
    tokens: json.mergeable_ranks_base64.map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))),
    specials: json.special_tokens,
  });
  await shardTexts(t);
  t.note(/^base_data/, "shards, read by the loader");
  const split = splitShards(listShards(join(t.folder, "base_data")));
  const tensors = t.tensors("batches.safetensors");
  const { B, T } = spec;
  for (const { name, rank, world_size: world, split: part, n_batches, resume_state_dict, states } of spec.cases) {
    const state = resume_state_dict ?? undefined;
    const files = split[part];
    await using loader = new DataLoader({ files, tokenizer, B, T, rank, world, state, resume: "reference" });
    const [inputs, targets] = [new Int32Array(n_batches * B * T), new Int32Array(n_batches * B * T)];
    const found: ReferenceState[] = [];
    for (let i = 0; i < n_batches; i++) {
      const batch = await loader.next();
      inputs.set(batch.inputs, i * B * T);
      targets.set(batch.targets, i * B * T);
      found.push({ pq_idx: batch.state.pq_idx, rg_idx: batch.state.rg_idx });
    }
    t.equal(`${name} inputs`, Array.from(inputs), Array.from(tensors.get(`${name}.inputs`).data));
    t.equal(`${name} targets`, Array.from(targets), Array.from(tensors.get(`${name}.targets`).data));
    t.equal(`${name} states`, found, states.map(({ pq_idx, rg_idx }) => ({ pq_idx, rg_idx })));
  }
}

/** Compares the documents of every shard with the recorded ones. */
async function shardTexts(t: Parity): Promise<void> {
  const { files }: { files: { file: string; texts: string[][] }[] } = t.json("shards.json");
  for (const { file, texts } of files) {
    using shard = ParquetFile.open(join(t.folder, "base_data", file));
    const found = [];
    for (let group = 0; group < shard.rowGroups; group++) found.push(await shard.readTexts(group));
    t.equal(`${file} texts`, found, texts);
  }
}
