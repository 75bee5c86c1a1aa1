import { assertEquals, assertMatch } from "@std/assert";
import { post, readEvents, testApp } from "./app_testing.ts";

const CHAT = "/v1/chat/completions";
const messages = [{ role: "user", content: "Hi" } as const];

Deno.test("chat answers whole in OpenAI's form", async () => {
  const { app, service } = testApp(() => ["Hel", "lo"]);
  const response = await post(app, CHAT, { messages, seed: 7 });
  assertEquals(response.status, 200);
  const { id, created, ...answer } = await response.json();
  assertMatch(id, /^chatcmpl-[0-9a-f]{32}$/);
  assertEquals(Math.abs(created - Date.now() / 1000) < 60, true);
  assertEquals(answer, {
    object: "chat.completion",
    model: "d4",
    system_fingerprint: "sft-700",
    choices: [{
      index: 0,
      message: { role: "assistant", content: "Hello", refusal: null },
      logprobs: null,
      finish_reason: "stop",
    }],
    usage: { prompt_tokens: 10, completion_tokens: 6, total_tokens: 16, prompt_tokens_details: { cached_tokens: 0 } },
    nanochat: { seed: 7, context_length: 512, dropped_messages: 0, prompt_tokens: 10, tool_events: [] },
  });
  assertEquals(service.requests[0].prompt, { messages });
});

Deno.test("chat streams: role, content, reason, usage, [DONE]", async () => {
  const { app } = testApp(() => ["Hel", "lo"]);
  const response = await post(app, CHAT, { messages, stream: true, stream_options: { include_usage: true } });
  assertEquals(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  const events = await readEvents(response);
  assertEquals(events.pop(), "[DONE]");
  const usage = events.pop();
  assertEquals([usage.choices, usage.usage.total_tokens], [[], 16]);
  assertEquals(events.map(({ choices: [{ delta, finish_reason }], usage }) => [delta, finish_reason, usage]), [
    [{ role: "assistant", content: "", refusal: null }, null, null],
    [{ content: "Hel" }, null, null],
    [{ content: "lo" }, null, null],
    [{}, "stop", null],
  ]);
  assertEquals(new Set(events.map(({ id }) => id)).size, 1);
});
