/** Golden core_eval: few-shot choices, prompts, tokens, spans, losses, verdicts and scores of a bundle of small tasks. */
import { join } from "@std/path";
import { SILENT } from "../../src/data/log.ts";
import { Tokenizer } from "../../src/data/tokenizer.ts";
import { chatCore } from "../../src/eval/chat_eval.ts";
import { type CoreBundle, type CoreTask, readBundle, readItems } from "../../src/eval/core_bundle.ts";
import { evaluateCore, lowest, meanLoss, repeats } from "../../src/eval/core_eval.ts";
import {
  chooseItems,
  commonLength,
  cropOption,
  fewShotIndices,
  findSpans,
  type Option,
  renderPrompts,
} from "../../src/eval/core_prompts.ts";
import { OptionScorer } from "../../src/eval/option_scorer.ts";
import { Device } from "../../src/tensor/device.ts";
import { configOf, GoldenModel } from "./model.ts";
import { Parity } from "./parity.ts";

/** What is recorded of one example. */
interface GoldenExample {
  readonly idx: number;
  readonly fewshot_indices: number[];
  readonly prompts: string[];
  readonly tokens: number[][];
  readonly start_idxs: number[];
  readonly end_idxs: number[];
  readonly cropped_tokens?: number[][];
  readonly cropped_start_idxs?: number[];
  readonly cropped_end_idxs?: number[];
  readonly mean_losses?: number[];
  readonly predicted_index?: number;
  readonly predicted_tokens?: number[];
  readonly is_correct: boolean;
}

/** Compares prompts and spans, and where the golden set holds the weights, losses and scores. */
export async function run(t: Parity): Promise<void> {
  const info = t.json("core.json");
  for (const name of t.files()) if (name !== "core.json") t.bytes(name);
  const bundle = await readBundle(join(t.folder, "eval_bundle"));
  using tokenizer = await goldenTokenizer(t.root, info.tokenizer);
  for (const { seqs, left, right } of info.find_common_length) {
    const common = [commonLength(seqs, "left"), commonLength(seqs, "right")];
    t.equal(`common length of ${JSON.stringify(seqs)}`, common, [left, right]);
  }
  const { baselines, accuracies, chatcore } = info.chatcore;
  const tasks = Object.keys(baselines).map((name) => ({ accuracy: accuracies[name], baseline: baselines[name] }));
  t.close("ChatCORE", [chatCore(tasks)], [chatcore], { abs: 1e-12 });

  const [folder, file] = info.weights.split("/");
  const source = new Parity(t.root, folder, () => {});
  if (!source.has(file)) {
    await compareTasks(t, { info, bundle, tokenizer, scorer: null });
    return t.skip("losses and scores", `this set has no ${info.weights}`);
  }
  using device = Device.open("cpu");
  const weights = source.tensors(file);
  using golden = new GoldenModel(device, { config: configOf(info.config), weights, training: false });
  using scorer = new OptionScorer(golden.model, { batchTokens: 512 });
  await compareTasks(t, { info, bundle, tokenizer, scorer });
  for (const maxPerTask of [-1, 5]) {
    const suffix = maxPerTask < 0 ? "" : `_max_per_task_${maxPerTask}`;
    const options = { bundle, maxPerTask, batchTokens: 256, log: SILENT };
    const result = (await evaluateCore({ model: golden.model, tokenizer }, options))!;
    for (const [i, { label, accuracy, centered }] of result.tasks.entries()) {
      const expected = info.tasks[i];
      // The reference's accuracies are float32.
      const known = maxPerTask < 0 ? expected.accuracy_shuffled : expected[`accuracy${suffix}`];
      t.close(`${label}: accuracy${suffix}`, [accuracy], [known], { abs: 1e-7 });
      t.close(`${label}: centred${suffix}`, [centered], [expected[`centered${suffix}`]], { abs: 2e-7 });
    }
    t.close(`CORE${suffix}`, [result.core], [info[`core_metric${suffix}`]], { abs: 2e-7 });
  }
}

interface Compared {
  // deno-lint-ignore no-explicit-any
  readonly info: any;
  readonly bundle: CoreBundle;
  readonly tokenizer: Tokenizer;
  readonly scorer: OptionScorer | null;
}

async function compareTasks(t: Parity, { info, bundle, tokenizer, scorer }: Compared): Promise<void> {
  for (const [i, task] of bundle.tasks.entries()) {
    const { examples, max_seq_len_40: cropped, shuffle1337_order: order, ...expected } = info.tasks[i];
    t.equal(`${task.label}: task`, [task.label, task.type, task.shots, task.delimiter, task.baseline], [
      ...[expected.label, expected.task_type, expected.num_fewshot, expected.continuation_delimiter],
      expected.random_baseline_percent / 100,
    ]);
    t.equal(`${task.label}: order`, chooseItems(order.map((_: number, i: number) => i), -1), order);
    await compareExamples(t, { task, tokenizer, scorer, examples });
    if (cropped) await compareExamples(t, { task, tokenizer, scorer, examples: cropped, maxTokens: 40 });
  }
}

/** Compares prompts, tokens and spans of each example, then the scores of all of them in batches. */
async function compareExamples(
  t: Parity,
  { task, tokenizer, scorer, examples, maxTokens = Infinity }: {
    task: CoreTask;
    tokenizer: Tokenizer;
    scorer: OptionScorer | null;
    examples: readonly GoldenExample[];
    maxTokens?: number;
  },
): Promise<void> {
  const items = await readItems(task);
  const all: Option[][] = [];
  for (const expected of examples) {
    const label = `${task.label} ${expected.idx}${maxTokens < Infinity ? ` of ${maxTokens} tokens` : ""}`;
    const chosen = fewShotIndices(expected.idx, { count: items.length, shots: task.shots });
    t.equal(`${label}: few shots`, chosen, expected.fewshot_indices);
    const prompts = renderPrompts(task, items[expected.idx], chosen.map((index) => items[index]));
    t.equal(`${label}: prompts`, prompts, expected.prompts);
    const encoded = await tokenizer.encodeBatch(prompts, { prepend: tokenizer.bosId });
    const options = findSpans(task, encoded)!;
    const spans = (list: readonly Option[]) => list.map(({ tokens, start, end }) => [Array.from(tokens), start, end]);
    t.equal(
      `${label}: tokens and spans`,
      spans(options),
      expected.tokens.map((tokens, i) => [tokens, expected.start_idxs[i], expected.end_idxs[i]]),
    );
    const cropped = options.map((option) => cropOption(option, maxTokens));
    if (expected.cropped_tokens) {
      t.equal(
        `${label}: cropped`,
        spans(cropped),
        expected.cropped_tokens.map((tokens, i) => {
          return [tokens, expected.cropped_start_idxs![i], expected.cropped_end_idxs![i]];
        }),
      );
    }
    all.push(cropped);
  }
  if (!scorer) return;
  const longest = (i: number) => Math.max(...all[i].map(({ end }) => end));
  for (const group of scorer.group([...examples.keys()], longest)) {
    const scores = await scorer.score(group.map((i) => all[i]));
    for (const [b, i] of group.entries()) {
      const expected = examples[i];
      const label = `${task.label} ${expected.idx}${maxTokens < Infinity ? ` of ${maxTokens} tokens` : ""}`;
      if (expected.mean_losses) {
        t.close(`${label}: mean losses`, scores[b].map(meanLoss), expected.mean_losses, { abs: 2e-5 });
        const best = lowest(scores[b]);
        const { gold } = items[expected.idx] as { gold: number };
        t.equal(`${label}: verdict`, [best, best === gold], [expected.predicted_index, expected.is_correct]);
      } else {
        t.equal(`${label}: verdict`, [Array.from(scores[b][0].predicted), repeats(all[i][0], scores[b][0])], [
          ...[expected.predicted_tokens, expected.is_correct],
        ]);
      }
    }
  }
}

/** Loads a tokenizer of the golden set. */
export async function goldenTokenizer(root: string, path: string): Promise<Tokenizer> {
  const [folder, file] = path.split("/");
  const golden = new Parity(root, folder, () => {}).json(file);
  const tokens: Uint8Array<ArrayBuffer>[] = golden.mergeable_ranks_base64.map((token: string) =>
    Uint8Array.fromBase64(token)
  );
  return await Tokenizer.fromParts({ pattern: golden.split_pattern, tokens, specials: golden.special_tokens });
}
