/** What answers look like, for `GET /openapi.json`; schemathesis holds the endpoints to it. */
import type { Schema } from "./schema.ts";

const STRING: Schema = { type: "string" };
const COUNT: Schema = { type: "integer", minimum: 0 };
const object = (properties: Record<string, Schema>, optional: Record<string, Schema> = {}): Schema => ({
  type: "object",
  properties: { ...properties, ...optional },
  required: Object.keys(properties),
});
const list = (items: Schema): Schema => ({ type: "array", items });
const orNull = (schema: Schema): Schema => ({ anyOf: [schema, { type: "null" }] });
const only = (...values: string[]): Schema => ({ type: "string", enum: values });

const TOOL_EVENTS = list(object({
  choice: COUNT,
  type: only("python", "python_output"),
  text: STRING,
  content_offset: { ...COUNT, description: "Characters (Unicode code points) of the content in front of it." },
}));

const NANOCHAT = object({
  seed: { type: "integer", description: "The same seed, prompt and settings give the same answer." },
  context_length: COUNT,
  dropped_messages: {
    ...COUNT,
    description: "Messages that were left out, oldest first, because the context is full.",
  },
  prompt_tokens: COUNT,
  tool_events: { ...TOOL_EVENTS, description: "Calls of the calculator, which runs on the server, and their results." },
});

const USAGE = object({
  prompt_tokens: COUNT,
  completion_tokens: COUNT,
  total_tokens: COUNT,
  prompt_tokens_details: object({ cached_tokens: COUNT }),
});

const CHAT_TOKEN = { token: STRING, logprob: { type: "number" }, bytes: list(COUNT) } satisfies Record<string, Schema>;
const FINISH = only("stop", "length");

const answer = (name: string, choice: Record<string, Schema>): Schema =>
  object({
    id: STRING,
    object: only(name),
    created: COUNT,
    model: STRING,
    system_fingerprint: STRING,
    choices: list(object({ index: COUNT, ...choice, finish_reason: FINISH })),
    usage: USAGE,
    nanochat: NANOCHAT,
  });

const MODEL = object({
  id: STRING,
  object: only("model"),
  created: COUNT,
  owned_by: STRING,
  nanochat: object({
    stage: only("base", "mid", "sft", "rl"),
    step: COUNT,
    parameters: COUNT,
    vocab_size: COUNT,
    context_length: COUNT,
    completes: { type: "boolean", description: "A base model: it continues the text of the last message." },
    is_loaded: { type: "boolean" },
  }),
});

/** The answers by the names that the document gives them. */
export const ANSWER_SCHEMAS = {
  ChatCompletion: answer("chat.completion", {
    message: object({ role: only("assistant"), content: STRING, refusal: { type: "null" } }),
    logprobs: orNull(object({
      content: list(object({ ...CHAT_TOKEN, top_logprobs: list(object(CHAT_TOKEN)) })),
      refusal: { type: "null" },
    })),
  }),
  Completion: answer("text_completion", {
    text: STRING,
    logprobs: orNull(object({
      tokens: list(STRING),
      token_logprobs: list(orNull({ type: "number" })),
      top_logprobs: list(orNull({ type: "object", additionalProperties: { type: "number" } })),
      text_offset: list(COUNT),
    })),
  }),
  Model: MODEL,
  ModelList: object({ object: only("list"), data: list(MODEL) }),
  Tokens: object({ tokens: list(COUNT), count: COUNT, max_model_len: COUNT }),
  Text: object({ prompt: STRING }),
  Health: object({ status: only("ok"), ready: { type: "boolean" }, num_gpus: COUNT, available_workers: COUNT }),
  Stats: object({
    total_workers: COUNT,
    available_workers: COUNT,
    busy_workers: COUNT,
    workers: list(object({ gpu_id: COUNT, device: STRING })),
    nanochat: { type: "object", additionalProperties: { type: "number" } },
  }),
  Error: object({
    error: object({ message: STRING, type: STRING, param: orNull(STRING), code: STRING }),
  }),
  ReferenceError: object({
    detail: {
      anyOf: [STRING, list(object({ type: STRING, loc: list({ anyOf: [STRING, COUNT] }), msg: STRING }))],
    },
  }),
} as const satisfies Record<string, Schema>;
