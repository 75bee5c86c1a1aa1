/**
 * The table of commands: parsing, `--help` and the tables of the README come from it. A new command is one row here.
 *
 * A row's code is imported when the command runs, so that `--help` costs nothing.
 */
import { type Command, command } from "./command.ts";
import {
  API_KEY,
  BENCH,
  BUNDLE,
  DATA_DIR,
  DEVICE,
  DOWNLOAD,
  FETCH,
  PRICE,
  REPORT,
  SYNTH,
  TOKENIZER_DIR,
  TRAIN,
} from "./flag_sets.ts";
import { atLeast, bool, type FlagTable, float, int, oneOf, positiveOrOff, string, UsageError } from "./flags.ts";
import { COMPUTE, IMPORT, MODEL, RUN, SAMPLING, SERVE } from "./model_flags.ts";
import { MID, RL, SFT } from "./stage_flag_sets.ts";

const BATCH_TOKENS = int(4096, {
  help: "size of a forward pass; memory grows with it",
  unit: "tokens",
  check: atLeast(64),
});

const BENCH_SUMMARIES: Readonly<Record<keyof typeof BENCH, string>> = {
  train: "times whole training steps on random tokens, both optimizers included",
  infer: "times prefill and decoding on random weights",
  tokenizer: "times training, encoding and decoding of a tokenizer on a text",
  loader: "times batches of a loader that nobody computes with",
  attention: "times attention, forward and backward",
  loss: "times the output layer with the loss, forward and backward",
  optimizer: "times one update of both optimizers",
  gemm: "times one product of matrices",
  start: "times the start of the program",
};

const BENCHES = Object.entries(BENCH).map(([form, flags]) =>
  command({
    name: `bench ${form}`,
    summary: BENCH_SUMMARIES[form as keyof typeof BENCH],
    flags: flags as FlagTable,
    run: async ({ values, terminal }) => {
      if (form === "tokenizer" && values.text === "") {
        throw new UsageError("Cannot time a tokenizer: no text is given, expected --text=FILE");
      }
      await (await import("./bench_commands.ts")).runBench(form, { values, terminal });
    },
  })
);

const COMPLETIONS_USE = `bash: source <(nanochat completions bash), in ~/.bashrc
zsh:  source <(nanochat completions zsh), in ~/.zshrc behind compinit
fish: nanochat completions fish > ~/.config/fish/completions/nanochat.fish`;

const SERVE_DETAILS = `Only this machine reaches it, unless --host says otherwise; then clients must send a key, or
--no-auth is written. Ctrl-C lets running answers end, a second one stops at once.`;

const EXPORT = {
  ...MODEL,
  out: string(undefined, { help: "folder to write, which must not exist yet" }),
  overwrite: bool(false, { help: "replaces an earlier export" }),
} as const satisfies FlagTable;

/** Refuses an export without a place to go to. */
function checkOut(out: string | undefined): void {
  if (!out) throw new UsageError("Cannot export: no place is given, expected --out=PATH");
}

/** All commands, in the order of the help. */
export const COMMANDS: readonly Command[] = [
  command({
    name: "data make",
    summary:
      "makes shards of your own text: folders and files of .txt, .md, .jsonl and .parquet, .gz of the first three",
    positional: [{ name: "INPUTS", help: "folders and files", many: true }],
    flags: {
      key: string("text", { help: "field of a JSON line or column of a Parquet file that holds the text" }),
      seed: int(42, { help: "seed of the shuffle" }),
      "shard-chars": int(250_000_000, {
        help: "size at which a shard is closed, at the end of a row group",
        unit: "characters",
        check: atLeast(1),
      }),
      ...DATA_DIR,
    },
    run: async ({ positional, values, terminal }) => {
      await (await import("./data_commands.ts")).makeData(positional, { ...values, terminal });
    },
  }),
  command({
    name: "data world",
    summary: 'writes the small world that "run tiny" trains on: stories, facts, questions, arithmetic, spelling, dates',
    flags: {
      seed: int(1, { help: "another seed, other texts about the same world", check: atLeast(0) }),
      "train-documents": int(30_000, { help: "documents of about 460 characters", check: atLeast(1) }),
      "val-documents": int(2_500, { help: "documents kept for validation", check: atLeast(1) }),
      overwrite: bool(false, { help: "replaces the shards that are there" }),
    },
    run: async ({ values, terminal }) => {
      await (await import("./run_command.ts")).writeWorld({ ...values, terminal });
    },
  }),
  command({
    name: "data stats",
    summary: "counts what shards hold: documents, characters, sizes, lengths",
    positional: [{ name: "FOLDER", help: "folder of shards; without it the base folder's", optional: true }],
    flags: {},
    run: async ({ positional, values: { baseDir }, terminal }) => {
      await (await import("./data_commands.ts")).showStats(positional[0], { baseDir, terminal });
    },
  }),
  command({
    name: "data download",
    summary: "downloads the reference's pretraining shards; a second call goes on where the first one stopped",
    flags: DOWNLOAD,
    run: async ({ values, terminal, stop }) =>
      await (await import("./data_commands.ts")).downloadData({ ...values, terminal, stop }),
  }),
  command({
    name: "data fetch",
    summary: "fetches the data of the later stages: task sets, CORE's bundle, the word list, identity conversations",
    positional: [{
      name: "NAME",
      help: "tasks, eval-bundle, words, identity or all",
      words: ["tasks", "eval-bundle", "words", "identity", "all"],
    }],
    flags: FETCH,
    run: async ({ positional, values, terminal, stop }) =>
      await (await import("./data_commands.ts")).fetchData(positional[0], { ...values, terminal, stop }),
  }),
  command({
    name: "data synth",
    summary:
      "makes conversations about a persona with a model behind an OpenAI-compatible server; goes on where it stopped",
    flags: SYNTH,
    stoppable: true,
    run: async ({ values, terminal, stop }) =>
      await (await import("./synth_command.ts")).synth({ ...values, terminal, stop }),
  }),
  command({
    name: "tokenizer train",
    summary: "trains a tokenizer on the training shards",
    flags: {
      "vocab-size": int(65536, { help: "tokens, the 9 special ones included", check: atLeast(265) }),
      "max-chars": int(1e10, { help: "text to train on", unit: "characters", check: atLeast(1) }),
      "doc-cap": int(10_000, { help: "length that documents are cut to", unit: "characters", check: atLeast(1) }),
      overwrite: bool(false, { help: "replaces a tokenizer that models use; they keep their copies" }),
      threads: DEVICE.threads,
      ...DATA_DIR,
      ...TOKENIZER_DIR,
    },
    run: async ({ values, terminal }) => {
      await (await import("./tokenizer_commands.ts")).train({ ...values, terminal });
    },
  }),
  command({
    name: "tokenizer eval",
    summary:
      "measures bytes per token over seven kinds of text, beside GPT-2 and GPT-4 where their rank files are given",
    flags: {
      "gpt2-ranks": string(undefined, { help: "rank file of GPT-2, lines of base64 and rank as tiktoken reads them" }),
      "gpt4-ranks": string(undefined, { help: "rank file of GPT-4 (cl100k_base)" }),
      ...DATA_DIR,
      ...TOKENIZER_DIR,
    },
    run: async ({ values, terminal }) => {
      await (await import("./tokenizer_commands.ts")).evaluate({ ...values, terminal });
    },
  }),
  command({
    name: "tokenizer show",
    summary: "shows the tokens of a text or a conversation, with ids, and what is trained on",
    positional: [{ name: "TEXT", help: "text to cut into tokens", optional: true }],
    flags: {
      conversation: string(undefined, {
        help: "JSON file with a conversation, {messages: [...]}; of JSON lines the first",
      }),
      ...TOKENIZER_DIR,
    },
    run: async ({ positional, values, terminal }) => {
      if ((positional[0] === undefined) === (values.conversation === undefined)) {
        throw new UsageError("Cannot show tokens: expected either TEXT or --conversation=FILE");
      }
      await (await import("./tokenizer_commands.ts")).show(positional[0], { ...values, terminal });
    },
  }),
  command({
    name: "train",
    summary: "trains a base model on shards; --depth is the one dial",
    flags: { ...TRAIN, ...DATA_DIR, ...TOKENIZER_DIR, ...BUNDLE, ...PRICE },
    stoppable: true,
    run: async (invocation) => await (await import("./train_command.ts")).train(invocation),
  }),
  command({
    name: "mid",
    summary: "goes on with a base model on conversations, packed like text",
    flags: MID,
    stoppable: true,
    run: async (invocation) => await (await import("./stage_commands.ts")).mid(invocation),
  }),
  command({
    name: "sft",
    summary: "fine-tunes a model on what the assistant says in conversations",
    flags: SFT,
    stoppable: true,
    run: async (invocation) => await (await import("./stage_commands.ts")).sft(invocation),
  }),
  command({
    name: "rl",
    summary: "reinforces a model by the rewards of a task for its answers",
    flags: RL,
    stoppable: true,
    run: async (invocation) => await (await import("./stage_commands.ts")).rl(invocation),
  }),
  command({
    name: "eval bpb",
    summary: "measures bits per byte of a model on training and validation text, and shows samples",
    flags: {
      ...MODEL,
      step: { ...MODEL.step, aliases: ["model-step"] },
      "device-batch-size": int(32, { help: "rows of a batch", check: atLeast(1) }),
      "split-tokens": int(20 * 524288, {
        help: "size of each split, cut to whole batches",
        unit: "tokens",
        check: atLeast(1),
      }),
      markov: bool(false, { help: "also measures a Markov model of two bytes on the same text" }),
      ...COMPUTE,
      quantize: { ...COMPUTE.quantize, help: "int8: also measures with weights of 8 bits, and what they lose in %" },
      ...DATA_DIR,
    },
    run: async ({ values, terminal }) => {
      await (await import("./run_command.ts")).evalBpb(values, terminal);
    },
  }),
  command({
    name: "eval core",
    summary: "measures CORE, the mean of 22 tasks, each between guessing (0) and perfect (1), beside GPT-2's scores",
    flags: {
      ...MODEL,
      ...BUNDLE,
      "data-dir": string(undefined, {
        help: "folder that holds eval_bundle, where --bundle is not given; without it the base folder",
      }),
      "max-per-task": int(-1, { help: "items of a task; -1 = all", check: positiveOrOff }),
      "batch-tokens": BATCH_TOKENS,
      ...COMPUTE,
    },
    stoppable: true,
    run: async ({ values, terminal, stop }) =>
      await (await import("./eval_commands.ts")).evalCore(values, { terminal, stop }),
  }),
  command({
    name: "eval chat",
    summary: "measures a chat model on questions, sums, programs and spelling; ChatCORE where all tasks are asked",
    flags: {
      ...MODEL,
      "task-name": string("", { help: "tasks with | between them; without it all: ARC-Easy|GSM8K", short: "a" }),
      "max-problems": int(-1, { help: "rows of a task; -1 = all", short: "x", check: positiveOrOff }),
      "batch-size": int(8, { help: "questions with letters in one forward pass", short: "b", check: atLeast(1) }),
      "device-batch-size": int(0, {
        help: "written answers at once; 0 = what a quarter of the free memory holds, 32 at most",
        check: atLeast(0),
      }),
      "num-samples": int(1, { help: "written answers to a prompt; right where one is", short: "n", check: atLeast(1) }),
      "max-new-tokens": int(512, { help: "length of a written answer", unit: "tokens", short: "m", check: atLeast(1) }),
      temperature: float(0, { help: "0 = always the most probable token", short: "t", check: atLeast(0) }),
      "top-k": int(50, { help: "choose among this many tokens; 0 = all", short: "k", check: atLeast(0) }),
      ...COMPUTE,
      "data-dir": string(undefined, { help: "folder of task sets and word list; without it the base folder" }),
    },
    stoppable: true,
    run: async ({ values, terminal, stop }) =>
      await (await import("./eval_commands.ts")).evalChat(values, { terminal, stop }),
  }),
  command({
    name: "run",
    summary: "goes through a whole recipe; a finished stage is not repeated",
    positional: [{
      name: "NAME",
      help: "recipe: tiny, cpu, speedrun, d26 or run1000",
      words: ["tiny", "cpu", "speedrun", "d26", "run1000"],
    }],
    flags: RUN,
    stoppable: true,
    run: async (invocation) => await (await import("./run_command.ts")).run(invocation.positional[0], invocation),
  }),
  command({
    name: "chat",
    summary: "talks to a model in the terminal, of this machine or behind a server; with a base model, continues text",
    flags: {
      ...MODEL,
      model: string(undefined, {
        help: 'model as "nanochat models" names it, or the end of that name; of --url: its id',
      }),
      url: string(undefined, {
        help: "server to talk to, any that is OpenAI-compatible: http://127.0.0.1:8000; settings not given are its own",
      }),
      ...API_KEY,
      prompt: string(undefined, {
        help: "one question, - = standard input; prints the answer alone and ends",
        short: "p",
      }),
      ...SAMPLING,
      tools: oneOf(["calculator", "python"], {
        default: "calculator",
        help: "what the model may use; python: also programs, each in a process without permissions",
      }),
      ...COMPUTE,
    },
    run: async (invocation) => await (await import("./chat_command.ts")).chat(invocation),
  }),
  command({
    name: "serve",
    summary: "serves a web page to chat on and an API that OpenAI's clients speak",
    details: SERVE_DETAILS,
    flags: SERVE,
    run: async ({ values, terminal }) => await (await import("./serve_command.ts")).serve(values, terminal),
  }),
  command({
    name: "export hf",
    summary: "writes a model as a folder that transformers opens, tokenizer and chat template included",
    flags: { ...EXPORT, dtype: oneOf(["fp32", "bf16"], { default: "fp32", help: "what weights are written as" }) },
    run: async ({ values, terminal }) => {
      checkOut(values.out);
      await (await import("./export_command.ts")).exportHf(values, terminal);
    },
  }),
  command({
    name: "export gguf",
    summary: "writes a model with its tokenizer as one GGUF file",
    flags: {
      ...EXPORT,
      out: string(undefined, { help: "file to write, which must not exist yet" }),
      dtype: oneOf(["fp32", "bf16", "q8_0"], {
        default: "fp32",
        help: "what weights are written as; q8_0: 8 bits, with a scale for every 32",
      }),
    },
    run: async ({ values, terminal }) => {
      checkOut(values.out);
      await (await import("./export_command.ts")).exportGguf(values, terminal);
    },
  }),
  command({
    name: "export pt",
    summary: "writes a model as the Python nanochat keeps its own, with tokenizer and optimizer",
    flags: {
      ...EXPORT,
      dtype: oneOf(["", "fp32", "bf16"], {
        default: "",
        help: "of the token embedding, all else is fp32; without it what the run computed in",
      }),
      optimizer: bool(true, { help: "writes the optimizer's state where the checkpoint has it" }),
    },
    run: async ({ values, terminal }) => {
      checkOut(values.out);
      await (await import("./export_command.ts")).exportPt(values, terminal);
    },
  }),
  command({
    name: "export tokenizer",
    summary: "writes the tokenizer of a model for tiktoken or for Hugging Face's tokenizers",
    flags: {
      ...EXPORT,
      format: oneOf(["tiktoken", "hf"], {
        default: "tiktoken",
        help: "tiktoken: ranks.tiktoken and encoding.json; hf: tokenizer.json and what transformers needs beside it",
      }),
      ...TOKENIZER_DIR,
    },
    run: async ({ values, terminal }) => {
      checkOut(values.out);
      await (await import("./export_command.ts")).exportTokenizer(values, terminal);
    },
  }),
  command({
    name: "import",
    summary:
      "makes a model or a tokenizer of the Python nanochat or of Hugging Face one of ours; executes nothing of it",
    positional: [{
      name: "PATH",
      help:
        "folder with model_N.pt, or config.json and safetensors, or tokenizer.pkl or tokenizer.json; or one such file",
    }],
    flags: IMPORT,
    run: async ({ positional, values, terminal }) =>
      await (await import("./import_command.ts")).importPath(positional[0], { values, terminal }),
  }),
  command({
    name: "models",
    summary: "lists the models of the base folder and its runs",
    flags: {},
    run: async ({ values: { baseDir }, terminal }) => {
      (await import("./model_commands.ts")).showModels({ baseDir, terminal });
    },
  }),
  command({
    name: "models inspect",
    summary: "shows the checkpoints of a model: size, validation loss, shape, flags",
    positional: [{ name: "NAME", help: 'a model as "nanochat models" names it, or the end of that name' }],
    flags: {},
    run: async ({ positional, values: { baseDir }, terminal }) => {
      (await import("./model_commands.ts")).showModel(positional[0], { baseDir, terminal });
    },
  }),
  command({
    name: "models remove",
    summary: "removes a model, or one of its checkpoints",
    positional: [{ name: "NAME", help: 'a model as "nanochat models" names it, or the end of that name' }],
    flags: {
      step: int(-1, { help: "only the checkpoint of this step; -1 = all", check: atLeast(-1) }),
      yes: bool(false, { help: "does not ask" }),
    },
    run: async ({ positional, values: { baseDir, step, yes }, terminal }) =>
      (await import("./model_commands.ts")).removeModels(positional[0], { baseDir, step, yes, terminal }),
  }),
  command({
    name: "report",
    summary: "writes the report card of a run, or draws its loss so far in the terminal",
    flags: {
      ...REPORT,
      watch: string(undefined, { help: "run, model or folder to draw; latest = the one that changed last" }),
    },
    run: async ({ values: { watch, ...values }, terminal }) => {
      const { generateReport, watch: draw } = await import("./report_commands.ts");
      if (watch === undefined) return await generateReport({ ...values, terminal });
      await draw(watch === "latest" ? undefined : watch, { baseDir: values.baseDir, terminal });
    },
  }),
  command({
    name: "report reset",
    summary: "starts a new report card: removes the sections of an earlier one, notes machine and sources",
    flags: { run: REPORT.run },
    run: async ({ values, terminal }) => (await import("./report_commands.ts")).resetReport({ ...values, terminal }),
  }),
  command({
    name: "report generate",
    summary: "writes the report card: card.md, card.html with curves, card.json",
    flags: REPORT,
    run: async ({ values, terminal }) =>
      await (await import("./report_commands.ts")).generateReport({ ...values, terminal }),
  }),
  command({
    name: "doctor",
    summary: "looks at the machine: what it offers, what will be used and why, what to do about what is missing",
    flags: {},
    run: async ({ values: { baseDir }, terminal }) =>
      await (await import("./doctor_command.ts")).doctor({ baseDir, terminal }),
  }),
  command({
    name: "selftest",
    summary: "checks every kernel of this machine's device against the CPU library and shows the errors",
    flags: { "device-type": DEVICE["device-type"] },
    run: async ({ values: { deviceType }, terminal }) =>
      await (await import("./selftest_command.ts")).runSelftest({ deviceType, terminal }),
  }),
  command({
    name: "licenses",
    summary: "lists the parts of the program by others with their licences, and shows their texts",
    positional: [{ name: "NAME", help: "part whose text is shown", optional: true }],
    flags: { texts: bool(false, { help: "shows the texts of all parts" }) },
    run: async ({ positional, values: { texts }, terminal }) =>
      (await import("./licenses_command.ts")).showLicenses(positional[0], { texts, terminal }),
  }),
  command({
    name: "completions",
    summary: "prints what a shell needs to complete commands, flags and their values",
    details: COMPLETIONS_USE,
    positional: [{ name: "SHELL", help: "bash, zsh or fish", words: ["bash", "zsh", "fish"] }],
    flags: {},
    run: async ({ positional, terminal }) =>
      terminal.result((await import("./completions.ts")).completions(positional[0], COMMANDS)),
  }),
  command({
    name: "man",
    summary: 'prints the man page: "nanochat man | man -l -" shows it',
    flags: {},
    run: async ({ terminal }) => terminal.result((await import("./man.ts")).manPage(COMMANDS)),
  }),
  ...BENCHES,
];
