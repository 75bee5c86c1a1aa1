/** What is asked of a batch, what it reports, and the check of a request before it runs. */
import {
  type Candidate,
  checkPenalties,
  checkSampling,
  MOST_TOP_LOGPROBS,
  type Penalties,
  type Sampling,
} from "./sample.ts";

/** Computes the text of a tool call; null = no output. */
export type Tool = (text: string) => string | null | Promise<string | null>;

/** A prompt and how it is to be continued. */
export interface GenerateRequest extends Partial<Sampling>, Partial<Penalties> {
  /** Ids, `<|bos|>` first. */
  readonly prompt: readonly number[];
  /** How often it is continued; 1. */
  readonly samples?: number;
  /** Tokens of each sample at most; without it until the context is full. */
  readonly maxTokens?: number;
  /** What computes tool calls; the calculator. */
  readonly tool?: Tool;
  /** Reports this many of the most probable tokens beside each one, 0 to 20; without it none. */
  readonly topLogprobs?: number;
}

/** One token of one sample. */
export interface RowToken {
  /** The request that was added. */
  readonly request: GenerateRequest;
  /** Which of its samples. */
  readonly sample: number;
  /** What it is. */
  readonly id: number;
  /** False where the tool forced it. */
  readonly sampled: boolean;
  /** log p of what was sampled, at temperature 1, nothing cut or penalised; also where a forced token took its place. */
  readonly logprob: number;
  /** The most probable tokens by the same log p, best first, the lowest id among equals; where the request asks for them. */
  readonly top?: readonly Candidate[];
  /** Tokens of the prompt that were not computed again. */
  readonly cachedTokens: number;
  /** Why the sample ends with this token: at a mark (which is no part of the answer), or at its limit. */
  readonly end: "stop" | "length" | null;
}

/** A request whose values are in range. */
export interface CheckedRequest {
  readonly request: GenerateRequest;
  readonly sampling: Sampling;
  /** Null where no logit is changed. */
  readonly penalties: Penalties | null;
  /** Tokens that each sample may have. */
  readonly limit: number;
}

/**
 * Checks a request for a model of these sizes.
 *
 * @throws {RangeError} where the prompt is empty or leaves no room in the context, or a setting is out of range.
 */
export function checkRequest(
  request: GenerateRequest,
  { contextLen, vocabSize }: { readonly contextLen: number; readonly vocabSize: number },
): CheckedRequest {
  const { prompt, samples = 1, maxTokens, topLogprobs = 0 } = request;
  if (!Number.isInteger(samples) || samples < 1) {
    throw new RangeError(`Cannot generate: samples is ${samples}, expected a positive integer`);
  }
  if (maxTokens !== undefined && (!Number.isInteger(maxTokens) || maxTokens < 0)) {
    throw new RangeError(`Cannot generate: maxTokens is ${maxTokens}, expected an integer, 0 or more`);
  }
  const most = Math.min(MOST_TOP_LOGPROBS, vocabSize);
  if (!Number.isInteger(topLogprobs) || topLogprobs < 0 || topLogprobs > most) {
    throw new RangeError(`Cannot generate: topLogprobs is ${topLogprobs}, expected an integer, 0 to ${most}`);
  }
  if (prompt.length === 0) throw new RangeError("Cannot generate: the prompt is empty, expected at least <|bos|>");
  if (prompt.length >= contextLen) {
    throw new RangeError(
      `Cannot generate: the prompt has ${prompt.length} tokens, expected fewer than the context of ${contextLen}`,
    );
  }
  return {
    ...{ request, sampling: checkSampling(request), penalties: checkPenalties(request, vocabSize) },
    limit: Math.min(maxTokens ?? Infinity, contextLen - prompt.length),
  };
}
