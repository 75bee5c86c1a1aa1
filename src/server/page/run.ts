/** One answer on its way: streams it into the turn, tries again where the server is busy, asks for the key, measures the speed. */
import { addPiece, type Answer } from "./chat.ts";
import { type AnswerRequest, Problem, type Server } from "./stream.ts";

const MOST_TRIES = 6;
const RETRY_SEC = 5;
/** A speed over less time than this says nothing. */
const LEAST_SEC = 0.1;

/** What a run tells the page. */
export interface RunListener {
  /** The answer grew. */
  grew(): void;
  /** The server is busy: the run waits this long before it asks again; 0 = it asks now. */
  waits(seconds: number): void;
  /** Asks for the API key. Returns whether there is another one now. */
  needsKey(): Promise<boolean>;
  /** What the server said of the context. */
  context(contextLen: number): void;
}

/** An answer that is being made. */
export class Run {
  readonly answer: Answer;
  readonly #server: Server;
  readonly #request: AnswerRequest;
  readonly #listener: RunListener;
  readonly #controller = new AbortController();
  #wake: (() => void) | undefined;
  #firstMs = 0;
  #lastMs = 0;
  #pieces = 0;

  /** Prepares a run; `finish` makes it. */
  constructor(
    answer: Answer,
    { server, request, listener }: { server: Server; request: AnswerRequest; listener: RunListener },
  ) {
    this.answer = answer;
    this.#server = server;
    this.#request = request;
    this.#listener = listener;
  }

  /** Ends the answer where it is. */
  stop(): void {
    this.#controller.abort();
    this.#wake?.();
  }

  /** Does not wait any longer before it asks again. */
  retryNow(): void {
    this.#wake?.();
  }

  /** Tokens a second so far; undefined before there are two. */
  get tokPerSec(): number | undefined {
    const tokens = this.answer.completionTokens ?? this.answer.tokens?.length ?? this.#pieces;
    const seconds = (this.#lastMs - this.#firstMs) / 1000;
    return tokens > 1 && seconds > LEAST_SEC ? (tokens - 1) / seconds : undefined;
  }

  /** Tokens of the answer so far: exact at its end, a guess before. */
  get tokens(): number {
    return this.answer.completionTokens ?? this.answer.tokens?.length ?? this.#pieces;
  }

  /** Makes the answer; its `end` says how it went. Returns what went wrong. */
  async finish(): Promise<Problem | undefined> {
    for (let attempt = 1;; attempt++) {
      const problem = await this.#stream();
      if (this.#controller.signal.aborted) {
        this.answer.end = "stopped";
        return undefined;
      }
      if (problem === undefined) return undefined;
      if (problem.kind === "busy" && attempt < MOST_TRIES) await this.#pause(problem.retryAfterSec ?? RETRY_SEC);
      else if (problem.kind !== "key" || !await this.#listener.needsKey()) {
        this.answer.end = "failed";
        return problem;
      }
      if (this.#controller.signal.aborted) {
        this.answer.end = "stopped";
        return undefined;
      }
    }
  }

  async #stream(): Promise<Problem | undefined> {
    try {
      for await (const event of this.#server.answer(this.#request, this.#controller.signal)) this.#take(event);
    } catch (error) {
      if (error instanceof Problem) return error;
      throw error;
    } finally {
      if (this.tokPerSec !== undefined) this.answer.tokPerSec = this.tokPerSec;
    }
    if (this.answer.end === "running") this.answer.end = "stop";
  }

  #take(event: Awaited<ReturnType<ReturnType<Server["answer"]>["next"]>>["value"]): void {
    const { answer } = this;
    switch (event?.type) {
      case "piece":
        this.#lastMs = performance.now();
        if (this.#pieces++ === 0) this.#firstMs = this.#lastMs;
        addPiece(answer, event.part);
        break;
      case "tokens":
        (answer.tokens ??= []).push(...event.tokens);
        break;
      case "context":
        if (event.droppedMessages > 0) answer.droppedMessages = event.droppedMessages;
        if (event.promptTokens !== undefined) answer.promptTokens = event.promptTokens;
        if (event.contextLen !== undefined) this.#listener.context(event.contextLen);
        break;
      case "usage":
        answer.promptTokens = event.promptTokens;
        answer.completionTokens = event.completionTokens;
        break;
      case "end":
        answer.end = event.reason;
    }
    this.#listener.grew();
  }

  /** Waits, second by second, until the time is over or somebody does not want to wait. */
  async #pause(seconds: number): Promise<void> {
    const until = performance.now() + seconds * 1000;
    let isOver = false;
    while (!isOver) {
      const left = Math.ceil((until - performance.now()) / 1000);
      if (left <= 0) break;
      this.#listener.waits(left);
      const woken = Promise.withResolvers<void>();
      this.#wake = () => {
        isOver = true;
        woken.resolve();
      };
      const timer = setTimeout(woken.resolve, Math.min(1000, until - performance.now()));
      await woken.promise;
      clearTimeout(timer);
    }
    this.#wake = undefined;
    this.#listener.waits(0);
  }
}
