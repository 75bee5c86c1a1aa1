/**
 * The lock on a folder that one process may write at a time: a file `lock` with an operating-system lock on it.
 *
 * The system drops its lock when the process ends in any way, kill -9 included, so a stale file never blocks anyone; its text is there
 * to name the holder.
 */
import { join } from "@std/path";
import type { Log } from "../data/log.ts";
import { CheckpointError } from "./meta.ts";

const LOCK_FILE = "lock";

interface Holder {
  readonly pid: number;
  readonly purpose: string;
  readonly since: string;
  readonly host: string;
}

/** A folder held for writing until disposal or the end of the process. */
export class FolderLock implements Disposable {
  readonly #file: Deno.FsFile;
  #held = true;

  private constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  /**
   * Takes the lock of a folder, which is created where it is missing; takes over the file of a process that no longer runs.
   *
   * @param options.purpose what the process is doing there, in words: "nanochat train"
   * @throws {CheckpointError} "locked", naming the holder's pid.
   */
  static acquire(folder: string, options: { purpose: string; log: Log }): FolderLock {
    const { purpose, log } = options;
    Deno.mkdirSync(folder, { recursive: true });
    const path = join(folder, LOCK_FILE);
    const file = Deno.openSync(path, { create: true, read: true, write: true });
    try {
      const before = readHolder(path);
      if (!file.tryLockSync(true)) {
        const holder = before
          ? `process ${before.pid} on ${before.host} (${before.purpose}, since ${before.since})`
          : "another process";
        throw new CheckpointError(
          "locked",
          `Cannot write to "${folder}": ${holder} is writing there, expected no other writer; ` +
            "wait for it, stop it or choose another --model-tag=NAME",
        );
      }
      if (before) {
        log.warn(`Process ${before.pid} (${before.purpose}) no longer runs; its lock on "${folder}" is taken over`);
      }
      const holder: Holder = { pid: Deno.pid, purpose, since: new Date().toISOString(), host: hostname() };
      file.truncateSync(0);
      file.writeSync(new TextEncoder().encode(JSON.stringify(holder) + "\n"));
      file.syncSync();
      return new FolderLock(file);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Gives the folder free. The file stays, empty: removing it could remove the lock of a process that just opened it. */
  [Symbol.dispose](): void {
    if (!this.#held) return;
    this.#held = false;
    this.#file.truncateSync(0);
    this.#file.close();
  }
}

function readHolder(path: string): Holder | undefined {
  try {
    const { pid, purpose, since, host } = JSON.parse(Deno.readTextFileSync(path));
    if (!Number.isSafeInteger(pid)) return undefined;
    return { pid, purpose: String(purpose), since: String(since), host: String(host) };
  } catch {
    return undefined; // empty after an orderly end, or torn: the lock itself decides, not this text
  }
}

function hostname(): string {
  try {
    return Deno.hostname();
  } catch {
    return "this machine"; // without the permission to ask
  }
}
