/**
 * What `GET /metrics` tells: the service's own counters, times that are seen by watching its streams, requests by route, and how late the
 * event loop is. Handlers know nothing of it: they are given a service that is watched.
 */
import type { MiddlewareHandler } from "hono";
import { routePath } from "hono/route";
import {
  type GenerationEvent,
  type GenerationRequest,
  type ModelService,
  type ServiceStats,
  withGenerate,
} from "./models.ts";
import { Counts, type Figure, figure, Histogram, prometheusText } from "./prometheus.ts";

/** Interval at which the event loop is asked whether it comes in time, while requests are answered. */
const TICK_MS = 10;
/** Rates are those of this many last seconds. */
const WINDOW_SEC = 10;
const FIRST_TOKEN = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60];
const EACH_TOKEN = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];
const DELAYS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];

interface Sample extends Pick<ServiceStats, "generatedTokens" | "steps"> {
  readonly ms: number;
}

/** Collects the figures of a server. */
export class Metrics {
  readonly #service: ModelService;
  readonly #requests = new Counts();
  readonly #firstToken = new Histogram(
    ["nanochat_time_to_first_token_seconds", "Time from a request for an answer to its first text."],
    FIRST_TOKEN,
  );
  readonly #eachToken = new Histogram(
    ["nanochat_time_per_token_seconds", "Mean time of a token behind the first text of an answer."],
    EACH_TOKEN,
  );
  readonly #delay = new Histogram(
    [
      "nanochat_event_loop_delay_seconds",
      "How late the server's event loop came to a timer, while it answered requests.",
    ],
    DELAYS,
  );
  readonly #figures: readonly Figure[];
  readonly #samples: Sample[] = [];
  #active = 0;
  #ticking = false;

  /** Watches a service; `watched` is what handlers are to be given. */
  constructor(service: ModelService) {
    this.#service = service;
    this.#figures = [...this.#serviceFigures(), ...this.#serverFigures()];
  }

  /** The service, with its streams watched. */
  get watched(): ModelService {
    return withGenerate(this.#service, (request, signal) => this.#watch(request, signal));
  }

  /** Hears that a request has begun: the event loop is watched until the last one has ended. */
  begun(): void {
    this.#active++;
    if (!this.#ticking) this.#tick(performance.now());
  }

  /** Hears that it has ended. */
  ended(): void {
    this.#active--;
  }

  /** Makes the middleware that counts requests by route, method and status. */
  count(): MiddlewareHandler {
    return async (c, next) => {
      await next();
      const route = routePath(c, -1).replace(/:(\w+)\{.*\}/, "{$1}").replace(/^\/\*$/, "other");
      this.#requests.add({ route, method: c.req.method, status: String(c.res.status) });
    };
  }

  /** Writes all figures. */
  text(): string {
    return prometheusText(this.#figures);
  }

  async *#watch(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent> {
    const startMs = performance.now();
    const firstMs = new Map<number, number>();
    for await (const event of this.#service.generate(request, signal)) {
      const nowMs = performance.now();
      if (event.type === "piece" && !firstMs.has(event.choice)) {
        firstMs.set(event.choice, nowMs);
        this.#firstToken.observe((nowMs - startMs) / 1000);
      }
      const first = event.type === "end" ? firstMs.get(event.choice) : undefined;
      if (event.type === "end" && first !== undefined && event.completionTokens > 1) {
        this.#eachToken.observe((nowMs - first) / 1000 / (event.completionTokens - 1));
      }
      yield event;
    }
  }

  /** Comes back every 10 ms while there is something to answer, and notes how late it is. */
  #tick(dueMs: number): void {
    const nowMs = performance.now();
    if (this.#ticking) this.#delay.observe(Math.max(0, nowMs - dueMs) / 1000);
    this.#ticking = this.#active > 0;
    if (!this.#ticking) return;
    this.#sample(nowMs);
    const timer = setTimeout(() => this.#tick(nowMs + TICK_MS), TICK_MS);
    Deno.unrefTimer(timer); // it keeps no process alive
  }

  #sample(ms: number): void {
    if (ms - (this.#samples.at(-1)?.ms ?? -Infinity) < 1000) return;
    const { generatedTokens, steps } = this.#service.stats();
    this.#samples.push({ ms, generatedTokens, steps });
    if (this.#samples.length > WINDOW_SEC) this.#samples.shift();
  }

  /** What was generated in the last seconds, and in how many. */
  #recent(): { tokens: number; steps: number; seconds: number } {
    const nowMs = performance.now();
    const from = this.#samples.find(({ ms }) => nowMs - ms <= WINDOW_SEC * 1000);
    const { generatedTokens, steps } = this.#service.stats();
    if (from === undefined) return { tokens: 0, steps: 0, seconds: 1 };
    const seconds = Math.max(0.001, (nowMs - from.ms) / 1000);
    return { tokens: generatedTokens - from.generatedTokens, steps: steps - from.steps, seconds };
  }

  #serviceFigures(): Figure[] {
    const stat = (type: "counter" | "gauge", key: keyof ServiceStats, name: string, help: string) =>
      figure(type, [`nanochat_${name}`, help], () => this.#service.stats()[key]);
    return [
      stat("gauge", "queued", "queued_requests", "Requests that wait for a row."),
      stat("gauge", "activeRows", "active_rows", "Rows that generate: the size of the batch."),
      stat("gauge", "rows", "rows", "Rows of all loaded models."),
      stat("gauge", "loadedModels", "loaded_models", "Models in memory."),
      stat("counter", "promptTokens", "prompt_tokens_total", "Tokens of prompts."),
      stat("counter", "cachedTokens", "cached_tokens_total", "Tokens of prompts that came from the prefix cache."),
      stat("counter", "generatedTokens", "generated_tokens_total", "Tokens of answers."),
      stat("counter", "steps", "steps_total", "Steps of decoding, each a token for every row of the batch."),
      stat("counter", "finished", "answers_finished_total", "Requests that were answered to the end."),
      stat("counter", "cancelled", "answers_cancelled_total", "Requests whose client left before the end."),
      stat("counter", "refused", "answers_refused_total", "Requests for which there was no room."),
    ];
  }

  #serverFigures(): Figure[] {
    return [
      figure("gauge", ["nanochat_tokens_per_second", "Tokens of answers a second, in the last 10 s."], () => {
        const { tokens, seconds } = this.#recent();
        return tokens / seconds;
      }),
      figure("gauge", ["nanochat_batch_size_mean", "Mean rows of a step, in the last 10 s."], () => {
        const { tokens, steps } = this.#recent();
        return steps === 0 ? 0 : tokens / steps;
      }),
      figure("counter", ["nanochat_requests_total", "Requests by route, method and status."], () => this.#requests),
      figure("gauge", ["nanochat_open_requests", "Requests that are being answered."], () => this.#active),
      this.#firstToken,
      this.#eachToken,
      this.#delay,
      figure("gauge", ["process_resident_memory_bytes", "Memory of the process."], () => Deno.memoryUsage().rss),
    ];
  }
}
