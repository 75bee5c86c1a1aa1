/** What `nanochat` without arguments says: it looks at what exists and names the one sensible next command. */
import { join } from "@std/path";
import { entries, type Folders, listPlaces, resolveBaseDir, STAGES, TOKENIZER_FILE } from "../data/base_dir.ts";
import { listSteps } from "../model/checkpoint_folder.ts";
import { isFinished } from "../train/run_record.ts";
import { findLibrary } from "../native/load.ts";

/** What lies in the base folder and in the most recent run. */
export interface Found {
  /** The native library was built. */
  readonly library: boolean;
  readonly model: boolean;
  /** Name of the newest run where it was interrupted: a stage of its recipe is missing. */
  readonly unfinishedRun?: string;
  readonly tokenizer: boolean;
  readonly data: boolean;
}

/** Returns the advice for what was found: one line with the command. */
export function adviceFor({ library, model, unfinishedRun, tokenizer, data }: Found): string {
  if (!library) return 'The native library is not built yet; build it with "deno task setup"';
  if (unfinishedRun) {
    const chat = model ? '; what it has learned so far answers in "nanochat chat"' : "";
    return `The run "${unfinishedRun}" is not finished; continue it with "nanochat run ${unfinishedRun}"${chat}`;
  }
  if (model) return 'A model is here; talk to it with "nanochat chat", or on a web page with "nanochat serve"';
  if (tokenizer) return 'A tokenizer is here, but no model; train one with "nanochat train --depth=4"';
  if (data) return 'Text is here, but no tokenizer; train one with "nanochat tokenizer train"';
  return 'Nothing is here yet; "nanochat run tiny" trains a small model from raw text in some minutes';
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

function hasModel(place: Folders): boolean {
  return STAGES.some((stage) => {
    const folder = join(place.checkpoints, stage);
    return entries(folder).some((entry) => entry.isDirectory && listSteps(join(folder, entry.name)).length > 0);
  });
}

const hasTokenizer = (place: Folders) => exists(join(place.tokenizer, TOKENIZER_FILE));

/** Looks into a base folder. */
export function look(base: string): Found {
  const [own, ...runs] = listPlaces(base);
  return {
    library: findLibrary("cpu") !== undefined,
    model: [own, ...runs].some(hasModel),
    unfinishedRun: runs.slice(0, 1).find((place) => !(isFinished(place) ?? hasModel(place)))?.run,
    tokenizer: hasTokenizer(own),
    data: entries(own.data).some(({ name }) => name.endsWith(".parquet")),
  };
}

/** Names the next command; `baseDir` is what NANOCHAT_BASE_DIR says. */
export function nextStep(baseDir: string | undefined): string {
  return adviceFor(look(resolveBaseDir(baseDir)));
}
