/**
 * What a task is: numbered conversations, and a verdict on a model's answer. Slices, mixtures and sequences of tasks are tasks.
 *
 * Orders equal the reference's (nanochat tasks/common.py): a mixture is the concatenation shuffled with Python's Random(42).
 */
import type { Conversation } from "../src/data/conversation.ts";
import { numpyPermutation, Random } from "../src/data/random.ts";

/** Conversations by index. */
export interface Task {
  /** Number of conversations. */
  readonly length: number;
  /** How answers are judged: by the letter chosen, or by what was written; absent for tasks that are only trained on. */
  readonly kind?: "categorical" | "generative";
  /** Returns conversation `index`, 0 <= index < length. */
  conversation(index: number): Conversation;
  /** Tells whether an answer is right; a promise where the answer has to be run. */
  evaluate?(conversation: Conversation, answer: string): boolean | Promise<boolean>;
  /** Rewards an answer; what reinforcement learning maximises. */
  reward?(conversation: Conversation, answer: string): number;
}

/** Part of a task: rows start, start + step, ... below stop. */
export interface Slice {
  /** First row; default 0. */
  readonly start?: number;
  /** Row behind the last; default: the length. */
  readonly stop?: number;
  /** Distance of two rows; default 1. */
  readonly step?: number;
}

/** Takes a part of a task. @throws {RangeError} for bounds that are no slice. */
export function sliceTask(task: Task, { start = 0, stop = task.length, step = 1 }: Slice): Task {
  if (!(start >= 0 && stop >= start && step >= 1) || ![start, stop, step].every(Number.isInteger)) {
    throw new RangeError(
      `Cannot slice a task: start ${start}, stop ${stop}, step ${step}, expected 0 <= start <= stop and step >= 1`,
    );
  }
  const end = Math.min(stop, task.length);
  const length = Math.max(0, Math.ceil((end - start) / step));
  return derived(task, length, (index) => task.conversation(start + index * step));
}

/** Joins tasks one after the other, unshuffled. */
export class TaskSequence implements Task {
  /** Tasks in the order of their rows. */
  readonly tasks: readonly Task[];
  /** Rows of all tasks together. */
  readonly length: number;

  /** Joins tasks; they must not change their length. */
  constructor(tasks: readonly Task[]) {
    this.tasks = tasks;
    this.length = tasks.reduce((sum, task) => sum + task.length, 0);
  }

  /** Returns row `index` of the joined tasks. @throws {RangeError} for an index that is none. */
  conversation(index: number): Conversation {
    let local = checkIndex(index, this.length);
    for (const task of this.tasks) {
      if (local < task.length) return task.conversation(local);
      local -= task.length;
    }
    throw new RangeError(`Cannot find conversation ${index}: the tasks have become shorter`);
  }
}

/** Mixes tasks by one fixed shuffle of all their rows; a task that is given twice counts twice. */
export class TaskMixture implements Task {
  /** Tasks that rows are drawn from. */
  readonly tasks: readonly Task[];
  /** (task, row) of each conversation. */
  readonly order: readonly (readonly [number, number])[];
  /** Kind of all tasks; undefined where they differ. */
  readonly kind?: Task["kind"];
  /** Judges an answer as the task of the conversation does; only where all tasks judge. */
  readonly evaluate?: NonNullable<Task["evaluate"]>;
  /** Rewards an answer as the task of the conversation does; only where all tasks reward. */
  readonly reward?: NonNullable<Task["reward"]>;
  readonly #owners = new WeakMap<Conversation, Task>();

  /** Shuffles the rows of all tasks; the order depends on their lengths alone. @throws {RangeError} where none has a row. */
  constructor(tasks: readonly Task[]) {
    if (tasks.every(({ length }) => length === 0)) {
      throw new RangeError(`Cannot mix ${tasks.length} tasks: they have no conversation, expected at least one`);
    }
    this.tasks = tasks;
    const order = tasks.flatMap((task, i) =>
      Array.from({ length: task.length }, (_, row): [number, number] => [i, row])
    );
    new Random(42).shuffle(order);
    this.order = order;
    if (tasks.every(({ kind }) => kind === tasks[0].kind)) this.kind = tasks[0].kind;
    if (tasks.every(({ evaluate }) => evaluate)) {
      this.evaluate = (conversation, answer) => this.#ownerOf(conversation).evaluate!(conversation, answer);
    }
    if (tasks.every(({ reward }) => reward)) {
      this.reward = (conversation, answer) => this.#ownerOf(conversation).reward!(conversation, answer);
    }
  }

  /** Rows of all tasks together. */
  get length(): number {
    return this.order.length;
  }

  /** Returns the row that the shuffle put at `index`. @throws {RangeError} for an index that is none. */
  conversation(index: number): Conversation {
    const [task, row] = this.order[checkIndex(index, this.length)];
    const conversation = this.tasks[task].conversation(row);
    this.#owners.set(conversation, this.tasks[task]);
    return conversation;
  }

  #ownerOf(conversation: Conversation): Task {
    const owner = this.#owners.get(conversation);
    if (!owner) {
      throw new TypeError("Cannot judge a conversation: it is none of this mixture, expected one that it gave");
    }
    return owner;
  }
}

/** Gives the order in which the hub's library shuffles `length` rows with seed 42: place in the task to row of the file. */
export function hubOrder(length: number): (index: number) => number {
  const order = numpyPermutation(42, length);
  return (index) => order[checkIndex(index, length)];
}

function derived(task: Task, length: number, conversation: (index: number) => Conversation): Task {
  return {
    kind: task.kind,
    evaluate: task.evaluate?.bind(task),
    reward: task.reward?.bind(task),
    length,
    conversation: (index) => conversation(checkIndex(index, length)),
  };
}

/** Returns an index that a task has. @throws {RangeError} for another. */
export function checkIndex(index: number, length: number): number {
  if (!Number.isInteger(index) || index < 0 || index >= length) {
    throw new RangeError(`Cannot find conversation ${index}: expected an index of 0 to ${length - 1}`);
  }
  return index;
}
