/**
 * The report card: everything that the stages of a run left, as one object, as Markdown (nanochat/report.py) and, in `page.ts`, as a page.
 */
import { join } from "@std/path";
import { format as formatBytes } from "@std/fmt/bytes";
import { format as formatDuration } from "@std/fmt/duration";
import { type Stage, STAGES } from "../data/base_dir.ts";
import type { Log } from "../data/log.ts";
import type { Environment } from "./environment.ts";
import { EVENTS_FILE, readEvents, type RunEvent } from "./events.ts";
import type { Item, Section } from "./sections.ts";

/** A report card. */
export interface Card {
  /** Name of the run, or of the base folder. */
  readonly name: string;
  /** When the card was made, ISO 8601. */
  readonly generated: string;
  readonly environment: Environment;
  readonly sections: readonly Section[];
  /** Scores by name, then by stage; absent where a stage has none. */
  readonly scores: Readonly<Record<string, Partial<Record<Stage, number>>>>;
  /** Time of all stages together. */
  readonly totalSec: number;
  /** Price of an hour of the machine, where it was given. */
  readonly pricePerHour?: number;
}

/** Puts the card together. Within a stage the later section's score of a name counts. */
export function makeCard(
  sections: readonly Section[],
  { name, environment, pricePerHour }: { name: string; environment: Environment; pricePerHour?: number },
): Card {
  const scores: Record<string, Partial<Record<Stage, number>>> = {};
  for (const { stage, scores: own } of sections) {
    if (stage === undefined) continue;
    for (const [score, value] of Object.entries(own ?? {})) (scores[score] ??= {})[stage] = value;
  }
  const totalSec = sections.reduce((sum, { sec }) => sum + sec, 0);
  const ordered = Object.fromEntries(Object.entries(scores).sort(([a], [b]) => rank(a) - rank(b) || (a < b ? -1 : 1)));
  return { name, generated: new Date().toISOString(), environment, sections, scores: ordered, totalSec, pricePerHour };
}

/** CORE stands first and ChatCORE last, as in the reference. */
function rank(score: string): number {
  return score === "CORE" ? 0 : score === "ChatCORE" ? 2 : 1;
}

/** Reads the steps of a section's run; none where it has no events or they are gone. */
export function eventsOf({ eventsFolder }: Section, log: Log): RunEvent[] {
  if (eventsFolder === undefined) return [];
  try {
    return readEvents(join(eventsFolder, EVENTS_FILE), log);
  } catch (error) {
    log.warn(`The report has no curves of "${eventsFolder}": ${(error as Error).message}`);
    return [];
  }
}

/** Writes a value as people read it: four decimals, thousands apart from 10,000 on. */
export function shown(value: Item): string {
  if (typeof value !== "number") return value === null ? "none" : String(value);
  if (!Number.isInteger(value)) return Math.abs(value) < 1e-3 ? value.toPrecision(4) : value.toFixed(4);
  return Math.abs(value) >= 10_000 ? value.toLocaleString("en-US") : String(value);
}

/** Writes a length of time. */
export function duration(sec: number): string {
  return formatDuration(Math.max(1, Math.round(sec)) * 1000, { ignoreZero: true });
}

/** What a time costs, where the price of an hour is known. */
export function cost(sec: number, pricePerHour: number | undefined): string | undefined {
  return pricePerHour === undefined ? undefined : `$${(sec / 3600 * pricePerHour).toFixed(2)}`;
}

/** Lists the environment as lines of a name and a value. */
export function environmentRows({ environment }: Card): [string, string][] {
  const { started, program, platform, cpu, cores, memoryBytes, git, code } = environment;
  const rows: [string, string][] = [
    ["run started", started],
    ["program", program],
    ["platform", platform],
    ["processor", `${cpu}, ${cores} cores`],
    ["memory", formatBytes(memoryBytes, { binary: true })],
  ];
  if (git) rows.push(["git", `${git.branch} ${git.commit} (${git.clean ? "clean" : "changed"}): ${git.subject}`]);
  if (code) {
    rows.push([
      "code",
      `${shown(code.files)} files, ${shown(code.lines)} lines, ${shown(code.characters)} characters, about ` +
      `${shown(code.tokens)} tokens; ${shown(code.lockLines)} lines of locked dependencies`,
    ]);
  }
  return rows;
}

/** Lists the stages with their time and, where the price is known, their cost; the sum last. */
export function timeRows({ sections, totalSec, pricePerHour }: Card): string[][] {
  const rows = [...sections, { title: "total", sec: totalSec }];
  return rows.map(({ title, sec }) => [title, duration(sec), cost(sec, pricePerHour) ?? []].flat());
}

/** Lists the summary: a score's name and its value in each stage, "-" where there is none. */
export function scoreRows({ scores }: Card): string[][] {
  return Object.entries(scores).map(([name, byStage]) => [
    name,
    ...STAGES.map((stage) => byStage[stage] === undefined ? "-" : byStage[stage].toFixed(4)),
  ]);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

/** Renders the card as Markdown. */
export function cardMarkdown(card: Card): string {
  const priced = card.pricePerHour === undefined ? [] : ["cost"];
  const blocks = [
    `# nanochat: ${card.name}`,
    `Generated ${card.generated}.`,
    environmentRows(card).map(([name, value]) => `- ${name}: ${value}`).join("\n"),
    "## Summary",
    ...(Object.keys(card.scores).length > 0
      ? [table(["metric", ...STAGES.map((stage) => stage.toUpperCase())], scoreRows(card))]
      : ["No stage has been scored yet."]),
    table(["stage", "time", ...priced], timeRows(card)),
  ];
  for (const { title, command, finished, sec, items, scores, samples } of card.sections) {
    blocks.push(`## ${title}`, `\`${command}\`, finished ${finished} after ${duration(sec)}.`);
    const rows = [...Object.entries(items), ...Object.entries(scores ?? {})];
    if (rows.length > 0) blocks.push(rows.map(([name, value]) => `- ${name}: ${shown(value)}`).join("\n"));
    for (const { prompt, text } of samples ?? []) {
      blocks.push(`${prompt}${text}`.split("\n").map((line) => `> ${line}`).join("\n"));
    }
  }
  return blocks.join("\n\n") + "\n";
}
