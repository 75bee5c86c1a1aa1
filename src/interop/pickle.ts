/**
 * Reads pickles without executing anything: an interpreter of Python's object format (protocols 2 to 5, PEP 307, 3154 and 574) that
 * builds plain values and knows the few names that it is given.
 *
 * A pickle is a program for a stack machine, and one of its instructions calls any function that it names. Here a name that is not in
 * the caller's table ends the reading with an error that says which, and what stands in the table are functions of this program. Work
 * and memory are linear in the size of the pickle: numbers have at most 8 bytes, nothing nests by recursion, and the memo is a map, so
 * that a huge index costs nothing.
 *
 * Python's dict and OrderedDict become a Map, list an array, tuple a `Tuple`, bytes a Uint8Array, None null; whole numbers beyond 2^53 a
 * bigint.
 */
import { CheckpointError } from "../model/meta.ts";

/** A tuple of a pickle. */
export class Tuple {
  /** Its elements. */
  readonly items: readonly unknown[];
  /** Wraps elements. */
  constructor(items: readonly unknown[]) {
    this.items = items;
  }
}

/** An instance of a class that the caller allows: its name and state are kept, none of its code exists here. */
export class PickledObject {
  /** Module and name of the class. */
  readonly className: string;
  /** What its state was set to; undefined = nothing yet. */
  state: unknown;
  /** Makes an instance without state. */
  constructor(className: string) {
    this.className = className;
  }
}

/** A name that the caller allows: a value, or a function or class that the pickle may call. */
export class PickledName {
  /** Module and name. */
  readonly name: string;
  /** What a call gives; undefined = it may not be called. */
  readonly call?: (args: readonly unknown[]) => unknown;
  /** Names a value, or a function. */
  constructor(name: string, call?: (args: readonly unknown[]) => unknown) {
    this.name = name;
    this.call = call;
  }
}

/** What a pickle may refer to. */
export interface PickleOptions {
  /** The file, in errors. */
  readonly what: string;
  /** Allowed names, each as "module.name". */
  readonly names: readonly PickledName[];
  /** Gives the object behind a persistent id; without it there may be none. */
  readonly persistent?: (id: unknown) => unknown;
}

/**
 * Reads a pickle.
 *
 * @throws {CheckpointError} "unsafe" for a name that is not allowed, naming it; {SyntaxError} for what is damaged or of another protocol.
 */
export function readPickle(bytes: Uint8Array, options: PickleOptions): unknown {
  return new Machine(bytes, options).run();
}

/** Says of what kind a value is, for errors. */
export function kindOf(value: unknown): string {
  if (value === null) return "None";
  if (value instanceof Map) return "a dict";
  if (value instanceof Tuple) return "a tuple";
  if (Array.isArray(value)) return "a list";
  if (value instanceof Uint8Array) return "bytes";
  if (value instanceof PickledName) return value.name;
  if (value instanceof PickledObject) return `an object of ${value.className}`;
  if (typeof value === "object") return "an object";
  return typeof value === "string" ? "a text" : `a ${typeof value}`;
}

const OPCODE_NAMES: Readonly<Record<string, string>> = {
  "\x82": "EXT1",
  "\x83": "EXT2",
  "\x84": "EXT4",
  "\x92": "NEWOBJ_EX",
  "\x97": "NEXT_BUFFER",
  i: "INST",
  o: "OBJ",
  P: "PERSID",
};
const MAX_PROTOCOL = 5;
const MAX_NAME = 200; // letters of a name that an error shows

/** The stack machine. Marks are kept apart from the stack, as its length at that moment. */
class Machine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #options: PickleOptions;
  readonly #names: ReadonlyMap<string, PickledName>;
  readonly #memo = new Map<number, unknown>();
  readonly #stack: unknown[] = [];
  readonly #marks: number[] = [];
  #at = 0;
  #begin = 0; // of the instruction at work

  constructor(bytes: Uint8Array, options: PickleOptions) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#options = options;
    this.#names = new Map(options.names.map((name) => [name.name, name]));
  }

  run(): unknown {
    if (this.#bytes[0] !== 0x80) throw this.#refuse("it does not begin with a protocol, expected a pickle of 2 to 5");
    for (;;) {
      this.#begin = this.#at;
      const opcode = String.fromCharCode(this.#number(1));
      if (opcode === ".") return this.#pop();
      this.#step(opcode);
    }
  }

  #step(opcode: string): void {
    const push = (value: unknown) => void this.#stack.push(value);
    switch (opcode) {
      case "\x80": { // PROTO
        const protocol = this.#number(1);
        if (protocol < 2 || protocol > MAX_PROTOCOL) throw this.#refuse(`protocol ${protocol}, expected 2 to 5`);
        return;
      }
      case "\x95": // FRAME: only a hint of how much to read at once
        return void this.#take(8);
      case "(":
        return void this.#marks.push(this.#stack.length);
      case "0":
        return void this.#pop();
      case "1":
        return void this.#popMark();
      case "2":
        return push(this.#top());

      case "N":
        return push(null);
      case "\x88":
        return push(true);
      case "\x89":
        return push(false);
      case "J":
        return push(this.#view.getInt32(this.#take(4), true));
      case "K":
        return push(this.#number(1));
      case "M":
        return push(this.#number(2));
      case "\x8a": // LONG1
        return push(this.#long(this.#number(1)));
      case "G":
        return push(this.#view.getFloat64(this.#take(8)));
      case "X": // BINUNICODE
        return push(this.#text(this.#number(4)));
      case "\x8c":
        return push(this.#text(this.#number(1)));
      case "\x8d":
        return push(this.#text(this.#number(8)));
      case "B": // BINBYTES
        return push(this.#data(this.#number(4)));
      case "C":
        return push(this.#data(this.#number(1)));
      case "\x8e":
        return push(this.#data(this.#number(8)));

      case ")":
        return push(new Tuple([]));
      case "\x85":
        return push(new Tuple([this.#pop()]));
      case "\x86": {
        const b = this.#pop();
        return push(new Tuple([this.#pop(), b]));
      }
      case "\x87": {
        const [c, b] = [this.#pop(), this.#pop()];
        return push(new Tuple([this.#pop(), b, c]));
      }
      case "t":
        return push(new Tuple(this.#popMark()));
      case "]":
        return push([]);
      case "a":
        return this.#append([this.#pop()]);
      case "e":
        return this.#append(this.#popMark());
      case "}":
        return push(new Map());
      case "s": {
        const value = this.#pop();
        return this.#setItems([this.#pop(), value]);
      }
      case "u":
        return this.#setItems(this.#popMark());

      case "h":
        return push(this.#recall(this.#number(1)));
      case "j":
        return push(this.#recall(this.#number(4)));
      case "q":
        return this.#remember(this.#number(1));
      case "r":
        return this.#remember(this.#number(4));
      case "\x94": // MEMOIZE
        return this.#remember(this.#memo.size);

      case "c":
        return push(this.#find(this.#line(), this.#line()));
      case "\x93": { // STACK_GLOBAL
        const name = this.#pop();
        return push(this.#find(this.#pop(), name));
      }
      case "R": // REDUCE
      case "\x81": { // NEWOBJ
        const args = this.#pop();
        return push(this.#call(this.#pop(), args));
      }
      case "b":
        return this.#build(this.#pop());
      case "Q": { // BINPERSID
        const id = this.#pop();
        if (!this.#options.persistent) throw this.#refuse("it refers to an object outside of it, expected none");
        return push(this.#options.persistent(id));
      }
      default: {
        const code = `0x${opcode.charCodeAt(0).toString(16).padStart(2, "0")}`;
        const name = OPCODE_NAMES[opcode] ?? "";
        throw this.#refuse(
          `instruction ${code}${name && ` (${name})`}, expected one that saving tensors or data writes`,
        );
      }
    }
  }

  #find(module: unknown, name: unknown): PickledName {
    if (typeof module !== "string" || typeof name !== "string") {
      throw this.#refuse(`a name is ${kindOf(module)} and ${kindOf(name)}, expected two texts`);
    }
    const found = this.#names.get(`${module}.${name}`);
    if (!found) {
      const shown = JSON.stringify(`${module}.${name}`.slice(0, MAX_NAME));
      const expected = [...this.#names.keys()].join(", ");
      const { message } = this.#refuse(`it names ${shown}, which could run a program, expected only ${expected}`);
      throw new CheckpointError("unsafe", message);
    }
    return found;
  }

  #call(callee: unknown, args: unknown): unknown {
    if (!(callee instanceof PickledName) || !callee.call) {
      throw this.#refuse(`it calls ${kindOf(callee)}, expected a function`);
    }
    if (!(args instanceof Tuple)) throw this.#refuse(`the arguments are ${kindOf(args)}, expected a tuple`);
    try {
      return callee.call(args.items);
    } catch (cause) {
      throw this.#refuse(`${callee.name}: ${(cause as Error).message}`);
    }
  }

  #build(state: unknown): void {
    const object = this.#top();
    if (object instanceof Map && state instanceof Map) return; // attributes of an OrderedDict: versions of a model's modules
    if (!(object instanceof PickledObject) || object.state !== undefined) {
      throw this.#refuse(`it sets the state of ${kindOf(object)}, expected an object without one`);
    }
    object.state = state;
  }

  #append(values: readonly unknown[]): void {
    const list = this.#top();
    if (!Array.isArray(list)) throw this.#refuse(`it appends to ${kindOf(list)}, expected a list`);
    for (const value of values) list.push(value);
  }

  #setItems(pairs: readonly unknown[]): void {
    const dict = this.#top();
    if (!(dict instanceof Map)) throw this.#refuse(`it sets an item of ${kindOf(dict)}, expected a dict`);
    if (pairs.length % 2 !== 0) throw this.#refuse("a key has no value, expected pairs");
    for (let i = 0; i < pairs.length; i += 2) dict.set(pairs[i], pairs[i + 1]);
  }

  #remember(index: number): void {
    if (index > this.#bytes.length) {
      throw this.#refuse(`memo index ${index}, expected at most ${this.#bytes.length}, the size of the pickle`);
    }
    this.#memo.set(index, this.#top());
  }

  #recall(index: number): unknown {
    if (!this.#memo.has(index)) throw this.#refuse(`memo index ${index} is empty, expected one that was set`);
    return this.#memo.get(index);
  }

  #top(): unknown {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) throw this.#refuse("its stack is empty, expected a value");
    return this.#stack.at(-1);
  }

  #pop(): unknown {
    const value = this.#top();
    this.#stack.pop();
    return value;
  }

  #popMark(): unknown[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw this.#refuse("it has no mark here, expected one");
    return this.#stack.splice(mark);
  }

  /** Gives the offset of the next bytes and steps over them. */
  #take(length: number): number {
    const at = this.#at;
    if (length > this.#bytes.length - at) {
      throw this.#refuse(`it ends after ${this.#bytes.length} bytes, expected ${at + length} or more`);
    }
    this.#at += length;
    return at;
  }

  /** Reads an unsigned number. */
  #number(length: 1 | 2 | 4 | 8): number {
    const at = this.#take(length);
    switch (length) {
      case 1:
        return this.#view.getUint8(at);
      case 2:
        return this.#view.getUint16(at, true);
      case 4:
        return this.#view.getUint32(at, true);
      case 8:
        return Number(this.#view.getBigUint64(at, true));
    }
  }

  /** Reads a signed number of up to 8 bytes. */
  #long(length: number): number | bigint {
    if (length > 8) throw this.#refuse(`a number has ${length} bytes, expected at most 8`);
    let value = 0n;
    for (const byte of this.#data(length).reverse()) value = value << 8n | BigInt(byte);
    value = BigInt.asIntN(8 * length, value);
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }

  #data(length: number): Uint8Array<ArrayBuffer> {
    const at = this.#take(length);
    return this.#bytes.slice(at, at + length) as Uint8Array<ArrayBuffer>;
  }

  #text(length: number): string {
    const at = this.#take(length);
    try {
      return UTF8.decode(this.#bytes.subarray(at, at + length));
    } catch {
      throw this.#refuse("a text is not valid UTF-8, expected one that is");
    }
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw this.#refuse("a name has no end, expected a line");
    const text = this.#text(end - this.#at);
    this.#at++;
    return text;
  }

  #refuse(what: string): SyntaxError {
    return new SyntaxError(`Cannot read the pickle of "${this.#options.what}" at byte ${this.#begin}: ${what}`);
  }
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
