/**
 * What a parity module works with: the files of one golden folder, comparisons that print one line each, and the record of what was
 * read, so that a tensor that nobody compared is a failure and not silence.
 */
import { join, relative } from "@std/path";

/** A tensor read from a golden file; integers and bf16 are widened losslessly. */
export interface GoldenTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Float32Array | Float64Array | Int32Array;
}

/** Bounds of a comparison: the largest absolute error, the largest relative error, ||a-b|| / ||b||. All given ones must hold. */
export interface Tolerance {
  readonly abs?: number;
  readonly rel?: number;
  readonly relL2?: number;
}

type Numbers = ArrayLike<number>;

/** One golden folder under test. */
export class Parity {
  /** Absolute path of the folder. */
  readonly folder: string;
  /** Root of the golden set: other folders' files are reached through it. */
  readonly root: string;
  passed = 0;
  failed = 0;
  skipped = 0;
  readonly #read = new Map<string, Set<string>>(); // file -> tensors read
  readonly #known = new Map<string, Set<string>>(); // file -> all tensors
  readonly #notes: { pattern: RegExp; reason: string }[] = [];
  readonly #print: (line: string) => void;

  constructor(root: string, name: string, print: (line: string) => void) {
    this.root = root;
    this.folder = join(root, name);
    this.#print = print;
  }

  /** Lists the folder's files (paths relative to it), sorted. */
  files(): string[] {
    const found: string[] = [];
    const walk = (folder: string) => {
      for (const entry of Deno.readDirSync(folder)) {
        const path = join(folder, entry.name);
        if (entry.isDirectory) walk(path);
        else found.push(relative(this.folder, path));
      }
    };
    walk(this.folder);
    return found.sort();
  }

  /** Tells whether a file exists. */
  has(name: string): boolean {
    try {
      return Deno.statSync(join(this.folder, name)).isFile;
    } catch {
      return false;
    }
  }

  // deno-lint-ignore no-explicit-any
  json(name: string): any {
    this.#read.set(name, new Set());
    return JSON.parse(Deno.readTextFileSync(join(this.folder, name)));
  }

  /** Reads a file as bytes. */
  bytes(name: string): Uint8Array {
    this.#read.set(name, new Set());
    return Deno.readFileSync(join(this.folder, name));
  }

  /** Opens a safetensors file; a tensor counts as read when it is taken out of the map. */
  tensors(name: string): GoldenTensors {
    const tensors = readSafetensors(Deno.readFileSync(join(this.folder, name)));
    const read = this.#read.get(name) ?? new Set<string>();
    this.#read.set(name, read);
    this.#known.set(name, new Set(tensors.keys()));
    return new GoldenTensors(name, tensors, read);
  }

  /** Marks files or tensors ("file:tensor") whose names match as informative, with the reason why nothing compares them. */
  note(pattern: RegExp, reason: string): void {
    this.#notes.push({ pattern, reason });
  }

  /** Compares numbers within a tolerance; one case. */
  close(label: string, actual: Numbers, expected: Numbers, tolerance: Tolerance): void {
    if (actual.length !== expected.length) {
      return this.#case(false, label, `${actual.length} values, expected ${expected.length}`);
    }
    let abs = 0, rel = 0, difference = 0, norm = 0, finite = true;
    for (let i = 0; i < actual.length; i++) {
      const d = Math.abs(actual[i] - expected[i]);
      if (Number.isNaN(d)) finite = false;
      abs = Math.max(abs, d);
      rel = Math.max(rel, d / Math.max(Math.abs(expected[i]), 1e-30));
      difference += d * d;
      norm += expected[i] * expected[i];
    }
    const relL2 = norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
    const measured: Required<Tolerance> = { abs, rel, relL2 };
    const parts: string[] = [];
    let ok = finite;
    for (const [kind, bound] of Object.entries(tolerance) as [keyof Tolerance, number][]) {
      if (!(measured[kind] <= bound)) ok = false;
      parts.push(`${kind} ${measured[kind].toExponential(1)} of ${bound.toExponential(1)}`);
    }
    this.#case(ok, label, finite ? parts.join(", ") : "NaN");
  }

  /** Compares values exactly (by their JSON); one case. */
  equal(label: string, actual: unknown, expected: unknown): void {
    const [a, b] = [JSON.stringify(plain(actual)), JSON.stringify(plain(expected))];
    this.#case(a === b, label, a === b ? "equal" : `is ${cut(a)}, expected ${cut(b)}`);
  }

  /** Says aloud that a part cannot be compared with this golden set. */
  skip(label: string, reason: string): void {
    this.skipped++;
    this.#print(`skip ${label}: ${reason}`);
  }

  /** Lists everything that no case read and no note explains. */
  unread(): string[] {
    const names: string[] = [];
    for (const file of this.files()) {
      if (!this.#read.has(file)) names.push(file);
      const read = this.#read.get(file);
      for (const tensor of this.#known.get(file) ?? []) if (!read?.has(tensor)) names.push(`${file}:${tensor}`);
    }
    return names.filter((name) => !this.#notes.some(({ pattern }) => pattern.test(name)));
  }

  #case(ok: boolean, label: string, figures: string): void {
    if (ok) this.passed++;
    else this.failed++;
    this.#print(`${ok ? "ok  " : "FAIL"} ${label}: ${figures}`);
  }
}

/** Tensors of one file by name. */
export class GoldenTensors {
  readonly #name: string;
  readonly #tensors: Map<string, GoldenTensor>;
  readonly #read: Set<string>;
  constructor(name: string, tensors: Map<string, GoldenTensor>, read: Set<string>) {
    this.#name = name;
    this.#tensors = tensors;
    this.#read = read;
  }
  /** All names, sorted. */
  names(): string[] {
    return [...this.#tensors.keys()].sort();
  }
  has(name: string): boolean {
    return this.#tensors.has(name);
  }
  /** @throws {Error} where the file lacks the tensor. */
  get(name: string): GoldenTensor {
    const tensor = this.#tensors.get(name);
    if (!tensor) {
      throw new Error(
        `Cannot read "${name}": ${this.#name} has no such tensor, expected one of ${this.names().join(", ")}`,
      );
    }
    this.#read.add(name);
    return tensor;
  }
  /** The float64 twin of a tensor, read as the noise of the recording. */
  noise(name: string): number | null {
    const twin = this.#tensors.get(`${name}_f64`);
    if (!twin) return null;
    const exact = this.get(`${name}_f64`).data, single = this.get(name).data;
    let worst = 0;
    for (let i = 0; i < single.length; i++) worst = Math.max(worst, Math.abs(single[i] - exact[i]));
    return worst;
  }
}

/** Returns the largest magnitude. */
export function largest(values: Numbers): number {
  let max = 0;
  for (let i = 0; i < values.length; i++) max = Math.max(max, Math.abs(values[i]));
  return max;
}

/** Decodes a safetensors file. */
export function readSafetensors(bytes: Uint8Array): Map<string, GoldenTensor> {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const headerBytes = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)));
  const tensors = new Map<string, GoldenTensor>();
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries<SafetensorsEntry>(header)) {
    if (name === "__metadata__") continue;
    const raw = bytes.slice(8 + headerBytes + from, 8 + headerBytes + to).buffer;
    tensors.set(name, { dtype, shape, data: widen(dtype, raw) });
  }
  return tensors;
}

function widen(dtype: string, raw: ArrayBuffer): GoldenTensor["data"] {
  switch (dtype) {
    case "F32":
      return new Float32Array(raw);
    case "F64":
      return new Float64Array(raw);
    case "I32":
      return new Int32Array(raw);
    case "I64":
      return Int32Array.from(new BigInt64Array(raw), Number);
    case "U16":
      return Int32Array.from(new Uint16Array(raw));
    case "U8":
    case "BOOL":
      return Int32Array.from(new Uint8Array(raw));
    case "BF16": {
      const wide = new Float32Array(raw.byteLength / 2);
      const bits = new Uint32Array(wide.buffer);
      new Uint16Array(raw).forEach((x, i) => bits[i] = x << 16);
      return wide;
    }
    default:
      throw new Error(`Cannot read a golden tensor: dtype ${dtype}, expected F32, F64, BF16, I32, I64, U16 or U8`);
  }
}

function plain(value: unknown): unknown {
  return ArrayBuffer.isView(value) ? Array.from(value as unknown as ArrayLike<number>) : value;
}

function cut(text: string): string {
  return text.length > 160 ? `${text.slice(0, 160)}...` : text;
}

interface SafetensorsEntry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}
