/** `POST /v1/completions`: OpenAI's older endpoint, which continues texts. */
import type { Context } from "hono";
import { type Api, readJson } from "./api.ts";
import type { TokenLogprob, TokenText } from "./models.ts";
import { answer, type AnswerFormat } from "./openai_answer.ts";
import { type CompletionBody, findModel, readCompletions, readSettings } from "./openai_request.ts";
import { COMPLETION_PARAMETERS, readParameters } from "./parameters.ts";

/** Continues one or more texts. @throws {ApiError | ServiceError} where they cannot be continued. */
export async function completions(c: Context, api: Api): Promise<Response> {
  const { body, ignored } = readParameters<CompletionBody>(await readJson(c), COMPLETION_PARAMETERS);
  const { service, defaults, deadlineMs } = api;
  const model = findModel(service, body.model);
  const requests = readCompletions(body, readSettings(body, { model, defaults, deadlineMs }));
  return answer(c, api, {
    requests,
    model,
    format: completionFormat({ hasLogprobs: body.logprobs !== undefined }),
    isStream: body.stream === true,
    includeUsage: body.stream_options?.include_usage === true,
    ignored,
  });
}

function completionFormat({ hasLogprobs }: { hasLogprobs: boolean }): AnswerFormat {
  const lengths = new Map<number, number>();
  const logprobs = (index: number, tokens: readonly TokenLogprob[]) => {
    if (!hasLogprobs) return null;
    const { columns, end } = logprobColumns(tokens, lengths.get(index) ?? 0);
    lengths.set(index, end);
    return columns;
  };
  return {
    prefix: "cmpl",
    objects: { whole: "text_completion", event: "text_completion" },
    open: (index) => ({ index, text: "", logprobs: null, finish_reason: null }),
    delta: (index, text, tokens) => ({ index, text, logprobs: logprobs(index, tokens), finish_reason: null }),
    close: (index, reason) => ({ index, text: "", logprobs: null, finish_reason: reason }),
    choice: (index, { content, tokens, reason }) => ({
      index,
      text: content,
      logprobs: logprobs(index, tokens),
      finish_reason: reason,
    }),
  };
}

/**
 * Writes tokens as columns. An offset counts characters (Unicode code points) of the text in front of a token; one that begins within a
 * character has the offset behind it.
 */
function logprobColumns(tokens: readonly TokenLogprob[], begin: number): { columns: object; end: number } {
  let end = begin;
  const offsets = tokens.map(({ bytes }) => {
    const offset = end;
    end += bytes.filter((byte) => (byte & 0xc0) !== 0x80).length;
    return offset;
  });
  const columns = {
    tokens: tokens.map(tokenName),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: tokens.map((token) => {
      if (token.logprob === null) return null;
      return Object.fromEntries([...token.top, token].map((one) => [tokenName(one), one.logprob]));
    }),
    text_offset: offsets,
  };
  return { columns, end };
}

/** A token as text, or by its bytes where they are no whole characters: these would all have one name. */
function tokenName({ text, bytes }: TokenText): string {
  if (!text.includes("\ufffd")) return text;
  return `bytes:${bytes.map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
}
