/** Zip files for tests, also such as no honest program makes. */
import { crc32 } from "node:zlib";

/** An entry of a zip file for a test; what is given besides name and data contradicts the data. */
export interface ZipEntry {
  readonly name: string;
  readonly data?: Uint8Array<ArrayBuffer>;
  /** Keeps the data as they are. */
  readonly stored?: boolean;
  readonly method?: number;
  readonly flags?: number;
  readonly mode?: number;
  readonly crc?: number;
  readonly sizeBytes?: number;
}

/** Makes a zip file; with `zip64` every number of the directory stands in the fields of large files. */
export async function makeZip(
  entries: readonly ZipEntry[],
  { zip64 = false }: { zip64?: boolean } = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const locals: Uint8Array<ArrayBuffer>[] = [], directory: Uint8Array<ArrayBuffer>[] = [];
  let offset = 0;
  for (const entry of entries) {
    const { name, data = new Uint8Array(), stored = false, flags = 0, mode = 0 } = entry;
    const { method = stored ? 0 : 8, crc = crc32(data), sizeBytes = data.length } = entry;
    const pack = () =>
      new Response(new Blob([data]).stream().pipeThrough(new CompressionStream("deflate-raw"))).bytes();
    const packed = stored ? data : await pack();
    const label = new TextEncoder().encode(name);
    const common = (view: DataView, at: number) => {
      [20, flags, method, 0, 0].forEach((value, i) => view.setUint16(at + 2 * i, value, true));
      [crc, packed.length, sizeBytes].forEach((value, i) => view.setUint32(at + 10 + 4 * i, value, true));
      view.setUint16(at + 22, label.length, true);
    };
    const local = new DataView(new ArrayBuffer(30));
    local.setUint32(0, 0x04034b50, true);
    common(local, 4);
    const central = new DataView(new ArrayBuffer(46));
    central.setUint32(0, 0x02014b50, true);
    common(central, 6);
    central.setUint32(38, (mode << 16) >>> 0, true);
    central.setUint32(42, offset, true);
    locals.push(new Uint8Array(local.buffer), label, packed);
    const extra = new DataView(new ArrayBuffer(zip64 ? 28 : 0));
    if (zip64) {
      [1, 24].forEach((value, i) => extra.setUint16(2 * i, value, true));
      [sizeBytes, packed.length, offset].forEach((value, i) => extra.setBigUint64(4 + 8 * i, BigInt(value), true));
      central.setUint16(30, extra.byteLength, true);
      for (const at of [20, 24, 42]) central.setUint32(at, 0xffffffff, true);
    }
    directory.push(new Uint8Array(central.buffer), label, new Uint8Array(extra.buffer));
    offset += 30 + label.length + packed.length;
  }
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  for (const at of [8, 10]) end.setUint16(at, entries.length, true);
  const directoryBytes = directory.reduce((sum, part) => sum + part.length, 0);
  end.setUint32(12, directoryBytes, true);
  end.setUint32(16, offset, true);
  if (!zip64) return await new Blob([...locals, ...directory, end]).bytes();
  const end64 = new DataView(new ArrayBuffer(56 + 20));
  end64.setUint32(0, 0x06064b50, true);
  [entries.length, entries.length, directoryBytes, offset].forEach((value, i) =>
    end64.setBigUint64(24 + 8 * i, BigInt(value), true)
  );
  end64.setUint32(56, 0x07064b50, true);
  end64.setBigUint64(64, BigInt(offset + directoryBytes), true);
  for (const at of [8, 10]) end.setUint16(at, 0xffff, true);
  for (const at of [12, 16]) end.setUint32(at, 0xffffffff, true);
  return await new Blob([...locals, ...directory, end64, end]).bytes();
}
