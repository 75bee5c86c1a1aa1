/**
 * Answers that are streams of server-sent events: one `data:` line each, a comment every 15 seconds while nothing happens, so that no
 * proxy closes the connection, and the end of the work when the client goes.
 */

/** Time, as tests may replace it. */
export interface Clock {
  /** Calls once after a while; what it returns takes the call back. */
  after(ms: number, call: () => void): () => void;
}

/** The time of the machine. */
export const SYSTEM_CLOCK: Clock = {
  after(ms, call) {
    const timer = setTimeout(call, ms);
    return () => clearTimeout(timer);
  },
};

/** How long a stream is silent at most. */
const SILENT_MS = 15_000;
const WAITING = ": waiting\n\n";
const HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  // nginx would collect events otherwise.
  "x-accel-buffering": "no",
};

/** Settings of one stream. */
export interface EventStreamOptions {
  /** Aborted where the client goes before the end. */
  readonly abort: AbortController;
  readonly clock: Clock;
  /** Writes the last event of a stream that fails midway. */
  readonly onError: (error: unknown) => string;
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * Answers with events. What fails before the first event, within 15 seconds, is thrown: it still gets a status of its own; what
 * fails later ends the stream with an event that says so.
 *
 * @param events the data of each event, without line breaks
 */
export async function streamEvents(
  events: AsyncIterator<string>,
  { abort, clock, onError, headers }: EventStreamOptions,
): Promise<Response> {
  const waiting = new PatientReader(events, clock);
  let first: ReadResult | undefined = await waiting.read();
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const send = (text: string) => controller.enqueue(encoder.encode(text));
      try {
        const result = first ?? await waiting.read();
        first = undefined;
        if (result === "silent") send(WAITING);
        else if (result.done) controller.close();
        else send(`data: ${result.value}\n\n`);
      } catch (error) {
        send(`data: ${onError(error)}\n\n`);
        controller.close();
      }
    },
    cancel() {
      abort.abort();
      waiting.leave();
    },
  }, { highWaterMark: 0 });
  return new Response(body, { headers: { ...HEADERS, ...headers } });
}

type ReadResult = IteratorResult<string> | "silent";

/** Reads an iteration, and says so where its next step takes long. */
class PatientReader {
  readonly #events: AsyncIterator<string>;
  readonly #clock: Clock;
  #next: Promise<IteratorResult<string>> | undefined;

  constructor(events: AsyncIterator<string>, clock: Clock) {
    this.#events = events;
    this.#clock = clock;
  }

  async read(): Promise<ReadResult> {
    this.#next ??= this.#events.next();
    const silence = Promise.withResolvers<"silent">();
    const cancel = this.#clock.after(SILENT_MS, () => silence.resolve("silent"));
    try {
      const result = await Promise.race([this.#next, silence.promise]);
      if (result !== "silent") this.#next = undefined;
      return result;
    } finally {
      cancel();
    }
  }

  /** Ends the iteration at its next step; nobody hears what it still says. */
  leave(): void {
    this.#next?.catch(() => {});
    this.#events.return?.().catch(() => {});
  }
}
