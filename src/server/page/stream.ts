/**
 * Requests to the server and what comes back: the list of models, and an answer as a sequence of events, read from server-sent events
 * whose bytes may be cut anywhere. Every way to fail is a {@link Problem} with a kind that the page knows what to say about.
 */
import type { Part } from "../../data/conversation.ts";
import type { RequestMessage, TokenChance } from "./chat.ts";

/** Why there is no answer. */
export type ProblemKind =
  /** The queue is full; `retryAfterSec` says when to come again. */
  | "busy"
  /** The server ends or starts anew. */
  | "closing"
  /** Nobody answers, or the connection broke. */
  | "gone"
  /** The API key is missing or wrong. */
  | "key"
  /** The last message alone is longer than the context. */
  | "context"
  /** There is no such model any more. */
  | "model"
  /** The request was refused for another reason, which the message tells. */
  | "refused"
  /** The server failed at it. */
  | "failed";

/** A failed request. */
export class Problem extends Error {
  readonly kind: ProblemKind;
  readonly retryAfterSec: number | undefined;

  constructor(kind: ProblemKind, message: string, options: { retryAfterSec?: number; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.name = "Problem";
    this.kind = kind;
    this.retryAfterSec = options.retryAfterSec;
  }
}

/** A model of the server's list. */
export interface Model {
  readonly id: string;
  readonly contextLen: number | undefined;
  readonly stage: string | undefined;
  readonly parameters: number | undefined;
  /** It continues text and knows no turns. */
  readonly completes: boolean;
}

/** What is asked. */
export interface AnswerRequest {
  readonly model: string;
  readonly messages: readonly RequestMessage[];
  readonly temperature: number;
  /** 0 = all tokens. */
  readonly topK: number;
  readonly topP: number;
  /** Without it the server draws one. */
  readonly seed: number | undefined;
  /** Without it the server's default. */
  readonly maxTokens: number | undefined;
  readonly withProbabilities: boolean;
}

/** What is heard of an answer, in order. */
export type AnswerEvent =
  | { readonly type: "piece"; readonly part: Part }
  | { readonly type: "tokens"; readonly tokens: readonly TokenChance[] }
  | {
    readonly type: "context";
    readonly promptTokens?: number;
    readonly contextLen?: number;
    readonly droppedMessages: number;
  }
  | { readonly type: "end"; readonly reason: "stop" | "length" }
  | { readonly type: "usage"; readonly promptTokens: number; readonly completionTokens: number };

/** How many other tokens are asked for beside each one. */
const TOP_TOKENS = 5;

/** Cuts server-sent events out of text that comes in pieces; gives the data of each whole event. */
export class EventSplitter {
  #line = "";
  #data: string[] = [];
  #endsInReturn = false;

  /** Takes a piece; returns the data of the events that it completed. */
  push(text: string): string[] {
    const events: string[] = [];
    let from = 0;
    for (let i = 0; i < text.length; i++) {
      const letter = text[i];
      if (letter !== "\n" && letter !== "\r") {
        this.#endsInReturn = false;
        continue;
      }
      if (letter === "\n" && this.#endsInReturn) { // the second half of a line's end
        this.#endsInReturn = false;
        from = i + 1;
        continue;
      }
      this.#endsInReturn = letter === "\r";
      this.#takeLine(this.#line + text.slice(from, i), events);
      this.#line = "";
      from = i + 1;
    }
    this.#line += text.slice(from);
    return events;
  }

  #takeLine(line: string, events: string[]): void {
    if (line === "") {
      if (this.#data.length > 0) events.push(this.#data.join("\n"));
      this.#data = [];
    } else if (line.startsWith("data:")) this.#data.push(line.slice(line[5] === " " ? 6 : 5));
  }
}

/** Reads the data of server-sent events; their bytes may be cut within a character. */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const splitter = new EventSplitter();
  const decoder = new TextDecoder();
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* splitter.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The server that the page came from. */
export class Server {
  /** Gives the API key that was typed; undefined where none was asked for yet. */
  readonly #key: () => string | undefined;
  readonly #fetch: typeof fetch;

  /** Reaches it with the key that is known at the time of each request. */
  constructor(key: () => string | undefined, fetcher: typeof fetch = (...args) => fetch(...args)) {
    this.#key = key;
    this.#fetch = fetcher;
  }

  /** Lists the models, the default one first. @throws {Problem} */
  async models(): Promise<Model[]> {
    const response = await this.#ask("/v1/models", {});
    const { data } = await json(response) as { data?: unknown };
    if (!Array.isArray(data)) throw new Problem("failed", "Cannot read the list of models");
    return data.filter((row) => typeof row?.id === "string").map(readModel);
  }

  /** Whether the server answers at all. */
  async isThere(): Promise<boolean> {
    try {
      return (await this.#fetch("/health")).ok;
    } catch {
      return false;
    }
  }

  /** Asks for an answer. @throws {Problem} at any step; an abort ends the sequence without one. */
  async *answer(request: AnswerRequest, signal: AbortSignal): AsyncGenerator<AnswerEvent> {
    try {
      const response = await this.#ask("/v1/chat/completions", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(bodyOf(request)),
        signal,
      });
      let isWhole = false;
      for await (const data of readEvents(response.body!)) {
        if (data === "[DONE]") {
          isWhole = true;
          break;
        }
        yield* eventsOf(data);
      }
      if (!isWhole) throw new Problem("gone", "The connection to the server was lost");
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem) throw error;
      throw new Problem("gone", "The connection to the server was lost", { cause: error });
    }
  }

  async #ask(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    const key = this.#key();
    if (key !== undefined) headers.set("Authorization", `Bearer ${key}`);
    let response: Response;
    try {
      response = await this.#fetch(path, { ...init, headers });
    } catch (cause) {
      throw new Problem("gone", "The server does not answer", { cause });
    }
    if (!response.ok) throw await problemOf(response);
    return response;
  }
}

function bodyOf(request: AnswerRequest): Record<string, unknown> {
  return {
    ...{ model: request.model, messages: request.messages, stream: true, stream_options: { include_usage: true } },
    ...{ temperature: request.temperature, top_k: request.topK, top_p: request.topP },
    ...(request.seed === undefined ? {} : { seed: request.seed }),
    ...(request.maxTokens === undefined ? {} : { max_tokens: request.maxTokens }),
    ...(request.withProbabilities ? { logprobs: true, top_logprobs: TOP_TOKENS } : {}),
  };
}

// deno-lint-ignore no-explicit-any -- a row of the server's JSON, of which each field is checked here
function readModel(row: any): Model {
  const number = (value: unknown) => typeof value === "number" ? value : undefined;
  const { nanochat } = row;
  return {
    id: row.id,
    contextLen: number(nanochat?.context_length),
    stage: typeof nanochat?.stage === "string" ? nanochat.stage : undefined,
    parameters: number(nanochat?.parameters),
    completes: nanochat?.completes === true,
  };
}

async function json(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch (cause) {
    throw new Problem("failed", "The server sent something that is not JSON", { cause });
  }
}

async function problemOf(response: Response): Promise<Problem> {
  const { status } = response;
  const text = await response.text().catch(() => "");
  let error: { message?: unknown; code?: unknown } = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // Not one of our messages: a proxy may stand between.
  }
  const message = typeof error.message === "string" ? error.message : `The server answered with status ${status}`;
  return new Problem(kindOf(status, error.code), message, { retryAfterSec: retryAfter(response.headers) });
}

function kindOf(status: number, code: unknown): ProblemKind {
  if (code === "context_length_exceeded") return "context";
  if (status === 401) return "key";
  if (status === 404) return "model";
  if (status === 429) return "busy";
  if (status === 502 || status === 503) return "closing";
  return status < 500 ? "refused" : "failed";
}

function retryAfter(headers: Headers): number | undefined {
  const seconds = Number(headers.get("Retry-After") ?? NaN);
  return seconds >= 0 && seconds < 3600 ? seconds : undefined;
}

/** Reads one chunk of OpenAI's streaming format, with the extensions in `nanochat`. */
// deno-lint-ignore no-explicit-any -- the server's JSON, of which each field is checked here
function* eventsOf(data: string): Generator<AnswerEvent, void, any> {
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch (cause) {
    throw new Problem("failed", "The server sent something that is not JSON", { cause });
  }
  if (chunk.error !== undefined) {
    const { message, code } = chunk.error;
    const kind = code === "context_length_exceeded" ? "context" : code === "closing" ? "closing" : "failed";
    throw new Problem(kind, typeof message === "string" ? message : "The answer failed");
  }
  const extension = chunk.nanochat;
  if (extension !== undefined && ("dropped_messages" in extension || "context_length" in extension)) {
    yield {
      type: "context",
      promptTokens: extension.prompt_tokens,
      contextLen: extension.context_length,
      droppedMessages: extension.dropped_messages ?? 0,
    };
  }
  for (const { type, text } of extension?.tool_events ?? []) {
    if ((type === "python" || type === "python_output") && typeof text === "string") {
      yield { type: "piece", part: { type, text } };
    }
  }
  const choice = chunk.choices?.[0];
  const text = choice?.delta?.content;
  if (typeof text === "string" && text !== "") yield { type: "piece", part: { type: "text", text } };
  const tokens = choice?.logprobs?.content;
  if (Array.isArray(tokens) && tokens.length > 0) yield { type: "tokens", tokens: tokens.map(readToken) };
  const reason = choice?.finish_reason;
  if (typeof reason === "string") yield { type: "end", reason: reason === "length" ? "length" : "stop" };
  if (chunk.usage) {
    const { prompt_tokens, completion_tokens } = chunk.usage;
    yield { type: "usage", promptTokens: prompt_tokens, completionTokens: completion_tokens };
  }
}

interface TokenJson {
  readonly token: string;
  readonly logprob: number;
  readonly top_logprobs?: readonly TokenJson[];
}

function readToken({ token, logprob, top_logprobs = [] }: TokenJson): TokenChance {
  // A logarithm is rounded: a certain token may come out a little above 0.
  const one = ({ token, logprob }: TokenJson) => ({ text: String(token), logprob: Math.min(0, Number(logprob)) });
  return { ...one({ token, logprob }), top: top_logprobs.map(one) };
}
