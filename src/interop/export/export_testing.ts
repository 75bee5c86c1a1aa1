/** A golden model with the golden tokenizer of its vocabulary, saved as a checkpoint of ours, for the tests of exports. */
import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../../dev/cli.ts";
import { configOf } from "../../../dev/parity/model.ts";
import { readSafetensors } from "../../../dev/parity/parity.ts";
import { ROOT } from "../../../dev/setup.ts";
import { foldersOf } from "../../data/base_dir.ts";
import { SILENT } from "../../data/log.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { type NamedTensor, saveCheckpoint } from "../../model/checkpoint.ts";
import { GPT, type GPTConfig } from "../../model/gpt.ts";
import { Device } from "../../tensor/device.ts";

/** The golden folder of models. */
export const MODEL_FOLDER = join(ROOT, "dev", "golden", "gpt_tiny");
const TOKENIZERS = join(ROOT, "dev", "golden", "tokenizer");
/** Step of the saved checkpoint. */
export const STEP = 40;

/** What a test of an export works with; everything is freed behind the test. */
export interface GoldenExport {
  /** Folder of the checkpoint's base, also for what is exported. */
  readonly base: string;
  readonly config: GPTConfig;
  readonly device: Device;
  /** The model with rotary tables as ours are, rounded. */
  readonly model: GPT;
  readonly tokenizer: Tokenizer;
  /** The golden weights by name, padding of the vocabulary included. */
  readonly weights: ReadonlyMap<string, Float32Array<ArrayBuffer>>;
  /** Runs `nanochat export ARGS` on this base folder; gives the folder that it wrote. */
  exported(...args: string[]): Promise<string>;
}

/** Reads the golden vocabulary `name`. */
export function goldenTokenizer(name: string): Promise<Tokenizer> {
  const golden = JSON.parse(Deno.readTextFileSync(join(TOKENIZERS, `${name}.json`)));
  return Tokenizer.fromParts({
    pattern: golden.split_pattern,
    tokens: golden.mergeable_ranks_base64.map((token: string) => Uint8Array.fromBase64(token)),
    specials: golden.special_tokens,
  });
}

function masterTensors(model: GPT): NamedTensor[] {
  return model.parameters.all().map(({ name, master: { shape, pointer, bytes } }) => {
    return { name, dtype: "f32", shape, pointer, bytes };
  });
}

/** Uploads weights into a model. */
export function fillModel(model: GPT, weights: GoldenExport["weights"]): void {
  for (const { name, master } of model.parameters.all()) model.device.upload(master, weights.get(name)!);
  model.parameters.refreshCopies();
}

/** Saves the golden model, with `optimizer` beside it, and hands it to a test. */
export async function withGoldenModel(
  use: (golden: GoldenExport) => Promise<void>,
  { flags = {}, dtype, optimizer }: {
    flags?: Record<string, string | number>;
    dtype?: string;
    optimizer?: (model: GPT) => readonly NamedTensor[];
  } = {},
): Promise<void> {
  const config = configOf(JSON.parse(Deno.readTextFileSync(join(MODEL_FOLDER, "config.json"))).config);
  const stored = readSafetensors(Deno.readFileSync(join(MODEL_FOLDER, "weights.safetensors")));
  const weights = new Map(Array.from(stored, ([name, { data }]) => [name, data as Float32Array<ArrayBuffer>]));
  using tokenizer = await goldenTokenizer("tok500");
  using device = Device.open("cpu", { threads: 1 });
  using model = new GPT(device, config, { dtype: "f32", training: false });
  fillModel(model, weights);
  await withFolder(async (base) => {
    const { tokenizer: tokenizerFolder, checkpoints } = foldersOf(base);
    await tokenizer.save(tokenizerFolder);
    await saveCheckpoint({
      nc: device.nc,
      ctx: device.ctx,
      folder: join(checkpoints, "base", "tiny"),
      step: STEP,
      model: masterTensors(model),
      optimizer: optimizer?.(model) ?? [],
      state: {
        run: "dummy",
        stage: "base",
        valBpb: 1.5,
        config: { ...config },
        flags,
        loader: null,
        ...(dtype === undefined ? {} : { dtype }),
        rng: null,
        loop: {},
      },
      keep: 1,
      tokenizerFolder,
      log: SILENT,
    });
    let exports = 0;
    const exported = async (...args: string[]) => {
      const out = join(base, `export_${exports++}`);
      const call = ["export", ...args, `--out=${out}`, `--base-dir=${base}`];
      const { code, output } = await nanochat(call);
      assertEquals(code, 0, output);
      return out;
    };
    await use({ base, config, device, model, tokenizer, weights, exported });
  });
}
