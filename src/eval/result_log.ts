/**
 * The results of an evaluation as they arrive: a file with a head line that says what is evaluated, then one JSON line a finished
 * batch. After a kill the evaluation goes on behind the last whole line; a torn one is ignored and written over. A file about something
 * else is begun anew.
 */
import { dirname } from "@std/path";

/** A growing file of results; `R` is one line. */
export class ResultLog<R> implements Disposable {
  /** Where the lines are. */
  readonly path: string;
  /** Lines that were there when the file was opened. */
  readonly found: readonly R[];
  readonly #file: Deno.FsFile;

  /** Opens the file for an evaluation that `head` identifies: equal heads, equal results. */
  constructor(path: string, head: unknown) {
    this.path = path;
    Deno.mkdirSync(dirname(path), { recursive: true });
    this.#file = Deno.openSync(path, { read: true, write: true, create: true });
    const text = Deno.readTextFileSync(path);
    const first = `${JSON.stringify(head)}\n`;
    const found: R[] = [];
    let kept = 0;
    if (text.startsWith(first)) {
      kept = first.length;
      for (let end = text.indexOf("\n", kept); end >= 0; end = text.indexOf("\n", kept)) {
        try {
          found.push(JSON.parse(text.slice(kept, end)));
        } catch {
          break; // whatever stands behind a damaged line is evaluated again
        }
        kept = end + 1;
      }
    }
    this.found = found;
    this.#file.truncateSync(new TextEncoder().encode(text.slice(0, kept)).length);
    this.#file.seekSync(0, Deno.SeekMode.End);
    if (kept === 0) this.#append(first);
  }

  /** Adds a line; it is in the file when this returns. */
  add(line: R): void {
    this.#append(`${JSON.stringify(line)}\n`);
  }

  /** Removes the file: the evaluation is done and reported. */
  remove(): void {
    Deno.removeSync(this.path);
  }

  #append(text: string): void {
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length;) at += this.#file.writeSync(bytes.subarray(at));
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file.close();
  }
}
