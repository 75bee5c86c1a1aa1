import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { deadline } from "@std/async";
import { join } from "@std/path";
import { SILENT } from "../data/log.ts";
import { FolderLock } from "./lock.ts";
import { CheckpointError } from "./meta.ts";

const DEADLINE_MS = 30_000;

/** A process of its own that holds the lock until it is killed; resolves when it does. */
async function holder(folder: string): Promise<Deno.ChildProcess> {
  const code = `
    import { FolderLock } from ${JSON.stringify(new URL("./lock.ts", import.meta.url).href)};
    const log = { info() {}, warn() {}, progress() {} };
    globalThis.lock = FolderLock.acquire(Deno.args[0], { purpose: "a test", log });
    console.log("held");
    setInterval(() => {}, 1000);`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--ext=ts", "-", folder],
    cwd: import.meta.dirname,
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(code));
  await writer.close();
  const reader = child.stdout.getReader();
  const { value } = await deadline(reader.read(), DEADLINE_MS);
  reader.releaseLock();
  assertEquals(new TextDecoder().decode(value).trim(), "held");
  return child;
}

Deno.test("FolderLock refuses a second writer by pid and takes over after a kill", async () => {
  const folder = Deno.makeTempDirSync();
  const child = await holder(folder);
  try {
    const error = assertThrows(
      () => FolderLock.acquire(folder, { purpose: "nanochat train", log: SILENT }),
      CheckpointError,
      `process ${child.pid} on`,
    );
    assertEquals(error.problem, "locked");
    assertStringIncludes(error.message, "(a test, since");
  } finally {
    child.kill("SIGKILL");
    await child.stdout.cancel();
    await deadline(child.status, DEADLINE_MS);
  }
  const warnings: string[] = [];
  const log = { ...SILENT, warn: (message: string) => warnings.push(message) };
  using _lock = FolderLock.acquire(folder, { purpose: "nanochat train", log });
  assertEquals(warnings.length, 1);
  assertStringIncludes(warnings[0], `Process ${child.pid} (a test) no longer runs`);
  assert(JSON.parse(Deno.readTextFileSync(join(folder, "lock"))).pid === Deno.pid);
  Deno.removeSync(folder, { recursive: true });
});

Deno.test("FolderLock is free after disposal, without a word about the one before", () => {
  const folder = join(Deno.makeTempDirSync(), "deep", "er");
  const log = { ...SILENT, warn: (message: string) => assert(false, message) };
  for (let i = 0; i < 2; i++) {
    using lock = FolderLock.acquire(folder, { purpose: "nanochat train", log });
    assertThrows(() => FolderLock.acquire(folder, { purpose: "other", log }), CheckpointError, `process ${Deno.pid}`);
    lock[Symbol.dispose](); // twice is once
  }
  Deno.writeTextFileSync(join(folder, "lock"), '{"pid": "tor');
  using _lock = FolderLock.acquire(folder, { purpose: "nanochat train", log });
});
