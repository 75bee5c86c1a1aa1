/** `nanochat import PATH`: models and tokenizers of the Python nanochat and of Hugging Face become ours. */
import { basename, dirname, join, resolve } from "@std/path";
import { format as formatBytes } from "@std/fmt/bytes";
import { entries, findForeign, foldersOf, resolveBaseDir, type Stage, TOKENIZER_FILE } from "../data/base_dir.ts";
import { Tokenizer, type TokenizerParts } from "../data/tokenizer.ts";
import type { ForeignModel } from "../interop/foreign.ts";
import { isHuggingFace, openHuggingFace } from "../interop/huggingface.ts";
import { openReference, readReferenceTokenizer, referenceSteps } from "../interop/reference.ts";
import { parseTokenizerJson } from "../interop/tokenizer_json.ts";
import { listSteps, readIfPresent } from "../model/checkpoint_folder.ts";
import { parameterCount } from "../model/gpt.ts";
import { CheckpointError } from "../model/meta.ts";
import { checkTokenizerUnused } from "../model/models.ts";
import { Device } from "../tensor/device.ts";
import { importModel, openTokenizer } from "../train/import_model.ts";
import type { Invocation } from "./command.ts";
import type { IMPORT } from "./model_flags.ts";
import type { Terminal } from "./progress.ts";

type Values = Invocation<typeof IMPORT>["values"];

/** Imports what lies at a path, and says what it was. */
export async function importPath(
  given: string,
  { values, terminal }: { values: Values; terminal: Terminal },
): Promise<void> {
  const { path: folder, file } = placeOf(given);
  const inName = Number(/^model_(\d{6,15})\.pt$/.exec(file ?? "")?.[1] ?? -1);
  const asked = values.step >= 0 ? values.step : inName;
  const step = asked >= 0 ? asked : undefined;
  using device = Device.open("cpu");
  const isTokenizer = file === "tokenizer.pkl" || file === "tokenizer.json";
  if (!isTokenizer && (referenceSteps(folder).length > 0 || isHuggingFace(folder))) {
    const tokenizer = values.tokenizerDir === undefined
      ? undefined
      : await readTokenizer(device, resolve(values.tokenizerDir));
    const open = referenceSteps(folder).length > 0 ? openReference : openHuggingFace;
    using foreign = await open(device, { folder, step, tokenizer });
    return await saveModel(device, foreign, { values, terminal });
  }
  const parts = await readTokenizer(device, folder, { optional: true });
  if (parts === undefined) throw new CheckpointError("missing", nothingText(given, folder));
  await saveTokenizer(parts, { values, terminal });
}

/** The folder of a path, and its name in there where it is a file. */
function placeOf(given: string): { path: string; file?: string } {
  const path = resolve(given);
  let isFile: boolean;
  try {
    isFile = Deno.statSync(path).isFile;
  } catch (cause) {
    throw new CheckpointError("missing", `Cannot import "${given}": ${(cause as Error).message}`, { cause });
  }
  return isFile ? { path: dirname(path), file: basename(path) } : { path };
}

function nothingText(given: string, folder: string): string {
  const expected =
    "expected model_N.pt of the Python nanochat, or config.json with safetensors of Hugging Face, or tokenizer.pkl or tokenizer.json";
  const foreign = findForeign(folder);
  if (foreign.length > 0) {
    return `Cannot import "${given}" as a whole: import its parts with ${
      foreign.map(({ command }) => `"${command}"`).join(", ")
    }`;
  }
  const own = listSteps(folder).length > 0 || entries(folder).some(({ name }) => name === TOKENIZER_FILE);
  const hint = own ? "; it belongs to this program: copy the folder to checkpoints/STAGE/TAG of the base folder" : "";
  return `Cannot import "${given}": nothing that is known lies there, ${expected}${hint}`;
}

/** Reads a tokenizer of any kind. @throws {CheckpointError} where the folder has none and it is not optional. */
async function readTokenizer(
  device: Device,
  folder: string,
  options: { optional: true },
): Promise<TokenizerParts | undefined>;
async function readTokenizer(device: Device, folder: string): Promise<TokenizerParts>;
async function readTokenizer(
  device: Device,
  folder: string,
  { optional = false }: { optional?: boolean } = {},
): Promise<TokenizerParts | undefined> {
  const pickled = readReferenceTokenizer(device, folder);
  if (pickled) return pickled.parts;
  const path = join(folder, "tokenizer.json");
  const bytes = readIfPresent(path);
  if (bytes !== undefined) return parseTokenizerJson(bytes, path);
  if (optional) return undefined;
  using own = await Tokenizer.load(folder);
  const tokens = Array.from({ length: own.mergeableCount }, (_, id) => own.token(id));
  return { pattern: own.pattern, tokens, specials: Object.fromEntries(own.specials) };
}

async function saveModel(
  device: Device,
  foreign: ForeignModel,
  { values, terminal }: { values: Values; terminal: Terminal },
): Promise<void> {
  const base = resolveBaseDir(values.baseDir);
  const folders = foldersOf(base);
  const stage = values.source === "" ? undefined : values.source as Stage;
  const { overwrite, modelTag: tag } = values;
  for (const file of foreign.files) terminal.info(`Read ${file}`);
  const result = await importModel(device, { foreign, folders, stage, tag, overwrite, log: terminal });
  const { folder, meta, isTokenizerKept } = result;
  const name = `${result.stage}/${result.tag}`;
  const bytes = meta.files.reduce((sum, file) => sum + file.bytes, 0);
  const hasOptimizer = foreign.optimizer.length > 0;
  const bpb = meta.valBpb === null ? "" : `, validation ${meta.valBpb.toFixed(4)} bits per byte`;
  const parameters = parameterCount(foreign.config);
  if (isTokenizerKept) {
    terminal.info(`The base folder had no tokenizer; it has this one now, in "${folders.tokenizer}"`);
  }
  const { config: { nLayer, nEmbd, nHead } } = foreign;
  terminal.result(
    [
      `Imported ${name} at step ${meta.step} from ${foreign.origin}${bpb}`,
      `  model      depth ${nLayer}, width ${nEmbd}, ${nHead} heads: ${parameters.toLocaleString("en-US")} parameters`,
      `  optimizer  ${hasOptimizer ? "AdamW's moments and Muon's momentum" : "none: it cannot go on in its own stage"}`,
      `  tokenizer  ${foreign.config.vocabSize.toLocaleString("en-US")} tokens, SHA-256 ${meta.tokenizer!.sha256}`,
      `  files      ${formatBytes(bytes)} in ${folder}`,
    ].join("\n"),
    {
      ...{ name, folder, step: meta.step, bytes, parameters, optimizer: hasOptimizer, val_bpb: meta.valBpb },
      config: meta.config,
      tokenizer_sha256: meta.tokenizer!.sha256,
    },
  );
  const choice = `--source=${result.stage} --model-tag=${result.tag}`;
  terminal.info(`Next: nanochat ${result.stage === "base" ? "eval bpb" : "chat"} ${choice}`);
}

/** Makes a tokenizer the one of the base folder. */
async function saveTokenizer(
  parts: TokenizerParts,
  { values, terminal }: { values: Values; terminal: Terminal },
): Promise<void> {
  const base = resolveBaseDir(values.baseDir);
  const folder = foldersOf(base).tokenizer;
  using tokenizer = await openTokenizer(parts);
  const before = readIfPresent(join(folder, TOKENIZER_FILE));
  if (before !== undefined && !values.overwrite) {
    using old = await Tokenizer.load(folder);
    if (old.sha256 !== tokenizer.sha256) {
      checkTokenizerUnused(base, folder);
      throw new CheckpointError(
        "exists",
        `Cannot import into "${folder}": it holds another tokenizer, expected none; replace it with --overwrite`,
      );
    }
  }
  await tokenizer.save(folder);
  terminal.result(
    `Imported a tokenizer of ${tokenizer.vocabSize.toLocaleString("en-US")} tokens into ${folder}`,
    { folder, tokens: tokenizer.vocabSize, sha256: tokenizer.sha256 },
  );
}
