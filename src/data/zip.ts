/**
 * Unpacks zip files (PKWARE APPNOTE 6.3: stored and deflated entries, no zip64, no encryption) that come from elsewhere.
 *
 * Nothing is written outside the folder: names with "..", absolute names, backslashes, drives and links are refused before the first
 * byte is written. Every entry must have the size and the CRC-32 that the directory states.
 */
import { crc32 } from "node:zlib";
import { dirname, join } from "@std/path";

interface Entry {
  readonly name: string;
  readonly method: number;
  readonly crc: number;
  readonly packedBytes: number;
  readonly sizeBytes: number;
  /** Where the local header begins. */
  readonly offset: number;
}

const END = 0x06054b50;
const DIRECTORY = 0x02014b50;
const LOCAL = 0x04034b50;
const END_BYTES = 22;
const BLOCK = 1 << 20;

/** Lists a zip file: names, folders with a slash at the end, and sizes. @throws {Error} where it is no zip file or a name is unsafe. */
export function listZip(path: string): readonly Readonly<Pick<Entry, "name" | "sizeBytes">>[] {
  using file = Deno.openSync(path);
  return readDirectory(file, path);
}

/**
 * Unpacks a zip file into a folder, which is created where it is missing.
 *
 * @throws {Error} where the file is damaged, or an entry is unsafe, encrypted or packed in another way.
 */
export async function extractZip(path: string, folder: string): Promise<void> {
  using file = Deno.openSync(path);
  for (const entry of readDirectory(file, path)) {
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
    if (out) await extractEntry(file, entry, { path, out });
  }
}

/** A name for a message: in one line, and not without end. */
function show(name: string): string {
  return JSON.stringify(name.slice(0, 200));
}

async function extractEntry(
  file: Deno.FsFile,
  entry: Entry,
  { path, out }: { path: string; out: Deno.FsFile },
): Promise<void> {
  using _ = out;
  const refuse = (what: string) => new Error(`Cannot unpack ${show(entry.name)} of "${path}": ${what}`);
  const header = readAt(file, entry.offset, 30);
  const view = viewOf(header);
  if (header.length < 30 || view.getUint32(0, true) !== LOCAL) throw refuse("its header is missing");
  const start = entry.offset + 30 + view.getUint16(26, true) + view.getUint16(28, true);
  let at = start;
  const end = start + entry.packedBytes;
  const packed = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller) {
      const block = readAt(file, at, Math.min(BLOCK, end - at));
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

/** Reads the directory at the end of the file and checks every entry before any is used. */
function readDirectory(file: Deno.FsFile, path: string): Entry[] {
  const refuse = (what: string) => new Error(`Cannot read "${path}": ${what}`);
  const sizeBytes = file.statSync().size;
  const tailAt = Math.max(0, sizeBytes - END_BYTES - 0xffff);
  const tail = readAt(file, tailAt, sizeBytes - tailAt);
  const tailView = viewOf(tail);
  let at = tail.length - END_BYTES;
  while (at >= 0 && tailView.getUint32(at, true) !== END) at--;
  if (at < 0) throw refuse("it has no directory at its end, expected a zip file");
  const count = tailView.getUint16(at + 10, true);
  const [bytes, offset] = [tailView.getUint32(at + 12, true), tailView.getUint32(at + 16, true)];
  if (count === 0xffff || offset === 0xffffffff) throw refuse("it is a zip64 file, expected one below 4 GiB");
  if (offset + bytes > sizeBytes) throw refuse("its directory lies behind its end, expected a whole zip file");
  const directory = readAt(file, offset, bytes);
  const view = viewOf(directory);
  const entries: Entry[] = [];
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
    entries.push({ name, method: u16(10), crc: u32(16), packedBytes: u32(20), sizeBytes: u32(24), offset: u32(42) });
    next += 46 + u16(28) + u16(30) + u16(32);
  }
  return entries;
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
