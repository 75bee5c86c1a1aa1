/**
 * From a port to a function of Request and Response, over Node's HTTP server.
 *
 * Not over `Deno.serve`: that one has neither a deadline for headers nor a limit of connections, and throws where nobody can catch it when
 * the descriptors of the process run out (LOG 2026-11-25). Here a client has `requestMs` for a whole request and `stallMs` to take what
 * is written to it, and beyond `connections` nobody is let in.
 */
import { deadline } from "@std/async";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";

/** What a connection may take. */
export interface Limits {
  /** Connections at a time; further ones are closed at once. */
  readonly connections: number;
  /** Time for the headers of a request, from the connection or its first byte on. */
  readonly headersMs: number;
  /** Time for a whole request, headers and body. */
  readonly requestMs: number;
  /** Time in which a client takes what was written to it; also that between two requests of a connection. */
  readonly stallMs: number;
  /** Length of all headers of a request. */
  readonly headerBytes: number;
}

/** Limits of a server. */
export const LIMITS: Limits = {
  connections: 512,
  headersMs: 10_000,
  requestMs: 30_000,
  stallMs: 30_000,
  headerBytes: 16 * 1024,
};

/** A request that has been answered, as far as its client took the answer. */
export interface Exchange {
  readonly address: string;
  readonly method: string;
  /** Without the query, percent-encoded. */
  readonly path: string;
  readonly status: number;
  /** Its header `x-request-id`, "" where it has none. */
  readonly id: string;
  readonly ms: number;
  /** False where the client left, or was too slow, or the handler failed. */
  readonly isWhole: boolean;
}

/** Hears of requests. */
export interface ExchangeWatch {
  begun(): void;
  /** Called once for each `begun`. */
  ended(exchange: Exchange): void;
}

const UNWATCHED: ExchangeWatch = { begun() {}, ended() {} };

/** Answers a request of a client; `signal` of the request aborts when the client has gone. */
export type Handler = (request: Request, client: { readonly address: string }) => Response | Promise<Response>;

/** Methods that a Request can have here; others are refused before one is made. The body is read of POST alone. */
const METHODS = ["GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"];
/** Turns the target of a request into a URL; the real host is a header, which `guard.ts` checks. */
const ANY_HOST = "http://localhost";

/** An open port. */
export class Listener {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /**
   * Opens a port and answers what comes.
   *
   * @throws {Error} where the port cannot be had, saying why and which flag chooses another.
   */
  static async open(
    handler: Handler,
    { host, port, watch = UNWATCHED, limits = LIMITS }: {
      host: string;
      port: number;
      watch?: ExchangeWatch;
      limits?: Limits;
    },
  ): Promise<Listener> {
    const server = createServer({
      headersTimeout: limits.headersMs,
      requestTimeout: limits.requestMs,
      keepAliveTimeout: limits.stallMs,
      connectionsCheckingInterval: Math.min(1000, limits.headersMs / 2),
      maxHeaderSize: limits.headerBytes,
      noDelay: true,
    }, (incoming, outgoing) => void answer(handler, { incoming, outgoing, watch, stallMs: limits.stallMs }));
    server.maxConnections = limits.connections;
    server.on("upgrade", (_, socket) => socket.destroy()); // Deno would leave it open, without a deadline
    const listening = Promise.withResolvers<void>();
    server.once("error", (cause) => listening.reject(listenError(cause, { host, port })));
    server.listen(port, host, () => listening.resolve());
    await listening.promise;
    server.on("error", () => {}); // a connection that could not be accepted; the next ones are
    return new Listener(server);
  }

  /** The port, which the system chose where 0 was asked for. */
  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  /** Closes the port and every connection. */
  async close(): Promise<void> {
    const closed = Promise.withResolvers<void>();
    this.#server.close(() => closed.resolve());
    this.#server.closeAllConnections();
    await closed.promise;
  }
}

const NO_ADDRESS = ["this machine has no such address", "choose one of its own with --host"];

function listenError(cause: Error & { code?: string }, { host, port }: { host: string; port: number }): Error {
  const [is, hint] = {
    EADDRINUSE: ["another program has this port", "choose another with --port, 0 = any that is free"],
    EACCES: ["the system keeps this port for administrators", "choose one from 1024 on with --port"],
    EADDRNOTAVAIL: NO_ADDRESS,
    EINVAL: NO_ADDRESS, // what Deno makes of it
    ENOTFOUND: ["there is no host of this name", "choose an address of this machine with --host"],
  }[cause.code ?? ""] ?? [cause.message, "choose others with --host and --port"];
  return new Error(`Cannot listen on ${host}, port ${port}: ${is}; ${hint}`, { cause });
}

async function answer(
  handler: Handler,
  { incoming, outgoing, watch, stallMs }: {
    incoming: IncomingMessage;
    outgoing: ServerResponse;
    watch: ExchangeWatch;
    stallMs: number;
  },
): Promise<void> {
  const startMs = performance.now();
  const gone = new AbortController();
  outgoing.once("close", () => outgoing.writableFinished || gone.abort(new Error("The client has gone")));
  incoming.on("error", () => {}); // told by the body's reader, where there is one
  outgoing.on("error", () => {});
  const { method = "", url = "" } = incoming;
  const address = incoming.socket.remoteAddress ?? "";
  let [id, isWhole] = ["", false];
  watch.begun();
  try {
    const request = requestOf(incoming, gone.signal);
    const response = request instanceof Response ? request : await handler(request, { address });
    id = response.headers.get("x-request-id") ?? "";
    await write(response, { outgoing, gone: gone.signal, stallMs });
    isWhole = true;
  } catch {
    outgoing.destroy(); // the client reads an end that is none
  } finally {
    const [path, status] = [urlOf(url)?.pathname ?? "", outgoing.statusCode];
    watch.ended({ address, method, path, status, id, ms: performance.now() - startMs, isWhole });
  }
}

/** Makes a request of what was received, or the refusal of one that cannot be. */
function requestOf(incoming: IncomingMessage, signal: AbortSignal): Request | Response {
  const method = incoming.method ?? "";
  if (!METHODS.includes(method)) return new Response(null, { status: 405, headers: { allow: METHODS.join(", ") } });
  const url = urlOf(incoming.url ?? "");
  if (url === undefined) return new Response(null, { status: 400 });
  const headers = new Headers();
  for (let i = 0; i < incoming.rawHeaders.length; i += 2) {
    headers.append(incoming.rawHeaders[i], incoming.rawHeaders[i + 1]);
  }
  const body = method === "POST" ? ReadableStream.from<Uint8Array<ArrayBuffer>>(incoming) : null;
  return new Request(url, { method, headers, body, signal });
}

/** Reads a target: "/path?query", or a whole URL as for a proxy, whose host is not believed. */
function urlOf(target: string): URL | undefined {
  const whole = target.startsWith("/") ? ANY_HOST + target : target;
  if (!/^https?:/i.test(whole) || !URL.canParse(whole)) return undefined;
  const { pathname, search } = new URL(whole);
  return new URL(ANY_HOST + pathname + search);
}

/** Writes an answer as fast as the client takes it; a client that takes nothing for `stallMs` is cut off. */
async function write(
  response: Response,
  { outgoing, gone, stallMs }: { outgoing: ServerResponse; gone: AbortSignal; stallMs: number },
): Promise<void> {
  const reader = response.body?.getReader();
  const leave = () => void reader?.cancel().catch(() => {}); // what is still being generated ends
  gone.addEventListener("abort", leave, { once: true });
  try {
    gone.throwIfAborted();
    outgoing.writeHead(response.status, [...response.headers].flat());
    outgoing.flushHeaders();
    for (let part; reader && !(part = await reader.read()).done;) {
      if (!outgoing.write(part.value)) await deadline(once(outgoing, "drain", gone), stallMs);
    }
    outgoing.end();
    await deadline(once(outgoing, "finish", gone), stallMs);
  } catch (error) {
    leave();
    throw error;
  } finally {
    gone.removeEventListener("abort", leave);
  }
}

/** Waits for an event of an answer; fails where its client goes first. */
async function once(outgoing: ServerResponse, event: "drain" | "finish", gone: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const fail = () => reject(gone.reason);
  if (gone.aborted) fail();
  outgoing.once(event, resolve);
  gone.addEventListener("abort", fail, { once: true });
  try {
    await promise;
  } finally {
    outgoing.off(event, resolve);
    gone.removeEventListener("abort", fail);
  }
}
