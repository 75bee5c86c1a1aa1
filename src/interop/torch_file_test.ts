import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { checkMutations, temporaryFolder } from "../../dev/testing.ts";
import { makeZip, type ZipEntry } from "../data/zip_testing.ts";
import { Device } from "../tensor/device.ts";
import { isTensor, readTorch, TorchFile } from "./torch_file.ts";
import { call, list, Raw, tensor, type TensorText, torchFile } from "./torch_testing.ts";

const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
const SIX = floats(0, 1, 2, 3, 4, 5);
const six = (text: Partial<TensorText> = {}) => tensor({ key: "0", size: 6, shape: [2, 3], ...text });

function read(bytes: Uint8Array<ArrayBuffer>) {
  const source = {
    sizeBytes: bytes.length,
    read: (offset: number, length: number) => bytes.slice(offset, offset + length),
  };
  return readTorch(source, "x.pt");
}

async function open(root: unknown, storages: Readonly<Record<string, Uint8Array<ArrayBuffer>>>) {
  using folder = temporaryFolder();
  const path = join(folder.path, "x.pt");
  Deno.writeFileSync(path, await torchFile(root, { storages }));
  using device = Device.open("cpu", { threads: 1 });
  using file = new TorchFile(device, path);
  file.verify();
  const values = new Map<string, number[]>();
  for (const [name, value] of file.root as Map<string, unknown>) {
    assert(isTensor(value));
    values.set(name, [...new Float32Array(file.read(value).buffer)]);
  }
  return { root: file.root as Map<string, unknown>, values };
}

Deno.test("TorchFile gives whole tensors, parts of storages, transposed ones and parameters", async () => {
  const parameter = call("torch._utils", "_rebuild_parameter", [six(), true, call("collections", "OrderedDict", [])]);
  const root = new Map<string, unknown>([
    ["whole", six()],
    ["row", six({ shape: [3], offset: 3 })],
    ["transposed", six({ shape: [3, 2], strides: [1, 3] })],
    ["column", six({ shape: [2, 1], strides: [3, 1], offset: 1 })],
    ["parameter", parameter],
    ["scalar", six({ shape: [], offset: 5 })],
    ["empty", six({ shape: [0, 3] })],
  ]);
  const { values, root: found } = await open(root, { "0": SIX });
  assertEquals(Object.fromEntries(values), {
    whole: [0, 1, 2, 3, 4, 5],
    row: [3, 4, 5],
    transposed: [0, 3, 1, 4, 2, 5],
    column: [1, 4],
    parameter: [0, 1, 2, 3, 4, 5],
    scalar: [5],
    empty: [],
  });
  const contiguous = [...found].filter(([_, value]) => isTensor(value) && value.isContiguous).map(([name]) => name);
  assertEquals(contiguous, ["whole", "row", "parameter", "scalar", "empty"]);
});

const REFUSED: readonly [what: string, root: unknown, message: string, entries?: readonly ZipEntry[]][] = [
  ["a tensor beyond its storage", six({ offset: 1 }), "takes 6 elements up to 7, expected at most 6"],
  ["strides beyond the storage", six({ strides: [1, 3] }), "takes 6 elements up to 8"],
  [
    "elements that lie on each other",
    six({ shape: [2 ** 30, 9], strides: [0, 0] }),
    "expected at most 6",
  ],
  ["a negative size", six({ shape: [-1, 3] }), "malformed"],
  ["a negative offset", six({ offset: -1 }), "malformed"],
  ["fewer strides than sizes", six({ strides: [3] }), "malformed"],
  ["nine dimensions", six({ shape: Array(9).fill(1) }), "at most 8 dimensions"],
  ["a size that differs from the storage", six({ size: 7 }), "has 24 bytes, expected 7 elements of f32"],
  ["two types of one storage", list([six(), six({ type: "IntStorage" })]), "expected 6 elements of i32"],
  ["a storage that is missing", six({ key: "1" }), 'storage "1" is missing'],
  ["a storage outside of the folder", six({ key: "../../0" }), 'storage "../../0" is missing'],
  ["an unknown storage type", six({ type: "QInt8Storage" }), '"torch.QInt8Storage"'],
  [
    "a tensor without a storage",
    call("torch._utils", "_rebuild_tensor_v2", [1, 0, [1], [1]]),
    "its storage is a number",
  ],
  ["a persistent id of another form", new Raw("X\x01\0\0\0aQ"), "no storage of a known form"],
  ["a dict with arguments", call("collections", "OrderedDict", [[["a", 1]]]), "1 arguments, expected none"],
  ["a program", call("os", "system", ["touch evil"]), '"os.system"'],
  ["an entry that is there twice", six(), "there twice", [{
    name: "archive/byteorder",
    data: new Uint8Array(3),
    stored: true,
  }]],
];

for (const [what, root, message, entries] of REFUSED) {
  Deno.test(`readTorch() refuses ${what}`, async () => {
    const bytes = await torchFile(root, { storages: { "0": SIX }, entries });
    const error = assertThrows(() => read(bytes), Error, message);
    assert(error.message.startsWith("Cannot read "), error.message);
  });
}

Deno.test("TorchFile.verify() finds a changed bit of a storage", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "x.pt");
  const bytes = await torchFile(six(), { storages: { "0": floats(7, 7, 7, 7, 7, 7.5) } });
  const at = bytes.findIndex((_, i) => floats(7.5).every((byte, j) => bytes[i + j] === byte));
  bytes[at] ^= 1;
  Deno.writeFileSync(path, bytes);
  using device = Device.open("cpu", { threads: 1 });
  using file = new TorchFile(device, path);
  assertThrows(() => file.verify(), Error, "its CRC-32 is");
});

Deno.test("readTorch() refuses the byte order of other machines", async () => {
  const bytes = await torchFile(six(), { storages: { "0": SIX }, byteOrder: "big" });
  assertThrows(() => read(bytes), Error, "its byte order is not little");
});

Deno.test("readTorch() refuses a packed entry and what is no file of torch.save", async () => {
  await assertRejects(
    async () => read(await makeZip([{ name: "a/data.pkl", data: new Uint8Array(99) }])),
    Error,
    "packed",
  );
  await assertRejects(async () => read(await makeZip([{ name: "b.txt", data: SIX }])), Error, "no data.pkl");
  assertThrows(() => read(new Uint8Array(100)), Error, "no directory at its end");
});

Deno.test("readTorch() survives 2,000 seeded mutations with one error or tensors inside the file", async () => {
  const root = new Map<string, unknown>([["a", six()], ["b", list([six({ shape: [3], offset: 3 }), 1.5, null])]]);
  await checkMutations({
    files: [await torchFile(root, { storages: { "0": SIX } })],
    read: (bytes) => {
      const { root, storages } = read(bytes);
      for (const { begin, bytes: size } of storages) assert(begin + size <= bytes.length);
      for (const value of root instanceof Map ? root.values() : []) {
        if (isTensor(value)) assert(value.begin + value.bytes <= bytes.length && value.bytes <= 24);
      }
    },
    errors: [Error],
    refused: 0.3,
  });
});
