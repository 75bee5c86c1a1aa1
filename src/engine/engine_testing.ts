/** What tests of the engine share: a byte tokenizer and a model that says what scripts say. */
import type { DecodeModel, Decoder } from "./batch.ts";
import type { EngineTokenizer } from "./row.ts";
import type { Draw } from "./sample.ts";

/** The chat's special tokens behind the bytes. */
export const SPECIALS = [
  ..."bos user_start user_end assistant_start assistant_end python_start python_end output_start output_end".split(" "),
].map((name) => `<|${name}|>`);
/** Finds the id of a special token. */
export const special = (name: string) => 256 + SPECIALS.indexOf(name);
/** UTF-8 as ids. */
export const bytes = (text: string) => [...new TextEncoder().encode(text)];

/** Bytes as tokens. */
export const byteTokenizer = {
  encode: bytes,
  decode: (ids: ArrayLike<number>) => new TextDecoder().decode(Uint8Array.from(Array.from(ids))),
  encodeSpecial: special,
  token: (id: number) => Uint8Array.of(id),
} satisfies EngineTokenizer & { token: unknown };

/** A model whose i-th started sample draws the tokens of the i-th script, the last one for ever, and that remembers what it was asked. */
export class ScriptedModel implements DecodeModel {
  readonly contextLen: number;
  readonly vocabSize = 256 + SPECIALS.length;
  readonly suggestedRows = 4;
  readonly suggestedCacheRows = 4;
  /** Prompt of each started sample. */
  readonly prompts: number[][] = [];
  /** Calls that run prompts, fill, move and save rows. */
  readonly calls: string[] = [];
  /** What each call of `sample` was given. */
  readonly draws: Draw[][] = [];
  /** Tokens of each step, -1 where a row is not live. */
  readonly fed: number[][] = [];
  /** Decoders that exist. */
  open = 0;

  constructor(readonly scripts: readonly (readonly number[])[], { contextLen = 64 } = {}) {
    this.contextLen = contextLen;
  }

  decoder({ rows, capacity, cacheRows }: { rows: number; capacity: number; cacheRows: number }): Decoder {
    this.open++;
    this.calls.push(`decoder ${rows} ${capacity}${cacheRows ? ` and ${cacheRows}` : ""}`);
    let prompt: number[] = [];
    const held: { script: readonly number[]; fed: number; tokens: number[] }[] = [];
    return {
      prefill: (tokens, kept) => {
        this.calls.push(`prefill ${tokens.length} behind ${kept}`);
        if (tokens.length === 0 || kept > prompt.length) throw new RangeError("nothing to run, or too much kept");
        prompt = [...prompt.slice(0, kept), ...tokens];
      },
      recall: (place, length) => {
        this.calls.push(`recall ${length} of ${place}`);
        if (held[place].tokens.length < length) throw new RangeError(`place ${place} does not hold ${length} tokens`);
        prompt = held[place].tokens.slice(0, length);
      },
      save: (row, place) => {
        this.calls.push(`save ${row} in ${place}`);
        held[place] = { ...held[row], tokens: [...held[row].tokens] };
      },
      start: (row) => {
        this.calls.push(`start ${row}`);
        held[row] = { script: this.scripts[this.prompts.length], fed: 0, tokens: [...prompt] };
        this.prompts.push(prompt);
      },
      move: (from, to) => {
        this.calls.push(`move ${from} to ${to}`);
        held[to] = { ...held[from], tokens: [...held[from].tokens] };
      },
      step: (ids, live) => {
        this.fed.push(Array.from(ids, (id, row) => live[row] ? id : -1));
        live.forEach((fed, row) => {
          held[row].fed += fed;
          if (fed) held[row].tokens.push(ids[row]);
        });
      },
      sample: (draws) => {
        this.draws.push(draws.map((draw) => ({ ...draw, changes: draw.changes && new Map(draw.changes) })));
        const ids = Int32Array.from(
          draws,
          (_, row) => held[row].script[Math.min(held[row].fed, held[row].script.length - 1)],
        );
        return Promise.resolve({ ids, logprobs: new Float32Array(draws.length), top: draws.map(() => undefined) });
      },
      [Symbol.dispose]: () => void this.open--,
    };
  }
}
