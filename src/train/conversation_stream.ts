/**
 * Batches of mid-training: whole conversations, one behind the other, as one stream of ids (nanochat/mid_train.py).
 *
 * As in pretraining a batch takes B*T + 1 ids, every id is a target, and rows begin where they fall. Rank r of W reads the rows r, r + W,
 * ... of the mixture, endlessly. Rows are rendered only until a batch is full, so what is left over belongs to the last row that was
 * read: the position in the mixture and the number of those ids are the whole state.
 */
import type { Task } from "../../tasks/task.ts";
import { type Conversation, renderConversation, type Rendered } from "../data/conversation.ts";
import { hashIds } from "../data/dataloader.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { HashedBatch } from "./session.ts";

/** A position in the stream of one rank. */
export interface StreamState {
  /** Row that is read next. */
  readonly cursor: number;
  /** Ids of the row before it that no batch has taken yet. */
  readonly pending: number;
  /** Times that the end of the mixture was passed. */
  readonly passes: number;
}

/** Options of a stream. */
export interface StreamOptions {
  /** Conversations in the order that they are read in. */
  readonly task: Task;
  readonly tokenizer: Tokenizer;
  /** Rows of a batch. */
  readonly B: number;
  /** Ids of a row. */
  readonly T: number;
  /** Default 0 of 1. */
  readonly rank?: number;
  /** Number of ranks; default 1. */
  readonly world?: number;
  /** Where to go on; default: the beginning. */
  readonly state?: StreamState;
}

/** One batch. */
export interface StreamBatch extends HashedBatch {
  /** Position behind this batch. */
  readonly state: StreamState;
  /** Share of the mixture that was read, 0 to 1; falls back where the end is passed. */
  readonly progress: number;
}

/** Renders one row, naming it where it is no conversation. */
export function renderRow(
  task: Task,
  { index, render }: { index: number; render: (conversation: Conversation) => Rendered },
): Rendered {
  try {
    return render(task.conversation(index));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new SyntaxError(`Cannot train on conversation ${index} of ${task.length}: ${error.message}`, {
      cause: error,
    });
  }
}

/** Packs conversations into batches, without end. */
export class ConversationStream {
  readonly #options: Required<Omit<StreamOptions, "state">>;
  #ids: number[] = [];
  #cursor: number;
  #passes: number;

  /**
   * Goes to the position given.
   *
   * @throws {RangeError} for an empty task or a rank without a row; {Error} where the state does not belong to this task.
   */
  constructor(options: StreamOptions) {
    const { task, rank = 0, world = 1, state = { cursor: rank, pending: 0, passes: 0 } } = options;
    this.#options = { ...options, rank, world };
    if (!(rank >= 0 && rank < world && task.length >= world)) {
      throw new RangeError(
        `Cannot pack conversations for rank ${rank} of ${world}: there are ${task.length}, expected at least one for each rank`,
      );
    }
    this.#cursor = state.cursor;
    this.#passes = state.passes;
    if (state.pending > 0) this.#ids = this.#tail(state);
  }

  /** Makes the next batch. @throws {SyntaxError} naming a row that is no conversation. */
  next(): StreamBatch {
    const { task, world, B, T } = this.#options;
    const needed = B * T + 1;
    while (this.#ids.length < needed) {
      for (const id of this.#render(this.#cursor)) this.#ids.push(id);
      this.#cursor += world;
      if (this.#cursor >= task.length) {
        this.#cursor -= task.length;
        this.#passes++;
      }
    }
    const ids = Int32Array.from(this.#ids.slice(0, needed));
    this.#ids = this.#ids.slice(needed);
    return {
      inputs: ids.subarray(0, -1),
      targets: ids.subarray(1),
      hash: hashIds(ids),
      state: { cursor: this.#cursor, pending: this.#ids.length, passes: this.#passes },
      progress: this.#cursor / task.length,
    };
  }

  #render(index: number): number[] {
    const { task, tokenizer } = this.#options;
    return renderRow(task, { index, render: (conversation) => renderConversation(tokenizer, conversation) }).ids;
  }

  #tail({ cursor, pending }: StreamState): number[] {
    const { task: { length }, world } = this.#options;
    const ids = cursor < length ? this.#render((cursor - world + length) % length) : [];
    if (pending > ids.length) {
      throw new Error(
        `Cannot resume the conversations exactly: ${pending} ids of the row before row ${cursor} of ${length} are to come, ` +
          `and it has ${ids.length}; were the tasks replaced?`,
      );
    }
    return ids.slice(ids.length - pending);
  }
}
