/** The single file where things go wrong: what it survives, and the one sentence that it says where it cannot. */
import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { EMPTY_ENVIRONMENT, nanochat, SCRIPT, TEST_HOME, withFolder } from "../dev/cli.ts";
import { type Ended, runChild } from "../dev/process.ts";
import { PythonPool } from "../src/engine/execution.ts";
import { ROOT } from "../dev/setup.ts";
import { SANDBOX_WORD } from "../src/native/installation.ts";
import { askChat, withServing } from "../src/cli/serve_testing.ts";
import { readCommit } from "../src/report/environment.ts";
import { ToyPlace } from "../src/server/toy_testing.ts";

const VERSION = /^nanochat \d+\.\d+\.\d+ \(deno [^)]+\)\n$/;
/** The folder of versions that the tests of the command line share. */
const SHARED = join(TEST_HOME, ".cache", "nanochat-bin");

/** Whether the launcher packed the file: it ends with this word. `deno compile` unpacks in its own way. */
const hasLauncher = new TextDecoder().decode(Deno.readFileSync(SCRIPT).subarray(-8)) === "NANOCHAT";

/** Tests what the launcher does. */
function launcherTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, ignore: !hasLauncher, fn });
}

function versionsIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].filter(({ isDirectory }) => isDirectory).map(({ name }) => name).sort();
}

/** Starts a file as `--version` does, in an environment that holds nothing but `env`. */
function start(env: Record<string, string>, file = SCRIPT): Promise<Ended> {
  return runChild({ command: file, args: ["--version"], env, clearEnv: true, deadlineMs: 60_000 });
}

/** Runs shell lines in a mount namespace of their own, as root of it; undefined where the system does not let us. */
async function asRoot(script: string): Promise<Ended | undefined> {
  for (const flags of ["-m", "-rm"]) {
    const unshare = (script: string) =>
      runChild({ command: "unshare", args: [flags, "sh", "-c", script], deadlineMs: 60_000 });
    const mounts = await unshare("mount -t tmpfs none /mnt");
    if (mounts.code === 0) return await unshare(script);
  }
  console.log("skipped: this system lets us make no mount namespace");
}

launcherTest(
  "the single file runs from anywhere, through a link, and unpacks once",
  () =>
    withFolder(async (folder) => {
      assertMatch((await nanochat(["--version"])).stdout, VERSION);
      const [version] = versionsIn(SHARED);
      assertMatch(version, /^[0-9a-f]{16}$/);
      const deno = Deno.statSync(join(SHARED, version, "deno"));
      await Deno.symlink(SCRIPT, join(folder, "link"));
      await Deno.symlink("link", join(folder, "second"));
      for (const script of [join(folder, "link"), join(folder, "second")]) {
        assertMatch((await nanochat(["--version"], { script, cwd: folder })).stdout, VERSION);
      }
      assertEquals(Deno.statSync(join(SHARED, version, "deno")).ino, deno.ino);
      assertEquals([...Deno.readDirSync(TEST_HOME)].map(({ name }) => name), [".cache"], "nothing else is written");
      assertEquals([...Deno.readDirSync(join(TEST_HOME, ".cache"))].map(({ name }) => name), ["nanochat-bin"]);
      assert((await Deno.stat(SCRIPT)).size < 60e6 || existsCuda(join(SHARED, version)), "at most 60 MB without CUDA");
    }),
);

function existsCuda(folder: string): boolean {
  return [...Deno.readDirSync(folder)].some(({ name }) => name.startsWith("libnanochat_cuda."));
}

Deno.test("the single file measures its own start, and knows its commit and the licences of its parts", async () => {
  const facts = JSON.parse((await nanochat(["--version", "--json"])).stdout);
  assertEquals(facts.commit, readCommit(ROOT));
  const measured = await nanochat(["bench", "start", "--json"]);
  assertEquals(measured.code, 0, measured.output);
  const { program, start_ms } = JSON.parse(measured.stdout);
  assertEquals(program, Deno.realPathSync(SCRIPT));
  assert(start_ms > 5, `${start_ms} ms`);
  const { stdout } = await nanochat(["licenses"]);
  for (const part of ["deno", "v8", "pyodide", "zstd"]) assertMatch(stdout, new RegExp(`^  ${part} `, "m"));
});

launcherTest(
  "first starts at the same time leave one folder; what is taken out of it comes back",
  () =>
    withFolder(async (folder) => {
      const env = { XDG_CACHE_HOME: folder, HOME: "/nonexistent" };
      for (const { stdout, output } of await Promise.all(Array.from({ length: 4 }, () => start(env)))) {
        assertMatch(stdout, VERSION, output);
      }
      const versions = join(folder, "nanochat-bin");
      const [version, ...more] = versionsIn(versions);
      assertEquals(more, []);
      for (const name of ["deno", "sandbox"]) await Deno.remove(join(versions, version, name), { recursive: true });
      assertMatch((await start(env)).stdout, VERSION);
      assert(Deno.statSync(join(versions, version, "sandbox", "snapshot.bin")).isFile);
      await Deno.remove(versions, { recursive: true });
      assertMatch((await start(env)).stdout, VERSION);
      assertEquals(versionsIn(versions), [version]);
    }),
);

launcherTest(
  "processes that a running program starts find an emptied cache filled again, or say what is missing",
  () =>
    withFolder(async (folder) => {
      const file = join(folder, "nanochat");
      await Deno.copyFile(SCRIPT, file);
      const outer = { NANOCHAT_EXE: Deno.env.get("NANOCHAT_EXE")!, NANOCHAT_CACHE: Deno.env.get("NANOCHAT_CACHE")! };
      Deno.env.set("NANOCHAT_EXE", file);
      Deno.env.set("NANOCHAT_CACHE", folder);
      try {
        await using pool = await PythonPool.open({ size: 1, timeoutMs: 60_000 });
        await Deno.rename(join(folder, "nanochat-bin"), join(folder, "gone")); // in one step, as processes are starting
        for (let i = 0; i < 2; i++) assertEquals((await pool.run("print(1)")).stdout, "1\n");
        await Deno.remove(file);
        const gone = () => Promise.all([pool.run("1"), pool.run("1"), pool.run("1")]);
        const { message } = await assertRejects(gone, Error);
        assertEquals(message, `Cannot run Python: "${file}" does not start, expected the program there`);
      } finally {
        for (const [name, value] of Object.entries(outer)) Deno.env.set(name, value);
      }
    }),
);

launcherTest("a recipe goes on when the cache is emptied under it", () =>
  withFolder(async (folder) => {
    const cache = join(folder, "nanochat-bin");
    const { code, output } = await nanochat(
      ["run", "tiny", "--until=tokenizer", `--base-dir=${join(folder, "base")}`],
      {
        env: { NANOCHAT_CACHE: folder },
        onOutput: (text) => {
          if (text.includes("Stage 1 of")) Deno.renameSync(cache, join(folder, "gone"));
        },
      },
    );
    assertEquals(code, 0, output);
    assertStringIncludes(output, "Stage 2 of");
  }));

launcherTest(
  "a server goes on when the cache is emptied under it, also with a model that nobody asked for before",
  () =>
    withFolder(async (folder) => {
      using place = new ToyPlace();
      for (const [seed, tag] of ["d2", "d3"].entries()) await place.add({ stage: "sft", tag, seed });
      const flags = ["--model=d2,d3", "--max-loaded=2"];
      await withServing(flags, { base: place.folder, env: { NANOCHAT_CACHE: folder } }, async ({ url }) => {
        const ask = async (model: string) =>
          (await (await askChat(url, { model, max_tokens: 5 })).json()).choices.length;
        assertEquals(await ask("d2"), 1);
        await Deno.rename(join(folder, "nanochat-bin"), join(folder, "gone"));
        assertEquals(await ask("d3"), 1);
      });
    }),
);

launcherTest(
  "versions lie beside each other; the oldest goes when no process uses it",
  () =>
    withFolder(async (folder) => {
      const env = { NANOCHAT_CACHE: folder, DENO_V8_FLAGS: "--disallow-code-generation-from-strings" };
      const bytes = await Deno.readFile(SCRIPT);
      const file = join(folder, "nanochat");
      const unpack = async (name: number): Promise<string> => {
        bytes[bytes.length - 16] = name; // the first byte of the content's hash
        await Deno.writeFile(`${file}.new`, bytes, { mode: 0o755 });
        await Deno.rename(`${file}.new`, file);
        assertMatch((await start(env, file)).stdout, VERSION);
        return name.toString(16).padStart(2, "0");
      };
      const first = await unpack(1);
      const pipes = { stdin: "piped", stdout: "piped", stderr: "null" } as const;
      const args = [SANDBOX_WORD, "1000"];
      const user = new Deno.Command(file, { args, env, clearEnv: true, ...pipes }).spawn();
      const reader = user.stdout.getReader();
      const { value } = await reader.read();
      try {
        assertEquals(new TextDecoder().decode(value), "ready\n");
        const others = [await unpack(2), await unpack(3), await unpack(4), await unpack(5)];
        const names = () => versionsIn(join(folder, "nanochat-bin")).map((version) => version.slice(0, 2));
        assertEquals(names(), [first, ...others.slice(1)], "the first is in use, the second was the oldest");
      } finally {
        user.kill("SIGKILL");
        await Promise.all([user.status, user.stdin.abort(), reader.cancel()]);
      }
    }),
);

launcherTest(
  "a home that cannot be written is passed over, a cache of one's own is not",
  () =>
    withFolder(async (folder) => {
      const home = "/proc/home"; // nobody can make it
      const temporary = join(folder, "tmp");
      assertMatch((await start({ HOME: home, TMPDIR: temporary })).stdout, VERSION);
      assertMatch((await start({ TMPDIR: temporary })).stdout, VERSION, "without a home");
      assertEquals(versionsIn(join(temporary, "nanochat-bin")).length, 1);
      const own = await start({ NANOCHAT_CACHE: home, TMPDIR: temporary });
      assertEquals([own.code, own.stdout], [1, ""]);
      const where = `Cannot unpack nanochat into "${home}/nanochat-bin": no such file or directory, expected a folder`;
      assertStringIncludes(own.stderr, where);
      const readOnly = await asRoot(
        `mount -t tmpfs -o ro none /mnt; HOME=/mnt TMPDIR='${temporary}' '${SCRIPT}' --version`,
      );
      if (readOnly) assertMatch(readOnly.stdout, VERSION, readOnly.output);
      const filled = `NANOCHAT_CACHE=/mnt '${SCRIPT}' --version`;
      const inAdvance = await asRoot(`mount -t tmpfs none /mnt; ${filled}; mount -o remount,ro /mnt; ${filled}`);
      if (inAdvance) {
        const [first, second] = inAdvance.stdout.trimEnd().split("\n");
        assertMatch(`${first}\n`, VERSION, inAdvance.output);
        assertEquals([inAdvance.code, second, inAdvance.stderr], [0, first, ""]);
      }
    }),
);

launcherTest("nothing is unpacked inside the base folder", () =>
  withFolder(async (folder) => {
    const env = { ...EMPTY_ENVIRONMENT, NANOCHAT_BASE_DIR: folder };
    const refused = await start({ ...env, NANOCHAT_CACHE: join(folder, "cache") });
    assertEquals(refused.code, 1);
    assertStringIncludes(refused.stderr, "is inside the base folder");
    assertMatch((await start({ ...env, XDG_CACHE_HOME: folder })).stdout, VERSION);
    assertEquals([...Deno.readDirSync(folder)], []);
  }));

launcherTest(
  "a full disk, a damaged copy and a folder without execution are named",
  () =>
    withFolder(async (folder) => {
      const full = await asRoot(
        `mount -t tmpfs -o size=20m none /mnt; NANOCHAT_CACHE=/mnt '${SCRIPT}' --version; ls /mnt/nanochat-bin`,
      );
      if (full) {
        assertMatch(full.output, /^Cannot unpack nanochat into "[^"]+": no space left on device, .* MB free; .*\n$/);
      }
      const noexec = await asRoot(`mount -t tmpfs -o noexec none /mnt; NANOCHAT_CACHE=/mnt '${SCRIPT}' --version`);
      if (noexec) {
        assertMatch(noexec.stderr, /^Cannot start .*\/deno": Permission denied .*set NANOCHAT_CACHE/);
      }
      const file = join(folder, "nanochat");
      const bytes = await Deno.readFile(SCRIPT);
      await Deno.writeFile(file, bytes.subarray(0, -1000), { mode: 0o755 });
      const short = await start({ NANOCHAT_CACHE: folder }, file);
      assertEquals([short.code, short.stdout], [1, ""]);
      assertStringIncludes(short.stderr, "expected the whole file; copy it again");
      await Deno.writeFile(file, bytes.fill(0, bytes.length >> 1, (bytes.length >> 1) + 10));
      const damaged = await start({ NANOCHAT_CACHE: folder }, file);
      assertStringIncludes(damaged.stderr, "the single file is damaged, copy it again");
      assertEquals(versionsIn(join(folder, "nanochat-bin")), []);
    }),
);

launcherTest(
  "a system without a GNU C library, or with an old one, gets one sentence",
  () =>
    withFolder(async (folder) => {
      await Deno.copyFile(SCRIPT, join(folder, "nanochat"));
      const none = await asRoot(`chroot '${folder}' /nanochat --version`);
      if (none === undefined || Deno.build.arch !== "x86_64") return;
      const sentence = (found: string) =>
        `Cannot start nanochat on this system: ${found}, expected glibc 2.34 or newer`;
      assertEquals([none.code, none.stdout], [1, ""]);
      assertStringIncludes(
        none.stderr,
        sentence("there is no GNU C library here (/lib64/ld-linux-x86-64.so.2 is missing)"),
      );
      await Deno.mkdir(join(folder, "lib64"));
      await Deno.writeTextFile(join(folder, "lib64", "ld-linux-x86-64.so.2"), "ld.so stable release version 2.31.\n");
      const old = await asRoot(`chroot '${folder}' /nanochat --version`);
      assertStringIncludes(old!.stderr, sentence("its GNU C library is 2.31"));
    }),
);
