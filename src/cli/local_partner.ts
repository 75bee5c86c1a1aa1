/**
 * A model of this machine as the partner of a chat. What an answer begins with like the one before is not computed again. When the context
 * is full, the oldest exchanges are left out of the prompt; the system message stays. A base model is given the last message alone.
 */
import type { Message, TextEncoding } from "../data/conversation.ts";
import { AnswerReader, type AnswerTokenizer } from "../engine/answer.ts";
import { Batch, type GenerateRequest, type RowToken, type Tool } from "../engine/batch.ts";
import type { Engine } from "../engine/engine.ts";
import { freshSeed } from "../engine/sample.ts";
import { ServiceError } from "../server/models.ts";
import { type PromptLimits, renderPrompt } from "../server/prompt.ts";
import { type AnswerOptions, ChatError, type ChatPartner, type Heard } from "./chat_partner.ts";

/** What a chat needs of a tokenizer. */
export type ChatTokenizer = Omit<AnswerTokenizer, "encode"> & TextEncoding;

/** A model that is open. */
export interface OpenModel extends Disposable {
  readonly name: string;
  readonly engine: Engine;
  readonly tokenizer: ChatTokenizer;
  /** True for a base model. */
  readonly completes: boolean;
  /** Rejects where its file turns out to be damaged. */
  readonly verified: Promise<void>;
}

/** Which models there are besides, and what they may use. */
export interface LocalOptions {
  /** Computes tool calls; without it the calculator. */
  readonly tool?: Tool;
  /** Lists the models that `open` takes. */
  names(): readonly string[];
  /** Opens a model. @throws {Error} where there is none of this name, or it is damaged. */
  open(name: string): Promise<OpenModel>;
}

const MAX_TOKENS = 256;

/** Answers with models of this machine; owns the open one. */
export class LocalPartner implements ChatPartner, Disposable {
  readonly #options: LocalOptions;
  readonly #damage = Promise.withResolvers<never>();
  #open: OpenModel;
  #batch: Batch;

  constructor(first: OpenModel, options: LocalOptions) {
    this.#open = first;
    this.#batch = batchOf(first);
    this.#options = options;
    this.#damage.promise.catch(() => {}); // whoever awaits `damaged` hears of it
    this.#watch(first);
  }

  get model(): string {
    return this.#open.name;
  }

  get completes(): boolean {
    return this.#open.completes;
  }

  /** Settles when the file of the open model was compared with what was saved. */
  get verified(): Promise<void> {
    return this.#open.verified;
  }

  /** Rejects where that file turns out to be damaged; never fulfils. */
  get damaged(): Promise<never> {
    return this.#damage.promise;
  }

  async *answer(messages: readonly Message[], { settings, signal }: AnswerOptions): AsyncGenerator<Heard, void, void> {
    const { engine, tokenizer, completes } = this.#open;
    const { temperature, topK, topP, maxTokens = MAX_TOKENS, seed = freshSeed() } = settings;
    const { contextLen, vocabSize } = engine.model;
    const { ids: prompt, droppedMessages } = render(messages, {
      tokenizer,
      completes,
      contextLen,
      vocabSize,
      maxTokens,
    });
    yield { kind: "figures", figures: { promptTokens: prompt.length, contextLen, droppedMessages } };
    const reader = new AnswerReader(tokenizer);
    const { tool } = this.#options;
    let answerTokens = 0;
    let isCut = false;
    for await (
      const { id, end, cachedTokens } of this.#generate(
        { prompt, temperature, topK, topP, tool, maxTokens, seed },
        signal,
      )
    ) {
      if (++answerTokens === 1) yield { kind: "figures", figures: { cachedTokens } };
      isCut = end === "length";
      if (end !== "stop") yield* reader.push(id);
    }
    yield* reader.end();
    yield { kind: "figures", figures: { answerTokens, isCut } };
  }

  async *#generate(request: GenerateRequest, signal?: AbortSignal): AsyncGenerator<RowToken, void, void> {
    const batch = this.#batch;
    const stop = () => batch.cancel(request); // at once, also where a tool computes
    signal?.addEventListener("abort", stop);
    try {
      batch.add(request);
      while (!batch.isDone && !signal?.aborted) yield* await batch.step();
    } catch (cause) { // a tool failed: the conversation goes on in another batch
      batch[Symbol.dispose]();
      this.#batch = batchOf(this.#open);
      throw new ChatError((cause as Error).message, { cause });
    } finally {
      signal?.removeEventListener("abort", stop);
      stop();
    }
  }

  models(): Promise<readonly string[]> {
    return Promise.resolve(this.#options.names());
  }

  async use(model: string): Promise<void> {
    let next: OpenModel;
    try {
      next = await this.#options.open(model);
    } catch (cause) {
      throw new ChatError((cause as Error).message, { cause });
    }
    const old = this.#open;
    this.#batch[Symbol.dispose]();
    this.#batch = batchOf(next);
    this.#open = next;
    this.#watch(next);
    await old.verified.catch(() => {}); // its file is being read
    old[Symbol.dispose]();
  }

  #watch(model: OpenModel): void {
    model.verified.catch((error) => {
      if (this.#open === model) this.#damage.reject(error);
    });
  }

  /** Frees the open model. */
  [Symbol.dispose](): void {
    this.#batch[Symbol.dispose]();
    this.#open[Symbol.dispose]();
  }
}

/** Makes room for an answer and for what was said before it. */
function batchOf({ engine }: OpenModel): Batch {
  return new Batch(engine, { rows: 1, cacheRows: 1 });
}

/** Renders a conversation as a server does. @throws {ChatError} where not even the last question fits the context. */
function render(messages: readonly Message[], { tokenizer, ...limits }: PromptLimits & { tokenizer: ChatTokenizer }) {
  try {
    return renderPrompt(tokenizer, { messages }, limits);
  } catch (cause) {
    if (!(cause instanceof ServiceError)) throw cause;
    throw new ChatError(cause.message, { cause });
  }
}
