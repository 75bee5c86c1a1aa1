/**
 * A crowd in front of `nanochat serve`: clients that read their stream, leave, read slowly, break off what they send, or send garbage.
 *
 * Every whole answer must equal the one that was computed alone with the same seed, whatever ran beside it; nothing may answer 5xx.
 */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { TestRandom } from "../../dev/testing.ts";
import { askChat, exchangeBytes, readStream } from "./serve_testing.ts";

/** How large the crowd is. */
export interface Crowd {
  readonly url: string;
  readonly clients: number;
  readonly seconds: number;
  /** Seed of what each client does. */
  readonly seed: number;
}

/** What happened. */
export interface CrowdResult {
  /** How often clients did what. */
  readonly did: Record<string, number>;
  /** How often each status was answered. */
  readonly statuses: Record<string, number>;
  /** Memory of the server in bytes, once a second. */
  readonly memory: readonly number[];
  /** Share of event-loop delays up to 20 ms. */
  readonly inTime: number;
  readonly tokPerSec: number;
}

const QUESTIONS = 16;
const GARBAGE = [
  "GARBAGE\r\n\r\n",
  "\x16\x03\x01\x02\x00",
  "GET / HTTP/9.9\r\n\r\n",
  "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: -1\r\n\r\n",
];

/** The body of question `i`: the lengths of question and answer differ, so that requests join and leave at all times. */
function question(i: number): object {
  return {
    messages: [{ role: "user", content: `Question ${i}: ${"why? ".repeat(1 + (7 * i) % 23)}` }],
    ...{ seed: i, max_tokens: 16 + (13 * i) % 80, stream: true },
  };
}

/** Lets the crowd in; throws where an answer is lost, mixed or cut, or the server fails. */
export async function letIn({ url, clients, seconds, seed }: Crowd): Promise<CrowdResult> {
  const alone: string[] = [];
  for (let i = 0; i < QUESTIONS; i++) alone.push(await wholeAnswer(url, i));
  const did: Record<string, number> = {};
  const statuses: Record<string, number> = {};
  const endMs = performance.now() + seconds * 1000;
  const before = await readFigures(url);
  const client = async (number: number) => {
    const random = new TestRandom(seed + number);
    while (performance.now() < endMs) {
      const i = random.below(QUESTIONS);
      const [name, act] = random.pick(ACTS);
      did[name] = (did[name] ?? 0) + 1;
      const status = await act({ url, i, expected: alone[i], random });
      if (status !== undefined) statuses[status] = (statuses[status] ?? 0) + 1;
    }
  };
  const memory: number[] = [];
  const watch = async () => {
    while (performance.now() < endMs) {
      memory.push((await readFigures(url)).get("process_resident_memory_bytes")!);
      await delay(1000);
    }
  };
  await Promise.all([watch(), ...Array.from({ length: clients }, (_, number) => client(number))]);
  const failures = Object.keys(statuses).filter((status) => Number(status) >= 500);
  assertEquals(failures, [], JSON.stringify(statuses));
  const after = await atRest(url);
  const count = (name: string) => after.get(name)! - before.get(name)!;
  const delays = "nanochat_event_loop_delay_seconds";
  return {
    ...{ did, statuses, memory },
    inTime: count(`${delays}_bucket{le="0.02"}`) / count(`${delays}_count`),
    tokPerSec: count("nanochat_generated_tokens_total") / seconds,
  };
}

/** Reads answer `i` to its end. */
async function wholeAnswer(url: string, i: number): Promise<string> {
  const response = await askChat(url, question(i));
  assertEquals(response.status, 200);
  const { text, isWhole } = await readStream(response);
  assert(isWhole, `answer ${i} was cut off`);
  return text;
}

interface Turn {
  readonly url: string;
  readonly i: number;
  /** The answer to question i. */
  readonly expected: string;
  readonly random: TestRandom;
}

/** What a client may do; gives the status that it was answered, where it waited for one. */
type Act = (turn: Turn) => Promise<number | undefined>;

const reads: Act = async ({ url, i, expected }) => {
  assertEquals(await wholeAnswer(url, i), expected, `answer ${i} beside others`);
  return 200;
};

const readsWhole: Act = async ({ url, i, expected }) => {
  const response = await askChat(url, { ...question(i), stream: false });
  const { choices } = await response.json();
  assertEquals(choices[0].message.content, expected, `answer ${i}, not as a stream`);
  return response.status;
};

const readsSlowly: Act = async ({ url, i, expected, random }) => {
  const response = await askChat(url, question(i));
  const slow = response.body!.pipeThrough(
    new TransformStream({
      transform: async (part, controller) => {
        await delay(random.below(20));
        controller.enqueue(part);
      },
    }),
  );
  const { text, isWhole } = await readStream(new Response(slow));
  assertEquals([text, isWhole], [expected, true], `answer ${i}, read slowly`);
  return response.status;
};

const leaves: Act = async ({ url, i, random }) => {
  const leave = new AbortController();
  const response = await askChat(url, question(i), { signal: leave.signal });
  const reader = response.body!.getReader();
  for (let parts = random.below(5); parts > 0; parts--) await reader.read();
  leave.abort();
  return response.status;
};

const breaksOff: Act = async ({ url }) => {
  const { hostname, port } = new URL(url);
  using connection = await Deno.connect({ hostname, port: Number(port) });
  const head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  await connection.write(new TextEncoder().encode(`${head}Content-Length: 100\r\n\r\n{"messages": [`));
  return undefined;
};

const sendsGarbage: Act = async ({ url, random }) => {
  if (random.below(2) === 0) {
    await exchangeBytes(url, random.pick(GARBAGE)).catch(() => {});
    return undefined;
  }
  const response = await askChat(
    url,
    random.pick<object>([{ messages: 5 }, { seed: "x" }, { model: "\x1b" }, { n: 1e9 }]),
  );
  await response.body?.cancel();
  assert(response.status >= 400, "garbage is refused");
  return response.status;
};

const ACTS: readonly (readonly [string, Act])[] = [
  ...Array.from({ length: 6 }, () => ["reads", reads] as const),
  ["reads whole", readsWhole],
  ["reads slowly", readsSlowly],
  ["leaves", leaves],
  ["leaves", leaves],
  ["breaks off", breaksOff],
  ["sends garbage", sendsGarbage],
];

/** Counts the tokens a second that so many clients get from the server, each one answer behind the other. */
export async function throughput(
  url: string,
  { clients, seconds }: { clients: number; seconds: number },
): Promise<number> {
  const generated = async () => (await readFigures(url)).get("nanochat_generated_tokens_total")!;
  const [startMs, before] = [performance.now(), await generated()];
  const client = async (seed: number) => {
    while (performance.now() - startMs < seconds * 1000) {
      const response = await askChat(url, { seed, max_tokens: 128, stream: true });
      await readStream(response);
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, i) => client(i)));
  return (await generated() - before) * 1000 / (performance.now() - startMs);
}

/** Reads `GET /metrics`. */
export async function readFigures(url: string): Promise<Map<string, number>> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const lines = text.trimEnd().split("\n").filter((line) => !line.startsWith("#"));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ")))]),
  );
}

/** Waits until no row generates and nobody waits: whoever left has freed what it had. */
async function atRest(url: string): Promise<Map<string, number>> {
  for (let tries = 0; tries < 100; tries++) {
    const figures = await readFigures(url);
    if (figures.get("nanochat_active_rows") === 0 && figures.get("nanochat_queued_requests") === 0) return figures;
    await delay(100);
  }
  throw new Error("Rows still generate 10 s after the last client left");
}
