/**
 * What the HTTP side asks of the models, and what it hears from them. It speaks of messages and text: rendering, token ids, the context
 * and stop rules are the business of the model side (`worker.ts`), which `pool.ts` reaches and tests replace by a fake.
 *
 *   request -> [start] -> (prompt)? -> piece... of every choice, in any order -> end of every choice
 *
 * An iteration that is left early, or whose signal aborts, frees its rows at the next step; an aborted one ends without more events.
 */
import type { Part } from "../data/conversation.ts";
import type { Penalties, Sampling } from "../engine/sample.ts";

/** One turn of a conversation as a client sends it. */
export interface ChatMessage {
  readonly role: "system" | "developer" | "user" | "assistant" | "tool";
  /** Text; an assistant's may be parts, so that tool calls of earlier answers are seen again. */
  readonly content: string | readonly Part[];
}

/** What is continued: a conversation, a text, or token ids (without `<|bos|>`, which is put in front where it is missing). */
export type Prompt =
  | { readonly messages: readonly ChatMessage[] }
  | { readonly text: string }
  | { readonly tokens: readonly number[] };

/** A generation that a client wants; every value is checked by whoever reads the client's JSON. */
export interface GenerationRequest {
  /** Id of a model of the list. */
  readonly model: string;
  readonly prompt: Prompt;
  /** Answers to the same prompt. */
  readonly choices: number;
  /** Tokens of each answer at most; without it until the context is full. */
  readonly maxTokens?: number;
  readonly sampling: Sampling & Penalties;
  /** Texts that end an answer, and are no part of it. */
  readonly stop: readonly string[];
  /** Log-probabilities of this many candidates beside each token, 0 to 20; without it none at all. */
  readonly topLogprobs?: number;
  /** Also asks for the text of the prompt, with `topLogprobs` for its log-probabilities too. */
  readonly echo: boolean;
  /** Ends with a "deadline" error then; counted from the call on. */
  readonly deadlineMs?: number;
}

/** A token as text: `bytes` are its own UTF-8, which may be a part of a character; `text` shows such parts as U+FFFD. */
export interface TokenText {
  readonly text: string;
  readonly bytes: readonly number[];
}

/** A token with what the model thought of it. */
export interface TokenLogprob extends TokenText {
  /** Natural logarithm of its probability at temperature 1, before any cut; null for a first token, which follows nothing. */
  readonly logprob: number | null;
  /** The most probable tokens at its place, best first. */
  readonly top: readonly (TokenText & { readonly logprob: number })[];
}

/** What is heard of a generation, in this order. */
export type GenerationEvent =
  | {
    readonly type: "start";
    /** Tokens of the prompt as it is run, and how many of them came from the prefix cache. */
    readonly promptTokens: number;
    readonly cachedTokens: number;
    /** Messages that were left out because the context is full, oldest first; the system message stays. */
    readonly droppedMessages: number;
    readonly contextLen: number;
  }
  | { readonly type: "prompt"; readonly text: string; readonly tokens?: readonly TokenLogprob[] }
  | {
    readonly type: "piece";
    readonly choice: number;
    /** Words of the answer, the expression of a calculator call, or its result. Pieces of one kind in a row belong together. */
    readonly kind: Part["type"];
    /** Whole characters. */
    readonly text: string;
    /** Tokens whose text ends in this piece; with `topLogprobs` only. */
    readonly tokens?: readonly TokenLogprob[];
  }
  | {
    readonly type: "end";
    readonly choice: number;
    readonly reason: "stop" | "length";
    /** Sampled and forced tokens, the one that ended the answer included. */
    readonly completionTokens: number;
  };

/** A model that can be asked for. */
export interface ModelInfo {
  /** What a client calls it: "d12", or "sft/d12" where several stages are served. */
  readonly id: string;
  /** Unix time of its checkpoint in seconds. */
  readonly created: number;
  readonly contextLen: number;
  readonly vocabSize: number;
  readonly parameters: number;
  readonly stage: "base" | "mid" | "sft" | "rl";
  readonly step: number;
  /** A base model knows no turns: it continues the text of the last message. */
  readonly completes: boolean;
  /** Whether it is in memory now. */
  readonly isLoaded: boolean;
}

/** Figures of this moment, and counters since the start. */
export interface ServiceStats {
  /** Answers that wait for a row, and rows that generate. */
  readonly queued: number;
  readonly activeRows: number;
  /** Rows of all loaded models. */
  readonly rows: number;
  readonly loadedModels: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly generatedTokens: number;
  /** Steps of decoding; `generatedTokens / steps` is the mean batch size. */
  readonly steps: number;
  readonly finished: number;
  readonly cancelled: number;
  readonly refused: number;
}

/** Why a request cannot be served; the HTTP side knows the status of each. */
export type ServiceErrorCode =
  /** No such model in the list. */
  | "model_not_found"
  /** The queue is full; `retryAfterSec` says when to come again. */
  | "busy"
  /** The server is shutting down. */
  | "closing"
  /** Even the last message alone does not fit the context. */
  | "context_length_exceeded"
  /** A value is out of range. */
  | "invalid_value"
  /** The time of the request is up. */
  | "deadline"
  /** The model's worker failed; it is started anew for later requests. */
  | "failed";

/** A request that cannot be served, with a message for the client. */
export class ServiceError extends Error {
  readonly code: ServiceErrorCode;
  readonly retryAfterSec: number | undefined;

  constructor(code: ServiceErrorCode, message: string, options: { retryAfterSec?: number; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.name = "ServiceError";
    this.code = code;
    this.retryAfterSec = options.retryAfterSec;
  }
}

/** The models behind a server. */
export interface ModelService {
  /** Lists the models that can be asked for; the first is taken where a client names none. */
  list(): readonly ModelInfo[];
  /** Generates. @throws {ServiceError} at the first step of the iteration where the request is refused, later where it fails. */
  generate(request: GenerationRequest, signal: AbortSignal): AsyncIterable<GenerationEvent>;
  /** Encodes plain text, without `<|bos|>`. @throws {ServiceError} */
  tokenize(model: string, text: string): Promise<readonly number[]>;
  /** Decodes ids. @throws {ServiceError} where an id is not in the vocabulary. */
  detokenize(model: string, ids: readonly number[]): Promise<string>;
  stats(): ServiceStats;
  /** Refuses new requests, lets running ones end for up to `graceMs`, frees everything. */
  close(graceMs: number): Promise<void>;
}

/** Puts another generation in front of a service, which watches or changes what is asked and answered. */
export function withGenerate(service: ModelService, generate: ModelService["generate"]): ModelService {
  return {
    generate,
    list: () => service.list(),
    tokenize: (model, text) => service.tokenize(model, text),
    detokenize: (model, ids) => service.detokenize(model, ids),
    stats: () => service.stats(),
    close: (graceMs) => service.close(graceMs),
  };
}
