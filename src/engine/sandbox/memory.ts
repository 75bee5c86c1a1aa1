/**
 * The outer memory limit of a sandbox process, which holds even against code that has left the interpreter. Where the system has
 * prlimit(2) it is RLIMIT_DATA, set on the process after its start (RLIMIT_AS cannot be used: V8 reserves tens of gigabytes of
 * addresses); elsewhere the resident size is read every 20 ms and the process killed.
 */
import { STATUS } from "../../native/abi.ts";
import { bindNative, NativeError } from "../../native/call.ts";
import { openLibrary } from "../../native/load.ts";

const POLL_MS = 20;

/** What a process may use beyond what it has now. */
export interface Allowance {
  readonly bytes: number;
  readonly cpuSec: number;
}

/** Reads a size of `/proc/PID/status` in bytes; undefined where there is no such file or line. */
function statusBytes(pid: number, name: "VmData" | "VmRSS"): number | undefined {
  try {
    const text = Deno.readTextFileSync(`/proc/${pid}/status`);
    const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1];
    return kib === undefined ? undefined : Number(kib) * 1024;
  } catch {
    return undefined;
  }
}

/** Limits a process by the kernel; returns whether the system can. */
export function limitByKernel(pid: number, allowance: Allowance): boolean {
  const data = statusBytes(pid, "VmData");
  if (data === undefined) return false;
  try {
    const nc = bindNative(openLibrary("cpu"));
    nc.limit_process(null, pid, BigInt(data + allowance.bytes), allowance.cpuSec);
    return true;
  } catch (error) {
    if (error instanceof NativeError && error.status === STATUS.UNSUPPORTED) return false;
    throw error;
  }
}

/** Reads the resident size of a process in bytes; undefined where it is gone. */
export async function residentBytes(pid: number): Promise<number | undefined> {
  if (Deno.build.os === "linux") return statusBytes(pid, "VmRSS");
  const { success, stdout } = await new Deno.Command("ps", { args: ["-o", "rss=", "-p", String(pid)] }).output();
  return success ? Number(new TextDecoder().decode(stdout)) * 1024 : undefined;
}

/** Watches the resident size of a process and kills it over the limit. */
export class ResidentGuard implements Disposable {
  /** Whether the limit was passed. */
  exceeded = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Starts watching; `kill` is called once. */
  constructor(pid: number, { bytes, kill }: { readonly bytes: number; readonly kill: () => void }) {
    let limit: number | undefined;
    const poll = async () => {
      const resident = await residentBytes(pid).catch(() => Infinity); // what cannot be watched may not run
      if (resident === undefined || this.#timer === undefined) return;
      limit ??= resident + bytes;
      if (resident > limit) {
        this.exceeded = true;
        kill();
      } else this.#timer = setTimeout(poll, POLL_MS);
    };
    this.#timer = setTimeout(poll, 0);
  }

  /** Ends the watch. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
