import { assert, assertEquals, assertRejects } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { foldersOf, TOKENIZER_FILE } from "../data/base_dir.ts";
import { SILENT } from "../data/log.ts";
import { SPECIAL_TOKENS, SPLIT_PATTERN, Tokenizer, type TokenizerParts } from "../data/tokenizer.ts";
import type { ForeignModel } from "../interop/foreign.ts";
import { listSteps } from "../model/checkpoint.ts";
import { parameterSpecs } from "../model/gpt.ts";
import { Device } from "../tensor/device.ts";
import { BASE_TRAIN_DEFAULTS } from "./base_flags.ts";
import { importModel } from "./import_model.ts";
import { storedFlags } from "./stage_flags.ts";

const CONFIG = { sequenceLen: 8, vocabSize: 265, nLayer: 2, nHead: 2, nKvHead: 1, nEmbd: 4 };
const TOKENIZER: TokenizerParts = {
  pattern: SPLIT_PATTERN,
  tokens: Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
  specials: Object.fromEntries(SPECIAL_TOKENS.map((name, i) => [name, 256 + i])),
};

/** A base folder, a device, and a model that lies in the device's memory. */
class Rig implements Disposable {
  readonly device = Device.open("cpu", { threads: 1 });
  readonly #folder = temporaryFolder();
  readonly folders = foldersOf(this.#folder.path);

  model(parts: Partial<ForeignModel> = {}): ForeignModel {
    const tensors = parameterSpecs(CONFIG).map(({ name, shape }) => {
      const { pointer, bytes } = this.device.tensor(shape, "f32");
      return { name, dtype: "f32" as const, shape, pointer, bytes };
    });
    return {
      ...{ origin: "a test", files: [], step: 5, config: CONFIG, model: tensors, optimizer: [], tokenizer: TOKENIZER },
      run: {},
      [Symbol.dispose]: () => {},
      ...parts,
    };
  }

  import(parts: Partial<ForeignModel>, options: Partial<Parameters<typeof importModel>[1]> = {}) {
    const foreign = this.model(parts);
    return importModel(this.device, { foreign, folders: this.folders, stage: "base", log: SILENT, ...options });
  }

  [Symbol.dispose](): void {
    this.device[Symbol.dispose]();
    this.#folder[Symbol.dispose]();
  }
}

Deno.test("importModel() translates flags, loop and position of the Python nanochat", async () => {
  using rig = new Rig();
  const optimizer = [{ ...rig.model().model[0], name: "exp_avg.transformer.wte.weight" }];
  const run = {
    val_bpb: 1.25,
    user_config: { run: "mine", depth: 2, matrix_lr: 0.03, device_type: "cuda", num_iterations: "many", unknown: 7 },
    loop_state: { min_val_bpb: null, smooth_train_loss: 3.5, total_training_time: 1.5 },
    dataloader_state_dict: { pq_idx: 4, rg_idx: 9 },
  };
  const files = [0, 1, 2, 3].map((rank) => `optim_000005_rank${rank}.pt`);
  const { meta, isTokenizerKept, folder } = await rig.import({ run, optimizer, files, dtype: "bf16" });
  assert(isTokenizerKept && existsSync(join(rig.folders.tokenizer, TOKENIZER_FILE)));
  assertEquals(folder, join(rig.folders.checkpoints, "base", "d2"));
  const { device_type: _, ...defaults } = storedFlags(BASE_TRAIN_DEFAULTS);
  assertEquals(meta.flags, { ...defaults, run: "mine", depth: 2, matrix_lr: 0.03, max_seq_len: 8, model_tag: "" });
  assertEquals([meta.run, meta.dtype], ["mine", "bf16"]);
  assertEquals(meta.valBpb, 1.25);
  assertEquals(meta.loop, { minValBpb: null, smoothLoss: 3.5, updates: 5, totalTimeMs: 1500 });
  assertEquals(meta.loader, { pq_idx: 4, rg_idx: 11 }); // four ranks have read row groups 8 to 11
  assertEquals(meta.config, CONFIG);
});

Deno.test("importModel() takes tag and stage from the call, the files or the depth, and knows states of no other program", async () => {
  using rig = new Rig();
  const named = await rig.import({ stage: "sft", tag: "d20", run: { user_config: 7, loop_state: "x" } }, {
    stage: undefined,
  });
  assertEquals([named.stage, named.tag, named.meta.run], ["sft", "d20", "imported"]);
  assertEquals([named.meta.flags, named.meta.loader], [{}, null]);
  const given = await rig.import({ stage: "sft", tag: "d20" }, { stage: "base", tag: "mine" });
  assertEquals([given.stage, given.tag, given.meta.flags.model_tag], ["base", "mine", "mine"]);
  const position = { dataloader_state_dict: { pq_idx: -1, rg_idx: 0.5 } };
  const optimizer = [{ ...rig.model().model[0], name: "exp_avg.transformer.wte.weight" }];
  assertEquals((await rig.import({ run: position, optimizer })).meta.loader, null);
  await assertRejects(() => rig.import({}, { stage: undefined }), Error, "expected --source=base|mid|sft|rl");
});

Deno.test("importModel() replaces a step only when told to, and keeps to one tokenizer a folder", async () => {
  using rig = new Rig();
  const { folder } = await rig.import({});
  await assertRejects(() => rig.import({}), Error, "it holds step 5, expected none");
  await rig.import({ step: 6 });
  assertEquals((await rig.import({ step: 6, run: { val_bpb: 2 } }, { overwrite: true })).meta.valBpb, 2);
  assertEquals(listSteps(folder), [5, 6]);
  const other = { ...TOKENIZER, tokens: [...TOKENIZER.tokens].reverse() };
  await assertRejects(() => rig.import({ step: 7, tokenizer: other }), Error, "choose another --model-tag=NAME");
  assertEquals([...Deno.readDirSync(folder)].filter(({ name }) => name.includes("_000007")), []);
  const { isTokenizerKept } = await rig.import({ tokenizer: other }, { tag: "other" });
  using kept = await Tokenizer.load(rig.folders.tokenizer);
  assertEquals([isTokenizerKept, kept.token(0)], [false, Uint8Array.of(0)]);
});

Deno.test("importModel() refuses a model without its tokenizer, and writes nothing then", async () => {
  using rig = new Rig();
  const specials = { ...TOKENIZER.specials };
  delete specials["<|output_end|>"];
  await assertRejects(() => rig.import({ tokenizer: undefined }), Error, "choose its folder with --tokenizer-dir");
  await assertRejects(() => rig.import({ tokenizer: { ...TOKENIZER, specials } }), Error, 'token "<|output_end|>"');
  const config = { ...CONFIG, vocabSize: 266 };
  await assertRejects(() => rig.import({ config }), Error, "the tokenizer has 265 tokens, expected 266");
  assertEquals(existsSync(rig.folders.checkpoints), false);
});
