/**
 * One process that runs one Python program: started without any permission but reading the assets, which it gives back; limited in
 * memory once it is ready; killed at the deadline. What happens inside is in child.js.
 */
import { type Launch, sandboxLaunch } from "../../native/installation.ts";
import { SandboxError } from "./denials.ts";
import { type Answer, answerLimit, makeNonce, readAnswer } from "./frame.ts";
import { limitByKernel, ResidentGuard } from "./memory.ts";

/** Limits of a program. */
export interface Limits {
  /** Time from the moment that the program is handed over. */
  readonly timeoutMs: number;
  /** Memory beyond what the interpreter itself has. */
  readonly memoryBytes: number;
  /** Bytes of stdout and of stderr that are kept. */
  readonly outputBytes: number;
  /** How the outer memory limit is set; the kernel where it can. */
  readonly guard?: "kernel" | "resident";
}

/** Verdict of a program. */
export interface Execution extends Answer {
  readonly durationMs: number;
}

/** Memory of Python itself: its snapshot, which dev/build_sandbox.ts holds to it, has 30 MiB. */
export const INTERPRETER_BYTES = 32 << 20;
const PAGE = 65_536; // bytes of a WebAssembly page
const MIB = 1 << 20;
const START_LIMIT_MS = 300_000; // 0.3 s on a free machine, more than a minute where work of higher priority fills it
const JS_HEAP_MIB = 256;
const OUTER_SLACK = 144 * MIB; // V8's own heap and buffers, beyond what Python may take
const STDERR_KEPT = 4096;

/** A process that is starting, ready, or has run its program. */
export class SandboxProcess {
  /** Settles when a program may be given. @throws {Error} where the process could not start or was granted anything. */
  readonly ready: Promise<void>;
  readonly #child: Deno.ChildProcess;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #limits: Limits;
  readonly #stderr: Promise<string>;
  #guard: ResidentGuard | undefined;
  #ended = false;

  /** Starts a process in an empty folder. @throws {Error} as `sandboxLaunch`, or where the program cannot be started. */
  constructor(folder: string, limits: Limits) {
    const { memoryBytes, outputBytes } = limits;
    const v8Flags = [
      `--wasm-max-mem-pages=${Math.ceil((INTERPRETER_BYTES + memoryBytes) / PAGE)}`,
      `--max-old-space-size=${JS_HEAP_MIB}`,
      "--disallow-code-generation-from-strings",
    ];
    this.#limits = limits;
    this.#child = spawn(sandboxLaunch({ v8Flags, outputBytes }), folder);
    this.#reader = this.#child.stdout.getReader();
    this.#stderr = readHead(this.#child.stderr, STDERR_KEPT);
    void this.#child.status.then(() => this.#ended = true);
    this.ready = this.#awaitReady();
    this.ready.catch(() => {}); // who takes the process sees it
  }

  /** Number of the process. */
  get pid(): number {
    return this.#child.pid;
  }

  /** How its memory is limited, once it is ready. */
  get guard(): "kernel" | "resident" {
    return this.#guard ? "resident" : "kernel";
  }

  /** Whether the process has ended. */
  get ended(): boolean {
    return this.#ended;
  }

  async #awaitReady(): Promise<void> {
    const deadline = setTimeout(() => this.#kill(), START_LIMIT_MS);
    let line = "";
    while (!line.endsWith("\n") && line.length < STDERR_KEPT) {
      const { value, done } = await this.#reader.read();
      if (done) break;
      line += new TextDecoder().decode(value);
    }
    clearTimeout(deadline);
    if (line !== "ready\n") {
      await this.kill();
      const said = `${line}${await this.#stderr}`.trim() || `no answer within ${START_LIMIT_MS / 1000} s`;
      const Kind = line.startsWith("granted: ") ? SandboxError : Error;
      throw new Kind(`Cannot start the Python sandbox: ${said}, expected a process without any permission`);
    }
    const { memoryBytes, timeoutMs, guard = "kernel" } = this.#limits;
    const bytes = memoryBytes + OUTER_SLACK;
    // The processor limit ends a program whose parent was killed; the deadline always comes first.
    const cpuSec = 10 + 4 * Math.ceil(timeoutMs / 1000);
    if (guard === "resident" || !limitByKernel(this.pid, { bytes, cpuSec })) {
      this.#guard = new ResidentGuard(this.pid, { bytes, kill: () => this.#kill() });
    }
  }

  /** Runs a program; the process is used up. Call it once, when `ready` has settled. */
  async run(code: string, timeoutMs = this.#limits.timeoutMs): Promise<Execution> {
    const nonce = makeNonce();
    const start = performance.now();
    let timedOut = false;
    const deadline = setTimeout(() => {
      timedOut = true;
      this.#kill();
    }, timeoutMs);
    try {
      await this.#send(`${JSON.stringify({ nonce, code })}\n`);
      const bytes = await this.#readAll(answerLimit(this.#limits.outputBytes));
      await this.kill();
      const durationMs = performance.now() - start;
      if (timedOut) return { ...failure("timeout", "Execution timed out"), durationMs };
      const { code: exit, signal } = await this.#child.status;
      const exceeded = this.#guard?.exceeded ?? false;
      const end = { bytes: bytes.length, exceeded, code: exit, signal, stderr: await this.#stderr };
      return { ...readAnswer(bytes, nonce) ?? explainEnd(end), durationMs };
    } finally {
      clearTimeout(deadline);
      await this.kill();
    }
  }

  /** Kills the process and waits for its end. */
  async kill(): Promise<void> {
    this.#kill();
    this.#guard?.[Symbol.dispose]();
    await this.#child.status;
    await this.#reader.cancel().catch(() => {}); // a pipe of a dead process has nothing to say
    await this.#child.stdin.abort().catch(() => {}); // it may be closed already
    await this.#stderr;
  }

  #kill(): void {
    if (this.#ended) return;
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It ended by itself meanwhile.
    }
  }

  async #send(line: string): Promise<void> {
    const writer = this.#child.stdin.getWriter();
    try {
      await writer.write(new TextEncoder().encode(line));
      await writer.close();
    } catch {
      // The process died; what it left behind tells how.
    } finally {
      writer.releaseLock();
    }
  }

  /** Reads to the end of the pipe; a process that writes more than an answer is killed. */
  async #readAll(limit: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(limit + 1);
    let length = 0;
    for (;;) {
      const { value, done } = await this.#reader.read();
      if (done) return bytes.subarray(0, length);
      const part = value.subarray(0, bytes.length - length);
      bytes.set(part, length);
      length += part.length;
      if (length > limit) this.#kill();
    }
  }
}

/** Starts the process with pipes, nothing of our environment, and in a group of its own: a Ctrl-C in the terminal is for us. */
function spawn({ command, args, env }: Launch, cwd: string): Deno.ChildProcess {
  const pipes = { stdin: "piped", stdout: "piped", stderr: "piped" } as const;
  try {
    return new Deno.Command(command, { args: [...args], env, cwd, clearEnv: true, detached: true, ...pipes }).spawn();
  } catch (cause) {
    throw new Error(`Cannot run Python: "${command}" does not start, expected the program there`, { cause });
  }
}

/** How a process ended that gave no answer. */
export interface End {
  /** Bytes that it wrote in place of an answer. */
  readonly bytes: number;
  /** Whether it was killed for its resident size. */
  readonly exceeded: boolean;
  readonly code: number;
  readonly signal: Deno.Signal | null;
  readonly stderr: string;
}

/** Says why there is no answer. */
export function explainEnd({ bytes, exceeded, code, signal, stderr }: End): Answer {
  if (exceeded) return failure("memory", "MemoryError: the process passed its memory limit");
  if (bytes > 0) return failure("error", "the process wrote something else than a verdict");
  const starved = /out of memory|memory allocation of|Cannot allocate memory|allocation failed/i.test(stderr);
  if (signal === "SIGKILL" || (signal !== null && starved)) {
    return failure("memory", `MemoryError: the process died at its memory limit (${signal})`);
  }
  return failure("error", `the process ended without a verdict (${signal ?? `code ${code}`})`);
}

function failure(kind: Answer["kind"], error: string): Answer {
  return { kind, stdout: "", stderr: "", error };
}

/** Reads a stream to its end and keeps the first bytes as text. */
async function readHead(stream: ReadableStream<Uint8Array>, kept: number): Promise<string> {
  let text = "";
  for await (const piece of stream) if (text.length < kept) text += new TextDecoder().decode(piece);
  return text.slice(0, kept);
}
