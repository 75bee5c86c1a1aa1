import { assert, assertEquals, assertRejects } from "@std/assert";
import { dirname, join } from "@std/path";
import { checkMutations, temporaryFolder } from "../../dev/testing.ts";
import { SPECIAL_TOKENS, SPLIT_PATTERN } from "../data/tokenizer.ts";
import { type GPTConfig, parameterSpecs } from "../model/gpt.ts";
import { Device } from "../tensor/device.ts";
import { bf16FromF32, f32FromBf16 } from "../tensor/dtype.ts";
import { toForeignConfig } from "./names.ts";
import { openReference, referenceSteps } from "./reference.ts";
import { call, list, push, type Raw, tensor, torchFile } from "./torch_testing.ts";

const CONFIG: GPTConfig = { sequenceLen: 8, vocabSize: 265, nLayer: 2, nHead: 2, nKvHead: 1, nEmbd: 4 };
const SPECS = parameterSpecs(CONFIG);
const [VP, C] = SPECS[0].shape;

/** Collects storages, and gives tensors over them. */
class Saver {
  readonly storages: Record<string, Uint8Array<ArrayBuffer>> = {};

  f32(values: Float32Array<ArrayBuffer>, shape: readonly number[]): Raw {
    return this.#add(values, { type: "FloatStorage", size: values.length, shape });
  }

  bf16(values: Float32Array<ArrayBuffer>, shape: readonly number[]): Raw {
    return this.#add(bf16FromF32(values), { type: "BFloat16Storage", size: values.length, shape });
  }

  #add(data: ArrayBufferView<ArrayBuffer>, text: { type: string; size: number; shape: readonly number[] }): Raw {
    const key = String(Object.keys(this.storages).length);
    this.storages[key] = new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
    return tensor({ key, ...text });
  }
}

/** Different numbers for every name, which bf16 keeps. */
function valuesOf(name: string, size: number): Float32Array<ArrayBuffer> {
  const seed = Array.from(name).reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 9973, 7);
  return f32FromBf16(bf16FromF32(Float32Array.from({ length: size }, (_, i) => Math.sin(seed + i))));
}

const all = ({ shape: [rows, cols], name }: { shape: readonly [number, number]; name: string }, kind = "") =>
  valuesOf(`${kind}${name}`, rows * cols);

interface Files {
  /** Ranks of the optimizer; 0 = none is saved. */
  readonly ranks?: number;
  readonly prefix?: string;
  readonly step?: number;
  /** Changes the dict of the model. */
  readonly model?: (saved: Map<string, unknown>, saver: Saver) => void;
  readonly meta?: (meta: Record<string, unknown>) => void;
  /** Changes the state of an optimizer before it is saved. */
  readonly state?: (states: Map<number, Map<string, unknown>>[], rank: number, saver: Saver) => void;
}

/** Writes a checkpoint as the Python nanochat on `ranks` processes does: groups by shape, each momentum with its owner. */
async function write(folder: string, options: Files = {}): Promise<void> {
  const { ranks = 2, prefix = "", step = 3 } = options;
  Deno.mkdirSync(folder, { recursive: true });
  const file = async (name: string, root: unknown, { storages }: Saver) =>
    Deno.writeFileSync(join(folder, name), await torchFile(root, { storages }));
  const saver = new Saver();
  const saved = new Map<string, unknown>(SPECS.map((spec) => {
    const save = spec.name.includes("wte") ? saver.bf16 : saver.f32;
    return [`${prefix}${spec.name}`, save.call(saver, all(spec), spec.shape)];
  }));
  options.model?.(saved, saver);
  await file("model_000003.pt", saved, saver);
  const meta: Record<string, unknown> = { step, val_bpb: 1.5, model_config: toForeignConfig(CONFIG, "reference") };
  options.meta?.(meta);
  Deno.writeTextFileSync(join(folder, "meta_000003.json"), JSON.stringify(meta));
  const groups = [
    ...Map.groupBy(SPECS.filter(({ group }) => group.startsWith("matrices")), ({ group }) => group).values(),
  ]
    .reverse();
  for (let rank = 0; rank < ranks; rank++) {
    const saver = new Saver();
    const rows = VP / ranks;
    const slice = (kind: string, name: string) =>
      valuesOf(`${kind}${name}`, VP * C).slice(rank * rows * C, (rank + 1) * rows * C);
    const adamw = new Map(["lm_head.weight", "transformer.wte.weight"].map((name, i) => {
      const moment = name.includes("wte") ? saver.bf16 : saver.f32;
      return [
        i,
        new Map<string, unknown>([
          ["step", saver.f32(Float32Array.of(step), [])],
          ["exp_avg", moment.call(saver, slice("exp_avg.", name), [rows, C])],
          ["exp_avg_sq", moment.call(saver, slice("exp_avg_sq.", name), [rows, C])],
        ]),
      ];
    }));
    const muon = new Map<number, Map<string, unknown>>();
    let index = 0;
    const params = groups.map((group) =>
      group.map((spec, i) => {
        const { shape } = spec;
        if (i % ranks === rank) {
          muon.set(index, new Map([["momentum_buffer", saver.f32(all(spec, "momentum_buffer."), shape)]]));
        }
        return index++;
      })
    );
    options.state?.([adamw, muon], rank, saver);
    const group = (indices: readonly number[]) => new Map<string, unknown>([["lr", 0.1], ["params", list(indices)]]);
    const dict = (state: Map<number, unknown>, indices: readonly (readonly number[])[]) =>
      new Map<string, unknown>([["state", state], ["param_groups", list(indices.map(group))]]);
    await file(`optim_000003_rank${rank}.pt`, list([dict(adamw, [[0], [1]]), dict(muon, params)]), saver);
  }
}

const encoder = new TextEncoder();

/** A pickled Encoding of all bytes and nanochat's special tokens. */
function tokenizerPickle(): Uint8Array<ArrayBuffer> {
  const ranks = new Map(Array.from({ length: 256 }, (_, byte) => [Uint8Array.of(byte), byte]));
  const state = new Map<string, unknown>([
    ["name", "rustbpe"],
    ["pat_str", SPLIT_PATTERN],
    ["mergeable_ranks", ranks],
    ["special_tokens", new Map(SPECIAL_TOKENS.map((name, i) => [name, 256 + i]))],
  ]);
  const code = `\x80\x04ctiktoken.core\nEncoding\n)\x81${push(state)}b.`;
  return Uint8Array.from(code, (letter) => letter.charCodeAt(0));
}

async function withCheckpoint(options: Files, use: (folder: string, device: Device) => Promise<void>): Promise<void> {
  using root = temporaryFolder();
  const folder = join(root.path, "mid_checkpoints", "d2");
  await write(folder, options);
  using device = Device.open("cpu", { threads: 1 });
  await use(folder, device);
}

for (const ranks of [1, 2, 4]) {
  Deno.test(`openReference() puts the states of ${ranks} ranks together, bf16 and compiled names too`, () =>
    withCheckpoint({ ranks, prefix: "_orig_mod." }, async (folder, device) => {
      Deno.mkdirSync(join(folder, "..", "..", "tokenizer"));
      Deno.writeFileSync(join(folder, "..", "..", "tokenizer", "tokenizer.pkl"), tokenizerPickle());
      using foreign = await openReference(device, { folder });
      const { stage, tag, step, config, tokenizer } = foreign;
      assertEquals({ stage, tag, step, config }, { stage: "mid", tag: "d2", step: 3, config: CONFIG });
      assertEquals(tokenizer?.tokens.length, 256);
      assertEquals(tokenizer?.specials["<|bos|>"], 256);
      const kinds = ({ name }: { name: string }) =>
        SPECS[0].name === name || name === "lm_head.weight" ? ["exp_avg", "exp_avg_sq"] : ["momentum_buffer"];
      const expected = new Map([
        ...SPECS.map((spec) => [spec.name, all(spec)] as const),
        ...SPECS.flatMap((spec) => kinds(spec).map((kind) => [`${kind}.${spec.name}`, all(spec, `${kind}.`)] as const)),
      ]);
      assertEquals(foreign.model.map(({ name }) => name), SPECS.map(({ name }) => name));
      const found = [...foreign.model, ...foreign.optimizer];
      assertEquals(new Set(found.map(({ name }) => name)), new Set(expected.keys()));
      for (const { name, pointer, bytes } of found) {
        const data = new Uint8Array(bytes);
        device.nc.host_read(device.ctx, data, pointer, BigInt(bytes));
        assertEquals(new Float32Array(data.buffer), expected.get(name), name);
      }
    }));
}

const REFUSED: readonly [what: string, options: Files, message: string][] = [
  [
    "a tensor that is missing",
    { model: (saved) => saved.delete("lm_head.weight") },
    'tensor "lm_head.weight" is missing',
  ],
  [
    "a tensor that is left over",
    { model: (saved, s) => saved.set("x", s.f32(Float32Array.of(1), [1])) },
    'a tensor "x"',
  ],
  [
    "another shape",
    { model: (saved, s) => saved.set("lm_head.weight", s.f32(new Float32Array(8), [2, 4])) },
    "is (2, 4), expected (320, 4)",
  ],
  ["a value that is no tensor", { model: (saved) => saved.set("lm_head.weight", 1) }, "no dict of tensors"],
  ["a program", { model: (saved) => saved.set("x", call("os", "system", ["touch evil"])) }, '"os.system"'],
  ["the newest tree by a name", { model: (saved) => saved.set("resid_lambdas", 1) }, "no dict of tensors"],
  [
    "the newest tree by a tensor",
    { model: (saved, s) => saved.set("x0_lambdas", s.f32(Float32Array.of(1), [1])) },
    "newest generation of the Python nanochat (it has x0_lambdas)",
  ],
  [
    "the newest tree by its config",
    { meta: (meta) => Object.assign(meta.model_config as object, { window_pattern: "L" }) },
    "newest generation of the Python nanochat (its model_config has window_pattern)",
  ],
  ["a meta file without sizes", { meta: (meta) => delete meta.model_config }, "no model_config"],
  [
    "a size that is no number",
    { meta: (meta) => Object.assign(meta.model_config as object, { n_layer: "two" }) },
    'n_layer is "two", expected a positive integer',
  ],
  ["other updates than the model's", { state: ([adamw]) => void adamw.get(0)!.set("step", 4) }, "has had 4 updates"],
  ["rows that are missing", {
    state: ([adamw], r, s) => r === 1 && adamw.get(1)!.set("exp_avg", s.f32(new Float32Array(4), [1, 4])),
  }, "161 rows in 2 ranks, expected 320"],
  ["a moment of another width", {
    state: ([adamw], _, s) => void adamw.get(0)!.set("exp_avg", s.f32(new Float32Array(3), [1, 3])),
  }, "no matrix of 4 columns"],
  ["a state that is missing", { state: ([adamw]) => void adamw.delete(1) }, "no state of transformer.wte.weight"],
  ["a momentum that is missing", { state: ([_, muon], rank) => rank === 0 && muon.delete(0) }, "momenta ("],
  ["a momentum of two ranks", {
    state: ([_, muon], __, s) => void muon.set(0, new Map([["momentum_buffer", s.f32(new Float32Array(64), [4, 16])]])),
  }, "no momentum of its own"],
];

for (const [what, options, message] of REFUSED) {
  Deno.test(`openReference() refuses ${what}`, () =>
    withCheckpoint(options, async (folder, device) => {
      const error = await assertRejects(() => openReference(device, { folder }), Error, message);
      assert(error.message.startsWith("Cannot "), error.message);
    }));
}

Deno.test("openReference() refuses a missing rank, step or meta file, and other formats of meta", () =>
  withCheckpoint({ ranks: 2 }, async (folder, device) => {
    const refuses = (message: string, step?: number) =>
      assertRejects(() => openReference(device, { folder, step }), Error, message);
    await refuses("Cannot import step 7 from", 7);
    Deno.renameSync(join(folder, "optim_000003_rank0.pt"), join(folder, "kept"));
    await refuses("optim_000003_rank0.pt is missing");
    Deno.renameSync(join(folder, "kept"), join(folder, "optim_000003_rank0.pt"));
    const meta = join(folder, "meta_000003.json");
    const text = Deno.readTextFileSync(meta);
    for (const [content, message] of [["{", "not JSON"], ["[]", "it is no object"], ["\xff", "not JSON"]]) {
      Deno.writeTextFileSync(meta, content);
      await refuses(message);
    }
    // Python writes numbers that JSON does not have.
    Deno.writeTextFileSync(
      meta,
      text.replace('"val_bpb":1.5', '"val_bpb":NaN,"note":"a \\" NaN","loop_state":{"min_val_bpb":Infinity}'),
    );
    using foreign = await openReference(device, { folder });
    assertEquals(foreign.run.val_bpb, null);
    assertEquals(foreign.run.note, 'a " NaN');
    assertEquals(foreign.run.loop_state, { min_val_bpb: null });
    Deno.removeSync(meta);
    await refuses("meta_000003.json");
    assertEquals(referenceSteps(folder), [3]);
    assertEquals(referenceSteps(dirname(folder)), []);
  }));

Deno.test("openReference() compares token_bytes.pt with the tokenizer, by bytes or by the bytes of the text", () =>
  withCheckpoint({ ranks: 0 }, async (folder, device) => {
    Deno.writeFileSync(join(folder, "tokenizer.pkl"), tokenizerPickle());
    const lengths = (length: (byte: number) => number) =>
      Int32Array.from({ length: 265 }, (_, id) => id < 256 ? length(id) : 0);
    const save = async (values: Int32Array<ArrayBuffer>) => {
      const root = tensor({ key: "0", type: "IntStorage", size: values.length, shape: [values.length] });
      const storages = { "0": new Uint8Array(values.buffer) };
      Deno.writeFileSync(join(folder, "token_bytes.pt"), await torchFile(root, { storages }));
    };
    for (const rule of [() => 1, (byte: number) => byte < 128 ? 1 : 3]) {
      await save(lengths(rule));
      (await openReference(device, { folder }))[Symbol.dispose]();
    }
    await save(lengths((byte) => byte === 65 ? 2 : 1));
    await assertRejects(() => openReference(device, { folder }), Error, "token 65 has 2 bytes, expected 1");
    await save(new Int32Array(264));
    await assertRejects(() => openReference(device, { folder }), Error, "no list of 265 whole numbers");
    Deno.removeSync(join(folder, "token_bytes.pt"));
    Deno.writeFileSync(join(folder, "tokenizer.pkl"), encoder.encode("cos\nsystem\n(S'touch evil'\ntR."));
    await assertRejects(() => openReference(device, { folder }), SyntaxError, "does not begin with a protocol");
  }));

Deno.test("openReference() survives 200 seeded mutations of its files with one error or a model", () =>
  withCheckpoint({ ranks: 1 }, async (folder, device) => {
    Deno.writeFileSync(join(folder, "tokenizer.pkl"), tokenizerPickle());
    const names = ["model_000003.pt", "meta_000003.json", "optim_000003_rank0.pt", "tokenizer.pkl"];
    const files = names.map((name) => Deno.readFileSync(join(folder, name)));
    await checkMutations({
      files,
      read: async (bytes, file) => {
        Deno.writeFileSync(join(folder, names[file]), bytes);
        try {
          using foreign = await openReference(device, { folder });
          assertEquals(foreign.model.length, SPECS.length);
        } finally {
          Deno.writeFileSync(join(folder, names[file]), files[file]);
        }
      },
      errors: [Error],
      refused: 0.5,
      runs: 200,
    });
  }));
