/**
 * What runs on one model: takes requests at any time, steps one long-lived batch while there is anything to do, and tells what each step
 * brought in one message, so that the thread which serves HTTP wakes once a step and not once a token.
 *
 * With nothing to do no step is made, and the device's threads park.
 */
import type { TextEncoding } from "../data/conversation.ts";
import type { AnswerTokenizer } from "../engine/answer.ts";
import { Batch, type DecodeModel, type GenerateRequest, type RowToken } from "../engine/batch.ts";
import { checkRequest } from "../engine/request.ts";
import { Choice, tokenLogprob, tokenText } from "./choice.ts";
import { type GenerationEvent, type GenerationRequest, ServiceError } from "./models.ts";
import { type RenderedPrompt, renderPrompt } from "./prompt.ts";
import type { PromptScore, PromptScorer } from "./prompt_scores.ts";
import type { FromWorker } from "./protocol.ts";
import { StopTexts } from "./stop_texts.ts";

/** A model with its tokenizer. */
export interface ServedModel {
  readonly model: DecodeModel;
  readonly tokenizer: AnswerTokenizer & TextEncoding;
  /** Ids that the tokenizer knows. */
  readonly vocabSize: number;
  readonly scorer: PromptScorer;
  /** A base model: it knows no turns. */
  readonly completes: boolean;
}

/** A request that is being answered. */
interface Running {
  readonly id: number;
  readonly request: GenerationRequest;
  readonly rendered: RenderedPrompt;
  readonly batched: GenerateRequest;
  readonly choices: readonly Choice[];
  /** Log-probabilities of the prompt from its second token on, where the client asks for them. */
  readonly scores: PromptScore[];
  hasStarted: boolean;
}

/** Requests in generation on one model, which stays the caller's. */
export class Generations implements AsyncDisposable {
  readonly #served: ServedModel;
  readonly #tell: (message: FromWorker) => void;
  readonly #batch: Batch;
  readonly #running = new Map<number, Running>();
  readonly #byRequest = new Map<GenerateRequest, Running>();
  /** Requests whose prompts are to be scored before they begin. */
  #unscored: Running[] = [];
  #scoring: { readonly of: Running; readonly pieces: AsyncIterator<readonly PromptScore[]> } | null = null;
  #steps: Promise<void> | null = null;
  #isClosed = false;

  /** Allocates the rows of the batch. `tell` hears "step" of every request, and "failed" where the model cannot go on. */
  constructor(
    served: ServedModel,
    { rows, cacheRows, tell }: {
      readonly rows: number;
      readonly cacheRows: number;
      readonly tell: (message: FromWorker) => void;
    },
  ) {
    this.#served = served;
    this.#tell = tell;
    this.#batch = new Batch(served, { rows, cacheRows });
  }

  /**
   * Takes a request; its events come with the next steps.
   *
   * @throws {ServiceError} where its prompt does not fit or a value is out of range.
   */
  start(id: number, request: GenerationRequest): void {
    const { model: { contextLen }, tokenizer, vocabSize, completes } = this.#served;
    const { sampling, maxTokens, choices: samples, stop, topLogprobs } = request;
    const rendered = renderPrompt(tokenizer, request.prompt, { contextLen, vocabSize, maxTokens, completes });
    const stops = new StopTexts(stop);
    const choices = Array.from(
      { length: samples },
      (_, choice) => new Choice(tokenizer, { choice, stops: stops.another(), withTokens: topLogprobs !== undefined }),
    );
    const batched = { ...sampling, prompt: rendered.ids, samples, maxTokens, topLogprobs };
    const running = { id, request, rendered, batched, choices, scores: [], hasStarted: false };
    this.#check(batched);
    this.#running.set(id, running);
    if (request.echo && topLogprobs !== undefined) this.#unscored.push(running);
    else this.#begin(running);
    this.#steps ??= this.#run();
  }

  /** Refuses settings that are out of range, before anything is computed. */
  #check({ prompt, ...request }: GenerateRequest): void {
    try {
      checkRequest({ ...request, prompt: prompt.slice(0, 1) }, this.#served.model);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new ServiceError("invalid_value", error.message, { cause: error });
    }
  }

  /** Lets a request have its first step; one that may have no token has ended. */
  #begin(running: Running): void {
    if (running.request.maxTokens !== 0) {
      this.#byRequest.set(running.batched, running);
      return this.#batch.add(running.batched);
    }
    this.#running.delete(running.id);
    const end = { type: "end", reason: "length", completionTokens: 0 } as const;
    const ends = running.choices.map((_, choice) => ({ ...end, choice }));
    this.#tell({ type: "step", events: [[running.id, [...this.#head(running, 0), ...ends]]], tokens: 0 });
  }

  /** Ends a request without more events; its rows are free from the next step on. One that has ended is not known any more. */
  cancel(id: number): void {
    const running = this.#running.get(id);
    if (running) this.#remove(running);
  }

  #remove(running: Running): void {
    this.#running.delete(running.id);
    this.#byRequest.delete(running.batched);
    this.#unscored = this.#unscored.filter((other) => other !== running);
    this.#batch.cancel(running.batched);
  }

  async #run(): Promise<void> {
    try {
      while (!this.#isClosed && (!this.#batch.isDone || this.#unscored.length > 0)) {
        await this.#scorePiece();
        if (this.#batch.isDone) continue;
        const tokens = await this.#batch.step();
        const events = this.#read(tokens);
        if (tokens.length > 0) this.#tell({ type: "step", events: [...events], tokens: tokens.length });
      }
      this.#steps = null;
    } catch (error) {
      this.#isClosed = true;
      this.#tell({ type: "failed", message: (error as Error).message });
    }
  }

  /** Scores a piece of the prompt that waits longest for it. */
  async #scorePiece(): Promise<void> {
    const running = this.#unscored[0];
    if (running === undefined) return;
    if (this.#scoring?.of !== running) {
      await this.#scoring?.pieces.return?.();
      const { rendered: { ids }, request: { topLogprobs } } = running;
      this.#scoring = { of: running, pieces: this.#served.scorer.score(ids, topLogprobs!) };
    }
    const { value, done } = await this.#scoring.pieces.next();
    if (!done) running.scores.push(...value);
    else if (this.#unscored[0] === running) { // it may have been cancelled meanwhile
      this.#unscored.shift();
      this.#begin(running);
    }
  }

  #read(tokens: readonly RowToken[]): Map<number, GenerationEvent[]> {
    const events = new Map<number, GenerationEvent[]>();
    for (const token of tokens) {
      const running = this.#byRequest.get(token.request);
      const choice = running?.choices[token.sample];
      if (!running || !choice || choice.isDone) continue;
      const list = events.get(running.id) ?? [];
      events.set(running.id, list);
      if (!running.hasStarted) list.push(...this.#head(running, token.cachedTokens));
      running.hasStarted = true;
      list.push(...choice.push(token));
      if (choice.isDone) this.#batch.cancel(token.request, token.sample);
      if (running.choices.every(({ isDone }) => isDone)) this.#remove(running);
    }
    return events;
  }

  /** What comes in front of the answers. */
  *#head({ request, rendered, scores }: Running, cachedTokens: number): Generator<GenerationEvent> {
    const { ids, from, droppedMessages } = rendered;
    const { model: { contextLen }, tokenizer } = this.#served;
    yield { type: "start", promptTokens: ids.length, cachedTokens, droppedMessages, contextLen };
    if (!request.echo) return;
    const text = "text" in request.prompt ? request.prompt.text : tokenizer.decode(ids.slice(from));
    if (request.topLogprobs === undefined) return yield { type: "prompt", text };
    const tokens = ids.slice(from).map((id, i) =>
      i === 0
        ? { ...tokenText(tokenizer, id), logprob: null, top: [] }
        : tokenLogprob(tokenizer, { id, ...scores[from + i - 1] })
    );
    yield { type: "prompt", text, tokens };
  }

  /** Stops behind the step that runs and frees the rows. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await this.#steps;
    this.#batch[Symbol.dispose]();
  }
}
