/** Written answers: takes rows of a task, gives what a model writes to each, several at once and in order, and judges them meanwhile. */
import type { Task } from "../../tasks/task.ts";
import { type Conversation, renderForCompletion } from "../data/conversation.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { Engine, Generated } from "../engine/engine.ts";

/** Answers that are judged while others are written: programs that a model wrote run beside it. */
export const JUDGED_AHEAD = 16;

/** How answers are sampled. */
export interface AnswerSampling {
  /** Answers to each prompt; they share its prefill. */
  readonly samples: number;
  /** Tokens of an answer at most. */
  readonly maxTokens: number;
  /** 0 = greedy. */
  readonly temperature: number;
  /** Choose among this many; 0 = all. */
  readonly topK: number;
  /** Of every prompt. */
  readonly seed: number;
}

/** A row of a task and the answers to it. */
export interface Answered {
  /** Row of the task. */
  readonly index: number;
  readonly conversation: Conversation;
  /** Text of each sample, names of special tokens included; null where the prompt leaves no room in the context. */
  readonly texts: readonly string[] | null;
}

/** Renders the prompt of a conversation; null where it leaves no room for an answer. */
export function promptOf(
  conversation: Conversation,
  { engine, tokenizer }: { readonly engine: Engine; readonly tokenizer: Tokenizer },
): number[] | null {
  const prompt = renderForCompletion(tokenizer, conversation);
  return prompt.length < engine.model.contextLen ? prompt : null;
}

/** Decodes what a model wrote behind its prompt. */
export function answersOf(tokenizer: Tokenizer, prompt: readonly number[], { sequences }: Generated): string[] {
  return sequences.map((ids) => tokenizer.decode(ids.slice(prompt.length)));
}

/** Answers rows of a task in order, `rows` samples at once (0 = as many as the model suggests). Ends early where `signal` says so. */
export async function* answerRows(
  model: { readonly engine: Engine; readonly tokenizer: Tokenizer },
  { task, indices, sampling, rows, signal }: {
    readonly task: Task;
    readonly indices: Iterable<number>;
    readonly sampling: AnswerSampling;
    readonly rows?: number;
    readonly signal?: AbortSignal;
  },
): AsyncGenerator<Answered, void, void> {
  const asked: { index: number; conversation: Conversation; prompt: number[] | null }[] = [];
  const requests = function* () {
    for (const index of indices) {
      const conversation = task.conversation(index);
      const prompt = promptOf(conversation, model);
      asked.push({ index, conversation, prompt });
      if (prompt) yield { ...sampling, prompt };
    }
  };
  const tooLong = function* () {
    while (asked[0]?.prompt === null) {
      const { index, conversation } = asked.shift()!;
      yield { index, conversation, texts: null };
    }
  };
  for await (const generated of model.engine.generateAll(requests(), { rows, signal })) {
    yield* tooLong();
    const { index, conversation, prompt } = asked.shift()!;
    yield { index, conversation, texts: answersOf(model.tokenizer, prompt!, generated) };
  }
  if (!signal?.aborted) yield* tooLong();
}

/** Applies an asynchronous function to values as they arrive, at most `ahead` of them at a time; gives the results in order. */
export async function* mapAhead<T, R>(
  values: AsyncIterable<T>,
  { ahead, map }: { readonly ahead: number; readonly map: (value: T) => Promise<R> },
): AsyncGenerator<R, void, void> {
  const open: { result: Promise<R>; isSettled: boolean }[] = [];
  for await (const value of values) {
    const entry = { result: map(value), isSettled: false };
    const settle = () => void (entry.isSettled = true);
    entry.result.then(settle, settle); // a failure is thrown where its turn comes
    open.push(entry);
    while (open.length >= ahead || open[0]?.isSettled) yield await open.shift()!.result;
  }
  for (const { result } of open) yield await result;
}
