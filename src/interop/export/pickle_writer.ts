/**
 * Writes pickles (Python's object format, PEP 307 and 3154): plain values, tensors as torch.save describes them, and the instances of a
 * class. What `../pickle.ts` reads, without its memo: every value is written where it stands.
 */
import { Tuple } from "../pickle.ts";
import { Bytes } from "./bytes.ts";

/** A number that Python is to know for a float. */
export class PyFloat {
  /** Wraps a number. */
  constructor(readonly value: number) {}
}

/** A `collections.OrderedDict`. */
export class OrderedDict extends Map<string, unknown> {}

/** An instance of a class, made without calling its constructor. */
export class PyInstance {
  /** Names the class; `state` becomes its `__dict__`, or what its `__setstate__` is given. */
  constructor(readonly module: string, readonly name: string, readonly state: ReadonlyMap<string, unknown>) {}
}

/** A tensor: its storage lies in the file beside the pickle. */
export interface PickledTensor {
  /** Class of the storage in the module torch: "FloatStorage". */
  readonly storage: string;
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
}

/** How tensors are told from other values, and by what key each one's storage is found. */
export interface PickleTensors {
  /** Gives the key of a tensor's storage; undefined = the value is no tensor. */
  keyOf(value: object): { readonly key: string; readonly tensor: PickledTensor } | undefined;
}

const NO_TENSORS: PickleTensors = { keyOf: () => undefined };

/**
 * Pickles a value in protocol 2, or 3 where it holds bytes.
 *
 * @throws {TypeError} for a value that has no form in a pickle.
 */
export function writePickle(value: unknown, tensors: PickleTensors = NO_TENSORS): Uint8Array<ArrayBuffer> {
  const writer = new Writer(tensors);
  writer.value(value);
  const out = new Bytes();
  out.raw([0x80, writer.protocol]);
  out.raw(writer.out.all);
  out.u8(code("."));
  return out.all;
}

const code = (letter: string) => letter.charCodeAt(0);

class Writer {
  readonly out = new Bytes();
  protocol = 2;
  readonly #tensors: PickleTensors;

  constructor(tensors: PickleTensors) {
    this.#tensors = tensors;
  }

  value(value: unknown): void {
    if (value === null) this.#op("N");
    else if (typeof value === "boolean") this.out.u8(value ? 0x88 : 0x89);
    else if (typeof value === "number") this.#integer(value);
    else if (typeof value === "string") this.#sized("X", new TextEncoder().encode(value));
    else if (value instanceof PyFloat) {
      this.#op("G");
      this.out.f64BigEndian(value.value);
    } else if (value instanceof Uint8Array) {
      this.protocol = 3;
      this.#sized("B", value);
    } else if (value instanceof Tuple) this.#marked(value.items, "t");
    else if (Array.isArray(value)) {
      this.#op("]");
      this.#marked(value, "e");
    } else if (value instanceof Map) {
      if (value instanceof OrderedDict) this.#call("collections", "OrderedDict", []);
      else this.#op("}");
      this.#marked([...value].flat(), "u");
    } else if (value instanceof PyInstance) {
      this.#name(value.module, value.name);
      this.#op(")\x81");
      this.value(value.state);
      this.#op("b");
    } else this.#tensor(value);
  }

  #tensor(value: unknown): void {
    const found = typeof value === "object" ? this.#tensors.keyOf(value!) : undefined;
    if (found === undefined) throw new TypeError(`Cannot pickle ${value}: expected a plain value or a tensor`);
    const { key, tensor: { storage, shape } } = found;
    const strides = shape.map((_, i) => shape.slice(i + 1).reduce((product, n) => product * n, 1));
    const size = shape.reduce((product, n) => product * n, 1);
    this.#name("torch._utils", "_rebuild_tensor_v2");
    this.#op("(");
    this.#op("(");
    this.value("storage");
    this.#name("torch", storage);
    for (const part of [key, "cpu", size]) this.value(part);
    this.#op("tQ");
    for (const part of [0, new Tuple(shape), new Tuple(strides), false, new OrderedDict()]) this.value(part);
    this.#op("tR");
  }

  #integer(value: number): void {
    if (!Number.isSafeInteger(value) || value <= -(2 ** 31)) {
      throw new TypeError(`Cannot pickle ${value}: expected an integer from -2^31 to 2^53 or a PyFloat`);
    }
    if (value < 2 ** 31) {
      this.#op("J");
      return this.out.u32(value);
    }
    this.out.raw([0x8a, 8]); // LONG1 of 8 bytes
    this.out.u64(value);
  }

  #op(letters: string): void {
    for (const letter of letters) this.out.u8(code(letter));
  }

  #sized(letter: string, bytes: Uint8Array): void {
    this.#op(letter);
    this.out.u32(bytes.length);
    this.out.raw(bytes);
  }

  #marked(items: readonly unknown[], end: string): void {
    this.#op("(");
    for (const item of items) this.value(item);
    this.#op(end);
  }

  #name(module: string, name: string): void {
    this.#op(`c${module}\n${name}\n`);
  }

  #call(module: string, name: string, args: readonly unknown[]): void {
    this.#name(module, name);
    this.#marked(args, "t");
    this.#op("R");
  }
}
