/** One question to an OpenAI-compatible server, with an answer held to a JSON schema; what may pass is tried again, aloud. */
import { delay } from "@std/async";
import type { Log } from "../src/data/log.ts";

/** A server and one of its models. */
export interface ChatEndpoint {
  /** Address below which `/chat/completions` lies: "https://openrouter.ai/api/v1". */
  readonly url: string;
  /** Name of the model, as the server knows it. */
  readonly model: string;
  /** Secret for the server; sent to it alone, and taken out of every message. */
  readonly key?: string;
  /** Attempts in all for what may pass (408, 429, 5xx, a lost connection); default 5. */
  readonly attempts?: number;
  /** Milliseconds that an answer may take; default 120,000. */
  readonly timeoutMs?: number;
  /** Milliseconds to wait before attempt 2, 3 ...; default 2^attempt seconds. */
  readonly backoffMs?: (attempt: number) => number;
}

/** What is asked. */
export interface ChatRequest {
  /** Text of the only message. */
  readonly prompt: string;
  /** Sampling temperature. */
  readonly temperature: number;
  /** JSON schema that the server holds the answer to. */
  readonly schema: Readonly<Record<string, unknown>>;
  /** Gives the request up. */
  readonly signal: AbortSignal;
  /** Receives a line for every attempt that failed. */
  readonly log: Log;
}

/** An answer that came, but holds no text; another question may do better. */
export class RefusedAnswer extends Error {}

/** A failure that another attempt may cure. */
class Passing extends Error {
  readonly afterMs: number | undefined;
  constructor(message: string, afterMs?: number) {
    super(message);
    this.afterMs = afterMs;
  }
}

const MAX_WAIT_MS = 300_000;

/**
 * Asks and returns the text of the answer.
 *
 * @throws {Error} where the server refuses or cannot be reached; {RefusedAnswer} where it answers without a text.
 */
export async function requestChat(endpoint: ChatEndpoint, request: ChatRequest): Promise<string> {
  const { attempts = 5, backoffMs = (attempt) => 1000 * 2 ** attempt } = endpoint;
  for (let attempt = 1;; attempt++) {
    try {
      return await ask(endpoint, request);
    } catch (error) {
      request.signal.throwIfAborted();
      if (!(error instanceof Passing)) throw error;
      if (attempt >= attempts) {
        throw new Error(`Cannot ask "${endpoint.model}": ${error.message} (attempt ${attempt} of ${attempts})`);
      }
      const waitMs = Math.min(error.afterMs ?? backoffMs(attempt), MAX_WAIT_MS);
      request.log.warn(`Asking "${endpoint.model}" failed: ${error.message}; next attempt in ${waitMs / 1000} s`);
      await delay(waitMs, { signal: request.signal });
    }
  }
}

async function ask(endpoint: ChatEndpoint, { prompt, temperature, schema, signal }: ChatRequest): Promise<string> {
  const { model, key, timeoutMs = 120_000 } = endpoint;
  const url = `${endpoint.url.replace(/\/+$/, "").replace(/\/chat\/completions$/, "")}/chat/completions`;
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const body = JSON.stringify({
    model,
    temperature,
    messages: [{ role: "user", content: prompt }],
    response_format: { type: "json_schema", json_schema: { name: "conversation", strict: true, schema } },
  });
  const timeout = AbortSignal.timeout(timeoutMs);
  let response: Response, text: string;
  try {
    response = await fetch(url, {
      method: "POST",
      headers,
      body,
      redirect: "manual", // the key goes to the server that was named, never to one that it points to
      signal: AbortSignal.any([signal, timeout]),
    });
    text = await response.text();
  } catch (error) {
    if (timeout.aborted) throw new Passing(`no answer for ${timeoutMs / 1000} s`);
    throw new Passing(`the connection failed (${hide((error as Error).message, key)})`);
  }
  const { status } = response;
  if (status !== 200) {
    const said = hide(text.replace(/\s+/g, " ").slice(0, 200), key);
    const what = `the server answered ${status}${said ? `: ${said}` : ""}`;
    if (status === 408 || status === 429 || status >= 500) throw new Passing(what, retryAfterMs(response));
    const hint = status === 401 || status === 403 ? "; is the key's environment variable set?" : "";
    throw new Error(`Cannot ask "${model}" at "${url}": ${what}, expected 200${hint}`);
  }
  return contentOf(hide(text, key));
}

function contentOf(text: string): string {
  let answer: { choices?: { message?: { content?: unknown; refusal?: unknown } }[] } | null;
  try {
    answer = JSON.parse(text);
  } catch (cause) {
    throw new RefusedAnswer(`the server's answer is no JSON: ${text.slice(0, 80)}`, { cause });
  }
  const message = answer?.choices?.[0]?.message;
  if (typeof message?.content === "string") return message.content;
  throw new RefusedAnswer(`the answer has no text: ${JSON.stringify(message?.refusal ?? answer).slice(0, 80)}`);
}

function retryAfterMs(response: Response): number | undefined {
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  return Number.isNaN(seconds) ? undefined : Math.max(0, seconds * 1000);
}

function hide(text: string, key: string | undefined): string {
  return key ? text.replaceAll(key, "***") : text;
}
