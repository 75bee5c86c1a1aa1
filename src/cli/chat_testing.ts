/** A byte tokenizer and a scripted model: what the tests of the chat talk to. */
import type { DecodeModel } from "../engine/engine.ts";

export const SPECIALS = [
  ..."bos user_start user_end assistant_start assistant_end python_start python_end output_start output_end".split(" "),
].map((name) => `<|${name}|>`);
export const special = (name: string) => 256 + SPECIALS.indexOf(name);
export const bytes = (text: string) => [...new TextEncoder().encode(text)];

/** Bytes as tokens. */
export const byteTokenizer = {
  encode: bytes,
  decode: (ids: ArrayLike<number>) => new TextDecoder().decode(Uint8Array.from(Array.from(ids))),
  encodeSpecial: special,
  token: (id: number) => Uint8Array.of(id),
};

/** A model that answers with the next of its scripts, and remembers its prompts. */
export function scriptedModel(answers: readonly (readonly number[])[], contextLen = 200) {
  const prompts: number[][] = [];
  const model: DecodeModel = {
    contextLen,
    decoder() {
      const answer = answers[prompts.length];
      let step = 0;
      return {
        prefill: (_, tokens) => void prompts.push([...tokens]),
        copy() {},
        step: () => void step++,
        sample: () =>
          Promise.resolve({
            ids: Int32Array.of(answer[Math.min(step, answer.length - 1)]),
            logprobs: new Float32Array(1),
          }),
        [Symbol.dispose]() {},
      };
    },
  };
  return { prompts, model };
}
