/** `nanochat export`: a model or its tokenizer in the formats of other programs. */
import { join } from "@std/path";
import { chooseTokenizer, resolveBaseDir, type Stage } from "../data/base_dir.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { CHAT_TEMPLATE, tokenizerConfigJson, tokenizerJson } from "../interop/export/hf_tokenizer.ts";
import { writeOutFolder } from "../interop/export/out_folder.ts";
import { encodingJson, formatRanks } from "../interop/tiktoken.ts";
import { checkTokenizer } from "../model/checkpoint.ts";
import { chooseModel } from "../model/models.ts";
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
  await writeOutFolder({ out: out!, overwrite, about }, (folder) => writeTexts(folder, files));
  terminal.result(`Exported the tokenizer with ${tokenizer.vocabSize} tokens: ${out}`, {
    folder: out,
    format,
    vocab_size: tokenizer.vocabSize,
    files: Object.keys(files),
  });
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
