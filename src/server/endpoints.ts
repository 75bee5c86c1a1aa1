/** The one table of the endpoints: the routes of the server and `GET /openapi.json` come from it. */
import type { Context } from "hono";
import type { ANSWER_SCHEMAS } from "./answer_schemas.ts";
import type { Api } from "./api.ts";
import { detokenize, getModel, listModels, tokenize } from "./models_api.ts";
import { chatCompletions } from "./openai_chat.ts";
import { completions } from "./openai_completions.ts";
import {
  bodySchema,
  CHAT_PARAMETERS,
  COMPLETION_PARAMETERS,
  DETOKENIZE_PARAMETERS,
  TOKENIZE_PARAMETERS,
} from "./parameters.ts";
import { health, REFERENCE_CHAT, REFERENCE_SCHEMA, referenceChat, stats } from "./reference_api.ts";
import type { Schema } from "./schema.ts";

/** One endpoint. */
export interface Endpoint {
  readonly method: "get" | "post";
  /** As OpenAPI writes it; a name in braces takes the rest of the path. */
  readonly path: string;
  readonly summary: string;
  /** What is sent to it, as JSON. */
  readonly body?: Schema;
  /** Media type of an answer, and for JSON the name of its schema. */
  readonly answers: readonly (readonly [type: string, schema?: keyof typeof ANSWER_SCHEMAS])[];
  /** Statuses of errors that are its own. */
  readonly errors?: readonly number[];
  readonly handle: (c: Context, api: Api) => Response | Promise<Response>;
}

const JSON_TYPE = "application/json";
const EVENTS = "text/event-stream";
const SVG = "image/svg+xml";
const METRICS_HEADERS = { "content-type": "text/plain; version=0.0.4; charset=utf-8", "cache-control": "no-store" };
/** How a generation may end without an answer. */
const REFUSALS = [400, 404, 429, 500, 503, 504];

const logo = (c: Context, { page }: Api) => c.body(page.logo, 200, { "content-type": SVG });

/** All endpoints. */
export const ENDPOINTS: readonly Endpoint[] = [
  {
    method: "post",
    path: "/v1/chat/completions",
    summary: "Answers a conversation, as OpenAI's endpoint of this name; with `stream` as events.",
    body: bodySchema(CHAT_PARAMETERS),
    answers: [[JSON_TYPE, "ChatCompletion"], [EVENTS]],
    errors: REFUSALS,
    handle: chatCompletions,
  },
  {
    method: "post",
    path: "/v1/completions",
    summary: "Continues texts, as OpenAI's endpoint of this name; with `stream` as events.",
    body: bodySchema(COMPLETION_PARAMETERS),
    answers: [[JSON_TYPE, "Completion"], [EVENTS]],
    errors: REFUSALS,
    handle: completions,
  },
  {
    method: "get",
    path: "/v1/models",
    summary: "Lists the models; the first answers where a request names none.",
    answers: [[JSON_TYPE, "ModelList"]],
    handle: listModels,
  },
  {
    method: "get",
    path: "/v1/models/{id}",
    summary: "Describes a model.",
    answers: [[JSON_TYPE, "Model"]],
    errors: [404],
    handle: getModel,
  },
  {
    method: "post",
    path: "/tokenize",
    summary: "Encodes a text.",
    body: bodySchema(TOKENIZE_PARAMETERS),
    answers: [[JSON_TYPE, "Tokens"]],
    errors: REFUSALS,
    handle: tokenize,
  },
  {
    method: "post",
    path: "/detokenize",
    summary: "Decodes token ids.",
    body: bodySchema(DETOKENIZE_PARAMETERS),
    answers: [[JSON_TYPE, "Text"]],
    errors: REFUSALS,
    handle: detokenize,
  },
  {
    method: "post",
    path: REFERENCE_CHAT,
    summary: "Streams an answer in the event format of the Python nanochat's web server.",
    body: REFERENCE_SCHEMA,
    answers: [[EVENTS]],
    errors: [...REFUSALS, 422],
    handle: referenceChat,
  },
  {
    method: "get",
    path: "/health",
    summary: "Says whether requests are answered.",
    answers: [[JSON_TYPE, "Health"]],
    handle: (c, { service, devices }) => c.json(health(service, devices)),
  },
  {
    method: "get",
    path: "/stats",
    summary: "Gives figures of the devices and models.",
    answers: [[JSON_TYPE, "Stats"]],
    handle: (c, { service, devices }) => c.json(stats(service, devices)),
  },
  {
    method: "get",
    path: "/metrics",
    summary: "Gives the figures of the server as Prometheus reads them.",
    answers: [["text/plain"]],
    handle: (c, { metrics }) => c.body(metrics(), 200, METRICS_HEADERS),
  },
  {
    method: "get",
    path: "/",
    summary: "The web page.",
    answers: [["text/html"]],
    handle: (c, { page }) => c.html(page.html, 200, { "content-security-policy": page.policy }),
  },
  { method: "get", path: "/logo.svg", summary: "The logo.", answers: [[SVG]], handle: logo },
  { method: "get", path: "/favicon.ico", summary: "The logo, for browsers.", answers: [[SVG]], handle: logo },
];
