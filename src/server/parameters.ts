/**
 * The one table of the parameters of OpenAI's two endpoints: what is supported, what is accepted without effect, what is refused. The
 * check of a request, `GET /openapi.json` and the tables of `docs/api.md` come from it.
 */
import { closestString } from "@std/text/closest-string";
import { ApiError } from "./errors.ts";
import { findMismatch, type Mismatch, type Schema } from "./schema.ts";

/** One parameter of a request. */
export interface Parameter {
  /**
   * `supported`: does what OpenAI says of it. `ignored`: has no effect, and the header `x-nanochat-ignored` says so. `refused`: 400
   * `unsupported_parameter`, except for the values of the schema, which ask for nothing.
   */
  readonly support: "supported" | "ignored" | "refused";
  readonly schema: Schema;
  /** A sentence for the documentation. */
  readonly note: string;
  readonly isRequired?: true;
  /** Not of OpenAI's API. */
  readonly isExtension?: true;
}

/** The parameters of an endpoint by their names. */
export type Parameters = Readonly<Record<string, Parameter>>;

/** Header that names the parameters of a request that have no effect. */
export const IGNORED_HEADER = "x-nanochat-ignored";
/** Answers that one request may ask for. */
export const MAX_CHOICES = 128;

const MAX_INT = 0x7fffffff;
const NOTHING: Schema = { type: "null" };
const TEXT: Schema = { type: "string", minLength: 1 };
const STOP: Schema = { ...TEXT, maxLength: 256 };
/** Token ids; more than any context holds. */
const TOKENS: Schema = { type: "array", maxItems: 1 << 17, items: { type: "integer", minimum: 0, maximum: MAX_INT } };

const supported = (schema: Schema, note: string): Parameter => ({ support: "supported", schema, note });
const ignored = (schema: Schema, note: string): Parameter => ({ support: "ignored", schema, note });
const refused = (schema: Schema, note: string): Parameter => ({ support: "refused", schema, note });

const PART: Schema = {
  type: "object",
  properties: { type: { type: "string", enum: ["text", "python", "python_output"] }, text: { type: "string" } },
  required: ["type", "text"],
  additionalProperties: false,
};

const MESSAGE: Schema = {
  type: "object",
  properties: {
    role: { type: "string", enum: ["system", "developer", "user", "assistant", "tool"] },
    content: { anyOf: [{ type: "string" }, { type: "array", items: PART, minItems: 1 }] },
    name: { type: "string" },
    tool_call_id: { type: "string" },
    refusal: { type: "string" },
    annotations: { type: "array" },
    tool_calls: { type: "array", maxItems: 0 },
    function_call: NOTHING,
    audio: NOTHING,
  },
  required: ["role"],
  additionalProperties: false,
};

/** What both endpoints have. */
const COMMON = {
  model: supported(TEXT, "Id of a model of `GET /v1/models`; without it the first of them."),
  n: supported({ type: "integer", minimum: 1, maximum: MAX_CHOICES }, "Answers to the same prompt; 1."),
  temperature: supported(
    { type: "number", minimum: 0, maximum: 2 },
    "0 takes the most probable token; without it the server's `--temperature`.",
  ),
  top_p: supported(
    { type: "number", minimum: 0, maximum: 1 },
    "Choose among the most probable tokens that together reach this mass; 1, all.",
  ),
  top_k: {
    ...supported(
      { type: "integer", minimum: 0, maximum: MAX_INT },
      "Choose among this many tokens, 0 = all; without it the server's `--top-k`.",
    ),
    isExtension: true,
  },
  seed: supported(
    { type: "integer", minimum: -Number.MAX_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER },
    "The same seed, prompt and settings give the same answer, bit for bit. Without it one is drawn; `nanochat.seed` of the answer names it.",
  ),
  stop: supported(
    { anyOf: [STOP, { type: "array", items: STOP, maxItems: 16 }] },
    "Texts that end an answer and are no part of it, of at most 256 characters each.",
  ),
  frequency_penalty: supported(
    { type: "number", minimum: -2, maximum: 2 },
    "Taken from the logit of a token for each time the answer has it; 0.",
  ),
  presence_penalty: supported(
    { type: "number", minimum: -2, maximum: 2 },
    "Taken from the logit of a token once the answer has it; 0.",
  ),
  logit_bias: supported(
    {
      type: "object",
      maxProperties: 1024,
      propertyNames: { pattern: "^(0|[1-9][0-9]{0,9})$" },
      additionalProperties: { type: "number", minimum: -100, maximum: 100 },
    },
    "Added to the logits of the tokens with these ids.",
  ),
  stream: supported({ type: "boolean" }, "Send the answer while it is made, as server-sent events; false."),
  stream_options: supported(
    {
      type: "object",
      properties: { include_usage: { type: "boolean" }, include_obfuscation: { type: "boolean" } },
      additionalProperties: false,
    },
    "`include_usage`: one more event with the usage in the end. `include_obfuscation` has no effect. Only with `stream`.",
  ),
  user: ignored({ type: "string" }, "Nobody is told apart."),
} as const satisfies Parameters;

/** Parameters of `POST /v1/chat/completions`. */
export const CHAT_PARAMETERS = {
  messages: {
    ...supported(
      { type: "array", items: MESSAGE, minItems: 1, maxItems: 4096 },
      "The conversation. Content is text or parts of type `text`; an assistant's also of the types `python` and `python_output`.",
    ),
    isRequired: true,
  },
  ...COMMON,
  max_completion_tokens: supported(
    { type: "integer", minimum: 1, maximum: MAX_INT },
    "Tokens of each answer at most; without it the server's `--max-tokens`.",
  ),
  max_tokens: supported(
    { type: "integer", minimum: 1, maximum: MAX_INT },
    "The older name of `max_completion_tokens`, which wins where both are given.",
  ),
  logprobs: supported({ type: "boolean" }, "Log-probabilities of the tokens of the content; false."),
  top_logprobs: supported(
    { type: "integer", minimum: 0, maximum: 20 },
    "Log-probabilities of this many candidates at each place. Only with `logprobs`.",
  ),
  metadata: ignored({ type: "object" }, "Nothing is stored."),
  store: ignored({ type: "boolean" }, "Nothing is stored."),
  service_tier: ignored({ type: "string" }, "All requests are equal."),
  safety_identifier: ignored({ type: "string" }, "Nobody is told apart."),
  prompt_cache_key: ignored({ type: "string" }, "The prefix cache finds equal prompts by itself."),
  prompt_cache_retention: ignored({ type: "string" }, "The prefix cache keeps what fits."),
  prompt_cache_options: ignored({ type: "object" }, "The prefix cache finds equal prompts by itself."),
  prediction: ignored({ type: "object" }, "Would make an answer come sooner, not change it."),
  reasoning_effort: ignored({ type: "string" }, "The models do not reason apart from their answer."),
  verbosity: ignored({ type: "string" }, "The models know no such setting."),
  parallel_tool_calls: ignored({ type: "boolean" }, "The model's calculator runs on the server."),
  tool_choice: refused({ type: "string", enum: ["none", "auto"] }, "`none` and `auto` are accepted."),
  tools: refused({ type: "array", maxItems: 0 }, "The model knows no tools but its own, which run on the server."),
  function_call: refused({ type: "string", enum: ["none", "auto"] }, "`none` and `auto` are accepted."),
  functions: refused({ type: "array", maxItems: 0 }, "As `tools`."),
  response_format: refused(
    {
      type: "object",
      properties: { type: { type: "string", enum: ["text"] } },
      required: ["type"],
      additionalProperties: false,
    },
    'Only `{ "type": "text" }`: an answer is not bound to a grammar.',
  ),
  modalities: refused({ type: "array", items: { type: "string", enum: ["text"] } }, "Only `text`."),
  audio: refused(NOTHING, "The models know text only."),
  web_search_options: refused(NOTHING, "The server has no network."),
  moderation: refused(NOTHING, "There is no moderation."),
} as const satisfies Parameters;

/** Parameters of `POST /v1/completions`. */
export const COMPLETION_PARAMETERS = {
  prompt: {
    ...supported(
      {
        anyOf: [
          { type: "string" },
          { type: "array", items: { type: "string" }, minItems: 1, maxItems: MAX_CHOICES },
          { ...TOKENS, minItems: 1 },
          { type: "array", items: { ...TOKENS, minItems: 1 }, minItems: 1, maxItems: MAX_CHOICES },
        ],
      },
      "What is continued: a text, texts, token ids, or lists of them.",
    ),
    isRequired: true,
  },
  ...COMMON,
  max_tokens: supported(
    { type: "integer", minimum: 0, maximum: MAX_INT },
    "Tokens of each answer at most; 16. 0 only with `echo`.",
  ),
  echo: supported({ type: "boolean" }, "Put the prompt in front of the answer, with `logprobs` its tokens too; false."),
  logprobs: supported(
    { type: "integer", minimum: 0, maximum: 20 },
    "Log-probabilities of the tokens, and of this many candidates at each place.",
  ),
  best_of: refused({ type: "integer", enum: [1] }, "Only 1; ask for `n` answers and choose by `logprobs`."),
  suffix: refused({ type: "string", enum: [""] }, "The models only continue; an empty text is accepted."),
} as const satisfies Parameters;

/** Parameters of `POST /tokenize`, in the manner of vLLM. */
export const TOKENIZE_PARAMETERS: Parameters = {
  prompt: {
    ...supported({ type: "string" }, "A text; what looks like a special token is text too."),
    isRequired: true,
  },
  model: COMMON.model,
};

/** Parameters of `POST /detokenize`. */
export const DETOKENIZE_PARAMETERS: Parameters = {
  tokens: { ...supported(TOKENS, "Token ids."), isRequired: true },
  model: COMMON.model,
};

/** A request's parameters, checked: absent and null ones are left out. */
export interface ReadParameters<Body> {
  readonly body: Body;
  /** Names of those without effect. */
  readonly ignored: readonly string[];
}

/** Gives the schema of a whole request. */
export function bodySchema(parameters: Parameters): Schema {
  const rows = Object.entries(parameters);
  return {
    type: "object",
    properties: Object.fromEntries(rows.map(([name, { schema, note }]) => [name, { ...schema, description: note }])),
    required: rows.filter(([_, { isRequired }]) => isRequired).map(([name]) => name),
    additionalProperties: false,
  };
}

/**
 * Checks a request against a table.
 *
 * @throws {ApiError} 400 naming the parameter, what it is and what it should be.
 */
export function readParameters<Body>(value: unknown, parameters: Parameters): ReadParameters<Body> {
  const mismatch = findMismatch(bodySchema(parameters), value);
  if (mismatch !== undefined) throw explain(mismatch, parameters);
  const given = Object.entries(value as object).filter(([_, inner]) => inner !== null);
  return {
    body: Object.fromEntries(given.filter(([name]) => parameters[name].support === "supported")) as Body,
    ignored: given.map(([name]) => name).filter((name) => parameters[name].support === "ignored"),
  };
}

/** Words for programs. */
const CODES = {
  type: "invalid_type",
  value: "invalid_value",
  missing: "missing_required_parameter",
  unknown: "unknown_parameter",
} as const;

function explain({ path, kind, found, expected }: Mismatch, parameters: Parameters): ApiError {
  const param = pathName(path);
  const row = path.length > 0 ? parameters[String(path[0])] : undefined;
  if (row?.support === "refused") {
    const message = `Cannot use "${path[0]}": ${row.note}`.replace(/\.$/, "");
    return new ApiError(400, message, { code: "unsupported_parameter", param });
  }
  if (path.length === 0) {
    return new ApiError(400, `Cannot read the request: it is ${found}, expected ${expected}`, { code: CODES[kind] });
  }
  const hint = kind === "unknown" && path.length === 1 ? nearest(String(path[0]), parameters) : `expected ${expected}`;
  return new ApiError(400, `Cannot read "${param}": it is ${found}, ${hint}`, { code: CODES[kind], param });
}

function nearest(name: string, parameters: Parameters): string {
  const names = Object.keys(parameters);
  return `did you mean "${closestString(name.slice(0, 40), names)}"; expected one of ${names.join(", ")}`;
}

/** Writes a path as JavaScript does: `messages[0].role`. */
function pathName(path: readonly (string | number)[]): string {
  const name = path.map((step) => typeof step === "number" ? `[${step}]` : `.${step.slice(0, 80).toWellFormed()}`);
  return name.join("").replace(/^\./, "");
}
