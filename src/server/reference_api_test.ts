import { assertEquals } from "@std/assert";
import { post, readEvents, testApp } from "./app_testing.ts";
import { ServiceError } from "./models.ts";

const CHAT = "/chat/completions";
const message = (content: string, role = "user") => ({ role, content });
const messages = [message("Hi")];

Deno.test("the reference's chat streams tokens and says that it is done", async () => {
  const { app, service } = testApp(() => ["Hel", "lo"]);
  const response = await post(app, CHAT, { messages });
  assertEquals(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  assertEquals(
    await response.text(),
    'data: {"token":"Hel","gpu":0}\n\ndata: {"token":"lo","gpu":0}\n\ndata: {"done":true}\n\n',
  );
  const { maxTokens, sampling: { temperature, topK }, model } = service.requests[0];
  assertEquals([model, maxTokens, temperature, topK], ["d4", 512, 0.8, 50]);
});

Deno.test("the reference's chat prints the marks of tools, as the reference does", async () => {
  const { app } = testApp(() => [
    { type: "piece", choice: 0, kind: "python", text: "6*7" },
    { type: "piece", choice: 0, kind: "python_output", text: "42" },
    { type: "piece", choice: 0, kind: "text", text: "." },
  ]);
  const events = await readEvents(await post(app, CHAT, { messages }));
  const text = events.map(({ token = "" }) => token).join("");
  assertEquals(text, "<|python_start|>6*7<|python_end|><|output_start|>42<|output_end|>.");
});

Deno.test("the reference's limits: the last value that is accepted, the first that is not", async () => {
  const { app } = testApp();
  const cases: [object, object][] = [
    [{ messages: Array(500).fill(message("a")) }, { messages: Array(501).fill(message("a")) }],
    [{ messages: [message("a".repeat(8000))] }, { messages: [message("a".repeat(8001))] }],
    [{ messages: [message("\u{1f600}".repeat(8000))] }, { messages: [message("\u{1f600}".repeat(8001))] }],
    [{ messages: Array(4).fill(message("a".repeat(8000))) }, {
      messages: [...Array(4).fill(message("a".repeat(8000))), message("a")],
    }],
    [{ messages: [message("a", "assistant")] }, { messages: [message("a", "system")] }],
    [{ messages }, { messages: [] }],
    [{ messages }, { messages: [message("")] }],
    [{ messages, temperature: 0 }, { messages, temperature: -0.1 }],
    [{ messages, temperature: 2 }, { messages, temperature: 2.01 }],
    [{ messages, top_k: 1 }, { messages, top_k: 0 }],
    [{ messages, top_k: 200 }, { messages, top_k: 201 }],
    [{ messages, max_tokens: 1 }, { messages, max_tokens: 0 }],
    [{ messages, max_tokens: 4096 }, { messages, max_tokens: 4097 }],
  ];
  for (const [good, bad] of cases) {
    const accepted = await post(app, CHAT, good);
    assertEquals([accepted.status, (await readEvents(accepted)).at(-1)], [200, { done: true }]);
    const refused = await post(app, CHAT, bad);
    const { detail } = await refused.json();
    assertEquals([refused.status, typeof detail], [400, "string"], JSON.stringify(bad).slice(0, 80));
  }
});

Deno.test("the reference's chat takes null for absent, looks at no other field, and is 422 for a wrong kind", async () => {
  const { app, service } = testApp();
  const body = { messages, temperature: null, top_k: null, max_tokens: 3, stream: false, colour: "red" };
  assertEquals((await post(app, CHAT, body)).status, 200);
  const { maxTokens, sampling } = service.requests[0];
  assertEquals([maxTokens, sampling.temperature, sampling.topK], [3, 0.8, 50]);
  const wrong: [unknown, unknown[]][] = [
    ["{", ["body"]],
    [{}, ["body", "messages"]],
    [[], ["body"]],
    [null, ["body"]],
    [{ messages: null }, ["body", "messages"]],
    [{ messages: "Hi" }, ["body", "messages"]],
    [{ messages: [{ role: "user" }] }, ["body", "messages", 0, "content"]],
    [{ messages: [{ role: "user", content: ["Hi"] }] }, ["body", "messages", 0, "content"]],
    [{ messages, top_k: 1.5 }, ["body", "top_k"]],
    [{ messages, temperature: "warm" }, ["body", "temperature"]],
  ];
  for (const [body, location] of wrong) {
    const response = await post(app, CHAT, body);
    const { detail: [{ loc, msg }] } = await response.json();
    assertEquals([response.status, loc, typeof msg], [422, location, "string"], JSON.stringify(body));
  }
});

Deno.test("the reference's chat says why it fails", async () => {
  const { app: full } = testApp(() => [new ServiceError("busy", "Cannot answer: full", { retryAfterSec: 3 })]);
  const response = await post(full, CHAT, { messages });
  assertEquals([response.status, response.headers.get("retry-after")], [429, "3"]);
  assertEquals(await response.json(), { detail: "Cannot answer: full" });
  const { app } = testApp(() => ["a", new ServiceError("failed", "Cannot go on")]);
  assertEquals(await readEvents(await post(app, CHAT, { messages })), [{ token: "a", gpu: 0 }, {
    error: "Cannot go on",
  }]);
});

Deno.test("/health and /stats count devices as the reference's workers", async () => {
  const { app, service } = testApp(undefined, { devices: ["cuda:0", "cuda:1"] });
  const get = async (path: string) => await (await app.request(path)).json();
  assertEquals(await get("/health"), { status: "ok", ready: true, num_gpus: 2, available_workers: 2 });
  service.figures = { rows: 32, activeRows: 20 };
  const { nanochat, ...stats } = await get("/stats");
  assertEquals(stats, {
    ...{ total_workers: 2, available_workers: 1, busy_workers: 1 },
    workers: [{ gpu_id: 0, device: "cuda:0" }, { gpu_id: 1, device: "cuda:1" }],
  });
  assertEquals([nanochat.rows, nanochat.active_rows], [32, 20]);
  service.figures = { rows: 32, activeRows: 32 };
  assertEquals((await get("/health")).available_workers, 0);
  service.figures = { rows: 0, activeRows: 0 };
  assertEquals((await get("/health")).available_workers, 2);
});
