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
import { ApiError, openAiError, referenceError, toApiError } from "./errors.ts";
import { chatCompletions } from "./openai_chat.ts";
import { health, referenceChat, stats } from "./reference_api.ts";
import { SYSTEM_CLOCK } from "./sse.ts";

/** What a server is made of. */
export interface AppOptions extends Omit<Api, "clock"> {
  /** The web page and the picture beside it, as files. */
  readonly page: { readonly html: string; readonly logo: string };
  /** Names of the devices that generate: "cpu". */
  readonly devices: readonly string[];
  /** What stands in front of the handlers, outermost first. */
  readonly middleware?: readonly MiddlewareHandler[];
  /** Tests give another one. */
  readonly clock?: Api["clock"];
}

/** Path of the reference's endpoint, whose errors have a form of their own. */
const REFERENCE_CHAT = "/chat/completions";
/** What logs of web servers call a client that left; nobody reads the answer. */
const CLIENT_LEFT = 499;

/** Makes the server. */
export function createApp(options: AppOptions): Hono {
  const { service, page, devices, middleware = [] } = options;
  const api: Api = { ...options, clock: options.clock ?? SYSTEM_CLOCK };
  const app = new Hono();
  app.onError((error, c) => answerError(c, error, api));
  app.notFound((c) => answerError(c, notFound(c), api));
  app.use(requestId());
  for (const handler of middleware) app.use(handler);

  app.get("/", (c) => c.html(page.html));
  const logo = (c: Context) => c.body(page.logo, 200, { "content-type": "image/svg+xml; charset=utf-8" });
  app.get("/logo.svg", logo).get("/favicon.ico", logo);
  app.get("/health", (c) => c.json(health(service, devices)));
  app.get("/stats", (c) => c.json(stats(service, devices)));
  app.post(REFERENCE_CHAT, (c) => referenceChat(c, api));
  app.post("/v1/chat/completions", (c) => chatCompletions(c, api));
  return app;
}

function notFound(c: Context): ApiError {
  const message = `Cannot find ${c.req.method} ${c.req.path}: expected an endpoint of GET /openapi.json`;
  return new ApiError(404, message, { code: "not_found" });
}

function answerError(c: Context, error: unknown, api: Api): Response {
  if (c.req.raw.signal.aborted) return new Response(null, { status: CLIENT_LEFT });
  const known = toApiError(error);
  if (known.status === 500) api.onFailure(error);
  const body = c.req.path === REFERENCE_CHAT ? referenceError(known) : openAiError(known);
  return c.json(body, known.status, { ...known.headers });
}
