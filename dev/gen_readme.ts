/**
 * Writes the generated parts of README.md and of pages of docs/: the table of depths, the tables of commands, endpoints and parameters,
 * the tree of folders, each between two comments that name it. With `--check` only compares and fails on a difference. What a person writes
 * or measures there stays as it is.
 */
import { format as formatBytes } from "@std/fmt/bytes";
import { join } from "@std/path";
import { chatCommandTable } from "../src/cli/chat_commands.ts";
import { COMMANDS } from "../src/cli/commands.ts";
import { commandTable } from "../src/cli/help.ts";
import { configFromDepth, flopsPerToken, parameterCount } from "../src/model/gpt.ts";
import { BASE_TRAIN_DEFAULTS } from "../src/train/base_flags.ts";
import { CHAT_PARAMETERS, COMPLETION_PARAMETERS } from "../src/server/parameters.ts";
import { planTraining } from "../src/train/trainer.ts";
import { endpointTable, parameterTable } from "./api_tables.ts";

const ROOT = join(import.meta.dirname!, "..");

/** The folders with their purposes, in the order in which a reader meets them. */
const FOLDERS: Readonly<Record<string, string>> = {
  "bin": "the entry: nanochat.ts; the shell wrapper of a checkout; build.ts packs the single file",
  "bin/launcher": "the first bytes of the single file: checks the machine, unpacks the rest once",
  "src/native": "the one table of C functions, checked when the library is opened",
  "src/tensor": "tensors, the op table with forward and backward, tape, arena, random numbers",
  "src/data": "text to shards to tokens to batches; the base folder",
  "src/model": "gpt.ts, the only file that knows the architecture; KV cache, checkpoints",
  "src/interop": "formats of other programs",
  "src/interop/export": "models and tokenizers for other programs",
  "src/optim": "AdamW, Muon, which parameter goes where, schedules",
  "src/engine": "generation, sampling, the calculator and the Python that a model can use",
  "src/engine/sandbox": "the process that runs a program which nobody has read",
  "tasks": "conversations to train on and to be asked; the small world of run tiny",
  "src/report": "events.jsonl, one line a step; the curve in the terminal; the report card",
  "src/eval": "bits per byte, a Markov model beside it, how well a tokenizer compresses",
  "src/train": "tokenizer and base training, chat stages; recipes.ts: the whole pipelines, stage by stage",
  "src/bench": "what nanochat bench times",
  "src/server": "the HTTP server and the models behind it",
  "src/server/page": "the web page: typed by concern, bundled into one file that loads nothing",
  "src/cli": "commands.ts, the one table of commands and flags; progress, signals, chat",
  "ffi/src": "the CPU library in Rust: contexts, memory, files behind the C interface",
  "ffi/src/cpu": "tensor operations, one file each, with the plain loop as their test",
  "ffi/src/bpe": "the tokenizer: counting, merging, encoding",
  "ffi/src/parquet_io": "Parquet, read into Arrow buffers and written",
  "kernels_cu": "CUDA library: one file an operation",
  "kernels_cu/emu": "CUDA for a processor: the same sources, tested without a GPU",
  "kernels_cu/probe": "what each instruction of our own gives, on a card and emulated",
  "links": "typed stand-ins for Deno's standard library where JSR is out of reach",
  "docs":
    "for users: own data, tasks, evaluation, chats, the server's API and its clients, models in and out, the single file, coming from upstream, troubleshooting, words, what to read",
  "docs/pictures": "the web page, as the README shows it",
  "dev": "for us: tests, gates, generators, LOG.md, ARCHITECTURE.md",
  "dev/bench": "measured rows by machine, and the PyTorch peer",
  "dev/gpu": "what PyTorch finds on a GPU box, for dev/gpu_check.sh",
  "dev/golden": "numbers recorded from the Python reference",
  "dev/licenses": "standard texts for parts by others that come without their own",
  "dev/parity": "ours against them, a file for each folder",
  "dev/peers": "programs in which Python packages judge ours",
};

/** Where the speed of the dial was measured: a row of `dev/bench/`. */
const MEASURED = { file: "dev/bench/epyc_zen5_2cores.csv", bench: "train", depth: "4", dtype: "bf16" };

/** Tokens a second of training, as the first row says that fits. */
function measuredSpeed(): number {
  const [head, ...rows] = Deno.readTextFileSync(join(ROOT, MEASURED.file)).trim().split("\n").map((line) =>
    line.split(",")
  );
  const value = (row: string[], column: string) => row[head.indexOf(column)];
  const row = rows.find((row) =>
    (["bench", "depth", "dtype"] as const).every((key) => value(row, key) === MEASURED[key])
  );
  if (row === undefined) throw new Error(`Cannot find the speed of depth ${MEASURED.depth} in ${MEASURED.file}`);
  return parseFloat(value(row, "ours_per_sec"));
}

function duration(seconds: number): string {
  const [unit, name] = seconds < 86400
    ? [3600, "hours"]
    : seconds < 365 * 86400
    ? [86400, "days"]
    : [365 * 86400, "years"];
  return `${(seconds / unit).toPrecision(2)} ${name}`;
}

/** Parameters, memory and time by depth, at a batch that two cores can train with. */
function dial(): string {
  const optimizer = {
    unembeddingLr: 0.004,
    embeddingLr: 0.2,
    matrixLr: 0.02,
    weightDecay: 0,
    gradClip: 1,
    muonDtype: "bf16" as const,
  };
  const configs = [[4, 4096], [8, 8192], [12, 16384], [20, 65536]].map(([depth, vocabSize]) =>
    configFromDepth(depth, { sequenceLen: 512, vocabSize })
  );
  const flopsPerSec = measuredSpeed() * flopsPerToken(configs[0]);
  const rows = configs.map((config) => {
    const sizes = { config, B: 8, T: 512, gradAccum: 1, optimizer };
    const memory = (dtype: "f32" | "bf16") =>
      formatBytes(planTraining({ ...sizes, dtype }).totalBytes, { binary: true });
    const parameters = parameterCount(config);
    const time = duration(BASE_TRAIN_DEFAULTS.targetParamDataRatio * parameters * flopsPerToken(config) / flopsPerSec);
    const cells = [config.nLayer, config.nEmbd, config.vocabSize, `${(parameters / 1e6).toFixed(1)} M`];
    return `| ${[...cells, memory("bf16"), memory("f32"), time].join(" | ")} |`;
  });
  const speed = measuredSpeed().toLocaleString("en");
  return [
    "| depth | width | vocabulary | parameters | memory of training, bf16 | fp32 | time, bf16 |",
    "| --- | --- | --- | --- | --- | --- | --- |",
    ...rows,
  ].join("\n") +
    "\n\nMemory: weights, gradients, both optimizers and the activations of 8 rows of 512 tokens, from `planTraining`. " +
    `Time: ${BASE_TRAIN_DEFAULTS.targetParamDataRatio} tokens a parameter on two cores of an EPYC (Zen 5), from the ${speed} tokens a second ` +
    `measured at depth ${MEASURED.depth}, by FLOPs a token for the other depths; \`nanochat bench train\` measures yours.`;
}

/**
 * The folders with one line each.
 *
 * @throws {Error} where a folder with files has no line, or a line no folder.
 */
function tree(): string {
  const found = new Set<string>();
  const search = (folder: string) => {
    for (const { name, isDirectory, isFile } of Deno.readDirSync(join(ROOT, folder))) {
      if (isFile) found.add(folder);
      else if (isDirectory && !/^(target|build|node_modules|__pycache__)$/.test(name)) search(`${folder}/${name}`);
    }
  };
  for (const top of ["bin", "src", "tasks", "ffi/src", "kernels_cu", "links", "docs", "dev"]) search(top);
  for (const folder of found) {
    const isTold = folder in FOLDERS || /^(links|dev\/golden|bin\/launcher)\/|\/page$/.test(folder);
    if (!isTold) throw new Error(`Cannot draw the tree: ${folder} has no purpose, expected one in dev/gen_readme.ts`);
  }
  for (const folder of Object.keys(FOLDERS)) {
    if (![...found].some((path) => path === folder || path.startsWith(`${folder}/`))) {
      throw new Error(`Cannot draw the tree: there is no folder ${folder}, expected none in dev/gen_readme.ts`);
    }
  }
  const lines = Object.entries(FOLDERS).map(([folder, purpose]) => `${`${folder}/`.padEnd(20)} ${purpose}`);
  return `\`\`\`\n${lines.join("\n")}\n\`\`\``;
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
  if (!success) throw new Error("Cannot format the page: deno fmt failed, expected Markdown that it reads");
  return new TextDecoder().decode(stdout);
}

const PAGES: Record<string, Record<string, () => string>> = {
  "README.md": { dial, commands: () => commandTable(COMMANDS).trim(), tree },
  "docs/chat.md": { commands: chatCommandTable },
  "docs/api.md": {
    endpoints: endpointTable,
    chat: () => parameterTable(CHAT_PARAMETERS),
    completions: () => parameterTable(COMPLETION_PARAMETERS),
  },
};
for (const [page, parts] of Object.entries(PAGES)) {
  const before = await Deno.readTextFile(join(ROOT, page));
  let after = before;
  for (const [name, make] of Object.entries(parts)) {
    const pattern = new RegExp(`<!-- ${name} -->\\n[\\s\\S]*?<!-- end -->`);
    if (!pattern.test(after)) throw new Error(`Cannot write ${page}: it has no "<!-- ${name} -->" ... "<!-- end -->"`);
    after = after.replace(pattern, () => `<!-- ${name} -->\n\n${make()}\n\n<!-- end -->`);
  }
  after = await formatted(after);
  if (!Deno.args.includes("--check")) await Deno.writeTextFile(join(ROOT, page), after);
  else if (after !== before) {
    console.error(`${page} differs from what the program says; run "deno task gen:readme"`);
    Deno.exit(1);
  }
}
