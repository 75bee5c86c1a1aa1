/** `nanochat chat`: opens a model or connects to a server, and talks. */
import { blue } from "@std/fmt/colors";
import { join } from "@std/path";
import { resolveBaseDir, type Stage } from "../data/base_dir.ts";
import type { Tool } from "../engine/batch.ts";
import { PythonPool } from "../engine/execution.ts";
import { LoadedModel } from "../engine/load.ts";
import { pythonTool } from "../engine/python_tool.ts";
import type { Quantization } from "../model/gpt.ts";
import { listModels, type ModelChoice } from "../model/models.ts";
import { readApiKey } from "./api_key.ts";
import { answerOnce, chatLoop } from "./chat.ts";
import { completeCommand } from "./chat_commands.ts";
import { ChatHistory } from "./chat_history.ts";
import { type ChatInput, LineInput } from "./chat_input.ts";
import type { AnswerSettings, ChatPartner } from "./chat_partner.ts";
import type { Invocation } from "./command.ts";
import { Conversation } from "./conversation.ts";
import { type FlagTable, UsageError } from "./flags.ts";
import { LocalPartner, type OpenModel } from "./local_partner.ts";
import { COMPUTE, MODEL } from "./model_flags.ts";
import type { Terminal } from "./progress.ts";
import { RemotePartner } from "./remote_partner.ts";
import { isReadable, serverUrl } from "./server_connection.ts";

const HISTORY_FILE = "chat_history.jsonl";

/** Flags of the command. */
export interface ChatFlags {
  readonly baseDir?: string;
  /** "" = the furthest stage of what was trained last. */
  readonly source: Stage | "";
  readonly modelTag?: string;
  /** -1 = the largest. */
  readonly step: number;
  /** Full name of a model, or the end of it; of a server its id. */
  readonly model?: string;
  /** Server that answers. */
  readonly url?: string;
  readonly apiKey?: string;
  readonly apiKeyFile?: string;
  /** One question, "-" = standard input; without it, or where it is empty, a conversation. */
  readonly prompt?: string;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly maxTokens: number;
  readonly seed?: number;
  /** python: the calculator and the sandbox. */
  readonly tools: "calculator" | "python";
  readonly deviceType: "cpu" | "cuda" | "";
  readonly threads: number;
  readonly dtype: string;
  readonly quantize: Quantization;
}

type ChatInvocation = Pick<Invocation<FlagTable>, "settings" | "terminal"> & { readonly values: ChatFlags };

/** Runs the command; returns the exit code. */
export async function chat({ values, settings, terminal }: ChatInvocation): Promise<number> {
  checkFlags(values, (name) => settings.get(name)?.origin.startsWith("--") ?? false);
  const question = values.prompt === "-" ? await readQuestion() : values.prompt;
  const { temperature, topK, topP, maxTokens, seed } = values;
  const options = { question, baseDir: values.baseDir, terminal };
  if (values.url) {
    const partner = await connect(values.url, { ...values, terminal });
    // What nobody set is the server's own.
    const given = <T>(name: string, value: T) => settings.get(name)?.origin === "default" ? undefined : value;
    return await talk(partner, {
      ...options,
      settings: {
        temperature: given("temperature", temperature),
        topK: given("top-k", topK),
        topP: given("top-p", topP),
        maxTokens: given("max-tokens", maxTokens),
        seed,
      },
    });
  }
  // Opened before the first word, so that a sandbox that is missing or leaks stops the command and not an answer.
  await using pool = values.tools === "python" ? await PythonPool.open({ size: 1 }) : undefined;
  using partner = await openLocal(values, { tool: pool && pythonTool(pool), terminal });
  const { damaged } = partner;
  const code = await talk(partner, { ...options, settings: { temperature, topK, topP, maxTokens, seed }, damaged });
  if (question) await partner.verified;
  return code;
}

/** Refuses flags that have no effect beside others. */
function checkFlags({ url, model }: ChatFlags, isGiven: (name: string) => boolean): void {
  const refuse = (name: string, beside: string) => {
    throw new UsageError(`Cannot use --${name} ${beside}`);
  };
  const ofModel = Object.keys(MODEL).find(isGiven);
  if (model && ofModel !== undefined && ofModel !== "step") refuse(ofModel, "beside --model, which names the model");
  const ofLocal = [...Object.keys(MODEL), ...Object.keys(COMPUTE), "tools"].find(isGiven);
  if (url && ofLocal !== undefined) refuse(ofLocal, "with --url: the server has its own, expected --model at most");
  if (!url && isGiven("api-key-file")) refuse("api-key-file", "without --url: a model of this machine asks for no key");
}

/** Reads standard input as one question. */
async function readQuestion(): Promise<string> {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await new Response(Deno.stdin.readable).bytes());
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new SyntaxError("Cannot read the question: standard input is no UTF-8, expected text", { cause });
  }
  if (text.trim() === "") throw new UsageError("Cannot ask: standard input is empty, expected a question");
  return text.trim();
}

async function connect(
  given: string,
  { terminal, model, ...keys }: Pick<ChatFlags, "model" | "apiKey" | "apiKeyFile"> & { terminal: Terminal },
): Promise<RemotePartner> {
  const url = serverUrl(given);
  const key = await readApiKey(keys);
  if (key !== undefined && isReadable(url)) {
    terminal.warn(`The key and the conversation go to "${url}" without encryption: others can read them on the way`);
  }
  const partner = await RemotePartner.connect({ url, key }, { model: model || undefined });
  const others = model ? "" : ", the first model that it lists; choose another with --model or /model";
  terminal.info(`Using ${partner.model} of "${url}"${others}`);
  return partner;
}

async function openLocal(
  values: ChatFlags,
  { tool, terminal }: { tool?: Tool; terminal: Terminal },
): Promise<LocalPartner> {
  const { deviceType, threads, dtype, quantize } = values;
  const base = resolveBaseDir(values.baseDir);
  const open = async (choice: ModelChoice): Promise<OpenModel & { readonly why: string }> => {
    const loaded = await LoadedModel.open(base, { ...choice, deviceType, threads, dtype, quantize, log: terminal });
    const { chosen: { name, source, why }, engine, tokenizer, verified } = loaded;
    const completes = source === "base";
    return { name, engine, tokenizer, completes, verified, why, [Symbol.dispose]: () => loaded[Symbol.dispose]() };
  };
  const step = values.step < 0 ? undefined : values.step;
  const first = await open(
    values.model ? { name: values.model, step } : { source: values.source || undefined, tag: values.modelTag, step },
  );
  terminal.info(first.why);
  return new LocalPartner(first, {
    tool,
    names: () => listModels(base).map(({ name }) => name),
    open: (name) => open({ name }),
  });
}

interface TalkOptions {
  readonly question: string | undefined;
  readonly settings: AnswerSettings;
  readonly baseDir: string | undefined;
  /** Rejects where the model's file is damaged, which ends the conversation; a good one lets it go on. */
  readonly damaged?: Promise<never>;
  readonly terminal: Terminal;
}

/** Answers one question or talks; returns the exit code. */
async function talk(
  partner: ChatPartner,
  { question, settings, baseDir, damaged = new Promise(() => {}), terminal }: TalkOptions,
): Promise<number> {
  const conversation = new Conversation(partner, settings);
  if (question) {
    await using input = new LineInput(ReadableStream.from<Uint8Array<ArrayBuffer>>([]));
    return await Promise.race([answerOnce(question, { conversation, terminal, input }), damaged]);
  }
  await using input = await openInput(baseDir, terminal);
  if (partner.completes) {
    terminal.info("This is a base model: it does not answer, it continues the text that you begin");
  }
  if (input.isTerminal) terminal.info("Type a text and press Enter; /help lists the commands, quit leaves");
  return await Promise.race([chatLoop({ conversation, terminal, input }), damaged]);
}

/** Reads lines, edited with the arrow keys where a person types them and sees what is typed. */
async function openInput(baseDir: string | undefined, terminal: Terminal): Promise<ChatInput & AsyncDisposable> {
  const keys = Deno.stdin.readable;
  if (!Deno.stdin.isTerminal()) return new LineInput(keys);
  const screen = terminal.screen;
  if (screen === undefined) return new LineInput(keys, { prompt: () => {} });
  if (Deno.env.get("TERM") === "dumb") return new LineInput(keys, { prompt: (text) => screen.write(text) });
  const { LineEditor } = await import("./line_editor.ts");
  const history = new ChatHistory(join(resolveBaseDir(baseDir), HISTORY_FILE), terminal);
  const setRaw = (isRaw: boolean) => Deno.stdin.setRaw(isRaw, { cbreak: isRaw });
  return new LineEditor({ keys, screen, history, setRaw, paint: blue, complete: completeCommand });
}
