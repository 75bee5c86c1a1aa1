/**
 * How three programs name the same model: this one, the Python nanochat, and `transformers` (Hugging Face). One table, read in both
 * directions by import and export.
 *
 * The Python nanochat calls tensors as we do; a compiled model's names carry a prefix. Its folders of checkpoints are in
 * `REFERENCE_FOLDERS` of `data/base_dir.ts`. Sources: nanochat/gpt.py and checkpoint_manager.py, commit 10231df; transformers,
 * models/nanochat.
 */
import { type GPTConfig, parameterSpecs } from "../model/gpt.ts";

/** Prefix of the names of a model that torch.compile wrapped. */
const COMPILED_PREFIX = "_orig_mod.";

/** Tensors outside the layers: ours, Hugging Face. */
const OUTSIDE: Readonly<Record<string, string>> = {
  "transformer.wte.weight": "model.embed_tokens.weight",
  "lm_head.weight": "lm_head.weight",
};

/** Tensors of layer i: ours behind "transformer.h.i.", Hugging Face behind "model.layers.i.". */
const LAYER: Readonly<Record<string, string>> = {
  "attn.c_q.weight": "self_attn.q_proj.weight",
  "attn.c_k.weight": "self_attn.k_proj.weight",
  "attn.c_v.weight": "self_attn.v_proj.weight",
  "attn.c_proj.weight": "self_attn.o_proj.weight",
  "mlp.c_fc.weight": "mlp.fc1.weight",
  "mlp.c_proj.weight": "mlp.fc2.weight",
};

/** Sizes of a model: ours, [Python nanochat, Hugging Face]. */
const CONFIG: Readonly<Record<keyof GPTConfig, readonly [string, string]>> = {
  sequenceLen: ["sequence_len", "max_position_embeddings"],
  vocabSize: ["vocab_size", "vocab_size"],
  nLayer: ["n_layer", "num_hidden_layers"],
  nHead: ["n_head", "num_attention_heads"],
  nKvHead: ["n_kv_head", "num_key_value_heads"],
  nEmbd: ["n_embd", "hidden_size"],
};

/** Gives Hugging Face's name of a tensor of ours. @throws {RangeError} for a name that no model of ours has. */
export function huggingFaceName(name: string): string {
  const [_, layer, part = name] = /^transformer\.h\.(\d+)\.(.+)$/.exec(name) ?? [];
  const table = layer === undefined ? OUTSIDE : LAYER;
  if (!Object.hasOwn(table, part)) {
    throw new RangeError(`Cannot rename tensor "${name}": expected one of this program's`);
  }
  return layer === undefined ? table[part] : `model.layers.${layer}.${table[part]}`;
}

/** Lists Hugging Face's names of all tensors of a model, each with ours. */
export function huggingFaceNames(config: GPTConfig): Map<string, string> {
  return new Map(parameterSpecs(config).map(({ name }) => [huggingFaceName(name), name]));
}

/** Gives our name of a tensor of the Python nanochat. */
export function fromReferenceName(name: string): string {
  return name.startsWith(COMPILED_PREFIX) ? name.slice(COMPILED_PREFIX.length) : name;
}

/** The two other programs, as columns of the table of sizes. */
export type Dialect = "reference" | "huggingface";

const COLUMN: Readonly<Record<Dialect, 0 | 1>> = { reference: 0, huggingface: 1 };

/** Gives the sizes of a model under another program's names. */
export function toForeignConfig(config: GPTConfig, dialect: Dialect): Record<string, number> {
  const rows = Object.entries(CONFIG) as [keyof GPTConfig, readonly [string, string]][];
  return Object.fromEntries(rows.map(([ours, theirs]) => [theirs[COLUMN[dialect]], config[ours]]));
}

/**
 * Reads the sizes of a model under another program's names; other entries are the caller's to judge.
 *
 * @param what names the file in errors
 * @throws {SyntaxError} where one is missing or no positive integer below 2^31.
 */
export function fromForeignConfig(
  values: Readonly<Record<string, unknown>>,
  { dialect, what }: { dialect: Dialect; what: string },
): GPTConfig {
  const rows = Object.entries(CONFIG).map(([ours, theirs]) => {
    const name = theirs[COLUMN[dialect]];
    const value = Object.hasOwn(values, name) ? values[name] : undefined;
    if (!Number.isInteger(value) || (value as number) < 1 || (value as number) >= 2 ** 31) {
      const is = JSON.stringify(value)?.slice(0, 80) ?? "missing";
      throw new SyntaxError(`Cannot read ${what}: ${name} is ${is}, expected a positive integer`);
    }
    return [ours, value];
  });
  return Object.fromEntries(rows);
}
