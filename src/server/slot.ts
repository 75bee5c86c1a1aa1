/**
 * A place in memory for one model: a worker thread, the model that it holds, and the jobs that run there.
 *
 * The thread is started once and given other models later, so that the single file opens no file of its program while it serves. One
 * that crashes is replaced at the next job.
 */
import type { ChosenModel } from "../model/models.ts";
import { workerUrl } from "../native/installation.ts";
import { type GenerationEvent, ServiceError } from "./models.ts";
import type { FromWorker, RunOptions, ToWorker } from "./protocol.ts";

/** Something that a model does for a client. */
export interface Job {
  /** Its number in messages. */
  readonly id: number;
  /** What the worker is told. */
  readonly message: ToWorker;
  /** Answers that have not ended; 0 where it asks for none. */
  readonly rows: number;
  /** Takes events of a generation. */
  take?(events: readonly GenerationEvent[]): void;
  /** Takes the result of a call. */
  settle?(value: string | readonly number[]): void;
  /** Ends it with an error. */
  fail(error: ServiceError): void;
}

/** What the pool needs of a thread. */
export type Thread = Pick<Worker, "postMessage" | "terminate" | "addEventListener">;

/** Starts the thread of a model. */
export function startThread(): Thread {
  return new Worker(workerUrl(), { type: "module", name: "model" });
}

/** A worker and its model. */
export class Slot {
  readonly #options: RunOptions;
  readonly #start: () => Thread;
  readonly #stepped: (tokens: number) => void;
  readonly #jobs = new Map<number, Job>();
  #thread: Thread | null = null;
  #closed = Promise.withResolvers<void>();
  /** Rows of the model; 0 while it is loading. */
  #rows = 0;
  /** Id of the model that it holds or is loading. */
  modelId: string | null = null;
  /** When it was given its last job, on the clock of `performance`. */
  lastUsed = 0;

  /** Starts the thread; `stepped` hears of the tokens of each step. */
  constructor(options: RunOptions, hooks: { start: () => Thread; stepped: (tokens: number) => void }) {
    this.#options = options;
    this.#start = hooks.start;
    this.#stepped = hooks.stepped;
    this.#thread = this.#run();
  }

  /** Number of the device that computes. */
  get device(): number {
    return this.#options.index ?? 0;
  }

  get rows(): number {
    return this.#rows;
  }

  /** Whether its model is in memory. */
  get isLoaded(): boolean {
    return this.#rows > 0;
  }

  get isIdle(): boolean {
    return this.#jobs.size === 0;
  }

  /** Answers that have not ended, in rows or waiting for one. */
  get wanted(): number {
    return this.#jobs.values().reduce((sum, { rows }) => sum + rows, 0);
  }

  /** Gives it a model instead of the one before. */
  open(modelId: string, chosen: ChosenModel): void {
    this.#rows = 0;
    this.modelId = modelId;
    this.#post({ type: "open", chosen, options: this.#options });
  }

  /** Gives its model a job. */
  add(job: Job): void {
    this.lastUsed = performance.now();
    this.#jobs.set(job.id, job);
    this.#post(job.message);
  }

  /** Forgets a job; where the worker may still be at it, its rows are free from the next step on. */
  remove(id: number): void {
    if (this.#jobs.delete(id) && this.modelId !== null) this.#post({ type: "cancel", id });
  }

  /** Frees the model and ends the thread, which is given some time for it. */
  async close(graceMs: number): Promise<void> {
    if (this.#thread === null) return;
    const thread = this.#thread;
    this.#post({ type: "close" });
    const timer = setTimeout(() => this.#closed.resolve(), graceMs);
    await this.#closed.promise;
    clearTimeout(timer);
    thread.terminate();
    this.#thread = null;
  }

  #post(message: ToWorker): void {
    this.#thread ??= this.#run();
    this.#thread.postMessage(message);
  }

  #run(): Thread {
    const thread = this.#start();
    thread.addEventListener("message", (event) => this.#hear((event as MessageEvent<FromWorker>).data));
    thread.addEventListener("error", (event) => {
      event.preventDefault(); // else the error would end this thread too
      this.#thread = null;
      this.#closed.resolve();
      this.#fail(`Cannot answer: the worker crashed, ${(event as ErrorEvent).message}`);
    });
    return thread;
  }

  #hear(told: FromWorker): void {
    switch (told.type) {
      case "opened":
        this.#rows = told.rows;
        break;
      case "step":
        this.#stepped(told.tokens);
        for (const [id, events] of told.events) this.#jobs.get(id)?.take?.(events);
        break;
      case "result":
        this.#jobs.get(told.id)?.settle?.(told.value);
        break;
      case "refused":
        this.#jobs.get(told.id)?.fail(new ServiceError(told.code, told.message));
        break;
      case "failed":
        this.#fail(told.message);
        break;
      case "closed":
        this.#closed.resolve();
    }
  }

  #fail(why: string): void {
    this.#rows = 0;
    this.modelId = null;
    for (const job of [...this.#jobs.values()]) job.fail(new ServiceError("failed", why));
  }
}
