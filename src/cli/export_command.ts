/** `nanochat export`: a model or its tokenizer in the formats of other programs. */
import { join } from "@std/path";
import { chooseTokenizer, resolveBaseDir, type Stage } from "../data/base_dir.ts";
import { Calls } from "../data/calls.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { checkGgufDtype, GGUF_MAGIC, writeGguf } from "../interop/export/gguf.ts";
import {
  configJson,
  type ExportedModel,
  generationConfigJson,
  sourceTensors,
  writeSafetensors,
} from "../interop/export/hf.ts";
import { CHAT_TEMPLATE, tokenizerConfigJson, tokenizerJson } from "../interop/export/hf_tokenizer.ts";
import { checkFree, checkFreeFile, writeOutFile, writeOutFolder } from "../interop/export/out_folder.ts";
import { writeReference } from "../interop/export/reference.ts";
import { roomBytes } from "../interop/export/tensor_file.ts";
import { encodingJson, formatRanks } from "../interop/tiktoken.ts";
import { checkTokenizer, MappedCheckpoint } from "../model/checkpoint.ts";
import { checkConfig, type GPTConfig } from "../model/gpt.ts";
import { chooseModel, type ChosenModel } from "../model/models.ts";
import { COMPUTE_TYPES } from "../tensor/dtype.ts";
import type { Terminal } from "./progress.ts";

/** Which model, where to. */
export interface ExportFlags {
  readonly baseDir?: string;
  readonly source: Stage | "";
  readonly modelTag?: string;
  readonly step: number;
  readonly out?: string;
  readonly overwrite: boolean;
}

function choose(flags: ExportFlags, terminal: Terminal) {
  const chosen = chooseModel(resolveBaseDir(flags.baseDir), {
    source: flags.source || undefined,
    tag: flags.modelTag,
    step: flags.step < 0 ? undefined : flags.step,
    log: terminal,
  });
  checkTokenizer(chosen, chosen.folder);
  terminal.info(chosen.why);
  return chosen;
}

/** Exports a model's tokenizer, or that of a folder. */
export async function exportTokenizer(
  flags: ExportFlags & { format: "tiktoken" | "hf"; tokenizerDir?: string },
  terminal: Terminal,
): Promise<void> {
  const { out, overwrite, format, tokenizerDir } = flags;
  const folder = tokenizerDir
    ? chooseTokenizer(resolveBaseDir(flags.baseDir), tokenizerDir).folder
    : choose(flags, terminal).folder;
  using tokenizer = await Tokenizer.load(folder);
  const files: Record<string, string> = format === "tiktoken"
    ? { "ranks.tiktoken": formatRanks(tokenizer), "encoding.json": encodingJson(tokenizer) }
    : tokenizerFiles(tokenizer);
  const about = { kind: `tokenizer, ${format}`, tokenizer: tokenizer.sha256 };
  const bytes = Object.values(files).reduce((sum, text) => sum + 2 * text.length, 0);
  await writeOutFolder({ out: out!, overwrite, about, bytes }, (folder) => writeTexts(folder, files));
  terminal.result(`Exported the tokenizer with ${tokenizer.vocabSize} tokens: ${out}`, {
    folder: out,
    format,
    vocab_size: tokenizer.vocabSize,
    files: Object.keys(files),
  });
}

/** A model of the base folder, opened and compared with its SHA-256. */
interface Opened extends ExportedModel {
  readonly chosen: ChosenModel;
  readonly mapped: MappedCheckpoint;
  readonly calls: Calls;
}

async function withModel(
  flags: ExportFlags,
  terminal: Terminal,
  use: (model: Opened) => void | Promise<void>,
): Promise<void> {
  const chosen = choose(flags, terminal);
  const { folder, step } = chosen;
  const calls = new Calls();
  using closing = new DisposableStack();
  closing.defer(() => calls.close(() => {}));
  const tokenizer = closing.use(await Tokenizer.load(folder));
  const mapped = closing.use(new MappedCheckpoint({ ...contextOf(calls), folder, step }));
  await mapped.verify();
  const config = mapped.meta.config as unknown as GPTConfig;
  checkConfig(config);
  await use({ chosen, mapped, calls, config, tokenizer, tensors: sourceTensors(config, mapped.tensors) });
}

const contextOf = ({ nc, ctx }: Calls) => ({ nc, ctx });

/** Exports a model for `transformers`. */
export async function exportHf(flags: ExportFlags & { dtype: "fp32" | "bf16" }, terminal: Terminal): Promise<void> {
  const { out, overwrite } = flags;
  const dtype = flags.dtype === "fp32" ? "f32" : "bf16";
  checkFree(out!, flags); // before minutes of work
  await withModel(flags, terminal, async ({ chosen, config, tokenizer, tensors, calls }) => {
    const files = {
      "config.json": configJson({ config, tokenizer }, dtype),
      "generation_config.json": generationConfigJson(tokenizer),
      ...tokenizerFiles(tokenizer, config),
    };
    const bytes = Object.values(files).reduce((sum, text) => sum + 2 * text.length, roomBytes(tensors, dtype));
    const about = { kind: `hf, ${flags.dtype}`, model: chosen.name, step: chosen.step };
    await writeOutFolder({ out: out!, overwrite, about, bytes }, (folder) => {
      writeTexts(folder, files);
      writeSafetensors(contextOf(calls), { folder, tensors, dtype });
    });
    report(terminal, { out: out!, chosen, how: `${flags.dtype} for transformers` });
  });
}

/** What a GGUF file can hold, as `--dtype` names it. */
const GGUF_DTYPE = { fp32: "f32", bf16: "bf16", q8_0: "q8_0" } as const;

/** Exports a model as one GGUF file. */
export async function exportGguf(
  flags: ExportFlags & { dtype: keyof typeof GGUF_DTYPE },
  terminal: Terminal,
): Promise<void> {
  const { out, overwrite } = flags;
  const dtype = GGUF_DTYPE[flags.dtype];
  checkFreeFile(out!, { overwrite, magic: GGUF_MAGIC });
  await withModel(flags, terminal, (model) => {
    const { chosen, config, tensors, calls } = model;
    checkGgufDtype(config, dtype);
    const bytes = roomBytes(tensors, dtype) + 100 * config.vocabSize;
    writeOutFile({ out: out!, overwrite, magic: GGUF_MAGIC, bytes }, (path) => {
      writeGguf(contextOf(calls), model, { path, name: chosen.name, dtype });
    });
    report(terminal, { out: out!, chosen, how: `${flags.dtype} in GGUF` });
    terminal.warn(
      'llama.cpp and what is built on it have no architecture "nanochat" and will not run this file; it is for ' +
        "programs with a model of their own",
    );
  });
}

/** Exports a model for the Python nanochat. */
export async function exportPt(
  flags: ExportFlags & { dtype: "" | "fp32" | "bf16"; optimizer: boolean },
  terminal: Terminal,
): Promise<void> {
  const { out, overwrite } = flags;
  checkFree(out!, flags);
  await withModel(flags, terminal, async ({ chosen, mapped, config, tokenizer, calls }) => {
    const { meta } = mapped;
    const embeddingDtype = COMPUTE_TYPES[flags.dtype || meta.dtype || String(meta.flags.dtype)] ?? "f32";
    if (!flags.dtype && !meta.dtype && !meta.flags.dtype) {
      terminal.info(
        "The checkpoint does not say what its run computed in; taking fp32, --dtype=bf16 chooses the other",
      );
    }
    const hasOptimizer = flags.optimizer && meta.files.length > 1;
    if (hasOptimizer && meta.worldSize > 1) {
      throw new RangeError(
        `Cannot export the optimizer of ${meta.worldSize} ranks, expected one; leave it out with --no-optimizer`,
      );
    }
    using states = hasOptimizer ? new MappedCheckpoint({ ...contextOf(calls), ...chosen, rank: 0 }) : undefined;
    await states?.verify();
    const tensors = sourceTensors(config, mapped.tensors, { padded: true });
    const bytes = (hasOptimizer ? 3 : 1) * roomBytes(tensors, "f32") + 100 * config.vocabSize;
    const about = { kind: "pt", model: chosen.name, step: chosen.step };
    const optimizer = states?.optimizer ?? new Map();
    await writeOutFolder({ out: out!, overwrite, about, bytes }, (folder) => {
      const model = { tensors, config, meta, optimizer, embeddingDtype, tokenizer, tag: chosen.tag };
      writeReference(contextOf(calls), model, folder);
    });
    const parts = [
      embeddingDtype === "bf16" ? "embedding in bf16, the rest in fp32" : "fp32",
      hasOptimizer ? "with the optimizer" : "without optimizer",
    ];
    report(terminal, { out: out!, chosen, how: `a base folder of the Python nanochat (${parts.join(", ")})` });
  });
}

function report(terminal: Terminal, { out, chosen, how }: { out: string; chosen: ChosenModel; how: string }): void {
  const { name, step } = chosen;
  terminal.result(`Exported ${name} at step ${step} as ${how}: ${out}`, { out, model: name, step });
}

/** The files of a tokenizer for `transformers`, by name. */
function tokenizerFiles(tokenizer: Tokenizer, options: { sequenceLen?: number } = {}): Record<string, string> {
  return {
    "tokenizer.json": tokenizerJson(tokenizer),
    "tokenizer_config.json": tokenizerConfigJson(tokenizer, options),
    "chat_template.jinja": CHAT_TEMPLATE,
  };
}

function writeTexts(folder: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) Deno.writeTextFileSync(join(folder, name), text);
}
