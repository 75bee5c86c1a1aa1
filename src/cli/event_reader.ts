/**
 * Reads server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): gives the data of each event. Lines may end
 * in LF, CR LF or CR and be cut anywhere, also inside of a character. Comments and other fields are passed over.
 */

/** Characters that a line, and the data of an event, may have. */
export const MAX_EVENT_CHARS = 1 << 20;

/**
 * Gives the data of each event; an event that the end cuts off is left out, as the standard has it.
 *
 * @throws {SyntaxError} where a line or an event has more than `MAX_EVENT_CHARS` characters.
 */
export async function* readEvents(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string, void, void> {
  let data: string[] = [];
  let length = 0;
  for await (const line of readLines(body)) {
    if (line === "") {
      if (data.length > 0) yield data.join("\n");
      data = [];
      length = 0;
      continue;
    }
    const [_, field, value] = /^([^:]*):? ?([^]*)$/.exec(line)!;
    if (field !== "data") continue;
    length += value.length;
    if (length > MAX_EVENT_CHARS) throw tooLong();
    data.push(value);
  }
}

async function* readLines(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string, void, void> {
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    // A CR at the end may be half of a CR LF: it waits for what follows.
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop()!;
    yield* lines;
    if (rest.length > MAX_EVENT_CHARS) throw tooLong();
  }
  if (rest.endsWith("\r")) yield rest.slice(0, -1);
}

function tooLong(): SyntaxError {
  return new SyntaxError(`an event has more than ${MAX_EVENT_CHARS} characters`);
}
