/**
 * The sections of a report: what each stage leaves in `report/` as it finishes, `<title in lower case>.json` (nanochat/report.py). A
 * stage that runs again replaces its section. Only rank 0 writes.
 */
import { join } from "@std/path";
import { entries, type Stage } from "../data/base_dir.ts";
import { formatProblem, FORMATS } from "../data/formats.ts";

/** A value of a section's list. */
export type Item = string | number | boolean | null;

/** What one stage has to say. */
export interface Section {
  /** One of SECTION_TITLES, behind a comma how the model was rounded; or a title of its own, those come last. */
  readonly title: string;
  /** Command that made it: "nanochat train". */
  readonly command: string;
  /** Column of its scores in the summary. */
  readonly stage?: Stage;
  /** When it finished, ISO 8601. */
  readonly finished: string;
  /** How long it took. */
  readonly sec: number;
  /** Flags, counts and measurements in the order in which they are shown. */
  readonly items: Readonly<Record<string, Item>>;
  /** Scores by name, for the summary: accuracies from 0 to 1, CORE, ChatCORE, bits per byte. */
  readonly scores?: Readonly<Record<string, number>>;
  /** Texts of the model. */
  readonly samples?: readonly { readonly prompt: string; readonly text: string }[];
  /** Folder whose `events.jsonl` holds the steps. */
  readonly eventsFolder?: string;
}

/** Titles in the order of the pipeline. */
export const SECTION_TITLES = [
  "Tokenizer training",
  "Tokenizer evaluation",
  "Base model training",
  "Base model loss",
  "Base model evaluation",
  "Midtraining",
  "Chat evaluation mid",
  "Chat SFT",
  "Chat evaluation sft",
  "Chat RL",
  "Chat evaluation rl",
] as const;

function fileOf(title: string): string {
  return `${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.json`;
}

/** Writes a section, whole or not at all. */
export function writeSection(folder: string, section: Section): void {
  Deno.mkdirSync(folder, { recursive: true });
  const path = join(folder, fileOf(section.title));
  Deno.writeTextFileSync(`${path}.tmp`, JSON.stringify({ ...FORMATS.reportSection, ...section }, null, 2) + "\n");
  Deno.renameSync(`${path}.tmp`, path);
}

/**
 * Reads the sections of a folder in the order of the pipeline, others behind them by time.
 *
 * @throws {SyntaxError} naming a file that is no section.
 */
export function readSections(folder: string): Section[] {
  const files = entries(folder).filter(({ name }) => isSectionFile(name));
  const sections = files.map(({ name }) => readSection(join(folder, name)));
  const place = ({ title }: Section) => {
    const index = (SECTION_TITLES as readonly string[]).indexOf(title.split(",")[0]);
    return index < 0 ? SECTION_TITLES.length : index;
  };
  return sections.sort((a, b) => place(a) - place(b) || (a.finished < b.finished ? -1 : 1));
}

/** Removes the sections of a folder; returns how many there were. */
export function removeSections(folder: string): number {
  const files = entries(folder).filter(({ name }) => isSectionFile(name));
  for (const { name } of files) Deno.removeSync(join(folder, name));
  return files.length;
}

/** The files of `report/` that are no sections. */
export const HEADER_FILE = "header.json";
/** The card as data. */
export const CARD_FILE = "card.json";

function isSectionFile(name: string): boolean {
  return name.endsWith(".json") && name !== HEADER_FILE && name !== CARD_FILE;
}

function readSection(path: string): Section {
  const fail = (what: string): never => {
    throw new SyntaxError(
      `Cannot read "${path}": ${what}, expected a section of the report; remove the file or run its stage again`,
    );
  };
  let value: Section & { format?: string; version?: number };
  try {
    value = JSON.parse(Deno.readTextFileSync(path));
  } catch (cause) {
    return fail((cause as Error).message);
  }
  const problem = formatProblem(value, { expected: FORMATS.reportSection });
  if (problem) fail(problem);
  const isWhole = typeof value.title === "string" && typeof value.sec === "number" &&
    typeof value.finished === "string" && typeof value.items === "object" && value.items !== null;
  return isWhole ? value : fail("a field is missing");
}
