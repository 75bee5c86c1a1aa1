/**
 * The bundle of the CORE metric: a folder with `core.yaml` (the tasks), `eval_meta_data.csv` (what guessing reaches) and
 * `eval_data/<uri>` (one JSON object a line), as published with DCLM (arXiv:2406.11794) and read by nanochat/core_eval.py.
 *
 * Nothing is skipped in silence: a missing file, an unknown key or a line without a field is an error that names file and line.
 */
import { join } from "@std/path";
import { entries } from "../data/base_dir.ts";
import { readCsv, readJsonLines, readText } from "../data/text_file.ts";

/** How an item of a task is asked. */
export type CoreTaskType = "multiple_choice" | "schema" | "language_modeling";

/** One context, several endings. */
export interface ChoiceItem {
  /** Question or beginning. */
  readonly query: string;
  /** Possible endings. */
  readonly choices: readonly string[];
  /** Number of the right ending. */
  readonly gold: number;
}

/** Several contexts, one ending. */
export interface SchemaItem {
  /** Possible beginnings. */
  readonly context_options: readonly string[];
  /** What follows each. */
  readonly continuation: string;
  /** Number of the right beginning. */
  readonly gold: number;
}

/** A text to go on with, word for word. */
export interface LanguageItem {
  /** Beginning. */
  readonly context: string;
  /** What the model must say. */
  readonly continuation: string;
}

/** An item of any task. */
export type CoreItem = ChoiceItem | SchemaItem | LanguageItem;

/** One task of the bundle. */
export interface CoreTask {
  /** Name: "hellaswag_zeroshot". */
  readonly label: string;
  /** Form of its items. */
  readonly type: CoreTaskType;
  /** Solved items in front of each. */
  readonly shots: number;
  /** What stands between question and answer. */
  readonly delimiter: string;
  /** Path of its items. */
  readonly file: string;
  /** Accuracy of guessing, 0 to 1. */
  readonly baseline: number;
}

/** Scores that somebody published: centred accuracies by task, and their mean. */
export interface PublishedScores {
  /** Whose: "gpt2-xl". */
  readonly name: string;
  /** Centred accuracy by task label; the mean under "CORE". */
  readonly centered: ReadonlyMap<string, number>;
}

/** An opened bundle; items are read task by task. */
export interface CoreBundle {
  /** Where it lies. */
  readonly folder: string;
  /** Tasks in the order of core.yaml. */
  readonly tasks: readonly CoreTask[];
  /** Score files beside core.yaml, smallest CORE first. */
  readonly published: readonly PublishedScores[];
}

const TYPES: readonly CoreTaskType[] = ["multiple_choice", "schema", "language_modeling"];
const TABLE = "core.yaml";
const META = "eval_meta_data.csv";
const FETCH_BUNDLE = 'run "nanochat data fetch eval-bundle"';

/**
 * Opens a bundle and checks that every file that it names is there.
 *
 * @throws {Error} where a file is missing. @throws {SyntaxError} where one cannot be read, naming file, line and what was expected.
 */
export async function readBundle(folder: string): Promise<CoreBundle> {
  const table = join(folder, TABLE);
  for (const path of [table, join(folder, META)]) checkPresent(path);
  const rows = parseTable(await readText(table), table);
  const baselines = await readBaselines(join(folder, META));
  const tasks = rows.map(({ line, values }): CoreTask => {
    const fail = (what: string) => new SyntaxError(`Cannot read "${table}", line ${line}: ${what}`);
    const text = (key: string) => {
      const value = values.get(key);
      if (typeof value !== "string") throw fail(`the task has no ${key}, expected a text`);
      return value;
    };
    const label = text("label");
    const type = TYPES.find((each) => each === text("icl_task_type"));
    if (!type) throw fail(`icl_task_type is "${text("icl_task_type")}", expected one of ${TYPES.join(", ")}`);
    const shots = values.get("num_fewshot");
    if (!Array.isArray(shots) || shots.length !== 1 || !Number.isInteger(shots[0]) || shots[0] < 0) {
      throw fail(`num_fewshot is ${JSON.stringify(shots)}, expected one count such as [10]`);
    }
    const baseline = baselines.get(label);
    if (baseline === undefined) throw fail(`"${label}" has no line in ${META}, expected its random baseline`);
    const delimiter = values.has("continuation_delimiter") ? text("continuation_delimiter") : " ";
    const file = join(folder, "eval_data", ...text("dataset_uri").split("/"));
    return { label, type, shots: shots[0], delimiter, file, baseline };
  });
  if (tasks.length === 0) {
    throw new SyntaxError(`Cannot read "${table}": it lists no task, expected some under icl_tasks`);
  }
  for (const { file } of tasks) checkPresent(file);
  return { folder, tasks, published: await readPublished(folder) };
}

/** Gives what tells two bundles apart: the tasks and the size of each file. */
export function bundleIdentity({ tasks }: CoreBundle): unknown {
  return tasks.map(({ file, ...task }) => ({ ...task, bytes: Deno.statSync(file).size }));
}

/**
 * Reads the items of a task.
 *
 * @throws {SyntaxError} where a line is no item, naming file, line and what was expected.
 */
export async function readItems(task: CoreTask): Promise<CoreItem[]> {
  const items = (await readJsonLines(task.file)).map(({ line, value }) => {
    const problem = explainItem(value as Record<string, unknown>, task.type);
    if (problem) throw new SyntaxError(`Cannot read "${task.file}", line ${line}: ${problem}`);
    return value as CoreItem;
  });
  if (items.length === 0) throw new SyntaxError(`Cannot read "${task.file}": it has no item, expected at least one`);
  return items;
}

function explainItem(item: Record<string, unknown>, type: CoreTaskType): string | null {
  if (typeof item !== "object" || item === null || Array.isArray(item)) return "it is no object, expected one a line";
  const text = (key: string) => typeof item[key] === "string" ? null : `${key} is ${show(item[key])}, expected a text`;
  const options = (key: string) => {
    const list = item[key];
    if (!Array.isArray(list) || list.length < 2 || !list.every((each) => typeof each === "string")) {
      return `${key} is ${show(list)}, expected a list of at least two texts`;
    }
    const { gold } = item;
    if (Number.isInteger(gold) && (gold as number) >= 0 && (gold as number) < list.length) return null;
    return `gold is ${show(gold)}, expected a number from 0 to ${list.length - 1}`;
  };
  if (type === "multiple_choice") return text("query") ?? options("choices");
  if (type === "schema") return options("context_options") ?? text("continuation");
  return text("context") ?? text("continuation");
}

function show(value: unknown): string {
  const text = JSON.stringify(value);
  return text === undefined ? "missing" : text.length > 60 ? `${text.slice(0, 60)}...` : text;
}

type YamlValue = string | boolean | number[];

/** Parses the one form that core.yaml has: `icl_tasks:` and below it a list of flat entries. */
function parseTable(text: string, path: string): { line: number; values: Map<string, YamlValue> }[] {
  const tasks: { line: number; values: Map<string, YamlValue> }[] = [];
  let opened = false;
  for (const [i, raw] of text.split(/\r?\n/).entries()) {
    const line = raw.trimEnd();
    if (/^\s*(#.*)?$/.test(line) || line === "---") continue;
    const fail = (expected: string) =>
      new SyntaxError(`Cannot read "${path}", line ${i + 1}: it is ${show(line)}, expected ${expected}`);
    if (!opened) {
      if (line !== "icl_tasks:") throw fail('"icl_tasks:"');
      opened = true;
      continue;
    }
    const [, dash, pair] = /^\s*(-?)\s*(.*)$/.exec(line)!;
    if (dash) tasks.push({ line: i + 1, values: new Map() });
    if (pair === "") continue;
    const [, key, value] = /^(\w+):\s+(\S.*)$/.exec(pair) ?? [];
    if (key === undefined) throw fail("key: value");
    if (tasks.length === 0) throw fail('"-" in front of the first task');
    try {
      tasks.at(-1)!.values.set(key, yamlValue(value));
    } catch {
      throw fail("a text, a quoted text, true, false or a list of numbers behind the key");
    }
  }
  return tasks;
}

function yamlValue(text: string): YamlValue {
  if (text.startsWith('"') || text.startsWith("[")) return JSON.parse(text);
  if (text.startsWith("'")) {
    if (!/^'([^']|'')*'$/.test(text)) throw new SyntaxError("open quote");
    return text.slice(1, -1).replaceAll("''", "'");
  }
  return text === "true" || text === "false" ? text === "true" : text;
}

/** Reads the accuracy of guessing by task. */
async function readBaselines(path: string): Promise<Map<string, number>> {
  const [head, ...rows] = await readCsv(path);
  const columns = ["Eval Task", "Random baseline"].map((name) => {
    const column = head?.value.indexOf(name) ?? -1;
    if (column < 0) throw new SyntaxError(`Cannot read "${path}", line 1: it has no column "${name}", expected one`);
    return column;
  });
  const baselines = new Map<string, number>();
  for (const { value, line } of rows) {
    const [label, percent] = columns.map((column) => value[column].trim());
    if (percent === "" || !(Number(percent) >= 0 && Number(percent) < 100)) {
      const what = `task ${show(label)} with baseline ${show(percent)}, expected a percentage below 100`;
      throw new SyntaxError(`Cannot read "${path}", line ${line}: ${what}`);
    }
    baselines.set(label, Number(percent) / 100);
  }
  return baselines;
}

/** Reads the scores of other models: files of the same form as ours, "Task, Accuracy, Centered". */
async function readPublished(folder: string): Promise<PublishedScores[]> {
  const published: PublishedScores[] = [];
  for (const { name: file } of entries(folder).filter(({ name }) => name.endsWith(".csv") && name !== META)) {
    const path = join(folder, file);
    const centered = new Map<string, number>();
    for (const { value, line } of (await readCsv(path, 3)).slice(1)) {
      const [label, , score] = value.map((cell) => cell.trim());
      if (score === "" || !Number.isFinite(Number(score))) {
        throw new SyntaxError(
          `Cannot read "${path}", line ${line}: the last column is ${show(score)}, expected a score`,
        );
      }
      centered.set(label, Number(score));
    }
    published.push({ name: file.replace(/^openai-community-/, "").replace(/\.csv$/, ""), centered });
  }
  const core = (scores: PublishedScores) => scores.centered.get("CORE") ?? Infinity;
  return published.sort((a, b) => core(a) - core(b));
}

function checkPresent(path: string): void {
  const info = statIfPresent(path);
  if (info?.isFile) return;
  const what = info ? "it is no file" : "it is missing";
  const expected = `a file of the CORE bundle (${TABLE}, ${META}, eval_data/)`;
  throw new Error(`Cannot open "${path}": ${what}, expected ${expected}; ${FETCH_BUNDLE}`);
}

function statIfPresent(path: string): Deno.FileInfo | null {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return null;
    throw error;
  }
}
