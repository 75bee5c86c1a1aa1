import { assertEquals, assertRejects } from "@std/assert";
import type { GenerationRequest } from "./models.ts";
import { type Script, ScriptedService } from "./models_testing.ts";
import { generateAll } from "./prompts_at_once.ts";

/** A request for every text. */
function requests(...texts: string[]): GenerationRequest[] {
  const sampling = { temperature: 0, topK: 0, topP: 1, seed: 0, frequencyPenalty: 0, presencePenalty: 0 };
  return texts.map((text) => ({
    ...{ model: "d4", prompt: { text }, choices: 1, stop: [], echo: false },
    sampling: { ...sampling, logitBias: new Map() },
  }));
}

/** Lets everything happen that needs no time. */
const settle = () => new Promise((resolve) => setTimeout(resolve));

function generate(script: Script, texts: string[], signal = new AbortController().signal) {
  const service = new ScriptedService(script);
  return { service, events: generateAll(service, requests(...texts), signal) };
}

Deno.test("generateAll() runs 8 prompts at a time, and the others when one has ended", async () => {
  const gates = new Map<string, PromiseWithResolvers<void>>();
  const { service, events } = generate(({ prompt }) => {
    const gate = Promise.withResolvers<void>();
    gates.set("text" in prompt ? prompt.text : "", gate);
    return [gate.promise];
  }, Array.from({ length: 10 }, (_, i) => String(i)));
  const seen: string[] = [];
  const reading = (async () => {
    for await (const event of events) if (event.type === "end") seen.push(String(event.choice));
  })();
  await settle();
  assertEquals(service.active, 8);
  gates.get("3")!.resolve();
  await settle();
  assertEquals([service.active, [...gates.keys()].at(-1)], [8, "8"]);
  while (seen.length < 10) {
    for (const gate of gates.values()) gate.resolve();
    await settle();
  }
  await reading;
  assertEquals([seen[0], new Set(seen).size, service.active], ["3", 10, 0]);
});

Deno.test("generateAll() keeps a failure until its reader comes", async () => {
  const { events } = generate(() => ["a", new RangeError("late")], ["x"]);
  assertEquals((await events.next()).value?.type, "start");
  await settle(); // an unheard rejection would end the process here
  assertEquals((await events.next()).value?.type, "piece");
  await settle();
  await assertRejects(() => events.next(), RangeError, "late");
});

Deno.test("generateAll() ends all prompts where its reader leaves", async () => {
  const { service, events } = generate(() => ["a", new Promise(() => {})], ["x", "y", "z"]);
  await events.next();
  await events.return(undefined);
  await settle();
  assertEquals([service.active, service.cancelled], [0, 3]);
});
