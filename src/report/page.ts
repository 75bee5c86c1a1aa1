/**
 * The report card as one page that needs no network: text, curves (uPlot inside) and samples; and the files of the card. Everything that a model or a user wrote is
 * escaped; the page may run only its own two scripts.
 */
import { join } from "@std/path";
import uplotScript from "uplot/dist/uPlot.iife.min.js" with { type: "text" };
import uplotStyle from "uplot/dist/uPlot.min.css" with { type: "text" };
import { STAGES } from "../data/base_dir.ts";
import { FORMATS } from "../data/formats.ts";
import type { Log } from "../data/log.ts";
import { type Card, cardMarkdown, duration, environmentRows, eventsOf, scoreRows, shown, timeRows } from "./card.ts";
import type { RunEvent } from "./events.ts";
import chartsScript from "./page/charts.js" with { type: "text" };
import pageStyle from "./page/report.css" with { type: "text" };
import { CARD_FILE, type Section } from "./sections.ts";

/** Points of a curve; a longer run is drawn by the mean of neighbours. */
const MAX_POINTS = 1000;

interface Curve {
  readonly label: string;
  readonly y: (number | null)[];
}

interface Chart {
  readonly title: string;
  readonly x: number[];
  readonly series: Curve[];
}

/** Renders the card as a page. */
export async function cardPage(card: Card, log: Log): Promise<string> {
  const scripts = [uplotScript, chartsScript];
  const hashes = await Promise.all(scripts.map(scriptHash));
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src ${hashes.join(" ")}`;
  const priced = card.pricePerHour === undefined ? [] : ["cost"];
  const scores = scoreRows(card);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>nanochat: ${escaped(card.name)}</title>
<style>${uplotStyle}\n${pageStyle}</style>
</head>
<body>
<h1>nanochat: ${escaped(card.name)}</h1>
<p class="soft">Generated ${escaped(card.generated)}.</p>
${list(environmentRows(card))}
<h2>Summary</h2>
${scores.length > 0 ? table(["metric", ...STAGES.map((stage) => stage.toUpperCase())], scores) : ""}
${table(["stage", "time", ...priced], timeRows(card))}
${card.sections.map((section, i) => sectionHtml(section, { id: `charts-${i}`, log })).join("\n")}
${scripts.map((script) => `<script>${script}</script>`).join("\n")}
</body>
</html>
`;
}

/** Writes the card into a folder as card.md, card.html and card.json; returns the paths. */
export async function writeCard(folder: string, card: Card, log: Log): Promise<string[]> {
  const files: readonly [string, string][] = [
    ["card.md", cardMarkdown(card)],
    ["card.html", await cardPage(card, log)],
    [CARD_FILE, JSON.stringify({ ...FORMATS.report, ...card }, null, 2) + "\n"],
  ];
  return files.map(([name, text]) => {
    const path = join(folder, name);
    Deno.writeTextFileSync(`${path}.tmp`, text);
    Deno.renameSync(`${path}.tmp`, path);
    return path;
  });
}

function sectionHtml(section: Section, { id, log }: { id: string; log: Log }): string {
  const { title, command, finished, sec, items, scores, samples } = section;
  const values = Object.entries({ ...items, ...scores }).map(([name, value]): [string, string] => [name, shown(value)]);
  const charts = chartsOf(eventsOf(section, log));
  const drawn = charts.length === 0 ? "" : `<div class="charts" data-charts="${id}"></div>
<script type="application/json" id="${id}">${JSON.stringify(charts).replaceAll("<", "\\u003c")}</script>`;
  const quotes = (samples ?? []).map(({ prompt, text }) =>
    `<blockquote><strong>${escaped(prompt)}</strong>${escaped(text)}</blockquote>`
  );
  return `<h2>${escaped(title)}</h2>
<p class="soft"><code>${escaped(command)}</code>, finished ${escaped(finished)} after ${duration(sec)}.</p>
${drawn}
${list(values)}
${quotes.join("\n")}`;
}

/** The curves of a run: training loss, bits per byte, learning rate, speed; those that were measured. */
export function chartsOf(events: readonly RunEvent[]): Chart[] {
  const steps = events.filter(({ kind }) => kind === "step");
  const evals = events.filter(({ kind, bpb }) => kind === "eval" && typeof bpb === "number");
  const chart = (title: string, from: readonly RunEvent[], value: (event: RunEvent) => number | null | undefined) => {
    const points = from.map((event) => [event.step, value(event) ?? null] as const).filter(([_, y]) => y !== null);
    if (points.length < 2) return [];
    const groups = thinned(points as readonly (readonly [number, number])[]);
    return [{ title, x: groups.map(([x]) => x), series: [{ label: title, y: groups.map(([_, y]) => y) }] }];
  };
  return [
    ...chart("training loss, nats per token", steps, ({ loss }) => loss),
    ...chart("validation, bits per byte", evals, ({ bpb }) => bpb),
    ...chart("learning rate, share of its peak", steps, ({ lr }) => lr),
    ...chart("tokens per second", steps, ({ tokPerSec }) => tokPerSec),
  ];
}

/** Puts neighbours together until MAX_POINTS are left: the mean of both coordinates. */
function thinned(points: readonly (readonly [number, number])[]): [number, number][] {
  const size = Math.ceil(points.length / MAX_POINTS);
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => {
    const group = points.slice(i * size, (i + 1) * size);
    const mean = (axis: 0 | 1) => group.reduce((sum, point) => sum + point[axis], 0) / group.length;
    return [mean(0), mean(1)];
  });
}

function list(rows: readonly (readonly [string, string])[]): string {
  return `<dl>${rows.map(([name, value]) => `<dt>${escaped(name)}</dt><dd>${escaped(value)}</dd>`).join("")}</dl>`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = (row: readonly string[], tag: "th" | "td") =>
    `<tr>${row.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join("")}</tr>`;
  return `<div class="wide"><table><thead>${cells(head, "th")}</thead><tbody>${
    rows.map((row) => cells(row, "td")).join("")
  }</tbody></table></div>`;
}

const ENTITIES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (character) => ENTITIES[character]);
}

/** The source expression of a content-security policy that allows exactly this script. */
async function scriptHash(script: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(script));
  return `'sha256-${btoa(String.fromCharCode(...new Uint8Array(digest)))}'`;
}
