/**
 * Requests to an OpenAI-compatible server, and what can go wrong with them in words. A server is hostile input: what it sends is bounded
 * and never repeated in full. The key goes to the server that was named alone, and into no message.
 */
import { ChatError } from "./chat_partner.ts";
import { plainOsError } from "./os_error.ts";

/** A server. */
export interface Server {
  /** Address that the paths lie below: "http://127.0.0.1:8000/v1". */
  readonly url: string;
  /** Its secret. */
  readonly key?: string;
  /** How long it may say nothing, or nothing but comments; default ten minutes. */
  readonly patienceMs?: number;
}

/** What is asked of a server. */
export interface ServerRequest<T> {
  readonly path: string;
  /** Sent as JSON; without it the request is a GET. */
  readonly body?: unknown;
  /** Ends the exchange without an error. */
  readonly signal?: AbortSignal;
  /** Reads a good response; calls `onProgress` whenever something was said. */
  read(response: Response, onProgress: () => void): AsyncIterable<T>;
}

const PATIENCE_MS = 600_000;
const MAX_REFUSAL_BYTES = 64 * 1024;

/**
 * Turns what a user types into the address that the paths lie below: "http://host:8000" becomes "http://host:8000/v1".
 *
 * @throws {TypeError} where it is no address of a server, or holds a password.
 */
export function serverUrl(given: string): string {
  const refuse = (what: string) => new TypeError(`Cannot use --url=${given.replace(/\/\/[^/]*@/, "//***@")}: ${what}`);
  const url = URL.parse(given);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw refuse("it is no web address, expected one such as http://127.0.0.1:8000");
  }
  if (url.username || url.password) throw refuse("it holds a password, expected NANOCHAT_API_KEY or --api-key-file");
  if (url.search || url.hash) throw refuse('"?" and "#" stand in it, expected nothing behind the path');
  const path = url.pathname.replace(/\/+$/, "").replace(/\/chat\/completions$/, "");
  return `${url.origin}${path || "/v1"}`;
}

/** Tells whether requests to an address can be read on their way: plain HTTP to another machine. */
export function isReadable(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol === "http:" && !/^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname);
}

/**
 * Sends a request and gives what `read` makes of the response.
 *
 * @throws {ChatError} where the server cannot be reached, refuses, breaks off, or says nothing for too long.
 */
export async function* exchange<T>(server: Server, request: ServerRequest<T>): AsyncGenerator<T, void, void> {
  const { url, key, patienceMs = PATIENCE_MS } = server;
  const { path, body, signal, read } = request;
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), patienceMs);
  const onProgress = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), patienceMs);
  };
  const headers: Record<string, string> = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (key !== undefined) headers.authorization = `Bearer ${key}`;
  try {
    const response = await fetch(`${url}${path}`, {
      ...{
        method: body === undefined ? "GET" : "POST",
        headers,
        body: body === undefined ? null : JSON.stringify(body),
      },
      redirect: "manual",
      signal: AbortSignal.any([silence.signal, ...signal === undefined ? [] : [signal]]),
    });
    if (response.status !== 200) throw new ChatError(await describeRefusal(response, url));
    yield* read(response, onProgress);
  } catch (error) {
    if (signal?.aborted) return;
    const isSilent = silence.signal.aborted;
    const what = error instanceof ChatError
      ? error.message
      : isSilent
      ? `Cannot go on: "${url}" said nothing for ${patienceMs / 1000} s`
      : describeFailure(error as Error, url);
    throw new ChatError(key === undefined ? what : what.replaceAll(key, "***"), { cause: error });
  } finally {
    clearTimeout(timer);
    silence.abort(); // frees the connection where it was left early
  }
}

/** Reads a whole response. @throws {ChatError} where it has more than `maxBytes`. */
export async function readText(response: Response, maxBytes: number): Promise<string> {
  let text = "";
  for await (const piece of (response.body ?? ReadableStream.from([])).pipeThrough(new TextDecoderStream())) {
    text += piece;
    if (text.length > maxBytes) throw new ChatError(`Cannot read the answer: it has more than ${maxBytes} characters`);
  }
  return text;
}

/** Reads JSON; undefined where it is none. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function describeRefusal(response: Response, url: string): Promise<string> {
  const { status, headers } = response;
  const said = await saidBy(response);
  const is = `"${url}" answered ${status}${said && `: ${said}`}`;
  if (status >= 300 && status < 400) {
    return `Cannot ask the server: "${url}" points to ${JSON.stringify(headers.get("location"))}, expected an answer`;
  }
  if (status === 401 || status === 403) {
    return `Cannot ask the server: ${is}; its key is read from NANOCHAT_API_KEY or --api-key-file`;
  }
  const wait = waitSeconds(headers.get("retry-after"));
  if (wait !== undefined) return `Cannot ask the server now: ${is}; come again in ${wait} s`;
  if (status === 429) return `Cannot ask the server now: ${is}; come again later`;
  const hint = status === 404 ? "; is the address right, does /model list the model?" : "";
  return `Cannot ask the server: ${is}${hint}`;
}

/** What a server says about its refusal, in one line; nothing of a page made for browsers. */
async function saidBy(response: Response): Promise<string> {
  let text: string;
  try {
    text = await readText(response, MAX_REFUSAL_BYTES);
  } catch (error) {
    if (!(error instanceof ChatError)) throw error;
    return "";
  }
  const json = parseJson(text);
  const given = json === undefined ? text : messageOf(json) ?? text;
  return /^\s*</.test(given) ? "" : shorten(given);
}

/** Finds the message in an error object: OpenAI's `{error: {message}}`, or `{error}`, `{message}`, `{detail}` of others. */
export function messageOf(json: unknown): string | undefined {
  const { error, message, detail } = (json ?? {}) as Record<string, unknown>;
  const inner = (error ?? {}) as Record<string, unknown>;
  return [inner.message, error, message, detail].find((value) => typeof value === "string");
}

/** Returns the beginning of a text in one line. */
export function shorten(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > 300 ? `${line.slice(0, 300).toWellFormed()}...` : line;
}

function waitSeconds(retryAfter: string | null): number | undefined {
  if (retryAfter === null || retryAfter.trim() === "") return undefined;
  const seconds = /^\d+$/.test(retryAfter.trim()) ? Number(retryAfter) : (Date.parse(retryAfter) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(1, Math.ceil(seconds)) : undefined;
}

/** What the words of a refused certificate mean. */
const CERTIFICATE: readonly [RegExp, string][] = [
  [/UnknownIssuer/, "nobody who is trusted has signed it"],
  [/CaUsedAsEndEntity/, "it has signed itself"],
  [/expired/i, "it has expired"],
  [/NotValidForName|not valid for name/, "it is another server's"],
];

/** Says in words why a request failed; the reason that fetch gives lies in the innermost cause. */
function describeFailure(error: Error, url: string): string {
  if (error instanceof SyntaxError) return `Cannot read the answer of "${url}": ${error.message}`;
  let inner = error;
  while (inner.cause instanceof Error) inner = inner.cause;
  const reason = plainOsError(inner.message.split(": ").at(-1)!);
  if (/certificate/i.test(inner.message)) {
    const [_, known = reason] = CERTIFICATE.find(([words]) => words.test(inner.message)) ?? [];
    return `Cannot trust "${url}": its certificate is refused, ${known}; DENO_CERT=FILE adds an authority`;
  }
  if (/reading a body|before message completed/.test(inner.message)) {
    return `Cannot go on: "${url}" broke off in the middle of its answer`;
  }
  if (/invalid HTTP/.test(reason)) return `Cannot read the answer of "${url}": it is no HTTP; is the address right?`;
  return `Cannot reach "${url}": ${reason.toLowerCase()}; is the server running?`;
}
