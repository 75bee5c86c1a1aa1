/**
 * The HTTP server without a port: routes, and what surrounds every handler. Tests call `app.request()`.
 *
 *   request -> request id -> middleware (who may ask, how much, what is logged) -> handler -> models
 *
 * Handlers throw; `onError` alone turns what they threw into an answer.
 */
import { type Context, Hono, type MiddlewareHandler } from "hono";
import { requestId } from "hono/request-id";
import type { Api } from "./api.ts";
import { ENDPOINTS } from "./endpoints.ts";
import { ApiError, openAiError, referenceError, toApiError } from "./errors.ts";
import { openApiDocument } from "./openapi.ts";
import { REFERENCE_CHAT } from "./reference_api.ts";
import { SYSTEM_CLOCK } from "./sse.ts";

/** What a server is made of. */
export interface AppOptions extends Omit<Api, "clock"> {
  /** What stands in front of the handlers, outermost first. */
  readonly middleware?: readonly MiddlewareHandler[];
  /** Tests give another one. */
  readonly clock?: Api["clock"];
}

/** What logs of web servers call a client that left; nobody reads the answer. */
const CLIENT_LEFT = 499;

/** Makes the server. */
export function createApp(options: AppOptions): Hono {
  const { middleware = [], version, service } = options;
  const api: Api = { ...options, clock: options.clock ?? SYSTEM_CLOCK };
  const app = new Hono();
  app.onError((error, c) => answerError(c, error, api));
  app.notFound((c) => answerError(c, notFound(c), api));
  app.use(requestId());
  app.use(async (c, next) => {
    await next();
    c.header("x-request-id", c.get("requestId")); // also where a handler made its own Response, as streams do
  });
  for (const handler of middleware) app.use(handler);

  for (const { method, path, handle } of ENDPOINTS) app.on(method, routeOf(path), (c) => handle(c, api));
  const document = openApiDocument({ version, models: service.list().map(({ id }) => id) });
  app.get("/openapi.json", (c) => c.json(document));
  for (const path of new Set([...ENDPOINTS.map(({ path }) => path), "/openapi.json"])) {
    app.all(routeOf(path), (c) => answerError(c, wrongMethod(c, path), api));
  }
  return app;
}

/** Writes a path as hono's router reads it. */
function routeOf(path: string): string {
  return path.replace(/\{(\w+)\}/, ":$1{.+}");
}

function notFound(c: Context): ApiError {
  const message = `Cannot find "${c.req.path}": expected an endpoint of GET /openapi.json`;
  return new ApiError(404, message, { code: "not_found" });
}

function wrongMethod(c: Context, path: string): ApiError {
  const methods = ENDPOINTS.filter((endpoint) => endpoint.path === path).map(({ method }) => method.toUpperCase());
  const allow = methods.length > 0 ? methods.join(", ") : "GET";
  const message = `Cannot answer ${c.req.method} at "${path}": expected ${allow}`;
  return new ApiError(405, message, { code: "method_not_allowed", headers: { allow } });
}

function answerError(c: Context, error: unknown, api: Api): Response {
  if (c.req.raw.signal.aborted) return new Response(null, { status: CLIENT_LEFT });
  const known = toApiError(error);
  if (known.status === 500) api.onFailure(error);
  const body = c.req.path === REFERENCE_CHAT ? referenceError(known) : openAiError(known);
  return c.json(body, known.status, { ...known.headers });
}
