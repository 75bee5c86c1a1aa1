/** `nanochat chat`: opens a model and talks. */
import { blue } from "@std/fmt/colors";
import { resolveBaseDir, type Stage } from "../data/base_dir.ts";
import { PythonPool } from "../engine/execution.ts";
import { LoadedModel } from "../engine/load.ts";
import { pythonTool } from "../engine/python_tool.ts";
import type { Quantization } from "../model/gpt.ts";
import { answerOnce, chatLoop } from "./chat.ts";
import { LineInput } from "./chat_input.ts";
import { Conversation } from "./conversation.ts";
import type { Terminal } from "./progress.ts";

/** Flags of the command. */
export interface ChatFlags {
  readonly baseDir?: string;
  /** "" = the furthest stage of what was trained last. */
  readonly source: Stage | "";
  readonly modelTag?: string;
  /** -1 = the largest. */
  readonly step: number;
  /** One question; without it, or where it is empty, a conversation. */
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

/** Runs the command; returns the exit code. */
export async function chat(flags: ChatFlags, terminal: Terminal): Promise<number> {
  using loaded = await LoadedModel.open(resolveBaseDir(flags.baseDir), {
    source: flags.source || undefined,
    tag: flags.modelTag,
    step: flags.step < 0 ? undefined : flags.step,
    deviceType: flags.deviceType,
    threads: flags.threads,
    dtype: flags.dtype,
    quantize: flags.quantize,
    log: terminal,
  });
  terminal.info(loaded.chosen.why);
  const completes = loaded.chosen.source === "base";
  // Opened before the first word, so that a sandbox that is missing or leaks stops the command and not an answer.
  await using pool = flags.tools === "python" ? await PythonPool.open({ size: 1 }) : undefined;
  const tool = pool && pythonTool(pool);
  const conversation = new Conversation(loaded.engine, loaded.tokenizer, { ...flags, completes, tool });
  const isInteractive = Deno.stdin.isTerminal();
  const prompt = (text: string) => isInteractive && terminal.raw(blue(text));
  await using input = new LineInput(Deno.stdin.readable, { prompt });
  if (flags.prompt) {
    const code = await answerOnce(flags.prompt, { conversation, terminal, input });
    await loaded.verified;
    return code;
  }
  if (completes) terminal.info("This is a base model: it does not answer, it continues the text that you begin");
  if (isInteractive) terminal.info("Type a text and press Enter; /help lists the commands, quit leaves");
  // A damaged file ends the conversation; a good one lets it go on.
  const damaged = loaded.verified.then(() => new Promise<never>(() => {}));
  return await Promise.race([chatLoop({ conversation, terminal, input }), damaged]);
}
