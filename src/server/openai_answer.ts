/**
 * Answers in OpenAI's form, whole or as a stream; the two endpoints differ in how a choice looks. Beside OpenAI's fields an answer has
 * `nanochat`: the calls of tools, the seed, and what became of the context.
 *
 *   stream: first event of each choice -> content... -> finish_reason of each choice -> (usage) -> [DONE]
 */
import type { Context } from "hono";
import { AnswerView, joinToolEvents, type ToolEvent } from "./answer_view.ts";
import { type Api, requestAbort } from "./api.ts";
import { openAiError, toApiError } from "./errors.ts";
import { type AnswerEvent, generateAll } from "./prompts_at_once.ts";
import type { GenerationRequest, ModelInfo, TokenLogprob } from "./models.ts";
import { IGNORED_HEADER } from "./parameters.ts";
import { streamEvents } from "./sse.ts";

/** How the choices of an endpoint look. */
export interface AnswerFormat {
  /** What ids begin with. */
  readonly prefix: string;
  /** Names of a whole answer and of an event. */
  readonly objects: { readonly whole: string; readonly event: string };
  /** First event of a choice. */
  open(index: number): object;
  /** More content. */
  delta(index: number, content: string, tokens: readonly TokenLogprob[]): object;
  /** Last event of a choice. */
  close(index: number, reason: FinishReason): object;
  /** A whole choice. */
  choice(index: number, answer: { content: string; tokens: readonly TokenLogprob[]; reason: FinishReason }): object;
}

/** Why an answer ended. */
export type FinishReason = "stop" | "length";

/** A request on its way to an answer. */
export interface Question {
  /** One for each prompt; they differ in nothing else. */
  readonly requests: readonly GenerationRequest[];
  readonly model: ModelInfo;
  readonly format: AnswerFormat;
  readonly isStream: boolean;
  readonly includeUsage: boolean;
  /** Parameters without effect. */
  readonly ignored: readonly string[];
}

/** Answers a request. */
export async function answer(c: Context, api: Api, question: Question): Promise<Response> {
  const { abort, signal } = requestAbort(c);
  const events = generateAll(api.service, question.requests, signal);
  const writer = new AnswerWriter(question, api.showTools);
  const headers: Record<string, string> = {};
  if (question.ignored.length > 0) headers[IGNORED_HEADER] = question.ignored.join(", ");
  if (!question.isStream) return c.json(await writer.whole(events), 200, headers);
  const onError = (error: unknown) => {
    const known = toApiError(error);
    if (known.status === 500 && !signal.aborted) api.onFailure(error);
    return JSON.stringify(openAiError(known));
  };
  return streamEvents(writer.stream(events), { abort, clock: api.clock, onError, headers });
}

interface Choice {
  readonly view: AnswerView;
  content: string;
  tokens: TokenLogprob[];
  reason?: FinishReason;
}

/** Writes one answer. */
class AnswerWriter {
  readonly #question: Question;
  readonly #head: object;
  readonly #choices: readonly Choice[];
  #promptTokens = 0;
  #cachedTokens = 0;
  #completionTokens = 0;
  #droppedMessages = 0;
  #contextLen: number;
  #opened = 0;

  constructor(question: Question, showTools: boolean) {
    const { requests, model, format } = question;
    this.#question = question;
    this.#head = {
      id: `${format.prefix}-${crypto.randomUUID().replaceAll("-", "")}`,
      object: question.isStream ? format.objects.event : format.objects.whole,
      created: Math.floor(Date.now() / 1000),
      model: model.id,
      system_fingerprint: `${model.stage}-${model.step}`,
    };
    const count = requests.length * requests[0].choices;
    this.#choices = Array.from({ length: count }, () => ({
      view: new AnswerView({ showTools }),
      content: "",
      tokens: [],
    }));
    this.#contextLen = model.contextLen;
  }

  /** Gives the whole answer at its end. */
  async whole(events: AsyncIterable<AnswerEvent>): Promise<object> {
    const toolEvents: ToolEvent[] = [];
    for await (const event of events) {
      this.#count(event);
      if (event.type === "start") continue;
      const choice = this.#choices[event.choice];
      if (event.type === "end") {
        choice.content += choice.view.end();
        choice.reason = event.reason;
        continue;
      }
      const { content, tokens, toolEvent } = choice.view.take(event);
      choice.content += content;
      choice.tokens.push(...tokens);
      if (toolEvent !== undefined) toolEvents.push(toolEvent);
    }
    this.#checkEnd();
    const { format } = this.#question;
    return {
      ...this.#head,
      choices: this.#choices.map(({ content, tokens, reason }, i) =>
        format.choice(i, { content, tokens, reason: reason! })
      ),
      usage: this.#usage(),
      nanochat: { ...this.#context(), tool_events: joinToolEvents(toolEvents) },
    };
  }

  /** Gives the data of the events of a stream. */
  async *stream(events: AsyncIterable<AnswerEvent>): AsyncGenerator<string> {
    const { format, includeUsage, requests } = this.#question;
    const usage = includeUsage ? { usage: null } : {};
    const write = (choice: object, nanochat?: object) =>
      JSON.stringify({ ...this.#head, choices: [choice], ...usage, ...(nanochat && { nanochat }) });
    for await (const event of events) {
      this.#count(event);
      if (event.type === "start") {
        for (let i = 0; i < requests[0].choices; i++) yield write(format.open(this.#opened++), this.#context());
        continue;
      }
      const choice = this.#choices[event.choice];
      if (event.type === "end") {
        const rest = choice.view.end();
        if (rest !== "") yield write(format.delta(event.choice, rest, []));
        choice.reason = event.reason;
        yield write(format.close(event.choice, event.reason));
        continue;
      }
      const { content, tokens, toolEvent } = choice.view.take(event);
      const nanochat = toolEvent && { tool_events: [toolEvent] };
      yield write(format.delta(event.choice, content, tokens), nanochat);
    }
    this.#checkEnd();
    if (includeUsage) yield JSON.stringify({ ...this.#head, choices: [], usage: this.#usage() });
    yield "[DONE]";
  }

  #count(event: AnswerEvent): void {
    if (event.type === "start") {
      this.#promptTokens += event.promptTokens;
      this.#cachedTokens += event.cachedTokens;
      this.#droppedMessages += event.droppedMessages;
      this.#contextLen = event.contextLen;
    } else if (event.type === "end") {
      this.#completionTokens += event.completionTokens;
    }
  }

  #usage(): object {
    return {
      prompt_tokens: this.#promptTokens,
      completion_tokens: this.#completionTokens,
      total_tokens: this.#promptTokens + this.#completionTokens,
      prompt_tokens_details: { cached_tokens: this.#cachedTokens },
    };
  }

  #context(): object {
    return {
      seed: this.#question.requests[0].sampling.seed,
      context_length: this.#contextLen,
      dropped_messages: this.#droppedMessages,
      prompt_tokens: this.#promptTokens,
    };
  }

  #checkEnd(): void {
    if (this.#choices.every(({ reason }) => reason !== undefined)) return;
    throw new Error("Cannot finish the answer: the generation was left before its end");
  }
}
