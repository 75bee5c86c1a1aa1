/** The official Python client takes us for OpenAI's server, over a real port. */
import { assertEquals } from "@std/assert";
import { askPeer, peerTest } from "../../dev/peers.ts";
import { testApp } from "./app_testing.ts";
import { Listener } from "./listener.ts";
import { type GenerationRequest, ServiceError, type ServiceErrorCode } from "./models.ts";
import { type ScriptStep, tokenLogprob } from "./models_testing.ts";

/** Answers by the words of the last message. */
function script({ prompt, echo }: GenerationRequest): Iterable<ScriptStep> {
  if (!("messages" in prompt)) {
    const tokens = [tokenLogprob("c", -1, { c: -1 })];
    const answer: ScriptStep[] = [{ type: "piece", choice: 0, kind: "text", text: "c", tokens }];
    return echo ? [{ type: "prompt", text: "ab", tokens: [tokenLogprob("ab", null)] }, ...answer] : answer;
  }
  const text = prompt.messages.at(-1)!.content as string;
  const refusals: Record<string, ServiceErrorCode> = {
    busy: "busy",
    closing: "closing",
    long: "context_length_exceeded",
  };
  if (text in refusals) return [new ServiceError(refusals[text], "Cannot answer: refused")];
  if (text === "midway") return ["a", new ServiceError("failed", "Cannot go on")];
  if (text.startsWith("say ")) return [...text.slice(4)];
  if (text !== "both") return ["Hel", "lo"];
  return ["b", "a"].map((letter, i) => {
    const tokens = [tokenLogprob(letter, -1 - i, { [letter]: -1 - i, x: -9 })];
    return { type: "piece", choice: 1 - i, kind: "text", text: letter, tokens };
  });
}

peerTest("quick", "the Python client chats, streams, continues texts, and raises the right errors", async () => {
  const { app, service } = testApp(script);
  const listener = await Listener.open((request) => app.fetch(request), { host: "127.0.0.1", port: 0 });
  try {
    const url = `http://127.0.0.1:${listener.port}/v1`;
    assertEquals(await askPeer("openai_client.py", { url }), {
      whole: ["Hello", "stop", 16],
      extension: [1, []],
      stream: "Hello",
      usage: [16, 0],
      both: [["a", -2, 2], ["b", -1, 2]],
      echoed: ["abc", [null, -1]],
      texts: ["c", "c"],
      models: ["d4", "base/d4"],
      model: "base/d4",
      ignored: "user",
      busy: ["RateLimitError", 429, "rate_limit_exceeded", null],
      closing: ["InternalServerError", 503, "closing", null],
      long: ["BadRequestError", 400, "context_length_exceeded", null],
      missing: ["NotFoundError", 404, "model_not_found", "model"],
      unsupported: ["BadRequestError", 400, "unsupported_parameter", "response_format.type"],
      midway: ["APIError", null, "failed", null],
      together: Array.from({ length: 20 }, (_, i) => String(i)),
    });
    assertEquals([service.active, service.requests[0].sampling.topK], [0, 3]);
  } finally {
    await listener.close();
  }
});
