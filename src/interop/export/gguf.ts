/**
 * A model as one GGUF file, version 3: head, metadata with the tokenizer, where each tensor lies, then the tensors, each at a multiple of
 * 32 bytes. All numbers are little-endian; sizes of tensors stand innermost first.
 *
 * Names of tensors and keys are those of llama.cpp where it has them; the architecture is "nanochat". Rotary positions turn the two
 * halves of a head by minus theta: y1 = x1 cos + x2 sin, y2 = x2 cos - x1 sin.
 *
 * Source: https://github.com/ggml-org/ggml, docs/gguf.md.
 */
import { RMS_EPS } from "../../tensor/ops.ts";
import { ROTARY_BASE, SOFTCAP } from "../../model/gpt.ts";
import type { NativeContext } from "../../native/files.ts";
import { Bytes } from "./bytes.ts";
import type { ExportedModel } from "./hf.ts";
import { byteLevelVocabulary, CHAT_TEMPLATE } from "./hf_tokenizer.ts";
import { fileBytes, type FileDtype, Q8_BLOCK, TensorFile } from "./tensor_file.ts";

/** First bytes of a file. */
export const GGUF_MAGIC = "GGUF";
const VERSION = 3;
const ALIGNMENT = 32;
const ARCHITECTURE = "nanochat";
const VALUE = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const;
const TENSOR_TYPE: Record<FileDtype, number> = { f32: 0, bf16: 30, q8_0: 8 };
const FILE_TYPE: Record<FileDtype, number> = { f32: 0, bf16: 32, q8_0: 7 };
const TOKEN = { normal: 1, control: 3, unused: 5 } as const;

const LAYER: Readonly<Record<string, string>> = {
  "attn.c_q": "attn_q",
  "attn.c_k": "attn_k",
  "attn.c_v": "attn_v",
  "attn.c_proj": "attn_output",
  "mlp.c_fc": "ffn_up",
  "mlp.c_proj": "ffn_down",
};

/** Gives GGUF's name of a tensor of ours. */
export function ggufName(name: string): string {
  const [_, layer, part] = /^transformer\.h\.(\d+)\.(.+)\.weight$/.exec(name) ?? [];
  if (layer !== undefined) return `blk.${layer}.${LAYER[part]}.weight`;
  return name === "lm_head.weight" ? "output.weight" : "token_embd.weight";
}

function ggufString(out: Bytes, text: string): void {
  const bytes = new TextEncoder().encode(text);
  out.u64(bytes.length);
  out.raw(bytes);
}

/** A metadata value with its type. */
type Value =
  | readonly ["u32" | "f32", number]
  | readonly ["bool", boolean]
  | readonly ["string", string]
  | readonly ["strings", readonly string[]]
  | readonly ["i32s", readonly number[]];

function writeValue(out: Bytes, [type, value]: Value): void {
  switch (type) {
    case "u32":
      out.u32(VALUE.u32);
      return out.u32(value);
    case "f32":
      out.u32(VALUE.f32);
      return out.f32(value);
    case "bool":
      out.u32(VALUE.bool);
      return out.u8(value ? 1 : 0);
    case "string":
      out.u32(VALUE.string);
      return ggufString(out, value);
    default:
      out.u32(VALUE.array);
      out.u32(type === "strings" ? VALUE.string : VALUE.i32);
      out.u64(value.length);
      for (const item of value) typeof item === "string" ? ggufString(out, item) : out.u32(item);
  }
}

function tokenizerValues({ tokenizer, config }: ExportedModel): Record<string, Value> {
  const { tokens, merges } = byteLevelVocabulary(tokenizer);
  const names = new Map(Array.from(tokenizer.specials, ([name, id]) => [id, name]));
  const ids = Array.from({ length: config.vocabSize }, (_, id) => id);
  const typeOf = (id: number) => id < tokens.length ? TOKEN.normal : names.has(id) ? TOKEN.control : TOKEN.unused;
  const bos = tokenizer.specials.get("<|bos|>");
  const end = tokenizer.specials.get("<|assistant_end|>");
  return {
    "tokenizer.ggml.model": ["string", "gpt2"], // byte-level BPE, in the alphabet of GPT-2
    "tokenizer.ggml.pre": ["string", ARCHITECTURE],
    [`${ARCHITECTURE}.tokenizer.split_pattern`]: ["string", tokenizer.pattern],
    "tokenizer.ggml.tokens": ["strings", ids.map((id) => tokens[id] ?? names.get(id) ?? `[UNUSED${id}]`)],
    "tokenizer.ggml.token_type": ["i32s", ids.map(typeOf)],
    "tokenizer.ggml.merges": ["strings", merges.map(([left, right]) => `${left} ${right}`)],
    ...(bos === undefined ? {} : { "tokenizer.ggml.bos_token_id": ["u32", bos] as const }),
    ...(end === undefined ? {} : { "tokenizer.ggml.eos_token_id": ["u32", end] as const }),
    "tokenizer.ggml.add_bos_token": ["bool", bos !== undefined],
    "tokenizer.chat_template": ["string", CHAT_TEMPLATE],
  };
}

function modelValues({ config }: ExportedModel, { name, dtype }: { name: string; dtype: FileDtype }) {
  const { sequenceLen, vocabSize, nLayer, nHead, nKvHead, nEmbd } = config;
  const own: Record<string, Value> = {
    vocab_size: ["u32", vocabSize],
    context_length: ["u32", sequenceLen],
    embedding_length: ["u32", nEmbd],
    block_count: ["u32", nLayer],
    feed_forward_length: ["u32", 4 * nEmbd],
    "attention.head_count": ["u32", nHead],
    "attention.head_count_kv": ["u32", nKvHead],
    "attention.layer_norm_rms_epsilon": ["f32", RMS_EPS],
    "rope.dimension_count": ["u32", nEmbd / nHead],
    "rope.freq_base": ["f32", ROTARY_BASE],
    final_logit_softcapping: ["f32", SOFTCAP],
  };
  const general: Record<string, Value> = {
    "general.architecture": ["string", ARCHITECTURE],
    "general.type": ["string", "model"],
    "general.name": ["string", name],
    "general.file_type": ["u32", FILE_TYPE[dtype]],
    "general.alignment": ["u32", ALIGNMENT],
    ...(dtype === "q8_0" ? { "general.quantization_version": ["u32", 2] as const } : {}),
  };
  return { ...general, ...Object.fromEntries(Object.entries(own).map(([k, v]) => [`${ARCHITECTURE}.${k}`, v])) };
}

/** Checks that rows split into the blocks of a type. @throws {RangeError} naming the width. */
export function checkGgufDtype({ nEmbd }: { nEmbd: number }, dtype: FileDtype): void {
  if (dtype !== "q8_0" || nEmbd % Q8_BLOCK === 0) return;
  throw new RangeError(
    `Cannot export as q8_0: the model's width is ${nEmbd}, expected a multiple of ${Q8_BLOCK}; ` +
      "choose --dtype=fp32 or --dtype=bf16",
  );
}

/** Writes a file, which must not exist; `name` is the model's in the metadata. */
export function writeGguf(
  context: NativeContext,
  model: ExportedModel,
  { path, name, dtype }: { path: string; name: string; dtype: FileDtype },
): void {
  const values = Object.entries({ ...modelValues(model, { name, dtype }), ...tokenizerValues(model) });
  const head = new Bytes();
  head.raw(new TextEncoder().encode(GGUF_MAGIC));
  head.u32(VERSION);
  head.u64(model.tensors.length);
  head.u64(values.length);
  for (const [key, value] of values) {
    ggufString(head, key);
    writeValue(head, value);
  }
  let offset = 0;
  for (const { name, shape } of model.tensors) {
    ggufString(head, ggufName(name));
    head.u32(shape.length);
    for (const size of shape.toReversed()) head.u64(size);
    head.u32(TENSOR_TYPE[dtype]);
    head.u64(offset);
    offset += Math.ceil(fileBytes(shape, dtype) / ALIGNMENT) * ALIGNMENT;
  }
  using file = new TensorFile(context, path);
  file.write(head.all);
  for (const tensor of model.tensors) {
    file.align(ALIGNMENT);
    file.writeTensor(tensor, dtype);
  }
  file.align(ALIGNMENT);
}
