/**
 * Rows of the hub's task sets, from a local folder in one of two layouts, with equal rows:
 *
 *     <folder>/[task_data/]<owner>--<name>/<subset>/<split>/manifest.json, 00000.parquet ...   the hub's Parquet export
 *     <folder>/[tasks/]{arc,gsm8k,humaneval,mmlu}/...                                           the authors' jsonl and csv, .gz too
 *
 * A row is a plain object; Parquet rows stay in the file's own buffers until they are asked for.
 */
import { existsSync } from "node:fs";
import { basename, join } from "@std/path";
import { formatProblem, FORMATS } from "./formats.ts";
import { loadArrow, ParquetFile } from "./parquet.ts";
import { ORIGINALS } from "./task_originals.ts";
import { parseJson } from "./text_file.ts";

/** One split of a data set on the hub. */
export interface TaskSet {
  /** "openai/gsm8k". */
  readonly repo: string;
  /** "main". */
  readonly subset: string;
  /** "train". */
  readonly split: string;
}

/** One row: columns by name; lists and structs are arrays and plain objects. */
export type Row = Readonly<Record<string, unknown>>;

/** Rows by index, each with its place for messages. */
export interface Rows {
  /** Number of rows. */
  readonly length: number;
  /** Returns row `index`. */
  row(index: number): Row;
  /** Says where row `index` stands: `"train.jsonl", line 7`. */
  where(index: number): string;
}

/** Command that fetches what is missing here. */
export const FETCH_TASKS = 'run "nanochat data fetch tasks"';

/** Gives the folder of a split inside a `task_data` folder. */
export function taskSetFolder({ repo, subset, split }: TaskSet): string {
  return join(repo.replace("/", "--"), subset, split);
}

/** Turns a list into rows, for rows that come from elsewhere than a file. */
export function rowsOf(list: readonly Row[], name = "the list"): Rows {
  return { length: list.length, row: (index) => list[index], where: (index) => `${name}, row ${index}` };
}

/**
 * Opens the rows of a split and checks that they have `columns`.
 *
 * @throws {Error} where the split is missing (naming the command that fetches it), unfinished, malformed or without a column.
 */
export async function openTaskRows(folder: string, set: TaskSet, columns: readonly string[]): Promise<Rows> {
  for (const root of [folder, join(folder, "task_data")]) {
    const path = join(root, taskSetFolder(set));
    if (existsSync(path)) return await openExport(path, columns);
  }
  const original = ORIGINALS[set.repo];
  for (const root of original ? [folder, join(folder, "tasks")] : []) {
    const paths = original.files(join(root, original.folder), set);
    if (paths.length > 0) return await openOriginals(paths, original.read, columns);
  }
  const { repo, subset, split } = set;
  throw new Error(
    `Cannot open the task data ${repo}, ${subset}, ${split}: it is not in "${folder}", expected ${taskSetFolder(set)}${
      original ? ` or the originals in ${original.folder}` : ""
    }; ${FETCH_TASKS} or choose another --data-dir`,
  );
}

/** Reads the files that a manifest lists; the manifest is written last, so a folder without it is an unfinished download. */
async function openExport(folder: string, columns: readonly string[]): Promise<Rows> {
  const tables: { path: string; first: number; row(index: number): Row }[] = [];
  let length = 0;
  for (const name of readManifest(folder)) {
    const path = join(folder, name);
    if (!existsSync(path)) {
      throw new Error(
        `Cannot open the task data at "${folder}": ${name} is missing, expected all of the manifest; ${FETCH_TASKS}`,
      );
    }
    using file = ParquetFile.open(path);
    checkColumns(`"${path}"`, file.schema.map((field) => field.name), columns);
    const table = await file.readTable();
    const plain = await plainValues();
    tables.push({ path, first: length, row: (index) => plain(table.get(index)) as Row });
    length += table.numRows;
  }
  const find = (index: number) => tables.findLast(({ first }) => first <= index)!;
  return {
    length,
    row: (index) => {
      const { first, row } = find(index);
      return row(index - first);
    },
    where: (index) => `"${find(index).path}", row ${index - find(index).first}`,
  };
}

/** Writes the file names of a task set, whole or not at all. */
export function writeManifest(folder: string, files: readonly string[]): void {
  const path = join(folder, "manifest.json");
  Deno.writeTextFileSync(`${path}.tmp`, JSON.stringify({ ...FORMATS.taskSet, files }));
  Deno.renameSync(`${path}.tmp`, path);
}

/** Reads the file names of a manifest; 0.1.0 wrote the list alone. @throws {Error} where it is missing or no list of names. */
export function readManifest(folder: string): string[] {
  const path = join(folder, "manifest.json");
  let manifest: unknown;
  try {
    manifest = parseJson(Deno.readTextFileSync(path));
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound) && !(cause instanceof SyntaxError)) throw cause;
    const what = cause instanceof SyntaxError ? cause.message : "it is missing";
    const repair = cause instanceof SyntaxError ? `remove it and ${FETCH_TASKS}` : FETCH_TASKS;
    throw new Error(`Cannot read "${path}": ${what}, expected the list of a finished download; ${repair}`, { cause });
  }
  const isBare = Array.isArray(manifest);
  const problem = isBare ? undefined : formatProblem(manifest, { expected: FORMATS.taskSet });
  if (problem) throw new Error(`Cannot read "${path}": ${problem}; remove it and ${FETCH_TASKS}`);
  const names: unknown = isBare ? manifest : (manifest as { files?: unknown }).files;
  const isName = (name: unknown) => typeof name === "string" && name === basename(name) && name.endsWith(".parquet");
  if (!Array.isArray(names) || names.length === 0 || !names.every(isName)) {
    const what = JSON.stringify(names);
    throw new Error(
      `Cannot read "${path}": ${what}, expected a list of names like "00000.parquet"; remove it and ${FETCH_TASKS}`,
    );
  }
  return names;
}

async function openOriginals(
  paths: readonly string[],
  read: (path: string) => Promise<readonly { line: number; value: unknown }[]>,
  columns: readonly string[],
): Promise<Rows> {
  const rows: { row: Row; path: string; line: number }[] = [];
  for (const path of paths) {
    for (const { line, value } of await read(path)) {
      const where = `"${path}", line ${line}`;
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw new SyntaxError(`Cannot read ${where}: ${JSON.stringify(value)}, expected a JSON object`);
      }
      checkColumns(where, Object.keys(value), columns);
      rows.push({ row: value as Row, path, line });
    }
  }
  return {
    length: rows.length,
    row: (index) => rows[index].row,
    where: (index) => `"${rows[index].path}", line ${rows[index].line}`,
  };
}

function checkColumns(where: string, found: readonly string[], columns: readonly string[]): void {
  const missing = columns.filter((name) => !found.includes(name));
  if (missing.length === 0) return;
  const list = (names: readonly string[]) => names.map((name) => JSON.stringify(name)).join(", ");
  throw new SyntaxError(`Cannot read ${where}: it has the columns ${list(found)}, expected also ${list(missing)}`);
}

/** Gives a function from Arrow's values to plain ones: vectors to arrays, structs to objects, 64-bit integers to numbers. */
async function plainValues(): Promise<(value: unknown) => unknown> {
  const { Vector } = await loadArrow();
  const plain = (value: unknown): unknown => {
    if (typeof value === "bigint") return Number(value);
    if (typeof value !== "object" || value === null) return value;
    if (value instanceof Vector) return Array.from(value, plain);
    return Object.fromEntries(Array.from(value as Iterable<[string, unknown]>, ([name, item]) => [name, plain(item)]));
  };
  return plain;
}

/** Reads a text of a row. @throws {SyntaxError} naming the row where it is something else. */
export function textOf(rows: Rows, index: number, column: string): string {
  const value = rows.row(index)[column];
  if (typeof value !== "string") throw wrongValue(rows, index, { column, expected: "a text" });
  return value;
}

/** Makes the error for a value of a row that is not as expected. */
export function wrongValue(
  rows: Rows,
  index: number,
  { column, expected }: { readonly column: string; readonly expected: string },
): SyntaxError {
  const value = JSON.stringify(rows.row(index)[column]) ?? "missing";
  const shown = value.length > 80 ? `${value.slice(0, 80)}...` : value;
  return new SyntaxError(`Cannot read ${rows.where(index)}: "${column}" is ${shown}, expected ${expected}`);
}
