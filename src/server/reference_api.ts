/**
 * The endpoints of the reference's web server (scripts/chat_web.py at commit 10231df): its requests, limits, statuses and events. Errors
 * have FastAPI's form: `{ detail }`, 422 where a value is of the wrong kind.
 */
import type { Context } from "hono";
import { freshSeed } from "../engine/sample.ts";
import { AnswerView } from "./answer_view.ts";
import { type Api, readJson, requestAbort } from "./api.ts";
import { ApiError, toApiError } from "./errors.ts";
import type { ChatMessage, GenerationEvent, ModelService } from "./models.ts";
import { findMismatch, type Schema } from "./schema.ts";
import { streamEvents } from "./sse.ts";

/** Path of the reference's chat, whose errors have a form of their own. */
export const REFERENCE_CHAT = "/chat/completions";

/** Limits of a request (chat_web.py, "Abuse prevention limits"). */
export const REFERENCE_LIMITS = {
  messages: 500,
  messageChars: 8000,
  conversationChars: 32_000,
  temperature: [0, 2],
  topK: [1, 200],
  maxTokens: [1, 4096],
} as const;

/** The body of `POST /chat/completions`; what else it holds is not looked at. */
export const REFERENCE_SCHEMA: Schema = {
  type: "object",
  properties: {
    messages: {
      type: "array",
      items: {
        type: "object",
        properties: { role: { type: "string" }, content: { type: "string" } },
        required: ["role", "content"],
      },
    },
    temperature: { type: "number" },
    top_k: { type: "integer" },
    max_tokens: { type: "integer" },
  },
  required: ["messages"],
};

interface ReferenceBody {
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly temperature?: number | null;
  readonly top_k?: number | null;
  readonly max_tokens?: number | null;
}

/** Streams the answer to a conversation by the first model: `{ token, gpu }` each, `{ done: true }` in the end. */
export async function referenceChat(c: Context, api: Api): Promise<Response> {
  const body = await readJson(c) as ReferenceBody;
  const mismatch = findMismatch(REFERENCE_SCHEMA, body);
  if (mismatch !== undefined) {
    const at = ["body", ...mismatch.path].join(".");
    const message = `Cannot read ${at}: it is ${mismatch.found}, expected ${mismatch.expected}`;
    throw new ApiError(422, message, { code: "invalid_type" });
  }
  checkLimits(body);
  const { service, defaults, deadlineMs, clock } = api;
  const { abort, signal } = requestAbort(c);
  const events = service.generate({
    model: service.list()[0].id,
    prompt: { messages: body.messages as ChatMessage[] },
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

function checkLimits({ messages, temperature, top_k: topK, max_tokens: maxTokens }: ReferenceBody): void {
  const { messages: most, messageChars, conversationChars } = REFERENCE_LIMITS;
  if (messages.length === 0) throw refuse("there is no message, expected at least one");
  if (messages.length > most) throw refuse(`there are ${messages.length} messages, expected at most ${most}`);
  let total = 0;
  for (const [i, { content }] of messages.entries()) {
    const length = content.length > 2 * messageChars ? content.length : [...content].length;
    if (length === 0) throw refuse(`message ${i} is empty`);
    if (length > messageChars) throw refuse(`message ${i} is longer than ${messageChars} characters`);
    total += length;
  }
  if (total > conversationChars) throw refuse(`the conversation is longer than ${conversationChars} characters`);
  const stranger = messages.findIndex(({ role }) => role !== "user" && role !== "assistant");
  if (stranger >= 0) throw refuse(`message ${stranger} is not from "user" or "assistant"`);
  checkRange("temperature", temperature, REFERENCE_LIMITS.temperature);
  checkRange("top_k", topK, REFERENCE_LIMITS.topK);
  checkRange("max_tokens", maxTokens, REFERENCE_LIMITS.maxTokens);
}

function checkRange(name: string, value: number | null | undefined, [from, to]: readonly [number, number]): void {
  if (value === null || value === undefined || (value >= from && value <= to)) return;
  throw refuse(`${name} is ${value}, expected ${from} to ${to}`);
}

function refuse(problem: string): ApiError {
  return new ApiError(400, `Cannot answer: ${problem}`, { code: "invalid_value" });
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
    nanochat: service.stats(),
  };
}

/** A device answers many requests at once; it counts as busy in the share of its rows that are. */
function availableWorkers(service: ModelService, devices: readonly string[]): number {
  const { rows, activeRows } = service.stats();
  return rows === 0 ? devices.length : Math.ceil((devices.length * (rows - activeRows)) / rows);
}
