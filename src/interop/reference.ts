/**
 * Checkpoints of the Python nanochat (tree of December 2025): `model_N.pt`, `meta_N.json`, `optim_N_rank<r>.pt`, with `tokenizer.pkl`
 * and `token_bytes.pt` beside them or in the folder above. Source: nanochat/checkpoint_manager.py, adamw.py and muon.py, commit 10231df.
 *
 * The optimizer's states are numbered by its groups, and the groups differ between one process and several: each momentum is told apart
 * by its shape, in which the matrices follow layer by layer. Several ranks hold rows of the moments of AdamW and whole matrices of Muon.
 */
import { basename, dirname, join } from "@std/path";
import { entries, REFERENCE_FOLDERS, STAGES } from "../data/base_dir.ts";
import type { TokenizerParts } from "../data/tokenizer.ts";
import type { NamedTensor } from "../model/checkpoint.ts";
import { describeSteps, readIfPresent } from "../model/checkpoint_folder.ts";
import { type GPTConfig, parameterSpecs } from "../model/gpt.ts";
import { CheckpointError, stepText } from "../model/meta.ts";
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
import { fromForeignConfig, fromReferenceName } from "./names.ts";
import { parsePickledEncoding } from "./tiktoken.ts";
import { isTensor, TorchFile, type TorchTensor } from "./torch_file.ts";

/** Lists the steps of a folder of the Python nanochat, ascending as numbers; empty = it is none. */
export function referenceSteps(folder: string): number[] {
  const steps = entries(folder).map(({ name }) => /^model_(\d{6,15})\.pt$/.exec(name)?.[1]);
  return steps.filter((step) => step !== undefined).map(Number).sort((a, b) => a - b);
}

/**
 * Opens a checkpoint: step `step`, else the largest. Every file is checked whole before anything is given.
 *
 * @param options.tokenizer takes the place of the one beside the checkpoint
 * @throws {CheckpointError} "missing", "damaged", "mismatch", "unsafe" or, for the newest tree, "version"; {SyntaxError} for damaged pickles.
 */
export async function openReference(
  device: Device,
  { folder, step, tokenizer: given }: { folder: string; step?: number; tokenizer?: TokenizerParts },
): Promise<ForeignModel> {
  const steps = referenceSteps(folder);
  const chosen = step ?? steps.at(-1);
  if (chosen === undefined || !steps.includes(chosen)) {
    const there = steps.length === 0 ? "no model_N.pt" : describeSteps(steps);
    throw new CheckpointError(
      "missing",
      `Cannot import ${step === undefined ? "a model" : `step ${step}`} from "${folder}": it holds ${there}`,
    );
  }
  const open = new Open(device);
  try {
    const files = fileNames(folder, chosen);
    const meta = readJson(files.meta);
    const config = configOf(meta, files.meta);
    const { model, dtype } = readModel(open, { path: files.model, config });
    const stage = STAGES.find((stage) => REFERENCE_FOLDERS[stage] === basename(dirname(folder)));
    const optimizer = readOptimizer(open, { paths: files.optimizer, config, step: chosen });
    const tokenizer = given ? { parts: given, files: [] } : readTokenizer(device, folder);
    await device.wait();
    return {
      origin: "the Python nanochat",
      files: [files.model, files.meta, ...files.optimizer, ...tokenizer.files],
      stage,
      tag: stage && basename(folder),
      step: chosen,
      config,
      model,
      dtype,
      optimizer,
      tokenizer: tokenizer.parts,
      run: meta,
      [Symbol.dispose]: () => open[Symbol.dispose](),
    };
  } catch (error) {
    await device.wait(); // nothing may read the files once they are unmapped
    open[Symbol.dispose]();
    throw error;
  }
}

/** The files that are mapped and the tensors that were widened, together. */
class Open implements Disposable {
  readonly device: Device;
  readonly widener: Widener;
  readonly #files: TorchFile[] = [];

  constructor(device: Device) {
    this.device = device;
    this.widener = new Widener(device);
  }

  file(path: string): TorchFile {
    const file = new TorchFile(this.device, path);
    this.#files.push(file);
    file.verify();
    return file;
  }

  /** Gives a tensor's memory; what lies apart is put together. */
  tensor(file: TorchFile, tensor: TorchTensor): ForeignTensor {
    const { dtype, shape, isContiguous } = tensor;
    if (isContiguous || (dtype !== "f32" && dtype !== "bf16")) return { dtype, shape, pointer: file.pointer(tensor) };
    return this.widener.upload(file.read(tensor), { dtype, shape });
  }

  [Symbol.dispose](): void {
    this.widener[Symbol.dispose]();
    for (const file of this.#files) file[Symbol.dispose]();
  }
}

const EMBEDDING = "transformer.wte.weight";

function fileNames(folder: string, step: number): { model: string; meta: string; optimizer: string[] } {
  const text = stepText(step);
  const pattern = new RegExp(`^optim_${text}_rank(\\d{1,5})\\.pt$`);
  const ranks = entries(folder).map(({ name }) => pattern.exec(name)?.[1]).filter((rank) => rank !== undefined)
    .map(Number).sort((a, b) => a - b);
  const missing = ranks.findIndex((rank, i) => rank !== i);
  if (missing >= 0) {
    throw new CheckpointError(
      "missing",
      `Cannot import step ${step} of "${folder}": optim_${text}_rank${missing}.pt is missing, expected all ranks`,
    );
  }
  return {
    model: join(folder, `model_${text}.pt`),
    meta: join(folder, `meta_${text}.json`),
    optimizer: ranks.map((rank) => join(folder, `optim_${text}_rank${rank}.pt`)),
  };
}

function configOf(meta: Record<string, unknown>, path: string): GPTConfig {
  const config = meta.model_config;
  if (typeof config !== "object" || config === null) {
    throw new CheckpointError("damaged", `Cannot read "${path}": it has no model_config`);
  }
  if ("window_pattern" in config) throw newestGeneration(path, "its model_config has window_pattern");
  return fromForeignConfig(config as Record<string, unknown>, {
    dialect: "reference",
    what: `model_config of "${path}"`,
  });
}

/** Reads the weights; an embedding in bf16 tells that the run computed in it. */
function readModel(
  open: Open,
  { path, config }: { path: string; config: GPTConfig },
): Pick<ForeignModel, "model" | "dtype"> {
  const file = open.file(path);
  const refuse = (problem: string) => new CheckpointError("mismatch", `Cannot import "${path}": ${problem}`);
  if (!(file.root instanceof Map)) throw refuse("it is no dict of tensors, expected the state of a model");
  const tensors = new Map<string, TorchTensor>();
  for (const [key, tensor] of file.root as Map<unknown, unknown>) {
    if (typeof key !== "string" || !isTensor(tensor)) {
      throw refuse("it is no dict of tensors, expected the state of a model");
    }
    if (NEWEST_PARTS.test(key)) throw newestGeneration(path, `it has ${key.slice(0, 100)}`);
    tensors.set(fromReferenceName(key), tensor);
  }
  const checked = checkWeights(tensors, { config, refuse });
  return {
    model: checked.map(([name, tensor]) => open.widener.name(name, open.tensor(file, tensor))),
    dtype: checked.some(([name, { dtype }]) => name === EMBEDDING && dtype === "bf16") ? "bf16" : undefined,
  };
}

interface RankState {
  readonly file: TorchFile;
  /** Indices of each group's parameters. */
  readonly groups: readonly (readonly number[])[];
  readonly state: ReadonlyMap<number, ReadonlyMap<unknown, unknown>>;
}

function readOptimizer(
  open: Open,
  { paths, config, step }: { paths: readonly string[]; config: GPTConfig; step: number },
): NamedTensor[] {
  if (paths.length === 0) return [];
  const ranks = paths.map((path) => readRank(open.file(path)));
  const specs = parameterSpecs(config);
  const isMatrix = ({ group }: { group: string }) => group.startsWith("matrices");
  const heads = ["lm_head.weight", EMBEDDING]; // the groups of AdamW, in order
  return [
    ...heads.flatMap((name, i) =>
      moments(open, { name, i, ranks: ranks.map(([adamw]) => adamw), step, rows: specs[0].shape })
    ),
    ...momenta(open, { specs: specs.filter(isMatrix), ranks: ranks.map(([_, muon]) => muon) }),
  ];
}

function damaged(file: TorchFile, problem: string): CheckpointError {
  return new CheckpointError("mismatch", `Cannot import "${file.path}": ${problem}`);
}

function readRank(file: TorchFile): [adamw: RankState, muon: RankState] {
  const refuse = () => damaged(file, "it is no list of the states of AdamW and Muon");
  if (!Array.isArray(file.root) || file.root.length !== 2) throw refuse();
  const [adamw, muon] = file.root.map((root: unknown): RankState => {
    const [state, groups] = root instanceof Map ? [root.get("state"), root.get("param_groups")] : [];
    if (!(state instanceof Map) || !Array.isArray(groups)) throw refuse();
    if ([...state].some(([index, values]) => typeof index !== "number" || !(values instanceof Map))) throw refuse();
    return {
      file,
      state,
      groups: groups.map((group: unknown) => {
        const params = group instanceof Map ? group.get("params") : undefined;
        if (!Array.isArray(params) || params.some((index) => typeof index !== "number")) throw refuse();
        return params;
      }),
    };
  });
  return [adamw, muon];
}

/** Both moments of a parameter of AdamW: the rows of all ranks. */
function moments(
  open: Open,
  { name, i, ranks, step, rows: [rows, cols] }: {
    name: string;
    i: number;
    ranks: readonly RankState[];
    step: number;
    rows: readonly [number, number];
  },
): NamedTensor[] {
  const states = ranks.map(({ file, groups, state }) => {
    const values = groups[i]?.length === 1 ? state.get(groups[i][0]) : undefined;
    if (!values) throw damaged(file, `AdamW has no state of ${name}`);
    const updates = scalar(file, values.get("step"));
    if (updates !== step) throw damaged(file, `AdamW has had ${updates} updates, expected ${step} as the model`);
    return { file, values };
  });
  return ["exp_avg", "exp_avg_sq"].map((kind) => {
    const parts = states.map(({ file, values }) => {
      const tensor = values.get(kind);
      const fits = isTensor(tensor) && tensor.shape.length === 2 && tensor.shape[1] === cols;
      if (!fits) throw damaged(file, `${kind} of ${name} is no matrix of ${cols} columns`);
      return open.tensor(file, tensor);
    });
    const found = parts.reduce((sum, { shape }) => sum + shape[0], 0);
    if (found !== rows) {
      throw damaged(ranks[0].file, `${kind} of ${name} has ${found} rows in ${parts.length} ranks, expected ${rows}`);
    }
    const full = `${kind}.${name}`;
    return parts.length === 1 ? open.widener.name(full, parts[0]) : open.widener.join(full, parts);
  });
}

function scalar(file: TorchFile, value: unknown): number | undefined {
  if (typeof value === "number") return value;
  if (!isTensor(value) || value.shape.some((size) => size !== 1)) return undefined;
  const view = new DataView(file.read(value).buffer);
  return value.dtype === "f32"
    ? view.getFloat32(0, true)
    : value.dtype === "i64"
    ? Number(view.getBigInt64(0, true))
    : undefined;
}

/** The momentum of every matrix: of each shape in the order of the layers, each from the rank that has it. */
function momenta(
  open: Open,
  { specs, ranks }: { specs: ReturnType<typeof parameterSpecs>; ranks: readonly RankState[] },
): NamedTensor[] {
  const found = new Map<number, { file: TorchFile; tensor: TorchTensor }>();
  for (const { file, state } of ranks) {
    for (const [index, values] of state) {
      const tensor = values.get("momentum_buffer");
      if (!isTensor(tensor) || found.has(index)) {
        throw damaged(file, `Muon's state ${index} has no momentum of its own`);
      }
      found.set(index, { file, tensor });
    }
  }
  const byShape = Map.groupBy(
    ranks[0].groups.flat().flatMap((index) => found.get(index) ?? []),
    ({ tensor }) => tensor.shape.join(", "),
  );
  return [...Map.groupBy(specs, ({ shape }) => shape.join(", "))].flatMap(([shape, same]) => {
    const buffers = byShape.get(shape) ?? [];
    if (buffers.length !== same.length) {
      throw damaged(
        ranks[0].file,
        `Muon has ${buffers.length} momenta (${shape}), expected ${same.length}, one a matrix`,
      );
    }
    return same.map(({ name }, i) => {
      const { file, tensor } = buffers[i];
      return open.widener.name(`momentum_buffer.${name}`, open.tensor(file, tensor));
    });
  });
}

/**
 * Reads the tokenizer of a checkpoint's folder: `tokenizer.pkl` there, or in `tokenizer/` of the base folder that it lies in.
 *
 * @throws {SyntaxError} where a pickle is damaged; {CheckpointError} "mismatch" where `token_bytes.pt` has another vocabulary.
 */
function readTokenizer(device: Device, folder: string): { parts?: TokenizerParts; files: string[] } {
  for (const place of [folder, join(folder, "..", "..", "tokenizer")]) {
    const parts = readReferenceTokenizer(device, place);
    if (parts) return parts;
  }
  return { files: [] };
}

/** Reads `tokenizer.pkl` of a folder, and compares `token_bytes.pt` where there is one; undefined = there is no tokenizer. */
export function readReferenceTokenizer(
  device: Device,
  folder: string,
): { parts: TokenizerParts; files: string[] } | undefined {
  const path = join(folder, "tokenizer.pkl");
  const bytes = readIfPresent(path);
  if (bytes === undefined) return undefined;
  const parts = parsePickledEncoding(bytes, path);
  const table = join(folder, "token_bytes.pt");
  if (!entries(folder).some(({ name }) => name === "token_bytes.pt")) return { parts, files: [path] };
  using file = new TorchFile(device, table);
  file.verify();
  const refuse = (problem: string) => new CheckpointError("mismatch", `Cannot import "${table}": ${problem}`);
  const size = parts.tokens.length + Object.keys(parts.specials).length;
  if (!isTensor(file.root) || file.root.dtype !== "i32" || file.root.shape.join() !== String(size)) {
    throw refuse(`it is no list of ${size} whole numbers, one a token of "${path}"`);
  }
  const lengths = new Int32Array(file.read(file.root).buffer);
  const text = new TextDecoder("utf-8", { ignoreBOM: true });
  for (const [id, token] of parts.tokens.entries()) {
    // The tree of December 2025 counts the bytes of a token's text, where a torn character is U+FFFD.
    const expected = [token.length, new TextEncoder().encode(text.decode(token)).length];
    if (!expected.includes(lengths[id])) {
      throw refuse(`token ${id} has ${lengths[id]} bytes, expected ${expected[0]} as in "${path}"`);
    }
  }
  return { parts, files: [path, table] };
}
