/**
 * Evaluation of chat models (nanochat's scripts/chat_eval.py): questions with letters are judged by the most probable letter behind the
 * prompt, all others by what the model writes.
 *
 *   ChatCORE = mean of (accuracy - baseline) / (1 - baseline) over the tasks
 *
 * Each batch of questions, or each written answer, is a line in the result log, so that a killed evaluation goes on where it was.
 */
import { lettersOf } from "../../tasks/multiple_choice.ts";
import type { Task } from "../../tasks/task.ts";
import { renderForCompletion } from "../data/conversation.ts";
import type { Log } from "../data/log.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { Engine } from "../engine/engine.ts";
import type { GPT } from "../model/gpt.ts";
import { type Answered, answerRows, JUDGED_AHEAD, mapAhead } from "./answers.ts";
import { bootstrapInterval, type Count, type Interval } from "./interval.ts";
import { PromptLogits } from "./prompt_logits.ts";
import type { ResultLog } from "./result_log.ts";

/** A line of the result log: some rows of a task, and for each its samples, 1 = right. */
export interface ChatLine {
  readonly task: string;
  readonly rows: readonly number[];
  readonly right: readonly (readonly number[])[];
  /** Rows among these whose prompt leaves no room for an answer. */
  readonly tooLong: number;
}

/** What one task came to. */
export interface ChatTaskResult extends Count {
  /** Name of the task. */
  readonly name: string;
  /** Share of rows with a right answer among their samples. */
  readonly accuracy: number;
  /** 95 % of it, over the choice of the rows. */
  readonly interval: Interval;
  /** Chance that one of k samples is right, at k - 1; its first value is the mean over samples. */
  readonly passAt: readonly number[];
  /** Rows whose prompt leaves no room in the context: counted as wrong. */
  readonly tooLong: number;
}

/** How answers are made and how many rows are judged. */
export interface ChatEvalOptions {
  /** Questions with letters in one forward pass. */
  readonly batchSize: number;
  /** Written answers that are made at once; 0 = as many as the model suggests. */
  readonly rows?: number;
  /** Rows of a task; -1 = all. */
  readonly maxProblems: number;
  /** Written answers to each prompt; they share its prefill. */
  readonly samples: number;
  /** Tokens of a written answer at most. */
  readonly maxNewTokens: number;
  /** 0 = greedy. */
  readonly temperature: number;
  /** Choose among this many; 0 = all. */
  readonly topK: number;
  /** Where results are kept; without it a kill loses them. */
  readonly results?: ResultLog<ChatLine>;
  readonly log: Log;
  /** Ends between two batches of letters, or two tokens of written answers. */
  readonly stop?: AbortSignal;
}

/** Whom an evaluation asks. */
export interface ChatModel {
  readonly model: GPT;
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
}

const SEED = 42; // of every prompt, as in the reference

/** A line of the result log before its task. */
type Judged = Omit<ChatLine, "task">;

/**
 * Evaluates a model on a task. Undefined where `stop` ended it; the same call goes on from there.
 *
 * @throws {TypeError} for a task that cannot be evaluated, or a letter that is no single token.
 */
export async function evaluateChatTask(
  chat: ChatModel,
  { name, task }: { readonly name: string; readonly task: Task },
  options: ChatEvalOptions,
): Promise<ChatTaskResult | undefined> {
  const { maxProblems, results, log, stop } = options;
  if (!task.evaluate) {
    throw new TypeError(`Cannot evaluate ${name}: the task judges no answers, expected one that does`);
  }
  const count = maxProblems > 0 ? Math.min(maxProblems, task.length) : task.length;
  if (count === 0) throw new RangeError(`Cannot evaluate ${name}: it has no rows, expected at least one`);
  const lines = (results?.found ?? []).filter((line) => line.task === name);
  const done = new Set(lines.flatMap((line) => line.rows));
  const waiting = Array.from({ length: count }, (_, row) => row).filter((row) => !done.has(row));
  const report = () => {
    const right = lines.flatMap((line) => line.right).filter((samples) => samples.includes(1)).length;
    const detail = done.size > 0 ? `${(100 * right / done.size).toFixed(1)} % right` : undefined;
    log.progress({ label: name, done: done.size, total: count, detail });
  };
  report();
  const judged = (task.kind === "categorical" ? judgeLetters : judgeWritten)(chat, task, { waiting, options });
  for await (const batch of judged) {
    if (stop?.aborted) break;
    const line: ChatLine = { task: name, ...batch };
    lines.push(line);
    results?.add(line);
    for (const row of batch.rows) done.add(row);
    report();
  }
  return done.size < count ? undefined : summarise(name, lines, log);
}

/** Chooses the most probable letter behind each prompt, the first among equals. */
async function* judgeLetters(
  { model, tokenizer }: ChatModel,
  task: Task,
  { waiting, options: { batchSize } }: { readonly waiting: readonly number[]; readonly options: ChatEvalOptions },
): AsyncGenerator<Judged> {
  using logits = new PromptLogits(model);
  for (let at = 0; at < waiting.length; at += batchSize) {
    const rows = waiting.slice(at, at + batchSize);
    const conversations = rows.map((row) => task.conversation(row));
    const next = await logits.read(conversations.map((conversation) => renderForCompletion(tokenizer, conversation)));
    const right = await Promise.all(conversations.map(async (conversation, i) => {
      const letters = lettersOf(conversation);
      const scores = letters.map((letter) => next[i][letterId(tokenizer, letter)]);
      const chosen = letters[scores.indexOf(Math.max(...scores))];
      return [Number(await task.evaluate!(conversation, chosen))];
    }));
    yield { rows, right, tooLong: 0 };
  }
}

/** Finds the token of a letter. @throws {TypeError} where it is several. */
export function letterId(tokenizer: Tokenizer, letter: string): number {
  const ids = tokenizer.encode(letter);
  if (ids.length === 1) return ids[0];
  throw new TypeError(`Cannot judge the letter ${JSON.stringify(letter)}: it has ${ids.length} tokens, expected one`);
}

/** Lets the model write its answers and judges them while it writes the next ones. */
async function* judgeWritten(
  chat: ChatModel,
  task: Task,
  { waiting, options }: { readonly waiting: readonly number[]; readonly options: ChatEvalOptions },
): AsyncGenerator<Judged> {
  const { samples, maxNewTokens: maxTokens, temperature, topK, rows, stop: signal } = options;
  const sampling = { samples, maxTokens, temperature, topK, seed: SEED };
  const map = async ({ index, conversation, texts }: Answered): Promise<Judged> => {
    if (texts === null) return { rows: [index], right: [new Array<number>(samples).fill(0)], tooLong: 1 };
    const right = await Promise.all(texts.map(async (text) => Number(await task.evaluate!(conversation, text))));
    return { rows: [index], right: [right], tooLong: 0 };
  };
  const answered = answerRows(chat, { task, indices: waiting, sampling, rows, signal });
  yield* mapAhead(answered, { ahead: JUDGED_AHEAD, map });
}

function summarise(name: string, lines: readonly ChatLine[], log: Log): ChatTaskResult {
  const rows = lines.flatMap((line) => line.right);
  const tooLong = lines.reduce((sum, line) => sum + line.tooLong, 0);
  if (tooLong > 0) log.warn(`${name}: ${tooLong} prompts leave no room in the context and count as wrong`);
  const right = rows.filter((samples) => samples.includes(1)).length;
  const counts = { right, total: rows.length };
  const interval = bootstrapInterval([counts], ([accuracy]) => accuracy);
  return { name, ...counts, accuracy: right / rows.length, interval, passAt: passAtK(rows), tooLong };
}

/** Estimates, for k = 1..n samples, the chance that one of k is right: mean of 1 - C(n - c, k) / C(n, k) (arXiv:2107.03374, eq. 1). */
export function passAtK(rows: readonly (readonly number[])[]): number[] {
  const n = rows[0].length;
  return Array.from({ length: n }, (_, i) => {
    const k = i + 1;
    const chances = rows.map((samples) => {
      const wrong = n - samples.reduce((sum, right) => sum + right, 0);
      let miss = 1;
      for (let j = 0; j < k; j++) miss *= Math.max(0, wrong - j) / (n - j);
      return 1 - miss;
    });
    return chances.reduce((sum, chance) => sum + chance, 0) / rows.length;
  });
}

/** What a task counts for in ChatCORE. */
export interface ChatAccuracy {
  /** Share of right answers. */
  readonly accuracy: number;
  /** Share that guessing reaches. */
  readonly baseline: number;
}

/** Averages the accuracies of all tasks, each centred on what guessing reaches. */
export function chatCore(tasks: readonly ChatAccuracy[]): number {
  const centred = tasks.map(({ accuracy, baseline }) => (accuracy - baseline) / (1 - baseline));
  return centred.reduce((sum, value) => sum + value, 0) / centred.length;
}
