/**
 * The thread of a model: opens the checkpoint that it is told to, then renders, tokenizes and generates until it is told to close.
 *
 * Messages are handled in order, each behind the one before, so that a request which was sent while the model was loading waits for it.
 * Whatever fails here ends the model, not the thread: the pool hears "failed", and may send "open" again.
 */
import { LoadedModel } from "../engine/load.ts";
import { openLibrary } from "../native/load.ts";
import { Device } from "../tensor/device.ts";
import { Generations } from "./generations.ts";
import { ServiceError } from "./models.ts";
import { GptPromptScorer } from "./prompt_scores.ts";
import type { FromWorker, ToWorker } from "./protocol.ts";

/** The side of a thread that its worker talks to. */
export interface WorkerScope {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: FromWorker): void;
  close(): void;
}

/** Serves the thread that runs this module. Its library is opened now, so that no file of the program is opened while it serves. */
export function serveThread(scope: WorkerScope): void {
  openLibrary("cpu");
  const worker = new ModelWorker(scope);
  scope.onmessage = ({ data }) => worker.receive(data);
}

/** A model in memory and what runs on it. */
interface Opened {
  readonly loaded: LoadedModel;
  readonly generations: Generations;
  readonly scorer: GptPromptScorer;
}

class ModelWorker {
  readonly #scope: WorkerScope;
  #opened: Opened | null = null;
  #handled: Promise<void> = Promise.resolve();

  constructor(scope: WorkerScope) {
    this.#scope = scope;
  }

  receive(message: ToWorker): void {
    this.#handled = this.#handled.then(() => this.#handle(message)).catch((error) => this.#fail(error));
  }

  async #handle(message: ToWorker): Promise<void> {
    if (message.type === "open") {
      await this.#close();
      this.#opened = await this.#open(message);
    } else if (message.type === "close") {
      await this.#close();
      this.#tell({ type: "closed" });
      this.#scope.close();
    } else if (message.type === "cancel") this.#opened?.generations.cancel(message.id);
    else this.#answer(message);
  }

  async #open({ chosen, options }: Extract<ToWorker, { type: "open" }>): Promise<Opened> {
    const loaded = await LoadedModel.load(chosen, { ...options, threads: options.threads || spareCores() });
    const { engine: { model }, tokenizer } = loaded;
    const rows = options.rows || model.suggestedRows;
    const { cacheRows = model.suggestedCacheRows } = options;
    const scorer = new GptPromptScorer(loaded.model);
    const completes = chosen.source === "base";
    const served = { model, tokenizer, vocabSize: tokenizer.vocabSize, scorer, completes };
    const generations = new Generations(served, { rows, cacheRows, tell: (told) => this.#heard(opened, told) });
    const opened = { loaded, generations, scorer };
    loaded.verified.catch((error) => this.#heard(opened, { type: "failed", message: error.message }));
    this.#tell({ type: "opened", rows });
    return opened;
  }

  #answer(message: Extract<ToWorker, { id: number; type: "generate" | "tokenize" | "detokenize" }>): void {
    const { id } = message;
    try {
      if (this.#opened === null) throw new ServiceError("failed", "Cannot answer: the model's worker failed meanwhile");
      const { loaded: { tokenizer }, generations } = this.#opened;
      if (message.type === "generate") generations.start(id, message.request);
      else if (message.type === "tokenize") this.#tell({ type: "result", id, value: tokenizer.encode(message.text) });
      else this.#tell({ type: "result", id, value: tokenizer.decode(message.ids) });
    } catch (error) {
      if (!(error instanceof ServiceError || error instanceof RangeError)) throw error;
      const code = error instanceof ServiceError ? error.code : "invalid_value";
      this.#tell({ type: "refused", id, code, message: error.message });
    }
  }

  /** Passes on what is heard of the model; a failure ends it, behind the message in hand. */
  #heard(opened: Opened, told: FromWorker): void {
    if (this.#opened !== null && this.#opened !== opened) return;
    if (told.type !== "failed") return this.#tell(told);
    this.#handled = this.#handled.then(() => {
      if (this.#opened === opened) return this.#fail(new Error(told.message));
    });
  }

  async #fail(error: Error): Promise<void> {
    await this.#close();
    this.#tell({ type: "failed", message: error.message });
  }

  async #close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = null;
    await opened?.generations[Symbol.asyncDispose]();
    opened?.scorer[Symbol.dispose]();
    opened?.loaded[Symbol.dispose]();
  }

  #tell(message: FromWorker): void {
    this.#scope.postMessage(message);
  }
}

/** Physical cores that the process may use, less one for the thread of HTTP. */
function spareCores(): number {
  using device = Device.open("cpu");
  return Math.max(1, device.info().threads! - 1);
}
