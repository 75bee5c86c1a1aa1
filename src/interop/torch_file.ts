/**
 * Reads the files of torch.save: a zip of stored entries, `data.pkl` with the objects and `data/<key>` with the bytes of each storage.
 *
 * Nothing is executed (see `pickle.ts`), and tensors are views of the mapped file: dtype, sizes, strides and offset are checked against
 * the storage, whose CRC-32 `verify` checks. Source: torch/serialization.py and torch/_utils.py of PyTorch 2.
 */
import { crc32 } from "node:zlib";
import { readZipDirectory, type ZipDirectoryEntry, zipEntryStart, type ZipSource } from "../data/zip.ts";
import { addressAt, mapFile, type MappedFile, type NativeContext, readMemory, unmapFile } from "../native/files.ts";
import { kindOf, PickledName, readPickle, Tuple } from "./pickle.ts";

/** Element types that are read, by the storage class that torch names, and their sizes in bytes. */
const STORAGES: Readonly<Record<string, { dtype: TorchDtype; bytes: number }>> = {
  "torch.FloatStorage": { dtype: "f32", bytes: 4 },
  "torch.BFloat16Storage": { dtype: "bf16", bytes: 2 },
  "torch.HalfStorage": { dtype: "f16", bytes: 2 },
  "torch.DoubleStorage": { dtype: "f64", bytes: 8 },
  "torch.LongStorage": { dtype: "i64", bytes: 8 },
  "torch.IntStorage": { dtype: "i32", bytes: 4 },
};

/** Element type of a tensor. */
export type TorchDtype = "f64" | "f32" | "bf16" | "f16" | "i64" | "i32";

/** A tensor of the file. */
export interface TorchTensor {
  readonly dtype: TorchDtype;
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** Elements from one index of a dimension to the next. */
  readonly strides: readonly number[];
  /** Whether the elements lie without gaps, the last dimension innermost. */
  readonly isContiguous: boolean;
  /** Offset of its first byte in the file. */
  readonly begin: number;
  /** Bytes of its elements, never more than those of the storage. */
  readonly bytes: number;
}

/** What a file holds. */
export interface TorchContent {
  /** What was saved; a tensor in it is a `TorchTensor`, the rest as in `pickle.ts`. */
  readonly root: unknown;
  /** Where the storages lie that the tensors view. */
  readonly storages: readonly {
    readonly name: string;
    readonly begin: number;
    readonly bytes: number;
    readonly crc: number;
  }[];
}

const MAX_PICKLE_BYTES = 64 << 20;
const MAX_RANK = 8;

/** Tells tensors from other values of a file. */
export function isTensor(value: unknown): value is TorchTensor {
  return value instanceof View;
}

class View implements TorchTensor {
  constructor(
    readonly dtype: TorchDtype,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
    readonly isContiguous: boolean,
    readonly begin: number,
    readonly bytes: number,
  ) {}
}

class Storage {
  constructor(
    readonly dtype: TorchDtype,
    readonly elementBytes: number,
    readonly begin: number,
    readonly size: number,
  ) {}
}

/**
 * Reads the objects of a file of torch.save, and where its storages lie; `what` names the file in errors.
 *
 * @throws {Error} where it is no zip file or damaged, {CheckpointError} "unsafe" where its pickle names a function to run.
 */
export function readTorch(source: ZipSource, what: string): TorchContent {
  const refuse = (problem: string) => new Error(`Cannot read "${what}": ${problem}`);
  const entries = readZipDirectory(source, what);
  const pickle = entries.find(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  if (!pickle) throw refuse("it holds no data.pkl, expected a file of torch.save");
  const folder = pickle.name.slice(0, -"data.pkl".length);
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  const small = (entry: ZipDirectoryEntry, most: number) => {
    if (entry.sizeBytes > most) throw refuse(`${entry.name} has ${entry.sizeBytes} bytes, expected at most ${most}`);
    const bytes = source.read(locate(entry), entry.sizeBytes);
    if (crc32(bytes) !== entry.crc) throw refuse(`the CRC-32 of ${entry.name} is not the one stated`);
    return bytes;
  };
  const locate = (entry: ZipDirectoryEntry) => {
    if (entry.method !== 0 || entry.packedBytes !== entry.sizeBytes) {
      throw refuse(
        `${JSON.stringify(entry.name.slice(0, 200))} is packed, expected a stored entry as torch.save writes`,
      );
    }
    return zipEntryStart(source, entry, what);
  };
  const order = byName.get(`${folder}byteorder`);
  if (order && new TextDecoder().decode(small(order, 16)) !== "little") throw refuse("its byte order is not little");

  const storages = new Map<string, { storage: Storage; entry: ZipDirectoryEntry }>();
  const persistent = (id: unknown): Storage => {
    const [kind, type, key, _location, size] = id instanceof Tuple ? id.items : [];
    const known = type instanceof PickledName ? STORAGES[type.name] : undefined;
    if (kind !== "storage" || !known || typeof key !== "string" || !isCount(size)) {
      throw refuse("a tensor has no storage of a known form, expected (storage, type, key, place, size)");
    }
    const entry = byName.get(`${folder}data/${key}`);
    if (!entry) throw refuse(`storage ${JSON.stringify(key.slice(0, 80))} is missing`);
    const seen = storages.get(key)?.storage;
    const storage = new Storage(known.dtype, known.bytes, seen?.begin ?? locate(entry), size);
    if (entry.sizeBytes !== size * known.bytes || (seen && seen.dtype !== known.dtype)) {
      throw refuse(`storage ${key} has ${entry.sizeBytes} bytes, expected ${size} elements of ${known.dtype}`);
    }
    if (!seen) storages.set(key, { storage, entry });
    return storage;
  };
  const names = [
    new PickledName("collections.OrderedDict", (args) => {
      if (args.length > 0) throw new Error(`${args.length} arguments, expected none`);
      return new Map();
    }),
    new PickledName("torch._utils._rebuild_tensor_v2", rebuildTensor),
    new PickledName("torch._utils._rebuild_parameter", ([data]) => {
      if (!isTensor(data)) throw new Error(`its data are ${kindOf(data)}, expected a tensor`);
      return data;
    }),
    ...Object.keys(STORAGES).map((name) => new PickledName(name)),
  ];
  const root = readPickle(small(pickle, MAX_PICKLE_BYTES), { what, names, persistent });
  return {
    root,
    storages: Array.from(storages.values(), ({ storage, entry }) => ({
      ...{ name: entry.name, begin: storage.begin, bytes: entry.sizeBytes, crc: entry.crc },
    })),
  };
}

/** Checks sizes and strides of a tensor against its storage: (storage, offset, sizes, strides, requires_grad, hooks). */
function rebuildTensor([storage, offset, sizes, strides]: readonly unknown[]): View {
  if (!(storage instanceof Storage)) throw new Error(`its storage is ${kindOf(storage)}`);
  const [shape, steps] = [sizes, strides].map((list) => list instanceof Tuple ? list.items : []) as number[][];
  const areLists = sizes instanceof Tuple && strides instanceof Tuple && shape.length === steps.length;
  if (!areLists || shape.length > MAX_RANK || ![offset, ...shape, ...steps].every(isCount)) {
    throw new Error(`its offset, sizes and strides are malformed, expected counts, of at most ${MAX_RANK} dimensions`);
  }
  const count = shape.reduce((product, size) => product * size, 1);
  const last = shape.reduce((sum, size, i) => sum + (size - 1) * steps[i], offset as number);
  const end = count === 0 ? offset as number : last + 1;
  if (Math.max(end, count) > storage.size) {
    throw new Error(
      `a tensor (${
        shape.join(", ")
      }) takes ${count} elements up to ${end}, expected at most ${storage.size} as in its storage`,
    );
  }
  let step = 1;
  let isContiguous = true;
  for (let i = shape.length - 1; i >= 0; step *= shape[i--]) isContiguous &&= shape[i] === 1 || steps[i] === step;
  const { dtype, elementBytes } = storage;
  const begin = storage.begin + (offset as number) * elementBytes;
  return new View(dtype, shape, steps, isContiguous, begin, count * elementBytes);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

const CRC_BLOCK = 4 << 20;

/** A file of torch.save, mapped into memory. */
export class TorchFile implements Disposable {
  /** Where it lies. */
  readonly path: string;
  /** What was saved. */
  readonly root: unknown;
  readonly #context: NativeContext;
  readonly #file: MappedFile;
  readonly #source: ZipSource;
  readonly #storages: TorchContent["storages"];

  /** Maps a file and reads its objects; `verify` checks the bytes of the tensors. @throws {Error} as `readTorch`. */
  constructor(context: NativeContext, path: string) {
    this.path = path;
    this.#context = context;
    const file = this.#file = mapFile(context, path);
    this.#source = {
      sizeBytes: file.bytes,
      read: (offset, length) => {
        const begin = Math.min(offset, file.bytes);
        const bytes = Math.min(length, file.bytes - begin);
        return readMemory(context, { pointer: addressAt(file.pointer, begin), bytes });
      },
    };
    try {
      ({ root: this.root, storages: this.#storages } = readTorch(this.#source, path));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Checks the CRC-32 of every storage. @throws {Error} naming the one that is damaged. */
  verify(): void {
    for (const { name, begin, bytes, crc } of this.#storages) {
      let sum = 0;
      for (let at = 0; at < bytes; at += CRC_BLOCK) {
        sum = crc32(this.#source.read(begin + at, Math.min(CRC_BLOCK, bytes - at)), sum);
      }
      if (sum !== crc) throw new Error(`Cannot use ${name} of "${this.path}": its CRC-32 is ${sum}, expected ${crc}`);
    }
  }

  /** Address of a tensor's first element; valid until disposal. */
  pointer(tensor: TorchTensor): Deno.PointerObject {
    return addressAt(this.#file.pointer, tensor.begin);
  }

  /** Copies a tensor's elements, one behind the other however they lie. */
  read({ shape, strides, isContiguous, begin, bytes }: TorchTensor): Uint8Array<ArrayBuffer> {
    if (isContiguous || bytes === 0) return this.#source.read(begin, bytes);
    const size = bytes / shape.reduce((product, n) => product * n, 1);
    const all = this.#source.read(begin, size * shape.reduce((sum, n, i) => sum + (n - 1) * strides[i], 1));
    const out = new Uint8Array(bytes);
    const index = shape.map(() => 0);
    for (let to = 0; to < bytes; to += size) {
      const from = size * index.reduce((sum, i, d) => sum + i * strides[d], 0);
      for (let b = 0; b < size; b++) out[to + b] = all[from + b];
      for (let d = shape.length - 1; d >= 0 && ++index[d] === shape[d]; d--) index[d] = 0;
    }
    return out;
  }

  /** Gives the memory back; every pointer is dead afterwards. */
  [Symbol.dispose](): void {
    unmapFile(this.#context, this.#file);
  }
}
