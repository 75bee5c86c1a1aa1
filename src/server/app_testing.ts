/** What tests of the endpoints share: an app over scripted models, and reading of answers. */
import type { Hono } from "hono";
import { type AppOptions, createApp } from "./app.ts";
import { type Script, ScriptedService } from "./models_testing.ts";
import type { Clock } from "./sse.ts";

/** Time that stands still until a test lets it pass. */
export class TestClock implements Clock {
  #nowMs = 0;
  readonly #waiting = new Set<{ readonly atMs: number; readonly call: () => void }>();

  after(ms: number, call: () => void): () => void {
    const entry = { atMs: this.#nowMs + ms, call };
    this.#waiting.add(entry);
    return () => this.#waiting.delete(entry);
  }

  /** Lets time pass; calls what waited until then. */
  pass(ms: number): void {
    this.#nowMs += ms;
    for (const entry of [...this.#waiting].filter(({ atMs }) => atMs <= this.#nowMs)) {
      this.#waiting.delete(entry);
      entry.call();
    }
  }
}

/** An app, its models, its time, and the failures that it reported. */
export interface TestApp {
  readonly app: Hono;
  readonly service: ScriptedService;
  readonly clock: TestClock;
  readonly failures: unknown[];
}

/** Makes an app whose models answer by a script. */
export function testApp(script?: Script, options: Partial<AppOptions> = {}): TestApp {
  const service = new ScriptedService(script);
  const [clock, failures]: [TestClock, unknown[]] = [new TestClock(), []];
  const app = createApp({
    service,
    page: {
      html: "<!doctype html><title>nanochat</title>",
      logo: "<svg/>",
      policy: "default-src 'none'; img-src data:",
    },
    devices: ["cpu"],
    version: "0.0.0",
    metrics: () => "",
    defaults: { temperature: 0.8, topK: 50, maxTokens: 512 },
    showTools: false,
    clock,
    onFailure: (error) => failures.push(error),
    ...options,
  });
  return { app, service, clock, failures };
}

/** Sends JSON; a text is sent as it is. */
export function post(app: Hono, path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
  return Promise.resolve(app.request(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: typeof body === "string" || body instanceof Uint8Array ? body as BodyInit : JSON.stringify(body),
    ...init,
  }));
}

/** Reads a whole stream of events: the data of each, JSON where it is an object. */
// deno-lint-ignore no-explicit-any
export async function readEvents(response: Response): Promise<any[]> {
  const events = (await response.text()).split("\n\n").filter((event) => event !== "");
  return events.map((event) => {
    const data = event.replace(/^data: /, "");
    return data.startsWith("{") ? JSON.parse(data) : data;
  });
}
