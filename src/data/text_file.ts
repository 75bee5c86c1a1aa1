/** Text files of rows: JSON lines and CSV, plain or gzip, each row with the line that it stands on for the messages. */
import { pythonStrip } from "./python_text.ts";

/** A value and the line that it began on, from 1. */
export interface Line<T> {
  /** Line number. */
  readonly line: number;
  /** What stands there. */
  readonly value: T;
}

/**
 * Reads a UTF-8 text file, without the mark that some programs put in front; one that ends in .gz is decompressed.
 *
 * @throws {SyntaxError} where it is no gzip, or naming the first line that is no UTF-8. A file that is missing throws
 * Deno.errors.NotFound.
 */
export async function readText(path: string): Promise<string> {
  let bytes = await Deno.readFile(path);
  try {
    if (path.endsWith(".gz")) {
      const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      bytes = await new Response(plain).bytes();
    }
  } catch (cause) {
    throw new SyntaxError(`Cannot read "${path}": ${(cause as Error).message}, expected gzip`, { cause });
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    const line = firstInvalidLine(bytes);
    throw new SyntaxError(`Cannot read "${path}", line ${line}: it holds other bytes, expected UTF-8 text`, { cause });
  }
}

/** Number of the first line that is no UTF-8, from 1; a line break is no part of a longer character. */
function firstInvalidLine(bytes: Uint8Array): number {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for (let line = 1, start = 0;; line++) {
    const end = bytes.indexOf(10, start);
    try {
      decoder.decode(bytes.subarray(start, end < 0 ? undefined : end));
    } catch {
      return line;
    }
    start = end + 1;
  }
}

/**
 * Parses JSON, with a message of one line: the engine's own quotes the text, line breaks included, and calls a single line the first.
 *
 * @throws {SyntaxError} whose message says what is wrong.
 */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const message = (cause as Error).message.replace(/\s+/g, " ");
    const isLine = !text.trimEnd().includes("\n");
    throw new SyntaxError(
      isLine ? message.replace(/ at position \d+ \(line 1 column (\d+)\)/, " at column $1") : message,
      {
        cause,
      },
    );
  }
}

/**
 * Reads JSON lines; blank lines are passed over.
 *
 * @throws {SyntaxError} naming the line that is no JSON.
 */
export async function readJsonLines(path: string): Promise<Line<unknown>[]> {
  const rows: Line<unknown>[] = [];
  for (const [i, text] of (await readText(path)).split("\n").entries()) {
    if (pythonStrip(text) === "") continue;
    try {
      rows.push({ line: i + 1, value: parseJson(text) });
    } catch (cause) {
      const what = (cause as Error).message;
      throw new SyntaxError(`Cannot read "${path}", line ${i + 1}: ${what}, expected one JSON value a line`, { cause });
    }
  }
  return rows;
}

/**
 * Reads CSV as RFC 4180 has it (quotes doubled inside quotes, line breaks allowed there), every record with `columns` fields, by default
 * as many as the first one.
 *
 * @throws {SyntaxError} naming the line of a record with other than `columns` fields or with a quote that never ends.
 */
export async function readCsv(path: string, columns?: number): Promise<Line<string[]>[]> {
  const text = await readText(path);
  const rows: Line<string[]>[] = [];
  const field = /("(?:[^"]|"")*"|[^,\r\n"][^,\r\n]*|)(,|\r?\n|$)/y;
  let line = 1;
  while (field.lastIndex < text.length) {
    const start = line;
    const fields: string[] = [];
    for (let end = ","; end === ",";) {
      const at = field.lastIndex;
      const match = field.exec(text);
      if (match === null) {
        const found = JSON.stringify(text.slice(at, at + 20));
        throw new SyntaxError(
          `Cannot read "${path}", line ${line}: a field begins ${found}, expected its quotes closed`,
        );
      }
      fields.push(match[1].startsWith('"') ? match[1].slice(1, -1).replaceAll('""', '"') : match[1]);
      line += match[0].split("\n").length - 1;
      end = match[2];
    }
    if (fields.length === 1 && fields[0] === "") continue; // a blank line
    columns ??= fields.length;
    if (fields.length !== columns) {
      throw new SyntaxError(`Cannot read "${path}", line ${start}: ${fields.length} fields, expected ${columns}`);
    }
    rows.push({ line: start, value: fields });
  }
  return rows;
}
