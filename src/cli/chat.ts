/**
 * `nanochat chat`: a conversation in the terminal. Answers go to stdout, everything else to stderr; what a model says is shown with its
 * control characters as symbols. Ctrl-C stops the answer, not the program.
 */
import { dim } from "@std/fmt/colors";
import { format as formatDuration } from "@std/fmt/duration";
import type { Piece } from "../engine/answer.ts";
import type { Conversation } from "./conversation.ts";
import { printable } from "./printable.ts";
import type { Terminal } from "./progress.ts";
import { EXIT } from "./signals.ts";

/** Where a chat reads and what can interrupt it. */
export interface ChatInput {
  /** Reads a line; null at the end of the input. A Ctrl-C while it waits rejects with an Interrupted. */
  readLine(prompt: string): Promise<string | null>;
  /** Returns a signal that the next Ctrl-C aborts, until it is disposed. */
  interruptible(): { readonly signal: AbortSignal } & Disposable;
}

/** Ctrl-C while a line was awaited. */
export class Interrupted extends Error {}

const HELP = `/help          this text
/clear         forgets the conversation (also: clear)
/save [FILE]   writes it as a line of JSON, as training data has it, or as text into a .txt or .md file
/stats         what is in the context, and how fast the last answer was
quit, exit     leaves (also: /quit, Ctrl-D); Ctrl-C stops an answer`;

/** What a chat works with. */
export interface ChatOptions {
  readonly conversation: Conversation;
  readonly terminal: Terminal;
  readonly input: ChatInput;
}

/** Gives one answer and returns the exit code. */
export async function answerOnce(text: string, { conversation, terminal, input }: ChatOptions): Promise<number> {
  using interrupt = input.interruptible();
  const writer = new AnswerWriter(terminal);
  for await (const piece of conversation.ask(text, interrupt.signal)) writer.write(piece);
  writer.end();
  if (terminal.json) {
    terminal.result(writer.shown, { answer: writer.shown, content: conversation.messages.at(-1)!.content });
  } else terminal.raw("\n");
  return interrupt.signal.aborted ? EXIT.STOPPED_AT_ONCE : EXIT.DONE;
}

/** Talks until the input ends, and returns the exit code. */
export async function chatLoop({ conversation, terminal, input }: ChatOptions): Promise<number> {
  let interrupted = false;
  for (;;) {
    let line: string | null;
    try {
      line = await input.readLine("> ");
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      if (interrupted) return EXIT.STOPPED_AT_ONCE;
      interrupted = true;
      terminal.info('Press Ctrl-C again, or type "quit", to leave');
      continue;
    }
    interrupted = false;
    const text = line?.trim();
    if (text === undefined || ["quit", "exit", "/quit", "/exit"].includes(text)) return EXIT.DONE;
    if (text === "") continue;
    if (text === "clear" || text.startsWith("/")) {
      await command(text, { conversation, terminal, input });
      continue;
    }
    try {
      await answer(text, { conversation, terminal, input });
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      terminal.error(error.message, error.stack); // the text is too long; the conversation goes on
    }
  }
}

async function answer(text: string, { conversation, terminal, input }: ChatOptions): Promise<void> {
  using interrupt = input.interruptible();
  const { droppedTurns } = conversation.stats;
  const writer = new AnswerWriter(terminal);
  for await (const piece of conversation.ask(text, interrupt.signal)) writer.write(piece);
  writer.end();
  terminal.raw("\n");
  if (interrupt.signal.aborted) terminal.info("Stopped; what was answered stays in the conversation");
  const dropped = conversation.stats.droppedTurns - droppedTurns;
  if (dropped > 0) {
    terminal.info(
      `The context is full: the ${dropped === 1 ? "oldest turn was" : `oldest ${dropped} turns were`} dropped`,
    );
  }
}

/** Writes an answer as it is shown: a tool call and its result as [6*7 = 42], dimmed. */
class AnswerWriter {
  readonly #terminal: Terminal;
  #kind: Piece["kind"] = "text";
  /** Everything that was shown so far. */
  shown = "";

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  write({ kind, text }: Piece): void {
    const opening = this.#kind === "text" ? "[" : "";
    const closing = kind === "python_output"
      ? " = "
      : kind === "python"
      ? "]["
      : /^[\p{L}\p{N}]/u.test(text)
      ? "] "
      : "]";
    const border = kind === this.#kind ? "" : opening || closing;
    const isTool = kind !== "text" || this.#kind !== "text";
    this.#kind = kind;
    if (border) this.#put(border, isTool);
    this.#put(text, kind !== "text");
  }

  end(): void {
    if (this.#kind !== "text") this.#put("]", true);
  }

  #put(text: string, isTool: boolean): void {
    this.shown += text;
    const safe = printable(text);
    if (!this.#terminal.json) this.#terminal.raw(isTool ? dim(safe) : safe);
  }
}

async function command(line: string, { conversation, terminal, input }: ChatOptions): Promise<void> {
  const [name, ...rest] = line.split(/\s+/);
  switch (name) {
    case "/help":
      return terminal.info(HELP);
    case "clear":
    case "/clear":
      conversation.clear();
      return terminal.info("Forgotten");
    case "/stats":
      return terminal.info(statsText(conversation));
    case "/save":
      return await save(line.slice(name.length).trim(), { conversation, terminal, input });
    default:
      terminal.warn(`There is no command "${[name, ...rest].join(" ")}"; /help lists them`);
  }
}

function statsText({ stats }: Conversation): string {
  const { turns, contextTokens, contextLen, droppedTurns, answerTokens, lastTokens, lastFirstMs, lastTokPerSec } =
    stats;
  const lines = [
    `${turns} ${
      turns === 1 ? "turn" : "turns"
    }, ${droppedTurns} of them dropped; ${contextTokens} of ${contextLen} tokens of the context used`,
    `${answerTokens} tokens answered`,
  ];
  if (lastTokens > 0) {
    const first = formatDuration(Math.round(lastFirstMs), { ignoreZero: true }) || "0ms";
    lines.push(
      `last answer: ${lastTokens} tokens, the first after ${first}, then ${lastTokPerSec.toFixed(1)} tokens per second`,
    );
  }
  return lines.join("\n");
}

/** Writes the conversation; asks before a file is replaced. */
async function save(given: string, { conversation, terminal, input }: ChatOptions): Promise<void> {
  const path = given || "chat.jsonl";
  if (conversation.messages.length === 0) return terminal.warn("Nothing was said yet, so nothing was saved");
  const text = /\.(txt|md)$/.test(path) ? plainText(conversation) : `${JSON.stringify(conversation.messages)}\n`;
  try {
    Deno.writeTextFileSync(path, text, { createNew: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) {
      return terminal.error(`Cannot save "${path}": ${(error as Error).message}`);
    }
    const agreed = await input.readLine(`"${printable(path, { oneLine: true })}" exists. Replace it? [y/N] `);
    if (!/^y(es)?$/i.test(agreed?.trim() ?? "")) return terminal.info("Not saved");
    Deno.writeTextFileSync(path, text);
  }
  terminal.info(`Saved to "${path}"`);
}

function plainText({ messages }: Conversation): string {
  return messages.map(({ role, content }) => {
    const text = typeof content === "string" ? content : content.map((part) => part.text).join("");
    return `${role === "user" ? "> " : ""}${text}\n`;
  }).join("\n");
}
