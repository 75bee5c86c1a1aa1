/** The program as users type it: `bin/nanochat` as a child process. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { runChild } from "../../dev/process.ts";
import { allFlags } from "./command.ts";
import { COMMANDS } from "./commands.ts";

const ROOT = join(import.meta.dirname!, "..", "..");
const SCRIPT = join(ROOT, "bin", "nanochat");
// The wrapper looks for deno on PATH; here it is the one that runs the test.
const PATH = `${join(Deno.execPath(), "..")}:${Deno.env.get("PATH")}`;

function nanochat(args: string[], options: { cwd?: string; env?: Record<string, string>; script?: string } = {}) {
  const env = { PATH, NO_COLOR: "1", ...options.env };
  return runChild({ command: options.script ?? SCRIPT, args, cwd: options.cwd, env, deadlineMs: 60_000 });
}

async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "nanochat cli " });
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("nanochat --version and --help print to stdout and exit 0", async () => {
  const version = await nanochat(["--version"]);
  assertEquals([version.code, version.stderr], [0, ""]);
  assert(/^nanochat \d+\.\d+\.\d+ \(deno /.test(version.stdout), version.stdout);
  const help = await nanochat(["--help"]);
  assertEquals([help.code, help.stderr], [0, ""]);
  for (const { name, summary } of COMMANDS) {
    assertStringIncludes(help.stdout, `  ${name} `);
    assertStringIncludes(help.stdout, summary.split(" ").slice(0, 4).join(" "));
  }
});

Deno.test("nanochat COMMAND --help names every flag with its default", async () => {
  for (const row of COMMANDS) {
    const { code, stdout } = await nanochat([...row.name.split(" "), "--help"]);
    assertEquals(code, 0);
    for (const name of Object.keys(allFlags(row))) assertStringIncludes(stdout, `--${name}`);
  }
});

const WRONG: [string, string[], string][] = [
  ["an unknown command", ["frobnicate"], "no such command"],
  ["a flag before the command", ["--depth=4", "train"], "flags follow the command"],
];

for (const [name, args, message] of WRONG) {
  Deno.test(`nanochat exits 2 for ${name}`, async () => {
    const { code, stdout, stderr } = await nanochat(args);
    assertEquals([code, stdout], [2, ""]);
    assertStringIncludes(stderr, message);
    assert(!/\n\s+at /.test(stderr), `no stack expected: ${stderr}`);
  });
}

Deno.test("bin/nanochat works from any folder and through a symbolic link", () =>
  withFolder(async (folder) => {
    const link = join(folder, "link");
    Deno.symlinkSync(SCRIPT, link);
    const relative = join(folder, "second");
    Deno.symlinkSync("link", relative);
    for (const script of [link, relative]) {
      const { code, stdout } = await nanochat(["--version"], { cwd: folder, script });
      assertEquals(code, 0);
      assertStringIncludes(stdout, "nanochat ");
    }
  }));

Deno.test("nanochat without arguments names the next command", () =>
  withFolder(async (folder) => {
    const { code, stdout } = await nanochat([], { env: { NANOCHAT_BASE_DIR: folder } });
    assertEquals(code, 0);
    assertStringIncludes(stdout, '"nanochat run tiny"');
  }));
