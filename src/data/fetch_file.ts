/**
 * Fetches one file over HTTP so that it is whole or absent: into `<path>.tmp`, going on where an earlier attempt stopped, checked, then
 * renamed. Every retry is said aloud. Proxies (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`) are those of Deno's fetch.
 */
import { createHash } from "node:crypto";
import { basename } from "@std/path";
import { delay } from "@std/async";
import type { Log } from "./log.ts";
import { SILENT } from "./log.ts";

/** Options of `fetchFile`. */
export interface FetchOptions {
  /** Attempts in a row that bring nothing new before the file is given up; default 5. */
  readonly attempts?: number;
  /** Milliseconds without a byte after which an attempt has failed; default 30,000. */
  readonly timeoutMs?: number;
  /** Milliseconds to wait before attempt 2, 3 ...; default 2^attempt seconds. */
  readonly backoffMs?: (attempt: number) => number;
  /** Secret sent to the first host only, never to one that it redirects to; never logged. */
  readonly token?: string;
  /** Checks the whole file before it gets its name; throws where the content is wrong. */
  readonly check?: (path: string) => void;
  /** Is told bytes as they arrive (negative: thrown away again) and the size once it is known. */
  readonly onBytes?: (bytes: number) => void;
  readonly onSize?: (bytes: number) => void;
  readonly signal?: AbortSignal;
  readonly log?: Log;
}

/** A failure that another attempt may cure. */
class Retry extends Error {
  readonly afterMs: number | undefined;
  constructor(message: string, options: { afterMs?: number; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.afterMs = options.afterMs;
  }
}

/** What Deno's fetch and the reading of a body throw when a connection fails. */
const NETWORK_ERRORS = [
  TypeError,
  Deno.errors.Http,
  Deno.errors.ConnectionAborted,
  Deno.errors.ConnectionRefused,
  Deno.errors.ConnectionReset,
  Deno.errors.BrokenPipe,
  Deno.errors.TimedOut,
  Deno.errors.UnexpectedEof,
];
const MAX_REDIRECTS = 5;
const MAX_WAIT_MS = 300_000;

/**
 * Fetches `url` into `path`.
 *
 * @throws {Error} where the server refuses (4xx), the attempts are used up or the content is wrong each time.
 */
export async function fetchFile(url: string, path: string, options: FetchOptions = {}): Promise<void> {
  const { attempts = 5, backoffMs = (attempt) => 1000 * 2 ** attempt, signal, log = SILENT } = options;
  const transfer = new Transfer(url, path, options);
  for (let attempt = 1;; attempt++) {
    const before = transfer.kept;
    try {
      return await transfer.attempt();
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (!(error instanceof Retry)) throw error;
      if (transfer.kept > before) attempt = 1; // it brings something: go on for as long as it does
      if (attempt >= attempts) {
        throw new Error(`Cannot fetch "${basename(path)}": ${error.message} (attempt ${attempt} of ${attempts})`, {
          cause: error,
        });
      }
      const waitMs = Math.min(error.afterMs ?? backoffMs(attempt), MAX_WAIT_MS);
      log.warn(
        `Fetching "${basename(path)}" failed: ${error.message}; attempt ${attempt} of ${attempts}, next one in ${
          waitMs / 1000
        } s`,
      );
      await delay(waitMs, { signal });
    }
  }
}

class Transfer {
  /** Bytes in the temporary file that the next attempt goes on behind. */
  kept = 0;
  readonly #url: string;
  readonly #path: string;
  readonly #temporary: string;
  readonly #options: FetchOptions;
  /** Version of the file that the kept bytes are of; it lies beside the temporary file, so that a later run can go on. */
  #etag: string | undefined;

  constructor(url: string, path: string, options: FetchOptions) {
    this.#url = new URL(url).href;
    this.#path = path;
    this.#temporary = `${path}.tmp`;
    this.#options = options;
    const etag = readText(`${this.#temporary}.etag`);
    if (etag !== undefined) {
      this.#etag = etag;
      this.kept = sizeOf(this.#temporary);
      options.onBytes?.(this.kept);
    }
  }

  /** Requests what is missing, appends it, checks the whole and names it. */
  async attempt(): Promise<void> {
    const watch = new Watch(this.#options);
    try {
      const headers: Record<string, string> = { "accept-encoding": "identity" };
      if (this.kept > 0) headers.range = `bytes=${this.kept}-`;
      if (this.kept > 0 && this.#etag) headers["if-range"] = this.#etag;
      const { response, sha256 } = await request(this.#url, { headers, watch, token: this.#options.token });
      const size = await this.#receive(response, watch);
      this.#check(size, sha256);
    } catch (error) {
      // Whatever the network layer throws may pass; our own errors know whether they are for good.
      if (watch.expired) {
        throw new Retry(`no byte for ${(this.#options.timeoutMs ?? 30_000) / 1000} s`, { cause: error });
      }
      if (NETWORK_ERRORS.some((kind) => error instanceof kind) || (error as Error).name === "AbortError") {
        throw new Retry(`connection lost after ${this.kept} bytes (${(error as Error).message})`, { cause: error });
      }
      throw error;
    } finally {
      watch.stop();
    }
  }

  /** Writes the body; returns the size that the whole file must have, where the server says it. */
  async #receive(response: Response, watch: Watch): Promise<number | undefined> {
    const { status } = response;
    if (status === 416) {
      await response.body?.cancel();
      const size = Number(/\*\/(\d+)/.exec(response.headers.get("content-range") ?? "")?.[1] ?? NaN);
      if (size === this.kept) return size;
      this.#discard();
      throw new Retry("the server has fewer bytes than were kept; starting again");
    }
    if (status !== 200 && status !== 206) {
      await response.body?.cancel();
      throw failure(response);
    }
    const range = /bytes (\d+)-\d+\/(\d+|\*)/.exec(response.headers.get("content-range") ?? "");
    if (status === 206 && Number(range?.[1] ?? NaN) !== this.kept) {
      await response.body?.cancel();
      this.#discard();
      throw new Retry("the server sent another part than the one asked for; starting again");
    }
    if (status === 200) this.#discard();
    const length = response.headers.get("content-length");
    const size = Number(status === 206 ? range![2] : length ?? NaN);
    if (!Number.isNaN(size)) this.#options.onSize?.(size);
    this.#etag = response.headers.get("etag") ?? "";
    Deno.writeTextFileSync(`${this.#temporary}.etag`, this.#etag.startsWith("W/") ? "" : this.#etag);
    await this.#append(response, watch);
    return Number.isNaN(size) ? undefined : size;
  }

  async #append(response: Response, watch: Watch): Promise<void> {
    using file = await Deno.open(this.#temporary, { write: true, create: true, append: true });
    for await (const chunk of response.body ?? []) {
      watch.touch();
      for (let at = 0; at < chunk.length;) at += await file.write(chunk.subarray(at));
      this.kept += chunk.length;
      this.#options.onBytes?.(chunk.length);
    }
    await file.sync();
  }

  #check(size: number | undefined, sha256: string | undefined): void {
    const found = sizeOf(this.#temporary);
    if (size !== undefined && found < size) throw new Retry(`the connection ended at byte ${found} of ${size}`);
    try {
      if (size !== undefined && found !== size) throw new Error(`it has ${found} bytes, expected ${size}`);
      if (sha256 !== undefined && hashOf(this.#temporary) !== sha256) {
        throw new Error(`its SHA-256 differs from the server's ${sha256}`);
      }
      this.#options.check?.(this.#temporary);
    } catch (cause) {
      this.#discard();
      this.kept = 0;
      throw new Retry(`the content is wrong: ${(cause as Error).message}`, { cause });
    }
    Deno.renameSync(this.#temporary, this.#path);
    removeFile(`${this.#temporary}.etag`);
  }

  #discard(): void {
    if (this.kept > 0) this.#options.onBytes?.(-this.kept);
    this.kept = 0;
    removeFile(this.#temporary);
    removeFile(`${this.#temporary}.etag`);
  }
}

/** Aborts a request that brings nothing for too long, or that the caller gave up. */
class Watch {
  readonly #controller = new AbortController();
  readonly #timeoutMs: number;
  readonly #signal: AbortSignal | undefined;
  readonly #abort = () => this.#controller.abort(this.#signal?.reason);
  #timer: ReturnType<typeof setTimeout> | undefined;
  expired = false;

  constructor({ timeoutMs = 30_000, signal }: FetchOptions) {
    this.#timeoutMs = timeoutMs;
    this.#signal = signal;
    if (signal?.aborted) this.#abort();
    signal?.addEventListener("abort", this.#abort);
    this.touch();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  touch(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.expired = true;
      this.#controller.abort();
    }, this.#timeoutMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener("abort", this.#abort);
  }
}

/** Follows redirects by hand: the token stays with the first host, and the hash that the Hugging Face hub tells on the way is kept. */
async function request(
  url: string,
  { headers, watch, token, method = "GET" }: {
    headers: Record<string, string>;
    watch: Watch;
    token?: string;
    method?: string;
  },
): Promise<{ response: Response; sha256?: string }> {
  const first = webAddress(new URL(url));
  let at = first;
  let sha256: string | undefined;
  for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
    const sent = { ...headers };
    if (token && at.origin === first.origin) sent.authorization = `Bearer ${token}`;
    const response = await fetch(at, { method, headers: sent, redirect: "manual", signal: watch.signal });
    watch.touch();
    const linked = /^"?([0-9a-f]{64})"?$/.exec(response.headers.get("x-linked-etag") ?? "");
    sha256 ??= linked?.[1];
    const location = response.headers.get("location");
    if (response.status < 300 || response.status >= 400 || location === null) return { response, sha256 };
    await response.body?.cancel();
    at = webAddress(new URL(location, at));
  }
  throw new Error(`Cannot fetch "${first.pathname}": more than ${MAX_REDIRECTS} redirects`);
}

/** Refuses addresses that are no web addresses: fetch would read local files for a server that redirects to one. */
function webAddress(url: URL): URL {
  if (url.protocol === "https:" || url.protocol === "http:") return url;
  throw new Error(`Cannot fetch "${url.href}": its protocol is "${url.protocol}", expected http: or https:`);
}

/** Asks for the size of a file; undefined where the server does not say. */
export async function fetchSize(url: string, options: FetchOptions = {}): Promise<number | undefined> {
  const watch = new Watch(options);
  try {
    const headers = { "accept-encoding": "identity" };
    const { response } = await request(url, { headers, watch, token: options.token, method: "HEAD" });
    await response.body?.cancel();
    const length = response.headers.get("x-linked-size") ?? response.headers.get("content-length");
    return response.ok && length !== null ? Number(length) : undefined;
  } catch (error) {
    if (options.signal?.aborted) throw error;
    return undefined; // the transfer itself will say what is wrong
  } finally {
    watch.stop();
  }
}

/** What a refusing status means: 408, 429 and 5xx pass, others are for good. */
function failure(response: Response): Error {
  const { status, statusText } = response;
  const what = `the server answered ${status} ${statusText}`.trim();
  if (status !== 408 && status !== 429 && status < 500) {
    const hint = status === 401 || status === 403 ? "; is HF_TOKEN set and allowed to read it?" : "";
    const { origin, pathname } = new URL(response.url); // the rest may be a signature
    return new Error(`Cannot fetch "${origin}${pathname}": ${what}${hint}`);
  }
  const after = response.headers.get("retry-after");
  const seconds = Number(after ?? NaN);
  const afterMs = Number.isNaN(seconds) ? Date.parse(after ?? "") - Date.now() : seconds * 1000;
  return new Retry(what, Number.isNaN(afterMs) ? {} : { afterMs: Math.max(0, afterMs) });
}

function readText(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return undefined;
  }
}

function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch {
    return 0;
  }
}

/** Gives the size of what an unfinished fetch of a file has left: the next one goes on behind it. */
export function keptBytes(path: string): number {
  return sizeOf(`${path}.tmp`);
}

function removeFile(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function hashOf(path: string): string {
  using file = Deno.openSync(path);
  const hash = createHash("sha256");
  const block = new Uint8Array(1 << 20);
  for (let read = file.readSync(block); read !== null; read = file.readSync(block)) {
    hash.update(block.subarray(0, read));
  }
  return hash.digest("hex");
}
