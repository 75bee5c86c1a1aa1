/**
 * The models behind a server: which slot holds which model, who waits for one, who is refused.
 *
 *   generate -> refused? -> the least busy slot that holds the model, where it has a row free or is loading
 *                        -> else a slot of a device without the model: an empty one, else the idle one that was used the longest ago
 *                        -> else the least busy slot that holds the model, where it waits for a row
 *                        -> else it waits until a slot is idle
 *
 * Whoever waits for a slot is not overtaken: a later request waits behind it, also where its model is in memory, else a model that is
 * always asked for would never leave. When a slot becomes idle, all that wait for the model of the first one are let in together.
 */
import { parameterCount } from "../model/gpt.ts";
import type { GPTConfig } from "../model/gpt.ts";
import type { ChosenModel } from "../model/models.ts";
import { EventStream } from "./event_stream.ts";
import {
  type GenerationEvent,
  type GenerationRequest,
  type ModelInfo,
  type ModelService,
  ServiceError,
  type ServiceStats,
} from "./models.ts";
import type { RunOptions, ToWorker } from "./protocol.ts";
import { type Job, Slot, startThread, type Thread } from "./slot.ts";

/** How models are served. */
export interface PoolOptions extends Omit<RunOptions, "index"> {
  /** Devices, each with slots of its own; 1. */
  readonly devices?: number;
  /** Models in the memory of a device at a time; 1. */
  readonly maxLoaded?: number;
  /** Answers that may wait for a row, at least 1; 64. */
  readonly maxQueued?: number;
  /** Starts a thread: `startThread`. */
  readonly start?: () => Thread;
}

/** What a thread that is told to end may take; longer than any step. */
const CLOSE_MS = 10_000;
/** Longest time that `setTimeout` keeps. */
const LONGEST_MS = 2 ** 31 - 1;
const MOST_RETRY_SEC = 60;
/** How much of the mean time of an answer the last one counts. */
const RECENT = 0.1;

/** A request from its call to its end. */
interface Ticket extends Job {
  readonly modelId: string;
  rows: number;
  /** Null while it waits for one. */
  slot: Slot | null;
  isOver: boolean;
}

/** Serves models from worker threads. */
export class ModelPool implements ModelService {
  readonly #models: ReadonlyMap<string, ChosenModel>;
  readonly #slots: readonly Slot[];
  readonly #maxQueued: number;
  readonly #tickets = new Set<Ticket>();
  #waiting: Ticket[] = [];
  #nextId = 0;
  #isClosing = false;
  #drained = Promise.withResolvers<void>();
  /** Mean time of an answer from its first token to its last one. */
  #answerMs = 0;
  readonly #count = {
    ...{ promptTokens: 0, cachedTokens: 0, generatedTokens: 0, steps: 0, finished: 0, cancelled: 0, refused: 0 },
  };

  /**
   * Starts the threads; a model is loaded when it is first asked for.
   *
   * @throws {RangeError} where no model is given, or one twice.
   */
  constructor(models: readonly ChosenModel[], options: PoolOptions = {}) {
    const { devices = 1, maxLoaded = 1, maxQueued = 64, start = startThread, ...run } = options;
    this.#models = new Map(modelIds(models).map((id, i) => [id, models[i]]));
    this.#maxQueued = maxQueued;
    const stepped = (tokens: number) => {
      this.#count.steps++;
      this.#count.generatedTokens += tokens;
    };
    const each = Math.min(maxLoaded, models.length);
    this.#slots = Array.from(
      { length: devices * each },
      (_, i) => new Slot({ ...run, index: Math.floor(i / each) }, { start, stepped }),
    );
  }

  list(): readonly ModelInfo[] {
    return Array.from(this.#models, ([id, { meta, step, source }]) => {
      const config = meta.config as unknown as GPTConfig;
      const created = Math.floor(Date.parse(meta.savedAt) / 1000) || 0;
      return {
        ...{ id, created, contextLen: config.sequenceLen, vocabSize: config.vocabSize },
        ...{ parameters: parameterCount(config), stage: source, step, completes: source === "base" },
        isLoaded: this.#slots.some((slot) => slot.modelId === id && slot.isLoaded),
      };
    });
  }

  /** Loads a model on every device, before anybody asks for it. @throws {ServiceError} where it cannot be loaded. */
  async load(modelId: string): Promise<void> {
    await this.tokenize(modelId, "");
    const held = new Set(this.#holders(modelId).map(({ device }) => device));
    for (const slot of this.#slots) {
      if (held.has(slot.device) || slot.modelId !== null) continue;
      held.add(slot.device);
      slot.open(modelId, this.#models.get(modelId)!);
    }
  }

  generate(request: GenerationRequest, signal: AbortSignal): AsyncIterable<GenerationEvent> {
    return this.#generate(request, { signal, calledMs: performance.now() });
  }

  async *#generate(
    request: GenerationRequest,
    { signal, calledMs }: { signal: AbortSignal; calledMs: number },
  ): AsyncGenerator<GenerationEvent> {
    this.#check(request.model, true);
    if (signal.aborted) return;
    const stream = new EventStream();
    const ticket = this.#generation(request, stream);
    const cancel = () => {
      stream.drop();
      this.#over(ticket, "cancelled");
    };
    signal.addEventListener("abort", cancel);
    const { deadlineMs } = request;
    const timer = deadlineMs === undefined ? undefined : setTimeout(() => {
      ticket.fail(new ServiceError("deadline", `Cannot finish the answer within ${deadlineMs} ms`));
    }, Math.min(LONGEST_MS, Math.max(0, calledMs + deadlineMs - performance.now())));
    try {
      this.#place(ticket);
      yield* stream;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", cancel);
      this.#over(ticket, "cancelled");
    }
  }

  #generation(request: GenerationRequest, stream: EventStream): Ticket {
    const id = this.#nextId++;
    let startMs = 0;
    const ticket: Ticket = {
      ...{ id, modelId: request.model, rows: request.choices, slot: null, isOver: false },
      message: { type: "generate", id, request },
      take: (events) => {
        for (const event of events) {
          if (event.type === "start") {
            startMs = performance.now();
            this.#count.promptTokens += event.promptTokens;
            this.#count.cachedTokens += event.cachedTokens;
          }
          if (event.type === "end") ticket.rows--;
        }
        stream.push(events);
        if (ticket.rows > 0) return;
        const tookMs = performance.now() - startMs;
        this.#answerMs = this.#answerMs === 0 ? tookMs : (1 - RECENT) * this.#answerMs + RECENT * tookMs;
        stream.end();
        this.#over(ticket, "finished");
      },
      fail: (error) => {
        stream.end(error);
        this.#over(ticket, startMs === 0 ? "refused" : "cancelled");
      },
    };
    return ticket;
  }

  tokenize(model: string, text: string): Promise<readonly number[]> {
    return this.#call(model, (id) => ({ type: "tokenize", id, text })) as Promise<readonly number[]>;
  }

  detokenize(model: string, ids: readonly number[]): Promise<string> {
    return this.#call(model, (id) => ({ type: "detokenize", id, ids })) as Promise<string>;
  }

  /** Asks the worker of a model for something that needs no row. */
  async #call(modelId: string, message: (id: number) => ToWorker): Promise<string | readonly number[]> {
    this.#check(modelId, false);
    const { promise, resolve, reject } = Promise.withResolvers<string | readonly number[]>();
    const id = this.#nextId++;
    const ticket: Ticket = {
      ...{ id, modelId, rows: 0, slot: null, isOver: false, message: message(id) },
      settle: (value) => {
        resolve(value);
        this.#over(ticket, null);
      },
      fail: (error) => {
        reject(error);
        this.#over(ticket, null);
      },
    };
    this.#place(ticket);
    return await promise;
  }

  stats(): ServiceStats {
    return {
      ...this.#count,
      queued: this.#queued(),
      activeRows: this.#slots.reduce((sum, { rows, wanted }) => sum + Math.min(rows, wanted), 0),
      rows: this.#slots.reduce((sum, { rows }) => sum + rows, 0),
      loadedModels: this.#slots.filter(({ isLoaded }) => isLoaded).length,
    };
  }

  async close(graceMs: number): Promise<void> {
    this.#isClosing = true;
    const timer = setTimeout(() => {
      for (const ticket of [...this.#tickets]) ticket.fail(closing("finish the answer"));
    }, Math.min(LONGEST_MS, graceMs));
    if (this.#tickets.size > 0) await this.#drained.promise;
    clearTimeout(timer);
    await Promise.all(this.#slots.map((slot) => slot.close(CLOSE_MS)));
  }

  /** Answers that wait for a row, or for a slot. */
  #queued(): number {
    const inSlots = this.#slots.reduce((sum, { rows, wanted }) => sum + Math.max(0, wanted - rows), 0);
    return this.#waiting.reduce((sum, { rows }) => sum + rows, inSlots);
  }

  /** Refuses what cannot be served. */
  #check(modelId: string, needsRow: boolean): void {
    try {
      if (this.#isClosing) throw closing("answer");
      if (!this.#models.has(modelId)) {
        const names = [...this.#models.keys()].join(", ");
        throw new ServiceError(
          "model_not_found",
          `Cannot find model ${JSON.stringify(modelId)}, expected one of ${names}`,
        );
      }
      const queued = this.#queued();
      const isFree = this.#waiting.length === 0 && this.#holders(modelId).some(({ wanted, rows }) => wanted < rows);
      if (!needsRow || isFree || queued < this.#maxQueued) return;
      const rows = Math.max(1, this.#slots.reduce((sum, { rows }) => sum + rows, 0));
      const seconds = Math.ceil(this.#answerMs * (queued + 1) / rows / 1000);
      const retryAfterSec = Math.max(1, Math.min(MOST_RETRY_SEC, seconds));
      throw new ServiceError(
        "busy",
        `Cannot answer now: ${queued} answers wait already, expected fewer than ${this.#maxQueued}`,
        {
          retryAfterSec,
        },
      );
    } catch (error) {
      this.#count.refused++;
      throw error;
    }
  }

  #holders(modelId: string): Slot[] {
    return this.#slots.filter((slot) => slot.modelId === modelId);
  }

  /** Gives a new ticket to a slot, or lets it wait. */
  #place(ticket: Ticket): void {
    this.#tickets.add(ticket);
    this.#waiting.push(ticket);
    if (this.#waiting.length === 1) this.#fill();
  }

  /** Lets in who waits longest, and all who want the same model, as long as there is a slot for them. */
  #fill(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      const { modelId } = first;
      if (this.#slotFor(modelId) === undefined) return;
      const together = this.#waiting.filter((ticket) => ticket.modelId === modelId);
      this.#waiting = this.#waiting.filter((ticket) => ticket.modelId !== modelId);
      for (const ticket of together) {
        ticket.slot = this.#slotFor(modelId)!;
        ticket.slot.add(ticket);
      }
    }
  }

  /** Finds a slot for a model, which is given to it where none holds it. */
  #slotFor(modelId: string): Slot | undefined {
    const holders = this.#holders(modelId).sort((a, b) => a.wanted - b.wanted);
    const [first] = holders;
    if (first && (!first.isLoaded || first.wanted < first.rows)) return first;
    const idle = this.#slots.filter((slot) => slot.isIdle && holders.every(({ device }) => device !== slot.device));
    const slot = idle.find((slot) => slot.modelId === null) ?? idle.sort((a, b) => a.lastUsed - b.lastUsed)[0];
    slot?.open(modelId, this.#models.get(modelId)!);
    return slot ?? first;
  }

  /** Ends a ticket, once. */
  #over(ticket: Ticket, how: "finished" | "cancelled" | "refused" | null): void {
    if (ticket.isOver) return;
    ticket.isOver = true;
    if (how !== null) this.#count[how]++;
    this.#tickets.delete(ticket);
    this.#waiting = this.#waiting.filter((waiting) => waiting !== ticket);
    ticket.slot?.remove(ticket.id);
    this.#fill();
    if (this.#isClosing && this.#tickets.size === 0) this.#drained.resolve();
  }
}

function closing(what: string): ServiceError {
  return new ServiceError("closing", `Cannot ${what}: the server is shutting down`);
}

/**
 * Gives models the shortest of "d4", "sft/d4" and "tiny/sft/d4" that no other of them has.
 *
 * @throws {RangeError} where none or one is given twice.
 */
function modelIds(models: readonly ChosenModel[]): string[] {
  if (models.length === 0) throw new RangeError("Cannot serve models: there is none, expected at least one");
  return models.map(({ name }) => {
    const isUnique = (ending: string) =>
      models.filter((other) => other.name === ending || other.name.endsWith(`/${ending}`)).length === 1;
    const words = name.split("/");
    const id = words.map((_, i) => words.slice(words.length - 1 - i).join("/")).find(isUnique);
    if (id === undefined) throw new RangeError(`Cannot serve model "${name}" twice, expected it once`);
    return id;
  });
}
