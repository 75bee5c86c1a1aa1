/**
 * Documents of a user's own files: text, JSON lines and Parquet, each optionally as gzip, in any language.
 *
 * A text file of up to 16 KiB is one document; a longer one is cut behind a blank line where there is one, else behind a line, a
 * word or a character. The pieces joined give the file, byte for byte. Invalid UTF-8 is replaced by U+FFFD and counted.
 */
import { basename, extname, join } from "@std/path";
import { ParquetFile } from "./parquet.ts";
import { parseJson } from "./text_file.ts";

/** What was found on the way; the caller says it aloud. */
export interface Findings {
  /** Documents with invalid UTF-8, the replacement characters they got, and where the first one was. */
  replacedDocuments: number;
  replacements: number;
  firstReplaced: string;
  /** Rows without a text. */
  nulls: number;
  /** Text files that were cut into several documents. */
  cutFiles: number;
}

/** Options of `readDocuments`. */
export interface ReadOptions {
  /** Field of a JSON line, or column of a Parquet file, that holds the text. */
  readonly key: string;
  /** Bytes above which a text file is cut. */
  readonly pieceBytes: number;
  readonly findings: Findings;
  /** Is told the bytes read of the input files. */
  readonly onBytes?: (bytes: number) => void;
}

type Bytes = Uint8Array<ArrayBuffer>;

const KINDS: Record<string, "text" | "lines" | "parquet"> = {
  ".txt": "text",
  ".text": "text",
  ".md": "text",
  ".jsonl": "lines",
  ".ndjson": "lines",
  ".parquet": "parquet",
};
const NEWLINE = 10;

/** Bytes above which a text file is cut into documents. */
export const PIECE_BYTES = 16 * 1024;

/** Makes an empty record. */
export function noFindings(): Findings {
  return { replacedDocuments: 0, replacements: 0, firstReplaced: "", nulls: 0, cutFiles: 0 };
}

/** Tells what a file holds by its name; undefined where that is unknown. */
export function inputKind(path: string): "text" | "lines" | "parquet" | undefined {
  return KINDS[extname(path.replace(/\.gz$/i, "")).toLowerCase()];
}

/**
 * Lists the input files of folders (searched through, sorted by name) and single files.
 *
 * @throws {Error} where a path is missing or a single file is of an unknown kind.
 */
export function listInputs(paths: readonly string[]): { files: string[]; leftOut: string[] } {
  const files: string[] = [];
  const leftOut: string[] = [];
  const search = (folder: string) => {
    const entries = Array.from(Deno.readDirSync(folder)).sort((a, b) => a.name < b.name ? -1 : 1);
    for (const { name } of entries) {
      const path = join(folder, name);
      if (name.startsWith(".")) leftOut.push(path);
      else if (Deno.statSync(path).isDirectory) search(path);
      else (inputKind(path) ? files : leftOut).push(path);
    }
  };
  for (const path of paths) {
    let isDirectory: boolean;
    try {
      isDirectory = Deno.statSync(path).isDirectory;
    } catch (cause) {
      throw new Error(`Cannot read "${path}": ${(cause as Error).message}`, { cause });
    }
    if (isDirectory) search(path);
    else if (inputKind(path)) files.push(path);
    else throw new Error(`Cannot read "${path}": unknown kind of file, expected .txt, .md, .jsonl or .parquet`);
  }
  return { files, leftOut };
}

/** Reads the documents of a file as UTF-8. */
export async function* readDocuments(path: string, options: ReadOptions): AsyncGenerator<Bytes> {
  const kind = inputKind(path);
  if (kind === "parquet") yield* parquetDocuments(path, options);
  else if (kind === "lines") yield* lineDocuments(path, options);
  else yield* textDocuments(path, options);
}

async function* parquetDocuments(path: string, { key, findings, onBytes }: ReadOptions): AsyncGenerator<Bytes> {
  using file = ParquetFile.open(path);
  for (let group = 0; group < file.rowGroups; group++) {
    const texts = await file.readBytes(group, key);
    for (let i = 0; i < texts.length; i++) {
      if (texts.isNull(i)) findings.nulls++;
      else {
        const bytes = texts.bytes.slice(texts.offsets[i], texts.offsets[i + 1]) as Bytes;
        yield repaired(bytes, findings, () => `row ${i} of row group ${group} of "${path}"`);
      }
    }
    onBytes?.(file.sizeBytes / file.rowGroups);
  }
}

async function* lineDocuments(path: string, { key, findings, onBytes }: ReadOptions): AsyncGenerator<Bytes> {
  const encoder = new TextEncoder();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let number = 0;
  for await (const line of lines(blocks(path, onBytes))) {
    number++;
    const text = decoder.decode(repaired(line, findings, () => `line ${number} of "${path}"`));
    if (text.trim() === "") continue;
    const where = `Cannot read line ${number} of "${path}"`;
    let row: unknown;
    try {
      row = parseJson(text);
    } catch (cause) {
      throw new SyntaxError(`${where}: it is no JSON (${(cause as Error).message})`, { cause });
    }
    if (typeof row !== "object" || row === null || !Object.hasOwn(row, key)) {
      const keys = typeof row === "object" && row !== null
        ? Object.keys(row).map((k) => JSON.stringify(k)).join(", ")
        : "none";
      throw new Error(`${where}: its keys are ${keys}, expected "${key}"; name another one with --key`);
    }
    const value = (row as Record<string, unknown>)[key];
    if (value === null) findings.nulls++;
    else if (typeof value !== "string") throw new TypeError(`${where}: "${key}" is ${typeof value}, expected a text`);
    else yield encoder.encode(value);
  }
}

async function* textDocuments(path: string, { pieceBytes, findings, onBytes }: ReadOptions): AsyncGenerator<Bytes> {
  let rest: Bytes = new Uint8Array(0);
  let pieces = 0;
  const place = () => `"${path}"`;
  for await (const block of blocks(path, onBytes)) {
    rest = joined(rest, block);
    let at = 0;
    while (rest.length - at > pieceBytes) {
      const end = at + cut(rest.subarray(at, at + pieceBytes));
      yield repaired(rest.slice(at, end), findings, place);
      pieces++;
      at = end;
    }
    rest = rest.slice(at);
  }
  yield repaired(rest, findings, place);
  if (pieces > 0) findings.cutFiles++;
}

/** Where a text is cut that is longer than its piece may be: behind a blank line, a line, a space or at least between characters. */
function cut(piece: Uint8Array): number {
  const least = piece.length >> 2;
  let [line, space] = [0, 0];
  for (let i = piece.length - 1; i >= least; i--) {
    if (piece[i] === NEWLINE) {
      if (piece[i - 1] === NEWLINE || (piece[i - 1] === 13 && piece[i - 2] === NEWLINE)) return i + 1;
      line ||= i + 1;
    } else if (piece[i] === 32) space ||= i + 1;
  }
  if (line || space) return line || space;
  let end = piece.length - 1;
  while (end > 1 && (piece[end] & 0xc0) === 0x80) end--; // a continuation byte stays with its character
  return Math.max(end, 1);
}

/** The bytes of a file in blocks: unpacked, without a byte order mark, UTF-16 turned into UTF-8. */
async function* blocks(path: string, onBytes?: (bytes: number) => void): AsyncGenerator<Bytes> {
  using file = await Deno.open(path);
  const counted = file.readable.pipeThrough(
    new TransformStream<Bytes, Bytes>({
      transform(block, controller) {
        onBytes?.(block.length);
        controller.enqueue(block);
      },
    }),
  );
  const plain = /\.gz$/i.test(path) ? counted.pipeThrough(new DecompressionStream("gzip")) : counted;
  let decoder: TextDecoder | undefined;
  let first = true;
  try {
    for await (let block of plain) {
      if (first) {
        first = false;
        const mark = Array.from(block.subarray(0, 3), (byte) => byte.toString(16)).join(" ");
        if (mark.startsWith("ff fe") || mark.startsWith("fe ff")) {
          decoder = new TextDecoder(mark.startsWith("ff fe") ? "utf-16le" : "utf-16be");
        } else if (mark === "ef bb bf") block = block.subarray(3);
      }
      yield decoder ? new TextEncoder().encode(decoder.decode(block, { stream: true })) : block;
    }
    if (decoder) yield new TextEncoder().encode(decoder.decode());
  } catch (cause) {
    throw new Error(`Cannot read "${path}": ${(cause as Error).message}`, { cause });
  }
}

async function* lines(source: AsyncIterable<Bytes>): AsyncGenerator<Bytes> {
  let parts: Bytes[] = [];
  for await (const block of source) {
    let at = 0;
    for (let end = block.indexOf(NEWLINE); end >= 0; end = block.indexOf(NEWLINE, at)) {
      yield joined(...parts, block.subarray(at, end));
      parts = [];
      at = end + 1;
    }
    parts.push(block.slice(at));
  }
  const last = joined(...parts);
  if (last.length > 0) yield last;
}

function joined(...parts: Bytes[]): Bytes {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const STRICT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const LENIENT = new TextDecoder("utf-8", { ignoreBOM: true });

/** Replaces invalid UTF-8 and counts it. */
function repaired(bytes: Bytes, findings: Findings, place: () => string): Bytes {
  try {
    STRICT.decode(bytes);
    return bytes;
  } catch {
    const fixed = new TextEncoder().encode(LENIENT.decode(bytes));
    findings.replacedDocuments++;
    findings.replacements += replacementMarks(fixed) - replacementMarks(bytes);
    findings.firstReplaced ||= place();
    return fixed;
  }
}

/** Counts U+FFFD in UTF-8. */
function replacementMarks(bytes: Uint8Array): number {
  let count = 0;
  for (let i = bytes.indexOf(0xef); i >= 0; i = bytes.indexOf(0xef, i + 1)) {
    if (bytes[i + 1] === 0xbf && bytes[i + 2] === 0xbd) count++;
  }
  return count;
}

/** Counts the code points of UTF-8. */
export function characters(utf8: Uint8Array): number {
  let count = 0;
  for (let i = 0; i < utf8.length; i++) count += (utf8[i] & 0xc0) !== 0x80 ? 1 : 0;
  return count;
}

/** Short form of a list of files: the first names and how many there are. */
export function fileList(paths: readonly string[]): string {
  const names = paths.slice(0, 3).map((path) => `"${basename(path)}"`).join(", ");
  return paths.length > 3 ? `${names} and ${paths.length - 3} more` : names;
}
