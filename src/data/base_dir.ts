/**
 * The base folder: where everything that the program makes is kept.
 *
 *     data/  tokenizer/  checkpoints/{base,mid,sft,rl}/<tag>/  eval/  report/  runs/<name>/ (the same folders again, for a recipe)
 *
 * A command looks in the base folder first, then in the runs, the most recent one first; what it took is said by its caller.
 * Files of the Python nanochat may lie in the same folder: they are found and named, never touched.
 */
import { join, resolve } from "@std/path";

/** Stages of training, in their order. */
export const STAGES = ["base", "mid", "sft", "rl"] as const;
/** Stage that a model comes from. */
export type Stage = (typeof STAGES)[number];

/** File name of our tokenizer, in `tokenizer/` and in every checkpoint folder. */
export const TOKENIZER_FILE = "nanochat_tokenizer.json";

/** The folders of one place: the base folder or one run. */
export interface Folders {
  /** The place itself. */
  readonly root: string;
  /** Name of the run; undefined = the base folder itself. */
  readonly run?: string;
  /** Shards. */
  readonly data: string;
  /** The tokenizer that new models are trained with. */
  readonly tokenizer: string;
  /** One folder per stage, in it one per tag. */
  readonly checkpoints: string;
  /** Results of evaluations. */
  readonly eval: string;
  /** Parts of the report card, and the card. */
  readonly report: string;
}

/** A folder that was chosen among several, with the reason in words. */
export interface Chosen {
  /** The folder. */
  readonly folder: string;
  /** Name of the run that it belongs to; undefined = none. */
  readonly run?: string;
  /** "the base folder", "run \"tiny\", the most recent one that has it". */
  readonly why: string;
}

/**
 * Gives the absolute path of the base folder: the flag, else NANOCHAT_BASE_DIR, else `.cache/nanochat` in the home folder.
 *
 * @throws {Error} where nothing is given and no home folder is known.
 */
export function resolveBaseDir(
  flag?: string,
  environment: (name: string) => string | undefined = (name) => Deno.env.get(name),
): string {
  const given = flag || environment("NANOCHAT_BASE_DIR");
  if (given) return checkFolder(resolve(given));
  const home = environment("HOME") || environment("USERPROFILE");
  if (!home) {
    throw new Error("Cannot find the base folder: HOME is not set, expected --base-dir, NANOCHAT_BASE_DIR or HOME");
  }
  return join(home, ".cache", "nanochat");
}

/** A base folder that is not there yet is made when something is written; a file in its place would look like an empty one. */
function checkFolder(path: string): string {
  let isFolder = true;
  try {
    isFolder = Deno.statSync(path).isDirectory;
  } catch {
    // It is made later, or the first use says why it cannot be.
  }
  if (isFolder) return path;
  throw new Error(
    `Cannot use the base folder "${path}": it is a file, expected a folder; choose another with --base-dir`,
  );
}

/**
 * Gives the folders of the base folder, or of a run inside it. Creates nothing.
 *
 * @throws {RangeError} where the run's name is no plain file name.
 */
export function foldersOf(base: string, run?: string): Folders {
  const root = run === undefined ? base : join(base, "runs", checkName(run, "run"));
  return {
    root,
    run,
    data: join(root, "data"),
    tokenizer: join(root, "tokenizer"),
    checkpoints: join(root, "checkpoints"),
    eval: join(root, "eval"),
    report: join(root, "report"),
  };
}

/** Gives the folder that holds the checkpoints of one stage and tag. */
export function checkpointFolder(folders: Folders, model: { stage: Stage; tag: string }): string {
  return join(folders.checkpoints, model.stage, checkName(model.tag, "model tag"));
}

/**
 * Checks that a name can be one folder on any system and in any terminal.
 *
 * @throws {RangeError} otherwise.
 */
export function checkName(name: string, what: string): string {
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}$/.test(name)) {
    throw new RangeError(
      `Cannot use the ${what} ${
        JSON.stringify(name)
      }: expected 1 to 100 letters (a to z), digits or _ . + = - and no dot in front`,
    );
  }
  return name;
}

/** Lists the runs of a base folder, the most recent first: a run is as recent as the newest file that a stage keeps writing in it. */
export function listRuns(base: string): Folders[] {
  const runs = [...entries(join(base, "runs"))].filter((entry) =>
    entry.isDirectory && /^[A-Za-z0-9_]/.test(entry.name)
  );
  const dated = runs.flatMap((entry) => {
    try {
      const folders = foldersOf(base, entry.name);
      return [{ folders, time: lastChange(folders) }];
    } catch {
      return []; // a folder that no run of ours can have made
    }
  });
  dated.sort((a, b) => b.time - a.time || (a.folders.root < b.folders.root ? -1 : 1));
  return dated.map(({ folders }) => folders);
}

/** Lists the places where a command looks: the base folder, then the runs, the most recent first. */
export function listPlaces(base: string): Folders[] {
  return [foldersOf(base), ...listRuns(base)];
}

/** Time (ms since 1970) of the newest file in a place, 0 where there is none; data/ does not count, as runs share it. */
export function lastChange(folders: Folders): number {
  let newest = 0;
  const visit = (folder: string, depth: number) => {
    for (const entry of entries(folder)) {
      const path = join(folder, entry.name);
      if (entry.isDirectory && depth > 0) visit(path, depth - 1);
      else if (entry.isFile) newest = Math.max(newest, modified(path));
    }
  };
  visit(folders.checkpoints, 2);
  for (const folder of [folders.tokenizer, folders.eval, folders.report]) visit(folder, 0);
  return newest;
}

/**
 * Chooses the folder with training shards: `--data-dir`, else the base folder's, else that of the most recent run that has one.
 *
 * @throws {Error} where none has shards, with the commands that make them.
 */
export function chooseData(base: string, dataDir?: string): Chosen {
  const has = (folder: string) => [...entries(folder)].some((entry) => entry.name.endsWith(".parquet"));
  return choose(base, {
    what: "training data",
    given: dataDir,
    flag: "--data-dir",
    folderOf: (folders) => folders.data,
    has,
    missing: "no shard (*.parquet)",
    repair: 'run "nanochat data make FOLDER" for your own text or "nanochat data download"',
  });
}

/**
 * Chooses the tokenizer's folder: `--tokenizer-dir`, else the base folder's, else that of the most recent run that has one.
 *
 * @throws {Error} where none has a tokenizer, with the command that makes one.
 */
export function chooseTokenizer(base: string, tokenizerDir?: string): Chosen {
  return choose(base, {
    what: "tokenizer",
    given: tokenizerDir,
    flag: "--tokenizer-dir",
    folderOf: (folders) => folders.tokenizer,
    has: (folder) => isFile(join(folder, TOKENIZER_FILE)),
    missing: `no ${TOKENIZER_FILE}`,
    repair: 'run "nanochat tokenizer train"',
  });
}

interface Choice {
  what: string;
  given: string | undefined;
  flag: string;
  folderOf(folders: Folders): string;
  has(folder: string): boolean;
  missing: string;
  repair: string;
}

function choose(base: string, choice: Choice): Chosen {
  const { what, given, flag, folderOf, has, missing, repair } = choice;
  if (given) {
    const folder = resolve(given);
    if (has(folder)) return { folder, why: flag };
    throw new Error(`Cannot find the ${what} at "${folder}": ${missing} there; ${repair}`);
  }
  for (const place of listPlaces(base)) {
    if (!has(folderOf(place))) continue;
    const why = place.run === undefined ? "the base folder" : `run "${place.run}", the most recent one that has it`;
    return { folder: folderOf(place), run: place.run, why };
  }
  const foreign = findForeign(base)[0];
  const hint = foreign ? `; found ${foreign.what} of the Python nanochat, run "${foreign.command}"` : "";
  throw new Error(
    `Cannot find the ${what} in "${base}": ${missing} in ${folderOf(foldersOf(base))} or in a run; ${repair}${hint}`,
  );
}

/** Something of the Python nanochat in the base folder: left untouched, but usable after an import. */
export interface Foreign {
  /** Where it lies. */
  readonly path: string;
  /** What it is: "model base_checkpoints/d20". */
  readonly what: string;
  /** The command that imports it. */
  readonly command: string;
}

/** Folders in which the Python nanochat keeps the checkpoints of each stage. */
export const REFERENCE_FOLDERS: Readonly<Record<Stage, string>> = {
  base: "base_checkpoints",
  mid: "mid_checkpoints",
  sft: "chatsft_checkpoints",
  rl: "chatrl_checkpoints",
};

/** Finds models and tokenizers of the Python nanochat in the base folder, each with the command that imports it. */
export function findForeign(base: string): Foreign[] {
  const found: Foreign[] = [];
  for (const kind of Object.values(REFERENCE_FOLDERS)) {
    for (const entry of entries(join(base, kind))) {
      const path = join(base, kind, entry.name);
      if (!entry.isDirectory || ![...entries(path)].some((file) => /^model_\d+\.pt$/.test(file.name))) continue;
      found.push({ path, what: `model ${kind}/${entry.name}`, command: `nanochat import ${path}` });
    }
  }
  const pickle = join(base, "tokenizer", "tokenizer.pkl");
  if (isFile(pickle)) {
    found.push({ path: pickle, what: "tokenizer.pkl", command: `nanochat import ${join(base, "tokenizer")}` });
  }
  return found.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Lists a folder by name; a folder that does not exist is empty. */
export function entries(folder: string): Deno.DirEntry[] {
  try {
    return [...Deno.readDirSync(folder)].sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return [];
    throw error;
  }
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

function modified(path: string): number {
  try {
    return Deno.statSync(path).mtime?.getTime() ?? 0;
  } catch {
    return 0; // removed since it was listed
  }
}
