/**
 * A lock that processes wait for: an operating-system lock on a file, so that one of them does a piece of work and the others find it done.
 *
 * The system drops the lock when its process ends in any way, kill -9 included: a file that is left behind blocks nobody.
 */
import { dirname } from "@std/path";
import type { Log } from "./log.ts";

/** A lock that is held until disposal or the end of the process. */
export class WaitLock implements Disposable {
  readonly #file: Deno.FsFile;

  private constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  /** Takes the lock on `path`, which is created where it is missing; says aloud when it has to wait. */
  static async acquire(path: string, { what, log }: { readonly what: string; readonly log: Log }): Promise<WaitLock> {
    Deno.mkdirSync(dirname(path), { recursive: true });
    const file = Deno.openSync(path, { create: true, read: true, write: true });
    try {
      if (!file.tryLockSync(true)) {
        log.info(`Waiting for another process to ${what}`);
        await file.lock(true);
      }
      return new WaitLock(file);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Gives the lock free. The file stays: removing it could remove the lock of a process that just opened it. */
  [Symbol.dispose](): void {
    this.#file.close();
  }
}
