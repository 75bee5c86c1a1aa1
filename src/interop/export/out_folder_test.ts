import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../../dev/testing.ts";
import { CheckpointError } from "../../model/meta.ts";
import { checkFree, EXPORT_FILE, writeOutFolder } from "./out_folder.ts";

const about = { kind: "test" };
const bytes = 1;
const names = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();

Deno.test("writeOutFolder() writes whole folders and replaces only its own", async () => {
  using base = temporaryFolder();
  const out = join(base.path, "deep", "out");
  const write = (name: string) => (folder: string) => Deno.writeTextFileSync(join(folder, name), name);
  await writeOutFolder({ out, overwrite: false, about, bytes }, write("a"));
  assertEquals(names(out), ["a", EXPORT_FILE]);
  await assertRejects(
    () => writeOutFolder({ out, overwrite: false, about, bytes }, write("b")),
    CheckpointError,
    "it exists",
  );
  await writeOutFolder({ out, overwrite: true, about, bytes }, write("b"));
  assertEquals(names(out), ["b", EXPORT_FILE]);
  Deno.writeTextFileSync(join(out, "notes"), "mine");
  await assertRejects(
    () => writeOutFolder({ out, overwrite: true, about, bytes }, write("c")),
    CheckpointError,
    '"notes"',
  );
  assertEquals(names(out), ["b", EXPORT_FILE, "notes"]);
  await assertRejects(
    () => writeOutFolder({ out: join(base.path, "big"), overwrite: false, about, bytes: 1e18 }, write("a")),
    Error,
    "--out",
  );
  const file = join(base.path, "file");
  Deno.writeTextFileSync(file, "");
  assertThrows(() => checkFree(file, { overwrite: true }), CheckpointError, '"file"');
});

Deno.test("writeOutFolder() leaves nothing behind a failure", async () => {
  using base = temporaryFolder();
  const out = join(base.path, "out");
  const fail = (folder: string) => {
    Deno.writeTextFileSync(join(folder, "a"), "half");
    throw new Error("full");
  };
  await assertRejects(() => writeOutFolder({ out, overwrite: false, about, bytes }, fail), Error, "full");
  assertEquals(names(base.path), []);
});
