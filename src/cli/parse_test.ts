import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import fc from "fast-check";
import { checkMutations, testRuns } from "../../dev/testing.ts";
import { formatConfigValue, parseConfig } from "./config_file.ts";
import { COMMON_FLAGS } from "./command.ts";
import { bool, type FlagTable, float, int, oneOf, string, UsageError } from "./flags.ts";
import { nearest, parse, unknownVariables, valuesOf } from "./parse.ts";

const SEED = Number(Deno.env.get("NANOCHAT_TEST_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0] >>> 1);

const FLAGS: FlagTable = {
  depth: int(20, { help: "" }),
  "device-batch-size": int(32, { help: "" }),
  "weight-decay": float(0, { help: "" }),
  run: string("dummy", { help: "", env: ["WANDB_RUN"] }),
  "device-type": string("", { help: "", aliases: ["device"] }),
  prompt: string(undefined, { help: "", short: "p" }),
  resume: oneOf(["", "latest", "auto"], { help: "", default: "", bare: "latest" }),
  overwrite: bool(false, { help: "" }),
  cors: string(undefined, { help: "", many: true }),
  ...COMMON_FLAGS,
};

interface Given {
  env?: Record<string, string>;
  files?: Record<string, string>;
  takesPositional?: boolean;
}

function run(args: string[], { env = {}, files = {}, takesPositional = false }: Given = {}) {
  return parse({
    flags: FLAGS,
    args,
    env,
    takesPositional,
    readFile: (path) => {
      if (files[path] === undefined) throw new Error("no such file");
      return files[path];
    },
  });
}

const value = (args: string[], name: string, given?: Given) => run(args, given).settings.get(name)?.value;

const ACCEPTED: [string, string[], string, unknown][] = [
  ["dashes", ["--device-batch-size=4"], "device-batch-size", 4],
  ["all of several, where a list is meant", ["--cors=a", "--cors=b,c"], "cors", "a,b,c"],
  ["underscores", ["--device_batch_size=4"], "device-batch-size", 4],
  ["a value after a space", ["--depth", "4"], "depth", 4],
  ["a negative value after a space", ["--depth", "-1"], "depth", -1],
  ["the last of several", ["--depth=4", "--depth=8"], "depth", 8],
  ["an alias", ["--device=cpu"], "device-type", "cpu"],
  ["= in a value", ["--run=a=b=c"], "run", "a=b=c"],
  ["an empty text", ["--run="], "run", ""],
  ["a text that looks like a number", ["--run=1e3"], "run", "1e3"],
  ["a text of spaces and quotes", ['--run= "x" '], "run", ' "x" '],
  ["a short flag", ["-p", "hello"], "prompt", "hello"],
  ["a short flag with =", ["-p=-x"], "prompt", "-x"],
  ["a switch", ["--overwrite"], "overwrite", true],
  ["a negated switch", ["--no-overwrite"], "overwrite", false],
  ["a flag that stands alone", ["--resume", "--depth=4"], "resume", "latest"],
  ["a value for a flag that may stand alone", ["--resume=auto"], "resume", "auto"],
  ["a switch with a value", ["--overwrite=false"], "overwrite", false],
];

for (const [name, args, flag, expected] of ACCEPTED) {
  Deno.test(`parse() takes ${name}`, () => assertEquals(value(args, flag), expected));
}

const REFUSED: [string, string[], string][] = [
  ["an unknown flag with the nearest one", ["--dept=4"], 'no such flag; did you mean "--depth"?'],
  ["an unknown flag without a near one", ["--zzzzzzzzzz"], "no such flag"],
  ["an unknown short flag", ["-z"], "Cannot read -z: no such flag"],
  ["a flag without its value", ["--depth"], "no value follows, expected --depth=VALUE"],
  ["a flag followed by another one", ["--depth", "--overwrite"], "no value follows"],
  ["a value of the wrong kind", ["--depth=four"], 'Cannot read --depth: "four", expected a whole number'],
  ["a negated number", ["--no-depth"], "no such flag"],
  ["a config file that is not there", ["missing.conf"], 'Cannot read the config file "missing.conf"'],
];

for (const [name, args, expected] of REFUSED) {
  Deno.test(`parse() refuses ${name}`, () => {
    assertStringIncludes(assertThrows(() => run(args), UsageError).message, expected);
  });
}

Deno.test("parse() lets flags win over environment over files over defaults", () => {
  const files = { "a.conf": "depth = 1\nrun = a", "b.conf": "depth = 2 # later file" };
  const depth = (args: string[], env = {}) => run(args, { files, env }).settings.get("depth");
  assertEquals(depth([]), { value: 20, origin: "default" });
  assertEquals(depth(["a.conf"]), { value: 1, origin: "a.conf:1" });
  assertEquals(depth(["--config=a.conf", "--config", "b.conf"]), { value: 2, origin: "b.conf:1" });
  assertEquals(depth(["a.conf"], { NANOCHAT_DEPTH: "3" }), { value: 3, origin: "NANOCHAT_DEPTH" });
  assertEquals(depth(["a.conf", "--depth=4"], { NANOCHAT_DEPTH: "3" }), { value: 4, origin: "--depth" });
});

Deno.test("parse() reads aliases and further variables from the environment", () => {
  assertEquals(value([], "device-type", { env: { NANOCHAT_DEVICE: "cuda" } }), "cuda");
  assertEquals(value([], "run", { env: { WANDB_RUN: "w" } }), "w");
  assertEquals(value([], "run", { env: { WANDB_RUN: "w", NANOCHAT_RUN: "n" } }), "n");
  assertThrows(() => run([], { env: { NANOCHAT_DEPTH: "x" } }), UsageError, 'NANOCHAT_DEPTH: "x"');
});

Deno.test("parse() names file and line of an unknown key and of a bad value", () => {
  const files = { "a.conf": "# comment\n\ndept = 4\n", "b.conf": "\ndepth = x" };
  assertThrows(() => run(["a.conf"], { files }), UsageError, 'a.conf:3: no setting "dept"; did you mean "depth"?');
  assertThrows(() => run(["b.conf"], { files }), UsageError, 'b.conf:2: depth: "x", expected a whole number');
});

Deno.test("parse() keeps positional arguments as texts where the command takes them", () => {
  const { positional } = run(["007", "--depth=1", "b c", "--", "--x"], { takesPositional: true });
  assertEquals(positional, ["007", "b c", "--x"]);
});

Deno.test("parseConfig() reads quotes, comments, underscores, CRLF and a byte order mark", () => {
  const text = '\uFEFF# head\r\na_b = 1 # one\r\nc = "x # \\"y\\"" # two\r\nd = \'it is\'\r\ne=\r\nf = a#b\r\n';
  assertEquals(parseConfig(text, { file: "f" }).map(({ key, text }) => [key, text]), [
    ["a-b", "1"],
    ["c", 'x # "y"'],
    ["d", "it is"],
    ["e", ""],
    ["f", "a#b"],
  ]);
});

Deno.test("parseConfig() refuses code, an open quote and a key given twice, with file and line", () => {
  assertThrows(() => parseConfig("import os", { file: "f" }), UsageError, "f:1");
  assertThrows(() => parseConfig('a = "x', { file: "f" }), UsageError, "f:1");
  assertThrows(() => parseConfig('a = "x" y', { file: "f" }), UsageError, "f:1");
  assertThrows(() => parseConfig("a = 1\nA = 2", { file: "f" }), UsageError, "f:2: a was set on line 1");
});

Deno.test("parseConfig() reads back whatever formatConfigValue() wrote", () => {
  const anyText = fc.string({ unit: "binary" });
  fc.assert(
    fc.property(fc.oneof(anyText, fc.double({ noNaN: true, noDefaultInfinity: true }), fc.boolean()), (given) => {
      const [line] = parseConfig(`key = ${formatConfigValue(given)} # origin`, { file: "f" });
      assertEquals(line.text, String(given));
    }),
    { seed: SEED, numRuns: testRuns(500) },
  );
});

Deno.test("parse() survives any config file with values or one UsageError", () => {
  const line = fc.oneof(
    fc.string(),
    fc.constantFrom("depth = 4", "run = 'x'", "# c", 'run = "', "weight_decay = 1e-1"),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 8 }), (lines) => {
      try {
        assertEquals(typeof value(["f"], "depth", { files: { f: lines.join("\n") } }), "number");
      } catch (error) {
        if (!(error instanceof UsageError)) throw error;
        assertStringIncludes(error.message, "f:");
      }
    }),
    { seed: SEED, numRuns: testRuns(500) },
  );
});

Deno.test("parse() survives 2,000 seeded mutations of a config file with values or one UsageError", async () => {
  const lines = [
    "# run of the day",
    "depth = 12",
    "device_batch_size = 8",
    "weight-decay = 1e-1 # decay",
    'run = "a # b"',
  ];
  await checkMutations({
    files: [lines.join("\n"), lines.join("\r\n") + "\r\nprompt = 'it is'\r\n"].map((text) =>
      new TextEncoder().encode(text)
    ),
    read: (bytes) => {
      const { depth, run: name } = valuesOf(run(["f"], { files: { f: new TextDecoder().decode(bytes) } }).settings);
      assert(Number.isSafeInteger(depth) && typeof name === "string");
    },
    errors: [UsageError],
    refused: 0.4,
  });
});

Deno.test("parse() gives the same values for --name=VALUE as for a config file", () => {
  fc.assert(
    fc.property(fc.integer(), fc.string(), (depth, name) => {
      const byFlag = run([`--depth=${depth}`, `--run=${name}`]);
      const byFile = run(["f"], { files: { f: `depth = ${depth}\nrun = ${formatConfigValue(name)}` } });
      assertEquals(valuesOf(byFlag.settings), { ...valuesOf(byFile.settings), config: undefined });
    }),
    { seed: SEED, numRuns: testRuns(100) },
  );
});

Deno.test("unknownVariables() warns of NANOCHAT_ names that are neither flags nor known", () => {
  const env = { NANOCHAT_DEPHT: "1", NANOCHAT_DEPTH: "1", NANOCHAT_BASE_DIR: "/x", NANOCHAT_CI: "1", OTHER: "1" };
  const warnings = unknownVariables(env, ["depth"]);
  assertEquals(warnings, ['NANOCHAT_DEPHT is set, but no flag has that name; did you mean "NANOCHAT_DEPTH"?']);
});

Deno.test("nearest() keeps silent where nothing is near", () => {
  assertEquals(nearest("trian", ["train", "chat"]), '; did you mean "train"?');
  assertEquals(nearest("frobnicate", ["train", "chat"]), "");
});
