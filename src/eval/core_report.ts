/** How a CORE evaluation is written down: the reference's CSV (base_eval/base_model_<step>.csv), JSON, and a table beside GPT-2. */
import type { CoreBundle } from "./core_bundle.ts";
import type { CoreResult } from "./core_eval.ts";

/** Writes the reference's CSV: columns of 35, 10 and 10 characters, six decimals, CORE last. */
export function coreCsv({ tasks, core }: CoreResult): string {
  const line = (...cells: string[]) => `${cells.map((cell, i) => cell.padEnd(i === 0 ? 35 : 10)).join(", ")}\n`;
  return [
    line("Task", "Accuracy", "Centered"),
    ...tasks.map(({ label, accuracy, centered }) => line(label, accuracy.toFixed(6), centered.toFixed(6))),
    line("CORE", "", core.toFixed(6)),
  ].join("");
}

/** Gives everything that is known about an evaluation as one JSON object. */
export function coreJson({ tasks, core, interval }: CoreResult): Record<string, unknown> {
  return {
    core,
    core_ci95: interval,
    tasks: tasks.map(({ label, right, total, accuracy, centered, interval, skipped, cut }) => {
      return { task: label, right, total, accuracy, centered, centered_ci95: interval, skipped, cut };
    }),
  };
}

/** Draws a table of the centred accuracies with their intervals, published scores of the bundle beside them. */
export function coreTable({ tasks, core, interval }: CoreResult, { published }: CoreBundle): string {
  const number = (value: number | undefined) => (value === undefined ? "-" : value.toFixed(4)).padStart(8);
  const row = (label: string, count: string, centered: number, [low, high]: readonly number[]) =>
    [
      label.padEnd(32),
      count.padStart(6),
      number(centered),
      `${number(low)} to${number(high)}`,
      ...published.map((scores) => number(scores.centered.get(label)).padStart(12)),
    ].join(" ");
  const head = [
    "centred accuracy".padEnd(32),
    "items".padStart(6),
    "ours".padStart(8),
    "95 % interval".padStart(19),
    ...published.map(({ name }) => name.padStart(12)),
  ].join(" ");
  return [
    head,
    ...tasks.map(({ label, total, centered, interval }) => row(label, String(total), centered, interval)),
    row("CORE", "", core, interval),
  ].join("\n");
}
