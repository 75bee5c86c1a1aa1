/**
 * Rollouts: what a model answers to the prompts of a task, what the answers are worth, and how often one of several is right
 * (nanochat/chat_rl.py). The samples of one prompt share its prefill.
 */
import type { Task } from "../../tasks/task.ts";
import { type Conversation, renderForCompletion } from "../data/conversation.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { Engine } from "../engine/engine.ts";

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

/** Renders the prompt of a row; null where it leaves no room for an answer. */
export function promptOf(task: Task, index: number, { engine, tokenizer }: RolloutModel): number[] | null {
  const prompt = renderForCompletion(tokenizer, task.conversation(index));
  return prompt.length < engine.model.contextLen ? prompt : null;
}

/** Samples answers to one prompt in groups of at most `group`; `seedOf` gives the seed of each group. */
export async function rollOut(
  { engine, tokenizer }: RolloutModel,
  { index, prompt, samples, group, sampling, seedOf }: {
    readonly index: number;
    readonly prompt: readonly number[];
    readonly samples: number;
    readonly group: number;
    readonly sampling: RolloutSampling;
    readonly seedOf: (group: number) => number;
  },
): Promise<Rollout> {
  const sequences: number[][] = [], masks: number[][] = [];
  const { temperature, topK, maxNewTokens: maxTokens } = sampling;
  for (let i = 0; sequences.length < samples; i++) {
    const rows = Math.min(group, samples - sequences.length);
    const options = { samples: rows, maxTokens, temperature, topK, seed: seedOf(i) };
    const generated = await engine.generateBatch(prompt, options);
    sequences.push(...generated.sequences);
    masks.push(...generated.masks);
  }
  return { index, sequences, masks, answers: sequences.map((ids) => tokenizer.decode(ids.slice(prompt.length))) };
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
  for (let index = 0; index < rows; index++) {
    if (signal?.aborted) return null;
    const prompt = promptOf(task, index, model);
    if (prompt === null) {
      tooLong++;
      rewards.push(0);
      continue;
    }
    const { answers } = await rollOut(model, { index, prompt, samples, group: samples, sampling, seedOf: () => seed });
    const conversation = task.conversation(index);
    const right = await Promise.all(answers.map((answer) => isRight(task, conversation, answer)));
    const first = right.indexOf(true);
    for (let k = first; first >= 0 && k < samples; k++) passed[k]++;
    rewards.push(answers.reduce((sum, answer) => sum + rewardOf(task, conversation, answer), 0) / samples);
  }
  return { passAt: passed.map((count) => count / rows), rewards, tooLong };
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
