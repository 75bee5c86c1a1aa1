/** The program as users type it: `bin/nanochat` as a child process. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, SCRIPT, withFolder } from "../../dev/cli.ts";
import { abiHash } from "../native/load.ts";
import { allFlags } from "./command.ts";
import { COMMANDS } from "./commands.ts";

Deno.test("nanochat --version and --help print to stdout and exit 0", async () => {
  const version = await nanochat(["--version"]);
  assertEquals([version.code, version.stderr], [0, ""]);
  assert(/^nanochat \d+\.\d+\.\d+ \(deno /.test(version.stdout), version.stdout);
  const facts = JSON.parse((await nanochat(["--version", "--json"])).stdout);
  assertEquals(Object.keys(facts), ["version", "commit", "abi", "formats", "deno", "target"]);
  assertEquals([facts.deno, facts.abi, facts.formats["nanochat checkpoint"]], [Deno.version.deno, abiHash(), 1]);
  assert(/^([0-9a-f]{40}|null)$/.test(String(facts.commit)), facts.commit);
  const slip = await nanochat(["--version", "--jsn"]);
  assertEquals([slip.code, slip.stdout], [2, ""]);
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
  ["an unknown command", ["modls"], 'no such command; did you mean "models"?'],
  ["half a command", ["data"], 'expected "nanochat data '],
  ["an unknown flag", ["data", "make", "x", "--sed=4"], 'did you mean "--seed"?'],
  ["a value of the wrong kind", ["data", "make", "x", "--seed=four"], "expected a whole number"],
  ["a flag before the command", ["--json", "models"], "flags follow the command"],
  ["an asset that is none", ["data", "fetch", "task"], 'did you mean "tasks"?'],
  ["no persona", ["data", "synth", "--model=m"], "expected --persona=FILE"],
  ["a size for a recipe", ["run", "d4"], '"d4" is the size of a model'],
  ["a config file that is a folder", ["train", "--config=/"], 'Cannot read the config file "/": is a directory'],
  ["a missing argument", ["data", "make"], "is missing"],
];

for (const [name, args, message] of WRONG) {
  Deno.test(`nanochat exits 2 for ${name}`, async () => {
    const { code, stdout, stderr } = await nanochat(args);
    assertEquals([code, stdout], [2, ""]);
    assertStringIncludes(stderr, message);
    assert(!/\n\s+at /.test(stderr), `no stack expected: ${stderr}`);
  });
}

Deno.test("nanochat says in its own words that a base folder cannot be used or made", () =>
  withFolder(async (folder) => {
    const file = join(folder, "file");
    await Deno.writeTextFile(file, "");
    for (const args of [["models"], ["run", "tiny"], ["train"], ["chat", "-p", "x"]]) {
      const { code, stdout, stderr } = await nanochat([...args, `--base-dir=${file}`]);
      assertEquals([code, stdout], [1, ""]);
      assertStringIncludes(stderr, `Cannot use the base folder "${file}": it is a file`);
    }
    assertEquals((await nanochat([], { env: { NANOCHAT_BASE_DIR: file } })).code, 1);
    const under = join(file, "base");
    const { code, stderr } = await nanochat(["data", "world", `--base-dir=${under}`]);
    assertEquals(code, 1);
    assert(/^Cannot [^:]+ ".*": not a directory$/m.test(stderr) && !stderr.includes("os error"), stderr);
  }));

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

Deno.test("--print-config can be fed back and then shows the file as origin", () =>
  withFolder(async (folder) => {
    const env = { NANOCHAT_NUM_WORKERS: "1e1", NANOCHAT_NUM_FILE: "3" };
    const args = ["data", "download", "--print-config", "--num_files=3", "--base-url=a # b=\u001b\u009b"];
    const first = await nanochat(args, { env });
    assertEquals(first.code, 0);
    assertStringIncludes(first.stdout, "NANOCHAT_NUM_WORKERS");
    assertStringIncludes(first.stderr, "NANOCHAT_NUM_FILE is set, but no flag has that name");
    const file = join(folder, "run.conf");
    await Deno.writeTextFile(file, first.stdout);
    const second = await nanochat(["data", "download", file, "--print-config"]);
    assertEquals(second.code, 0);
    const values = (text: string) => text.split("\n").map((line) => line.split(/\s+# /)[0].trim());
    assertEquals(values(second.stdout), values(first.stdout));
    assertStringIncludes(second.stdout, `# ${file}:`);
  }));

Deno.test("nanochat models and report say what is missing", () =>
  withFolder(async (folder) => {
    const env = { NANOCHAT_BASE_DIR: folder };
    const models = await nanochat(["models"], { env });
    assertEquals([models.code, models.stdout], [0, ""]);
    assertStringIncludes(models.stderr, "nanochat run tiny");
    const report = await nanochat(["report", "--watch", "x"], { env });
    assertEquals(report.code, 1);
    assertStringIncludes(report.stderr, 'Cannot find run "x"');
    const remove = await nanochat(["models", "remove", "base/d4", "--yes"], { env });
    assertEquals(remove.code, 1);
    assertStringIncludes(remove.stderr, 'Cannot find model "base/d4"');
  }));
