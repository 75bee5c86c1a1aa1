/** What can be wrong with a checkpoint; alone in its file, because every start of the program needs it. */

/** What is wrong with a checkpoint, for callers that act on it. */
export type CheckpointProblem =
  | "missing" // no such checkpoint
  | "damaged" // bytes differ from what meta says
  | "version" // written by a program that knows another format
  | "tokenizer" // made with another tokenizer
  | "mismatch" // names, shapes or flags differ from what was asked for
  | "exists" // would overwrite
  | "locked" // another process writes there
  | "unsafe" // reading it would run a program
  | "disk"; // no space left

/** A checkpoint that cannot be read, written or used. */
export class CheckpointError extends Error {
  /** Name of the class. */
  override name = "CheckpointError";
  /** What is wrong, for callers that act on it. */
  readonly problem: CheckpointProblem;
  /** Makes an error with its message. */
  constructor(problem: CheckpointProblem, message: string, options?: ErrorOptions) {
    super(message, options);
    this.problem = problem;
  }
}
