import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { plainOsError } from "./os_error.ts";

function messageOf(fails: () => unknown): string {
  try {
    fails();
  } catch (error) {
    return plainOsError((error as Error).message);
  }
  throw new Error("nothing failed");
}

Deno.test("plainOsError() says what could not be done, and why, without the numbers of the system", async () => {
  const folder = await Deno.makeTempDir();
  const file = join(folder, "it's a file");
  await Deno.writeTextFile(file, "");
  try {
    const missing = join(folder, "missing");
    assertEquals(
      messageOf(() => Deno.readTextFileSync(missing)),
      `Cannot read "${missing}": no such file or directory`,
    );
    assertEquals(messageOf(() => Deno.openSync(missing)), `Cannot open "${missing}": no such file or directory`);
    assertEquals(messageOf(() => Deno.writeTextFileSync(folder, "")), `Cannot write "${folder}": is a directory`);
    assertEquals(messageOf(() => [...Deno.readDirSync(file)]), `Cannot list the folder "${file}": not a directory`);
    assertEquals(
      messageOf(() => Deno.mkdirSync(join(file, "x"), { recursive: true })),
      `Cannot make the folder "${join(file, "x")}": not a directory`,
    );
    assertStringIncludes(messageOf(() => Deno.renameSync(missing, file)), `Cannot rename "${missing}": no such file`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("plainOsError() leaves the reason alone inside another sentence, and other messages as they are", () => {
  assertEquals(
    plainOsError(`Cannot read the config file "/a": No such file or directory (os error 2): readfile '/a'`),
    `Cannot read the config file "/a": no such file or directory`,
  );
  assertEquals(
    plainOsError(`Cannot read the shards: Permission denied (os error 13): readdir '/b'`),
    `Cannot read the shards: permission denied ("/b")`,
  );
  for (const message of ["Cannot go on: x is 3, expected 4", "Is 'this' -> 'that'?", ""]) {
    assertEquals(plainOsError(message), message);
  }
});
