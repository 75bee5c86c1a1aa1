/**
 * Files at native speed: mapping, hashing and durable writing, wrapped so that no buffer over native memory leaves this folder.
 *
 * The CPU library handles files. For another device its memory is brought to the host before it is written, and what is mapped is
 * uploaded, both in pieces.
 */
import type { Native } from "./call.ts";
import { pointerFrom } from "./call.ts";

/** A native library and a context of it. */
export interface NativeContext {
  /** The functions. */
  readonly nc: Native;
  /** The context that they work in. */
  readonly ctx: Deno.PointerValue;
  /** Context of the CPU library that handles files, where this one cannot. */
  readonly host?: NativeContext;
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
/** Bytes of a transfer: larger ones are no faster, and pinned memory is scarce. */
const PIECE_BYTES = 64 << 20;

/** The context that handles files for a device. */
const filesOf = (context: NativeContext): NativeContext => context.host ?? context;

/** Native memory as an array, for as long as a call here runs. */
function viewOf(pointer: Deno.PointerObject, bytes: number, offset: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, bytes, offset));
}

/** Maps a file into memory. */
export function mapFile(context: NativeContext, path: string): MappedFile {
  const { nc, ctx } = filesOf(context);
  const out = new BigUint64Array(2);
  const text = new TextEncoder().encode(path);
  nc.file_map(ctx, out, text, text.length);
  return { pointer: pointerFrom(out), bytes: Number(out[1]) };
}

/** Gives a mapped file back; its addresses are dead afterwards. */
export function unmapFile(context: NativeContext, file: MappedFile): void {
  const { nc, ctx } = filesOf(context);
  nc.file_unmap(ctx, file.pointer);
}

/** Copies native host or mapped memory into a new array at once. */
export function readMemory(context: NativeContext, memory: Segment): Uint8Array<ArrayBuffer> {
  const { nc, ctx } = filesOf(context);
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
  context: NativeContext,
  options: { memory: Segment; blockBytes: number },
): Promise<string[]> {
  const { nc, ctx } = filesOf(context);
  const { memory, blockBytes } = options;
  const hashes = hashBuffer(memory.bytes, blockBytes);
  await nc.sha256(ctx, hashes, memory.pointer, BigInt(memory.bytes), BigInt(blockBytes));
  return hashTexts(hashes);
}

/** Enqueues the copy of mapped memory to a device. */
export function loadMemory(
  context: NativeContext,
  { to, from, bytes }: { to: Deno.PointerValue; from: Deno.PointerObject; bytes: number },
): void {
  const { nc, ctx, host } = context;
  if (!host) return nc.copy(ctx, to, from, BigInt(bytes));
  const start = Deno.UnsafePointer.value(to);
  for (let at = 0; at < bytes; at += PIECE_BYTES) {
    const piece = Math.min(PIECE_BYTES, bytes - at);
    const pointer = Deno.UnsafePointer.create(start + BigInt(at));
    nc.upload(ctx, pointer, viewOf(from, piece, at), BigInt(piece));
  }
}

/**
 * Writes a file so that it is either whole or absent after any crash (temporary name, sync, rename, sync of the folder): `head`, then
 * the segments of device memory. Returns the SHA-256 (hex) of each block of the file.
 */
export async function writeFile(
  context: NativeContext,
  options: { path: string; head: Uint8Array<ArrayBuffer>; segments: readonly Segment[]; blockBytes: number },
): Promise<string[]> {
  const { nc, ctx } = filesOf(context);
  const { path, head, blockBytes } = options;
  const { segments, release } = await bringToHost(context, options.segments);
  try {
    const bytes = segments.reduce((sum, segment) => sum + segment.bytes, head.length);
    const hashes = hashBuffer(bytes, blockBytes);
    const text = new TextEncoder().encode(path);
    const pairs = new BigUint64Array(segments.length * 2);
    for (const [i, segment] of segments.entries()) {
      pairs[2 * i] = Deno.UnsafePointer.value(segment.pointer);
      pairs[2 * i + 1] = BigInt(segment.bytes);
    }
    await nc.file_write(
      ...[ctx, hashes, text, text.length, head, BigInt(head.length)] as const,
      ...[pairs, segments.length, BigInt(blockBytes)] as const,
    );
    return hashTexts(hashes);
  } finally {
    release();
  }
}

/** Copies segments of a device into memory of its host; on the CPU they are there. */
async function bringToHost(
  { nc, ctx, host }: NativeContext,
  segments: readonly Segment[],
): Promise<{ segments: readonly Segment[]; release: () => void }> {
  const total = segments.reduce((sum, { bytes }) => sum + bytes, 0);
  if (!host || total === 0) return { segments, release: () => {} };
  const out = new BigUint64Array(1);
  host.nc.alloc(host.ctx, out, BigInt(total));
  const memory = pointerFrom(out);
  nc.host_alloc(ctx, out, BigInt(Math.min(total, PIECE_BYTES)));
  const pinned = pointerFrom(out);
  let offset = 0;
  const brought: Segment[] = [];
  for (const { pointer, bytes } of segments) {
    brought.push({ pointer: addressAt(memory, offset), bytes });
    for (let at = 0; at < bytes; at += PIECE_BYTES) {
      const piece = Math.min(PIECE_BYTES, bytes - at);
      nc.copy(ctx, pinned, Deno.UnsafePointer.create(Deno.UnsafePointer.value(pointer) + BigInt(at)), BigInt(piece));
      await nc.wait(ctx);
      nc.host_read(ctx, viewOf(memory, piece, offset + at), pinned, BigInt(piece));
    }
    offset += bytes;
  }
  nc.free(ctx, pinned);
  return { segments: brought, release: () => host.nc.free(host.ctx, memory) };
}

/** Gives the bytes that this user may still write to the file system of a folder. */
export function freeDiskBytes(context: NativeContext, folder: string): number {
  const { nc, ctx } = filesOf(context);
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
