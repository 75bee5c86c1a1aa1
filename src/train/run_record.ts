/** What the stages of a recipe did, kept as `run.json` in the folder of the run. */
import { join } from "@std/path";
import type { Folders } from "../data/base_dir.ts";
import { formatProblem, FORMATS } from "../data/formats.ts";
import { RECIPES } from "./recipes.ts";

/** Figures that a stage leaves, by name as `--json` prints them. */
export type Figures = Record<string, number>;

/** What a stage did. */
export interface StageRecord {
  /** Hash of this stage and all before it. */
  readonly key: string;
  /** When its first attempt began; absent in records of earlier versions. */
  readonly started?: string;
  /** Absent while the stage runs, and after it was interrupted. */
  readonly finished?: string;
  /** Time that it took, over all attempts; of one that was killed, what had been recorded until then. */
  readonly sec: number;
  readonly figures: Figures;
}

/** Records by the name of the stage. */
export type Records = Record<string, StageRecord>;

function recordPath(folders: Folders): string {
  return join(folders.root, "run.json");
}

/**
 * Reads what earlier calls did; a damaged record counts as none, so that stages are repeated rather than trusted.
 *
 * @throws {Error} for a record of another version.
 */
export function readRecords(folders: Folders): Records {
  try {
    const { stages, ...head } = JSON.parse(Deno.readTextFileSync(recordPath(folders)));
    const problem = formatProblem(head, { expected: FORMATS.run, lacking: true });
    if (problem) throw new Error(`Cannot read "${recordPath(folders)}": ${problem}`);
    return typeof stages === "object" && stages !== null ? stages : {};
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof SyntaxError) return {};
    throw error;
  }
}

/** Writes the records, whole or not at all. */
export function writeRecords(folders: Folders, stages: Records): void {
  const temporary = `${recordPath(folders)}.tmp`;
  Deno.writeTextFileSync(temporary, JSON.stringify({ ...FORMATS.run, stages }, null, 2) + "\n");
  Deno.renameSync(temporary, recordPath(folders));
}

/** Whether every stage of the recipe in this folder has finished; undefined where the folder is of no known recipe. */
export function isFinished(folders: Folders): boolean | undefined {
  const recipe = folders.run === undefined ? undefined : RECIPES[folders.run];
  if (!recipe) return undefined;
  const records = readRecords(folders);
  return recipe.stages.every(({ name }) => records[name]?.finished !== undefined);
}
