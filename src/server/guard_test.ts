import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { ApiKey } from "./api_key.ts";
import { testApp } from "./app_testing.ts";
import { guard, type GuardOptions, safeHeaders } from "./guard.ts";

const HOSTS = ["localhost", "127.0.0.1"];
const KEY = "correct-horse";

/** An app behind the guard, asked as a browser or a program asks. */
function guarded(options: Partial<GuardOptions> = {}) {
  const all = { hosts: HOSTS, origins: [], ...options };
  const { app, service } = testApp(undefined, {
    middleware: [safeHeaders(all), guard(all)],
  });
  const ask = (path: string, headers: Record<string, string> = {}, init: RequestInit = {}) =>
    Promise.resolve(app.request(path, { ...init, headers: { host: "localhost:8000", ...headers } }));
  return { ask, service };
}

/** Status, and what the error is called. */
async function verdict(response: Promise<Response>): Promise<[number, string | undefined]> {
  const { status, headers } = await response;
  const text = await (await response).text();
  return [status, headers.get("content-type")?.includes("json") ? JSON.parse(text).error?.code : undefined];
}

const JSON_TYPE = { "content-type": "application/json" };
const CHAT = JSON.stringify({ messages: [{ role: "user", content: "Hi" }] });
const post = (body: BodyInit = CHAT): RequestInit => ({ method: "POST", body });

Deno.test("guard() answers to its own names alone", async () => {
  const { ask } = guarded();
  for (const host of ["localhost:8000", "LOCALHOST.", "127.0.0.1"]) {
    assertEquals(await verdict(ask("/v1/models", { host })), [200, undefined], host);
  }
  for (const host of ["", "evil.org", "evil.org:8000", "localhost.evil.org", "localhost@evil.org", "a b", "[::1]"]) {
    for (const path of ["/", "/health", "/v1/models"]) {
      assertEquals(await verdict(ask(path, { host })), [403, "host_not_allowed"], `${host} ${path}`);
    }
  }
});

Deno.test("guard() lets no page of another origin ask, unless it was named", async () => {
  const { ask } = guarded({ origins: ["https://friend.org"] });
  for (const origin of ["https://evil.org", "null", "http://localhost:3000", "https://friend.org.evil.org", ""]) {
    assertEquals(await verdict(ask("/v1/models", { origin })), [403, "origin_not_allowed"], origin);
    const init = { method: "OPTIONS" };
    const asked = { origin, "access-control-request-method": "POST" };
    assertEquals(await verdict(ask("/v1/chat/completions", asked, init)), [403, "origin_not_allowed"], origin);
  }
  const own = await ask("/v1/models", { origin: "http://localhost:8000" });
  assertEquals([own.status, own.headers.get("access-control-allow-origin")], [200, null]);
  const friend = await ask("/v1/models", { origin: "https://friend.org" });
  assertEquals([friend.status, friend.headers.get("access-control-allow-origin")], [200, "https://friend.org"]);
  assertStringIncludes(friend.headers.get("vary")!, "Origin");
  const refused = await ask("/nowhere", { origin: "https://friend.org" });
  assertEquals([refused.status, refused.headers.get("access-control-allow-origin")], [404, "https://friend.org"]);
});

Deno.test("guard() answers the preflight of a named origin without a key, and keeps the key for the rest", async () => {
  const { ask, service } = guarded({ origins: ["https://friend.org"], key: new ApiKey(KEY) });
  const origin = "https://friend.org";
  const asked = { origin, "access-control-request-method": "POST" };
  const preflight = await ask("/v1/chat/completions", asked, { method: "OPTIONS" });
  assertEquals([preflight.status, await preflight.text()], [204, ""]);
  assertStringIncludes(preflight.headers.get("access-control-allow-headers")!, "authorization");
  assertEquals(preflight.headers.get("access-control-allow-origin"), origin);
  assertEquals(await verdict(ask("/v1/chat/completions", { origin }, { method: "OPTIONS" })), [401, "invalid_api_key"]);
  assertEquals(await verdict(ask("/v1/chat/completions", { origin, ...JSON_TYPE }, post())), [401, "invalid_api_key"]);
  assertEquals(service.requests.length, 0);
});

Deno.test("guard() wants the key for everything but the page, its picture and /health", async () => {
  const { ask } = guarded({ key: new ApiKey(KEY) });
  for (const path of ["/", "/logo.svg", "/favicon.ico", "/health", "/%68ealth", "/?x=1"]) {
    assertEquals((await ask(path)).status, 200, path);
  }
  const closed = [
    "/stats",
    "/v1/models",
    "/openapi.json",
    "/nowhere",
    "//",
    "/health/",
    "/health/x",
    "/HEALTH",
  ];
  for (const path of [...closed, "/health/../v1/models", "/health%2f..%2fv1/models", "/;/health"]) {
    assertEquals(await verdict(ask(path)), [401, "invalid_api_key"], path);
    assertEquals(await verdict(ask(path, { authorization: "Bearer wrong" })), [401, "invalid_api_key"], path);
  }
  for (const path of ["/", "/health"]) {
    assertEquals(await verdict(ask(path, JSON_TYPE, post())), [401, "invalid_api_key"], `POST ${path}`);
  }
  const response = await ask("/v1/models", {}, {});
  assertEquals(response.headers.get("www-authenticate"), "Bearer");
  assertEquals((await ask("/v1/models", { authorization: `Bearer ${KEY}` })).status, 200);
});

Deno.test("guard() takes JSON alone, and no more than fits", async () => {
  const { ask, service } = guarded({ bodyBytes: 1000 });
  const path = "/v1/chat/completions";
  for (
    const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp", ""]
  ) {
    const headers: Record<string, string> = type === "" ? {} : { "content-type": type };
    assertEquals(await verdict(ask(path, headers, post(new TextEncoder().encode(CHAT)))), [
      415,
      "unsupported_media_type",
    ], type);
  }
  const named = { "content-type": "Application/JSON; charset=utf-8" };
  assertEquals(await verdict(ask(path, named, post())), [200, undefined]);
  assertEquals(await verdict(ask(path, JSON_TYPE, post("x".repeat(1001)))), [413, "body_too_large"]);
  const lying = { ...JSON_TYPE, "content-length": "2000000" };
  assertEquals(await verdict(ask(path, lying, post())), [413, "body_too_large"]);
  let pulled = 0;
  const endless = new ReadableStream({ pull: (c) => (pulled++, c.enqueue(new Uint8Array(300))) });
  assertEquals(await verdict(ask(path, JSON_TYPE, post(endless))), [413, "body_too_large"]);
  assert(pulled < 10, `${pulled} parts were read`);
  const broken = new ReadableStream({ pull: (c) => c.error(new Error("gone")) });
  assertEquals(await verdict(ask(path, JSON_TYPE, post(broken))), [400, "body_cut_off"]);
  assertEquals(service.requests.length, 1);
});

Deno.test("guard() refuses a stranger before it reads what was sent", async () => {
  const { ask } = guarded({ key: new ApiKey(KEY) });
  const unread = () => new ReadableStream({ pull: () => Promise.reject(new Error("read")) }, { highWaterMark: 0 });
  assertEquals(await verdict(ask("/tokenize", { host: "evil.org", ...JSON_TYPE }, post(unread()))), [
    403,
    "host_not_allowed",
  ]);
  assertEquals(await verdict(ask("/tokenize", { origin: "null", ...JSON_TYPE }, post(unread()))), [
    403,
    "origin_not_allowed",
  ]);
  assertEquals(await verdict(ask("/tokenize", JSON_TYPE, post(unread()))), [401, "invalid_api_key"]);
});

Deno.test("safeHeaders() are on every answer", async () => {
  const { ask } = guarded();
  const answers = [ask("/"), ask("/nowhere"), ask("/v1/models", { host: "evil.org" }), ask("/tokenize", {}, post())];
  for (const [i, { headers }] of (await Promise.all(answers)).entries()) {
    assertEquals(
      headers.get("content-security-policy")!.includes("img-src data:"),
      i === 0,
      "the page alone shows pictures",
    );
    assertEquals(headers.get("x-content-type-options"), "nosniff");
    assertEquals(headers.get("x-frame-options"), "DENY");
    assertEquals(headers.get("cross-origin-resource-policy"), "same-origin");
    assertStringIncludes(headers.get("content-security-policy")!, "default-src 'none'");
  }
});
