/**
 * Makes conversations about a persona by asking a model behind an OpenAI-compatible server (`POST <url>/chat/completions`).
 *
 * The output is the format of customjson.ts. A row is appended in one piece as soon as it is there, so a run can be stopped at any time
 * and goes on later; beside the file stands which persona it is of. The key goes into one request header and nowhere else.
 */
import { FORMATS } from "../src/data/formats.ts";
import { Random } from "../src/data/random.ts";
import type { Message } from "../src/data/conversation.ts";
import type { Log } from "../src/data/log.ts";
import { SILENT } from "../src/data/log.ts";
import { parseJson, readJsonLines } from "../src/data/text_file.ts";
import { WaitLock } from "../src/data/wait_lock.ts";
import { type ChatEndpoint, RefusedAnswer, requestChat } from "./chat_request.ts";
import { checkMessages } from "./messages.ts";
import { OPENINGS } from "./synth_openings.ts";

/** Options of `synthesize`. */
export interface SynthOptions {
  /** Text about who the model is to be: the facts that its conversations may use. */
  readonly persona: string;
  /** Server and model that write the conversations. */
  readonly endpoint: ChatEndpoint;
  /** JSON lines to append to; rows that are there count. */
  readonly out: string;
  /** Rows that the file has at the end. */
  readonly count: number;
  /** Requests at a time; default 4. */
  readonly numWorkers?: number;
  /** Sampling temperature; default 1. */
  readonly temperature?: number;
  /** Stops after the requests in flight. */
  readonly signal?: AbortSignal;
  readonly log?: Log;
}

/** What a run did. */
export interface SynthResult {
  /** Rows in the file. */
  readonly conversations: number;
  /** Rows that this run added. */
  readonly made: number;
  /** Answers that were no conversation and were left out. */
  readonly failed: number;
}

/** Bad answers in a row after which the model is given up. */
const MAX_FAILED_IN_A_ROW = 20;
const OPENINGS_A_PROMPT = 5;

/** Shape that the server is told to keep the answer to. */
const SCHEMA = {
  type: "object",
  properties: {
    messages: {
      type: "array",
      items: {
        type: "object",
        properties: { role: { type: "string", enum: ["user", "assistant"] }, content: { type: "string" } },
        required: ["role", "content"],
        additionalProperties: false,
      },
    },
  },
  required: ["messages"],
  additionalProperties: false,
};

/**
 * Appends conversations until the file has `count`.
 *
 * @throws {Error} where the file is of another persona or malformed, the server refuses, or no answer in a row of many can be used.
 */
export async function synthesize(options: SynthOptions): Promise<SynthResult> {
  const { persona, endpoint, out, count, numWorkers = 4, temperature = 1, signal, log = SILENT } = options;
  if (!/^https?:\/\//.test(endpoint.url) || !URL.canParse(endpoint.url)) {
    throw new RangeError(`Cannot make conversations: the url is "${endpoint.url}", expected http:// or https://`);
  }
  if (persona.trim() === "") throw new RangeError("Cannot make conversations: the persona is empty, expected a text");
  using _lock = await WaitLock.acquire(`${out}.lock`, { what: `append to "${out}"`, log });
  await checkPersona(out, persona);
  const before = await countRows(out, log);
  using file = Deno.openSync(out, { append: true, create: true });
  let [made, failed, failedInARow, inFlight, next] = [0, 0, 0, 0, before];
  const controller = new AbortController(); // one worker's fatal error stops the others
  const show = () => {
    const detail = failed > 0 ? `${failed} answers left out` : undefined;
    log.progress({ label: "Making conversations", done: before + made, total: count, detail });
  };
  const work = async (): Promise<void> => {
    while (before + made + inFlight < count && !signal?.aborted && !controller.signal.aborted) {
      inFlight++;
      const index = next++;
      try {
        const prompt = promptFor(persona, index);
        const content = await requestChat(endpoint, {
          prompt,
          temperature,
          schema: SCHEMA,
          log,
          signal: controller.signal,
        });
        appendRow(file, parseAnswer(content, index));
        made++;
        failedInARow = 0;
      } catch (error) {
        if (!(error instanceof RefusedAnswer || error instanceof SyntaxError)) throw error;
        failed++;
        log.warn(`Conversation ${index} is left out: ${error.message}`);
        if (++failedInARow >= MAX_FAILED_IN_A_ROW) {
          throw new Error(
            `Cannot make conversations: ${failedInARow} answers in a row could not be used, expected conversations of ` +
              `"${endpoint.model}"; the last: ${error.message}`,
            { cause: error },
          );
        }
      } finally {
        inFlight--;
      }
      show();
    }
  };
  const guarded = () =>
    work().catch((error) => {
      controller.abort(error);
      throw error;
    });
  const ends = await Promise.allSettled(Array.from({ length: Math.max(1, numWorkers) }, guarded));
  file.syncSync();
  const first = ends.find((end) => end.status === "rejected");
  if (first) throw controller.signal.reason;
  show();
  return { conversations: before + made, made, failed };
}

/** Builds the request for conversation `index`: the persona, what is wanted, and openings drawn with Random(index). */
export function promptFor(persona: string, index: number): string {
  const random = new Random(index);
  const openings = Array.from({ length: OPENINGS_A_PROMPT }, () => `- ${random.choice(OPENINGS)}`);
  return `Below is a description of a chat assistant. Write one conversation between a user and this assistant.

<persona>
${persona.trim()}
</persona>

What the conversation must be like:
- The user speaks first, then both take turns; the assistant has the last word. Two to four turns each, no system message.
- The assistant speaks as the persona, in the first person. It uses only facts from the description and invents none; what it does not know, it says so.
- Answers are short and natural, in plain ASCII: no emoji, no special characters.
- Where the user writes in another language than English, the assistant may answer a little in it and says that it knows English best.
- Vary what is talked about: who it is, how it was made, what it can and cannot do, or just small talk that shows its character.

Begin with an opening of this kind; choose one or make up a similar one:
${openings.join("\n")}

Answer with JSON alone: {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}`;
}

function parseAnswer(content: string, index: number): Message[] {
  const where = `answer ${index}`;
  let value: unknown;
  try {
    value = parseJson(content);
  } catch (cause) {
    throw new SyntaxError(`Cannot read ${where}: ${(cause as Error).message}, expected JSON`, { cause });
  }
  const messages = checkMessages((value as { messages?: unknown } | null)?.messages, { where, system: false });
  const empty = messages.findIndex((message) => message.content === "");
  if (empty >= 0) throw new SyntaxError(`Cannot read ${where}: message ${empty} is empty, expected a text`);
  if (messages.length % 2 === 1) {
    throw new SyntaxError(`Cannot read ${where}: it ends with the user, expected the assistant`);
  }
  return messages;
}

/** Writes a row with its line end in one call: a crash leaves at most one torn line, at the end. */
function appendRow(file: Deno.FsFile, messages: readonly Message[]): void {
  const bytes = new TextEncoder().encode(`${JSON.stringify(messages)}\n`);
  for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
}

/** Counts the rows and checks them; what a crash left of a last line is cut off and said. */
async function countRows(out: string, log: Log): Promise<number> {
  let bytes: Uint8Array;
  try {
    bytes = Deno.readFileSync(out);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
  const end = bytes.lastIndexOf(0x0a) + 1;
  if (end < bytes.length) {
    log.warn(`The last line of "${out}" is torn (${bytes.length - end} bytes without a line end); it is made again`);
    Deno.truncateSync(out, end);
  }
  const rows = await readJsonLines(out);
  for (const { line, value } of rows) checkMessages(value, { where: `"${out}", line ${line}`, system: false });
  return rows.length;
}

/** Keeps conversations of two personas apart: the hash of the persona stands beside the file. */
async function checkPersona(out: string, persona: string): Promise<void> {
  const path = `${out}.persona`;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(persona))).toHex();
  const text = `${JSON.stringify({ ...FORMATS.persona, sha256: hash })}\n`;
  const read = (file: string) => {
    try {
      return Deno.readTextFileSync(file);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  };
  const known = read(path);
  if (known?.trim() === hash || known === text) return; // 0.1.0 wrote the hash alone
  if (known !== undefined || read(out)) {
    throw new Error(
      `Cannot append to "${out}": its conversations are not of this persona, expected another --out=FILE`,
    );
  }
  Deno.writeTextFileSync(path, text);
}
