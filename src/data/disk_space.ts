/** Room on disk, checked before something large is written. */
import { format as formatBytes } from "@std/fmt/bytes";
import { freeDiskBytes } from "../native/files.ts";
import { Calls } from "./calls.ts";

/**
 * Checks that a folder, which is created where it is missing, has room for `neededBytes`.
 *
 * @param options.doing the sentence's beginning: "download 4 shards"
 * @param options.flag the flag that chooses the folder
 * @throws {Error} where it has less: it names both sizes and the flag that chooses another folder.
 */
export function checkDiskSpace(
  folder: string,
  neededBytes: number,
  { doing, flag = "--data-dir" }: { doing: string; flag?: string },
): void {
  Deno.mkdirSync(folder, { recursive: true });
  const calls = new Calls();
  try {
    const free = freeDiskBytes(calls, folder);
    if (free >= neededBytes) return;
    throw new Error(
      `Cannot ${doing}: ${sizeText(free)} are free in "${folder}", expected ${sizeText(neededBytes)}; ` +
        `make room or choose another folder with ${flag}`,
    );
  } finally {
    calls.close(() => {});
  }
}

function sizeText(bytes: number): string {
  return `${formatBytes(bytes)} (${bytes.toLocaleString("en-US")} bytes)`;
}
