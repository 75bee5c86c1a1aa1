/**
 * The CORE metric (arXiv:2406.11794, nanochat/core_eval.py): 22 tasks of a bundle, each scored without generation.
 *
 *   centred = (accuracy - baseline) / (1 - baseline)       CORE = mean of the centred accuracies
 *
 * An item with choices is right where the choice with the lowest mean loss is the right one, a continuation where every token is the
 * most probable one. Items are scored in groups of similar length; each group is a line in the result log, so that a killed evaluation
 * goes on where it was.
 */
import type { Log } from "../data/log.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { GPT } from "../model/gpt.ts";
import { type CoreBundle, type CoreItem, type CoreTask, readItems } from "./core_bundle.ts";
import { chooseItems, cropOption, fewShotIndices, findSpans, type Option, renderPrompts } from "./core_prompts.ts";
import { bootstrapInterval, type Count, type Interval } from "./interval.ts";
import { type OptionScore, OptionScorer } from "./option_scorer.ts";
import { ResultLog } from "./result_log.ts";

/** What one task came to. */
export interface CoreTaskResult extends Count {
  /** Name of the task. */
  readonly label: string;
  /** right / total. */
  readonly accuracy: number;
  /** Accuracy from guessing (0) to perfect (1). */
  readonly centered: number;
  /** 95 % of the centred accuracy, over the choice of the items. */
  readonly interval: Interval;
  /** Items without a span to compare, which count neither as right nor as wrong. */
  readonly skipped: number;
  /** Items whose prompt was longer than the model's positions: its beginning was cut. */
  readonly cut: number;
}

/** What a model came to. */
export interface CoreResult {
  /** Tasks in the order of the bundle. */
  readonly tasks: readonly CoreTaskResult[];
  /** Mean of the centred accuracies. */
  readonly core: number;
  /** 95 % of it, over the choice of the items. */
  readonly interval: Interval;
}

/** Options of an evaluation. */
export interface CoreOptions {
  readonly bundle: CoreBundle;
  /** Items of a task; -1 = all. */
  readonly maxPerTask: number;
  /** Tokens of a forward pass: what the memory depends on. */
  readonly batchTokens: number;
  /** Keep the last tokens of longer prompts; default: the model's positions. */
  readonly maxTokens?: number;
  /** Where results are kept until the end, and what identifies this evaluation; without it a kill loses them. */
  readonly resume?: { readonly path: string; readonly head: unknown };
  readonly log: Log;
  /** Ends between two batches. */
  readonly stop?: AbortSignal;
}

/** A line of the result log: one group of items. */
interface GroupLine {
  readonly task: string;
  /** Items of the shuffled task. */
  readonly items: readonly number[];
  /** 1 = right, 0 = wrong, -1 = skipped. */
  readonly right: readonly number[];
  /** How many prompts were cut. */
  readonly cut: number;
}

/** An item ready to be scored; no options where it has no span. */
interface Prepared {
  readonly index: number;
  readonly item: CoreItem;
  readonly options: readonly Option[];
  readonly cut: boolean;
}

const WINDOW = 128; // items that are encoded and sorted by length together

/**
 * Evaluates a model. Undefined where `stop` ended it; the same call goes on from there.
 *
 * @throws {SyntaxError} where a line of the bundle is malformed.
 */
export async function evaluateCore(
  { model, tokenizer }: { model: GPT; tokenizer: Tokenizer },
  options: CoreOptions,
): Promise<CoreResult | undefined> {
  const { bundle, resume, log, stop } = options;
  using results = resume ? new ResultLog<GroupLine>(resume.path, resume.head) : null;
  const found = Map.groupBy(results?.found ?? [], ({ task }) => task);
  if (results && results.found.length > 0) {
    const items = results.found.reduce((sum, line) => sum + line.items.length, 0);
    log.info(`Going on behind ${items} items that were evaluated before`);
  }
  using scorer = new OptionScorer(model, options);
  const tasks: CoreTaskResult[] = [];
  for (const [i, task] of bundle.tasks.entries()) {
    const label = `CORE ${i + 1} of ${bundle.tasks.length}, ${task.label}`;
    const lines = found.get(task.label) ?? [];
    const items = chooseItems(await readItems(task), options.maxPerTask);
    const done = new Set(lines.flatMap((line) => line.items));
    const report = () => log.progress({ label, done: done.size, total: items.length });
    report();
    const waiting = Array.from(items.keys()).filter((index) => !done.has(index));
    for (let at = 0; at < waiting.length; at += WINDOW) {
      const window = waiting.slice(at, at + WINDOW);
      const maxTokens = Math.min(options.maxTokens ?? Infinity, scorer.maxTokens);
      for (const group of await prepare(task, { items, window, tokenizer, scorer, maxTokens })) {
        if (stop?.aborted) return undefined;
        const line: GroupLine = {
          task: task.label,
          items: group.map(({ index }) => index),
          right: await judge(task, group, scorer),
          cut: group.filter(({ cut }) => cut).length,
        };
        lines.push(line);
        results?.add(line);
        for (const index of line.items) done.add(index);
        report();
      }
    }
    tasks.push(summarise(task, lines, log));
  }
  const result = total(bundle, tasks);
  results?.remove();
  return result;
}

/** Encodes a window of items and cuts it into groups of similar length, those without a span in groups of their own. */
async function prepare(
  task: CoreTask,
  { items, window, tokenizer, scorer, maxTokens }: {
    readonly items: readonly CoreItem[];
    readonly window: readonly number[];
    readonly tokenizer: Tokenizer;
    readonly scorer: OptionScorer;
    readonly maxTokens: number;
  },
): Promise<Prepared[][]> {
  const prompts = window.map((index) => {
    const shots = fewShotIndices(index, { count: items.length, shots: task.shots }).map((shot) => items[shot]);
    return renderPrompts(task, items[index], shots);
  });
  const encoded = await tokenizer.encodeBatch(prompts.flat(), { prepend: tokenizer.bosId });
  let at = 0;
  const prepared = window.map((index, i): Prepared => {
    const spans = findSpans(task, encoded.slice(at, at += prompts[i].length)) ?? [];
    const options = spans.map((option) => cropOption(option, maxTokens));
    return { index, item: items[index], options, cut: options.some((option, j) => option !== spans[j]) };
  });
  const longest = ({ options }: Prepared) => Math.max(...options.map(({ end }) => end));
  const scored = prepared.filter(({ options }) => options.length > 0).sort((a, b) => longest(a) - longest(b));
  const skipped = prepared.filter(({ options }) => options.length === 0);
  return [...(skipped.length > 0 ? [skipped] : []), ...scorer.group(scored, longest)];
}

/** Scores a group: 1 = right, 0 = wrong, -1 = without a span. */
async function judge(task: CoreTask, group: readonly Prepared[], scorer: OptionScorer): Promise<number[]> {
  if (group[0].options.length === 0) return group.map(() => -1);
  const scores = await scorer.score(group.map(({ options }) => options));
  return group.map(({ item, options }, b) => {
    if (task.type === "language_modeling") return repeats(options[0], scores[b][0]) ? 1 : 0;
    return lowest(scores[b]) === (item as { gold: number }).gold ? 1 : 0;
  });
}

/** Tells whether the model would have written every token of the span. */
export function repeats({ tokens, start }: Option, { predicted }: OptionScore): boolean {
  return predicted.every((id, i) => id === tokens[start + i]);
}

/** Finds the option with the lowest mean loss, the first among equals. */
export function lowest(scores: readonly OptionScore[]): number {
  const means = scores.map(meanLoss);
  return means.indexOf(Math.min(...means));
}

/** Averages the losses of a span. */
export function meanLoss({ losses }: OptionScore): number {
  return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
}

function summarise(task: CoreTask, lines: readonly GroupLine[], log: Log): CoreTaskResult {
  const { label, baseline } = task;
  const verdicts = lines.flatMap((line) => line.right);
  const skipped = verdicts.filter((verdict) => verdict < 0).length;
  const right = verdicts.filter((verdict) => verdict > 0).length;
  const count = { right, total: verdicts.length - skipped };
  const cut = lines.reduce((sum, line) => sum + line.cut, 0);
  if (count.total === 0) {
    throw new RangeError(`Cannot score ${label}: none of its ${skipped} items has a span, expected at least one`);
  }
  if (skipped > 0) {
    log.warn(`${label}: ${skipped} items skipped, whose continuation merges with the prompt into one token`);
  }
  if (cut > 0) log.warn(`${label}: ${cut} prompts were longer than the model's positions and lost their beginning`);
  const centre = (accuracy: number) => (accuracy - baseline) / (1 - baseline);
  const accuracy = right / count.total;
  const interval = bootstrapInterval([count], ([each]) => centre(each));
  return { label, ...count, accuracy, centered: centre(accuracy), interval, skipped, cut };
}

function total({ tasks }: CoreBundle, results: readonly CoreTaskResult[]): CoreResult {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const centre = (accuracy: number, i: number) => (accuracy - tasks[i].baseline) / (1 - tasks[i].baseline);
  return {
    tasks: results,
    core: mean(results.map(({ centered }) => centered)),
    interval: bootstrapInterval(results, (accuracies) => mean(accuracies.map(centre))),
  };
}
