/**
 * Rollouts: what a model answers to the prompts of a task, what the answers are worth, and how often one of several is right
 * (nanochat/chat_rl.py). The samples of one prompt share its prefill.
 */
import type { Task } from "../../tasks/task.ts";
import type { Conversation } from "../data/conversation.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { Engine } from "../engine/engine.ts";
import { type Answered, answerRows, answersOf, JUDGED_AHEAD, mapAhead } from "../eval/answers.ts";

/** How answers are sampled. */
export interface RolloutSampling {
  /** 0 = greedy. */
  readonly temperature: number;
  /** Choose among this many; 0 = all. */
  readonly topK: number;
  /** Tokens of an answer at most. */
  readonly maxNewTokens: number;
}

/** Whom rollouts are made with. */
export interface RolloutModel {
  /** Engine over the model. */
  readonly engine: Engine;
  /** Tokenizer of the model. */
  readonly tokenizer: Tokenizer;
}

/** Answers to one prompt. */
export interface Rollout {
  /** Row of the task. */
  readonly index: number;
  /** Ids of each sample, the prompt first, without the token that ended it. */
  readonly sequences: readonly (readonly number[])[];
  /** 1 = sampled, 0 = prompt or forced by a tool. */
  readonly masks: readonly (readonly number[])[];
  /** Text of each answer, names of special tokens included. */
  readonly answers: readonly string[];
}

/** What is asked of a model in a step. */
export interface RolloutPrompt {
  /** Row of the task. */
  readonly index: number;
  /** Its ids. */
  readonly prompt: readonly number[];
}

/** Samples answers to prompts, in groups of at most `group` whose seed `seedOf` gives; in the order of the prompts. */
export async function* rollOut(
  { engine, tokenizer }: RolloutModel,
  prompts: readonly RolloutPrompt[],
  { samples, group, sampling, seedOf, signal }: {
    readonly samples: number;
    readonly group: number;
    readonly sampling: RolloutSampling;
    readonly seedOf: (index: number, group: number) => number;
    readonly signal?: AbortSignal;
  },
): AsyncGenerator<Rollout, void, void> {
  const { temperature, topK, maxNewTokens: maxTokens } = sampling;
  const requests = prompts.flatMap(({ index, prompt }) =>
    Array.from({ length: Math.ceil(samples / group) }, (_, i) => {
      const rows = Math.min(group, samples - i * group);
      return { prompt, samples: rows, maxTokens, temperature, topK, seed: seedOf(index, i) };
    })
  );
  const waiting = prompts.values();
  let sequences: number[][] = [], masks: number[][] = [];
  for await (const generated of engine.generateAll(requests, { signal })) {
    sequences.push(...generated.sequences);
    masks.push(...generated.masks);
    if (sequences.length < samples) continue;
    const { index, prompt } = waiting.next().value!;
    yield { index, sequences, masks, answers: answersOf(tokenizer, prompt, { sequences, masks }) };
    [sequences, masks] = [[], []];
  }
}

/** Takes the mean of all samples from each reward: no division by a deviation (arXiv:2503.20783 argues for that). */
export function advantagesOf(rewards: readonly number[]): number[] {
  const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
  return rewards.map((reward) => reward - mean);
}

/** What an evaluation of rollouts found. */
export interface PassAtK {
  /** Share of rows with a right answer among the first k samples, at k - 1. */
  readonly passAt: readonly number[];
  /** Mean reward of each row; its length is the number of rows. */
  readonly rewards: readonly number[];
  /** Rows whose prompt leaves no room in the context: counted as wrong. */
  readonly tooLong: number;
}

/**
 * Samples answers to the first rows of a task and judges them.
 *
 * @param options.signal ends the evaluation early; the result is null then
 */
export async function evaluatePassAtK(
  model: RolloutModel,
  { task, examples, samples, sampling, seed = 42, signal }: {
    readonly task: Task;
    readonly examples: number;
    readonly samples: number;
    readonly sampling: RolloutSampling;
    readonly seed?: number;
    readonly signal?: AbortSignal;
  },
): Promise<PassAtK | null> {
  const rows = Math.min(examples, task.length);
  const passed = new Array<number>(samples).fill(0);
  const rewards: number[] = [];
  let tooLong = 0;
  const { temperature, topK, maxNewTokens: maxTokens } = sampling;
  const answered = answerRows(model, {
    task,
    indices: Array.from({ length: rows }, (_, index) => index),
    sampling: { samples, maxTokens, temperature, topK, seed },
    signal,
  });
  const map = async ({ conversation, texts }: Answered) => ({
    right: texts && await Promise.all(texts.map((text) => isRight(task, conversation, text))),
    reward: (texts ?? []).reduce((sum, text) => sum + rewardOf(task, conversation, text), 0) / samples,
  });
  for await (const { right, reward } of mapAhead(answered, { ahead: JUDGED_AHEAD, map })) {
    rewards.push(reward);
    if (right === null) tooLong++;
    const first = right?.indexOf(true) ?? -1;
    for (let k = first; first >= 0 && k < samples; k++) passed[k]++;
  }
  return rewards.length < rows ? null : { passAt: passed.map((count) => count / rows), rewards, tooLong };
}

/** Rewards an answer. @throws {RangeError} for a reward that is not finite. */
export function rewardOf(task: Task, conversation: Conversation, answer: string): number {
  const reward = task.reward?.(conversation, answer);
  if (reward === undefined || !Number.isFinite(reward)) {
    throw new RangeError(`Cannot reward an answer: the task gives ${reward}, expected a finite number`);
  }
  return reward;
}

function isRight(task: Task, conversation: Conversation, answer: string): boolean | Promise<boolean> {
  return task.evaluate ? task.evaluate(conversation, answer) : rewardOf(task, conversation, answer) > 0;
}
