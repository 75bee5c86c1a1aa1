/**
 * A model behind an OpenAI-compatible server as the partner of a chat: `GET /models`, `POST /chat/completions` as a stream. Settings that
 * nobody chose are not sent, so that the server's own hold.
 */
import type { Message } from "../data/conversation.ts";
import { type AnswerOptions, ChatError, type ChatPartner, type Heard } from "./chat_partner.ts";
import { AnswerChunks } from "./answer_chunks.ts";
import { readEvents } from "./event_reader.ts";
import { nearest } from "./parse.ts";
import { exchange, parseJson, readText, type Server } from "./server_connection.ts";

const MAX_BODY_BYTES = 8 * 1024 * 1024;

/** A model as a server lists it. */
interface Listed {
  readonly id: string;
  /** True for a server of this program, which knows the parts of messages. */
  readonly isOurs: boolean;
  readonly completes: boolean;
}

/** Answers with the models of a server. */
export class RemotePartner implements ChatPartner {
  readonly #server: Server;
  #model: Listed = { id: "", isOurs: false, completes: false };

  private constructor(server: Server) {
    this.#server = server;
  }

  /**
   * Asks a server for its models and chooses one, the first where none is named.
   *
   * @throws {ChatError} where the server cannot be reached, refuses, or has no such model.
   */
  static async connect(server: Server, { model }: { model?: string } = {}): Promise<RemotePartner> {
    const partner = new RemotePartner(server);
    await partner.#choose(model);
    return partner;
  }

  get model(): string {
    return this.#model.id;
  }

  get completes(): boolean {
    return this.#model.completes;
  }

  async models(): Promise<readonly string[]> {
    return (await this.#list()).map(({ id }) => id);
  }

  async use(model: string): Promise<void> {
    await this.#choose(model);
  }

  async #choose(wanted: string | undefined): Promise<void> {
    const models = await this.#list();
    const model = wanted === undefined ? models[0] : models.find(({ id }) => id === wanted);
    if (model === undefined) {
      const names = models.map(({ id }) => id);
      const near = names.length > 8 ? nearest(wanted ?? "", names) : `, expected one of ${names.join(", ")}`;
      const is = names.length === 0 ? "it lists no model, expected at least one" : `it does not list it${near}`;
      throw new ChatError(
        `Cannot use ${wanted === undefined ? "" : `model "${wanted}" of `}"${this.#server.url}": ${is}`,
      );
    }
    this.#model = model;
  }

  async #list(): Promise<readonly Listed[]> {
    const read = async function* (response: Response) {
      yield parseJson(await readText(response, MAX_BODY_BYTES)) as { data?: unknown } | null | undefined;
    };
    for await (const list of exchange(this.#server, { path: "/models", read })) {
      if (Array.isArray(list?.data)) return list.data.flatMap(describe);
    }
    throw new ChatError(`Cannot list the models of "${this.#server.url}": it sent no list; is the address right?`);
  }

  answer(messages: readonly Message[], { settings, signal }: AnswerOptions): AsyncIterable<Heard> {
    const { temperature, topK: top_k, topP: top_p, maxTokens: max_tokens, seed } = settings;
    const body = {
      ...{ model: this.#model.id, messages: this.#model.isOurs ? messages : messages.map(plainMessage) },
      stream: true,
      stream_options: { include_usage: true },
      ...{ temperature, top_k, top_p, max_tokens, seed },
    };
    return exchange(this.#server, { path: "/chat/completions", body, signal, read: readAnswer });
  }
}

function describe(row: { id?: unknown; owned_by?: unknown; nanochat?: { completes?: unknown } } | null): Listed[] {
  const { id, owned_by, nanochat } = row ?? {};
  if (typeof id !== "string") return [];
  return [{ id, isOurs: owned_by === "nanochat", completes: nanochat?.completes === true }];
}

/** Other servers know no parts: a tool call is shown to them as it is shown to the user. */
function plainMessage({ role, content }: Message) {
  const text = typeof content === "string"
    ? content
    : content.map(({ type, text }) => type === "text" ? text : type === "python" ? `[${text}` : ` = ${text}]`).join("");
  return { role, content: text };
}

async function* readAnswer(response: Response, onProgress: () => void): AsyncGenerator<Heard, void, void> {
  const kind = response.headers.get("content-type") ?? "";
  const chunks = new AnswerChunks();
  if (/^application\/json\b/.test(kind)) { // a server that does not stream
    yield* chunks.push(await readText(response, MAX_BODY_BYTES));
    yield* chunks.end();
    return;
  }
  if (!/^text\/event-stream\b/.test(kind) || response.body === null) {
    throw new ChatError(`Cannot read the answer: it is of type "${kind}", expected text/event-stream`);
  }
  for await (const data of readEvents(response.body)) {
    onProgress();
    yield* chunks.push(data);
    if (data === "[DONE]") break;
  }
  yield* chunks.end();
}
