/**
 * The folder of an export: filled under a temporary name beside its place and renamed, so that it is whole or absent after any crash.
 *
 * A file of it, `nanochat_export.json`, says which model it holds and which files we wrote; an earlier export is replaced only where
 * nothing else lies in it.
 */
import { basename, dirname, join, relative, resolve } from "@std/path";
import { checkDiskSpace } from "../../data/disk_space.ts";
import { formatProblem, FORMATS } from "../../data/formats.ts";
import { readIfPresent } from "../../model/checkpoint_folder.ts";
import { CheckpointError, type JsonObject } from "../../model/meta.ts";

/** Name of the file that describes an export. */
export const EXPORT_FILE = "nanochat_export.json";

/** What an export is and where it goes. */
export interface OutFolder {
  /** Where to. */
  readonly out: string;
  /** Replaces an earlier export. */
  readonly overwrite: boolean;
  /** Kind, model and step, for whoever finds the folder. */
  readonly about: JsonObject;
  /** Room that it takes at most. */
  readonly bytes: number;
}

/**
 * Checks that a path is free, or holds an earlier export that may be replaced.
 *
 * @throws {CheckpointError} "exists".
 */
export function checkFree(out: string, { overwrite }: { overwrite: boolean }): void {
  const names = listFiles(out);
  if (names === undefined || names.length === 0) return;
  const refuse = (what: string) => new CheckpointError("exists", `Cannot export to "${out}": ${what}`);
  if (!overwrite) throw refuse("it exists; choose another --out or replace an earlier export with --overwrite");
  const foreign = names.find((name) => !earlierFiles(out).has(name));
  if (foreign !== undefined) {
    throw refuse(`it holds ${JSON.stringify(foreign)}, which no export wrote, expected an earlier export and no more`);
  }
}

/** Fills a folder with `write` and puts it in its place. */
export async function writeOutFolder(
  { out, overwrite, about, bytes }: OutFolder,
  write: (folder: string) => void | Promise<void>,
): Promise<void> {
  checkFree(out, { overwrite });
  const path = resolve(out);
  const temporary = join(dirname(path), `.${basename(path)}.${Deno.pid}.tmp`);
  const replaced = `${temporary}.old`;
  checkDiskSpace(dirname(path), bytes, { doing: "export a model", flag: "--out" });
  Deno.mkdirSync(temporary);
  try {
    await write(temporary);
    const files = listFiles(temporary)!.sort();
    const text = JSON.stringify({ ...FORMATS.export, ...about, files }, null, 2);
    Deno.writeTextFileSync(join(temporary, EXPORT_FILE), `${text}\n`);
    for (const name of [...files, EXPORT_FILE]) {
      using file = Deno.openSync(join(temporary, name));
      file.syncSync();
    }
    checkFree(out, { overwrite }); // somebody may have come first
    if (listFiles(path) !== undefined) Deno.renameSync(path, replaced);
    try {
      Deno.renameSync(temporary, path);
    } catch (error) {
      if (listFiles(replaced)) Deno.renameSync(replaced, path);
      throw error;
    }
    if (listFiles(replaced)) Deno.removeSync(replaced, { recursive: true }); // only now: the new export is in its place
  } finally {
    if (listFiles(temporary)) Deno.removeSync(temporary, { recursive: true });
  }
}

/**
 * Checks that a path is free, or holds a file that begins with `magic` and may be replaced.
 *
 * @throws {CheckpointError} "exists".
 */
export function checkFreeFile(out: string, { overwrite, magic }: { overwrite: boolean; magic: string }): void {
  if (listFiles(out) === undefined) return;
  const refuse = (what: string) => new CheckpointError("exists", `Cannot export to "${out}": ${what}`);
  if (!overwrite) throw refuse("it exists; choose another --out or replace an earlier export with --overwrite");
  const first = new Uint8Array(magic.length);
  if (Deno.statSync(out).isFile) {
    using file = Deno.openSync(out);
    file.readSync(first);
  }
  if (new TextDecoder().decode(first) !== magic) throw refuse(`it is something else, expected a file of ${magic}`);
}

/** Writes a file under a temporary name and puts it in its place. */
export function writeOutFile(
  { out, overwrite, magic, bytes }: { out: string; overwrite: boolean; magic: string; bytes: number },
  write: (path: string) => void,
): void {
  checkFreeFile(out, { overwrite, magic });
  const path = resolve(out);
  const temporary = join(dirname(path), `.${basename(path)}.${Deno.pid}.tmp`);
  checkDiskSpace(dirname(path), bytes, { doing: "export a model", flag: "--out" });
  try {
    write(temporary);
    checkFreeFile(out, { overwrite, magic });
    Deno.renameSync(temporary, path);
  } catch (error) {
    if (listFiles(temporary)) Deno.removeSync(temporary);
    throw error;
  }
}

/** Lists the files below a folder, paths relative to it; itself where it is a file, undefined where there is none. */
function listFiles(folder: string): string[] | undefined {
  let isFolder: boolean;
  try {
    isFolder = Deno.lstatSync(folder).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  if (!isFolder) return [basename(folder)];
  const walk = (path: string): string[] =>
    [...Deno.readDirSync(path)].flatMap(({ name, isDirectory }) =>
      isDirectory ? walk(join(path, name)) : [relative(folder, join(path, name))]
    );
  return walk(folder);
}

/** The files that an earlier export wrote; none where there was no export. */
function earlierFiles(folder: string): ReadonlySet<string> {
  try {
    const about = JSON.parse(new TextDecoder().decode(readIfPresent(join(folder, EXPORT_FILE))));
    return new Set(
      formatProblem(about, { expected: FORMATS.export }) === undefined ? [...about.files, EXPORT_FILE] : [],
    );
  } catch {
    return new Set(); // no JSON, or a file where the folder was expected
  }
}
