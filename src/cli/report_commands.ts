/** `nanochat report`: the card of a run, a new start of it, and what a run has reached so far. */
import { type Folders, foldersOf, listPlaces, resolveBaseDir } from "../data/base_dir.ts";
import { makeCard } from "../report/card.ts";
import { readEnvironment, readHeader, writeHeader } from "../report/environment.ts";
import { writeCard } from "../report/page.ts";
import { readSections, removeSections } from "../report/sections.ts";
import { findWatched, watchRun } from "../report/watch.ts";
import type { Terminal } from "./progress.ts";
import { thisProgram } from "./version_facts.ts";

const HEIGHT = 16; // lines; the drawing of a piped call, and the most on a terminal
const WIDTH = 100;

/** Draws the losses of a run: on a terminal anew after each change until the run ends, piped once. */
export async function watch(
  name: string | undefined,
  { baseDir, terminal }: { baseDir?: string; terminal: Terminal },
): Promise<void> {
  const { path, name: found } = findWatched(resolveBaseDir(baseDir), name);
  terminal.info(`Watching ${found} (${path})`);
  const size = () => {
    if (!terminal.isTerminal) return { width: WIDTH, height: HEIGHT };
    const { columns, rows } = Deno.consoleSize();
    return { width: Math.min(columns - 1, 2 * WIDTH), height: Math.max(4, Math.min(HEIGHT, rows - 6)) };
  };
  let drawn = 0;
  for await (const lines of watchRun(path, { size })) {
    if (drawn > 0) terminal.raw(`\x1b[${drawn}A\x1b[J`);
    terminal.result(lines.join("\n"));
    if (!terminal.isTerminal) return;
    drawn = lines.length;
  }
}

/** Which report a command means, and whom it tells. */
export interface ReportOptions {
  readonly baseDir?: string;
  /** Name of a run in `runs/`; without it the base folder, or the most recent place that has sections. */
  readonly run?: string;
  readonly terminal: Terminal;
}

/** Starts a report anew: removes its sections and writes down when, where and with which sources the run begins. */
export function resetReport({ baseDir, run, terminal }: ReportOptions): void {
  const { report } = foldersOf(resolveBaseDir(baseDir), run);
  const removed = removeSections(report);
  writeHeader(report, readEnvironment(thisProgram()));
  terminal.result(`Started a new report in "${report}"; ${removed} sections of an earlier one are gone`, {
    folder: report,
    removed,
  });
}

/** Writes the card of a run as card.md, card.html and card.json. */
export async function generateReport(options: ReportOptions & { pricePerHour?: number }): Promise<void> {
  const { run, terminal, pricePerHour } = options;
  const base = resolveBaseDir(options.baseDir);
  const place = choosePlace(base, run);
  const sections = readSections(place.report);
  const environment = readHeader(place.report) ?? readEnvironment(thisProgram());
  const card = makeCard(sections, { name: place.run ?? "base folder", environment, pricePerHour });
  const paths = await writeCard(place.report, card, terminal);
  terminal.result(`Report of ${sections.length} stages:\n${paths.join("\n")}`, { files: paths });
}

/** The place whose report is meant. @throws {Error} where no stage has left a section yet. */
function choosePlace(base: string, run: string | undefined): Folders {
  const places = run === undefined ? listPlaces(base) : [foldersOf(base, run)];
  const place = places.find(({ report }) => readSections(report).length > 0);
  if (place) return place;
  const where = run === undefined ? `"${base}" or its runs` : `"${foldersOf(base, run).report}"`;
  throw new Error(
    `Cannot make a report: no stage has left a section in ${where}; run a stage, such as "nanochat train", first`,
  );
}
