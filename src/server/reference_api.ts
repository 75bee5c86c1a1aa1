/**
 * The endpoints of the reference's web server (scripts/chat_web.py at commit 10231df): its requests, limits, statuses and events. Errors
 * have FastAPI's form: `{ detail }`, 422 where a value is of the wrong kind.
 */
import type { Context } from "hono";
import { freshSeed } from "../engine/sample.ts";
import { AnswerView } from "./answer_view.ts";
import { type Api, readJson, requestAbort } from "./api.ts";
import { ApiError, toApiError, UnreadableError } from "./errors.ts";
import type { GenerationEvent, ModelService } from "./models.ts";
import { findMismatch, type Schema } from "./schema.ts";
import { streamEvents } from "./sse.ts";

/** Path of the reference's chat, whose errors have a form of their own. */
export const REFERENCE_CHAT = "/chat/completions";

/** Characters of all messages of a request. The limits are those of chat_web.py ("Abuse prevention limits"). */
const CONVERSATION_CHARS = 32_000;

/** The body of `POST /chat/completions`; what else it holds is not looked at. */
export const REFERENCE_SCHEMA: Schema = {
  type: "object",
  properties: {
    messages: {
      type: "array",
      minItems: 1,
      maxItems: 500,
      items: {
        type: "object",
        properties: {
          role: { type: "string", enum: ["user", "assistant"] },
          content: { type: "string", minLength: 1, maxLength: 8000 },
        },
        required: ["role", "content"],
      },
    },
    temperature: { type: "number", minimum: 0, maximum: 2 },
    top_k: { type: "integer", minimum: 1, maximum: 200 },
    max_tokens: { type: "integer", minimum: 1, maximum: 4096 },
  },
  required: ["messages"],
};

interface ReferenceBody {
  readonly messages: readonly { readonly role: "user" | "assistant"; readonly content: string }[];
  readonly temperature?: number | null;
  readonly top_k?: number | null;
  readonly max_tokens?: number | null;
}

/** Streams the answer to a conversation by the first model: `{ token, gpu }` each, `{ done: true }` in the end. */
export async function referenceChat(c: Context, api: Api): Promise<Response> {
  const body = readBody(await readJson(c).catch(refuseUnread));
  const { service, defaults, deadlineMs, clock } = api;
  const { abort, signal } = requestAbort(c);
  const events = service.generate({
    model: service.list()[0].id,
    prompt: { messages: body.messages },
    choices: 1,
    maxTokens: body.max_tokens ?? defaults.maxTokens,
    sampling: {
      temperature: body.temperature ?? defaults.temperature,
      topK: body.top_k ?? defaults.topK,
      topP: 1,
      seed: freshSeed(),
      frequencyPenalty: 0,
      presencePenalty: 0,
      logitBias: new Map(),
    },
    stop: [],
    echo: false,
    deadlineMs,
  }, signal);
  const onError = (error: unknown) => {
    const known = toApiError(error);
    if (known.status === 500 && !signal.aborted) api.onFailure(error);
    return JSON.stringify({ error: known.message });
  };
  return streamEvents(referenceEvents(events), { abort, clock, onError });
}

/** Gives the data of the events. The reference prints the marks around tool calls too. */
async function* referenceEvents(events: AsyncIterable<GenerationEvent>): AsyncGenerator<string> {
  const view = new AnswerView({ showTools: true });
  const write = (token: string) => JSON.stringify({ token, gpu: 0 });
  for await (const event of events) {
    const token = event.type === "piece" ? view.take(event).content : event.type === "end" ? view.end() : "";
    if (token !== "") yield write(token);
    if (event.type === "end") yield JSON.stringify({ done: true });
  }
}

function refuseUnread(error: unknown): never {
  throw error instanceof ApiError ? new UnreadableError(error.message, ["body"]) : error;
}

function readBody(value: unknown): ReferenceBody {
  const mismatch = findMismatch(REFERENCE_SCHEMA, value);
  if (mismatch !== undefined) {
    const { path, kind, found, expected } = mismatch;
    const location = ["body", ...path];
    const message = `Cannot read ${location.join(".")}: it is ${found}, expected ${expected}`;
    throw kind === "value"
      ? new ApiError(400, message, { code: "invalid_value" })
      : new UnreadableError(message, location);
  }
  const body = value as ReferenceBody;
  const length = body.messages.reduce((sum, { content }) => sum + [...content].length, 0);
  if (length <= CONVERSATION_CHARS) return body;
  const message =
    `Cannot answer: the messages have ${length} characters, expected at most ${CONVERSATION_CHARS} in all`;
  throw new ApiError(400, message, { code: "invalid_value" });
}

/** Gives `GET /health`: whether requests are answered. */
export function health(service: ModelService, devices: readonly string[]): object {
  return {
    status: "ok",
    ready: service.list().length > 0,
    num_gpus: devices.length,
    available_workers: availableWorkers(service, devices),
  };
}

/** Gives `GET /stats`: the reference's workers, which are devices here, and beside them the figures of the models. */
export function stats(service: ModelService, devices: readonly string[]): object {
  const available = availableWorkers(service, devices);
  return {
    total_workers: devices.length,
    available_workers: available,
    busy_workers: devices.length - available,
    workers: devices.map((device, i) => ({ gpu_id: i, device })),
    nanochat: Object.fromEntries(
      Object.entries(service.stats()).map((
        [name, value],
      ) => [name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`), value]),
    ),
  };
}

/** A device answers many requests at once; it counts as busy in the share of its rows that are. */
function availableWorkers(service: ModelService, devices: readonly string[]): number {
  const { rows, activeRows } = service.stats();
  return rows === 0 ? devices.length : Math.ceil((devices.length * (rows - activeRows)) / rows);
}
