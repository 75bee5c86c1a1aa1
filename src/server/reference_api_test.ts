import { assertEquals } from "@std/assert";
import { post, readEvents, testApp } from "./app_testing.ts";

const CHAT = "/chat/completions";
const messages = [{ role: "user", content: "Hi" } as const];

Deno.test("the reference's chat streams tokens and says that it is done", async () => {
  const { app, service } = testApp(() => ["Hel", "lo"]);
  const response = await post(app, CHAT, { messages });
  assertEquals(await readEvents(response), [{ token: "Hel", gpu: 0 }, { token: "lo", gpu: 0 }, { done: true }]);
  const { temperature, topK } = service.requests[0].sampling;
  assertEquals([service.requests[0].maxTokens, temperature, topK], [512, 0.8, 50]);
});
