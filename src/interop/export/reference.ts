/**
 * A model as the Python nanochat keeps its own (tree of December 2025): a base folder with `<stage>_checkpoints/<tag>/` and
 * `tokenizer/`. Names, shapes, dtypes and numbers of states are what its process on one device writes (nanochat/checkpoint_manager.py,
 * gpt.py, adamw.py, muon.py, commit 10231df; optimizer files of PyTorch 2).
 */
import { join } from "@std/path";
import { REFERENCE_FOLDERS } from "../../data/base_dir.ts";
import type { Tokenizer } from "../../data/tokenizer.ts";
import type { MappedTensor } from "../../model/mapped_checkpoint.ts";
import { CheckpointError, type CheckpointMeta, type JsonObject, stepText } from "../../model/meta.ts";
import type { GPTConfig } from "../../model/gpt.ts";
import type { NativeContext } from "../../native/files.ts";
import { Tuple } from "../pickle.ts";
import { toForeignConfig } from "../names.ts";
import { OrderedDict, PyFloat, PyInstance, writePickle } from "./pickle_writer.ts";
import { sizeOf, type SourceTensor } from "./tensor_file.ts";
import { SavedTensor, saveTorch } from "./torch_writer.ts";

const EMBEDDING = "transformer.wte.weight";
const HEAD = "lm_head.weight";

/** A model with what its run left behind. */
export interface ReferenceExport {
  /** Parameters under our names, padding included, in the order of the model. */
  readonly tensors: readonly SourceTensor[];
  /** Sizes. */
  readonly config: GPTConfig;
  /** State of the run. */
  readonly meta: CheckpointMeta;
  /** Optimizer states by our names; empty = none is written. */
  readonly optimizer: ReadonlyMap<string, MappedTensor>;
  /** Type of the token embedding and of its states: bf16 after a run in bf16. */
  readonly embeddingDtype: "f32" | "bf16";
  /** Tokenizer that the model was trained with. */
  readonly tokenizer: Tokenizer;
  /** Name of the model's folder. */
  readonly tag: string;
}

/** Writes everything below a base folder. */
export function writeReference(context: NativeContext, model: ReferenceExport, folder: string): void {
  const { meta, tag, tokenizer } = model;
  const models = join(folder, REFERENCE_FOLDERS[meta.stage], tag);
  const step = stepText(meta.step);
  Deno.mkdirSync(models, { recursive: true });
  const weights = new OrderedDict(model.tensors.map((tensor) => [tensor.name, saved(model, tensor)]));
  const names = { model: `model_${step}`, optimizer: `optim_${step}_rank0` };
  saveTorch(context, weights, { path: join(models, `${names.model}.pt`), name: names.model });
  if (model.optimizer.size > 0) {
    const states = optimizerStates(model);
    saveTorch(context, states, { path: join(models, `${names.optimizer}.pt`), name: names.optimizer });
  }
  Deno.writeTextFileSync(join(models, `meta_${step}.json`), metaJson(model));
  const place = join(folder, "tokenizer");
  Deno.mkdirSync(place);
  Deno.writeFileSync(join(place, "tokenizer.pkl"), pickledTokenizer(tokenizer));
  const lengths = tokenizer.tokenBytes("reference");
  const sizes = SavedTensor.of(lengths, [lengths.length]);
  saveTorch(context, sizes, { path: join(place, "token_bytes.pt"), name: "token_bytes" });
}

function saved({ embeddingDtype }: ReferenceExport, { name, shape, pointer }: SourceTensor): SavedTensor {
  return SavedTensor.mapped({ shape, pointer }, name === EMBEDDING ? embeddingDtype : "f32");
}

const dict = (values: Readonly<Record<string, unknown>>) => new Map(Object.entries(values));

/** The list [AdamW, Muon] of what their `state_dict` gives. */
function optimizerStates(model: ReferenceExport): unknown[] {
  const { config, meta, tensors } = model;
  const flag = (name: string, otherwise: number) => {
    const value = meta.flags[name];
    return typeof value === "number" ? value : otherwise;
  };
  const fraction = flag("init_lr_frac", 1);
  const widthScale = (config.nEmbd / 768) ** -0.5;
  const state = (kind: string, tensor: SourceTensor) => {
    const found = model.optimizer.get(`${kind}.${tensor.name}`);
    const is = found === undefined ? "missing" : `${found.dtype} (${found.shape.join(", ")})`;
    const expected = `f32 (${tensor.shape.join(", ")})`;
    if (found === undefined || is !== expected) {
      throw new CheckpointError(
        "mismatch",
        `Cannot export the optimizer: ${kind} of "${tensor.name}" is ${is}, expected ${expected}`,
      );
    }
    return saved(model, { ...tensor, pointer: found.pointer });
  };
  const rate = (value: number) => ({ lr: new PyFloat(value), initial_lr: new PyFloat(value) });
  const heads = [HEAD, EMBEDDING].map((name) => tensors.find((tensor) => tensor.name === name)!);
  const lrs = [flag("unembedding_lr", 0.004), flag("embedding_lr", 0.2)];
  const adamw = dict({
    state: new Map(heads.map((tensor, i) => [
      i,
      dict({
        step: SavedTensor.of(Float32Array.of(meta.step), []),
        exp_avg: state("exp_avg", tensor),
        exp_avg_sq: state("exp_avg_sq", tensor),
      }),
    ])),
    param_groups: lrs.map((lr, i) =>
      dict({
        ...rate(lr * widthScale * fraction),
        betas: new Tuple([new PyFloat(0.8), new PyFloat(0.95)]),
        eps: new PyFloat(1e-10),
        weight_decay: new PyFloat(flag("weight_decay", 0)),
        amsgrad: false,
        maximize: false,
        foreach: null,
        capturable: false,
        differentiable: false,
        fused: true,
        decoupled_weight_decay: true,
        params: [i],
      })
    ),
  });
  const groups = muonGroups(tensors.filter(({ name }) => name.startsWith("transformer.h.")));
  const numbers = new Map(groups.flat().map((tensor, i) => [tensor, i]));
  const muon = dict({
    state: new Map(
      Array.from(numbers, ([tensor, i]) => [i, dict({ momentum_buffer: state("momentum_buffer", tensor) })]),
    ),
    param_groups: groups.map((group) =>
      dict({
        ...rate(flag("matrix_lr", 0.02) * fraction),
        momentum: new PyFloat(0.95),
        nesterov: true,
        ns_steps: 5,
        params: group.map((tensor) => numbers.get(tensor)),
      })
    ),
  });
  return [adamw, muon];
}

/** Muon's groups in one process: parameters of one number of elements, in the order in which a Python set gives these numbers. */
export function muonGroups<T extends { readonly shape: readonly number[] }>(tensors: readonly T[]): T[][] {
  const bySize = Map.groupBy(tensors, ({ shape }) => sizeOf(shape));
  return pythonSetOrder([...bySize.keys()]).map((size) => bySize.get(size)!);
}

const SET_SLOTS = 8;

/** The order in which CPython's set of at most four integers gives them: by slot, where collisions probe on (Objects/setobject.c). */
export function pythonSetOrder(values: readonly number[]): number[] {
  if (values.length > 4) throw new RangeError(`Cannot order a set of ${values.length} numbers, expected at most 4`);
  const slots: (number | undefined)[] = new Array(SET_SLOTS).fill(undefined);
  for (const value of values) {
    let perturb = value;
    let slot = value % SET_SLOTS;
    while (slots[slot] !== undefined) {
      perturb = Math.floor(perturb / 32);
      slot = (slot * 5 + 1 + perturb) % SET_SLOTS;
    }
    slots[slot] = value;
  }
  return slots.filter((value) => value !== undefined);
}

function metaJson({ meta, config }: ReferenceExport): string {
  const { step, valBpb, flags, loader } = meta;
  const loop = meta.loop as JsonObject;
  const position = loader as JsonObject | null;
  const number = (value: unknown, otherwise: number | null) => typeof value === "number" ? value : otherwise;
  const isResumable = position !== null && typeof position === "object" && "pq_idx" in position;
  const resumed = isResumable
    ? {
      device_batch_size: flags.device_batch_size,
      max_seq_len: config.sequenceLen,
      dataloader_state_dict: { pq_idx: position.pq_idx, rg_idx: position.rg_idx },
      loop_state: {
        min_val_bpb: number(loop.minValBpb, null),
        smooth_train_loss: number(loop.smoothLoss, 0),
        total_training_time: number(loop.totalTimeMs, 0)! / 1000,
      },
    }
    : {};
  const values = {
    step,
    val_bpb: valBpb,
    model_config: toForeignConfig(config, "reference"),
    user_config: flags,
    ...resumed,
  };
  // Python compares it with a number: none yet is infinity there.
  return JSON.stringify(values, null, 2).replace('"min_val_bpb": null', '"min_val_bpb": Infinity');
}

/** A pickled `tiktoken.Encoding`. */
function pickledTokenizer(tokenizer: Tokenizer): Uint8Array<ArrayBuffer> {
  const ranks = Array.from({ length: tokenizer.mergeableCount }, (_, id): [Uint8Array, number] => [
    tokenizer.token(id),
    id,
  ]);
  return writePickle(
    new PyInstance(
      "tiktoken.core",
      "Encoding",
      dict({
        name: "rustbpe",
        pat_str: tokenizer.pattern,
        mergeable_ranks: new Map(ranks),
        special_tokens: new Map(tokenizer.specials),
      }),
    ),
  );
}
