/**
 * Events of one request between the model, which goes on at its own speed, and a reader, who may be slow: the reader never holds up the
 * model, so events wait here. They need no other bound than the one they have: an answer has at most as many tokens as the context, and
 * each token brings one piece at most, so a stream that nobody reads grows to the size of its answers and stays there.
 */
import type { GenerationEvent } from "./models.ts";

/** A queue with one reader. */
export class EventStream implements AsyncIterable<GenerationEvent> {
  readonly #events: GenerationEvent[] = [];
  #next = 0;
  #wake: PromiseWithResolvers<void> | null = null;
  #end: { readonly error?: Error } | null = null;

  /** Adds events; behind the end they are lost. */
  push(events: readonly GenerationEvent[]): void {
    if (this.#end === null) this.#events.push(...events);
    this.#wake?.resolve();
  }

  /** Ends the stream behind what waits; with an error that the reader is thrown. The first end counts. */
  end(error?: Error): void {
    this.#end ??= { error };
    this.#wake?.resolve();
  }

  /** Ends the stream at once: what waits is lost. */
  drop(): void {
    this.#events.length = this.#next = 0;
    this.end();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<GenerationEvent> {
    for (;;) {
      while (this.#next < this.#events.length) yield this.#events[this.#next++];
      this.#events.length = this.#next = 0;
      if (this.#end?.error) throw this.#end.error;
      if (this.#end) return;
      this.#wake = Promise.withResolvers();
      await this.#wake.promise;
    }
  }
}
