/**
 * What tests of the HTTP side and of the page share: a `ModelService` without a model, which says what a script tells it.
 *
 *   const gate = Promise.withResolvers<void>();
 *   const service = new ScriptedService(() => ["Hel", gate.promise, "lo", new ServiceError("failed", "Cannot go on")]);
 */
import {
  type GenerationEvent,
  type GenerationRequest,
  type ModelInfo,
  type ModelService,
  ServiceError,
  type ServiceStats,
  type TokenLogprob,
} from "./models.ts";

/**
 * One step of an answer: words of choice 0, any event, a promise to wait for, or an error to throw. What a script leaves out is added:
 * the "start" in front, and the "end" of each choice behind its last step.
 */
export type ScriptStep = string | GenerationEvent | Promise<unknown> | Error;

/** Says what a request is answered; it is called at the first step of the iteration. */
export type Script = (request: GenerationRequest) => Iterable<ScriptStep>;

/** A chat model and a base model. */
export const SCRIPTED_MODELS: readonly ModelInfo[] = [
  {
    ...{ id: "d4", created: 1_760_000_000, contextLen: 512, vocabSize: 265, parameters: 1_000_000, stage: "sft" },
    ...{ step: 700, completes: false, isLoaded: true },
  },
  {
    ...{ id: "base/d4", created: 1_750_000_000, contextLen: 512, vocabSize: 265, parameters: 1_000_000, stage: "base" },
    ...{ step: 1000, completes: true, isLoaded: false },
  },
];

/** Returns a token of an answer with its log-probability, and the tokens that might have stood at its place. */
export function tokenLogprob(text: string, logprob: number | null, top: Record<string, number> = {}): TokenLogprob {
  const textOf = (text: string) => ({ text, bytes: [...new TextEncoder().encode(text)] });
  return {
    ...textOf(text),
    logprob,
    top: Object.entries(top).map(([text, logprob]) => ({ ...textOf(text), logprob })),
  };
}

/** Answers by script. A token is a byte; requests run at once, in any number. */
export class ScriptedService implements ModelService {
  /** What was asked, in order. */
  readonly requests: GenerationRequest[] = [];
  /** Iterations that run. */
  active = 0;
  /** Iterations that were left early or aborted. */
  cancelled = 0;
  /** What `stats` gives beside the counters above. */
  figures: Partial<ServiceStats> = {};
  /** What `close` was given; undefined = it is open. */
  graceMs: number | undefined;
  readonly #script: Script;
  readonly #models: readonly ModelInfo[];
  readonly #forced = Promise.withResolvers<never>();
  #idle = Promise.withResolvers<void>();
  #finished = 0;

  /** Answers every request by one script. */
  constructor(script: Script = () => ["Hello"], { models = SCRIPTED_MODELS } = {}) {
    this.#script = script;
    this.#models = models;
    this.#forced.promise.catch(() => {});
  }

  list(): readonly ModelInfo[] {
    return this.#models;
  }

  async *generate(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent> {
    this.#find(request.model);
    if (this.graceMs !== undefined) throw new ServiceError("closing", "Cannot generate: the server is shutting down");
    if (signal.aborted) return;
    this.requests.push(request);
    this.active++;
    let isWhole = false;
    try {
      yield* this.#play(request, signal);
      isWhole = !signal.aborted;
    } catch (error) {
      isWhole = true;
      throw error;
    } finally {
      if (isWhole) this.#finished++;
      else this.cancelled++;
      if (--this.active === 0) this.#idle.resolve();
    }
  }

  async *#play(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent> {
    const aborted = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => aborted.resolve(), { once: true });
    const open = new Set(Array.from({ length: request.choices }, (_, choice) => choice));
    const start = { type: "start", promptTokens: 10, cachedTokens: 0, droppedMessages: 0, contextLen: 512 } as const;
    let started = false;
    let tokens = 0;
    for (const step of this.#script(request)) {
      await Promise.race([this.#forced.promise, aborted.promise, step]);
      if (signal.aborted) return;
      if (step instanceof Promise) continue;
      if (step instanceof Error) throw step;
      const event: GenerationEvent = typeof step === "string"
        ? { type: "piece", choice: 0, kind: "text", text: step }
        : step;
      if (!started && event.type !== "start") yield start;
      started = true;
      if (event.type === "piece") tokens += event.text.length;
      if (event.type === "end") open.delete(event.choice);
      yield event;
      if (signal.aborted) return;
    }
    if (!started) yield start;
    for (const choice of open) yield { type: "end", choice, reason: "stop", completionTokens: tokens + 1 };
  }

  tokenize(model: string, text: string): Promise<readonly number[]> {
    return this.#answer(model, () => [...new TextEncoder().encode(text)]);
  }

  detokenize(model: string, ids: readonly number[]): Promise<string> {
    return this.#answer(model, () => {
      const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id > 255);
      if (wrong === undefined) return new TextDecoder().decode(Uint8Array.from(ids));
      throw new ServiceError("invalid_value", `Cannot use token id ${wrong}, expected an integer of 0 to 255`);
    });
  }

  #answer<T>(model: string, answer: () => T): Promise<T> {
    return Promise.resolve().then(() => {
      this.#find(model);
      return answer();
    });
  }

  stats(): ServiceStats {
    return {
      ...{ queued: 0, activeRows: this.active, rows: 16, loadedModels: 1, promptTokens: 0, cachedTokens: 0 },
      ...{ generatedTokens: 0, steps: 0, finished: this.#finished, cancelled: this.cancelled, refused: 0 },
      ...this.figures,
    };
  }

  async close(graceMs: number): Promise<void> {
    this.graceMs = graceMs;
    if (this.active === 0) return;
    const timer = setTimeout(() => {
      this.#forced.reject(new ServiceError("closing", "Cannot go on: the server is shutting down"));
    }, graceMs);
    this.#idle = Promise.withResolvers();
    await this.#idle.promise;
    clearTimeout(timer);
  }

  #find(id: string): void {
    if (this.#models.some((model) => model.id === id)) return;
    const names = this.#models.map(({ id }) => id).join(", ");
    throw new ServiceError("model_not_found", `Cannot find model ${JSON.stringify(id)}, expected one of ${names}`);
  }
}
