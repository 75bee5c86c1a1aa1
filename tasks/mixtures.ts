/**
 * The mixtures of conversations that the stages read, written as text: `smoltalk:10000, gsm8k, identity*2` is 10,000 rows of SmolTalk,
 * GSM8K, and the identity conversations twice, shuffled together.
 *
 * An item is a name, optionally `:ROWS` (of a data set the first rows, of a generated task its size) and `*TIMES`. Names are those of
 * TASK_NAMES or a `.jsonl` file of conversations, here or in the data folder. One item alone is read in its own order.
 */
import { existsSync } from "node:fs";
import { join } from "@std/path";
import { findAsset } from "../src/data/assets.ts";
import { type Log, SILENT } from "../src/data/log.ts";
import { loadArc } from "./arc.ts";
import { loadCustomJson } from "./customjson.ts";
import { loadGsm8k } from "./gsm8k.ts";
import { loadMmlu } from "./mmlu.ts";
import { loadSmolTalk } from "./smoltalk.ts";
import { readWords, simpleSpelling, spellingBee } from "./spellingbee.ts";
import { REFERENCE_MIXTURES, TASK_NAMES, type TaskName } from "./mixture_names.ts";
import { sliceTask, type Task, TaskMixture } from "./task.ts";
import { worldTask, type WorldTaskName } from "./world_tasks.ts";

export { REFERENCE_MIXTURES, TASK_NAMES };

/** Which rows: those to learn from, or those to examine with. */
export interface MixtureSource {
  /** Folder with task data, word list and identity conversations: the base folder. */
  readonly dataDir: string;
  /** Split of every item. */
  readonly split: "train" | "test";
  /** Hears where a data set has fewer rows than asked for. */
  readonly log?: Log;
}

/** Conversations of a stage. */
export interface StageTasks {
  /** Trained on. */
  readonly train: Task;
  /** Held out. */
  readonly validation: Task;
}

/** Rows of a generated task without `:ROWS`. */
const GENERATED_ROWS = 1000;

type Load = (source: MixtureSource, rows: number | undefined) => Task | Promise<Task>;

const world = (name: WorldTaskName): Load => ({ split }, size = GENERATED_ROWS) => worldTask(name, { split, size });
const words = ({ dataDir }: MixtureSource) => readWords(findAsset(dataDir, "words"));
const MMLU = {
  train: { subset: "auxiliary_train", split: "train" },
  test: { subset: "all", split: "test" },
} as const;

const LOADERS: Readonly<Record<string, Load>> = {
  smoltalk: ({ dataDir, split }) => loadSmolTalk(dataDir, { split }),
  mmlu: ({ dataDir, split }) => loadMmlu(dataDir, MMLU[split]),
  "arc-easy": ({ dataDir, split }) => loadArc(dataDir, { subset: "ARC-Easy", split }),
  "arc-challenge": ({ dataDir, split }) => loadArc(dataDir, { subset: "ARC-Challenge", split }),
  gsm8k: ({ dataDir, split }) => loadGsm8k(dataDir, { subset: "main", split }),
  identity: ({ dataDir }) => loadCustomJson(findAsset(dataDir, "identity")),
  simplespelling: async (source, size) => simpleSpelling(await words(source), { size, split: source.split }),
  spellingbee: async (source, size) => spellingBee(await words(source), { size, split: source.split }),
  "world-identity": world("identity"),
  "world-facts": world("world"),
  "world-telling": world("telling"),
  "world-arithmetic": world("arithmetic"),
  "world-spelling": world("spelling"),
  "world-counting": world("counting"),
  "world-dialogue": world("dialogue"),
} satisfies Record<TaskName, Load>;

/** One item of a mixture. */
export interface MixtureItem {
  /** One of TASK_NAMES, or a path that ends in `.jsonl` or `.jsonl.gz`. */
  readonly name: string;
  /** Rows; undefined = all. */
  readonly rows?: number;
  /** How often the rows occur. */
  readonly times: number;
}

/**
 * Reads the text of a mixture.
 *
 * @throws {SyntaxError} naming the item that cannot be read, with what it may be.
 */
export function parseMixture(text: string): MixtureItem[] {
  return text.split(",").map((part, i) => {
    const item = part.trim();
    const [_, name, rows, times] = /^(.+?)(?::(\d+))?(?:\*(\d+))?$/.exec(item) ?? [];
    const isKnown = name !== undefined && (TASK_NAMES.includes(name) || /\.jsonl(\.gz)?$/.test(name));
    if (!isKnown || rows === "0" || times === "0") {
      throw new SyntaxError(
        `Cannot read the mixture ${JSON.stringify(text)}: ${
          text.trim() === ""
            ? "it is empty"
            : item === ""
            ? `item ${i + 1} is empty`
            : `${JSON.stringify(item)} is no item`
        }, expected NAME, NAME:ROWS, NAME*TIMES or ` +
          `NAME:ROWS*TIMES with a positive number and a .jsonl file or one of ${TASK_NAMES.join(", ")}`,
      );
    }
    return { name, rows: rows === undefined ? undefined : Number(rows), times: Number(times ?? 1) };
  });
}

/** Opens what a stage reads: of `train` the training rows, of `validation` the held-out ones. @throws as `loadMixture`. */
export async function loadStageTasks(
  dataDir: string,
  { train, validation, log }: { readonly train: string; readonly validation: string; readonly log: Log },
): Promise<StageTasks> {
  return {
    train: await loadMixture(train, { dataDir, split: "train", log }),
    validation: await loadMixture(validation, { dataDir, split: "test", log }),
  };
}

/**
 * Opens a mixture; where each of its tasks judges or rewards answers, so does the mixture.
 *
 * @throws {SyntaxError} for a text that is no mixture; {Error} where data is missing, with the command that fetches it.
 */
export async function loadMixture(text: string, source: MixtureSource): Promise<Task> {
  const { dataDir, split, log = SILENT } = source;
  const tasks: Task[] = [];
  for (const { name, rows, times } of parseMixture(text)) {
    const load = LOADERS[name];
    const task = load ? await load(source, rows) : await loadCustomJson(findConversations(name, dataDir));
    const wanted = rows ?? task.length;
    if (task.length < wanted) {
      log.warn(`${name} has ${task.length} ${split} rows, ${wanted} were wanted; all are taken`);
    }
    const cut = wanted < task.length ? sliceTask(task, { stop: wanted }) : task;
    for (let i = 0; i < times; i++) tasks.push(cut);
  }
  return tasks.length === 1 ? tasks[0] : new TaskMixture(tasks);
}

/** Finds a file of conversations: here, else in the data folder. */
function findConversations(name: string, dataDir: string): string {
  const path = [name, join(dataDir, name)].find((path) => existsSync(path));
  if (path !== undefined) return path;
  throw new Error(
    `Cannot read "${name}": it is neither here nor in "${dataDir}", expected JSON lines of conversations`,
  );
}
