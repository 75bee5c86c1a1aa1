/** What tests of worker and pool share: a base folder with toy models, which are random and answer anything at once. */
import { join } from "@std/path";
import { foldersOf, type Stage } from "../data/base_dir.ts";
import { SILENT } from "../data/log.ts";
import { SPECIAL_TOKENS, SPLIT_PATTERN, Tokenizer } from "../data/tokenizer.ts";
import { masterTensors } from "../engine/load.ts";
import { nativeIo, saveCheckpoint } from "../model/checkpoint.ts";
import { GPT, type GPTConfig } from "../model/gpt.ts";
import { chooseModel, type ChosenModel } from "../model/models.ts";
import { Device } from "../tensor/device.ts";
import type { GenerationEvent, GenerationRequest } from "./models.ts";

/** Bytes and some words, so that a character may be several tokens and a token several characters. */
const WORDS = ["he", "in", "on", "é", " a"].map((word) => new TextEncoder().encode(word));
const TOKENS = [...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)), ...WORDS];

/** Pairs of bytes that fill a vocabulary as large as that of a model of depth 4, 4,096. */
const FILLERS = Array.from({ length: 3826 }, (_, i) => Uint8Array.of(128 + (i >> 7), 128 + (i & 127)));

/** Length of the context of a toy. */
export const TOY_CONTEXT = 64;

/** A base folder, removed at the end. */
export class ToyPlace implements Disposable {
  readonly folder: string = Deno.makeTempDirSync({ prefix: "nanochat_test_" });

  /** Makes a model with the weights of a seed; `isFull` gives it the shape and vocabulary of a real one of depth 4. */
  async add(
    model: { stage: Stage; tag: string; seed?: number; sequenceLen?: number; isFull?: boolean },
  ): Promise<ChosenModel> {
    const { stage, tag, seed = 1, sequenceLen = TOY_CONTEXT, isFull = false } = model;
    const tokens = isFull ? [...TOKENS, ...FILLERS] : TOKENS;
    const specials = Object.fromEntries(SPECIAL_TOKENS.map((name, i) => [name, tokens.length + i]));
    using tokenizer = await Tokenizer.fromParts({ pattern: SPLIT_PATTERN, tokens, specials });
    const tokenizerFolder = foldersOf(this.folder).tokenizer;
    await tokenizer.save(tokenizerFolder);
    const config: GPTConfig = {
      ...{ sequenceLen, vocabSize: tokenizer.vocabSize, nHead: 2, nKvHead: 2 },
      ...(isFull ? { nLayer: 4, nEmbd: 256 } : { nLayer: 2, nEmbd: 32 }),
    };
    using device = Device.open("cpu", { threads: 1 });
    const { nc, ctx } = device;
    using gpt = new GPT(device, config, { dtype: "f32", training: false });
    for (const [i, { master, size }] of gpt.parameters.all().entries()) {
      nc.normal(ctx, master.pointer, BigInt(size), BigInt(seed), BigInt(i) << 32n, 0, 0.3);
    }
    await saveCheckpoint({
      ...{ nc, ctx, folder: join(foldersOf(this.folder).checkpoints, stage, tag), step: 7, keep: 0, tokenizerFolder },
      ...{ model: masterTensors(gpt), optimizer: [], log: SILENT, io: nativeIo({ nc, ctx }) },
      state: {
        ...{ run: "toy", stage, valBpb: null, config: { ...config }, flags: {}, loader: null, rng: null, loop: null },
      },
    });
    return chooseModel(this.folder, { source: stage, tag });
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.folder, { recursive: true });
  }
}

/** Returns a request with everything that a client need not say. */
export function requestOf(changes: Partial<GenerationRequest> & { model: string }): GenerationRequest {
  return {
    prompt: { messages: [{ role: "user", content: "Hello" }] },
    choices: 1,
    sampling: {
      ...{ temperature: 1, topK: 0, topP: 1, seed: 1, frequencyPenalty: 0, presencePenalty: 0, logitBias: new Map() },
    },
    stop: [],
    echo: false,
    ...changes,
  };
}

/** An answer put together from its events. */
export interface Heard {
  /** Pieces of each choice as "kind:text", neighbours of a kind joined. */
  readonly answers: string[][];
  readonly reasons: string[];
  readonly completionTokens: number[];
  readonly events: GenerationEvent[];
}

/** Reads a stream to its end. */
export async function hear(stream: AsyncIterable<GenerationEvent>): Promise<Heard> {
  const heard: Heard = { answers: [], reasons: [], completionTokens: [], events: [] };
  const kinds: string[] = [];
  for await (const event of stream) {
    heard.events.push(event);
    if (event.type === "piece") {
      const answer = heard.answers[event.choice] ??= [];
      if (kinds[event.choice] === event.kind) answer[answer.length - 1] += event.text;
      else answer.push(`${event.kind}:${event.text}`);
      kinds[event.choice] = event.kind;
    } else if (event.type === "end") {
      heard.answers[event.choice] ??= [];
      heard.reasons[event.choice] = event.reason;
      heard.completionTokens[event.choice] = event.completionTokens;
    }
  }
  return heard;
}
