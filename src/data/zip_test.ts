import { assertEquals, assertRejects } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { extractZip, listZip } from "./zip.ts";
import { makeZip, type ZipEntry } from "./zip_testing.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("extractZip() writes stored and deflated entries, folders and empty files", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "a.zip");
  const long = bytes("all work and no play ".repeat(200_000));
  Deno.writeFileSync(
    path,
    await makeZip([
      { name: "a/" },
      { name: "a/plain.txt", data: bytes("hello"), stored: true },
      { name: "a/b/é long.txt", data: long },
      { name: "empty", data: bytes("") },
    ]),
  );
  assertEquals(listZip(path).map(({ name }) => name), ["a/", "a/plain.txt", "a/b/é long.txt", "empty"]);
  const out = join(folder.path, "out");
  await extractZip(path, out);
  assertEquals(Deno.readTextFileSync(join(out, "a/plain.txt")), "hello");
  assertEquals(Deno.readFileSync(join(out, "a/b/é long.txt")), long);
  assertEquals(Deno.statSync(join(out, "empty")).size, 0);
});

Deno.test("extractZip() reads the directory of large files, and refuses one that is cut or impossible", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "a.zip");
  const whole = await makeZip([{ name: "a", data: bytes("hello") }, { name: "b", data: bytes("x"), stored: true }], {
    zip64: true,
  });
  Deno.writeFileSync(path, whole);
  const out = join(folder.path, "out");
  await extractZip(path, out);
  assertEquals(["a", "b"].map((name) => Deno.readTextFileSync(join(out, name))), ["hello", "x"]);
  const damaged: [at: number, message: string][] = [
    [whole.length - 22 - 20, "the zip64 end of its directory is missing"], // the locator
    [whole.length - 22 - 20 + 12, "the zip64 end of its directory is missing"], // where it points to
    [whole.length - 22 - 20 - 8 + 7, "its directory lies behind its end"],
    [whole.length - 22 - 76 - 28 + 27, "impossible size"], // the last entry's offset
    [whole.length - 22 - 76 - 28, "impossible size"], // the name of its field
  ];
  for (const [at, message] of damaged) {
    const copy = whole.slice();
    copy[at] ^= 0x7f;
    Deno.writeFileSync(path, copy);
    await assertRejects(() => extractZip(path, join(folder.path, "out2")), Error, message);
  }
});

const UNSAFE: readonly [what: string, entry: ZipEntry, message: string][] = [
  ["a parent folder", { name: "a/../../evil", data: bytes("x") }, "would leave the folder"],
  ["an absolute name", { name: "/etc/evil", data: bytes("x") }, "would leave the folder"],
  ["a backslash", { name: "..\\evil", data: bytes("x") }, "would leave the folder"],
  ["a drive", { name: "C:evil", data: bytes("x") }, "would leave the folder"],
  ["a link", { name: "evil", data: bytes("/etc"), mode: 0o120777 }, "is a link"],
  ["a name that is there twice", { name: "good", data: bytes("x") }, "is there twice"],
  ["an encrypted entry", { name: "evil", data: bytes("x"), flags: 1 }, "is encrypted"],
  ["an unknown method", { name: "evil", data: bytes("x"), method: 12 }, "method 12"],
  ["a wrong checksum", { name: "evil", data: bytes("x"), crc: 5 }, "its CRC-32 is"],
  [
    "more bytes than announced",
    { name: "evil", data: bytes("x".repeat(9000)), sizeBytes: 10 },
    "more bytes, expected 10",
  ],
  ["fewer bytes than announced", { name: "evil", data: bytes("x"), sizeBytes: 10 }, "1 bytes, expected 10"],
  ["damaged data", { name: "evil", data: bytes("\xff\xff\xff\xff"), method: 8, stored: true }, "damaged"],
];

for (const [what, entry, message] of UNSAFE) {
  Deno.test(`extractZip() refuses ${what} and writes nothing outside`, async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "x.zip");
    Deno.writeFileSync(path, await makeZip([{ name: "good", data: bytes("good") }, entry]));
    const out = join(folder.path, "in", "out");
    await assertRejects(() => extractZip(path, out), Error, message);
    assertEquals(Array.from(Deno.readDirSync(folder.path), ({ name }) => name).filter((name) => name !== "in"), [
      "x.zip",
    ]);
    assertEquals(existsSync(join(folder.path, "in", "evil")), false);
  });
}

Deno.test("listZip() refuses what is no zip file, or half of one", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "x.zip");
  Deno.writeTextFileSync(path, "<html>");
  await assertRejects(() => Promise.try(listZip, path), Error, "expected a zip file");
  const whole = await makeZip([{ name: "a", data: bytes("a".repeat(100)) }]);
  Deno.writeFileSync(path, whole.subarray(0, whole.length - 30));
  await assertRejects(() => Promise.try(listZip, path), Error, "expected a zip file");
});
