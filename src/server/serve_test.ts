import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { deadline } from "@std/async";
import type { Log } from "../data/log.ts";
import { type Script, ScriptedService } from "./models_testing.ts";
import { type ServeOptions, WebServer } from "./serve.ts";

const DEADLINE_MS = 20_000;

/** A server over scripted models on a port of its own, with what it tells. */
async function withServer(
  script: Script,
  use: (parts: { server: WebServer; service: ScriptedService; lines: string[] }) => Promise<void>,
  options: Partial<ServeOptions> = {},
): Promise<void> {
  const service = new ScriptedService(script);
  const lines: string[] = [];
  const log: Log = { info: (line) => lines.push(line), warn: (line) => lines.push(line), progress() {} };
  const server = await WebServer.open(service, {
    ...{ host: "127.0.0.1", port: 0, allowedHosts: [], origins: [], log, logTexts: false },
    machine: { hostname: "box", addresses: [] },
    page: {
      html: "<!doctype html><title>nanochat</title>",
      logo: "<svg/>",
      policy: "default-src 'none'; img-src data:",
    },
    app: {
      devices: ["cpu"],
      version: "0",
      defaults: { temperature: 0.8, topK: 50, maxTokens: 512 },
      showTools: false,
    },
    ...options,
  });
  try {
    await deadline(use({ server, service, lines }), DEADLINE_MS);
  } finally {
    await deadline(server.close(0), DEADLINE_MS);
  }
}

function ask(server: WebServer, body: object = {}): Promise<Response> {
  return fetch(`${server.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ messages: [{ role: "user", content: "Hi\x1b[31m" }], stream: true, ...body }),
  });
}

Deno.test("WebServer answers, watched by metrics and log, which tells no texts", () =>
  withServer(() => ["Hel", "lo"], async ({ server, lines }) => {
    const page = await fetch(server.url);
    assertEquals(page.headers.get("content-security-policy"), "default-src 'none'; img-src data:");
    assertStringIncludes(await page.text(), "<!doctype html>");
    const streamed = await (await ask(server)).text();
    assertStringIncludes(streamed, "data: [DONE]");
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    assertStringIncludes(metrics, 'nanochat_requests_total{route="/v1/chat/completions",method="POST",status="200"} 1');
    assertStringIncludes(metrics, "nanochat_time_to_first_token_seconds_count 1");
    assert(
      lines.some((line) => /^127\.0\.0\.1 POST \/v1\/chat\/completions 200 in \d+\.\d\d s [\w-]{8,}$/.test(line)),
      lines.join("\n"),
    );
    assertEquals((await fetch(`${server.url}/x%1b%0a?secret`)).status, 404);
    assertStringIncludes(lines.at(-1)!, "GET /x%1b%0a 404");
    assert(!lines.join("\n").includes("Hi"), lines.join("\n"));
  }));

Deno.test("WebServer tells texts where that is asked for, one line each", () =>
  withServer(() => ["Hel\n", "lo"], async ({ server, lines }) => {
    await (await ask(server)).text();
    const texts = lines.filter((line) => line.startsWith("d4 "));
    assertEquals(texts, [
      'd4 is asked {"messages":[{"role":"user","content":"Hi\\u001b[31m"}]}',
      'd4 answers "Hel\\nlo"',
    ]);
  }, { logTexts: true }));

Deno.test("WebServer ends after the running answers, and answers 503 meanwhile", () => {
  const gate = Promise.withResolvers<void>();
  return withServer(() => ["first", gate.promise, "last"], async ({ server }) => {
    const running = await ask(server);
    const text = running.text();
    const closed = server.close(60_000);
    for (const path of ["/health", "/", "/v1/models"]) {
      const late = await fetch(server.url + path);
      assertEquals([late.status, (await late.json()).error.code, late.headers.get("connection")], [
        503,
        "closing",
        "close",
      ]);
    }
    assertEquals((await (await ask(server)).json()).error.code, "closing");
    gate.resolve();
    await closed;
    assertStringIncludes(await text, '"last"');
    assertStringIncludes(await text, "[DONE]");
    await assertRejects(() => fetch(server.url), TypeError);
  });
});

Deno.test("WebServer cuts off what does not end in time, with an event that says so", () =>
  withServer(() => ["first", new Promise(() => {})], async ({ server, service }) => {
    const text = (await ask(server)).text();
    await server.close(1);
    assertStringIncludes(await text, "shutting down");
    assertEquals(service.active, 0);
  }));

Deno.test("WebServer frees the row of a client that leaves, and says so in its log", () =>
  withServer(() => ["first", new Promise(() => {})], async ({ server, service, lines }) => {
    const leave = new AbortController();
    const response = await fetch(`${server.url}/v1/chat/completions`, {
      method: "POST",
      signal: leave.signal,
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ messages: [{ role: "user", content: "Hi" }], stream: true }),
    });
    await response.body!.getReader().read();
    leave.abort();
    const endMs = performance.now() + 5000;
    while (service.cancelled === 0 && performance.now() < endMs) {
      await fetch(`${server.url}/health`).then((r) => r.text());
    }
    assertEquals([service.active, service.cancelled], [0, 1]);
    assert(
      lines.some((line) => line.includes("/v1/chat/completions 200") && line.includes(" s, cut off ")),
      lines.join("\n"),
    );
  }));
