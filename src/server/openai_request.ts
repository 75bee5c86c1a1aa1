/** Turns the checked parameters of OpenAI's two endpoints into what the models are asked. */
import { freshSeed } from "../engine/sample.ts";
import type { Part } from "../data/conversation.ts";
import { ApiError } from "./errors.ts";
import type { ChatMessage, GenerationRequest, ModelInfo, ModelService } from "./models.ts";
import { MAX_CHOICES } from "./parameters.ts";

/** What a request gets where it says nothing. */
export interface GenerationDefaults {
  readonly temperature: number;
  /** 0 = all tokens. */
  readonly topK: number;
  readonly maxTokens: number;
}

/** Parameters that both endpoints have, as a client sends them. */
export interface CommonBody {
  readonly model?: string;
  readonly n?: number;
  readonly max_tokens?: number;
  readonly temperature?: number;
  readonly top_p?: number;
  readonly top_k?: number;
  readonly seed?: number;
  readonly stop?: string | readonly string[];
  readonly frequency_penalty?: number;
  readonly presence_penalty?: number;
  readonly logit_bias?: Readonly<Record<string, number>>;
  readonly stream?: boolean;
  readonly stream_options?: { readonly include_usage?: boolean | null };
}

/** The body of `POST /v1/chat/completions`. */
export interface ChatBody extends CommonBody {
  readonly messages: readonly MessageBody[];
  readonly max_completion_tokens?: number;
  readonly logprobs?: boolean;
  readonly top_logprobs?: number;
}

interface MessageBody {
  readonly role: ChatMessage["role"];
  readonly content?: string | readonly Part[] | null;
}

/** The body of `POST /v1/completions`. */
export interface CompletionBody extends CommonBody {
  readonly prompt: string | readonly string[] | readonly number[] | readonly (readonly number[])[];
  readonly echo?: boolean;
  readonly logprobs?: number;
}

/** Settings of a request that do not depend on its prompt. */
export type Settings = Omit<GenerationRequest, "prompt" | "maxTokens" | "topLogprobs" | "echo">;

/** Finds the model of a request, the first where it names none. @throws {ApiError} 404 with the list. */
export function findModel(service: ModelService, id: string | undefined): ModelInfo {
  const models = service.list();
  const model = id === undefined ? models[0] : models.find((model) => model.id === id);
  if (model !== undefined) return model;
  const names = models.map(({ id }) => `"${id}"`).join(", ");
  const message = `Cannot find the model ${JSON.stringify(id)}: expected one of ${names}`;
  throw new ApiError(404, message, { code: "model_not_found", param: "model" });
}

/**
 * Reads the settings of sampling and length.
 *
 * @throws {ApiError} where they contradict each other or the model.
 */
export function readSettings(
  body: CommonBody,
  { model, defaults, deadlineMs }: { model: ModelInfo; defaults: GenerationDefaults; deadlineMs?: number },
): Settings {
  if (body.stream_options !== undefined && body.stream !== true) {
    throw invalid("stream_options", 'it is given without a stream, expected "stream": true');
  }
  const logitBias = new Map(Object.entries(body.logit_bias ?? {}).map(([id, bias]) => [Number(id), bias]));
  const foreign = [...logitBias.keys()].find((id) => id >= model.vocabSize);
  if (foreign !== undefined) {
    throw invalid("logit_bias", `it names token ${foreign}, expected less than ${model.vocabSize}, the vocabulary`);
  }
  const topP = body.top_p ?? 1;
  return {
    model: model.id,
    choices: body.n ?? 1,
    sampling: {
      // No mass at all leaves the most probable token alone.
      temperature: topP === 0 ? 0 : body.temperature ?? defaults.temperature,
      topK: body.top_k ?? defaults.topK,
      topP: topP === 0 ? 1 : topP,
      seed: body.seed ?? freshSeed(),
      frequencyPenalty: body.frequency_penalty ?? 0,
      presencePenalty: body.presence_penalty ?? 0,
      logitBias,
    },
    stop: typeof body.stop === "string" ? [body.stop] : body.stop ?? [],
    deadlineMs,
  };
}

/** Reads the request of a chat. @throws {ApiError} as {@link readSettings}, and where a message or a setting does not fit the others. */
export function readChat(body: ChatBody, settings: Settings, maxTokens: number): GenerationRequest {
  if (body.top_logprobs !== undefined && body.logprobs !== true) {
    throw invalid("top_logprobs", 'it is given without log-probabilities, expected "logprobs": true');
  }
  return {
    ...settings,
    prompt: { messages: body.messages.map(readMessage) },
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? maxTokens,
    topLogprobs: body.logprobs === true ? body.top_logprobs ?? 0 : undefined,
    echo: false,
  };
}

function readMessage({ role, content }: MessageBody, i: number): ChatMessage {
  const param = `messages[${i}].content`;
  if (content === undefined || content === null) {
    throw new ApiError(400, `Cannot read "${param}": it is absent, expected a text or an array of parts`, {
      code: "missing_required_parameter",
      param,
    });
  }
  if (typeof content === "string") return { role, content };
  const tool = content.find(({ type }) => type !== "text");
  if (tool === undefined) return { role, content: content.map(({ text }) => text).join("") };
  if (role === "assistant") return { role, content };
  throw invalid(param, `a message of role "${role}" has a part of type "${tool.type}", expected "text"`);
}

/** Tokens of a completion where a request says nothing, as in OpenAI's API. */
const COMPLETION_TOKENS = 16;

/** Reads the requests of a completion, one for each prompt. @throws {ApiError} as {@link readSettings}. */
export function readCompletions(body: CompletionBody, settings: Settings): GenerationRequest[] {
  const { echo = false, max_tokens: maxTokens = COMPLETION_TOKENS, logprobs } = body;
  if (maxTokens === 0 && !echo) {
    throw invalid("max_tokens", 'it is 0, expected 1 or more, or "echo": true');
  }
  const prompts = readPrompts(body.prompt);
  if (prompts.length * settings.choices > MAX_CHOICES) {
    const found = `${prompts.length} prompts with ${settings.choices} answers each are asked for`;
    throw invalid("n", `${found}, expected at most ${MAX_CHOICES} answers in all`);
  }
  return prompts.map((prompt) => ({ ...settings, prompt, maxTokens, topLogprobs: logprobs, echo }));
}

function readPrompts(prompt: CompletionBody["prompt"]): GenerationRequest["prompt"][] {
  if (typeof prompt === "string") return [{ text: prompt }];
  if (typeof prompt[0] === "number") return [{ tokens: prompt as readonly number[] }];
  return (prompt as readonly (string | readonly number[])[]).map((one) =>
    typeof one === "string" ? { text: one } : { tokens: one }
  );
}

function invalid(param: string, problem: string): ApiError {
  return new ApiError(400, `Cannot use "${param}": ${problem}`, { code: "invalid_value", param });
}
