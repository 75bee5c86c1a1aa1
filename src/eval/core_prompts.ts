/**
 * Prompts of the CORE tasks and the tokens in them that are scored (nanochat/core_eval.py).
 *
 * Each shot is `question d answer` followed by a blank line, then comes the item: one prompt a choice (multiple choice), one a context
 * (schema), or one with the continuation (language modelling). The span [start, end) holds the tokens that are compared: from where the
 * choices part, the continuation that all contexts share, or everything behind the prompt without its continuation.
 */
import { pythonStrip } from "../data/python_text.ts";
import { Random } from "../data/random.ts";
import type { ChoiceItem, CoreItem, CoreTask, LanguageItem, SchemaItem } from "./core_bundle.ts";

/** One prompt as tokens, and which of them are scored: start <= i < end, start at least 1. */
export interface Option {
  /** Ids, from `<|bos|>` on. */
  readonly tokens: Int32Array;
  /** First scored token. */
  readonly start: number;
  /** The token behind the last scored one. */
  readonly end: number;
}

/** Shuffles the items of a task as the reference does and keeps the first `maxPerTask`; -1 = all. */
export function chooseItems<T>(items: readonly T[], maxPerTask: number): T[] {
  const shuffled = [...items];
  new Random(1337).shuffle(shuffled);
  return maxPerTask > 0 ? shuffled.slice(0, maxPerTask) : shuffled;
}

/** Chooses the items that are shown solved in front of item `index` of `count`; all others where there are fewer than `shots`. */
export function fewShotIndices(index: number, { count, shots }: { count: number; shots: number }): number[] {
  if (shots === 0) return [];
  const others = Array.from({ length: count - 1 }, (_, i) => i < index ? i : i + 1);
  return new Random(1234 + index).sample(others, Math.min(shots, others.length));
}

/** Writes the prompts of an item; for language modelling without and with the continuation. */
export function renderPrompts(task: CoreTask, item: CoreItem, shots: readonly CoreItem[]): string[] {
  const d = task.delimiter;
  if (task.type === "multiple_choice") {
    const write = ({ query }: ChoiceItem, choice: string) => `${query}${d}${choice}`;
    const front = (shots as ChoiceItem[]).map((shot) => `${write(shot, shot.choices[shot.gold])}\n\n`).join("");
    return (item as ChoiceItem).choices.map((choice) => front + write(item as ChoiceItem, choice));
  }
  if (task.type === "schema") {
    const write = (context: string, { continuation }: SchemaItem) => `${context}${d}${continuation}`;
    const front = (shots as SchemaItem[]).map((shot) => `${write(shot.context_options[shot.gold], shot)}\n\n`).join("");
    return (item as SchemaItem).context_options.map((context) => front + write(context, item as SchemaItem));
  }
  const write = ({ context }: LanguageItem, continuation: string) => `${pythonStrip(context)}${d}${continuation}`;
  const front = (shots as LanguageItem[]).map((shot) => `${write(shot, shot.continuation)}\n\n`).join("");
  const language = item as LanguageItem;
  return [pythonStrip(front + write(language, "")), front + write(language, language.continuation)];
}

/**
 * Finds what is scored in the encoded prompts of an item. Null where a language-modelling prompt is no token prefix of itself with the
 * continuation: the tokenizer merged across the border, and there is no span to compare.
 */
export function findSpans(task: CoreTask, encoded: readonly Int32Array[]): Option[] | null {
  if (task.type === "language_modeling") {
    const [without, whole] = encoded;
    const start = without.length;
    if (start >= whole.length || commonLength(encoded, "left") < start) return null;
    return [{ tokens: whole, start, end: whole.length }];
  }
  if (task.type === "schema") {
    const shared = commonLength(encoded, "right");
    return encoded.map((tokens) => ({ tokens, start: Math.max(1, tokens.length - shared), end: tokens.length }));
  }
  // A choice that begins another one would have an empty span and no score: then the last shared token is scored too.
  const shortest = Math.min(...encoded.map((tokens) => tokens.length));
  const start = Math.min(commonLength(encoded, "left"), shortest - 1);
  return encoded.map((tokens) => ({ tokens, start, end: tokens.length }));
}

/** Counts the tokens that all sequences have in common at their left or right end. */
export function commonLength(sequences: readonly ArrayLike<number>[], side: "left" | "right"): number {
  const shortest = Math.min(...sequences.map((sequence) => sequence.length));
  const [first] = sequences;
  for (let i = 0; i < shortest; i++) {
    const at = (sequence: ArrayLike<number>) => sequence[side === "left" ? i : sequence.length - 1 - i];
    if (sequences.some((sequence) => at(sequence) !== at(first))) return i;
  }
  return shortest;
}

/** Keeps the last `limit` tokens of an option that is longer; the span moves along and loses what was cut. */
export function cropOption(option: Option, limit: number): Option {
  const cut = option.tokens.length - limit;
  if (cut <= 0) return option;
  const start = Math.max(1, option.start - cut);
  return { tokens: option.tokens.subarray(cut), start, end: option.end - cut };
}
