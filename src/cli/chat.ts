/**
 * `nanochat chat`: a conversation in the terminal. Answers go to stdout, everything else to stderr; what a model or a server says is shown
 * with its control characters as symbols. Ctrl-C stops the answer, not the program.
 */
import { dim } from "@std/fmt/colors";
import type { Piece } from "../engine/answer.ts";
import { type ChatOptions, isCommand, runCommand } from "./chat_commands.ts";
import { Interrupted, readMessage, type Typed } from "./chat_input.ts";
import { ChatError } from "./chat_partner.ts";
import { UsageError } from "./flags.ts";
import { printable } from "./printable.ts";
import type { Terminal } from "./progress.ts";
import { EXIT } from "./signals.ts";

/** Gives one answer and returns the exit code. @throws {ChatError} where there is none. */
export async function answerOnce(text: string, { conversation, terminal, input }: ChatOptions): Promise<number> {
  using interrupt = input.interruptible();
  await show(conversation.ask(text, interrupt.signal), { conversation, terminal });
  return interrupt.signal.aborted ? EXIT.STOPPED_AT_ONCE : EXIT.DONE;
}

/**
 * Talks until the input ends, and returns the exit code. What cannot be done is said, and the conversation goes on; where nobody types, the
 * exit code tells of it.
 */
export async function chatLoop(options: ChatOptions): Promise<number> {
  const { terminal, input } = options;
  let isLeaving = false; // one Ctrl-C was pressed
  let hasFailed = false;
  for (;;) {
    let typed: Typed | null;
    try {
      typed = await readMessage(input);
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      if (isLeaving) return EXIT.STOPPED_AT_ONCE;
      isLeaving = true;
      terminal.info('Press Ctrl-C again, or type "quit", to leave');
      continue;
    }
    isLeaving = false;
    try {
      if (typed === null || await respond(typed, options) === "end") break;
    } catch (error) {
      if (error instanceof Interrupted) continue;
      if (!(error instanceof ChatError || error instanceof UsageError)) throw error;
      hasFailed = true;
      terminal.error(error.message, error.stack);
    }
  }
  return hasFailed && !input.isTerminal ? EXIT.FAILED : EXIT.DONE;
}

/** Runs a command or answers. */
async function respond({ text, mayBeCommand }: Typed, options: ChatOptions): Promise<"line" | "end"> {
  const { conversation } = options;
  if (text.trim() === "") return "line";
  if (!mayBeCommand || !isCommand(text)) {
    await answer((signal) => conversation.ask(text, signal), options);
    return "line";
  }
  const next = await runCommand(text, options);
  if (next === "answer") await answer((signal) => conversation.retry(signal), options);
  return next === "end" ? "end" : "line";
}

async function answer(
  pieces: (signal: AbortSignal) => AsyncIterable<Piece>,
  { conversation, terminal, input }: ChatOptions,
): Promise<void> {
  using interrupt = input.interruptible();
  const droppedBefore = conversation.last?.droppedMessages ?? 0;
  try {
    await show(pieces(interrupt.signal), { conversation, terminal });
  } catch (error) {
    if (!(error instanceof ChatError)) throw error;
    const kept = conversation.unanswered === undefined ? "the answer before stays" : "your question is kept";
    throw new ChatError(`${error.message}\n(${kept}; /retry asks again)`, { cause: error });
  }
  if (interrupt.signal.aborted) {
    const isKept = conversation.unanswered === undefined;
    return terminal.info(
      isKept ? "Stopped; what was answered stays in the conversation" : "Stopped; /retry asks again",
    );
  }
  const { isCut, droppedMessages = 0, answerTokens } = conversation.last ?? {};
  if (isCut) {
    terminal.info(`The answer was cut at ${answerTokens === undefined ? "its limit" : `${answerTokens} tokens`}`);
  }
  if (droppedMessages > droppedBefore) {
    terminal.info(`The context is full: the model no longer sees the oldest ${droppedMessages} messages`);
  }
}

/** Writes an answer while it comes; with `--json`, as one object when it is whole. */
async function show(
  pieces: AsyncIterable<Piece>,
  { conversation, terminal }: Pick<ChatOptions, "conversation" | "terminal">,
): Promise<void> {
  const writer = new AnswerWriter(terminal);
  try {
    for await (const piece of pieces) writer.write(piece);
  } finally {
    writer.end();
    if (!terminal.json && writer.shown !== "") terminal.raw("\n");
  }
  if (terminal.json) {
    terminal.result(writer.shown, { answer: writer.shown, content: conversation.messages.at(-1)!.content });
  } else if (writer.shown === "") terminal.raw("\n");
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
