/** Child processes of the development programs: output captured or passed through, a deadline, and nothing left running. */

/** What to start and how long it may take. */
export interface Child {
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd?: string;
  readonly env?: Record<string, string>;
  /** Gives the child nothing of this process's environment. */
  readonly clearEnv?: boolean;
  /** Text for standard input; without it the child reads an empty one. */
  readonly stdin?: string;
  /** Milliseconds after which the child and everything it started are killed. */
  readonly deadlineMs: number;
  /** Called with each piece of output as it arrives; `send` signals the child itself. */
  readonly onOutput?: (text: string, send: (signal: Deno.Signal) => void) => void;
}

/** How a child ended. */
export interface Ended {
  /** Exit status; 127 where the program was not found, 124 where the deadline passed. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Both streams in order of arrival. */
  readonly output: string;
  readonly seconds: number;
}

/**
 * Runs a child in a process group of its own and waits for it. At the deadline, or when this process is told to stop, the whole
 * group is killed by its id.
 */
export async function runChild(child: Child): Promise<Ended> {
  const start = performance.now();
  const seconds = () => (performance.now() - start) / 1000;
  let spawned: Deno.ChildProcess;
  try {
    spawned = new Deno.Command(child.command, {
      args: [...child.args],
      cwd: child.cwd,
      env: child.env,
      clearEnv: child.clearEnv,
      stdin: child.stdin === undefined ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
      detached: true,
    }).spawn();
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    const text = `${child.command}: not found\n`;
    return { code: 127, stdout: "", stderr: text, output: text, seconds: seconds() };
  }
  const killGroup = () => {
    try {
      Deno.kill(-spawned.pid, "SIGKILL");
    } catch {
      // The group is already gone.
    }
  };
  const stop = () => {
    killGroup();
    Deno.exit(130);
  };
  Deno.addSignalListener("SIGINT", stop);
  Deno.addSignalListener("SIGTERM", stop);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    killGroup();
  }, child.deadlineMs);
  let output = "";
  const read = async (stream: ReadableStream<Uint8Array>) => {
    let text = "";
    for await (const piece of stream.pipeThrough(new TextDecoderStream())) {
      text += piece;
      output += piece;
      child.onOutput?.(piece, (signal) => spawned.kill(signal));
    }
    return text;
  };
  const write = async () => {
    if (child.stdin === undefined) return;
    const writer = spawned.stdin.getWriter();
    // A child that ends without reading its input closes the pipe; its exit status tells why.
    await writer.write(new TextEncoder().encode(child.stdin)).then(() => writer.close()).catch(() => {});
  };
  try {
    const [stdout, stderr, status] = await Promise.all([
      read(spawned.stdout),
      read(spawned.stderr),
      spawned.status,
      write(),
    ]);
    if (late) output += `\nStopped after ${(child.deadlineMs / 1000).toFixed(0)} s, the deadline of this step\n`;
    return { code: late ? 124 : status.code, stdout, stderr, output, seconds: seconds() };
  } finally {
    clearTimeout(timer);
    Deno.removeSignalListener("SIGINT", stop);
    Deno.removeSignalListener("SIGTERM", stop);
  }
}
