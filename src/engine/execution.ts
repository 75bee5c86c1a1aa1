/**
 * Runs Python that a model wrote: each program in a process of its own, without permissions, with a deadline, a memory limit and a cap
 * on its output. A pool keeps processes ready, because a start takes longer than most programs; none is used twice.
 *
 * Differences from nanochat's execution.py: there a child of the same interpreter runs the program with some functions removed, which
 * its text calls no security boundary. Kinds and their meaning are the same; in addition `denied` and `assertion` are told apart.
 */
import { denialsProgram, SandboxError } from "./sandbox/denials.ts";
import { type Execution, type Limits, SandboxProcess } from "./sandbox/process.ts";
export type { Execution } from "./sandbox/process.ts";
export type { Kind } from "./sandbox/frame.ts";

/** Limits of the programs and how many processes there may be. */
export interface PoolOptions extends Partial<Limits> {
  /** Processes that exist at a time, running or ready; 2. */
  readonly size?: number;
}

const DEFAULTS: Limits = { timeoutMs: 5000, memoryBytes: 256 << 20, outputBytes: 65_536 };
const START_ATTEMPTS = 3;
const SELF_TEST_MS = 300_000; // 0.3 s on a free machine; a short limit of the pool is for programs

/** Processes that run programs. */
export class PythonPool implements AsyncDisposable {
  static #tested: Promise<void> | undefined;
  readonly #limits: Limits;
  readonly #folder: string;
  /** The next process of each slot that is free. */
  readonly #free: SandboxProcess[] = [];
  readonly #alive = new Set<SandboxProcess>();
  readonly #waiting: PromiseWithResolvers<SandboxProcess>[] = [];
  #guard: "kernel" | "resident" = "kernel";
  #closed = false;

  private constructor(folder: string, limits: Limits) {
    this.#folder = folder;
    this.#limits = limits;
  }

  /**
   * Starts the processes. The first pool of this program also tries what must be refused.
   *
   * @throws {SandboxError} where anything is granted that must not be.
   * @throws {Error} where the sandbox's files are missing.
   */
  static async open(options: PoolOptions = {}): Promise<PythonPool> {
    const { size = 2, ...limits } = options;
    const pool = new PythonPool(await Deno.makeTempDir({ prefix: "nanochat_python_" }), { ...DEFAULTS, ...limits });
    try {
      for (let slot = 0; slot < size; slot++) pool.#free.push(pool.#start());
      await (PythonPool.#tested ??= pool.#selfTest());
      return pool;
    } catch (error) {
      PythonPool.#tested = undefined;
      await pool[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * Runs a program to its verdict; waits while all processes are taken.
   *
   * @throws {Error} where no process can be started, or the pool is closed meanwhile.
   */
  run(code: string): Promise<Execution> {
    return this.#run(code, this.#limits.timeoutMs);
  }

  async #run(code: string, timeoutMs: number): Promise<Execution> {
    if (this.#closed) throw closedError();
    let process = this.#free.shift() ?? await this.#wait();
    try {
      process = await this.#usable(process);
      this.#guard = process.guard;
      const execution = await process.run(code, timeoutMs);
      if (this.#closed) throw closedError(); // it was killed, and its verdict would be about that
      return execution;
    } finally {
      this.#alive.delete(process);
      this.#release();
    }
  }

  /** How memory is limited, by the kernel or by reading the resident size; known when a program has run, such as the self-test. */
  get guard(): "kernel" | "resident" {
    return this.#guard;
  }

  /** Kills all processes and removes their folder. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const { reject } of this.#waiting.splice(0)) reject(closedError());
    await Promise.all(Array.from(this.#alive, (process) => process.kill()));
    await Deno.remove(this.#folder, { recursive: true });
  }

  #wait(): Promise<SandboxProcess> {
    const waiting = Promise.withResolvers<SandboxProcess>();
    this.#waiting.push(waiting);
    return waiting.promise;
  }

  #start(): SandboxProcess {
    const process = new SandboxProcess(this.#folder, this.#limits);
    this.#alive.add(process);
    return process;
  }

  /** Waits until a process is ready; one that was killed from outside while it waited is replaced. */
  async #usable(process: SandboxProcess): Promise<SandboxProcess> {
    for (let attempt = 1;; attempt++) {
      try {
        await process.ready;
        if (!process.ended) return process;
      } catch (error) {
        if ((attempt === START_ATTEMPTS || error instanceof SandboxError) && !this.#closed) throw error;
      }
      if (this.#closed) throw closedError();
      this.#alive.delete(process);
      process = this.#start();
    }
  }

  /** Gives a slot's next process to who waits longest. */
  #release(): void {
    if (this.#closed) return;
    const process = this.#start();
    const next = this.#waiting.shift();
    if (next) next.resolve(process);
    else this.#free.push(process);
  }

  async #selfTest(): Promise<void> {
    const limit = this.#limits.memoryBytes + (64 << 20);
    const { kind, error } = await this.#run(denialsProgram(limit), SELF_TEST_MS);
    if (kind === "ok") return;
    throw new SandboxError(
      `Cannot run Python: the self-test of the sandbox ended with "${kind}" (${error}), expected that all is refused`,
    );
  }
}

function closedError(): Error {
  return new Error("Cannot run Python: the pool is closed, expected an open one");
}
