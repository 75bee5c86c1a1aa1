/**
 * A model as a folder that `transformers` opens with `AutoModelForCausalLM`: its architecture NanoChat is ours (transformers,
 * models/nanochat), except that it does not round the rotary tables to bfloat16.
 *
 * The vocabulary is written without its padding: rows that no token has are never trained, and a reader that samples from all rows
 * would find them.
 */
import { join } from "@std/path";
import type { Tokenizer } from "../../data/tokenizer.ts";
import { type GPTConfig, parameterSpecs, ROTARY_BASE, SOFTCAP } from "../../model/gpt.ts";
import { CheckpointError } from "../../model/meta.ts";
import type { MappedTensor } from "../../model/mapped_checkpoint.ts";
import { encodeHeader } from "../../model/safetensors.ts";
import type { NativeContext } from "../../native/files.ts";
import { RMS_EPS } from "../../tensor/ops.ts";
import { huggingFaceName, toForeignConfig } from "../names.ts";
import { fileBytes, type SourceTensor, TensorFile } from "./tensor_file.ts";

/** A model that is to be exported. */
export interface ExportedModel {
  /** Sizes. */
  readonly config: GPTConfig;
  /** Parameters under our names, in the order of the model, rows of the vocabulary without padding. */
  readonly tensors: readonly SourceTensor[];
  /** Tokenizer that the model was trained with. */
  readonly tokenizer: Tokenizer;
}

/**
 * Lists the parameters of a mapped model for an export.
 *
 * @param options.padded keeps the rows of the vocabulary that no token has
 * @throws {CheckpointError} "mismatch" where one is missing or of another shape.
 */
export function sourceTensors(
  config: GPTConfig,
  from: ReadonlyMap<string, MappedTensor>,
  { padded = false }: { padded?: boolean } = {},
): SourceTensor[] {
  return parameterSpecs(config).map(({ name, shape }) => {
    const tensor = from.get(name);
    const is = tensor === undefined ? "missing" : `${tensor.dtype} (${tensor.shape.join(", ")})`;
    if (tensor === undefined || is !== `f32 (${shape.join(", ")})`) {
      const expected = `f32 (${shape.join(", ")})`;
      throw new CheckpointError("mismatch", `Cannot export tensor "${name}": it is ${is}, expected ${expected}`);
    }
    const isVocabulary = name === "transformer.wte.weight" || name === "lm_head.weight";
    const rows = isVocabulary && !padded ? config.vocabSize : shape[0];
    return { name, shape: [rows, shape[1]], pointer: tensor.pointer };
  });
}

/** Ids that begin and end what a model writes, as far as the vocabulary has them. */
function ends({ specials }: Tokenizer) {
  const bos = specials.get("<|bos|>");
  const end = specials.get("<|assistant_end|>");
  return { bos, end, stops: [end, bos].filter((id) => id !== undefined) };
}

/** Writes `config.json`. */
export function configJson({ config, tokenizer }: Pick<ExportedModel, "config" | "tokenizer">, dtype: "f32" | "bf16") {
  const { bos, end, stops } = ends(tokenizer);
  const values = {
    architectures: ["NanoChatForCausalLM"],
    model_type: "nanochat",
    ...toForeignConfig(config, "huggingface"),
    intermediate_size: 4 * config.nEmbd,
    hidden_act: "relu2",
    rms_norm_eps: RMS_EPS,
    final_logit_softcapping: SOFTCAP,
    rope_parameters: { rope_type: "default", rope_theta: ROTARY_BASE },
    attention_bias: false,
    attention_dropout: 0,
    tie_word_embeddings: false,
    use_cache: true,
    bos_token_id: bos ?? null,
    eos_token_id: stops.length > 0 ? stops : null,
    pad_token_id: end ?? null,
    dtype: dtype === "f32" ? "float32" : "bfloat16",
  };
  // The reader's types are strict: 15 is no float there.
  return JSON.stringify(values, null, 2).replace(/("(?:final_logit_softcapping|rope_theta)": \d+)(?=\s|,)/g, "$1.0");
}

/** Writes `generation_config.json`: draws as `nanochat chat` does. */
export function generationConfigJson(tokenizer: Tokenizer): string {
  const { bos, end, stops } = ends(tokenizer);
  const ids = { bos_token_id: bos, eos_token_id: stops.length > 0 ? stops : undefined, pad_token_id: end };
  return JSON.stringify({ ...ids, do_sample: true, temperature: 0.6, top_k: 50 }, null, 2);
}

/** Writes `model.safetensors`. */
export function writeSafetensors(
  context: NativeContext,
  { folder, tensors, dtype }: { folder: string; tensors: readonly SourceTensor[]; dtype: "f32" | "bf16" },
): void {
  const entries = tensors.map(({ name, shape }) => {
    return { name: huggingFaceName(name), dtype, shape, bytes: fileBytes(shape, dtype) };
  });
  using file = new TensorFile(context, join(folder, "model.safetensors"));
  file.write(encodeHeader(entries, { format: "pt" }));
  for (const tensor of tensors) file.writeTensor(tensor, dtype);
}
