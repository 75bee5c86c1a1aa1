import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { checkMutations, temporaryFolder } from "../../dev/testing.ts";
import { SPECIAL_TOKENS, SPLIT_PATTERN, type TokenizerParts } from "../data/tokenizer.ts";
import { type GPTConfig, parameterSpecs } from "../model/gpt.ts";
import { encodeHeader } from "../model/safetensors.ts";
import { Device } from "../tensor/device.ts";
import { bf16FromF32 } from "../tensor/dtype.ts";
import { isHuggingFace, openHuggingFace } from "./huggingface.ts";
import { huggingFaceName, toForeignConfig } from "./names.ts";

const CONFIG: GPTConfig = { sequenceLen: 8, vocabSize: 265, nLayer: 2, nHead: 2, nKvHead: 1, nEmbd: 4 };
const SPECS = parameterSpecs(CONFIG);
const TOKENIZER: TokenizerParts = {
  pattern: SPLIT_PATTERN,
  tokens: Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
  specials: Object.fromEntries(SPECIAL_TOKENS.map((name, i) => [name, 256 + i])),
};

interface Weight {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: "f32" | "bf16" | "f16";
}

const weights = (rows: number): Weight[] =>
  SPECS.map(({ name, shape: [n, cols], group }) => ({
    name: huggingFaceName(name),
    shape: [group.includes("embedding") ? rows : n, cols],
    dtype: name.includes("attn") ? "bf16" : "f32",
  }));
const valuesOf = ({ name, shape }: Weight) =>
  Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => (i + 7 * name.length) % 97 - 48);

/** A file of safetensors; a longer header puts every tensor at an odd place. */
function safetensors(list: readonly Weight[], odd = false): Uint8Array<ArrayBuffer> {
  const data = list.map((weight) => weight.dtype === "f32" ? valuesOf(weight) : bf16FromF32(valuesOf(weight)));
  let head = encodeHeader(list.map((weight, i) => ({ ...weight, bytes: data[i].byteLength })), { format: "pt" });
  if (odd) {
    head = Uint8Array.from([...head, 0x20]);
    new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  }
  const parts = data.map((values) => new Uint8Array(values.buffer));
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, head.length));
  let at = 0;
  for (const part of [head, ...parts]) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const json = (changes: object = {}) =>
  JSON.stringify({
    model_type: "nanochat",
    architectures: ["NanoChatForCausalLM"],
    ...toForeignConfig({ ...CONFIG, vocabSize: 320 }, "huggingface"),
    intermediate_size: 16,
    hidden_act: "relu2",
    final_logit_softcapping: 15.0,
    rope_parameters: { rope_type: "default", rope_theta: 10000.0 },
    rms_norm_eps: 1e-6,
    ...changes,
  });

interface Folder {
  readonly config?: object;
  readonly files?: Readonly<Record<string, Uint8Array<ArrayBuffer> | string>>;
}

async function withFolder(
  { config, files }: Folder,
  use: (folder: string, device: Device) => Promise<void>,
): Promise<void> {
  using folder = temporaryFolder();
  Deno.writeTextFileSync(join(folder.path, "config.json"), json(config));
  for (const [name, content] of Object.entries(files ?? { "model.safetensors": safetensors(weights(320)) })) {
    Deno.writeFileSync(
      join(folder.path, name),
      typeof content === "string" ? new TextEncoder().encode(content) : content,
    );
  }
  using device = Device.open("cpu", { threads: 1 });
  await use(folder.path, device);
}

const SHARDS = weights(320);
const map = (file: (i: number) => string) => Object.fromEntries(SHARDS.map(({ name }, i) => [name, file(i)]));
const half = (i: number) => `model-${i < 7 ? 1 : 2}.safetensors`;
const PARTS = {
  "model-1.safetensors": safetensors(SHARDS.slice(0, 7)),
  "model-2.safetensors": safetensors(SHARDS.slice(7), true),
};
const sharded = (weight_map: unknown) => ({ ...PARTS, "model.safetensors.index.json": JSON.stringify({ weight_map }) });

const WHOLE: readonly [what: string, folder: Folder, rows: number][] = [
  ["one file", {}, 320],
  ["tensors at odd places", { files: { "model.safetensors": safetensors(weights(320), true) } }, 320],
  ["two files", { files: sharded(map(half)) }, 320],
  ["no rows that pad the vocabulary", {
    config: { vocab_size: 265 },
    files: { "model.safetensors": safetensors(weights(265)) },
  }, 265],
];

for (const [what, given, rows] of WHOLE) {
  Deno.test(`openHuggingFace() reads a model of ${what}`, () =>
    withFolder(given, async (folder, device) => {
      assert(isHuggingFace(folder));
      using foreign = await openHuggingFace(device, { folder, tokenizer: TOKENIZER });
      assertEquals(foreign.config, CONFIG);
      assertEquals(foreign.optimizer, []);
      assertEquals(foreign.model.map(({ name }) => name), SPECS.map(({ name }) => name));
      for (const [i, weight] of weights(rows).entries()) {
        const { pointer, bytes, shape } = foreign.model[i];
        const data = new Uint8Array(bytes);
        device.nc.host_read(device.ctx, data, pointer, BigInt(bytes));
        const padded = new Float32Array(bytes / 4);
        padded.set(valuesOf(weight));
        assertEquals(new Float32Array(data.buffer), padded, weight.name);
        assertEquals(shape, SPECS[i].shape);
      }
    }));
}

const single = (list: readonly Weight[]) => ({ files: { "model.safetensors": safetensors(list) } });
const W = weights(320);
const REFUSED: readonly [what: string, folder: Folder, message: string][] = [
  [
    "another architecture",
    { config: { model_type: "llama", architectures: ["LlamaForCausalLM"] } },
    'its model_type is "llama" (["LlamaForCausalLM"]), expected "nanochat"',
  ],
  ["no architecture", { config: { model_type: undefined } }, "its model_type is missing"],
  ["the newest generation by its config", { config: { window_pattern: "SSSL" } }, "newest generation"],
  [
    "the newest generation by a tensor",
    single([...W, { name: "model.layers.1.value_embeds.weight", shape: [1, 1], dtype: "f32" }]),
    "newest generation of the Python nanochat (it has model.layers.1.value_embeds.weight)",
  ],
  ["another feed-forward width", { config: { intermediate_size: 17 } }, "intermediate_size is 17, expected 16"],
  ["another activation", { config: { hidden_act: "gelu" } }, 'hidden_act is "gelu", expected "relu2"'],
  ["another soft cap", { config: { final_logit_softcapping: 30 } }, "final_logit_softcapping is 30, expected 15"],
  ["another rotary base", { config: { rope_parameters: { rope_theta: 5e5 } } }, "rope_theta is 500000, expected 10000"],
  ["scaled positions", { config: { rope_parameters: { rope_type: "yarn" } } }, 'rope_type is "yarn"'],
  ["biases", { config: { attention_bias: true } }, "attention_bias is true"],
  ["tied embeddings", { config: { tie_word_embeddings: true } }, "tie_word_embeddings is true"],
  ["a large epsilon", { config: { rms_norm_eps: 1e-3 } }, "rms_norm_eps is 0.001, expected at most 1e-5"],
  ["a size that is missing", { config: { hidden_size: undefined } }, "hidden_size is missing"],
  ["another vocabulary", { config: { vocab_size: 400 } }, "vocab_size is 400, expected 265 as in the tokenizer"],
  ["a tensor that is missing", single(W.slice(1)), 'tensor "transformer.wte.weight" is missing'],
  ["a tensor that is left over", single([...W, { name: "x", shape: [1, 1], dtype: "f32" }]), 'a tensor "x"'],
  ["another shape", single([{ ...W[0], shape: [320, 5] }, ...W.slice(1)]), "is (320, 5), expected (320, 4)"],
  ["another type", single([...W.slice(0, -1), { ...W.at(-1)!, dtype: "f16" }]), "it is f16, expected f32 or bf16"],
  ["no weights", { files: {} }, "model.safetensors"],
  ["damaged weights", { files: { "model.safetensors": "hello, world" } }, "Cannot read safetensors"],
  ["an empty file", { files: { "model.safetensors": "" } }, "model.safetensors"],
  ["a shard outside of the folder", { files: sharded(map(() => "../x.safetensors")) }, "no name of a shard"],
  [
    "a tensor in another shard",
    { files: sharded(map((i) => half(i + 1))) },
    "does not say that model-1.safetensors has",
  ],
  [
    "a tensor in no shard",
    { files: sharded({ ...map(half), "a.b": "model-1.safetensors" }) },
    'tensor "a.b" is in none',
  ],
  ["an index without a map", { files: { ...PARTS, "model.safetensors.index.json": "{}" } }, "is missing"],
];

for (const [what, given, message] of REFUSED) {
  Deno.test(`openHuggingFace() refuses ${what}`, () =>
    withFolder(given, async (folder, device) => {
      const error = await assertRejects(
        () => openHuggingFace(device, { folder, tokenizer: TOKENIZER }),
        Error,
        message,
      );
      assert(error.message.startsWith("Cannot "), error.message);
    }));
}

Deno.test("openHuggingFace() survives 200 seeded mutations of config and weights with one error or a model", () =>
  withFolder({}, async (folder, device) => {
    const names = ["config.json", "model.safetensors"];
    const files = names.map((name) => Deno.readFileSync(join(folder, name)));
    await checkMutations({
      files,
      read: async (bytes, file) => {
        Deno.writeFileSync(join(folder, names[file]), bytes);
        try {
          using foreign = await openHuggingFace(device, { folder, tokenizer: TOKENIZER });
          assertEquals(foreign.model.length, SPECS.length);
        } finally {
          Deno.writeFileSync(join(folder, names[file]), files[file]);
        }
      },
      errors: [Error],
      refused: 0.3,
      runs: 200,
    });
  }));
