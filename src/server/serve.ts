/**
 * The server with its port: puts listener, guard, log, metrics and routes together, and ends without cutting off who is being answered.
 */
import type { MiddlewareHandler } from "hono";
import type { Log } from "../data/log.ts";
import type { ApiKey } from "./api_key.ts";
import { type AppOptions, createApp } from "./app.ts";
import { ApiError } from "./errors.ts";
import { guard, safeHeaders } from "./guard.ts";
import { type Machine, ownAddress, ownHosts } from "./hosts.ts";
import { type ExchangeWatch, Listener } from "./listener.ts";
import { Metrics } from "./metrics.ts";
import type { ModelService } from "./models.ts";
import type { PageAsset } from "./page_asset.ts";
import { exchangeLine, logTexts } from "./request_log.ts";

/** Where a server listens, whom it answers, and what it tells. */
export interface ServeOptions {
  readonly host: string;
  /** 0 = any that is free. */
  readonly port: number;
  /** Names beside its own under which it may be asked. */
  readonly allowedHosts: readonly string[];
  /** Origins of pages elsewhere that may ask. */
  readonly origins: readonly string[];
  /** Without it nobody needs one. */
  readonly key?: ApiKey;
  readonly machine: Machine;
  readonly page: PageAsset;
  readonly app: Omit<AppOptions, "service" | "page" | "metrics" | "middleware" | "onFailure">;
  readonly log: Log;
  /** Also tells what is asked and answered. */
  readonly logTexts: boolean;
}

/** How long the last words of ended answers may take to reach their clients. */
const FLUSH_MS = 2000;

/** A server that answers. */
export class WebServer {
  /** Where this machine finds it. */
  readonly url: string;
  readonly #service: ModelService;
  readonly #listener: Listener;
  readonly #open: OpenExchanges;

  private constructor(parts: { url: string; service: ModelService; listener: Listener; open: OpenExchanges }) {
    ({ url: this.url, service: this.#service, listener: this.#listener, open: this.#open } = parts);
  }

  /**
   * Opens the port.
   *
   * @throws {Error} where it cannot be had.
   */
  static async open(service: ModelService, options: ServeOptions): Promise<WebServer> {
    const { host, port, log, origins } = options;
    const metrics = new Metrics(service);
    const open = new OpenExchanges(metrics, log);
    const hosts = ownHosts(host, { allowed: options.allowedHosts, machine: options.machine });
    const app = createApp({
      ...options.app,
      page: options.page,
      metrics: () => metrics.text(),
      service: options.logTexts ? logTexts(metrics.watched, log) : metrics.watched,
      middleware: [
        metrics.count(),
        safeHeaders({ origins }),
        guard({ hosts, origins, key: options.key }),
        open.refuseLate(),
      ],
      onFailure: (error) => log.warn(`Cannot answer a request: ${failureText(error)}`),
    });
    const listener = await Listener.open((request, client) => app.fetch(request, client), { host, port, watch: open });
    return new WebServer({ url: `http://${ownAddress(host)}:${listener.port}`, service, listener, open });
  }

  /** Refuses new requests, lets running ones end for up to `graceMs`, then closes the port and frees the models. */
  async close(graceMs: number): Promise<void> {
    this.#open.isClosing = true;
    await this.#service.close(graceMs);
    await this.#open.drained(FLUSH_MS);
    await this.#listener.close();
  }
}

/** Shows a failure on one line: what a client sent may be part of its message, and must not look like a line of its own. */
function failureText(error: unknown): string {
  return (error instanceof Error ? error.stack ?? error.message : String(error)).replace(/\s*\n\s*/g, " / ");
}

/** The requests that are being answered. */
class OpenExchanges implements ExchangeWatch {
  isClosing = false;
  readonly #metrics: Metrics;
  readonly #log: Log;
  #count = 0;
  #drained: (() => void) | undefined;

  constructor(metrics: Metrics, log: Log) {
    this.#metrics = metrics;
    this.#log = log;
  }

  begun(): void {
    this.#count++;
    this.#metrics.begun();
  }

  ended(exchange: Parameters<ExchangeWatch["ended"]>[0]): void {
    this.#metrics.ended();
    this.#log.info(exchangeLine(exchange));
    if (--this.#count === 0) this.#drained?.();
  }

  /** Makes the middleware that answers 503 from the moment on that the server is to end. */
  refuseLate(): MiddlewareHandler {
    return async (_, next) => {
      if (!this.isClosing) return await next();
      const headers = { "retry-after": "5", connection: "close" };
      throw new ApiError(503, "Cannot answer: the server is shutting down", { code: "closing", headers });
    };
  }

  /** Waits until all have ended, for up to `ms`. */
  async drained(ms: number): Promise<void> {
    if (this.#count === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#drained = resolve;
    const timer = setTimeout(resolve, ms);
    await promise;
    clearTimeout(timer);
  }
}
