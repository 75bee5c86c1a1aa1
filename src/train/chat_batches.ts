/**
 * Batches of fine-tuning: one conversation a row, padded to the longest, only the assistant's tokens as targets (nanochat/chat_sft.py).
 *
 * Rank r of W takes the rows r, r + W, ... endlessly; a batch may reach over the end of the task. Row t has input ids[t] and target
 * ids[t + 1] where the mask says so, else -1. Conversations are cut on the right to what fits the context; one that has no target left
 * is passed over. Both are counted, so no batch is without an active target and nothing is lost in silence.
 */
import type { Task } from "../../tasks/task.ts";
import { MAX_CONVERSATION_TOKENS, renderConversation, type Rendered } from "../data/conversation.ts";
import { hashIds } from "../data/dataloader.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { renderRow } from "./conversation_stream.ts";
import type { HashedBatch } from "./session.ts";

/** Lengths are rounded up to a multiple of this, so that few shapes occur. */
export const LENGTH_MULTIPLE = 64;

/** A position in the task, and what happened before it. */
export interface ChatBatchState {
  /** Row that is read next. */
  readonly cursor: number;
  /** Conversations that were cut. */
  readonly cut: number;
  /** Conversations that had no target left and were passed over. */
  readonly dropped: number;
}

/** Options of the batches. */
export interface ChatBatchOptions {
  /** Conversations in the order that they are read in. */
  readonly task: Task;
  readonly tokenizer: Tokenizer;
  /** Rows of a batch. */
  readonly B: number;
  /** Inputs of a row at most: the model's context. */
  readonly T: number;
  /** Lengths are rounded up to a multiple; default 64. */
  readonly multiple?: number;
  /** Default 0 of 1. */
  readonly rank?: number;
  /** Number of ranks; default 1. */
  readonly world?: number;
  /** Where to go on; default: the beginning. */
  readonly state?: ChatBatchState;
}

/** One batch: (B, t) with t a multiple as asked for. */
export interface ChatBatch extends HashedBatch {
  /** Active targets. */
  readonly tokens: number;
  /** Position behind this batch. */
  readonly state: ChatBatchState;
}

/** Gives the inputs that the longest row of a model with this context has: what memory is planned for. */
export function longestRow(context: number): number {
  return roundUp(Math.min(context, MAX_CONVERSATION_TOKENS - 1), LENGTH_MULTIPLE);
}

/** Rounds up to a multiple. */
export function roundUp(n: number, multiple: number): number {
  return Math.ceil(n / multiple) * multiple;
}

/**
 * Pads rendered rows to one batch: inputs with `pad`, targets with -1; lengths are rounded up to a multiple. A row's last id predicts
 * nothing; `keepLast` leaves it among the inputs all the same, where there is room, as the reference does for rollouts.
 */
export function collate(
  rows: readonly Rendered[],
  { pad, multiple = LENGTH_MULTIPLE, keepLast = false }: { pad: number; multiple?: number; keepLast?: boolean },
): { inputs: Int32Array<ArrayBuffer>; targets: Int32Array<ArrayBuffer>; columns: number } {
  const columns = roundUp(Math.max(1, ...rows.map(({ ids }) => ids.length - 1)), multiple);
  const inputs = new Int32Array(rows.length * columns).fill(pad);
  const targets = new Int32Array(rows.length * columns).fill(-1);
  for (const [row, { ids, mask }] of rows.entries()) {
    inputs.set(ids.slice(0, keepLast ? columns : -1), row * columns);
    for (let t = 1; t < ids.length; t++) if (mask[t] === 1) targets[row * columns + t - 1] = ids[t];
  }
  return { inputs, targets, columns };
}

/** Makes batches of conversations, without end. */
export class ChatBatches {
  readonly #options: Required<Omit<ChatBatchOptions, "state">>;
  readonly #pad: number;
  #state: ChatBatchState;

  /** Goes to the position given. @throws {RangeError} for an empty task or a rank without a row. */
  constructor(options: ChatBatchOptions) {
    const { task, rank = 0, world = 1, multiple = LENGTH_MULTIPLE } = options;
    this.#options = { ...options, rank, world, multiple };
    if (!(rank >= 0 && rank < world && task.length >= world)) {
      throw new RangeError(
        `Cannot batch conversations for rank ${rank} of ${world}: there are ${task.length}, expected at least one for each rank`,
      );
    }
    this.#pad = options.tokenizer.encodeSpecial("<|assistant_end|>");
    this.#state = options.state ?? { cursor: rank, cut: 0, dropped: 0 };
  }

  /**
   * Makes the next batch.
   *
   * @throws {SyntaxError} naming a row that is no conversation, {RangeError} where no row of the task has a target that fits.
   */
  next(): ChatBatch {
    const { B, multiple } = this.#options;
    const rows = Array.from({ length: B }, () => this.#row());
    const { inputs, targets } = collate(rows, { pad: this.#pad, multiple });
    const tokens = targets.reduce((sum, target) => sum + (target >= 0 ? 1 : 0), 0);
    const both = new Int32Array(inputs.length * 2);
    both.set(inputs);
    both.set(targets, inputs.length);
    return { inputs, targets, tokens, hash: hashIds(both), state: this.#state };
  }

  /** The next row that has a target. */
  #row(): Rendered {
    const { task, tokenizer, rank, world, T } = this.#options;
    const fits = Math.min(MAX_CONVERSATION_TOKENS, T + 1);
    for (let tried = 0; tried < task.length; tried++) {
      const { cursor, cut, dropped } = this.#state;
      const whole = renderRow(task, {
        index: cursor,
        render: (conversation) => renderConversation(tokenizer, conversation, Infinity),
      });
      const row = { ids: whole.ids.slice(0, fits), mask: whole.mask.slice(0, fits) };
      const isCut = row.ids.length < whole.ids.length;
      const isEmpty = !row.mask.includes(1);
      this.#state = {
        cursor: cursor + world < task.length ? cursor + world : rank, // each pass begins at the rank's first row
        cut: cut + (isCut && !isEmpty ? 1 : 0),
        dropped: dropped + (isEmpty ? 1 : 0),
      };
      if (!isEmpty) return row;
    }
    throw new RangeError(
      `Cannot batch conversations: in none of ${task.length} the assistant speaks within the first ${fits} tokens, ` +
        "expected at least one; take a model with a longer context or shorter conversations",
    );
  }
}
