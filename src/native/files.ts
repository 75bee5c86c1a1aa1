/** Files at native speed: mapping, hashing and durable writing, wrapped so that no buffer over native memory leaves this folder. */
import type { Native } from "./call.ts";
import { pointerFrom } from "./call.ts";

/** A native library and a context of it. */
export interface NativeContext {
  /** The functions. */
  readonly nc: Native;
  /** The context that they work in. */
  readonly ctx: Deno.PointerValue;
}

/** A piece of native memory. */
export interface Segment {
  /** Address of the first byte. */
  readonly pointer: Deno.PointerValue;
  /** Size. */
  readonly bytes: number;
}

/** A file in memory, read-only; give it back with `unmapFile`. */
export interface MappedFile {
  /** Address of the first byte. */
  readonly pointer: Deno.PointerObject;
  /** Size of the file. */
  readonly bytes: number;
}

const HASH_BYTES = 32;

/** Maps a file into memory. */
export function mapFile({ nc, ctx }: NativeContext, path: string): MappedFile {
  const out = new BigUint64Array(2);
  const text = new TextEncoder().encode(path);
  nc.file_map(ctx, out, text, text.length);
  return { pointer: pointerFrom(out), bytes: Number(out[1]) };
}

/** Gives a mapped file back; its addresses are dead afterwards. */
export function unmapFile({ nc, ctx }: NativeContext, file: MappedFile): void {
  nc.file_unmap(ctx, file.pointer);
}

/** Copies native host or mapped memory into a new array at once. */
export function readMemory({ nc, ctx }: NativeContext, memory: Segment): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(memory.bytes);
  nc.host_read(ctx, data, memory.pointer, BigInt(memory.bytes));
  return data;
}

/** Gives the address `bytes` further on. */
export function addressAt(pointer: Deno.PointerObject, bytes: number): Deno.PointerObject {
  return Deno.UnsafePointer.create(Deno.UnsafePointer.value(pointer) + BigInt(bytes))!;
}

/** Hashes native memory: the SHA-256 (hex) of each block of `blockBytes`. */
export async function hashMemory(
  { nc, ctx }: NativeContext,
  options: { memory: Segment; blockBytes: number },
): Promise<string[]> {
  const { memory, blockBytes } = options;
  const hashes = hashBuffer(memory.bytes, blockBytes);
  await nc.sha256(ctx, hashes, memory.pointer, BigInt(memory.bytes), BigInt(blockBytes));
  return hashTexts(hashes);
}

/**
 * Writes a file so that it is either whole or absent after any crash (temporary name, sync, rename, sync of the folder): `head`, then
 * the segments of device memory. Returns the SHA-256 (hex) of each block of the file.
 */
export async function writeFile(
  { nc, ctx }: NativeContext,
  options: { path: string; head: Uint8Array<ArrayBuffer>; segments: readonly Segment[]; blockBytes: number },
): Promise<string[]> {
  const { path, head, segments, blockBytes } = options;
  const bytes = segments.reduce((sum, segment) => sum + segment.bytes, head.length);
  const hashes = hashBuffer(bytes, blockBytes);
  const text = new TextEncoder().encode(path);
  const pairs = new BigUint64Array(segments.length * 2);
  for (const [i, segment] of segments.entries()) {
    pairs[2 * i] = Deno.UnsafePointer.value(segment.pointer);
    pairs[2 * i + 1] = BigInt(segment.bytes);
  }
  await nc.file_write(
    ctx,
    hashes,
    text,
    text.length,
    head,
    BigInt(head.length),
    pairs,
    segments.length,
    BigInt(blockBytes),
  );
  return hashTexts(hashes);
}

/** Gives the bytes that this user may still write to the file system of a folder. */
export function freeDiskBytes({ nc, ctx }: NativeContext, folder: string): number {
  const out = new BigUint64Array(1);
  const text = new TextEncoder().encode(folder);
  nc.disk_free(ctx, out, text, text.length);
  return Number(out[0]);
}

function hashBuffer(bytes: number, blockBytes: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Math.ceil(bytes / blockBytes) * HASH_BYTES);
}

function hashTexts(hashes: Uint8Array): string[] {
  return Array.from({ length: hashes.length / HASH_BYTES }, (_, i) => {
    const hash = hashes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES);
    return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
  });
}
