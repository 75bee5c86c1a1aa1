/**
 * What stands in front of every route: who may ask, from where, and how much. In this order, so that a stranger learns and costs little:
 *
 *   Host -> Origin (and the preflight of one that may) -> key -> type of the body -> its size
 *
 * Every answer, refusals too, carries headers that keep browsers from doing more with it than our own page needs.
 */
import type { Context, MiddlewareHandler } from "hono";
import type { ApiKey } from "./api_key.ts";
import { ApiError } from "./errors.ts";
import { isOwnOrigin, parseHost } from "./hosts.ts";

/** Who may ask. */
export interface GuardOptions {
  /** Names that a `Host` header may hold, as `ownHosts` lists them. */
  readonly hosts: readonly string[];
  /** Origins of pages elsewhere that may ask too. */
  readonly origins: readonly string[];
  /** Without it nobody needs one. */
  readonly key?: ApiKey;
  /** Largest body. */
  readonly bodyBytes?: number;
}

/** What needs no key: the page, its picture, and whether the server is there. */
const PUBLIC = new Set(["/", "/logo.svg", "/favicon.ico", "/health"]);
const BODY_BYTES = 1 << 20;
/** Headers of an answer that a browser may need, whoever asked. */
const SAFE_HEADERS = {
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
  "referrer-policy": "same-origin",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
};

const PREFLIGHT_HEADERS = {
  "access-control-allow-methods": "GET, POST",
  "access-control-allow-headers": "authorization, *", // the star does not stand for the first one
  "access-control-max-age": "600",
};

/** Makes the middleware that adds those headers to every answer, and lets pages of the given origins read it. */
export function safeHeaders({ origins }: Pick<GuardOptions, "origins">): MiddlewareHandler {
  return async (c, next) => {
    await next();
    const { headers } = c.res;
    for (const [name, value] of Object.entries(SAFE_HEADERS)) if (!headers.has(name)) headers.set(name, value);
    if (origins.length === 0) return;
    headers.append("vary", "Origin");
    const origin = c.req.header("origin");
    if (origin === undefined || !origins.includes(origin)) return;
    headers.set("access-control-allow-origin", origin);
    headers.set("access-control-expose-headers", "*");
  };
}

/** Makes the middleware that refuses what may not be asked; it throws `ApiError`. */
export function guard(options: GuardOptions): MiddlewareHandler {
  const { key, origins, bodyBytes = BODY_BYTES } = options;
  return async (c, next) => {
    checkHost(c, options);
    checkOrigin(c, options);
    if (isPreflight(c, origins)) return c.body(null, 204, PREFLIGHT_HEADERS);
    if (key !== undefined && !isPublic(c)) checkKey(c, key);
    if (c.req.method === "POST") c.req.raw = new Request(c.req.raw, { body: await readBody(c, bodyBytes) });
    await next();
  };
}

function checkHost(c: Context, { hosts }: GuardOptions): void {
  const given = c.req.header("host") ?? "";
  const name = parseHost(given)?.name;
  if (name !== undefined && hosts.includes(name)) return;
  const is = given === "" ? "the header Host is missing" : `the header Host names ${JSON.stringify(given)}`;
  const message = `Cannot answer: ${is}, expected a name of this server; --allowed-host adds one`;
  throw new ApiError(403, message, { code: "host_not_allowed" });
}

function checkOrigin(c: Context, { origins }: GuardOptions): void {
  const origin = c.req.header("origin");
  const host = parseHost(c.req.header("host") ?? "");
  if (origin === undefined || origins.includes(origin) || (host && isOwnOrigin(origin, host))) return;
  const is = `the page that asks is of ${JSON.stringify(origin)}`;
  const message = `Cannot answer: ${is}, expected this server's own; --cors lets others ask`;
  throw new ApiError(403, message, { code: "origin_not_allowed" });
}

/** Whether a browser asks if a page elsewhere may ask, which it does without the key. */
function isPreflight(c: Context, origins: readonly string[]): boolean {
  const isOne = c.req.method === "OPTIONS" && c.req.header("access-control-request-method") !== undefined;
  return isOne && origins.includes(c.req.header("origin") ?? "");
}

/** A body is read of nobody without the key, wherever it is sent to. */
function isPublic(c: Context): boolean {
  return c.req.method !== "POST" && PUBLIC.has(c.req.path);
}

function checkKey(c: Context, key: ApiKey): void {
  const given = c.req.header("authorization");
  if (key.isIn(given)) return;
  const is = given === undefined ? "no key was sent" : "the key that was sent is not this server's";
  throw new ApiError(401, `Cannot answer: ${is}, expected the header "Authorization: Bearer KEY"`, {
    code: "invalid_api_key",
    headers: { "www-authenticate": "Bearer" },
  });
}

/** Reads the whole body, so that no handler waits for a client or is given more than it can take. */
async function readBody(c: Context, bodyBytes: number): Promise<Blob> {
  const type = c.req.header("content-type")?.split(";")[0].trim().toLowerCase();
  if (type !== "application/json") {
    const is = type ? `it is ${JSON.stringify(type)}` : "it has no type";
    const message = `Cannot read the body: ${is}, expected the header "Content-Type: application/json"`;
    throw new ApiError(415, message, { code: "unsupported_media_type" });
  }
  const tooLarge = () =>
    new ApiError(413, `Cannot read the body: it is too large, expected at most ${bodyBytes} bytes`, {
      code: "body_too_large",
      headers: { connection: "close" },
    });
  if (Number(c.req.header("content-length") ?? 0) > bodyBytes) throw tooLarge();
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  // Not cancelled where it is too large: that would end the connection before the client has read why.
  const reader = c.req.raw.body?.getReader();
  for (let part; reader && !(part = await readPart(reader)).done;) {
    length += part.value.length;
    if (length > bodyBytes) throw tooLarge();
    parts.push(part.value);
  }
  return new Blob(parts);
}

async function readPart(reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>) {
  try {
    return await reader.read();
  } catch (cause) {
    throw new ApiError(400, "Cannot read the body: it ended early, expected all of it", {
      code: "body_cut_off",
      cause,
    });
  }
}
