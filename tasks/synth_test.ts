import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../dev/testing.ts";
import type { Log } from "../src/data/log.ts";
import { loadCustomJson } from "./customjson.ts";
import { promptFor, synthesize, type SynthOptions } from "./synth.ts";
import { OPENINGS } from "./synth_openings.ts";

interface Asked {
  readonly authorization: string | null;
  // deno-lint-ignore no-explicit-any -- the body of a request
  readonly body: any;
}

/** A server of made-up answers on a free port; `answer` is given the number of the request. */
function serve(answer: (visit: number) => Response | Promise<Response>) {
  const asked: Asked[] = [];
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (request) => {
    asked.push({ authorization: request.headers.get("authorization"), body: await request.json() });
    assertEquals(new URL(request.url).pathname, "/v1/chat/completions");
    return answer(asked.length - 1);
  });
  return { url: `http://127.0.0.1:${server.addr.port}/v1`, asked, [Symbol.asyncDispose]: () => server.shutdown() };
}

const says = (content: unknown) =>
  Response.json({
    choices: [{ message: { content: typeof content === "string" ? content : JSON.stringify(content) } }],
  });
const talk = (text: string) => ({
  messages: [{ role: "user", content: text }, { role: "assistant", content: "I am Lamp." }],
});

function optionsOf(url: string, folder: string): SynthOptions & { said: string[] } {
  const said: string[] = [];
  const log: Log = { info: (line) => void said.push(line), warn: (line) => void said.push(line), progress() {} };
  const endpoint = { url, model: "writer", key: "sk-secret", backoffMs: () => 0, attempts: 3 };
  return { persona: "A lamp.", endpoint, out: join(folder, "out.jsonl"), count: 6, numWorkers: 2, log, said };
}

Deno.test("synthesize() asks with a strict schema and varied openings, and its rows are a task", async () => {
  using folder = temporaryFolder();
  await using server = serve((visit) => says(talk(`hi ${visit}`)));
  const options = optionsOf(server.url, folder.path);
  assertEquals(await synthesize(options), { conversations: 6, made: 6, failed: 0 });
  const task = await loadCustomJson(options.out);
  const contents = Array.from({ length: 6 }, (_, i) => task.conversation(i).messages[0].content);
  assertEquals(contents.sort(), [0, 1, 2, 3, 4, 5].map((i) => `hi ${i}`));
  const { authorization, body } = server.asked[0];
  assertEquals(authorization, "Bearer sk-secret");
  assertEquals([body.model, body.temperature, body.response_format.json_schema.strict], ["writer", 1, true]);
  assertEquals(new Set(server.asked.map(({ body }) => body.messages[0].content)).size, 6);
  assertStringIncludes(body.messages[0].content, "A lamp.");
  for (const entry of Deno.readDirSync(folder.path)) {
    assert(!Deno.readTextFileSync(join(folder.path, entry.name)).includes("sk-secret"), entry.name);
  }
  assertEquals(await synthesize(options), { conversations: 6, made: 0, failed: 0 });
  assertEquals(server.asked.length, 6);
});

Deno.test("promptFor() draws five openings of the list, other ones for another index", () => {
  assert(OPENINGS.length > 150 && new Set(OPENINGS).size === OPENINGS.length);
  const openings = (index: number) => promptFor("x", index).split("\n\n").at(-2)!.split("\n").slice(1);
  assertEquals(openings(3).length, 5);
  assert(openings(3).every((line) => OPENINGS.includes(line.slice(2))));
  assertEquals(openings(3), openings(3));
  assert(openings(3).join() !== openings(4).join());
});

Deno.test("synthesize() leaves out and counts what is no conversation, and fills up to the count", async () => {
  using folder = temporaryFolder();
  const bad = [
    "no JSON",
    { messages: [{ role: "assistant", content: "x" }, { role: "user", content: "y" }] },
    { messages: [...talk("x").messages, { role: "user", content: "y" }] },
    { messages: [{ role: "user", content: "x" }, { role: "assistant", content: "" }] },
    [],
  ];
  await using server = serve((visit) => {
    if (visit === bad.length) return Response.json({ choices: [{ message: { content: null, refusal: "no" } }] });
    return says(bad[visit] ?? talk("ok"));
  });
  const options = optionsOf(server.url, folder.path);
  assertEquals(await synthesize(options), { conversations: 6, made: 6, failed: 6 });
  for (const part of ["expected JSON", 'from "assistant", expected "user"', "ends with the user", "is empty", '"no"']) {
    assert(options.said.some((line) => line.includes(part)), `${part} in ${options.said.join("\n")}`);
  }
  assertEquals((await loadCustomJson(options.out)).length, 6);
});

Deno.test("synthesize() gives up a model that never answers with a conversation, and keeps what it had", async () => {
  using folder = temporaryFolder();
  await using server = serve((visit) => says(visit === 0 ? talk("ok") : "sorry"));
  const options = { ...optionsOf(server.url, folder.path), numWorkers: 1 };
  await assertRejects(() => synthesize(options), Error, "20 answers in a row could not be used");
  assertEquals((await loadCustomJson(options.out)).length, 1);
});

Deno.test("synthesize() tries again what may pass, and stops at what does not", async () => {
  using folder = temporaryFolder();
  await using server = serve((visit) => {
    if (visit === 0) return new Response("busy", { status: 429, headers: { "retry-after": "0" } });
    if (visit === 1) return new Response("", { status: 503 });
    return says(talk("ok"));
  });
  const options = { ...optionsOf(server.url, folder.path), numWorkers: 1, count: 1 };
  assertEquals((await synthesize(options)).made, 1);
  assertEquals(options.said.length, 2);
  assertStringIncludes(options.said[0], "429: busy");
  await using wrong = serve(() => new Response("bad key sk-secret", { status: 401 }));
  const other = { ...optionsOf(wrong.url, folder.path), count: 3 };
  const error = await assertRejects(() => synthesize(other), Error, "401: bad key ***, expected 200; is the key's");
  assert(!error.message.includes("sk-secret"));
  assert(wrong.asked.length <= 2);
  await using elsewhere = serve(() => Response.redirect("http://127.0.0.1:9/steal", 302));
  const redirected = { ...optionsOf(elsewhere.url, folder.path), count: 3 };
  await assertRejects(() => synthesize(redirected), Error, "302");
});

Deno.test("synthesize() mends a torn last line and refuses another persona or another content", async () => {
  using folder = temporaryFolder();
  await using server = serve(() => says(talk("ok")));
  const options = { ...optionsOf(server.url, folder.path), count: 2 };
  await synthesize(options);
  const whole = Deno.readTextFileSync(options.out);
  Deno.writeTextFileSync(options.out, `${whole}[{"role":"us`);
  assertEquals(await synthesize({ ...options, count: 3 }), { conversations: 3, made: 1, failed: 0 });
  assert(options.said.some((line) => line.includes("is torn (12 bytes")));
  assert(Deno.readTextFileSync(options.out).startsWith(whole));
  const another = { ...options, persona: "A chair." };
  await assertRejects(() => synthesize(another), Error, "not of this persona, expected another --out=FILE");
  Deno.writeTextFileSync(options.out, `${whole}{}\n`);
  await assertRejects(() => synthesize(options), SyntaxError, 'out.jsonl", line 3: {}, expected a list of messages');
  const foreign = join(folder.path, "foreign.jsonl");
  Deno.writeTextFileSync(foreign, whole);
  await assertRejects(() => synthesize({ ...options, out: foreign }), Error, "not of this persona");
  await assertRejects(() => synthesize({ ...options, persona: " " }), RangeError, "the persona is empty");
  const endpoint = { url: "file:///etc", model: "x" };
  await assertRejects(() => synthesize({ ...options, endpoint }), RangeError, "expected http:// or https://");
});

Deno.test("synthesize() stops when it is asked to, with every answer kept, and goes on later", async () => {
  using folder = temporaryFolder();
  const stop = new AbortController();
  await using server = serve((visit) => {
    if (visit === 2) stop.abort();
    return says(talk("ok"));
  });
  const options = { ...optionsOf(server.url, folder.path), numWorkers: 1, count: 5 };
  assertEquals(await synthesize({ ...options, signal: stop.signal }), { conversations: 3, made: 3, failed: 0 });
  assertEquals(await synthesize(options), { conversations: 5, made: 2, failed: 0 });
});
