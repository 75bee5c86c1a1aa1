/**
 * Models of the NanoChat architecture as `transformers` keeps them: `config.json`, `model.safetensors` or its shards with
 * `model.safetensors.index.json`, `tokenizer.json`. Source: transformers 5, models/nanochat.
 */
import { join } from "@std/path";
import { entries } from "../data/base_dir.ts";
import type { TokenizerParts } from "../data/tokenizer.ts";
import { readIfPresent } from "../model/checkpoint_folder.ts";
import { type GPTConfig, paddedVocabulary } from "../model/gpt.ts";
import { CheckpointError } from "../model/meta.ts";
import { headerBytes, parseHeader } from "../model/safetensors.ts";
import { addressAt, mapFile, type MappedFile, readMemory, unmapFile } from "../native/files.ts";
import type { Device } from "../tensor/device.ts";
import {
  checkWeights,
  type ForeignModel,
  type ForeignTensor,
  NEWEST_PARTS,
  newestGeneration,
  readJson,
  Widener,
} from "./foreign.ts";
import { fromForeignConfig, huggingFaceNames } from "./names.ts";
import { readReferenceTokenizer } from "./reference.ts";
import { parseTokenizerJson } from "./tokenizer_json.ts";

const MODEL_TYPE = "nanochat";
const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** Tells whether a folder is one of Hugging Face's: it has a config.json. */
export function isHuggingFace(folder: string): boolean {
  return entries(folder).some(({ name, isFile }) => isFile && name === "config.json");
}

/**
 * Opens a model. Every tensor is checked by name, type and shape before anything is given.
 *
 * @param options.tokenizer takes the place of the folder's own
 * @throws {CheckpointError} "version" for another architecture, naming it, else "missing", "damaged" or "mismatch".
 */
export async function openHuggingFace(
  device: Device,
  { folder, tokenizer: given }: { folder: string; tokenizer?: TokenizerParts },
): Promise<ForeignModel> {
  const path = join(folder, "config.json");
  const values = readJson(path);
  const config = configOf(values, path);
  const found = given ? { parts: given, files: [] } : readTokenizer(device, folder);
  const vocabSize = found ? vocabularySize(found.parts, { config, path }) : config.vocabSize;
  const open = new Shards(device, folder);
  try {
    const model = open.weights(config, { ...config, vocabSize });
    await device.wait();
    return {
      origin: "Hugging Face",
      files: [path, ...open.paths, ...found?.files ?? []],
      step: 0,
      config: { ...config, vocabSize },
      model,
      optimizer: [],
      tokenizer: found?.parts,
      run: {},
      [Symbol.dispose]: () => open[Symbol.dispose](),
    };
  } catch (error) {
    await device.wait(); // nothing may read the files once they are unmapped
    open[Symbol.dispose]();
    throw error;
  }
}

/** Checks that the architecture is this one, and every constant that a file may set otherwise. */
function configOf(values: Record<string, unknown>, path: string): GPTConfig {
  const show = (value: unknown) => JSON.stringify(value)?.slice(0, 100) ?? "missing";
  const { model_type, architectures, num_key_value_heads, num_attention_heads } = values;
  if (model_type !== MODEL_TYPE) {
    throw new CheckpointError(
      "version",
      `Cannot import "${path}": its model_type is ${show(model_type)} (${
        show(architectures)
      }), expected "${MODEL_TYPE}"; ` +
        "other architectures are not known here",
    );
  }
  if ("window_pattern" in values) throw newestGeneration(path, "it has window_pattern");
  const sizes = { ...values, num_key_value_heads: num_key_value_heads ?? num_attention_heads };
  const config = fromForeignConfig(sizes, { dialect: "huggingface", what: `"${path}"` });
  const rope = (values.rope_parameters ?? values.rope_scaling ?? {}) as Record<string, unknown>;
  // rms_norm_eps is 2^-23 in the Python nanochat and 1e-6 by default there: below 1e-5 no logit shows it.
  const eps = (value: unknown) => typeof value === "number" && value > 0 && value <= 1e-5;
  const rules: [name: string, value: unknown, expected: string, isRight: boolean][] = [
    constant("intermediate_size", values.intermediate_size, 4 * config.nEmbd),
    constant("hidden_act", values.hidden_act ?? "relu2", "relu2"),
    constant("final_logit_softcapping", values.final_logit_softcapping ?? 15, 15),
    constant("rope_theta", rope.rope_theta ?? values.rope_theta ?? 10000, 10000),
    constant("rope_type", rope.rope_type ?? "default", "default"),
    constant("attention_bias", values.attention_bias ?? false, false),
    constant("tie_word_embeddings", values.tie_word_embeddings ?? false, false),
    ["rms_norm_eps", values.rms_norm_eps, "at most 1e-5", eps(values.rms_norm_eps ?? 1e-6)],
  ];
  for (const [name, value, expected, isRight] of rules) {
    if (isRight) continue;
    throw new CheckpointError("mismatch", `Cannot import "${path}": ${name} is ${show(value)}, expected ${expected}`);
  }
  return config;
}

function constant(
  name: string,
  value: unknown,
  expected: string | number | boolean,
): [string, unknown, string, boolean] {
  return [name, value, JSON.stringify(expected), value === expected];
}

function readTokenizer(device: Device, folder: string): { parts: TokenizerParts; files: string[] } | undefined {
  const path = join(folder, "tokenizer.json");
  const bytes = readIfPresent(path);
  if (bytes !== undefined) return { parts: parseTokenizerJson(bytes, path), files: [path] };
  return readReferenceTokenizer(device, folder);
}

/** Gives V: the tokenizer's, where the model's is that or that rounded up. */
function vocabularySize(
  { tokens, specials }: TokenizerParts,
  { config, path }: { config: GPTConfig; path: string },
): number {
  const size = Math.max(tokens.length, ...Object.values(specials).map((id) => id + 1));
  if (size === config.vocabSize || paddedVocabulary(size) === config.vocabSize) return size;
  throw new CheckpointError(
    "mismatch",
    `Cannot import "${path}": vocab_size is ${config.vocabSize}, expected ${size} as in the tokenizer; choose it with --tokenizer-dir`,
  );
}

/** The safetensors files of a model, mapped. */
class Shards implements Disposable {
  readonly paths: string[] = [];
  readonly #device: Device;
  readonly #folder: string;
  readonly #files: MappedFile[] = [];
  readonly #widener: Widener;

  constructor(device: Device, folder: string) {
    this.#device = device;
    this.#folder = folder;
    this.#widener = new Widener(device);
  }

  /** Gives the weights; rows that pad the vocabulary are zero where the file has none. */
  weights(theirs: GPTConfig, ours: GPTConfig) {
    const names = huggingFaceNames(ours);
    const tensors = new Map<string, ForeignTensor>();
    for (const [name, tensor] of this.#all()) {
      const path = this.paths.at(-1)!;
      if (NEWEST_PARTS.test(name)) throw newestGeneration(path, `it has ${name.slice(0, 100)}`);
      tensors.set(names.get(name) ?? name, tensor);
    }
    const refuse = (problem: string) => new CheckpointError("mismatch", `Cannot import "${this.#folder}": ${problem}`);
    const Vp = paddedVocabulary(ours.vocabSize);
    for (const name of ["transformer.wte.weight", "lm_head.weight"]) {
      const tensor = tensors.get(name);
      if (tensor?.shape[0] !== theirs.vocabSize || tensor.shape[0] === Vp || tensor.shape.length !== 2) continue;
      const padding = this.#widener.zeros([Vp - tensor.shape[0], tensor.shape[1]]);
      tensors.set(name, this.#widener.join(name, [tensor, padding]) as ForeignTensor);
    }
    return checkWeights(tensors, { config: ours, refuse }).map(([name, tensor]) => this.#widener.name(name, tensor));
  }

  /** Reads all tensors; a sharded model must have each where its index says. */
  *#all(): Generator<[name: string, tensor: ForeignTensor]> {
    const index = join(this.#folder, INDEX);
    if (!entries(this.#folder).some(({ name }) => name === INDEX)) {
      yield* this.#tensors(SINGLE);
      return;
    }
    this.paths.push(index);
    const { weight_map } = readJson(index);
    const map = new Map(Object.entries(weight_map ?? {}));
    const refuse = (problem: string) => new CheckpointError("mismatch", `Cannot import "${index}": ${problem}`);
    for (const file of new Set(map.values())) {
      // A plain name: no path leads out of the folder.
      if (typeof file !== "string" || !/^[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors$/.test(file)) {
        throw refuse(
          `${JSON.stringify(file)?.slice(0, 100)} is no name of a shard, expected a .safetensors file beside it`,
        );
      }
      for (const [name, tensor] of this.#tensors(file)) {
        if (map.get(name) !== file) {
          throw refuse(`it does not say that ${file} has tensor ${JSON.stringify(name.slice(0, 200))}`);
        }
        map.delete(name);
        yield [name, tensor];
      }
    }
    const missing = [...map.keys()][0];
    if (missing !== undefined) throw refuse(`tensor ${JSON.stringify(missing.slice(0, 200))} is in none of its files`);
  }

  *#tensors(file: string): Generator<[name: string, tensor: ForeignTensor]> {
    const path = join(this.#folder, file);
    this.paths.push(path);
    const mapped = mapFile(this.#device, path);
    this.#files.push(mapped);
    const read = (bytes: number) =>
      readMemory(this.#device, { pointer: mapped.pointer, bytes: Math.min(bytes, mapped.bytes) });
    let header: ReturnType<typeof parseHeader>;
    try {
      header = parseHeader(read(8 + headerBytes(read(8), mapped.bytes)), mapped.bytes);
    } catch (cause) {
      if (!(cause instanceof SyntaxError)) throw cause;
      throw new CheckpointError("damaged", `Cannot import "${path}": ${cause.message}`, { cause });
    }
    for (const [name, { dtype, shape, begin }] of header.tensors) {
      yield [name, { dtype, shape, pointer: addressAt(mapped.pointer, begin) }];
    }
  }

  [Symbol.dispose](): void {
    this.#widener[Symbol.dispose]();
    for (const file of this.#files) unmapFile(this.#device, file);
  }
}
