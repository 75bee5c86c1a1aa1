/** File work of the native library: a context of its own, because a context serves one caller at a time. */
import type { Native } from "../native/call.ts";
import { bindNative, pointerFrom } from "../native/call.ts";
import { openLibrary } from "../native/load.ts";

/** A native context for file work: its calls run one after the other, and it is freed behind the one in flight. */
export class Calls {
  readonly nc: Native = bindNative(openLibrary("cpu"));
  readonly ctx: Deno.PointerObject;
  #tail: Promise<unknown> = Promise.resolve();
  #pending = 0;
  #closed = false;

  constructor() {
    const out = new BigUint64Array(1);
    this.nc.context_create(out, 0, 1);
    this.ctx = pointerFrom(out);
  }

  /** Runs `work` behind the calls before it. */
  run<T>(what: string, work: () => Promise<T>): Promise<T> {
    if (this.#closed) throw new Error(`Cannot ${what}: it is closed`);
    this.#pending++;
    const result = this.#tail.then(work).finally(() => this.#pending--);
    this.#tail = result.catch(() => undefined);
    return result;
  }

  /** Frees the context, after `release`, once no call is in flight. */
  close(release: () => void): void {
    if (this.#closed) return;
    this.#closed = true;
    const free = () => {
      release();
      this.nc.context_free(this.ctx);
    };
    if (this.#pending === 0) free();
    else this.#tail.then(free);
  }
}
