/** Runs `nanochat serve` for tests: waits for its URL, asks it, stops it, and never leaves it behind. */
import { assertEquals } from "@std/assert";
import { deadline } from "@std/async";
import { nanochat } from "../../dev/cli.ts";
import type { Ended } from "../../dev/process.ts";

/** A server that runs. */
export interface Serving {
  readonly url: string;
  /** Stops it as Ctrl-C would; gives how it ended. */
  stop(): Promise<Ended>;
  /** Sends it a signal. */
  send(signal: Deno.Signal): void;
  /** How it ended. */
  readonly ended: Promise<Ended>;
}

/** How a server is started. */
export interface ServingOptions {
  readonly base: string;
  readonly env?: Record<string, string>;
  readonly deadlineMs?: number;
}

/** Starts the server on a port of its own, for the time of `use`; it must end without a failure. */
export async function withServing(
  flags: readonly string[],
  { base, env, deadlineMs = 60_000 }: ServingOptions,
  use: (serving: Serving) => Promise<void>,
): Promise<Ended> {
  const started = Promise.withResolvers<{ url: string; send: (signal: Deno.Signal) => void }>();
  let output = "";
  const ended = nanochat(["serve", "--port=0", "--json", ...flags], {
    env: { NANOCHAT_BASE_DIR: base, ...env },
    deadlineMs,
    onOutput: (text, send) => {
      output += text;
      const url = /"url":"(http:[^"]+)"/.exec(output)?.[1];
      if (url !== undefined) started.resolve({ url, send });
    },
  });
  ended.then(({ output }) => started.reject(new Error(`Cannot start the server: ${output}`)));
  const { url, send } = await started.promise;
  const stop = () => {
    send("SIGTERM");
    return ended;
  };
  try {
    await deadline(use({ url, stop, send, ended }), deadlineMs);
  } finally {
    try {
      send("SIGTERM");
    } catch {
      // It has ended.
    }
  }
  const end = await ended;
  assertEquals(end.code, 0, end.output);
  return end;
}

/** A request as a test makes it. */
export interface Asked {
  readonly headers?: Record<string, string>;
  readonly signal?: AbortSignal;
}

/** Sends a conversation of one question. */
export function askChat(url: string, body: object, { headers = {}, signal }: Asked = {}): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    signal,
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ messages: [{ role: "user", content: "Hello" }], ...body }),
  });
}

/** Reads the text of a stream, and whether it came to its end. */
export async function readStream(response: Response): Promise<{ text: string; isWhole: boolean }> {
  const events = (await response.text()).split("\n\n").filter((event) => event.startsWith("data: "))
    .map((event) => event.slice("data: ".length));
  const chunks = events.filter((event) => event !== "[DONE]").map((event) => JSON.parse(event));
  const text = chunks.map(({ choices }) => choices?.[0]?.delta?.content ?? "").join("");
  return { text, isWhole: events.at(-1) === "[DONE]" && chunks.every(({ error }) => error === undefined) };
}

/** Sends bytes over a connection of its own and reads until the server closes it. */
export async function exchangeBytes(url: string, text: string): Promise<string> {
  const { hostname, port } = new URL(url);
  using connection = await Deno.connect({ hostname, port: Number(port) });
  await connection.write(new TextEncoder().encode(text));
  return await new Response(connection.readable).text();
}
