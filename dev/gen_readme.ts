/**
 * Writes the generated parts of README.md: the table of depths, the table of commands and the file tree, each between two comments
 * that name it. With `--check` only compares and fails on a difference. What a person writes or measures there stays as it is.
 */
import { format as formatBytes } from "@std/fmt/bytes";
import { join, relative } from "@std/path";
import { COMMANDS } from "../src/cli/commands.ts";
import { commandTable } from "../src/cli/help.ts";
import { configFromDepth, parameterCount } from "../src/model/gpt.ts";
import { planTraining } from "../src/train/trainer.ts";

const ROOT = join(import.meta.dirname!, "..");
const FOLDERS = [
  "src/native",
  "src/tensor",
  "src/data",
  "src/model",
  "src/optim",
  "src/engine",
  "src/report",
  "src/eval",
]
  .concat([
    "src/train",
    "src/bench",
    "src/cli",
    "tasks",
    "ffi/src",
    "ffi/src/cpu",
    "ffi/src/bpe",
    "ffi/src/parquet_io",
    "dev",
  ]);

/** Parameters and memory by depth, at a batch that two cores can train with. */
function dial(): string {
  const optimizer = {
    unembeddingLr: 0.004,
    embeddingLr: 0.2,
    matrixLr: 0.02,
    weightDecay: 0,
    gradClip: 1,
    muonDtype: "bf16" as const,
  };
  const rows = [[4, 4096], [8, 8192], [12, 16384], [20, 65536]].map(([depth, vocabSize]) => {
    const config = configFromDepth(depth, { sequenceLen: 512, vocabSize });
    const sizes = { config, B: 8, T: 512, gradAccum: 1, optimizer };
    const memory = (dtype: "f32" | "bf16") =>
      formatBytes(planTraining({ ...sizes, dtype }).totalBytes, { binary: true });
    const parameters = (parameterCount(config) / 1e6).toFixed(1);
    return `| ${depth} | ${config.nEmbd} | ${vocabSize} | ${parameters} M | ${memory("bf16")} | ${memory("f32")} |`;
  });
  return [
    "| depth | width | vocabulary | parameters | memory of training, bf16 | fp32 |",
    "| --- | --- | --- | --- | --- | --- |",
    ...rows,
  ]
    .join("\n") +
    "\n\nMemory: weights, gradients, both optimizers and the activations of 8 rows of 512 tokens, from `planTraining`.";
}

/** Folders with the first line that each file says about itself. */
function tree(): string {
  const lines = FOLDERS.flatMap((folder) => {
    const names = [...Deno.readDirSync(join(ROOT, folder))].filter(({ isFile, name }) => isFile && isSource(name)).map((
      { name },
    ) => name);
    return [`${folder}/`, ...names.sort().map((name) => `  ${name.padEnd(24)} ${purpose(join(ROOT, folder, name))}`)];
  });
  return `<details>\n<summary>${lines.length} lines: every folder and file with its purpose</summary>\n\n\`\`\`\n${
    lines.map((line) => line.trimEnd()).join("\n")
  }\n\`\`\`\n\n</details>`;
}

function isSource(name: string): boolean {
  return /\.(ts|rs)$/.test(name) && !/(_test|_tests|testing)\.(ts|rs)$/.test(name);
}

/** The first sentence of a file's opening comment. */
function purpose(path: string): string {
  const text = Deno.readTextFileSync(path);
  const comment = text.match(/^\/\*\*([\s\S]*?)\*\//)?.[1].replace(/^\s*\* ?/gm, "") ??
    text.match(/^(?:\/\/[!/]?.*\n)+/)?.[0].replace(/^\/\/[!/]? ?/gm, "") ?? "";
  const sentence = comment.trim().split(/\n\s*\n/)[0].replace(/\s+/g, " ").match(/^.*?\.(?=\s|$)|^.*$/)?.[0] ?? "";
  if (sentence === "") {
    throw new Error(`Cannot describe ${relative(ROOT, path)}: it has no opening comment, expected one`);
  }
  return sentence.replace(/[.:;]$/, "").slice(0, 100);
}

/** Lays Markdown out as `deno fmt` does. */
async function formatted(markdown: string): Promise<string> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["fmt", "--ext=md", "-"],
    cwd: ROOT,
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(markdown));
  await writer.close();
  const { success, stdout } = await child.output();
  if (!success) throw new Error("Cannot format README.md: deno fmt failed, expected Markdown that it reads");
  return new TextDecoder().decode(stdout);
}

const PARTS: Record<string, () => string> = { dial, commands: () => commandTable(COMMANDS).trim(), tree };
const path = join(ROOT, "README.md");
const before = await Deno.readTextFile(path);
let after = before;
for (const [name, make] of Object.entries(PARTS)) {
  const pattern = new RegExp(`<!-- ${name} -->\\n[\\s\\S]*?<!-- end -->`);
  if (!pattern.test(after)) throw new Error(`Cannot write README.md: it has no "<!-- ${name} -->" ... "<!-- end -->"`);
  after = after.replace(pattern, () => `<!-- ${name} -->\n\n${make()}\n\n<!-- end -->`);
}
after = await formatted(after);
if (!Deno.args.includes("--check")) await Deno.writeTextFile(path, after);
else if (after !== before) {
  console.error('README.md differs from what the program says; run "deno task gen:readme"');
  Deno.exit(1);
}
