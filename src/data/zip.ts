/**
 * Reads zip files (PKWARE APPNOTE 6.3: stored and deflated entries, zip64, no encryption) that come from elsewhere.
 *
 * Nothing is written outside the folder: names with "..", absolute names, backslashes, drives and links are refused before the first
 * byte is written. Every entry must have the size and the CRC-32 that the directory states.
 */
import { crc32 } from "node:zlib";
import { dirname, join } from "@std/path";

/** An entry as the directory states it. */
export interface ZipDirectoryEntry {
  /** Path with slashes; a folder has one at its end. */
  readonly name: string;
  /** 0 = stored, 8 = deflated. */
  readonly method: number;
  /** CRC-32 of the content. */
  readonly crc: number;
  /** Size in the file. */
  readonly packedBytes: number;
  /** Size of the content. */
  readonly sizeBytes: number;
  /** Where the local header begins. */
  readonly offset: number;
}

/** The bytes of a zip file, wherever they are. */
export interface ZipSource {
  /** Size of the file. */
  readonly sizeBytes: number;
  /** Reads `length` bytes, fewer where the file ends. */
  read(offset: number, length: number): Uint8Array<ArrayBuffer>;
}

const END = 0x06054b50;
const END64 = 0x06064b50;
const LOCATOR64 = 0x07064b50;
const FULL16 = 0xffff; // stands for a number in a zip64 field, as FULL32
const FULL32 = 0xffffffff;
const DIRECTORY = 0x02014b50;
const LOCAL = 0x04034b50;
const END_BYTES = 22;
const END64_BYTES = 56;
const LOCATOR64_BYTES = 20;
const MAX_DIRECTORY_BYTES = 64 << 20;
const BLOCK = 1 << 20;

/** Lists a zip file: names, folders with a slash at the end, and sizes. @throws {Error} where it is no zip file or a name is unsafe. */
export function listZip(path: string): readonly ZipDirectoryEntry[] {
  using file = Deno.openSync(path);
  return readZipDirectory(sourceOf(file), path);
}

function sourceOf(file: Deno.FsFile): ZipSource {
  return { sizeBytes: file.statSync().size, read: (offset, length) => readAt(file, offset, length) };
}

/**
 * Unpacks a zip file into a folder, which is created where it is missing.
 *
 * @throws {Error} where the file is damaged, or an entry is unsafe, encrypted or packed in another way.
 */
export async function extractZip(path: string, folder: string): Promise<void> {
  using file = Deno.openSync(path);
  const source = sourceOf(file);
  for (const entry of readZipDirectory(source, path)) {
    const target = join(folder, entry.name);
    const isFolder = entry.name.endsWith("/");
    Deno.mkdirSync(folder, { recursive: true });
    let out: Deno.FsFile | undefined;
    try {
      Deno.mkdirSync(isFolder ? target : dirname(target), { recursive: true });
      if (!isFolder) out = Deno.openSync(target, { write: true, createNew: true });
    } catch (cause) {
      // Such as a name that is a file and a folder at once, or too long for this system.
      throw new Error(`Cannot unpack ${show(entry.name)} of "${path}": ${(cause as Error).message}`, { cause });
    }
    if (out) await extractEntry(source, entry, { path, out });
  }
}

/** A name for a message: in one line, and not without end. */
function show(name: string): string {
  return JSON.stringify(name.slice(0, 200));
}

/**
 * Finds where the bytes of an entry begin, behind its local header.
 *
 * @throws {Error} where the header is missing or the bytes reach behind the end of the file.
 */
export function zipEntryStart(source: ZipSource, entry: ZipDirectoryEntry, path: string): number {
  const refuse = (what: string) => new Error(`Cannot read ${show(entry.name)} of "${path}": ${what}`);
  const header = source.read(entry.offset, 30);
  const view = viewOf(header);
  if (header.length < 30 || view.getUint32(0, true) !== LOCAL) throw refuse("its header is missing");
  const start = entry.offset + 30 + view.getUint16(26, true) + view.getUint16(28, true);
  if (start + entry.packedBytes > source.sizeBytes) {
    throw refuse(`it ends at byte ${start + entry.packedBytes}, expected at most ${source.sizeBytes}, the file's size`);
  }
  return start;
}

async function extractEntry(
  source: ZipSource,
  entry: ZipDirectoryEntry,
  { path, out }: { path: string; out: Deno.FsFile },
): Promise<void> {
  using _ = out;
  const refuse = (what: string) => new Error(`Cannot unpack ${show(entry.name)} of "${path}": ${what}`);
  const start = zipEntryStart(source, entry, path);
  let at = start;
  const end = start + entry.packedBytes;
  const packed = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller) {
      const block = source.read(at, Math.min(BLOCK, end - at));
      if (block.length > 0) controller.enqueue(block);
      at += block.length;
      if (at >= end || block.length === 0) controller.close();
    },
  });
  const plain = entry.method === 0 ? packed : packed.pipeThrough(new DecompressionStream("deflate-raw"));
  let size = 0, crc = 0;
  try {
    for await (const chunk of plain) {
      size += chunk.length;
      if (size > entry.sizeBytes) break; // a bomb: no more is written than was announced
      crc = crc32(chunk, crc);
      for (let written = 0; written < chunk.length;) written += out.writeSync(chunk.subarray(written));
    }
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause; // what DecompressionStream throws for damaged data
    throw refuse(`its data are damaged (${cause.message}), expected a deflate stream`);
  }
  if (size !== entry.sizeBytes) {
    throw refuse(`it has ${size > entry.sizeBytes ? "more" : size} bytes, expected ${entry.sizeBytes}`);
  }
  if (crc !== entry.crc) throw refuse(`its CRC-32 is ${crc}, expected ${entry.crc}`);
}

/**
 * Reads the directory at the end of a zip file and checks every entry before any is used; `path` names the file in errors.
 *
 * @throws {Error} where it is no zip file or an entry is unsafe.
 */
export function readZipDirectory(source: ZipSource, path: string): ZipDirectoryEntry[] {
  const refuse = (what: string) => new Error(`Cannot read "${path}": ${what}`);
  const { sizeBytes } = source;
  const tailAt = Math.max(0, sizeBytes - END_BYTES - LOCATOR64_BYTES - 0xffff);
  const tail = source.read(tailAt, sizeBytes - tailAt);
  const tailView = viewOf(tail);
  let at = tail.length - END_BYTES;
  while (at >= 0 && tailView.getUint32(at, true) !== END) at--;
  if (at < 0) throw refuse("it has no directory at its end, expected a zip file");
  let count = tailView.getUint16(at + 10, true);
  let [bytes, offset] = [tailView.getUint32(at + 12, true), tailView.getUint32(at + 16, true)];
  if (count === FULL16 || bytes === FULL32 || offset === FULL32) {
    const locator = at - LOCATOR64_BYTES;
    const isThere = locator >= 0 && tailView.getUint32(locator, true) === LOCATOR64;
    const end64 = isThere ? number64(tailView, locator + 8) : sizeBytes;
    const end = end64 < sizeBytes ? source.read(end64, END64_BYTES) : new Uint8Array();
    const view = viewOf(end);
    if (end.length < END64_BYTES || view.getUint32(0, true) !== END64) {
      throw refuse("the zip64 end of its directory is missing, expected a whole zip file");
    }
    [count, bytes, offset] = [32, 40, 48].map((field) => number64(view, field));
  }
  if (offset + bytes > sizeBytes) throw refuse("its directory lies behind its end, expected a whole zip file");
  if (bytes > MAX_DIRECTORY_BYTES) {
    throw refuse(`its directory has ${bytes} bytes, expected at most ${MAX_DIRECTORY_BYTES}`);
  }
  const directory = source.read(offset, bytes);
  const view = viewOf(directory);
  const entries: ZipDirectoryEntry[] = [];
  const names = new Set<string>();
  for (let i = 0, next = 0; i < count; i++) {
    if (next + 46 > directory.length || view.getUint32(next, true) !== DIRECTORY) {
      throw refuse(`its directory ends at entry ${i}, expected ${count}`);
    }
    const u16 = (field: number) => view.getUint16(next + field, true);
    const u32 = (field: number) => view.getUint32(next + field, true);
    const name = new TextDecoder().decode(directory.subarray(next + 46, next + 46 + u16(28)));
    const shown = `entry ${show(name)}`;
    if (!isSafeName(name)) throw refuse(`${shown} would leave the folder, expected a path inside it`);
    // The upper half of the attributes is the Unix mode: a link could lead out of the folder.
    const kind = (u32(38) >>> 16) & 0o170000;
    if (kind !== 0 && kind !== 0o100000 && kind !== 0o040000) {
      throw refuse(`${shown} is a link or a device, expected files and folders`);
    }
    if (u16(8) & 1) throw refuse(`${shown} is encrypted, expected a plain one`);
    if (u16(10) !== 0 && u16(10) !== 8) {
      throw refuse(`${shown} has method ${u16(10)}, expected 0 or 8 (deflate)`);
    }
    if (names.has(name)) throw refuse(`${shown} is there twice, expected every name once`);
    names.add(name);
    const extra = directory.subarray(next + 46 + u16(28), next + 46 + u16(28) + u16(30));
    const [sizeBytes, packedBytes, offset] = widen([u32(24), u32(20), u32(42)], extra);
    if (Math.max(sizeBytes, packedBytes, offset) > Number.MAX_SAFE_INTEGER) {
      throw refuse(`${shown} has an impossible size`);
    }
    entries.push({ name, method: u16(10), crc: u32(16), packedBytes, sizeBytes, offset });
    next += 46 + u16(28) + u16(30) + u16(32);
  }
  return entries;
}

/** Replaces the numbers that do not fit into 32 bits by those of the zip64 field, which holds only these, in order. */
function widen(numbers: readonly number[], extra: Uint8Array): number[] {
  const view = viewOf(extra);
  let [at, end] = [0, 0];
  for (let field = 0; field + 4 <= extra.length; field += 4 + view.getUint16(field + 2, true)) {
    if (view.getUint16(field, true) === 1) {
      [at, end] = [field + 4, Math.min(extra.length, field + 4 + view.getUint16(field + 2, true))];
    }
  }
  return numbers.map((number) => {
    if (number !== FULL32) return number;
    at += 8;
    return at <= end ? number64(view, at - 8) : Infinity;
  });
}

function number64(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}

/** Tells whether a name stays inside the folder on every system. */
function isSafeName(name: string): boolean {
  if (name === "" || name.startsWith("/") || /[\\:\0]/.test(name)) return false;
  return name.replace(/\/$/, "").split("/").every((part) => part !== "" && part !== "." && part !== "..");
}

function readAt(file: Deno.FsFile, offset: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  file.seekSync(offset, Deno.SeekMode.Start);
  let done = 0;
  while (done < length) {
    const read = file.readSync(bytes.subarray(done));
    if (read === null) break;
    done += read;
  }
  return bytes.subarray(0, done);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
