/** `POST /v1/chat/completions`: OpenAI's chat. */
import type { Context } from "hono";
import { type Api, readJson } from "./api.ts";
import type { TokenLogprob, TokenText } from "./models.ts";
import { answer, type AnswerFormat } from "./openai_answer.ts";
import { type ChatBody, findModel, readChat, readSettings } from "./openai_request.ts";
import { CHAT_PARAMETERS, readParameters } from "./parameters.ts";

/** Answers a conversation. @throws {ApiError | ServiceError} where it cannot be answered. */
export async function chatCompletions(c: Context, api: Api): Promise<Response> {
  const { body, ignored } = readParameters<ChatBody>(await readJson(c), CHAT_PARAMETERS);
  const { service, defaults, deadlineMs } = api;
  const model = findModel(service, body.model);
  const request = readChat(body, readSettings(body, { model, defaults, deadlineMs }), defaults.maxTokens);
  return answer(c, api, {
    requests: [request],
    model,
    format: chatFormat(request.topLogprobs !== undefined),
    isStream: body.stream === true,
    includeUsage: body.stream_options?.include_usage === true,
    ignored,
  });
}

function chatFormat(hasLogprobs: boolean): AnswerFormat {
  const logprobs = (tokens: readonly TokenLogprob[]) =>
    hasLogprobs ? { content: tokens.map(tokenOf), refusal: null } : null;
  return {
    prefix: "chatcmpl",
    objects: { whole: "chat.completion", event: "chat.completion.chunk" },
    open: (index) => ({
      index,
      delta: { role: "assistant", content: "", refusal: null },
      logprobs: null,
      finish_reason: null,
    }),
    delta: (index, content, tokens) => ({ index, delta: { content }, logprobs: logprobs(tokens), finish_reason: null }),
    close: (index, reason) => ({ index, delta: {}, logprobs: null, finish_reason: reason }),
    choice: (index, { content, tokens, reason }) => ({
      index,
      message: { role: "assistant", content, refusal: null },
      logprobs: logprobs(tokens),
      finish_reason: reason,
    }),
  };
}

function tokenOf({ text, bytes, logprob, top }: TokenLogprob): object {
  const named = ({ text, bytes, logprob }: TokenText & { logprob: number | null }) => ({ token: text, logprob, bytes });
  return { ...named({ text, bytes, logprob }), top_logprobs: top.map(named) };
}
