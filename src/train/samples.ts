/** Greedy continuations of fixed prompts: how one sees a model learn. */
import type { Tokenizer } from "../data/tokenizer.ts";
import { GptDecodeModel } from "../engine/decode.ts";
import { Engine } from "../engine/engine.ts";
import type { GPT } from "../model/gpt.ts";

/** Openings that base training continues (the subjects of nanochat/base_train.py). */
export const SAMPLE_PROMPTS: readonly string[] = [
  "The capital of France is",
  "The chemical symbol of gold is",
  "If yesterday was Friday, then tomorrow will be",
  "The opposite of hot is",
  "The planets of the solar system are:",
  "My favorite color is",
  "If 5*x + 3 = 13, then x is",
];

/** A prompt and what the model made of it. */
export interface Sample {
  /** What the model was given. */
  readonly prompt: string;
  /** The continuation alone. */
  readonly text: string;
}

/** Continues each prompt greedily. */
export async function sampleTexts(
  model: GPT,
  options: { tokenizer: Tokenizer; prompts?: readonly string[]; maxTokens?: number },
): Promise<Sample[]> {
  const { tokenizer, prompts = SAMPLE_PROMPTS, maxTokens = 16 } = options;
  const engine = new Engine(new GptDecodeModel(model), tokenizer);
  const { contextLen } = engine.model;
  const encoded = prompts.map((prompt) => tokenizer.encode(prompt, { prepend: tokenizer.bosId }));
  const texts = prompts.map(() => ""); // a context as short as the prompt holds no more
  const fitting = [...encoded.keys()].filter((i) => encoded[i].length < contextLen);
  const requests = fitting.map((i) => ({ prompt: encoded[i], temperature: 0, maxTokens }));
  let done = 0;
  for await (const { sequences: [ids] } of engine.generateAll(requests)) {
    const i = fitting[done++];
    texts[i] = tokenizer.decode(ids.slice(encoded[i].length));
  }
  return prompts.map((prompt, i) => ({ prompt, text: texts[i] }));
}
