/** What library code reports through: it never prints itself. The command line draws it, tests collect it. */

/** State of a long piece of work. */
export interface Progress {
  /** What is being done: "Downloading shards". */
  readonly label: string;
  /** Units done so far, in the unit of `total`. */
  readonly done: number;
  /** Units in all; 0 = unknown. */
  readonly total: number;
  /** Further figures of this moment: "12.3 MB/s". */
  readonly detail?: string;
}

/** Receiver of messages. Messages are whole sentences or lines without a line break. */
export interface Log {
  /** Takes a fact that the user wants to know. */
  info(message: string): void;
  /** Takes something that went differently than asked; also kept in the run's log file. */
  warn(message: string): void;
  /** Replaces the progress shown before; the last call of a piece of work has done = total. */
  progress(state: Progress): void;
}

/** Discards everything. */
export const SILENT: Log = { info() {}, warn() {}, progress() {} };
