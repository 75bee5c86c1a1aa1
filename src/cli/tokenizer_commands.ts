/** `nanochat tokenizer`: trains one on shards, measures how well it compresses, and shows what it makes of a text or a conversation. */
import { join, resolve } from "@std/path";
import { cyan, dim, green, inverse, red } from "@std/fmt/colors";
import { chooseData, chooseTokenizer, foldersOf, resolveBaseDir } from "../data/base_dir.ts";
import { type Conversation, renderConversation } from "../data/conversation.ts";
import { documents, listShards, splitShards } from "../data/dataset.ts";
import { parseJson, readText } from "../data/text_file.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import {
  compareTokenizers,
  type CompressionRow,
  compressionTable,
  evalTexts,
  measureTokenizer,
  ratioTable,
} from "../eval/tok_eval.ts";
import { type PublishedName, publishedTokenizer } from "../interop/tiktoken.ts";
import { FolderLock } from "../model/lock.ts";
import { checkTokenizerUnused } from "../model/models.ts";
import { reportTokenizer, reportTokenizerEval } from "../report/stages.ts";
import { trainTokenizer } from "../train/tok_train.ts";
import { printable } from "./printable.ts";
import type { Terminal } from "./progress.ts";

/** Trains a tokenizer on the training shards and saves it. */
export async function train(
  values: {
    baseDir?: string;
    dataDir?: string;
    tokenizerDir?: string;
    vocabSize: number;
    maxChars: number;
    docCap: number;
    threads: number;
    overwrite: boolean;
    terminal: Terminal;
  },
): Promise<void> {
  const { vocabSize, maxChars, docCap, threads, overwrite, terminal } = values;
  const base = resolveBaseDir(values.baseDir);
  const data = chooseData(base, values.dataDir);
  const out = values.tokenizerDir ? resolve(values.tokenizerDir) : foldersOf(base).tokenizer;
  if (!overwrite) checkTokenizerUnused(base, out);
  using _lock = FolderLock.acquire(out, { purpose: "nanochat tokenizer train", log: terminal });
  const { train: files } = splitShards(listShards(data.folder));
  terminal.info(`Training on ${files.length} shards in "${data.folder}" (${data.why})`);
  const options = { texts: documents(files), vocabSize, maxChars, docCap, threads, log: terminal };
  const { tokenizer, stats } = await trainTokenizer(options);
  using _tokenizer = tokenizer;
  await tokenizer.save(out);
  reportTokenizer(foldersOf(base).report, {
    flags: { vocabSize, maxChars, docCap },
    sec: stats.trainTimeSec,
    stats,
  });
  const { trainTimeSec, chars, documents: count, tokenBytesMean, tokenBytesMax } = stats;
  terminal.result(
    `Tokenizer with ${tokenizer.vocabSize} tokens of ${
      tokenBytesMean.toFixed(2)
    } bytes on average (longest ${tokenBytesMax}), ` +
      `from ${chars} characters of ${count} documents in ${trainTimeSec.toFixed(1)} s: ${out}`,
    { folder: out, vocabSize: tokenizer.vocabSize, ...stats },
  );
}

/** Name of the tables in `eval/`. */
const EVAL_FILE = "tokenizer_eval.md";

/** Vocabularies to compare with, by the flag that names their rank file. */
const BASELINES: readonly { flag: "gpt2Ranks" | "gpt4Ranks"; title: string; name: PublishedName }[] = [
  { flag: "gpt2Ranks", title: "GPT-2", name: "gpt2" },
  { flag: "gpt4Ranks", title: "GPT-4", name: "cl100k_base" },
];

/** Measures bytes per token over seven kinds of text, and what is saved beside the vocabularies whose rank files are given. */
export async function evaluate(
  values: {
    baseDir?: string;
    dataDir?: string;
    tokenizerDir?: string;
    gpt2Ranks?: string;
    gpt4Ranks?: string;
    terminal: Terminal;
  },
): Promise<void> {
  const { terminal } = values;
  const started = performance.now();
  const base = resolveBaseDir(values.baseDir);
  const [data, chosen] = [chooseData(base, values.dataDir), chooseTokenizer(base, values.tokenizerDir)];
  terminal.info(`Shards in "${data.folder}" (${data.why}), tokenizer in "${chosen.folder}" (${chosen.why})`);
  using ours = await Tokenizer.load(chosen.folder);
  const texts = await evalTexts(splitShards(listShards(data.folder)));
  const rows = await measureTokenizer(ours, texts);
  const figures: Record<string, number> = {};
  for (const { name, ourRatio } of rows) figures[`${name}_bytes_per_token`] = ourRatio;
  const tables = [ratioTable(rows)];
  for (const { flag, title, name } of BASELINES) {
    const path = values[flag];
    if (path === undefined) continue;
    using theirs = await readRanks(path, name);
    const compared: CompressionRow[] = await compareTokenizers({ ours, theirs }, texts);
    for (const row of compared) figures[`${row.name}_saved_percent_${name}`] = row.savedPercent;
    tables.push(compressionTable(title, compared));
  }
  const folders = foldersOf(base);
  const file = join(folders.eval, EVAL_FILE);
  Deno.mkdirSync(folders.eval, { recursive: true });
  Deno.writeTextFileSync(file, `## Tokenizer evaluation\n\n${tables.join("\n")}`);
  const flags = { gpt2Ranks: values.gpt2Ranks, gpt4Ranks: values.gpt4Ranks };
  reportTokenizerEval(folders.report, { flags, sec: (performance.now() - started) / 1000, figures });
  terminal.result(tables.join("\n").trimEnd(), { file, vocab_size: ours.vocabSize, ...figures });
  terminal.info(`Every text came back unchanged; the tables are in "${file}"`);
}

async function readRanks(path: string, name: PublishedName): Promise<Tokenizer> {
  try {
    return await publishedTokenizer(name, Deno.readTextFileSync(path));
  } catch (cause) {
    throw new Error(`Cannot read the ranks of ${name} from "${path}": ${(cause as Error).message}`, { cause });
  }
}

interface Shown {
  readonly id: number;
  readonly text: string;
  /** Whether a conversation's token is trained on. */
  readonly mask?: number;
}

/** Reads the first conversation of a file: of JSON lines, or the file as a whole. What its messages hold is the renderer's to judge. */
async function readConversation(file: string): Promise<Conversation> {
  const text = await readText(file);
  const expected = '{"messages": [...]} or a list of messages with role and content';
  let parsed: unknown;
  try {
    parsed = parseJson(text.split("\n").find((line) => line.trim() !== "") ?? "");
  } catch {
    try {
      parsed = parseJson(text);
    } catch (cause) {
      throw new SyntaxError(`Cannot read "${file}": ${(cause as Error).message}, expected ${expected}`, { cause });
    }
  }
  const messages = Array.isArray(parsed) ? parsed : (parsed as { messages?: unknown } | null)?.messages;
  const isMessage = (value: unknown) =>
    typeof value === "object" && value !== null && "role" in value && "content" in value &&
    (typeof value.content === "string" || Array.isArray(value.content) && value.content.every((part) => part !== null));
  if (!Array.isArray(messages) || !messages.every(isMessage)) {
    throw new SyntaxError(`Cannot read "${file}": its first value is something else, expected ${expected}`);
  }
  return { messages };
}

/** Shows the tokens of a text, or of the first conversation of a file: on a terminal in colours, piped one token a line. */
export async function show(
  text: string | undefined,
  values: { baseDir?: string; tokenizerDir?: string; conversation?: string; terminal: Terminal },
): Promise<void> {
  const { conversation, terminal } = values;
  const chosen = chooseTokenizer(resolveBaseDir(values.baseDir), values.tokenizerDir);
  terminal.info(`Tokenizer in "${chosen.folder}" (${chosen.why})`);
  using tokenizer = await Tokenizer.load(chosen.folder);
  const { ids, mask } = conversation === undefined
    ? { ids: tokenizer.encode(text!), mask: undefined }
    : renderConversation(tokenizer, await readConversation(conversation));
  const tokens = ids.map((id, i): Shown => ({ id, text: tokenizer.decode([id]), mask: mask?.[i] }));
  if (terminal.isTerminal) {
    terminal.raw(`${drawTokens(tokens)}\n`);
    terminal.result(`${tokens.length} tokens`);
    return;
  }
  for (const token of tokens) {
    const trained = token.mask === undefined ? "" : `\t${token.mask}`;
    terminal.result(`${token.id}${trained}\t${printable(token.text, { oneLine: true })}`, token);
  }
}

/** Draws tokens with their ids: neighbours set off from each other; in a conversation green where trained on, red where not. */
export function drawTokens(tokens: readonly Shown[]): string {
  return tokens.map(({ id, text, mask }, i) => {
    const shown = printable(text, { oneLine: true });
    const coloured = mask === undefined ? (i % 2 === 0 ? inverse(shown) : cyan(shown)) : (mask ? green : red)(shown);
    return `${coloured}${dim(`(${id})`)}`;
  }).join("");
}
