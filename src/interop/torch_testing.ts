/** Pickles and files of torch.save for tests, also such as no honest program makes. */
import { makeZip, type ZipEntry } from "../data/zip_testing.ts";

/** A part of a pickle: instructions as they stand, one code unit a byte. */
export type Code = string;

const u32 = (n: number): Code => String.fromCharCode(n & 255, (n >>> 8) & 255, (n >>> 16) & 255, n >>> 24);

/** Pushes a plain value: null, numbers, texts, bytes; arrays become tuples, Maps dicts. */
export function push(value: unknown): Code {
  if (value === null) return "N";
  if (typeof value === "boolean") return value ? "\x88" : "\x89";
  if (typeof value === "number" && Number.isInteger(value)) return `J${u32(value)}`;
  if (typeof value === "number") {
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, value);
    return `G${latin(new Uint8Array(view.buffer))}`;
  }
  if (typeof value === "string") {
    const bytes = new TextEncoder().encode(value);
    return `X${u32(bytes.length)}${latin(bytes)}`;
  }
  if (value instanceof Uint8Array) return `B${u32(value.length)}${latin(value)}`;
  if (value instanceof Raw) return value.code;
  if (value instanceof Map) return `}(${[...value].map(([key, item]) => push(key) + push(item)).join("")}u`;
  if (Array.isArray(value)) return `(${value.map(push).join("")}t`;
  throw new TypeError(`Cannot pickle ${value}`);
}

function latin(bytes: Uint8Array): Code {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

/** Instructions in the place of a value. */
export class Raw {
  constructor(readonly code: Code) {}
}

/** Pushes a list. */
export function list(items: readonly unknown[]): Raw {
  return new Raw(`](${items.map(push).join("")}e`);
}

/** Pushes what a call of a named function gives. */
export function call(module: string, name: string, args: readonly unknown[]): Raw {
  return new Raw(`c${module}\n${name}\n${push(args)}R`);
}

/** Completes a pickle of protocol 2. */
export function pickle(value: unknown): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(`\x80\x02${push(value)}.`, (letter) => letter.charCodeAt(0));
}

/** What a tensor of a test says of itself; what is given besides shape and storage contradicts them, or views part of them. */
export interface TensorText {
  readonly key: string;
  readonly type?: string;
  readonly size: number;
  readonly shape: readonly number[];
  readonly strides?: readonly number[];
  readonly offset?: number;
}

/** Pushes a tensor as torch does. */
export function tensor(text: TensorText): Raw {
  const { key, type = "FloatStorage", size, shape, offset = 0 } = text;
  const { strides = shape.map((_, i) => shape.slice(i + 1).reduce((product, n) => product * n, 1)) } = text;
  const storage = new Raw(`${push(["storage", new Raw(`ctorch\n${type}\n`), key, "cpu", size])}Q`);
  const hooks = call("collections", "OrderedDict", []);
  return call("torch._utils", "_rebuild_tensor_v2", [storage, offset, [...shape], [...strides], false, hooks]);
}

/** Makes a file of torch.save; `storages` are the bytes by key. */
export async function torchFile(
  root: unknown,
  { storages = {}, entries = [], byteOrder = "little" }: {
    storages?: Readonly<Record<string, Uint8Array<ArrayBuffer>>>;
    entries?: readonly ZipEntry[];
    byteOrder?: string;
  } = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const text = (name: string, content: string) => ({ name, data: new TextEncoder().encode(content), stored: true });
  return await makeZip([
    { name: "archive/data.pkl", data: pickle(root), stored: true },
    text("archive/byteorder", byteOrder),
    ...Object.entries(storages).map(([key, data]) => ({ name: `archive/data/${key}`, data, stored: true })),
    text("archive/version", "3\n"),
    ...entries,
  ]);
}
